"""The synthetic corpus: nothing leaks between its splits, the same seed gives the same files, and what is seen fits what is heard."""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("espeakng_loader", reason="synthetic speech needs the extra 'synthetic'")
pytest.importorskip("cv2", reason="drawing needs the extra 'lips'")

from avtlm.data.manifest import Manifest, read_manifest, validate
from avtlm.data.media import read_audio, read_clip
from avtlm.errors import MissingExtra
from avtlm.units.text_to_units import timed_phones
from preprocess.corpora.talking_heads import SIZES, Speaker, contact_sheet, generate, main, plan, say

COUNTS = {"smoke": (12, 4, 8), "default": (1200, 100, 200), "long": (5280, 320, 480)}


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return read_manifest(generate(tmp_path_factory.mktemp("heads"), "smoke", seed=1, workers=0))


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def planned(size: str, seed: int = 1, faces: str = "drawn") -> list[Speaker]:
    return plan(Path("corpus"), SIZES[size], seed, SIZES[size].kind, faces)


@pytest.mark.parametrize("size", list(SIZES))
def test_each_size_has_its_counts(size: str) -> None:
    clips = [clip for speaker in planned(size) for clip in speaker.clips if speaker.parts == "av"]
    assert tuple(sum(clip.split == split for clip in clips) for split in ("train", "valid", "test")) == COUNTS[size]
    for part, amount in (("audio", SIZES[size].audio_only), ("text", SIZES[size].text_only)):
        assert sum(len(speaker.clips) for speaker in planned(size) if speaker.parts == part) == amount


@pytest.mark.parametrize("size", list(SIZES))
def test_splits_share_neither_sentences_nor_voices_nor_faces(size: str) -> None:
    speakers = planned(size)
    clips = [clip for speaker in speakers for clip in speaker.clips]
    assert len({clip.text for clip in clips}) == len({clip.id for clip in clips}) == len(clips)
    names = {split: {clip.speaker for clip in clips if clip.split == split} for split in ("train", "valid", "test")}
    variants = {
        split: [s.voice.name.split("+")[1] for s in speakers if s.parts == "av" and s.name in people] for split, people in names.items()
    }
    assert not names["train"] & names["valid"]
    assert not names["train"] & names["test"]
    assert not names["valid"] & names["test"]
    assert not set(variants["train"]) & set(variants["valid"] + variants["test"])
    held_out = variants["valid"] + variants["test"]
    assert len(set(held_out)) == len(held_out)
    assert all(speaker.name in names["train"] for speaker in speakers if speaker.parts != "av")


def test_voices_sentences_and_faces_are_drawn_apart() -> None:
    drawn, photo = planned("smoke"), planned("smoke", faces="photo")
    assert [(s.voice, s.clips) for s in drawn] == [(s.voice, s.clips) for s in photo]
    digits = plan(Path("corpus"), SIZES["smoke"], 1, "digits", "drawn")
    assert [s.voice for s in digits] == [s.voice for s in drawn]
    assert [s.voice for s in planned("smoke", seed=2)] != [s.voice for s in drawn]


def test_the_manifests_are_valid_and_every_file_is_there(smoke: Manifest) -> None:
    assert len(smoke) == 24
    assert not validate(smoke, read_files=True)
    for part in ("audio_only", "text_only"):
        other = read_manifest(smoke.root / part)
        assert len(other) == 24
        assert not validate(other, read_files=True)
        assert all(row.transcript and timed_phones(row) for row in other)
    assert not list(smoke.root.rglob("*.tmp*"))


def test_workers_do_not_change_a_byte(smoke: Manifest, tmp_path: Path) -> None:
    generate(tmp_path, "smoke", seed=1, workers=2)
    assert digests(tmp_path) == digests(smoke.root)


def test_what_is_missing_is_made_again_as_it_was(smoke: Manifest, tmp_path: Path) -> None:
    generate(tmp_path, "smoke", seed=1, workers=0)
    row = smoke[5]
    assert row.video is not None
    (tmp_path / row.video).unlink()
    (tmp_path / "manifest.jsonl").unlink()
    kept = tmp_path / str(smoke[6].video)
    before = kept.stat().st_mtime_ns
    generate(tmp_path, "smoke", seed=1, workers=0)
    assert digests(tmp_path) == digests(smoke.root)
    assert kept.stat().st_mtime_ns == before


