"""Small clips in common containers, which `benchmarks.damaged_clips` and, by `benchmarks.whole_files`, `benchmarks.fuzz` damage."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.made_media import tone, write_media


@dataclass(frozen=True)
class Container:
    """A file by its name, how its pictures and its sound are coded, and whether its header is in front."""

    name: str
    video: str
    audio: str
    header_in_front: bool = False

    def write(self, folder: Path, pictures: np.ndarray, seconds: float, quality: dict[str, str] | None = None) -> Path:
        """Write pictures uint8 RGB ``(frames, height, width, 3)`` with a tone of so many seconds."""
        rate = 48000 if self.audio == "libopus" else 16000
        return write_media(
            folder / self.name,
            pictures,
            audio=tone(seconds, rate),
            rate=rate,
            codec=self.video,
            audio_codec=self.audio,
            fast_start=self.header_in_front,
            quality=quality,
        )
