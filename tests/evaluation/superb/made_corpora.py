"""Corpora of half seconds of tones for SUPERB's tasks, whose labels one hears in the pitch, and a tiny encoder."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from avtlm.checkpoint import save_model
from avtlm.config import to_dict
from avtlm.data.media import write_wav
from avtlm.evaluation.superb.features import Upstream
from tests.systems import speech_models

RATE = 16000
PITCHES = {"low": 200.0, "middle": 700.0, "high": 2400.0}


def tone(pitch: float, seconds: float = 0.5, seed: int = 0) -> np.ndarray:
    """A sine with a little noise, float32."""
    time = np.arange(round(seconds * RATE)) / RATE
    noise = np.random.default_rng(seed).normal(0, 0.01, len(time))
    return (0.3 * np.sin(2 * np.pi * pitch * time) + noise).astype(np.float32)


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_task(folder: Path, task: str, **more: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "task.json").write_text(json.dumps({"task": task, "name": f"made {task}", **more}))
    return folder


def sounds(folder: Path, split: str, count: int, seed: int) -> list[tuple[str, dict[str, Any]]]:
    """Clips of the three pitches in turn: name of the pitch, and the row."""
    found = []
    for number in range(count):
        name = list(PITCHES)[number % len(PITCHES)]
        file = f"{split}_{number}.wav"
        write_wav(folder / file, tone(PITCHES[name] * (1 + 0.01 * (number // 3)), 0.4 + 0.02 * number, seed + number))
        found.append((name, {"id": f"{split}-{number}", "audio": file}))
    return found


class Ear(Upstream):
    """An encoder that hears pitch: of its two hidden states the first is noise, the second a spectrum of 16 bands at 50 Hz."""

    name, key, layers, width, frame_rate = "ear", "ear", 2, 16, 50.0

    def _states(self, waves: Any) -> list[Tensor]:
        found = []
        for wave in waves:
            pieces = torch.from_numpy(wave[: len(wave) // 320 * 320].astype(np.float32)).reshape(-1, 320)
            bands = torch.fft.rfft(pieces).abs()[:, :160].reshape(len(pieces), 16, 10).amax(2).log1p()
            noise = torch.randn(bands.shape, generator=torch.Generator().manual_seed(len(wave)))
            found.append(torch.stack([noise, bands], 1))
        return found


FIELDS: dict[str, Any] = {
    "KS": lambda name: {"label": name},
    "SID": lambda name: {"speaker": name},
    "IC": lambda name: {"labels": [name, "on" if name == "low" else "off", "here"]},
    "PR": lambda name: {"phones": [name.upper()]},
    "ASR": lambda name: {"text": name[0]},
    "OOD-ASR": lambda name: {"text": {"low": "ñ", "middle": "ü", "high": "é"}[name]},
    "SF": lambda name: {"text": f"B-pitch {name[0]} E-pitch"},
}


def save_simple(folder: Path, task: str, count: int = 9, **about: Any) -> Path:
    """A corpus with train, dev and test of one of the tasks in FIELDS."""
    write_task(folder, task, **about)
    for seed, split in enumerate(("train", "dev", "test")):
        rows = [{**row, **FIELDS[task](name)} for name, row in sounds(folder, split, count if split == "train" else 6, 100 * seed)]
        write_rows(folder / f"{split}.jsonl", rows)
    return folder


def save_folds(folder: Path) -> Path:
    """ER: three folds."""
    write_task(folder, "ER")
    rows = [{**row, "label": name, "fold": number // 6 + 1} for number, (name, row) in enumerate(sounds(folder, "train", 18, 0))]
    write_rows(folder / "train.jsonl", rows)
    return folder


def save_trials(folder: Path) -> Path:
    """ASV: the pitch is the speaker; test has six clips of pitches that training has."""
    write_task(folder, "ASV")
    for seed, split in enumerate(("train", "test")):
        rows = [{**row, "speaker": name} for name, row in sounds(folder, split, 6, 100 * seed)]
        write_rows(folder / f"{split}.jsonl", rows)
    pairs = [(a, b) for a in range(6) for b in range(a + 1, 6)]
    (folder / "trials.txt").write_text("".join(f"{int(a % 3 == b % 3)} test-{a} test_{b}.wav\n" for a, b in pairs))
    return folder


def save_turns(folder: Path) -> Path:
    """SD: a low speaker, then a high one; in some clips the other way round."""
    write_task(folder, "SD")
    for seed, split in enumerate(("train", "dev", "test")):
        rows = []
        for number in range(4):
            order = ["low", "high"] if number % 2 else ["high", "low"]
            wave = np.concatenate([tone(PITCHES[name], 0.4, 10 * seed + number) for name in order])
            write_wav(folder / f"{split}_{number}.wav", wave)
            turns = [[name, 0.4 * place, 0.4 * (place + 1)] for place, name in enumerate(order)]
            rows.append({"id": f"{split}-{number}", "audio": f"{split}_{number}.wav", "segments": turns})
        write_rows(folder / f"{split}.jsonl", rows)
    return folder


def save_queries(folder: Path) -> Path:
    """QbE: each query is a run of two pitches, which two of six documents hold."""
    write_task(folder, "QbE")
    words = [("low", "high"), ("high", "middle"), ("middle", "low")]
    documents, relevance, queries = [], [], []
    for number in range(6):
        parts = [tone(PITCHES[name], 0.2, 50 + number) for name in words[number % 3]]
        rest = np.random.default_rng(number).normal(0, 0.1, 4000).astype(np.float32)
        write_wav(folder / f"document_{number}.wav", np.concatenate([rest, *parts, rest[:2000]]))
        documents.append({"id": f"d{number}", "audio": f"document_{number}.wav"})
    for split in ("dev", "test"):
        for number, pair in enumerate(words):
            file = f"query_{split}_{number}.wav"
            write_wav(folder / file, np.concatenate([tone(PITCHES[name], 0.2, 90 + number) for name in pair]))
            queries.append({"id": f"{split}-q{number}", "audio": file, "split": split})
            relevance += [{"query": f"{split}-q{number}", "document": f"d{place}", "split": split} for place in (number, number + 3)]
    write_rows(folder / "documents.jsonl", documents)
    write_rows(folder / "queries.jsonl", queries)
    write_rows(folder / "relevance.jsonl", relevance)
    return folder


def save_encoder(folder: Path) -> Path:
    """The model folder of a tiny HuBERT: three hidden states of 16 values at 50 Hz."""
    model = speech_models.tiny("hubert")
    save_model(folder, model, {"system": "hubert", "task": "pretrain", "model": to_dict(model.config)})
    return folder
