"""Evaluation compares like with like: the same noise for every modality, ratio and batch, and one number per seed."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from avtlm.data.manifest import Manifest, read_manifest, write_manifest
from avtlm.evaluation import evaluate as module
from avtlm.evaluation.evaluate import evaluate
from avtlm.evaluation.wer import corpus_wer
from avtlm.recognizer import Recognizer
from tests.made_model import save_corpus, save_tiny_recognizer, tiny_recognizer


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return tiny_recognizer()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_corpus(tmp_path_factory.mktemp("corpus"))


def test_the_table_has_every_modality_and_condition(corpus: Path, recognizer: Recognizer) -> None:
    report = evaluate(corpus, recognizer, ["a", "v", "av"], snrs=[5, -2.5])
    assert {modality: list(row) for modality, row in report.wer.items()} == {m: ["clean", "5", "-2.5"] for m in ("a", "v", "av")}
    assert report.wer["v"]["clean"] == report.wer["v"]["5"] == report.wer["v"]["-2.5"]
    table = report.table()
    assert "5 utterances, 15 words" in table
    assert all(word in table for word in ("audio", "video", "audio-visual", "clean", "-2.5 dB"))
    assert json.loads(json.dumps(report.to_json()))["noise"] == "babble"


def test_the_rate_is_that_of_the_texts(corpus: Path, recognizer: Recognizer) -> None:
    (condition,) = evaluate(corpus, recognizer).conditions
    pairs = [(row.transcript or "", condition.texts[row.id]) for row in read_manifest(corpus).split("test")]
    assert condition.rate == corpus_wer(pairs)


def test_case_does_not_count(corpus: Path, recognizer: Recognizer, tmp_path: Path) -> None:
    expected = evaluate(corpus, recognizer, ["a"]).wer
    manifest = read_manifest(corpus)
    loud = tuple(dataclasses.replace(row, transcript=(row.transcript or "").upper()) for row in manifest)
    write_manifest(tmp_path / "loud.jsonl", Manifest(manifest.root, loud))
    assert evaluate(tmp_path / "loud.jsonl", recognizer, ["a"]).wer == expected


def test_noise_depends_on_the_seed_and_not_on_batches_or_the_limit(
    corpus: Path, recognizer: Recognizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def texts(seed: int = 0, frames: int = 3000) -> dict[str, str]:
        monkeypatch.setattr(module, "BATCH_FRAMES", frames)
        return evaluate(corpus, recognizer, ["av"], snrs=[0], noise="white", seed=seed).conditions[1].texts

    first = texts()
    assert texts(frames=1) == first
    assert texts(seed=1) != first
    limited = evaluate(corpus, recognizer, ["av"], snrs=[0], noise="white", limit=2).conditions[1].texts
    assert limited == {name: first[name] for name in ("u0", "u1")}


@pytest.mark.parametrize("kind", ["babble", "white", "file"])
def test_noise_is_mixed_in_at_the_ratio_asked_for(kind: str, corpus: Path, recognizer: Recognizer, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[float, float]] = []

    def mix(clean: np.ndarray, noise: np.ndarray, snr: float) -> np.ndarray:
        seen.append((snr, float(np.abs(noise).max())))
        return clean

    monkeypatch.setattr(module, "mix_at_snr", mix)
    evaluate(corpus, recognizer, ["a"], snrs=[3], noise=str(corpus.parent / "0.wav") if kind == "file" else kind)
    assert [snr for snr, _ in seen] == [3] * 5
    assert all(peak > 0 for _, peak in seen)


def test_a_model_folder_is_named_in_the_report(corpus: Path, tmp_path: Path) -> None:
    report = evaluate(corpus, save_tiny_recognizer(tmp_path / "model"), limit=1)
    assert report.to_json()["model"] == str(tmp_path / "model")
    assert report.to_json()["utterances"] == 1


@pytest.mark.parametrize(
    ("change", "modality", "reason"),
    [
        ({"transcript": None}, "a", "has no transcript"),
        ({"video": None, "video_frames": 0}, "av", "has no video; choose another modality"),
        ({"audio": None, "audio_samples": 0}, "a", "has no audio; choose another modality"),
    ],
)
def test_rows_that_cannot_be_evaluated_are_named(
    change: dict[str, object], modality: str, reason: str, corpus: Path, tmp_path: Path, recognizer: Recognizer
) -> None:
    manifest = read_manifest(corpus)
    rows = (manifest[0], dataclasses.replace(manifest[1], **change))  # type: ignore[arg-type]
    write_manifest(tmp_path / "m.jsonl", Manifest(manifest.root, rows))
    with pytest.raises(ValueError, match=reason) as caught:
        evaluate(tmp_path / "m.jsonl", recognizer, [modality])
    assert "'u1'" in str(caught.value)
