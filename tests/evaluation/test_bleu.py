import builtins

import pytest

from avtlm.errors import MissingExtra
from avtlm.evaluation.bleu import corpus_bleu


def test_equal_translations_score_100_and_the_signature_says_how() -> None:
    score = corpus_bleu(["the cat sat on the mat"], [["the cat sat on the mat"]])
    assert score.bleu == pytest.approx(100.0)
    assert score.brevity_penalty == 1.0
    assert "tok:13a" in score.signature
    assert str(score).startswith("100.0 (nrefs:1|")


def test_other_ways_of_smoothing_are_counted_and_said_in_the_signature() -> None:
    words = (["a b c d e"], [["a b c x y"]])
    plain, floored = corpus_bleu(*words), corpus_bleu(*words, smooth_method="floor", smooth_value=0.5)
    assert plain.precisions == pytest.approx((60.0, 50.0, 100 / 3, 25.0))  # none of the two sequences of four: 1 / 2 of one
    assert floored.precisions[3] == pytest.approx(25.0)
    assert corpus_bleu(*words, smooth_method="none").bleu == 0.0
    assert "smooth:floor[0.50]" in floored.signature
    short = corpus_bleu(["a b c"], [["a b c"]], effective_order=True)
    assert short.bleu == pytest.approx(100.0)
    assert "eff:yes" in short.signature


def test_a_stream_of_another_length_and_an_empty_corpus_are_refused() -> None:
    with pytest.raises(ValueError, match="references 2: 2 sentences for 1 translations"):
        corpus_bleu(["a"], [["a"], ["a", "b"]])
    with pytest.raises(ValueError, match="no translation"):
        corpus_bleu([], [[]])


def test_the_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def absent(name: str, *args: object, **kwargs: object) -> object:
        if name.startswith("sacrebleu"):
            raise ImportError(name)
        return original(name, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(MissingExtra, match=r"sacrebleu is needed for scoring translations.*avtlm\[metrics\]"):
        corpus_bleu(["a"], [["a"]])
