"""Claims about searches as settings describe them, through a recogniser: a setting does what it says, and what does not fit is said."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from avtlm import config
from avtlm.checkpoint import save_model
from avtlm.decoding.settings import DecodingConfig, FusionConfig, RescoringConfig
from avtlm.nn.transformer import DecoderConfig
from avtlm.recognizer import Recognizer
from avtlm.systems.language_model import LanguageModel, LanguageModelConfig
from avtlm.text.vocabulary import EOS, Tokenizer, Vocabulary
from tests.test_recognizer import BOTH, VOCABULARY, batch, recogniser, row_of

ARPA = """\\data\\
ngram 1=8
ngram 2=2

\\1-grams:
-0.9 </s>
-99 <s> -0.3
-0.7 a -0.2
-0.9 b
-1.1 c
-0.8 d
-0.6 e
-0.9 |

\\2-grams:
-0.2 a b
-0.3 b |

\\end\\
"""
WORDS = "\\data\\\nngram 1=3\n\n\\1-grams:\n-0.5 </s>\n-99 <s>\n-1.0 {word}\n\n\\end\\\n"


def language_model(folder: Path, vocabulary: Tokenizer = VOCABULARY) -> Path:
    torch.manual_seed(3)
    model = LanguageModel(LanguageModelConfig(len(vocabulary), 16, 2, 2, 16))
    for parameter in model.parameters():
        parameter.data.mul_(2.0)
    card = {"system": "language_model", "task": "language_model", "model": config.to_dict(model.config)}
    save_model(folder, model, card, vocabulary)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files that settings name: language models over tokens and words, a lexicon."""
    made = tmp_path_factory.mktemp("files")
    language_model(made / "lm")
    (made / "tokens.arpa").write_text(ARPA)
    (made / "words.arpa").write_text(WORDS.format(word="ab"))
    (made / "lexicon.txt").write_text("ab\ta b |\nde\td e |\nc\tc |\n")
    return made


def model_in(folder: Path, **changes: Any) -> Recognizer:
    model = recogniser(replace(BOTH, **changes) if changes else BOTH)
    model.folder = folder
    return model


SEARCHES: dict[str, dict[str, Any]] = {
    "prefixes": {"method": "ctc_beam", "hot_words": {"ab": 2.0, "e": 1.0}, "rescoring": RescoringConfig("lm"), "skip_blanks": 0.9},
    "words": {"method": "ctc_lexicon", "lexicon": "lexicon.txt", "language_model": "words.arpa", "hot_words": {"de c": 3.0}},
    "summed words": {"method": "ctc_lexicon", "lexicon": "lexicon.txt", "alignments": "summed", "rescoring": RescoringConfig("words.arpa")},
    "attention": {"method": "attention", "fusion": FusionConfig("lm", 0.5), "hot_words": {"ab": 2.0}, "no_repeat_ngram": 2},
    "attention, ranked by CTC": {"method": "attention", "ctc_weight": 0.4, "fusion": FusionConfig("tokens.arpa", 0.5, False)},
    "joint": {"method": "joint", "ctc_weight": 0.3, "fusion": FusionConfig("lm", 0.5), "hot_words": {"e": 1.0}, "length_bonus": 0.2},
    "CTC alone": {"method": "joint", "ctc_weight": 1.0, "fusion": FusionConfig("lm", 0.5), "rescoring": RescoringConfig("words.arpa")},
    "SpeechT5": {"method": "joint", "convention": "speecht5", "ctc_weight": 0.3, "fusion": FusionConfig("tokens.arpa")},
    "SpeechUT": {"method": "joint", "convention": "speechut", "ctc_weight": 0.3, "rescoring": RescoringConfig("lm", 0.7, 0.1)},
}


