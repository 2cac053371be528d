"""flashlight's search finds what our own finds, n-grams in KenLM are those in dictionaries, and a recogniser uses it where it can."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from avtlm.decoding import flashlight_search, word_search
from avtlm.decoding.hot_words import HotWords
from avtlm.decoding.lexicon import LexiconDecoder, LexiconOptions
from avtlm.decoding.ngram import END, NGram
from avtlm.decoding.word_search import WordSearch
from avtlm.text.vocabulary import Vocabulary
from tests.decoding.test_lexicon import ARPA, BLANK, SILENCE, A, B

pytest.importorskip("flashlight.lib.text.decoder", reason="needs the extra lexicon")
from avtlm.decoding.flashlight_search import FlashlightDecoder, KenModel, takes

# "C" is no word of the language model.
LEXICON = [("AB", (A, B, SILENCE)), ("B", (B, SILENCE)), ("AB", (A, SILENCE)), ("C", (B, A, SILENCE))]
WORDS = ["AB", "B", "C"]
CHARACTERS = Vocabulary.characters(["AB B"])


@pytest.fixture(scope="module")
def arpa(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "lm.arpa"
    path.write_text(ARPA)
    return path


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    frames=st.integers(1, 12),
    scored=st.booleans(),
    beam=st.sampled_from([50, 1000]),
    lm_weight=st.sampled_from([0.0, 0.7, 2.0]),
    word_score=st.sampled_from([-1.0, 0.5]),
    silence_score=st.sampled_from([0.0, -0.3]),
    unknown_score=st.sampled_from([float("-inf"), -3.0]),
    symbols=st.sampled_from([None, 3]),
)
def test_it_finds_what_our_own_search_finds(
    arpa: Path, seed: int, frames: int, scored: bool, beam: int, symbols: int | None, **weights: float
) -> None:
    ours, theirs = (NGram.read(arpa), KenModel(arpa, WORDS)) if scored else (None, None)
    emissions = (2 * torch.randn(frames, 4, generator=torch.Generator().manual_seed(seed))).log_softmax(-1)
    options = LexiconOptions(beam=beam, threshold=100.0, nbest=3, symbols=symbols, **weights)
    expected = LexiconDecoder(LEXICON, ours, options, BLANK, SILENCE).decode(emissions)
    found = FlashlightDecoder(LEXICON, theirs, options, BLANK, SILENCE, 4).decode(emissions)
    # Those that tie may come in either order.
    assert [each.score for each in found] == pytest.approx([each.score for each in expected], abs=1e-3)
    assert {(each.words, round(each.score, 2)) for each in found[:1]} <= {(each.words, round(each.score, 2)) for each in expected}
    assert all(len(each.path) == frames + 2 for each in found)


def test_kenlm_scores_as_dictionaries_do(arpa: Path) -> None:
    ours, theirs = NGram.read(arpa), KenModel(arpa, WORDS)
    for sentence in (["AB", "B", END], ["B", "C", "AB", END], [END]):
        contexts = [ours.start, theirs.start]
        for word in sentence:
            scores = [model.score(context, word) for model, context in zip((ours, theirs), contexts, strict=True)]
            assert scores[0] == pytest.approx(scores[1], abs=1e-5)
            contexts = [] if word == END else [ours.extend(contexts[0], word), theirs.extend(contexts[1], word)]


def test_a_file_that_kenlm_cannot_read_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "broken.arpa"
    path.write_text("nothing")
    with pytest.raises(ValueError, match=r"broken\.arpa: KenLM cannot read it \("):
        KenModel(path, WORDS)
    assert capfd.readouterr().err == ""


def test_too_many_words_of_one_spelling_are_left_to_our_own_search() -> None:
    alike = [(f"W{number}", (A, SILENCE)) for number in range(7)]
    assert takes(alike[:6])
    assert not takes(alike)


@pytest.mark.parametrize("large", [False, True])
def test_a_recogniser_uses_it_where_it_can(arpa: Path, tmp_path: Path, large: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    lexicon = tmp_path / "lexicon.txt"
    lexicon.write_text("AB\tA B |\nB\tB |\n")
    monkeypatch.setattr(word_search, "LARGE", 0 if large else 1 << 40)
    options = LexiconOptions(beam=50, lm_weight=1.0, word_score=0.0, nbest=2)
    logits = torch.randn(3, 20, len(CHARACTERS), generator=torch.Generator().manual_seed(0))
    log_probs, lengths = (3 * logits).log_softmax(-1), torch.tensor([20, 11, 1])
    search = WordSearch.open(lexicon, arpa, options, CHARACTERS)
    assert isinstance(search.decoder, FlashlightDecoder)
    biased = WordSearch.open(lexicon, arpa, options, CHARACTERS, HotWords({"AB": 2.0}, CHARACTERS))
    assert isinstance(biased.decoder, LexiconDecoder)
    monkeypatch.setattr(flashlight_search, "library", lambda: None)
    own = WordSearch.open(lexicon, arpa, options, CHARACTERS)
    assert isinstance(own.decoder, LexiconDecoder)
    for found, expected in zip(search(log_probs, lengths), own(log_probs, lengths), strict=True):
        assert [each.text for each in found] == [each.text for each in expected]
        assert [each.tokens for each in found] == [each.tokens for each in expected]
        for ours, theirs in zip(found, expected, strict=True):
            assert ours.components == pytest.approx(theirs.components, abs=1e-3)
