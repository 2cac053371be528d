"""Sound files of generated trees, small and each different."""

from pathlib import Path

import numpy as np
import soundfile

FORMATS = {".wav": "WAV", ".flac": "FLAC", ".ogg": "OGG", ".mp3": "MP3"}


def sound(path: Path, seconds: float = 0.05, rate: int = 16000) -> Path:
    """A tone that no other path has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pitch = 200 + sum(path.name.encode()) % 997
    wave = 0.3 * np.sin(2 * np.pi * pitch * np.arange(round(seconds * rate)) / rate)
    soundfile.write(str(path), wave, rate, format=FORMATS[path.suffix])
    return path


def text(path: Path, *lines: str) -> Path:
    """A text file of some lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path
