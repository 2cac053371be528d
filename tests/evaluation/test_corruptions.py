"""Corruptions of pictures: neutral strengths change nothing, only what is asked for changes, and nothing depends on who asks."""

from itertools import pairwise

import numpy as np
import pytest

from avtlm.evaluation.corruptions import BURST, KINDS, corrupt, in_bursts, in_order, parse_corruptions, strength_label

FRAMES = 60


def crops(frames: int = FRAMES) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 255, (frames, 96, 96), dtype=np.uint8)  # no frame is black


def changed(kind: str, strength: float, seed: int = 0, clip: str = "u1") -> np.ndarray:
    """Which frames differ from what they were: (frames,)."""
    found: np.ndarray = (corrupt(crops(), kind, strength, seed, clip) != crops()).any((1, 2))
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("frames", [0, 1, FRAMES])
def test_the_neutral_strength_changes_nothing_and_none_changes_what_was_given(kind: str, frames: int) -> None:
    given = crops(frames)
    before = given.copy()
    same = corrupt(given, kind, KINDS[kind].neutral, 0, "u1")
    assert np.array_equal(same, before)
    for strength in KINDS[kind].strengths:
        result = corrupt(given, kind, strength, 0, "u1")
        assert (result.shape, result.dtype) == (before.shape, np.uint8)
        assert np.array_equal(given, before)
        result += 1  # a new array, whose changes reach nobody
        assert np.array_equal(given, before)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_clip_and_seed_give_the_same_picture(kind: str) -> None:
    strength = KINDS[kind].strengths[1]
    one, two = (corrupt(crops(), kind, strength, 3, "u1") for _ in range(2))
    assert np.array_equal(one, two)
    assert not np.array_equal(one, crops())


@pytest.mark.parametrize("kind", ["occlusion", "patch", "missing"])
def test_another_seed_or_clip_is_hit_elsewhere(kind: str) -> None:
    pictures = [corrupt(crops(), kind, 50, seed, clip) for seed, clip in ((0, "u1"), (1, "u1"), (0, "u2"))]
    assert not np.array_equal(pictures[0], pictures[1])
    assert not np.array_equal(pictures[0], pictures[2])


@pytest.mark.parametrize("kind", ["occlusion", "missing"])
@pytest.mark.parametrize("share", [5, 25, 50, 99, 100])
def test_only_the_asked_share_of_frames_changes(kind: str, share: int) -> None:
    assert changed(kind, share).sum() == round(share / 100 * FRAMES)


@pytest.mark.parametrize("kind", ["occlusion", "missing"])
def test_frames_that_are_hit_at_one_strength_are_hit_at_every_higher_one(kind: str) -> None:
    hit = [changed(kind, share) for share in (10, 30, 60, 100)]
    for lower, higher in pairwise(hit):
        assert (higher | ~lower).all()


def test_frames_are_hit_in_bursts() -> None:
    lengths = []
    for seed in range(50):
        hit = in_bursts(100, 0.1, np.random.default_rng(seed))
        assert hit.sum() == BURST
        edges = np.flatnonzero(np.diff(np.concatenate([[0], hit.astype(int), [0]])))
        lengths += (edges[1::2] - edges[::2]).tolist()
    assert np.mean(lengths) > BURST / 2  # single frames would last one
    assert in_bursts(0, 0.5, np.random.default_rng(0)).tolist() == []


def test_missing_frames_are_black() -> None:
    picture = corrupt(crops(), "missing", 40, 0, "u1")
    assert (picture.reshape(FRAMES, -1).max(1) == 0).sum() == 24


@pytest.mark.parametrize(("kind", "strength", "side"), [("occlusion", 100, 48), ("patch", 25, 24), ("patch", 100, 96)])
def test_a_patch_is_flat_and_hides_the_centre(kind: str, strength: float, side: int) -> None:
    for clip in ("u1", "u2", "u3"):
        picture = corrupt(crops(), kind, strength, 0, clip)
        hidden = (picture == picture[0, 48, 48]).all(0)  # the same in all frames
        rows, columns = np.flatnonzero(hidden.any(1)), np.flatnonzero(hidden.any(0))
        assert hidden[48, 48]
        assert (len(rows), len(columns)) == (side, side)
        assert (np.ptp(rows), np.ptp(columns)) == (side - 1, side - 1)
        assert np.array_equal(picture[:, ~hidden], crops()[:, ~hidden])


