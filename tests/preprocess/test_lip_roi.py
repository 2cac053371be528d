"""A corpus run: complete, resumable, the same on any number of workers, stopped by nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from avtlm.data.manifest import Manifest, Utterance, read_manifest, validate, write_manifest
from avtlm.data.media import read_audio, read_lip_crops
from preprocess import lip_roi
from preprocess.clips import InputError, find_clips
from preprocess.lip_reports import reasons
from preprocess.lip_roi import NothingUsableError, main, run
from tests.made_media import noise_frames, talking, tone, write_media


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three good clips, one without a face, one that is text."""
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "s1").mkdir()
    write_media(folder / "s1" / "one.mp4", talking(0.4), audio=tone(0.4))
    (folder / "s1" / "one.txt").write_text("Text:  LAY WHITE AT\nConf: 3\n")
    write_media(folder / "s1" / "two.mp4", talking(0.5, size=0.9), audio=tone(0.5, 44100), rate=44100, channels=2)
    (folder / "s1" / "two.txt").write_text("set  red\nby f\n")
    write_media(folder / "three.mkv", talking(0.4, 50), fps=50)
    write_media(folder / "noface.mp4", noise_frames(10))
    (folder / "text.mp4").write_text("just words")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_folder_becomes_crops_sound_manifest_and_reports(corpus: Path, tmp_path: Path) -> None:
    manifest = read_manifest(run(corpus, tmp_path / "out", workers=0, contact_sheet=tmp_path / "sheet.png"))
    assert [row.id for row in manifest] == ["s1/one", "s1/two", "three"]
    assert [row.transcript for row in manifest] == ["LAY WHITE AT", "set red by f", None]
    assert [(row.video_frames, row.audio_samples) for row in manifest] == [(10, 6400), (12, 7680), (10, 0)]
    assert validate(manifest, read_files=True) == []
    assert manifest[2].audio is None
    report = (tmp_path / "out" / "report.tsv").read_text().splitlines()
    assert [line.split("\t")[:2] for line in report[1:]] == [
        ["noface", "failed"],
        ["s1/one", "done"],
        ["s1/two", "done"],
        ["text", "failed"],
        ["three", "done"],
    ]
    assert "no face was found" in report[1]
    assert "resampled from 50" in report[5]
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert set(summary["failed"]) == {"noface", "text"}
    assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")
    assert not [name for name in contents(tmp_path / "out") if "partial" in name or "noface" in name or "text" in name]


def test_any_number_of_workers_writes_the_same_bytes(corpus: Path, tmp_path: Path) -> None:
    run(corpus, tmp_path / "none", workers=0)
    run(corpus, tmp_path / "two", workers=2)
    assert contents(tmp_path / "none") == contents(tmp_path / "two")