@pytest.mark.parametrize("name", SEARCHES)
def test_a_row_is_searched_as_if_it_were_alone(folder: Path, name: str) -> None:
    model, whole = model_in(folder), batch()
    decoding = DecodingConfig(beam=6, nbest=3, **SEARCHES[name])
    together = model.transcribe_batch(whole, decoding)
    for row, result in enumerate(together):
        alone = model.transcribe_batch(row_of(whole, row), decoding)[0]
        assert [h.tokens for h in alone.hypotheses] == [h.tokens for h in result.hypotheses]
        for ours, other in zip(alone.hypotheses, result.hypotheses, strict=True):
            assert ours.score == pytest.approx(other.score, abs=1e-3)
        assert [(word.text, word.start, word.end) for word in alone.words] == [(word.text, word.start, word.end) for word in result.words]


@pytest.mark.parametrize("name", SEARCHES)
def test_an_utterance_without_frames_is_empty(folder: Path, name: str) -> None:
    find = model_in(folder).open_search(DecodingConfig(beam=6, **SEARCHES[name]))
    found = find(torch.randn(2, 5, 16), torch.tensor([0, 5]))
    assert found[0][0].tokens == ()
    assert found[0][0].text == ""
    assert find(torch.zeros(1, 0, 16), torch.tensor([0]))[0][0].tokens == ()


@pytest.mark.parametrize("name", SEARCHES)
def test_the_best_hypothesis_has_words_with_times_and_confidence(folder: Path, name: str) -> None:
    results = model_in(folder).transcribe_batch(batch(), DecodingConfig(beam=6, nbest=2, **SEARCHES[name]))
    words = [word for result in results for word in result.words]
    assert words
    for word in words:
        assert word.start is not None
        assert word.end is not None
        assert 0.0 <= word.start < word.end <= 12 * 0.04 + 1e-9
        assert word.confidence is not None
        assert 0.0 <= word.confidence <= 1.0


def test_a_model_without_ctc_finds_times_where_its_decoder_looks(folder: Path) -> None:
    model = model_in(folder, ctc_weight=0.0, decoding=DecodingConfig("attention"))
    results = model.transcribe_batch(batch(), DecodingConfig("attention", hot_words={"ab": 20.0}))
    assert any(result.words for result in results)
    for result, frames in zip(results, (12, 5, 9), strict=True):
        times = [time for word in result.words for time in (word.start, word.end) if time is not None]
        assert times == sorted(times)
        assert len(times) == 2 * len(result.words) or len(result.hypotheses[0].tokens) > frames
        assert all(0 <= time <= frames * 0.04 + 1e-9 for time in times)


def test_words_are_left_without_times_where_none_are_wanted(folder: Path) -> None:
    results = model_in(folder).transcribe_batch(batch(), DecodingConfig("attention", words=False))
    assert all(word.start is None for result in results for word in result.words)


@settings(max_examples=4)
@given(st.sampled_from(["attention", "joint"]), st.sampled_from(["lm", "tokens.arpa"]), st.sampled_from([0.3, 1.0]))
def test_rescoring_all_texts_equals_fusion(folder: Path, method: str, name: str, weight: float) -> None:
    """A beam that holds everything makes no difference between a say in every step and a say in the end."""
    model = model_in(folder)
    tokens = {"ctc_weight": 0.4} if method == "joint" else {}
    shared: dict[str, Any] = {"method": method, "beam": 10, "nbest": 10, "max_length_ratio": 0.0, "max_length_extra": 1.0, **tokens}
    fused = model.search(batch(), DecodingConfig(**shared, fusion=FusionConfig(name, weight)))
    if name == "lm":
        ranked = model.search(batch(), DecodingConfig(**shared, rescoring=RescoringConfig(name, weight)))
        for ours, theirs in zip(fused, ranked, strict=True):
            scores = {h.tokens: h.score for h in theirs}
            # Texts that the limit cuts off have no end in a joint search, and a language model would rank them by one.
            whole = [h for h in ours if method == "attention" or not h.tokens]
            assert len(whole) >= 1
            assert all(scores[h.tokens] == pytest.approx(h.score, abs=1e-3) for h in whole if h.tokens in scores)
            assert any(h.tokens in scores for h in whole)
    for ours in fused:
        for hypothesis in ours:
            parts = hypothesis.components
            share = 1 - 0.4 if method == "joint" else 1.0
            total = share * parts["attention"] + weight * parts["lm"] + (0.4 * parts["ctc"] if method == "joint" else 0.0)
            length = 1 if method == "joint" else len(hypothesis.tokens) + 1
            assert hypothesis.score == pytest.approx(total / length, abs=1e-3)


