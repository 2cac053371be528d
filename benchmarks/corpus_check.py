"""How well `preprocess.check` sees late sound and copied recordings, on clips of which it is known.

    python -m benchmarks.corpus_check MANIFEST [--copies 60] [--json FILE]

The manifest is one of lip crops with sound in time, as avtlm-lip-roi writes it. Their sound is moved by known lags, and given to other
clips; copies of some of them are made as MP3, as Vorbis at half the level with both ends cut, and with white noise 20 dB below the speech.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from avtlm.data.container import SAMPLE_RATE
from avtlm.data.manifest import read_manifest
from avtlm.data.media import read_audio, read_lip_crops
from avtlm.data.seeds import seed_for
from avtlm.files import write_text
from avtlm.origin import processor
from preprocess.check_corpus import CLEAR
from preprocess.check_sound import make_print, near_equal
from preprocess.check_sync import SAMPLES, lag_curve, offset, pooled

LAGS = (-12, -5, 5, 12)  # frames
NEAR = 0.08  # seconds
DRAWS = 200
Clip = tuple[np.ndarray, np.ndarray]


def late_sound(clips: Sequence[Clip]) -> dict[str, Any]:
    """Offsets of the clips as they are, moved by known lags, with the sound of others, and of a few clips together."""
    curves = [curve for clip in clips if (curve := lag_curve(*clip)) is not None]
    whole = pooled(curves)
    assert whole is not None
    single = [offset(curve) for curve in curves]
    clear = [found for found in single if found.agreement >= CLEAR]
    foreign = [
        offset(curve) for (crops, _), (_, wave) in zip(clips, [*clips[7:], *clips[:7]]) if (curve := lag_curve(crops, wave)) is not None
    ]
    moved = {}
    for lag in LAGS:
        found = pooled([curve for crops, wave in clips if (curve := lag_curve(crops, move(wave, lag))) is not None])
        assert found is not None
        moved[f"{lag / 25:+.2f}"] = found.seconds
    rng = np.random.default_rng(seed_for("draws"))
    together = {}
    for count in (5, 10, 20):
        errors = [
            abs(offset(np.mean([curves[int(place)] for place in rng.choice(len(curves), count)], axis=0)).seconds - whole.seconds)
            for _ in range(DRAWS)
        ]
        together[count] = round(float(np.quantile(errors, 0.95)), 3)
    return {
        "clips": len(curves),
        "pooled_seconds": whole.seconds,
        "agreement": whole.agreement,
        "single_near": share([abs(found.seconds - whole.seconds) <= NEAR for found in single]),
        "clear": share([found.agreement >= CLEAR for found in single]),
        "clear_near": share([abs(found.seconds - whole.seconds) <= NEAR for found in clear]),
        "foreign_clear": share([found.agreement >= CLEAR for found in foreign]),
        "moved": moved,
        "error_of_95_percent": together,
    }


def share(answers: Sequence[bool]) -> float | None:
    """Of those that are true; None if there are none to ask."""
    return round(float(np.mean(answers)), 3) if answers else None


def move(wave: np.ndarray, lag: int) -> np.ndarray:
    """The sound so many frames later (negative: earlier), as long as before."""
    silence = np.zeros(abs(lag) * SAMPLES, wave.dtype)
    return np.concatenate([silence, wave])[: len(wave)] if lag > 0 else np.concatenate([wave[len(silence) :], silence])


def copies(waves: Sequence[np.ndarray], count: int) -> dict[str, Any]:
    """How many changed copies of the first recordings are found among all, and pairs that are none."""
    rng = np.random.default_rng(seed_for("noise"))
    made: list[np.ndarray] = []
    with tempfile.TemporaryDirectory() as folder:
        for place, wave in enumerate(waves[:count]):
            if place % 3 == 2:
                made.append(wave + 0.1 * wave.std() * rng.standard_normal(len(wave)).astype(np.float32))
                continue
            path = Path(folder) / ("a.mp3" if place % 3 == 0 else "a.ogg")
            soundfile.write(path, wave if place % 3 == 0 else 0.5 * wave[3000:-9000], SAMPLE_RATE)
            made.append(read_audio(path))
    pairs = near_equal([make_print(wave) for wave in (*waves, *made)])
    right = [pair.first for pair in pairs if pair.second == len(waves) + pair.first]
    kinds = {
        kind: sum(place % 3 == number for place in right) for number, kind in enumerate(("mp3", "vorbis, cut, half the level", "noisy"))
    }
    return {"recordings": len(waves), "copies": len(made), "found": kinds, "others": len(pairs) - len(right)}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.corpus_check", description="Measure what preprocess.check sees.")
    parser.add_argument("manifest", help="lip crops with their sound")
    parser.add_argument("--copies", type=int, default=60, metavar="N", help="recordings that are copied (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures")
    options = parser.parse_args(arguments)
    manifest = read_manifest(options.manifest)
    rows = [row for row in manifest if row.video and row.audio]
    clips = [(np.asarray(read_lip_crops(manifest.path(row.video or ""))), read_audio(manifest.path(row.audio or ""))) for row in rows]
    report: dict[str, Any] = {"late_sound": late_sound(clips), "copies": copies([wave for _, wave in clips], options.copies)}
    report["hardware"] = {"processor": processor(), "cores": os.cpu_count()}
    print(json.dumps(report, indent=1))
    if options.json:
        write_text(options.json, json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
