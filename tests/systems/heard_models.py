"""MT2KD of a few thousand weights, a corpus for its tasks, and a model folder that answers all three commands."""

import dataclasses
from pathlib import Path
from typing import Any

import torch

from avtlm import config
from avtlm.checkpoint import save_model
from avtlm.data.batching import Batch, pad
from avtlm.data.manifest import Manifest, read_manifest, write_manifest
from avtlm.data.tags import listed
from avtlm.nn.zipformer import ZipformerConfig
from avtlm.systems.mt2kd import MT2KD, JoinerConfig, MT2KDConfig
from avtlm.text.vocabulary import Vocabulary
from tests.made_corpus import LETTERS, MadeCorpus

SIZES: dict[str, Any] = {
    "layers": (1, 1),
    "downsampling": (1, 2),
    "dims": (16, 24),
    "feed_forward": (32, 32),
    "heads": (2, 2),
    "kernels": (5, 5),
    "unmasked_dims": (16, 24),
    "query_head_dim": 4,
    "value_head_dim": 4,
    "position_dim": 8,
}
MODEL: dict[str, Any] = {"encoder": SIZES, "speaker_stack": 1, "dropout": 0.0, "batches_before": 20000.0}
TAGS = ("bird", "car", "rain")
SYMBOLS = Vocabulary.characters([LETTERS])


def tiny_config(**changes: Any) -> MT2KDConfig:
    """Of both stages at once: all heads but that for names of speakers."""
    settings = MT2KDConfig(
        encoder=ZipformerConfig(**SIZES),
        task="transcription",
        vocabulary=len(SYMBOLS),
        tags=len(TAGS),
        voice_dim=6,
        speech_width=0,
        speaker_stack=1,
        dropout=0.0,
        transducer=JoinerConfig(dim=8, joint_dim=8, warmup=10),
        batches_before=20000.0,
    )
    return dataclasses.replace(settings, **changes)


def tiny_model(**changes: Any) -> MT2KD:
    """In evaluation mode, always the same weights."""
    torch.manual_seed(0)
    return MT2KD(tiny_config(**changes)).eval()


def sounds(*seconds: float, task: str = "recognition", seed: int = 0) -> Batch:
    """Noise of these lengths."""
    generator = torch.Generator().manual_seed(seed)
    waves, lengths = pad([0.1 * torch.randn(round(16000 * each), generator=generator) for each in seconds])
    return Batch(tuple(f"clip{row}" for row in range(len(seconds))), task, audio=waves, audio_lengths=lengths)


def save_tiny(folder: Path, tags: tuple[str, ...] = TAGS) -> Path:
    """A model folder of stage 2."""
    model = tiny_model()
    card = {"system": "mt2kd", "task": "transcription", "model": config.to_dict(model.config)}
    save_model(folder, model, card, SYMBOLS, listed(tags))
    return folder


def labelled(corpus: MadeCorpus, folder: Path) -> Path:
    """The manifest of the corpus's sound, with a label in every row."""
    rows = read_manifest(corpus.sound)
    told = [dataclasses.replace(row, extra={"labels": [TAGS[place % len(TAGS)]]}) for place, row in enumerate(rows)]
    write_manifest(folder / "labelled.jsonl", Manifest(rows.root, tuple(told)))
    return folder / "labelled.jsonl"
