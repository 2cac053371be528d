"""The benchmark of workers does every clip in every pool and tells rates that fit together."""

import json
from pathlib import Path

import pytest

from benchmarks import preprocess_workers
from tests.made_media import talking, tone, write_media


def test_rates_are_measured_and_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(3):
        write_media(tmp_path / f"{number}.mp4", talking(0.4), audio=tone(0.4))
    arguments = [str(tmp_path), "--pools", "local", "--workers", "1", "--json", str(tmp_path / "f.json"), "--plot", str(tmp_path / "f.png")]
    assert preprocess_workers.main(arguments) == 0
    (run,) = json.loads((tmp_path / "f.json").read_text())["runs"]
    assert (run["pool"], run["workers"], run["clips"], run["frames"]) == ("local", 1, 3, 30)
    assert 0 < run["seconds_to_first_result"] <= run["seconds"]
    assert run["times_real_time"] == pytest.approx(20 / 25 / (run["seconds"] - run["seconds_to_first_result"]), rel=0.2)
    assert run["cpu_milliseconds_per_frame"] * run["times_real_time_per_cpu_second"] == pytest.approx(1000 / 25, rel=0.05)
    assert (tmp_path / "f.png").read_bytes().startswith(b"\x89PNG")
    assert '"times_real_time"' in capsys.readouterr().out