def test_finished_clips_are_kept_and_changed_options_redo_them(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    real = lip_roi.make_crops
    monkeypatch.setattr(lip_roi, "make_crops", lambda provider, task: done.append(task.utterance.id) or real(provider, task))
    run(corpus, tmp_path, workers=0)
    assert len(done) == 5
    done.clear()
    before = contents(tmp_path)
    (tmp_path / "audio" / "s1" / "two.wav").unlink()
    run(corpus, tmp_path, workers=0)
    assert sorted(done) == ["noface", "s1/two", "text"]  # failed clips are tried again, a lost file is made again
    assert contents(tmp_path) == before
    done.clear()
    run(corpus, tmp_path, workers=0, format="npy")
    assert len(done) == 5
    assert read_lip_crops(tmp_path / "video" / "s1" / "one.npy").shape == (10, 96, 96)


def test_a_run_that_was_killed_is_finished_by_the_next(corpus: Path, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(12):
        os.link(corpus / "s1" / "one.mp4", folder / f"{number:02d}.mp4")
    command = [sys.executable, "-m", "preprocess.lip_roi", str(folder), "--out", str(tmp_path / "out"), "--workers", "1"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    journal = tmp_path / "out" / "report.jsonl"
    end = time.monotonic() + 60
    while time.monotonic() < end and (not journal.exists() or journal.read_text().count("\n") < 3):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = journal.read_text().count('"done"')
    assert finished >= 2
    assert not (tmp_path / "out" / "manifest.jsonl").exists() or finished == 12
    with open(journal, "a") as handle:
        handle.write('{"id": "11", "status": "do')  # what a kill in the middle of a line leaves
    manifest = read_manifest(run(folder, tmp_path / "out", workers=0))
    assert len(manifest) == 12
    assert len({(tmp_path / "out" / row.video).read_bytes() for row in manifest if row.video}) == 1
    assert len(journal.read_text().splitlines()) == 12


def _crash_on_two(provider: object, task: lip_roi.Task) -> dict[str, object]:
    if task.utterance.id == "s1/two":
        os.kill(os.getpid(), signal.SIGSEGV)
    return REAL(provider, task)  # type: ignore[arg-type]


REAL = lip_roi.make_crops


def test_a_clip_that_kills_its_worker_does_not_end_the_run(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lip_roi, "make_crops", _crash_on_two)
    manifest = read_manifest(run(corpus, tmp_path, workers=1))
    assert [row.id for row in manifest] == ["s1/one", "three"]
    failed = json.loads((tmp_path / "summary.json").read_text())["failed"]
    assert failed["s1/two"] == "took its worker process down twice (signal 11)"


def test_an_unexpected_error_is_a_reason_and_not_the_end(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: str, *_: object, **__: object) -> None:
        raise ZeroDivisionError("no")

    monkeypatch.setattr(lip_roi, "extract_lips", fail)
    with pytest.raises(NothingUsableError, match=r"none of the 5 clips could be used \(unexpected ZeroDivisionError: no\)"):
        run(corpus, tmp_path, workers=0)
    assert (tmp_path / "report.tsv").read_text().count("ZeroDivisionError") == 5


def test_fields_of_a_manifest_are_carried_over(corpus: Path, tmp_path: Path) -> None:
    rows = (
        Utterance("a", video="s1/one.mp4", transcript="lay white", speaker="s1", split="valid", phones="l ey", extra={"take": 2}),
        Utterance("b", audio="speech/b.wav", audio_samples=16000, transcript="audio only", split="train"),
        Utterance("c", transcript="text only", phones="t eh k s t"),
    )
    write_manifest(tmp_path / "in.jsonl", Manifest(corpus, rows))
    made = read_manifest(run(tmp_path / "in.jsonl", tmp_path / "out", workers=0))
    assert [row.id for row in made] == ["a", "b", "c"]
    assert (made[0].transcript, made[0].speaker, made[0].split, made[0].phones, made[0].extra["take"]) == (
        "lay white",
        "s1",
        "valid",
        "l ey",
        2,
    )
    assert made[0].video_frames == 10
    assert made.path(made[1].audio or "").resolve() == (corpus / "speech" / "b.wav").resolve()
    assert made[2].phones == "t eh k s t"


def test_a_span_is_cut_out_of_its_clip(corpus: Path, tmp_path: Path) -> None:
    rows = tuple(Utterance(name, video="s1/two.mp4", extra={"span": span}) for name, span in (("a", [0.0, 0.25]), ("b", [0.25, None])))
    write_manifest(tmp_path / "in.jsonl", Manifest(corpus, rows))
    first, second = read_manifest(run(tmp_path / "in.jsonl", tmp_path / "parts", workers=0))
    whole = read_manifest(run([corpus / "s1" / "two.mp4"], tmp_path / "whole", workers=0))
    assert [row.video_frames for row in (first, second, *whole)] == [6, 6, 12]
    sounds = [read_audio(tmp_path / name) for name in ("parts/audio/a.wav", "parts/audio/b.wav", "whole/audio/two.wav")]
    np.testing.assert_array_equal(np.concatenate(sounds[:2]), sounds[2])
    (tmp_path / "parts" / "video" / "a.mp4").unlink()
    run(tmp_path / "in.jsonl", tmp_path / "parts", workers=0)
    assert (tmp_path / "parts" / "video" / "a.mp4").exists()


@pytest.mark.parametrize("span", [[1.0], [2.0, 1.0], "all", [-1, 2], [0, "end"]])
def test_a_span_that_is_none_is_refused_before_the_work(span: object, corpus: Path, tmp_path: Path) -> None:
    write_manifest(tmp_path / "in.jsonl", Manifest(corpus, (Utterance("a", video="s1/one.mp4", extra={"span": span}),)))
    with pytest.raises(InputError, match=r"utterance 'a' has the span .*; give \[start, end\] in seconds"):
        run(tmp_path / "in.jsonl", tmp_path / "out", workers=0)
    assert not (tmp_path / "out").exists()


def test_the_command_says_what_happened(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(corpus), "--out", str(tmp_path), "--workers", "0", "--format", "npy", "--geometry", "auto_avsr"]) == 0
    out = capsys.readouterr().out
    assert "3 of 5 clips written (32 frames), 2 failed" in out
    assert "noface: no face was found" in out


def test_wrong_use_is_one_sentence_and_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    out = tmp_path / "out"
    assert main([str(empty), "--out", str(out)]) == 2
    assert main([str(tmp_path / "none"), "--out", str(out)]) == 2
    assert main([str(empty), "--out", str(out), "--landmarks", str(tmp_path / "nowhere")]) == 2
    assert main([str(empty), "--out", str(out), "--stride", "0"]) == 2
    assert main([str(empty), "--out", str(out), "--model", str(tmp_path / "none.task")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 5
    assert "holds no video files" in lines[0]
    assert "does not exist" in lines[1]
    assert "no such folder of landmarks" in lines[2]
    assert "stride is 0" in lines[3]
    assert "does not exist; give the path of mediapipe's face_landmarker.task" in lines[4]
    assert not out.exists()
    with pytest.raises(InputError, match="option 'geometrie' is unknown"):
        run(empty, out, geometrie="a")


def test_nothing_usable_is_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.mp4").write_text("words")
    assert main([str(tmp_path), "--out", str(tmp_path / "out"), "--workers", "0"]) == 1
    assert "none of the 1 clips could be used" in capsys.readouterr().err
    assert (tmp_path / "out" / "report.tsv").exists()


def test_clips_of_equal_name_keep_apart(tmp_path: Path) -> None:
    for name in ("a.mp4", "a.avi", "b.mp4"):
        (tmp_path / name).touch()
    assert [row.id for _, row in find_clips(tmp_path)[1]] == ["a.avi", "a.mp4", "b"]
    ids = [row.id for _, row in find_clips([tmp_path / "x" / "a.mp4", tmp_path / "y" / "a.mp4"])[1]]
    assert len(set(ids)) == 2


def test_ids_cannot_lead_out_of_the_output_folder(tmp_path: Path) -> None:
    write_manifest(tmp_path / "in.jsonl", Manifest(tmp_path, (Utterance("../evil", video="a.mp4"),)))
    with pytest.raises(InputError, match="lead out of the output folder"):
        run(tmp_path / "in.jsonl", tmp_path / "out")


def test_landmark_files_replace_the_detector(corpus: Path, tmp_path: Path) -> None:
    from tests.lips.test_crop import _points

    (tmp_path / "landmarks" / "s1").mkdir(parents=True)
    np.save(tmp_path / "landmarks" / "s1" / "one.npy", _points(10))
    manifest = read_manifest(run(corpus, tmp_path / "out", workers=0, landmarks=str(tmp_path / "landmarks")))
    assert [row.id for row in manifest] == ["s1/one"]


def test_every_clip_of_a_tree_is_written_or_listed_with_a_reason(tmp_path: Path) -> None:
    """Whatever lies around: damage of every kind, names of every kind, links that lead elsewhere, nowhere and round in circles."""
    tree, elsewhere = tmp_path / "tree", tmp_path / "elsewhere"
    for folder in (tree / "a" / "b", tree / "ä ß", tree / ".hidden", elsewhere):
        folder.mkdir(parents=True)
    good = write_media(tree / "good.mp4", talking(0.4), audio=tone(0.4))
    for name in ("a/GOOD.MP4", "a/b/good.mp4", "ä ß/ü.mov", ".hidden/good.mp4"):
        os.link(good, tree / name)
    os.link(good, elsewhere / "linked.mp4")
    whole = good.read_bytes()
    write_media(tree / "no face.avi", noise_frames(12), codec="mpeg4")
    write_media(tree / "short.mkv", talking(0.12))
    write_media(tree / "still.mp4", np.repeat(talking(0.04), 12, axis=0))
    for name, content in (
        ("empty.mp4", b""),
        ("words.webm", b"words"),
        ("cut.mp4", write_media(tmp_path / "fast.mp4", talking(1.0), fast_start=True).read_bytes()[:-4000]),
        ("head.mp4", whole[:200]),
        ("zeros.ts", bytes(5000)),
        ("a/notes.txt", b"text"),
        ("sound.m4a", b"sound"),
        ("README", b"read me"),
    ):
        (tree / name).write_bytes(content)
    (tree / "folder.mp4").mkdir()
    (tree / "elsewhere").symlink_to(elsewhere)
    (tree / "a" / "circle").symlink_to(tree)
    (tree / "lost.mp4").symlink_to(tmp_path / "nowhere.mp4")
    manifest = run(tree, tmp_path / "out", workers=0)
    summary = json.loads((manifest.parent / "summary.json").read_text())
    written, failed = {row.id for row in read_manifest(manifest)}, summary["failed"]
    assert written == {"good", "a/GOOD", "a/b/good", "ä ß/ü", "elsewhere/linked"}
    assert set(failed) == {"no face", "short", "still", "empty", "words", "cut", "head", "zeros", "lost"}
    assert all(reason.endswith(".") for reason in failed.values())
    assert summary["clips"] == len(written) + len(failed) == 14
    assert sum(summary["reasons"].values()) == len(failed)
    assert summary["no_videos"] == {".m4a": 1, ".txt": 1, "hidden": 1, "no suffix": 1}
    rows = [line.split("\t") for line in (manifest.parent / "report.tsv").read_text().splitlines()[1:]]
    assert sorted(row[0] for row in rows) == sorted(written | set(failed))
    assert {row[0] for row in rows if row[1] == "done"} == written


def test_a_folder_that_may_not_be_looked_into_stops_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "closed").mkdir()
    real = os.scandir

    def scandir(path: str) -> object:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(InputError, match=r"closed cannot be looked into \(Permission denied\)"):
        find_clips(tmp_path)


def test_reasons_that_differ_in_numbers_alone_are_counted_together() -> None:
    said = ["is damaged: only 43 of 75 frames can be decoded.", "is empty.", "is damaged: only 7 of 1,025 frames can be decoded."]
    assert reasons(said) == {"is damaged: only N of N frames can be decoded.": 2, "is empty.": 1}


def test_the_manifest_says_how_landmarks_were_found(corpus: Path, tmp_path: Path) -> None:
    for name, stride, expected in (("auto", "auto", {"stride": "auto", "bound": 2.0}), ("two", 2, {"stride": 2})):
        manifest = run([corpus / "s1" / "two.mp4"], tmp_path / name, workers=0, stride=stride)
        assert read_manifest(manifest)[0].extra["landmarks"] == expected
        report = json.loads((manifest.parent / "report.jsonl").read_text())["report"]
        assert report["looked"] in {"auto": range(3, 12), "two": [6]}[name]