def test_blur_takes_away_detail_and_keeps_brightness() -> None:
    spread = [float(corrupt(crops(), "blur", sigma, 0, "u1").std()) for sigma in (0, 1, 2, 4)]
    assert spread == sorted(spread, reverse=True)
    assert spread[3] < spread[0] / 8
    picture = corrupt(crops(), "blur", 3, 0, "u1")
    assert float(picture.mean()) == pytest.approx(float(crops().mean()), abs=1.0)
    flat = np.full((3, 96, 96), 200, np.uint8)
    assert np.array_equal(corrupt(flat, "blur", 5, 0, "u1"), flat)


def test_blur_is_a_gaussian() -> None:
    point = np.zeros((1, 96, 96), np.uint8)
    point[0, 48, 48] = 255
    sigma = 1.5
    offsets = np.arange(-48, 48)
    line = np.exp(-0.5 * (offsets / sigma) ** 2)
    expected = 255 * np.outer(line, line) / line.sum() ** 2
    assert np.abs(corrupt(point, "blur", sigma, 0, "u1")[0] - expected).max() <= 1.0


@pytest.mark.parametrize(("rate", "held"), [(12.5, 2), (5.0, 5), (1.0, 25)])
def test_a_slower_camera_holds_its_pictures(rate: float, held: int) -> None:
    shown = corrupt(crops(), "frame_rate", rate, 0, "u1")
    assert np.array_equal(shown, crops()[np.arange(FRAMES) // held * held])


def test_a_camera_shows_no_picture_before_it_is_taken() -> None:
    for rate in (24.0, 23.976, 10.0, 8.0, 7.3):
        shown = corrupt(crops(), "frame_rate", rate, 0, "u1")
        frames = [int(np.flatnonzero((crops() == picture).all((1, 2)))[0]) for picture in shown]
        assert all(source <= place for place, source in enumerate(frames))
        assert frames == sorted(frames)
        assert len(set(frames)) == np.floor((FRAMES - 1) * rate / 25 + 1e-9) + 1


@pytest.mark.parametrize(("delay", "first", "last"), [(80, 2, FRAMES - 1), (-120, 0, FRAMES - 4)])
def test_late_sound_meets_later_pictures(delay: float, first: int, last: int) -> None:
    shown = corrupt(crops(), "offset", delay, 0, "u1")
    assert np.array_equal(shown[0], crops()[first])
    assert np.array_equal(shown[-1], crops()[last])
    assert np.array_equal(shown[20], crops()[20 + round(delay / 40)])


def test_corruptions_are_read_as_they_are_written() -> None:
    assert parse_corruptions(["blur=1,2.5", "offset=-80,0,80"]) == {"blur": (1.0, 2.5), "offset": (-80.0, 80.0)}
    assert parse_corruptions(["missing"]) == {"missing": KINDS["missing"].strengths}
    assert list(parse_corruptions(["all"])) == list(KINDS)
    assert in_order("frame_rate", [5, 12.5]) == [25, 12.5, 5]
    assert in_order("offset", [80, -40]) == [-40, 0, 80]
    assert strength_label("offset", -80) == "−80 ms"


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (["fog=1"], "'fog' is unknown; choose among occlusion, patch"),
        (["blur=1", "blur=2"], "blur is given twice"),
        (["all", "blur=2"], "blur is given twice"),
        (["blur=high"], "'high' is no list of strengths; write, for example, blur=1,2,4,8"),
        (["blur=0"], "blur=0 changes nothing"),
        (["missing=120"], "missing of 120 % makes no sense; give 0 to 100"),
        (["missing=nan"], "makes no sense"),
        (["frame_rate=0"], "give above 0 to 25"),
        (["offset=50"], "between two frames; give multiples of 40 ms"),
    ],
)
def test_what_makes_no_sense_is_refused(given: list[str], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_corruptions(given)
