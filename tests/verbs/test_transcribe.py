"""`avtlm transcribe`: what is written where, and one sentence for each file or model that cannot be used."""

import json
from pathlib import Path

import numpy as np
import pytest

from avtlm import cli
from avtlm.data.media import write_wav
from tests import made_media
from tests.made_model import save_tiny_recognizer
from tests.test_cli import failure


def test_transcribe_a_sound_file(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = made_media.write_media(tmp_path / "a.mp4", None, audio=made_media.chirps(1.0))
    assert cli.main(["transcribe", str(path), "--model", model, "--modality", "a"]) == 0
    text = capsys.readouterr().out.strip()
    assert text
    assert cli.main(["transcribe", str(path), "--model", model, "--modality", "a", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["file"], found["text"], found["duration"]) == (str(path), text, pytest.approx(1.0, abs=0.05))


@pytest.mark.parametrize(("kind", "start"), [("srt", "1\n00:00:0"), ("vtt", "WEBVTT")])
def test_transcribe_to_subtitles(kind: str, start: str, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(made_media.write_media(tmp_path / "a.mp4", None, audio=made_media.chirps(1.0)))
    assert cli.main(["transcribe", path, "--model", model, "--modality", "a", f"--{kind}", "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / f"a.{kind}").read_text().startswith(start)
    assert capsys.readouterr().out.strip() == str(tmp_path / "out" / f"a.{kind}")


def test_a_file_is_written_in_the_format_of_its_name(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(made_media.write_media(tmp_path / "a.mp4", None, audio=made_media.chirps(1.0)))
    search = ["--decoding", "method=ctc_beam", "--decoding", "nbest=3", "--decoding", "hot_words={blue: 30}"]
    for name in ("x.json", "x.srt", "x.txt"):
        target = tmp_path / "new" / name
        assert cli.main(["transcribe", path, "--model", model, "--modality", "a", "-o", str(target), *search]) == 0
        assert capsys.readouterr().out.strip() == str(target)
    found = json.loads((tmp_path / "new" / "x.json").read_text())
    assert "blue" in found["text"].split()
    assert len(found["hypotheses"]) == 3
    assert all(set(each["components"]) == {"ctc", "hot_words"} for each in found["hypotheses"])
    assert all(0 <= word["start"] < word["end"] <= 1.1 and 0 <= word["confidence"] <= 1 for word in found["words"])
    assert (tmp_path / "new" / "x.txt").read_text() == found["text"] + "\n"
    assert " --> " in (tmp_path / "new" / "x.srt").read_text()
    assert cli.main(["transcribe", path, "--model", model, "--modality", "a", "--format", "json", *search]) == 0
    assert json.loads(capsys.readouterr().out)["words"] == found["words"]
    assert "does not fit" in failure(capsys, "transcribe", path, "--model", model, "--format", "vtt", "-o", "x.srt", code=2)


def test_subtitles_of_several_files_need_a_folder(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--out FOLDER" in failure(capsys, "transcribe", "a.mp4", "b.mp4", "--srt", "--model", model, code=2)


def test_a_broken_file_is_reported_and_the_others_go_on(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = [str(made_media.write_media(tmp_path / f"{name}.mp4", None, audio=made_media.chirps(0.8))) for name in "ac"]
    bad = tmp_path / "b.mp4"
    bad.write_text("not a film")
    assert cli.main(["transcribe", good[0], str(bad), good[1], "--model", model, "--modality", "a"]) == 1
    captured = capsys.readouterr()
    assert [line.split("\t")[0] for line in captured.out.splitlines()] == good
    assert str(bad) in captured.err.splitlines()[0]
    assert "1 of 3 files" in captured.err.splitlines()[-1]


@pytest.mark.parametrize("case", ["no audio track", "silent", "a text file", "an empty file", "missing", "three samples"])
def test_unusable_sound_is_one_sentence(case: str, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "clip.mp4"
    if case == "no audio track":
        made_media.write_media(path, made_media.talking(0.4))
    elif case == "silent":
        made_media.write_media(path, made_media.talking(0.4), audio=np.zeros(6400, np.float32))
    elif case == "three samples":
        path = tmp_path / "clip.wav"
        write_wav(path, np.array([0.1, 0.2, 0.3], np.float32))
    elif case != "missing":
        path.write_text("some text" if case == "a text file" else "")
    assert str(path) in failure(capsys, "transcribe", str(path), "--model", model, "--modality", "a")


def test_a_model_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sentence = failure(capsys, "transcribe", "a.mp4", "--model", str(tmp_path / "none"), "--modality", "a")
    assert "none: there is no such model" in sentence
    assert "make quickstart" in sentence


@pytest.mark.parametrize("file", ["weights.safetensors", "config.yaml", "vocabulary.json"])
def test_a_model_folder_with_a_missing_file_is_named(file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = save_tiny_recognizer(tmp_path / "model")
    (folder / file).unlink()
    assert f"{file} is missing" in failure(capsys, "transcribe", "a.mp4", "--model", str(folder), "--modality", "a")
