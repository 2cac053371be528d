"""The benchmark of exports compares four forms of one model on the same clips."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from avtlm.nn.int8 import quantise
from benchmarks import export
from tests.made_model import save_corpus, save_tiny_recognizer


def test_sizes_count_one_byte_for_a_narrow_weight_and_four_for_its_scale_and_bias() -> None:
    model = nn.Sequential(nn.Linear(10, 3), nn.LayerNorm(3))
    assert export.held(model) == 4 * (30 + 3 + 6)  # type: ignore[arg-type]
    assert export.held(quantise(model)) == 30 + 4 * 3 + 4 * 3 + 4 * 6  # type: ignore[arg-type]


def test_forms_take_turns_and_the_first_round_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    class Counts:
        def __init__(self) -> None:
            self.batches: list[int] = []

        def transcribe_batch(self, batch: int) -> None:
            self.batches.append(batch)

    forms = {"a": Counts(), "b": Counts()}
    taken = export.times(forms, [1, 2], repeats=3)  # type: ignore[arg-type]
    assert forms["a"].batches == forms["b"].batches == [1, 2] * 4
    assert {form: len(seconds) for form, seconds in taken.items()} == {"a": 3, "b": 3}


@pytest.mark.slow
def test_all_forms_are_measured_in_one_run(tmp_path: Path) -> None:
    save_tiny_recognizer(tmp_path / "model")
    manifest = save_corpus(tmp_path / "corpus")
    given = [str(tmp_path / "model"), str(manifest), "--modality", "a", "--limit", "2", "--repeats", "1", "--timed", "2"]
    assert export.main([*given, "--json", str(tmp_path / "found.json")]) == 0
    found = json.loads((tmp_path / "found.json").read_text())
    assert set(found["forms"]) == set(export.FORMS)
    for row in found["forms"].values():
        assert row["seconds"] > 0
        assert row["megabytes"] > 0
        assert set(row["wer"]) == {"clean"}
    assert found["forms"]["ONNX"]["same_texts"] == 1.0
    assert found["forms"]["ONNX"]["wer"] == found["forms"]["PyTorch"]["wer"]
    assert found["forms"]["ONNX"]["difference"] < 1e-4
    assert torch.get_num_threads() == found["threads"]