@pytest.mark.parametrize(("method", "share"), [("attention", 0.0), ("joint", 0.3), ("joint", 1.0)])
def test_what_the_language_model_said_along_a_beam_is_what_it_says_of_the_whole_text(folder: Path, method: str, share: float) -> None:
    model = model_in(folder)
    decoding = DecodingConfig(method, 8, 8, ctc_weight=share, fusion=FusionConfig("lm", 0.7))  # type: ignore[arg-type]
    language, frames = model.open_search(decoding).fused, (12, 5, 9)
    assert isinstance(language, LanguageModel)
    compared = 0
    for row, longest in zip(model.search(batch(), decoding), frames, strict=True):
        for hypothesis in row:
            if hypothesis.score == -float("inf") or (method == "joint" and len(hypothesis.tokens) == longest):
                continue  # nothing was found, or the text was cut off without an end
            text = [EOS, *hypothesis.tokens, EOS]
            with torch.no_grad():
                said = language(torch.tensor([text[:-1]])).log_softmax(-1)[0]
            expected = sum(float(said[place, token]) for place, token in enumerate(text[1:]))
            assert hypothesis.components["lm"] == pytest.approx(expected, abs=1e-3)
            compared += 1
    assert compared > 6


def test_a_language_model_that_scores_no_ends_gives_them_nothing(folder: Path) -> None:
    model, shared = model_in(folder), {"method": "attention", "beam": 5, "nbest": 5, "max_length_ratio": 0.0, "max_length_extra": 1.0}
    ends, none = (
        model.search(batch(), DecodingConfig(**shared, fusion=FusionConfig("lm", 1.0, score_end)))
        for score_end in (True, False)  # type: ignore[arg-type]
    )
    lm = model.open_search(DecodingConfig(**shared, fusion=FusionConfig("lm", 1.0))).fused  # type: ignore[arg-type]
    assert lm is not None
    with torch.no_grad():
        said, _ = lm.step(torch.tensor([EOS]), lm.initial_state(1))
    first = {h.tokens: h.components["lm"] for h in none[0]}
    assert first
    for tokens, score in first.items():
        assert score == pytest.approx(float(said[0, tokens[0]]), abs=1e-4)
    assert all(h.components["lm"] < first[h.tokens] for h in ends[0] if h.tokens in first)


def test_lengths_and_repeats_are_bounded(folder: Path) -> None:
    model = model_in(folder)
    for method, share in (("attention", 0.0), ("joint", 0.4)):
        shared: dict[str, Any] = {"method": method, "ctc_weight": share, "beam": 4}
        long = model.search(batch(), DecodingConfig(**shared, min_length=4))
        assert all(len(row[0].tokens) >= 4 for row in long)
        short = model.search(batch(), DecodingConfig(**shared, max_length_ratio=0.0, max_length_extra=2.0))
        assert all(len(row[0].tokens) <= 2 for row in short)
        once = model.search(batch(), DecodingConfig(**shared, min_length=4, no_repeat_ngram=1))
        assert all(len(set(row[0].tokens)) == len(row[0].tokens) for row in once)


def test_an_end_that_is_not_likely_enough_does_not_come(folder: Path) -> None:
    model = model_in(folder)
    for method, share in (("attention", 0.0), ("joint", 0.2)):
        shared: dict[str, Any] = {"method": method, "ctc_weight": share, "beam": 4}
        free = model.search(batch(), DecodingConfig(**shared))
        never = model.search(batch(), DecodingConfig(**shared, end_threshold=1e-9))  # log-probabilities above 0
        always = model.search(batch(), DecodingConfig(**shared, end_threshold=1e9))
        assert [row[0].tokens for row in always] == [row[0].tokens for row in free]
        lengths = zip(never, (12, 5, 9), strict=True)
        assert all(len(row[0].tokens) >= frames or row[0].score == -float("inf") for row, frames in lengths)
        assert any(row[0].tokens for row in never)


