"""k-means over frame features: the discrete units of HuBERT, AV-HuBERT and VATLM (AV-HuBERT section 3.1 and appendix B).

scikit-learn's MiniBatchKMeans with AV-HuBERT's settings fits; assignment is one matrix product. The centres are saved as safetensors, with
what they were fitted on.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from avtlm.errors import needs
from avtlm.files import atomic_path


@dataclass(frozen=True)
class KMeansConfig:
    """The settings of HuBERT and AV-HuBERT, whose script for large runs has mini-batches of 20,000 frames. Small clusters are never
    reassigned (scikit-learn's ``reassignment_ratio`` is 0).

    Attributes:
        max_iterations: passes over the frames.
        restarts: starts by k-means++ of which the best is taken (``n_init``).
        max_no_improvement: mini-batches in a row without improvement that end the fit.
    """

    clusters: int = 100
    batch_frames: int = 10000
    max_iterations: int = 100
    restarts: int = 20
    max_no_improvement: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        if self.clusters < 2:
            raise ValueError(f"clusters: {self.clusters}; give at least 2.")
        for name in ("batch_frames", "max_iterations", "restarts", "max_no_improvement"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)}; give at least 1.")


@dataclass(frozen=True)
class KMeans:
    """Cluster centres (clusters, dim) float32."""

    centres: np.ndarray

    def assign(self, features: np.ndarray) -> np.ndarray:
        """Nearest centre of every frame: (frames, dim) -> int32 (frames,).

        Raises:
            ValueError: frames of another dim than the centres.
        """
        if features.shape[1] != self.centres.shape[1]:
            width, own = features.shape[1], self.centres.shape[1]
            raise ValueError(f"k-means: frames of {width} values for centres of {own}; these clusters were fitted on other features.")
        distance = (self.centres**2).sum(1) - 2.0 * features.astype(np.float32) @ self.centres.T
        return distance.argmin(1).astype(np.int32)

    def inertia(self, features: np.ndarray) -> float:
        """Mean squared distance of frames to their centres."""
        return float(((features - self.centres[self.assign(features)]) ** 2).sum(1).mean())

    def save(self, path: str | Path) -> None:
        with atomic_path(path) as temporary:
            save_file({"centres": self.centres}, temporary)

    @staticmethod
    def load(path: str | Path) -> "KMeans":
        """Raises FileNotFoundError if there is no such file."""
        return KMeans(load_file(path)["centres"])


def fit(features: np.ndarray, config: KMeansConfig) -> KMeans:
    """Cluster frames (frames, dim).

    Raises:
        ValueError: fewer frames than clusters, or frames that are not finite.
    """
    with needs("train", "scikit-learn", "k-means"):
        from sklearn.cluster import MiniBatchKMeans

    if len(features) < config.clusters:
        raise ValueError(f"k-means: {len(features)} frames for {config.clusters} clusters; give more data or ask for fewer clusters.")
    if not np.isfinite(features).all():
        raise ValueError("k-means: features with NaN or infinity; check the model or the audio that they come from.")
    model = MiniBatchKMeans(
        n_clusters=config.clusters,
        init="k-means++",
        max_iter=config.max_iterations,
        batch_size=min(config.batch_frames, len(features)),
        n_init=config.restarts,
        max_no_improvement=config.max_no_improvement,
        reassignment_ratio=0.0,
        tol=0.0,
        random_state=config.seed,
    )
    model.fit(features.astype(np.float32))
    return KMeans(model.cluster_centers_.astype(np.float32))


def describe(config: KMeansConfig, **more: object) -> str:
    """JSON with everything that made the clusters, to lie beside them."""
    return json.dumps({"kmeans": asdict(config), **more}, indent=1)
