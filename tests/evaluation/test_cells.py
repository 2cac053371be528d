"""Finished cells of an evaluation are taken over if and only if all of what was asked is the same."""

import json
from pathlib import Path

import pytest
import torch

from avtlm.evaluation.cells import Cells, fingerprint, read_cell
from avtlm.evaluation.evaluate import evaluate
from avtlm.recognizer import Recognizer
from tests.made_model import save_corpus, tiny_recognizer

VISUAL = {"missing": (50.0,), "offset": (-80.0, 80.0)}


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return tiny_recognizer()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_corpus(tmp_path_factory.mktemp("corpus"))


def count_calls(model: Recognizer, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that grows by one entry with every batch that the model transcribes."""
    calls: list[int] = []
    transcribe = model.transcribe_batch

    def counted(batch, decoding=None):  # type: ignore[no-untyped-def]
        calls.append(len(batch))
        return transcribe(batch, decoding)

    monkeypatch.setattr(model, "transcribe_batch", counted)
    return calls


def test_a_stopped_evaluation_goes_on_and_ends_as_if_it_had_not_been(
    corpus: Path, recognizer: Recognizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"modalities": ["a", "av"], "snrs": [0.0], "noise": "white", "visual": VISUAL}
    expected = evaluate(corpus, recognizer, **asked)  # type: ignore[arg-type]
    keep, kept = Cells.keep, []

    def stop(self: Cells, *cell: object) -> None:
        keep(self, *cell)  # type: ignore[arg-type]
        kept.append(cell)
        if len(kept) == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Cells, "keep", stop)
        with pytest.raises(KeyboardInterrupt):
            evaluate(corpus, recognizer, **asked, cells=tmp_path / "cells")  # type: ignore[arg-type]
    assert len(list((tmp_path / "cells").iterdir())) == 3
    calls = count_calls(recognizer, monkeypatch)
    found = evaluate(corpus, recognizer, **asked, cells=tmp_path / "cells")  # type: ignore[arg-type]
    assert found == expected
    assert len(calls) == 2 * 2 + 3 - 3  # clean and noise for both inputs, three pictures for both together
    calls.clear()
    assert evaluate(corpus, recognizer, **asked, cells=tmp_path / "cells") == expected  # type: ignore[arg-type]
    assert calls == []


@pytest.mark.parametrize("change", ["seed", "limit", "decoding", "weights"])
def test_nothing_is_taken_from_another_evaluation(
    change: str, corpus: Path, recognizer: Recognizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate(corpus, recognizer, ["a"], cells=tmp_path)
    other = recognizer
    more: dict[str, object] = {"seed": {"seed": 1}, "limit": {"limit": 2}, "decoding": {"decoding": ["beam=3"]}, "weights": {}}[change]  # type: ignore[assignment]
    if change == "weights":
        other = tiny_recognizer()
        assert other.ctc is not None
        torch.nn.init.normal_(other.ctc.bias)
    calls = count_calls(other, monkeypatch)
    evaluate(corpus, other, ["a"], cells=tmp_path, **more)  # type: ignore[arg-type]
    assert calls
    assert len(list(tmp_path.iterdir())) == 2


def test_a_cell_holds_what_was_said_and_recognised(corpus: Path, recognizer: Recognizer, tmp_path: Path) -> None:
    report = evaluate(corpus, recognizer, ["av"], cells=tmp_path, visual={"blur": (2.0,)})
    cells = {path.name.split("-")[1]: read_cell(path) for path in tmp_path.iterdir()}
    blurred = next(cell for cell in cells.values() if cell.asked["visual"] == "blur")
    assert (blurred.asked["modality"], blurred.asked["strength"], blurred.asked["snr"]) == ("av", 2.0, None)
    assert {name: text for name, _, text in blurred.utterances} == report.conditions[-1].texts
    assert {said for _, said, _ in blurred.utterances} == {"bin blue now", "lay red soon", "set green again"}


def test_a_damaged_cell_is_named(corpus: Path, recognizer: Recognizer, tmp_path: Path) -> None:
    evaluate(corpus, recognizer, ["a"], cells=tmp_path)
    [path] = tmp_path.iterdir()
    whole = path.read_text()
    for content in (whole[:-20], "[]", json.dumps({"asked": {}, "utterances": [{"id": 1, "reference": "", "text": ""}]})):
        path.write_text(content)
        with pytest.raises(ValueError, match="delete the file to measure it anew"):
            evaluate(corpus, recognizer, ["a"], cells=tmp_path)
    path.write_text(whole.replace('"seed": 0', '"seed": 5'))
    with pytest.raises(ValueError, match="is of another evaluation"):
        evaluate(corpus, recognizer, ["a"], cells=tmp_path)


def test_equal_models_have_equal_fingerprints(recognizer: Recognizer) -> None:
    assert fingerprint(recognizer, ["x"]) == fingerprint(tiny_recognizer(), ["x"])
    assert fingerprint(recognizer, ["x"]) != fingerprint(recognizer, ["y"])
