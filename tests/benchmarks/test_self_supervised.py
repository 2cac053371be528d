"""The comparison of MT4SSL with its halves: its whole path on made recordings, what it counts, and what it refuses."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from avtlm.data.media import write_wav
from benchmarks.labelled_speech import Speech
from benchmarks.self_supervised import MEASURES, STARTS, TESTS, count, difference, main, percent
from tests.made_media import chirps, tone


def recordings(folder: Path, speakers: tuple[str, ...] = ("ann", "bob")) -> Path:
    """Digits of speakers, at 8 kHz as in the Free Spoken Digit Dataset, and a longer recording of nobody's digits."""
    for number, speaker in enumerate(speakers):
        for digit in range(8):
            write_wav(folder / "digits" / f"{digit}_{speaker}_0.wav", tone(0.5, 8000, 200 + 100 * digit + 30 * number), 8000)
    write_wav(folder / "reading" / "long.flac.wav", chirps(9.0))
    return folder


@pytest.mark.usefixtures("in_this_process")
def test_the_whole_path_from_recordings_to_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    speech, out, results = recordings(tmp_path / "speech"), tmp_path / "out", tmp_path / "results.json"
    command = ["--speech", str(speech), "--out", str(out), "--size", "smoke", "--json", str(results), "--plot", str(tmp_path / "plot.png")]
    assert main(command) == 0
    shown = capsys.readouterr()
    assert "both (MT4SSL)" in shown.out
    report = json.loads(results.read_text())
    assert report["held_out_speakers"] == ["ann", "bob"]
    for test in TESTS:
        for start in STARTS:
            assert all(len(report["results"][test][start][name]["seeds"]) == 2 for name in MEASURES)
    assert (tmp_path / "plot.png").stat().st_size > 10_000

    parts = Speech.load(out / "speech")
    assert [(row.speaker, row.transcript.count(" ") + 1) for row in parts.digits if row.transcript] == [("ann", 4)] * 2 + [("bob", 4)] * 2
    assert [round(row.duration, 1) for row in parts.recordings] == [3.0, 3.0, 3.0]
    for seed, held_out in ((1, "ann"), (2, "bob")):
        for name in ("unlabelled", "labelled"):
            assert f'"{held_out}"' not in (out / "speech" / f"{name}_{seed}.jsonl").read_text()
        assert f'"{held_out}"' in (out / "speech" / f"digits_{seed}.jsonl").read_text()

    # Seeds of the results are not run again, whatever has become of their folder.
    assert main([str(tmp_path / "elsewhere") if word == str(out) else word for word in command]) == 0
    assert not (tmp_path / "elsewhere" / "stages").exists()
    assert json.loads(results.read_text()) == report

    # Without these results, what is finished stays; what is missing is made again.
    results.unlink()
    shutil.rmtree(out / "results")
    for stage in (out / "stages").glob("evaluate_*"):
        stage.unlink()
    before = {path: path.stat().st_mtime_ns for path in out.glob("*/model/weights.safetensors")}
    assert main(command) == 0
    assert before == {path: path.stat().st_mtime_ns for path in out.glob("*/model/weights.safetensors")}
    assert json.loads(results.read_text())["results"] == report["results"]


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize(("speakers", "message"), [((), "digits of 0 speakers"), (("ann",), "digits of 1 speakers")])
def test_one_speaker_is_not_enough(tmp_path: Path, capsys: pytest.CaptureFixture[str], speakers: tuple[str, ...], message: str) -> None:
    speech = recordings(tmp_path / "speech", speakers)
    assert main(["--speech", str(speech), "--out", str(tmp_path / "out"), "--size", "smoke"]) == 1
    assert f"{message}; one is held out, so at least two are needed" in capsys.readouterr().err


@pytest.mark.usefixtures("in_this_process")
def test_a_folder_that_is_not_there_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--speech", str(tmp_path / "no"), "--out", str(tmp_path / "out"), "--size", "smoke"]) == 1
    assert "there is no such folder" in capsys.readouterr().err


def test_errors_are_counted_by_letters_words_and_known_words() -> None:
    errors = count({"digits": [["one two", "one to", "one two"], ["six", "", "six"]]})["digits"]
    assert errors.tolist() == [[[1, 7], [1, 2], [0, 2]], [[3, 3], [1, 1], [0, 1]]]
    assert percent(errors[:, 0]) == 40.0


def test_the_interval_of_a_difference_holds_the_mean_and_none_of_equal_systems() -> None:
    rng = np.random.default_rng(0)
    words = np.full(50, 4)
    worse, better = (np.stack([rng.binomial(4, rate, 50), words], 1) for rate in (0.6, 0.2))
    found = difference([worse, worse], [better, better])
    low, high = found["interval_95"]
    assert 20 < low < found["mean"] < high < 60
    assert difference([worse], [worse]) == {"mean": 0.0, "interval_95": [0.0, 0.0]}
