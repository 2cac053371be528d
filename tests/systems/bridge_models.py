"""SpeechLM of a few thousand parameters, and batches for it."""

from dataclasses import replace
from typing import Any

import torch

from avtlm.data.batching import Batch, pad
from avtlm.nn.transformer import DecoderConfig
from avtlm.nn.unit_encoder import UnitEncoderConfig
from avtlm.objectives.masking import SpanMaskConfig
from avtlm.systems.speechlm import SpeechLM, SpeechLMConfig
from avtlm.systems.unit_bridge import BridgeLosses
from avtlm.text.vocabulary import EOS, PAD
from tests.systems.speech_models import ENCODER, SHARED

UNIT_ENCODER = UnitEncoderConfig(
    dim=16,
    layers=2,
    heads=2,
    feed_forward_dim=16,
    dropout=0.0,
    attention_dropout=0.0,
    layer_drop=0.0,
    key_distance=3,
    max_positions=40,
)
DECODER = DecoderConfig(
    dim=16,
    layers=2,
    heads=2,
    feed_forward_dim=16,
    activation="gelu",
    norm_first=False,
    dropout=0.0,
    activation_dropout=0.0,
    tie_embeddings=False,
    scale_embedding=True,
    key_distance=2,
)
SPEECHLM = SpeechLMConfig(
    **SHARED | {"encoder": replace(ENCODER, key_distance=3)},
    unit_encoder=UNIT_ENCODER,
    units=11,
    final_dim=4,
    vocabulary=10,
    swap=SpanMaskConfig(0.6, 2),
    losses=BridgeLosses(feature_penalty=0.1, ctc=0.5),
)
SAMPLES, UNITS, LETTERS = (6400, 4000, 5200), (14, 9, 11), (5, 3, 4)


def speechlm(**changes: Any) -> SpeechLM:
    """In evaluation mode; parameters off their start values, so that leaving one out shows."""
    model = SpeechLM(replace(SPEECHLM, **changes))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def rows_of(sizes: tuple[int, ...], row: int | None, seed: int, top: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    found = [torch.randint(4, top, (size,), generator=generator) for size in sizes]
    return found if row is None else found[row : row + 1]


def speech(row: int | None = None, rate: int = 1, **targets: torch.Tensor) -> Batch:
    """Three clips with ``rate`` units for every frame, and letters; or one of them alone."""
    generator = torch.Generator().manual_seed(1)
    waves = [torch.randn(samples, generator=generator) for samples in SAMPLES]
    wave, lengths = pad(waves if row is None else waves[row : row + 1])
    units, counts = pad(rows_of(tuple(rate * (samples // 320) for samples in SAMPLES), row, 2, 10), -1)
    tokens, symbols = pad(rows_of(LETTERS, row, 3, 9), PAD)
    return Batch(
        tuple("abc"[: len(wave)]),
        "speech",
        audio=wave,
        audio_lengths=lengths,
        targets={"units": units, "tokens": tokens, **targets},
        target_lengths={"units": counts, "tokens": symbols},
    )


def text(row: int | None = None) -> Batch:
    """Units of three texts with their end, and the letters that they stand for; or one of them alone."""
    units, lengths = pad([torch.cat([each, torch.tensor([EOS])]) for each in rows_of(UNITS, row, 4, 10)], PAD)
    letters, counts = pad(rows_of(LETTERS, row, 5, 9), PAD)
    return Batch(tuple("def"[: len(units)]), "units", text=letters, text_lengths=counts, text_units=units, text_units_lengths=lengths)