def test_n_best_lists_come_in_order_with_their_parts(folder: Path) -> None:
    for result in model_in(folder).transcribe_batch(batch(), DecodingConfig("joint", 6, 4, ctc_weight=0.3, fusion=FusionConfig("lm"))):
        scores = [h.score for h in result.hypotheses]
        assert 1 < len(scores) <= 4
        assert scores == sorted(scores, reverse=True)
        assert all(set(h.components) == {"attention", "ctc", "lm"} for h in result.hypotheses)
        read = result.to_dict()["hypotheses"]
        assert [set(each["components"]) for each in read] == [{"attention", "ctc", "lm"}] * len(scores)


def test_hot_words_bring_a_word_about(folder: Path) -> None:
    model = model_in(folder)
    for shared in ({"method": "ctc_beam"}, {"method": "attention"}, {"method": "joint", "ctc_weight": 0.3}):
        plain = model.transcribe_batch(batch(), DecodingConfig(**shared))  # type: ignore[arg-type]
        hot = model.transcribe_batch(batch(), DecodingConfig(**shared, hot_words={"ab": 60.0}))  # type: ignore[arg-type]
        assert sum("ab" in result.text.split() for result in hot) > sum("ab" in result.text.split() for result in plain)


# What is refused -------------------------------------------------------------------------------------------------------------------------

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"method": "joint"}, "ctc_weight: 0 for joint leaves CTC out"),
    ({"nbest": 2}, "nbest: 2; give at least 1, and at most 1, as ctc_greedy finds one text"),
    ({"method": "ctc_beam", "nbest": 11}, "at most the beam of 10"),
    ({"hot_words": {"ab": 1.0}}, "hot_words: ctc_greedy has one hypothesis"),
    ({"rescoring": RescoringConfig("lm")}, "rescoring: ctc_greedy has one hypothesis"),
    ({"method": "ctc_beam", "fusion": FusionConfig("lm")}, "fusion: is for attention and joint only"),
    ({"method": "ctc_beam", "no_repeat_ngram": 3}, "no_repeat_ngram: is for attention and joint only"),
    ({"method": "ctc_beam", "min_length": 3}, "min_length: is for attention"),
    ({"method": "ctc_beam", "end_threshold": 1.5}, "end_threshold: is for attention"),
    ({"method": "attention", "length_bonus": 1.0}, "only joint by the rules of espnet has one"),
    ({"method": "attention", "convention": "speechut"}, "convention: speechut for attention; only joint"),
    ({"method": "attention", "skip_blanks": 0.9}, "skip_blanks: 0.9 for attention"),
    ({"method": "ctc_beam", "skip_blanks": 1.5}, "skip_blanks: 1.5"),
    ({"method": "attention", "fusion": FusionConfig("lm", 0.0)}, r"fusion\.weight: 0\.0; give a number above 0"),
    ({"method": "attention", "rescoring": RescoringConfig("lm"), "beam": 1}, "a beam of 1 leaves one hypothesis"),
    ({"method": "attention", "min_length": -1}, "cannot be negative"),
    ({"method": "joint", "ctc_weight": 1.0, "end_threshold": 1.5}, "end_threshold: 1.5; give a factor above 0"),
    ({"method": "ctc_beam", "alignments": "summed"}, "alignments: summed is for ctc_lexicon"),
]


@pytest.mark.parametrize(("wrong", "message"), WRONG, ids=lambda value: "" if isinstance(value, dict) else value[:30])
def test_settings_that_do_nothing_or_contradict_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        DecodingConfig(**wrong)
    assert "\n" not in str(caught.value)


