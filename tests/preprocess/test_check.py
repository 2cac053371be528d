"""A corpus with every fault there is: each is found, named once, and costs no other clip."""

import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import soundfile

from avtlm.data.manifest import Manifest, Utterance, write_manifest
from avtlm.data.media import write_clip, write_wav
from preprocess import check as module
from preprocess.check import check, main
from tests.made_media import noise_frames, talking, tone, truncate, write_media
from tests.preprocess.test_check_sound import speech
from tests.preprocess.test_check_sync import clip


def write_wav_at(path: Path, wave: np.ndarray) -> Path:
    write_wav(path, wave)
    return path


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("corpus")
    rows = []

    def add(name: str, split: str = "train", **given: object) -> None:
        rows.append(Utterance(name, **{"transcript": f"words of {name}", "speaker": f"of {split}", "split": split} | given))  # type: ignore[arg-type]

    for number in range(6):
        crops, wave = clip(3, number, 75)
        write_clip(root / f"good{number}.mp4", crops)
        write_wav(root / f"good{number}.wav", wave)
        split = ("train", "valid", "test")[number // 2]
        add(f"good{number}", split, video=f"good{number}.mp4", audio=f"good{number}.wav", video_frames=75, audio_samples=48000)
    write_wav(root / "speech.wav", speech(1, 3.0))
    soundfile.write(root / "coded.ogg", speech(1, 3.0), 16000)
    shutil.copy(root / "speech.wav", root / "copy.wav")
    add("speech", audio="speech.wav", audio_samples=48000)
    add("coded", "test", audio="coded.ogg", transcript="Words  of SPEECH")
    add("copy", "test", audio="copy.wav", audio_samples=48000, speaker="of train")
    add("twice", audio="speech.wav", audio_samples=48000)
    add("miscounted", video="good0.mp4", audio="tone.wav", video_frames=70, audio_samples=15000)
    write_wav(root / "tone.wav", tone(1.0))
    write_media(root / "long.mp4", noise_frames(50), audio=tone(3.0))
    add("long", video="long.mp4")
    shutil.copy(root / "long.mp4", root / "cut.mp4")
    truncate(write_media(root / "cut.mp4", noise_frames(100), audio=tone(4.0), fast_start=True), 0.6)
    add("cut", video="cut.mp4")
    (root / "words.wav").write_text("words" * 50)
    add("words", audio="words.wav", audio_samples=5)
    truncate(write_wav_at(root / "half.wav", tone(2.0)), 0.5)
    add("half", audio="half.wav")
    add("gone", video="gone.mp4", video_frames=5)
    write_wav(root / "silent.wav", np.zeros(16000, np.float32))
    add("silent", audio="silent.wav", audio_samples=16000)
    write_wav(root / "loud.wav", np.sign(tone(1.0)))
    add("loud", audio="loud.wav", audio_samples=16000)
    add("unheard", transcript=" ")
    add("elsewhere", "dev", audio="tone.wav", audio_samples=16000)
    write_manifest(root / "manifest.jsonl", Manifest(root, tuple(rows)))
    return root


EXPECTED = {
    "twice": ("duplicate", "2 rows name one audio file"),
    "copy": ("duplicate", "2 audio files are equal, across test and train"),
    "miscounted": ("length", "the manifest says 70 frames, good0.mp4 has 75"),
    "long": ("lengths", "2.00 s of picture and 3"),
    "cut": ("unreadable", "is damaged: only"),
    "half": ("damaged", "the file ends early: 50% of the sound"),
    "words": ("unreadable", "is not a media file that can be read"),
    "gone": ("unreadable", "there is no such file"),
    "silent": ("silent", "the audio is silent"),
    "loud": ("clipped", "of the samples are at full scale"),
    "unheard": ("transcript", "has an empty transcript"),
    "elsewhere": ("split", "is in the split 'dev'"),
    "coded": ("near duplicate", "s of sound are nearly equal"),
}


def test_every_fault_is_found(corpus: Path, tmp_path: Path) -> None:
    summary, findings = check(corpus, tmp_path, workers=0)
    for name, (kind, text) in EXPECTED.items():
        found = [finding.text for finding in findings if name in finding.ids and finding.kind == kind]
        assert any(text in each for each in found), (name, found)
    named = {name for finding in findings if finding.fault for name in finding.ids}
    assert not any(f"good{number}" in named for number in range(1, 6))
    assert summary["clips"] == 20
    assert summary["faulty"] == len(named)
    assert summary["splits"]["train"]["clips"] == 13
    assert summary["splits"]["no split"]["clips"] == 1


def test_leaks_are_counted(corpus: Path, tmp_path: Path) -> None:
    _, findings = check(corpus, tmp_path, workers=0)
    leaks = {finding.kind: finding for finding in findings if "leak" in finding.kind}
    assert leaks["speaker leak"].ids == ("copy",)
    assert "1 speakers of test are in train too ('of train'): 1 clips, 25% of test" in leaks["speaker leak"].text
    assert leaks["transcript leak"].ids == ("coded",)
    assert not any(finding.fault for finding in leaks.values())


def test_the_offset_of_the_corpus_is_estimated(corpus: Path, tmp_path: Path) -> None:
    summary, _ = check(corpus, tmp_path, workers=0)
    assert summary["offset"]["clips"] >= 6
    assert summary["offset"]["pooled_seconds"] == pytest.approx(0.12, abs=0.04)


def test_workers_and_a_stopped_run_give_the_same_report(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check(corpus, tmp_path / "one", workers=0)
    check(corpus, tmp_path / "two", workers=2)
    assert (tmp_path / "one" / "report.json").read_text() == (tmp_path / "two" / "report.json").read_text()
    notes = (tmp_path / "one" / "clips.jsonl").read_text().splitlines()
    (tmp_path / "one" / "clips.jsonl").write_text("\n".join(notes[:9]) + "\n" + notes[9][:40])
    looked: list[str] = []
    real = module.examine
    monkeypatch.setattr(module, "examine", lambda state, task: looked.append(task.row.id) or real(state, task))
    check(corpus, tmp_path / "one", workers=0)
    assert len(looked) == 11
    assert (tmp_path / "one" / "report.json").read_text() == (tmp_path / "two" / "report.json").read_text()


def deadly(state: object, task: module.Task) -> dict[str, object]:
    if task.row.id == "good1":
        os.kill(os.getpid(), signal.SIGKILL)
    return module.examine(state, task)


def test_a_clip_that_kills_its_worker_is_a_finding_and_is_tried_again(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = module.run_tasks
    monkeypatch.setattr(module, "run_tasks", lambda function, *rest: real(deadly, *rest))
    _, findings = check(corpus, tmp_path, workers=1)
    found = [finding.text for finding in findings if finding.ids == ("good1",) and finding.fault]
    assert found == ["took its worker process down (signal 9)"]
    monkeypatch.undo()
    _, findings = check(corpus, tmp_path, workers=0)
    assert not any(finding.fault and "good1" in finding.ids for finding in findings)


def test_the_command_prints_a_table_and_writes_a_page(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(corpus), "--out", str(tmp_path), "--workers", "0"]) == 1
    table = capsys.readouterr().out
    assert "20 clips" in table
    assert "fault  unreadable" in table
    assert "remark speaker leak" in table
    report = json.loads((tmp_path / "report.json").read_text())
    assert {finding["kind"] for finding in report["findings"]} >= {"unreadable", "duplicate", "near duplicate"}
    page = (tmp_path / "report.html").read_text()
    assert "<script" not in page
    assert "://" not in page
    assert "2 rows name one audio file" in page


def test_names_from_a_manifest_cannot_add_to_the_page(tmp_path: Path) -> None:
    rows = (Utterance("<script>alert(1)</script>", transcript="<b>", speaker="<i>", split="<u>"),)
    write_manifest(tmp_path / "manifest.jsonl", Manifest(tmp_path, rows))
    check(tmp_path, workers=0)
    page = (tmp_path / "check" / "report.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "<u>" not in page


def test_a_folder_without_manifest_is_looked_through(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_wav(tmp_path / "in" / "ä" / "a.wav", tone(1.0))
    assert main([str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--workers", "0"]) == 0
    assert main([str(tmp_path / "out"), "--workers", "0"]) == 2
    assert "holds neither a manifest.jsonl nor media files" in capsys.readouterr().err
    assert main([str(tmp_path / "none.jsonl"), "--workers", "0"]) == 2
    assert "does not exist" in capsys.readouterr().err


def test_parts_of_one_video_are_no_duplicates(tmp_path: Path) -> None:
    write_media(tmp_path / "a.mp4", noise_frames(50), audio=tone(2.0))
    rows = tuple(Utterance(f"a_{number}", video="a.mp4", extra={"span": [number, number + 1]}, split="train") for number in range(2))
    write_manifest(tmp_path / "manifest.jsonl", Manifest(tmp_path, rows))
    summary, findings = check(tmp_path, workers=0)
    assert summary["faulty"] == 0
    assert [finding for finding in findings if "duplicate" in finding.kind] == []


def test_lips_of_whole_videos_are_found_on_demand(tmp_path: Path) -> None:
    pytest.importorskip("mediapipe")
    (tmp_path / "in").mkdir()
    level = np.repeat(0.5 - 0.5 * np.cos(4 * np.pi * np.arange(60) / 25), 640)  # as the mouth opens
    write_media(tmp_path / "in" / "face.mp4", talking(2.4), audio=(tone(2.4) * level).astype(np.float32))
    write_media(tmp_path / "in" / "no_face.mp4", noise_frames(60, 128), audio=tone(2.4))
    summary, findings = check(tmp_path / "in", tmp_path / "out", workers=0, find_lips=True)
    assert summary["offset"]["clips"] == 1
    assert abs(summary["offset"]["pooled_seconds"]) <= 0.08
    assert [finding.text for finding in findings if finding.kind == "lips"] == [
        "no face was found; the whole face must be in view, not only the mouth"
    ]
