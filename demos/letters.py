"""Toy speech that a small model learns in seconds: every letter is a tone in the sound and a bar in the picture.

A letter lasts 0.2 s. Words of two letters with a pause between them make a clip; the picture is that of ready lip crops. Notebooks run on
it, so that they need neither data nor a GPU. It says nothing about speech: what is shown is how the library is used.
"""

from pathlib import Path
from typing import Any

import numpy as np

from avtlm import config
from avtlm.data.manifest import Manifest, Utterance, write_manifest
from avtlm.data.media import SAMPLE_RATE, write_wav
from avtlm.data.seeds import seed_for
from avtlm.training.loop import TrainConfig, train

LETTERS = "abcdef"
FRAMES = 5  # pictures of a letter, and of a pause, at 25 a second
SAMPLES = FRAMES * SAMPLE_RATE // 25


def sound(text: str, lowest: float = 300.0, noise: float = 0.01, seed: int = 0) -> np.ndarray:
    """float32 (samples,) at 16 kHz: the tones of a text, 500 Hz apart from ``lowest`` on, with a little noise."""
    time = np.arange(SAMPLES) / SAMPLE_RATE
    silence = np.zeros(SAMPLES)
    tones = [silence if each == " " else 0.3 * np.sin(2 * np.pi * (lowest + 500 * LETTERS.index(each)) * time) for each in text]
    generator = np.random.default_rng(seed)
    return (np.concatenate(tones) + generator.normal(0, noise, SAMPLES * len(text))).astype(np.float32)


def pictures(text: str, seed: int = 0) -> np.ndarray:
    """uint8 (frames, 96, 96): a bar at the height of each letter."""
    crops = np.random.default_rng(seed).integers(90, 120, (FRAMES * len(text), 96, 96), dtype=np.uint8)
    for place, each in enumerate(text):
        if each != " ":
            top = 12 + 12 * LETTERS.index(each)
            crops[FRAMES * place : FRAMES * (place + 1), top : top + 10] = 230
    return crops


def make_corpus(folder: str | Path, count: int = 48, lowest: float = 300.0, seed: int = 0) -> Path:
    """Write clips of random words with a manifest, every sixth of split ``valid``; returns the manifest."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for index in range(count):
        generator = np.random.default_rng(seed_for(seed, "letters", index))
        text = " ".join("".join(generator.choice(list(LETTERS), size=2)) for _ in range(int(generator.integers(1, 4))))
        name = f"clip{index:03d}"
        write_wav(folder / f"{name}.wav", sound(text, lowest, seed=index))
        np.save(folder / f"{name}.npy", pictures(text, seed=index))
        rows.append(
            Utterance(
                name,
                f"{name}.npy",
                f"{name}.wav",
                FRAMES * len(text),
                SAMPLES * len(text),
                transcript=text,
                speaker=f"s{index % 4}",
                split="valid" if index % 6 == 5 else "train",
            )
        )
    write_manifest(folder / "manifest.jsonl", Manifest(folder, tuple(rows)))
    return folder / "manifest.jsonl"


def settings(manifest: str | Path, output: str | Path, steps: int = 250, **changes: Any) -> dict[str, Any]:
    """A configuration of `avtlm train`: a VATLM of some twenty-five thousand parameters with CTC, from sound, picture or both."""
    lips = {"size": 22, "stem_channels": 4, "stem_stride": 2, "stem_pool": False, "widths": [8], "blocks": [1], "strides": [2]}
    layers = {"dim": 32, "layers": 1, "heads": 2, "feed_forward_dim": 48, "position_kernel": 6, "position_groups": 4, "layer_drop": 0.0}
    encoder = {"units": 6, "final_dim": 8, "frontends": {"phones": 0, "lips": {**lips, "reduce": "flatten"}}, "encoder": layers}
    given = {
        "system": "vatlm",
        "task": "recognition",
        "output": str(output),
        "sources": {"letters": {"manifest": str(manifest), "task": "recognition", "split": "train"}},
        "validation": {"manifest": str(manifest), "task": "recognition", "split": "valid"},
        "model": {"encoder": encoder, "modality_dropout": 0.3, "dropout": 0.0},
        "optim": {"lr": 0.01, "schedule": "cosine", "clip_norm": 2.0},
        "steps": steps,
        "max_rows": 8,
        "log_every": steps,
        "save_every": steps,
        "validate_every": steps,
        "threads": 1,
        "tensorboard": False,
    }
    return {**given, **changes}


def make_model(folder: str | Path = "runs/letters", steps: int = 250) -> Path:
    """The folder of a recogniser of this speech; trained, with its corpus, unless it is there already."""
    folder = Path(folder)
    if not (folder / "corpus" / "manifest.jsonl").exists():
        make_corpus(folder / "corpus")
    return train(config.load(TrainConfig, settings(folder / "corpus" / "manifest.jsonl", folder / "run", steps)))