def test_what_does_not_fit_the_model_is_said_in_a_sentence(folder: Path, tmp_path: Path) -> None:
    other = language_model(tmp_path / "other", Vocabulary.characters(["xyz"]))
    (tmp_path / "cut.arpa").write_text(ARPA[:100])
    (tmp_path / "upper.arpa").write_text(WORDS.format(word="XYZ"))
    (tmp_path / "odd.txt").write_text("ax\ta x |\n")
    both = model_in(folder)
    ctc = model_in(folder, ctc_weight=1.0, decoder=None)
    attention = model_in(folder, ctc_weight=0.0, decoding=DecodingConfig("attention"))
    joint = {"method": "joint", "ctc_weight": 0.3}
    cases: list[tuple[Recognizer, dict[str, Any], str]] = [
        (ctc, joint, "joint was asked for, but this model has no decoder"),
        (ctc, joint | {"ctc_weight": 1.0, "convention": "speecht5"}, "this model has no decoder"),
        (attention, joint, "joint was asked for, but this model has no CTC head"),
        (attention, {"method": "attention", "ctc_weight": 0.3}, "this model has no CTC head"),
        (both, joint | {"beam": 11}, "beam: 11 is larger than the vocabulary of 10 tokens"),
        (both, joint | {"fusion": FusionConfig(str(other))}, r"was trained on other tokens \(8\) than this recogniser writes \(10\)"),
        (both, joint | {"fusion": FusionConfig("none")}, "fusion.language_model: there is no file none"),
        (both, joint | {"fusion": FusionConfig(str(tmp_path / "cut.arpa"))}, "is cut off"),
        (both, joint | {"fusion": FusionConfig(str(tmp_path / "upper.arpa"))}, "knows none of the 10 tokens"),
        (both, joint | {"rescoring": RescoringConfig(str(tmp_path / "upper.arpa"))}, "has no word that this recogniser can write"),
        (both, {"method": "ctc_lexicon", "lexicon": str(tmp_path / "odd.txt")}, "symbol 'x' is not in the vocabulary"),
        (both, {"method": "ctc_lexicon", "lexicon": "lexicon.txt", "hot_words": {"bad": 1.0}}, "'bad' is not in the lexicon"),
        (both, {"method": "ctc_beam", "hot_words": {"Ab": 1.0}}, "which this model cannot write"),
    ]
    for model, wrong, message in cases:
        with pytest.raises(ValueError, match=message) as caught:
            model.search(batch(), DecodingConfig(**wrong))
        assert "\n" not in str(caught.value)
        assert str(caught.value).endswith((".", "?"))


def test_a_model_with_joint_decoding_but_without_the_heads_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match=r"decoding\.method: joint needs a decoder"):
        replace(BOTH, ctc_weight=1.0, decoder=None, decoding=DecodingConfig("joint", ctc_weight=0.3))
    alone = replace(BOTH, ctc_weight=1.0, decoder=None, decoding=DecodingConfig("joint", ctc_weight=1.0))
    assert alone.decoding.method == "joint"


def test_searches_stop_before_positions_run_out(folder: Path) -> None:
    small = DecoderConfig(dim=16, layers=1, heads=2, feed_forward_dim=16, positions="learned", max_positions=6)
    model = model_in(folder, decoder=small)
    for decoding in (DecodingConfig("attention", min_length=9), DecodingConfig("joint", ctc_weight=0.1, min_length=9)):
        assert all(len(row[0].tokens) <= 5 for row in model.search(batch(), decoding))


def test_settings_survive_the_way_through_a_file() -> None:
    decoding = DecodingConfig(
        "joint", ctc_weight=0.3, hot_words={"new york": 2.5}, fusion=FusionConfig("lm", 0.7), rescoring=RescoringConfig("x")
    )
    assert config.load(DecodingConfig, config.to_dict(decoding)) == decoding
    changed = config.load(DecodingConfig, config.to_dict(DecodingConfig("attention")), ["fusion.language_model=lm", "hot_words={ab: 2}"])
    assert changed.fusion == FusionConfig("lm")
    assert changed.hot_words == {"ab": 2.0}
