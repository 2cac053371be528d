"""How far lip crops lie from those of landmarks in every picture, when most pictures are not looked at."""

from collections.abc import Sequence

import numpy as np

from avtlm.lips.align import CROP, CropPlan, cut_all, interpolate_missing, invert, plan_crops
from avtlm.lips.tracking import FaceTrack


def compare(pictures: Sequence[np.ndarray], full: FaceTrack, skipped: FaceTrack, geometry: str = "avhubert") -> dict[str, np.ndarray]:
    """What the crops of two tracks of the same pictures differ by, frame by frame.

    Returns:
        ``centre``: distance of the middles of the crops, in pixels of the crop (which are placed on whole pixels); ``scale`` in %;
        ``angle`` in degrees; ``grey``: mean difference of their pixels, in grey levels.
    """
    one, other = (plan_crops(interpolate_missing(track.points), geometry) for track in (full, skipped))
    moved = np.linalg.norm(_centres(other) - _centres(one), axis=1) * _scales(one)
    crops = [cut_all(pictures, plan).astype(np.int16) for plan in (one, other)]
    return {
        "centre": moved,
        "scale": 100 * np.abs(_scales(other) / _scales(one) - 1),
        "angle": np.abs(_angles(other) - _angles(one)),
        "grey": np.abs(crops[0] - crops[1]).mean(axis=(1, 2)),
    }


def summary(parts: Sequence[dict[str, np.ndarray]]) -> dict[str, dict[str, float]]:
    """Mean, 99th percentile and largest of what `compare` says of several clips."""
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return {
        name: {
            "mean": round(float(values.mean()), 3),
            "p99": round(float(np.percentile(values, 99)), 3),
            "largest": round(float(values.max()), 3),
        }
        for name, values in joined.items()
    }


def _centres(plan: CropPlan) -> np.ndarray:
    """Where the middle of each crop lies in the source, ``(frames, 2)``."""
    back = invert(plan.matrices)
    middles = plan.corners + (CROP - 1) / 2
    centres: np.ndarray = (back[:, :2, :2] @ middles[..., None])[..., 0] + back[:, :2, 2]
    return centres


def _scales(plan: CropPlan) -> np.ndarray:
    scales: np.ndarray = np.sqrt(np.abs(np.linalg.det(plan.matrices[:, :, :2])))
    return scales


def _angles(plan: CropPlan) -> np.ndarray:
    return np.degrees(np.arctan2(plan.matrices[:, 1, 0], plan.matrices[:, 0, 0]))
