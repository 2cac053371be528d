"""What goes wrong with a picture of lips, and how far: the other half of robustness beside noise in the sound.

Every kind has one axis of strength in the unit that a reader knows, and a neutral strength at which the picture is what it was:

- ``occlusion``: something flat, half as wide and high as the crop, hides the lips in this share of the frames (%).
- ``patch``: the same in all frames, as wide and high as this share of the crop (%).
- ``blur``: a Gaussian of this standard deviation in pixels of the stored crop (96 x 96).
- ``frame_rate``: only so many pictures a second are new, each is held until the next (fps; 25 is neutral).
- ``offset``: the sound comes so many milliseconds late (negative: early) against the picture. The picture is moved by whole frames of
  40 ms, its first or last one is held where it ends; the sound stays as it is.
- ``missing``: this share of the frames is black (%).

Occluded and missing frames come in bursts of 0.4 s, as hands and lost packets do. What is drawn depends on the seed, the kind and the
clip's id alone, so it is the same on any number of workers, and frames that are hit at one strength are hit at every higher one.

After Hong et al., Watch or Listen (arXiv 2303.08536: sound and picture are corrupted at once), and Chang et al., On Robustness to Missing
Video (arXiv 2312.10088: a picture with gaps should never make it worse than sound alone). The definitions are ours.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from avtlm.data.manifest import VIDEO_FPS
from avtlm.data.seeds import seed_for

BURST = 10  # frames
FRAME_MS = 1000.0 / VIDEO_FPS
OCCLUDED = 0.5  # of the side of the crop
ALL = "all"

Apply = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class Kind:
    """One way in which pictures go wrong.

    Attributes:
        what: is counted by the strength, for axes and captions.
        unit: of the strength.
        neutral: the strength that changes nothing.
        strengths: that are taken where none are named, the mildest first.
        lowest, highest: that make sense; ``lowest`` itself does not if ``above`` is true.
    """

    what: str
    unit: str
    neutral: float
    strengths: tuple[float, ...]
    lowest: float
    highest: float
    apply: Apply
    above: bool = False


def in_bursts(frames: int, share: float, rng: np.random.Generator) -> np.ndarray:
    """Which frames are hit: (frames,) bool, round(share x frames) of them, in bursts of at most `BURST` that may touch.

    Args:
        share: 0 to 1.
        rng: drawn from in the same way at every share, so that a higher one only adds frames.
    """
    first = int(rng.integers(BURST)) or BURST
    bursts = np.split(np.arange(frames), range(first, frames, BURST))
    order = np.concatenate([bursts[place] for place in rng.permutation(len(bursts))])
    hit = np.zeros(frames, dtype=bool)
    hit[order[: round(share * frames)]] = True
    return hit


def _cover(crops: np.ndarray, share: float, hit: np.ndarray, place: tuple[float, float], brightness: int) -> np.ndarray:
    """Put a flat patch, ``share`` of the crop wide and high, over some frames; wherever ``place`` puts it, it hides the crop's centre."""
    covered = crops.copy()
    sides = [round(share * side) for side in crops.shape[1:]]
    corners = []
    for side, size, at in zip(crops.shape[1:], sides, place, strict=True):
        low, high = max(0, side // 2 - size + 1), min(side - size, side // 2)
        corners.append(low + round(at * max(0, high - low)))
    (top, left), (height, width) = corners, sides
    covered[hit, top : top + height, left : left + width] = brightness
    return covered


def _occlusion(crops: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    place, brightness = (float(rng.random()), float(rng.random())), int(rng.integers(256))
    return _cover(crops, OCCLUDED, in_bursts(len(crops), strength / 100, rng), place, brightness)


def _patch(crops: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    place, brightness = (float(rng.random()), float(rng.random())), int(rng.integers(256))
    return _cover(crops, strength / 100, np.ones(len(crops), dtype=bool), place, brightness)


def _blur(crops: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Separable, with the border repeated outwards, rounded to whole grey levels."""
    if strength == 0:
        return crops.copy()
    radius = max(1, math.ceil(3 * strength))
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / strength) ** 2)
    taps = (taps / taps.sum()).astype(np.float32)
    picture = crops.astype(np.float32)
    for axis in (1, 2):
        size = picture.shape[axis]
        padding = [(radius, radius) if place == axis else (0, 0) for place in range(3)]
        padded = np.pad(picture, padding, mode="edge")
        picture = np.zeros_like(picture)
        for shift, tap in enumerate(taps.tolist()):
            picture += tap * (padded[:, shift : shift + size] if axis == 1 else padded[:, :, shift : shift + size])
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def _frame_rate(crops: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """The picture at a time is the newest that a slower camera, which begins with the first frame, has taken by then."""
    step, tiny = VIDEO_FPS / strength, 1e-9
    taken = np.floor(np.arange(len(crops)) / step + tiny)
    held: np.ndarray = crops[np.ceil(taken * step - tiny).astype(int)]
    return held


def _offset(crops: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    if not len(crops):
        return crops.copy()
    shown: np.ndarray = crops[np.clip(np.arange(len(crops)) + round(strength / FRAME_MS), 0, len(crops) - 1)]
    return shown


def _missing(crops: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    left = crops.copy()
    left[in_bursts(len(crops), strength / 100, rng)] = 0
    return left


KINDS = {
    "occlusion": Kind("frames with hidden lips", "%", 0.0, (25.0, 50.0, 75.0, 100.0), 0.0, 100.0, _occlusion),
    "patch": Kind("side of what hides the lips, of the crop's", "%", 0.0, (25.0, 50.0, 75.0, 100.0), 0.0, 100.0, _patch),
    "blur": Kind("standard deviation of the blur", "px", 0.0, (1.0, 2.0, 4.0, 8.0), 0.0, 48.0, _blur),
    "frame_rate": Kind("new pictures a second", "fps", VIDEO_FPS, (12.5, 8.0, 5.0, 2.0), 0.0, VIDEO_FPS, _frame_rate, above=True),
    "offset": Kind("how late the sound is", "ms", 0.0, (-400.0, -200.0, -80.0, 80.0, 200.0, 400.0), -10000.0, 10000.0, _offset),
    "missing": Kind("missing frames", "%", 0.0, (25.0, 50.0, 75.0, 100.0), 0.0, 100.0, _missing),
}


def corrupt(crops: np.ndarray, kind: str, strength: float, seed: int, clip: str) -> np.ndarray:
    """The lips of a clip as they would look; a new array, equal to ``crops`` at the neutral strength.

    Args:
        crops: uint8 (frames, height, width) at 25 a second.
        kind: one of `KINDS`.
        strength: in the unit of the kind.
        seed: another seed, another evaluation.
        clip: id of the utterance.

    Raises:
        ValueError: an unknown kind, or a strength that it has not got.
    """
    check_strength(kind, strength)
    return KINDS[kind].apply(crops, strength, np.random.default_rng(seed_for(seed, "visual", kind, clip)))


def parse_corruptions(given: Sequence[str]) -> dict[str, tuple[float, ...]]:
    """``["blur=1,2", "offset"]`` as strengths by kind, each once and without the neutral one; a kind alone has its usual strengths, and
    ``all`` stands for all kinds.

    Raises:
        ValueError: an unknown kind, a kind that is given twice, or strengths that are no numbers or make no sense.
    """
    found: dict[str, tuple[float, ...]] = {}
    for word in [kind for each in given for kind in (KINDS if each == ALL else [each])]:
        kind, equals, listed = word.partition("=")
        if kind in found:
            raise ValueError(f"visual: {kind} is given twice; write all of its strengths in one list, such as {kind}={_example(kind)}.")
        if kind not in KINDS:
            raise ValueError(f"visual: {kind!r} is unknown; choose among {', '.join(KINDS)}, or {ALL}.")
        try:
            strengths = tuple(float(part) for part in listed.split(",")) if equals else KINDS[kind].strengths
        except ValueError:
            raise ValueError(f"visual: {listed!r} is no list of strengths; write, for example, {kind}={_example(kind)}.") from None
        for strength in strengths:
            check_strength(kind, strength)
        found[kind] = tuple(dict.fromkeys(strength for strength in strengths if strength != KINDS[kind].neutral))
        if not found[kind]:
            raise ValueError(f"visual: {word} changes nothing; write, for example, {kind}={_example(kind)}.")
    return found


def in_order(kind: str, strengths: Sequence[float]) -> list[float]:
    """Strengths with the neutral one among them, from what changes nothing to what changes most; of ``offset`` from early to late sound."""
    neutral = KINDS[kind].neutral
    together = {neutral, *strengths}
    return sorted(together) if kind == "offset" else sorted(together, key=lambda strength: abs(strength - neutral))


def strength_label(kind: str, strength: float | str) -> str:
    """``25 %``, ``12.5 fps`` or ``−80 ms``."""
    return f"{float(strength):g} {KINDS[kind].unit}".replace("-", "\u2212")


def _example(kind: str) -> str:
    return ",".join(f"{strength:g}" for strength in KINDS[kind].strengths)


def check_strength(kind: str, strength: float) -> None:
    """Raises ValueError: an unknown kind, or a strength that it has not got."""
    if kind not in KINDS:
        raise ValueError(f"visual: {kind!r} is unknown; choose among {', '.join(KINDS)}.")
    known = KINDS[kind]
    good = known.lowest < strength <= known.highest if known.above else known.lowest <= strength <= known.highest
    if not good:  # what is not a number is not good either
        low = f"above {known.lowest:g}" if known.above else f"{known.lowest:g}"
        raise ValueError(f"visual: {kind} of {strength:g} {known.unit} makes no sense; give {low} to {known.highest:g}.")
    if kind == "offset" and abs(strength / FRAME_MS - round(strength / FRAME_MS)) > 1e-6:
        raise ValueError(f"visual: an offset of {strength:g} ms is between two frames; give multiples of {FRAME_MS:g} ms.")