def test_a_folder_of_another_corpus_is_refused(smoke: Manifest, tmp_path: Path) -> None:
    before = digests(smoke.root)
    with pytest.raises(ValueError, match=r"made with seed 1; choose an empty folder"):
        generate(smoke.root, "smoke", seed=2, workers=0)
    assert digests(smoke.root) == before
    (tmp_path / "video").mkdir()
    with pytest.raises(ValueError, match="unknown"):
        generate(tmp_path, "smoke", workers=0)


def test_sound_is_in_time_after_the_round_trip_through_mp4(smoke: Manifest) -> None:
    speakers = {clip.id: (clip, speaker) for speaker in planned("smoke") for clip in speaker.clips}
    for row in list(smoke)[::6]:
        clip, speaker = speakers[row.id]
        wave = say(clip, speaker.voice, 1).wave
        path = smoke.path(row.video)
        assert path is not None
        read = read_clip(path)
        assert read.frames is not None
        assert read.audio is not None
        assert len(read.frames) == row.video_frames
        assert len(read.audio) == row.audio_samples == row.video_frames * 640
        size = 1 << 17
        product = np.fft.irfft(np.fft.rfft(read.audio, size) * np.conj(np.fft.rfft(wave, size)))
        assert int(np.argmax(product)) == 0


def test_audio_only_waves_are_what_the_voice_says(smoke: Manifest) -> None:
    sounds = read_manifest(smoke.root / "audio_only")
    speakers = {clip.id: (clip, speaker) for speaker in planned("smoke") for clip in speaker.clips}
    clip, speaker = speakers[sounds[0].id]
    path = sounds.path(sounds[0].audio)
    assert path is not None
    np.testing.assert_allclose(read_audio(path), say(clip, speaker.voice, 1).wave, atol=1 / 32768)


def test_detectors_find_the_face_and_measured_lips_follow_the_driving_jaw(smoke: Manifest) -> None:
    face_mesh = pytest.importorskip("mediapipe", reason="finding faces needs the extra 'lips'").solutions.face_mesh
    found: list[bool] = []
    correlations: dict[int, list[float]] = {-2: [], -1: [], 0: [], 1: [], 2: []}
    for row in list(smoke)[::2]:
        path, driving = smoke.path(row.video), smoke.path(row.extra["controls"])
        assert path is not None
        assert driving is not None
        frames = read_clip(path, audio=False, colour=True).frames
        assert frames is not None
        jaw = np.maximum(np.load(driving)[:, 0], 0)
        looked, opening = np.arange(2, len(frames) - 2, 2), []
        with face_mesh.FaceMesh(refine_landmarks=True) as mesh:
            for frame in frames[looked]:
                faces = mesh.process(np.ascontiguousarray(frame)).multi_face_landmarks
                found.append(bool(faces))
                points = np.array([[p.x, p.y] for p in faces[0].landmark]) if faces else np.full((478, 2), np.nan)
                opening.append(np.linalg.norm(points[13] - points[14]) / np.linalg.norm(points[33] - points[263]))
        seen = ~np.isnan(opening)
        for lag, values in correlations.items():
            values.append(float(np.corrcoef(np.array(opening)[seen], jaw[looked[seen] + lag])[0, 1]))
    medians = {lag: float(np.median(values)) for lag, values in correlations.items()}
    assert np.mean(found) >= 0.995
    assert medians[0] >= 0.8
    assert max(medians, key=lambda lag: medians[lag]) == 0, medians


def test_a_contact_sheet_shows_speakers(smoke: Manifest, tmp_path: Path) -> None:
    import cv2

    contact_sheet(smoke.root / "manifest.jsonl", tmp_path / "sheet.png", people=3, pictures=4)
    assert cv2.imread(str(tmp_path / "sheet.png")).shape == (480, 640, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"size": "huge"}, "size: 'huge'"), ({"kind": "songs"}, "kind: 'songs'"), ({"faces": "cartoon"}, "faces: 'cartoon'")],
)
def test_unknown_choices_are_named(options: dict[str, str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        generate(tmp_path, **options)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("module", "package"), [("espeakng_loader", "espeakng-loader"), ("cv2", "opencv-contrib-python")])
def test_a_missing_package_is_named_before_anything_is_written(
    module: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match=package):
        generate(tmp_path / "corpus", "smoke")
    assert not (tmp_path / "corpus").exists()


def test_the_command_fails_in_one_sentence(smoke: Manifest, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--out", str(smoke.root), "--size", "smoke", "--seed", "9"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("avtlm-talking-heads: ")
    assert error.count("\n") == 1
    assert json.loads((smoke.root / "corpus.json").read_text())["seed"] == 1
