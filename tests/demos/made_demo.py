"""A corpus of talking faces and unpleasant uploads for the tests of the page."""

from pathlib import Path

import numpy as np

from avtlm.data.manifest import Manifest, Utterance, write_manifest
from avtlm.data.media import write_wav
from tests import made_media

SENTENCES = ("bin blue now", "lay red soon", "set green again", "bin red soon")


def save_videos(folder: Path) -> Path:
    """A manifest of four short videos by two speakers, all of the test split; returns its path."""
    rows = []
    for index, sentence in enumerate(SENTENCES):
        seconds = 1.0 + 0.2 * index
        name, speaker = f"clip{index}.mp4", f"s{index % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        sound = made_media.chirps(seconds) + made_media.tone(seconds, pitch=150 + 60 * index)
        made_media.write_media(folder / name, made_media.talking(seconds, size=0.9 + 0.05 * index), audio=0.5 * sound)
        rows.append(Utterance(f"u{index}", name, transcript=sentence, speaker=speaker, split="test", video_frames=round(25 * seconds)))
    write_manifest(folder / "manifest.jsonl", Manifest(folder, tuple(rows)))
    return folder / "manifest.jsonl"


def save_bad(folder: Path) -> dict[str, Path]:
    """Files that visitors upload by mistake, by what is wrong with them."""
    sound = made_media.chirps(1.0)
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        name: folder / f"{name.replace(' ', '_')}.mp4"
        for name in ("no face", "no audio", "no video", "silent", "too long", "text", "cut off")
    }
    made_media.write_media(files["no face"], made_media.noise_frames(25, 160), audio=sound)
    made_media.write_media(files["no audio"], made_media.talking(1.0))
    made_media.write_media(files["no video"], None, audio=sound)
    made_media.write_media(files["silent"], made_media.talking(1.0), audio=np.zeros(16000, np.float32))
    made_media.write_media(files["too long"], made_media.noise_frames(26, 96), fps=1, audio=made_media.chirps(26))
    files["text"].write_text("text")
    made_media.write_media(files["cut off"], made_media.talking(1.0), audio=sound)
    made_media.truncate(files["cut off"], 0.6)
    return files


def save_noise(folder: Path, loudness: float = 0.2) -> Path:
    """A sound file of half a second."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "noise.wav"
    write_wav(path, np.random.default_rng(3).normal(0, loudness, 8000).astype(np.float32))
    return path
