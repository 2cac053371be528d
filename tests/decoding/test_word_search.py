"""Lexicon and language model from a model's decoding settings: what is found, what is refused, and that commands use it."""

import gzip
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from avtlm import config, systems
from avtlm.checkpoint import save_model
from avtlm.cli import main
from avtlm.decoding.lexicon import LexiconOptions
from avtlm.decoding.ngram import NGram
from avtlm.decoding.result import transcript
from avtlm.decoding.word_search import WordSearch
from avtlm.recognizer import DecodingConfig, Recognizer
from avtlm.text.vocabulary import BLANK, Vocabulary, load_vocabulary
from tests.decoding.test_lexicon import ARPA
from tests.decoding.test_search import language_model
from tests.made_model import WORDS, save_corpus, save_tiny_recognizer, tiny_recognizer

CHARACTERS = Vocabulary.characters(["AB B"])
LETTERS = Vocabulary.letters()
LEXICON = "AB\tA B |\nB\tB |\n"
OPTIONS = LexiconOptions(beam=50, lm_weight=1.0, word_score=0.0)


@pytest.fixture
def lexicon(tmp_path: Path) -> Path:
    path = tmp_path / "lexicon.txt"
    path.write_text(LEXICON)
    return path


@pytest.fixture
def arpa(tmp_path: Path) -> Path:
    path = tmp_path / "lm.arpa"
    path.write_text(ARPA)
    return path


def emissions(symbols: str, vocabulary: Vocabulary) -> torch.Tensor:
    """Clear log-probabilities (1, frames, symbols) of one symbol a frame; ``-`` is blank."""
    logits = torch.zeros(1, len(symbols), len(vocabulary))
    for frame, symbol in enumerate(symbols):
        logits[0, frame, BLANK if symbol == "-" else vocabulary.symbols.index(symbol)] = 8.0
    return logits.log_softmax(-1)


@pytest.mark.parametrize(("vocabulary", "said"), [(CHARACTERS, "-AB|-BB"), (LETTERS, "-AB|-B|")])
def test_words_have_their_times_whether_or_not_a_symbol_ends_the_last(lexicon: Path, vocabulary: Vocabulary, said: str) -> None:
    search = WordSearch.open(lexicon, None, OPTIONS, vocabulary)
    [[found]] = search(emissions(said, vocabulary), torch.tensor([len(said)]))
    assert found.text == "AB B"
    result = transcript([found], vocabulary, 0.02)
    assert result.text == "AB B"
    assert [(word.text, word.start, word.end) for word in result.words] == [
        ("AB", pytest.approx(0.02), pytest.approx(0.06)),
        ("B", pytest.approx(0.10), pytest.approx(0.12 if vocabulary is LETTERS else 0.14)),
    ]
    assert all(word.confidence is not None and word.confidence > 0.9 for word in result.words)
    assert found.components["ctc"] == pytest.approx(found.score, abs=1e-4)


def test_padding_and_other_rows_change_nothing(lexicon: Path) -> None:
    search = WordSearch.open(lexicon, None, OPTIONS, CHARACTERS)
    log_probs = 3 * torch.randn(3, 9, len(CHARACTERS), generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([9, 4, 0])
    together = search(log_probs.log_softmax(-1), lengths)
    for row, length in enumerate(lengths.tolist()):
        assert search(log_probs[row : row + 1, :length].log_softmax(-1), lengths[row : row + 1]) == [together[row]]
    assert together[2][0].tokens == ()


def test_the_language_model_decides_between_words_that_sound_alike(tmp_path: Path, lexicon: Path, arpa: Path) -> None:
    unsure = emissions("-B|-B|", LETTERS)
    unsure[0, 0, LETTERS.symbols.index("A")] = unsure[0, 0].max() - 1.5
    lengths = torch.tensor([6])
    [[heard]] = WordSearch.open(lexicon, None, OPTIONS, LETTERS)(unsure, lengths)
    [[believed]] = WordSearch.open(lexicon, arpa, replace(OPTIONS, lm_weight=3.0), LETTERS)(unsure, lengths)
    assert (heard.text, believed.text) == ("B B", "AB B")
    assert believed.components["lm"] == pytest.approx((-0.1 - 0.2 - 0.4 - 0.9) * 2.302585, abs=1e-5)
    packed = tmp_path / "lm.arpa.gz"
    packed.write_bytes(gzip.compress(ARPA.encode()))
    assert NGram.read(packed) == NGram.read(arpa)


def test_a_word_may_be_spelled_with_other_letters_than_its_own(tmp_path: Path) -> None:
    path = tmp_path / "lexicon.txt"
    path.write_text("and\tA B |\n")
    [[found]] = WordSearch.open(path, None, OPTIONS, LETTERS)(emissions("AB|", LETTERS), torch.tensor([3]))
    assert [word.text for word in transcript([found], LETTERS).words] == ["and"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("AB\tA C |\n", r"lexicon.txt, line 1: symbol 'C' is not in the vocabulary\."),
        ("AB\tA B |\nB\tB\n", r"lexicon.txt, line 2: the spelling of 'B' has to end in '\|', behind symbols of its own\."),
        ("B\t|\n", r"line 1: the spelling of 'B' has to end in"),
        ("", r"lexicon.txt: holds no words"),
        (b"\xff\xfe\x00", r"lexicon.txt: is no text"),
    ],
)
def test_a_wrong_lexicon_is_refused_in_one_sentence(lexicon: Path, content: str | bytes, message: str) -> None:
    lexicon.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ValueError, match=message):
        WordSearch.open(lexicon, None, OPTIONS, CHARACTERS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (ARPA.replace("\\end\\", ""), r"lm.arpa: does not end as an ARPA file; it is cut off"),
        (ARPA.replace("-0.2\tAB B\n", ""), r"with 1 of 2 2-grams; it is cut off"),
        (ARPA.replace("-0.9", "often"), r"lm.arpa, line 8: 'often' is no log10 of a probability"),
        (ARPA.replace("\\1-grams:", "\\one-grams:"), r"line 5: 'one' where a number of words or n-grams belongs"),
        (b"mmap lm http://kheafield.com/code format version 5\n\xa0\xff", r"lm.arpa: is damaged or no text"),
        (ARPA.replace("AB", "ab").replace("B", "b"), r"has none of the words of .*lexicon.txt, such as 'AB'; is the case the same"),
    ],
)
def test_a_corrupt_language_model_is_refused_in_one_sentence(lexicon: Path, arpa: Path, content: str | bytes, message: str) -> None:
    arpa.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ValueError, match=message):
        WordSearch.open(lexicon, arpa, OPTIONS, CHARACTERS)


