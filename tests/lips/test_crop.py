"""From a file to lip crops: the right face, honest refusals, one sentence each."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from avtlm.data.media import MediaError
from avtlm.lips import crop as crop_module
from avtlm.lips.align import GEOMETRIES
from avtlm.lips.crop import LipError, extract_lips
from avtlm.lips.landmarks import FaceMesh, LandmarkFiles, TasksLandmarker, read_landmarks
from avtlm.lips.tracking import follow_face
from tests.made_media import face, noise_frames, rotate_by_metadata, talking, tone, two_faces, write_media


@pytest.fixture(scope="module")
def mesh() -> FaceMesh:
    return FaceMesh()


def darkness(crops: np.ndarray) -> np.ndarray:
    """How dark the middle of the crop is: an open mouth is."""
    return 255 - crops[:, 40:58, 38:58].mean(axis=(1, 2))


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_crops_show_the_mouth_and_follow_its_movement(tmp_path: Path, mesh: FaceMesh, geometry: str) -> None:
    path = write_media(tmp_path / "a.mp4", talking(2.0), audio=tone(2.0))
    clip = extract_lips(path, mesh, geometry)
    assert clip.crops.shape == (50, 96, 96)
    assert clip.audio is not None
    assert clip.audio.shape == (32000,)
    opening = 0.5 - 0.5 * np.cos(4 * np.pi * np.arange(50) / 25)
    assert np.corrcoef(darkness(clip.crops), opening)[0, 1] > 0.95
    assert clip.report.warnings == ()
    assert clip.report.interpolated == 0
    assert json.loads(json.dumps(clip.report.to_json()))["faces"] == 1


def test_a_clip_does_not_depend_on_the_one_before(tmp_path: Path, mesh: FaceMesh) -> None:
    first = write_media(tmp_path / "a.mp4", talking(1.0, x=0.35))
    second = write_media(tmp_path / "b.mp4", talking(1.0, x=0.6, size=0.8))
    extract_lips(first, mesh)
    assert (extract_lips(second, mesh).crops == extract_lips(second, FaceMesh()).crops).all()


def test_the_largest_of_two_faces_is_followed(tmp_path: Path, mesh: FaceMesh) -> None:
    clip = extract_lips(write_media(tmp_path / "a.mp4", two_faces()), mesh)
    assert clip.report.faces == 2
    assert clip.report.box[0] + clip.report.box[2] / 2 > 160
    assert any(warning.startswith("2 faces; the largest one") for warning in clip.report.warnings)


def test_a_portrait_with_rotation_metadata_stands_upright(tmp_path: Path, mesh: FaceMesh) -> None:
    lying = np.rot90(talking(1.0), -1, axes=(1, 2))
    clip = extract_lips(rotate_by_metadata(write_media(tmp_path / "a.mp4", lying), 90), mesh)
    upright = extract_lips(write_media(tmp_path / "b.mp4", talking(1.0)), mesh)
    assert any("rotation metadata" in warning for warning in clip.report.warnings)
    assert np.abs(clip.crops.astype(int) - upright.crops).mean() < 6


def test_a_face_on_its_side_is_cropped_upright_too(tmp_path: Path, mesh: FaceMesh) -> None:
    clip = extract_lips(write_media(tmp_path / "a.mp4", np.rot90(talking(1.0), 1, axes=(1, 2))), mesh)
    upright = extract_lips(write_media(tmp_path / "b.mp4", talking(1.0)), mesh)
    assert np.abs(clip.crops.astype(int) - upright.crops).mean() < 8


@pytest.mark.parametrize("fps", [24, 30000 / 1001, 50])
def test_other_frame_rates_are_reported(tmp_path: Path, mesh: FaceMesh, fps: float) -> None:
    clip = extract_lips(write_media(tmp_path / "a.mp4", talking(1.0, fps), fps=fps, audio=tone(1.0, 44100), rate=44100, channels=2), mesh)
    assert len(clip.crops) == round(round(fps) / fps * 25)
    assert clip.audio is not None
    assert len(clip.audio) == 640 * len(clip.crops)
    assert any("resampled" in warning for warning in clip.report.warnings)


def test_missing_audio_and_silence_are_warnings(tmp_path: Path, mesh: FaceMesh) -> None:
    mute = extract_lips(write_media(tmp_path / "a.mp4", talking(0.5)), mesh)
    assert mute.audio is None
    assert mute.report.warnings == ("no audio track",)
    silent = extract_lips(write_media(tmp_path / "b.mp4", talking(0.5), audio=np.zeros(8000, np.float32)), mesh)
    assert silent.report.warnings == ("the audio is silent",)


def test_clips_without_usable_lips_are_refused_in_one_sentence(tmp_path: Path, mesh: FaceMesh) -> None:
    still = np.repeat(face()[None], 25, axis=0)
    seldom = np.concatenate([noise_frames(15, 160), talking(0.4)])
    cases = {
        "no face was found": noise_frames(25, 160),
        "has only 3 frames (0.12 s); at least 5 are needed": talking(0.12),
        "the picture of the mouth does not move": still,
        "the face was found in only": seldom,
    }
    for number, (words, frames) in enumerate(cases.items()):
        path = write_media(tmp_path / f"{number}.mp4", frames)
        with pytest.raises(LipError) as caught:
            extract_lips(path, mesh)
        assert words in str(caught.value)
        assert str(caught.value).startswith(f"{path}: ")
    text = tmp_path / "text.mp4"
    text.write_text("words")
    with pytest.raises(MediaError, match="not a media file"):
        extract_lips(text, mesh)


def test_black_crops_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", _points(10))
    path = write_media(tmp_path / "a.mp4", np.zeros((10, 160, 160, 3), np.uint8))
    with pytest.raises(LipError, match="black or blank"):
        extract_lips(path, LandmarkFiles(tmp_path))


def test_a_short_loss_of_the_face_is_interpolated_and_located(tmp_path: Path, mesh: FaceMesh) -> None:
    frames = talking(2.0).copy()
    frames[20:26] = noise_frames(6, 160)
    clip = extract_lips(write_media(tmp_path / "a.mp4", frames), mesh)
    assert 0 < clip.report.interpolated < 0.25
    assert any("longest from 0.8" in warning for warning in clip.report.warnings)


def test_large_clips_are_decoded_twice_with_equal_result(tmp_path: Path, mesh: FaceMesh, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_media(tmp_path / "a.mp4", talking(1.0))
    kept = extract_lips(path, mesh).crops
    monkeypatch.setattr(crop_module, "MEMORY", 5 * 160 * 160)
    assert (extract_lips(path, mesh).crops == kept).all()


def test_every_third_frame_is_enough(tmp_path: Path) -> None:
    path = write_media(tmp_path / "a.mp4", talking(1.0))
    every, third = (extract_lips(path, FaceMesh(stride=stride)).crops for stride in (1, 3))
    assert np.abs(every.astype(int) - third).mean() < 3


def _points(count: int) -> np.ndarray:
    """Landmarks of the drawn face, as a detector finds them in a still picture."""
    mesh = FaceMesh(stride=1)
    mesh.begin(Path(), several=False)
    (found,) = mesh.find(0, face())
    return np.repeat(found[None], count, axis=0)


def test_landmarks_of_a_whole_clip_serve_its_parts(tmp_path: Path) -> None:
    path = write_media(tmp_path / "clip.mp4", talking(0.8), audio=tone(0.8))
    points = _points(20) + np.linspace(0, 6, 20)[:, None, None]  # so that it matters which landmarks belong to which picture
    (tmp_path / "points").mkdir()
    np.save(tmp_path / "points" / "clip.npy", points)
    files = LandmarkFiles(tmp_path / "points")
    whole, part = extract_lips(path, files, "auto_avsr"), extract_lips(path, files, "auto_avsr", span=(0.2, 0.72))
    assert part.crops.shape == (13, 96, 96)
    assert part.audio is not None
    assert whole.audio is not None
    np.testing.assert_array_equal(part.audio, whole.audio[5 * 640 : 18 * 640])
    # The smoothing looks at neighbours, which the ends of a part have fewer of: the middle is the same.
    np.testing.assert_array_equal(part.crops[6], whole.crops[11])
    with pytest.raises(LipError, match="has only 0 frames"):
        extract_lips(path, files, span=(3.0, None))


def test_landmark_files_of_every_kind_give_the_same_crops(tmp_path: Path) -> None:
    path = write_media(tmp_path / "clips.mp4", talking(0.4))
    points = _points(10)
    points[3] = np.nan
    rows = [None if np.isnan(row).any() else row for row in points]
    results = []
    for kind in ("npy", "npz", "json", "pkl"):
        folder = tmp_path / kind
        folder.mkdir()
        target = folder / f"clips.{kind}"
        if kind == "npy":
            np.save(target, points)
        elif kind == "npz":
            np.savez(target, landmarks=points)
        elif kind == "json":
            target.write_text(json.dumps([None if row is None else row.tolist() for row in rows]))
        else:
            target.write_bytes(pickle.dumps(rows))
        results.append(extract_lips(path, LandmarkFiles(folder, tmp_path)))
    assert all((result.crops == results[0].crops).all() for result in results)
    assert results[0].report.interpolated == pytest.approx(0.1)


def test_landmark_files_that_do_not_fit_are_named(tmp_path: Path) -> None:
    path = write_media(tmp_path / "a.mp4", talking(0.4))
    with pytest.raises(MediaError, match="has no landmark file"):
        extract_lips(path, LandmarkFiles(tmp_path))
    np.save(tmp_path / "a.npy", _points(7))
    with pytest.raises(MediaError, match="landmarks of 7 frames, but the clip has 10"):
        extract_lips(path, LandmarkFiles(tmp_path))
    np.save(tmp_path / "a.npy", np.zeros((10, 5, 2)))
    with pytest.raises(MediaError, match=r"expected \(frames, 68, 2\)"):
        extract_lips(path, LandmarkFiles(tmp_path))


def test_a_hostile_pickle_of_landmarks_is_not_executed(tmp_path: Path) -> None:
    marker = tmp_path / "executed"

    class Hostile:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (open, (str(marker), "w"))  # type: ignore[return-value]

    (tmp_path / "a.pkl").write_bytes(pickle.dumps([Hostile()]))
    with pytest.raises(MediaError, match="which is no array"):
        read_landmarks(tmp_path / "a.pkl")
    assert not marker.exists()


def test_a_missing_task_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"face_landmarker\.task is needed"):
        TasksLandmarker(tmp_path / "face_landmarker.task")


def test_a_face_keeps_its_track_when_faces_swap_their_order() -> None:
    points = _points(1)[0]

    class Swapping:
        stride = 1

        def begin(self, path: Path, several: bool) -> None: ...

        def find(self, index: int, picture: np.ndarray) -> list[np.ndarray]:
            faces = [points, points * 0.5 + (400, 0)]
            return faces if index % 2 else faces[::-1]

        def count(self, picture: np.ndarray) -> int:
            return 2

        def end(self, pictures: int) -> None: ...

    track = follow_face([np.zeros((4, 4), np.uint8)] * 6, Swapping(), "a.mp4")
    assert track.faces == 2
    assert (track.points == points).all()


def test_native_log_lines_stay_off_the_terminal(tmp_path: Path) -> None:
    path = write_media(tmp_path / "a.mp4", talking(0.4))
    code = f"from avtlm.lips.crop import extract_lips; print(extract_lips({str(path)!r}).crops.shape)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(10, 96, 96)"
    assert done.stderr == ""


def test_importing_the_package_does_not_load_mediapipe_or_opencv() -> None:
    code = "import avtlm, avtlm.data.media, avtlm.lips.crop, sys; print(sorted({'cv2', 'mediapipe'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_a_sought_part_of_a_long_clip_is_the_part(tmp_path: Path) -> None:
    path = write_media(tmp_path / "a.mp4", talking(3.0), audio=tone(3.0), quality={"g": "10"})
    read, sought = (extract_lips(path, FaceMesh(), span=(1.2, 2.4), seek=seek) for seek in (False, True))
    assert sought.crops.shape == (30, 96, 96)
    assert np.array_equal(read.crops, sought.crops)
    assert read.audio is not None
    assert sought.audio is not None
    assert np.array_equal(read.audio, sought.audio)
