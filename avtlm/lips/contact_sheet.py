"""A picture of lip crops, to see at a glance whether they are mouths."""

from pathlib import Path

import numpy as np

from avtlm.data.manifest import Manifest, read_manifest
from avtlm.data.media import read_lip_crops
from avtlm.files import atomic_path
from avtlm.lips.align import opencv


def write_contact_sheet(manifest: str | Path | Manifest, path: str | Path, clips: int = 24, columns: int = 12) -> None:
    """A PNG with one row of crops for each of up to ``clips`` clips spread evenly over a manifest of lip crops."""
    rows = read_manifest(manifest) if isinstance(manifest, str | Path) else manifest
    videos = [rows.path(row.video) for row in rows if row.video is not None]
    chosen = [videos[index] for index in np.unique(np.linspace(0, len(videos) - 1, min(clips, len(videos))).astype(int))]
    strips = []
    for video in chosen:
        crops = read_lip_crops(video)
        strips.append(np.concatenate(list(crops[np.linspace(0, len(crops) - 1, columns).astype(int)]), axis=1))
    good, png = opencv().imencode(".png", np.concatenate(strips))
    assert good
    with atomic_path(path) as temporary:
        temporary.write_bytes(png.tobytes())