def test_a_damaged_compressed_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "lm.arpa.gz"
    path.write_bytes(gzip.compress(ARPA.encode())[:-12])
    with pytest.raises(ValueError, match="is damaged or no text"):
        NGram.read(path)


def test_settings_that_do_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match=r"lexicon: words\.txt for ctc_beam; a lexicon and the method ctc_lexicon belong together"):
        DecodingConfig("ctc_beam", lexicon="words.txt")
    with pytest.raises(ValueError, match="lexicon: none for ctc_lexicon"):
        DecodingConfig("ctc_lexicon")
    with pytest.raises(ValueError, match=r"language_model: lm\.arpa for ctc_greedy; only ctc_lexicon takes one"):
        DecodingConfig(language_model="lm.arpa")
    with pytest.raises(ValueError, match="threshold: 0"):
        DecodingConfig(threshold=0)


def test_models_that_write_no_letters_have_no_lexicon(lexicon: Path) -> None:
    with pytest.raises(ValueError, match="which this model does not write; choose ctc_beam"):
        WordSearch.open(lexicon, None, OPTIONS, Vocabulary.tokens(["a b"]))


# Through a model folder ------------------------------------------------------------------------------------------------------------------


def model_with_lexicon(folder: Path) -> Path:
    """A model whose folder holds the lexicon that its decoding settings name."""
    model: Recognizer = tiny_recognizer()
    decoding = DecodingConfig("ctc_lexicon", beam=5, word_score=0.5, lexicon="lexicon.txt")
    model.config = replace(model.config, decoding=decoding)
    words = sorted({word for text in WORDS for word in text.split()})
    files = {"lexicon.txt": "".join(f"{word}\t{' '.join(word)} |\n" for word in words)}
    card = {"system": "vatlm", "task": "recognition", "model": config.to_dict(model.config)}
    save_model(folder, model, card, model.vocabulary, files, decoding=decoding)
    return folder


def test_commands_search_as_the_folder_says_and_as_they_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, manifest = model_with_lexicon(tmp_path / "model"), save_corpus(tmp_path / "corpus")
    known = {word for text in WORDS for word in text.split()}
    assert main(["transcribe", str(tmp_path / "corpus" / "0.wav"), "--modality", "a", "--model", str(folder)]) == 0
    found = capsys.readouterr().out.split()
    assert found
    assert set(found) <= known
    assert main(["evaluate", str(manifest), "--modality", "a", "--model", str(folder), "--json"]) == 0
    assert "decoding" not in json.loads(capsys.readouterr().out)
    greedy = ["--decoding", "method=ctc_greedy", "--decoding", "lexicon=null"]
    assert main(["transcribe", str(tmp_path / "corpus" / "0.wav"), "--modality", "a", "--model", str(folder), *greedy]) == 0
    assert capsys.readouterr().out.split() != found
    assert main(["evaluate", str(manifest), "--modality", "a", "--model", str(folder), "--json", *greedy]) == 0
    assert json.loads(capsys.readouterr().out)["decoding"] == ["method=ctc_greedy", "lexicon=null"]


def test_a_corpus_is_evaluated_with_a_fused_language_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, manifest = save_tiny_recognizer(tmp_path / "model"), save_corpus(tmp_path / "corpus")
    language_model(folder / "lm", load_vocabulary(folder))
    fused = ["method=joint", "ctc_weight=1", "beam=4", "fusion.language_model=lm", "max_length_ratio=0", "max_length_extra=12"]
    arguments = ["evaluate", str(manifest), "--modality", "a", "--limit", "2", "--model", str(folder), "--json"]
    assert main([*arguments, *(part for setting in fused for part in ("--decoding", setting))]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["decoding"] == fused
    assert found["wer"]["a"]["clean"] > 0


def test_the_decoding_settings_of_a_folder_may_be_edited(tmp_path: Path) -> None:
    folder = save_tiny_recognizer(tmp_path / "model")
    (folder / "decoding.yaml").write_text("method: ctc_beam\nbeam: 3\n")
    decoding = systems.load(folder).config.decoding
    assert (decoding.method, decoding.beam) == ("ctc_beam", 3)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("lexicon=nowhere.txt", "decoding.lexicon: there is no file nowhere.txt, neither here nor in the model's folder"),
        ("language_model=lm.arpa", "decoding.language_model: there is no file lm.arpa"),
        ("beem=3", "key 'beem' is not known; did you mean 'beam'?"),
    ],
)
def test_wrong_settings_end_a_command_with_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], setting: str, message: str
) -> None:
    folder, manifest = model_with_lexicon(tmp_path / "model"), save_corpus(tmp_path / "corpus")
    assert main(["evaluate", str(manifest), "--modality", "a", "--model", str(folder), "--decoding", setting]) in (1, 2)
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in error
    assert error.startswith("avtlm: ")
