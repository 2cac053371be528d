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
