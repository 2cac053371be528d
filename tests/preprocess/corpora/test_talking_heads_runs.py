"""Runs of the corpus generator: each thing drawn from a seed of its own, killed and resumed without a trace, and wrong use told apart."""

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("espeakng_loader", reason="synthetic speech needs the extra 'synthetic'")
pytest.importorskip("cv2", reason="drawing needs the extra 'lips'")

from avtlm.data.manifest import read_manifest
from avtlm.data.media import read_clip
from avtlm.data.seeds import seed_for
from preprocess.corpora import talking_heads
from preprocess.corpora.talking_heads import SIZES, Size, Speaker, generate, main, plan, say

SEED = 3


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """A size of four clips, so that a test can afford several corpora."""
    monkeypatch.setitem(SIZES, "tiny", Size((2, 1), (1, 1), (1, 1), 3, 3))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def reseed(monkeypatch: pytest.MonkeyPatch, thing: str) -> None:
    """From here on whatever is drawn for ``thing`` comes from another seed."""
    monkeypatch.setattr(talking_heads, "seed_for", lambda *parts: seed_for(*parts, *(["other"] if thing in parts else [])))


def planned(size: str) -> list[Speaker]:
    return plan(Path("nowhere"), SIZES[size], SEED, "command", "drawn")


def test_other_faces_leave_words_sounds_and_times_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = generate(tmp_path / "a", "tiny", SEED, workers=0)
    reseed(monkeypatch, "face")
    second = generate(tmp_path / "b", "tiny", SEED, workers=0)
    assert first.read_bytes() == second.read_bytes()
    before, after = contents(tmp_path / "a"), contents(tmp_path / "b")
    assert before.keys() == after.keys()
    differing = {name for name in before if before[name] != after[name]}
    assert differing == {name for name in before if name.startswith(("video/", "controls/"))}
    for row in list(read_manifest(first))[:2]:
        heard = [read_clip(folder / str(row.video), video=False).audio for folder in (tmp_path / "a", tmp_path / "b")]
        np.testing.assert_array_equal(*heard)


@pytest.mark.parametrize("changed", ["sentences", "voices"])
def test_voices_and_sentences_come_from_generators_of_their_own(changed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = planned("default")
    reseed(monkeypatch, changed)
    second = planned("default")
    assert ([speaker.voice for speaker in first] == [speaker.voice for speaker in second]) == (changed != "voices")
    assert ([speaker.clips for speaker in first] == [speaker.clips for speaker in second]) == (changed != "sentences")


def test_sound_and_text_without_pictures_have_the_voices_of_training_speakers() -> None:
    speakers = planned("default")
    voices = {speaker.name: speaker.voice for speaker in speakers if speaker.parts == "av"}
    assert all(speaker.voice == voices[speaker.name] for speaker in speakers)


def test_one_worker_more_or_less_changes_no_byte_and_another_seed_changes_all(tmp_path: Path) -> None:
    for workers in (0, 1):
        generate(tmp_path / str(workers), "tiny", SEED, workers=workers)
    generate(tmp_path / "other", "tiny", SEED + 1, workers=0)
    first, other = contents(tmp_path / "0"), contents(tmp_path / "other")
    assert len(first) == 4 + 4 + 3 + 3 + 1  # videos, controls, sounds, manifests, recipe
    assert contents(tmp_path / "1") == first
    assert [name for name in first if first[name] == other.get(name)] == []


def test_lost_files_of_any_kind_are_made_again_and_no_others(tmp_path: Path) -> None:
    generate(tmp_path, "tiny", SEED, workers=0)
    before = contents(tmp_path)
    for pattern in ("video/test00/*", "controls/train01/*", "audio_only/audio/train00/*", "text_only/*"):
        next(tmp_path.glob(pattern)).unlink()
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*") if path.suffix in (".mp4", ".npy", ".wav")}
    generate(tmp_path, "tiny", SEED, workers=0)
    assert contents(tmp_path) == before
    touched = {path.parent.name for path, changed in kept.items() if path.stat().st_mtime_ns != changed}
    assert touched == {"test00", "train01"}  # a clip and what drives it are made together


def test_a_run_that_was_killed_is_finished_by_the_next_as_if_nothing_had_happened(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    generate(whole, "smoke", SEED, workers=0)
    command = [sys.executable, "-m", "preprocess.corpora.talking_heads", "--out", str(killed), "--size", "smoke", "--seed", str(SEED)]
    process = subprocess.Popen([*command, "--workers", "0"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 120
    while time.monotonic() < end and len(list(killed.glob("video/*/*.mp4"))) < 3:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(list(killed.glob("video/*/*.mp4"))) >= 3
    assert not (killed / "manifest.jsonl").exists()
    generate(killed, "smoke", SEED, workers=0)
    expected = contents(whole)
    # A kill in the middle of a file may leave its temporary one behind, which nothing reads.
    assert {name: content for name, content in contents(killed).items() if name in expected} == expected


def test_sound_survives_the_mp4_nearly_unchanged(tmp_path: Path) -> None:
    corpus = read_manifest(generate(tmp_path, "tiny", SEED, workers=0))
    speakers = {clip.id: (clip, speaker.voice) for speaker in planned("tiny") for clip in speaker.clips}
    for row in corpus:
        spoken = say(*speakers[row.id], SEED).wave
        path = corpus.path(row.video)
        assert path is not None
        heard = read_clip(path, video=False).audio
        assert heard is not None
        assert float(np.corrcoef(heard[: len(spoken)], spoken)[0, 1]) > 0.95, row.id


def test_photographs_say_the_same_as_drawn_people(tmp_path: Path) -> None:
    pytest.importorskip("mediapipe", reason="finding the faces in photographs needs the extra 'lips'")
    drawn = generate(tmp_path / "drawn", "tiny", SEED, workers=0)
    photo = generate(tmp_path / "photo", "tiny", SEED, workers=0, faces="photo")
    assert photo.read_bytes() == drawn.read_bytes()
    before, after = contents(tmp_path / "drawn"), contents(tmp_path / "photo")
    assert all(before[name] != after[name] for name in before if name.startswith("video/"))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"kind": "poems"}, "kind: 'poems' is unknown; choose one of command, digits, words, mixed."),
        ({"faces": "cats"}, "faces: 'cats' is unknown; choose drawn or photo."),
    ],
)
def test_a_wrong_choice_is_refused_with_the_right_ones(wrong: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError) as caught:
        generate(tmp_path / "new", **wrong)
    assert str(caught.value) == message
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("arguments", [[], ["--size", "huge"], ["--faces", "cats"], ["--kind", "poems"], ["--seed", "a"]])
def test_wrong_arguments_end_with_code_2(arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(tmp_path / "new")] if arguments else []
    with pytest.raises(SystemExit) as caught:
        main([*out, *arguments])
    assert caught.value.code == 2
    assert "usage: avtlm-talking-heads" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_folder_that_cannot_be_made_ends_with_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("in the way")
    assert main(["--out", str(tmp_path / "file" / "corpus"), "--size", "smoke", "--workers", "0"]) == 1
    assert capsys.readouterr().err.startswith("avtlm-talking-heads: ")


def test_a_missing_synthesiser_ends_with_code_1_and_the_way_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    assert main(["--out", str(tmp_path / "new"), "--size", "smoke"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("avtlm-talking-heads: espeakng-loader is needed for synthetic speech")
    assert "pip install 'avtlm[synthetic]'" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "new").exists()
