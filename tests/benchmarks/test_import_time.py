"""Importing the package costs next to nothing, and the benchmark that measures it measures what it says."""

import subprocess
import sys

import pytest

from benchmarks import import_time


def test_importing_avtlm_does_not_import_torch_until_a_name_is_used() -> None:
    script = "import sys, avtlm\nprint('torch' in sys.modules, 'numpy' in sys.modules)\navtlm.load\nprint('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["False", "False", "True"]


def test_the_first_transcript_loads_nothing_that_it_does_not_need() -> None:
    """What would make the import of a notebook slow: frameworks of other extras, plots, metrics, the hub."""
    heavy = ("mediapipe", "cv2", "gradio", "matplotlib", "sklearn", "scipy", "jiwer", "transformers", "huggingface_hub", "torchvision")
    script = f"import sys, avtlm\navtlm.transcribe\nprint(*[name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.split() == []


def test_medians_and_ratios_are_those_of_the_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = iter([9.0] * 4 + [2.0, 0.02, 2.2, 2.6, 1.0, 0.01, 1.4, 1.5, 4.0, 0.04, 4.4, 5.2])
    monkeypatch.setattr(import_time, "seconds", lambda statement: next(taken))
    found = import_time.measure(3)
    assert list(found["seconds"].values()) == [2.0, 0.02, 2.2, 2.6]
    assert list(found["ratio"].values()) == [1.0, 0.01, 1.1, 1.3]
    assert found["transcribe_ratio_of_each_run"] == [1.3, 1.5, 1.3]
    with pytest.raises(ValueError, match="runs: 0; give at least 1"):
        import_time.measure(0)


def test_a_statement_is_timed_in_a_new_python() -> None:
    assert 0.05 <= import_time.seconds("time.sleep(0.05)") < 5
