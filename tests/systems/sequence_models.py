"""SpeechT5 and Speech2C of a few thousand parameters, and batches for them."""

from dataclasses import replace
from typing import Any

import torch

from avtlm.data.batching import Batch
from avtlm.data.spoken import Utterance, collate
from avtlm.nn.quantize import QuantizerConfig
from avtlm.nn.spectrogram import SpectrogramConfig
from avtlm.nn.transformer import DecoderConfig
from avtlm.systems.speech2c import Speech2C, Speech2CConfig
from avtlm.systems.speecht5 import LossConfig, SpeechT5, SpeechT5Config
from tests.systems.speech_models import ENCODER, SHARED

DECODER = DecoderConfig(
    dim=16, layers=2, heads=2, feed_forward_dim=16, activation="gelu", norm_first=False, dropout=0.0, activation_dropout=0.0
)
SPECTROGRAM = SpectrogramConfig(
    bands=6, prenet_width=8, voice_dim=5, postnet_layers=3, postnet_width=8, postnet_dropout=0.0, position_dropout=0.0
)
SPEECHT5 = SpeechT5Config(
    **{key: value for key, value in SHARED.items() if key != "encoder"},
    encoder=replace(ENCODER, position_kernel=0, key_distance=3),
    decoder=DECODER,
    position_kernel=4,
    position_groups=2,
    position_dropout=0.0,
    vocabulary=12,
    units=7,
    final_dim=4,
    codebook=QuantizerConfig(2, 5),
    mixing=0.4,
    spectrogram=SPECTROGRAM,
    losses=LossConfig(feature_penalty=0.1),
)
SPEECH2C = Speech2CConfig(
    **SHARED | {"encoder": replace(ENCODER, key_distance=3)},
    units=7,
    final_dim=4,
    feature_penalty=0.1,
    decoder=replace(DECODER, tie_embeddings=False, scale_embedding=True, key_distance=2),
)
SAMPLES, FRAMES, TEXTS = (6400, 4000, 5200), (25, 16, 20), (9, 4, 6)


def speecht5(**changes: Any) -> SpeechT5:
    """In evaluation mode; parameters off their start values, so that leaving one out shows."""
    return _shaken(SpeechT5(replace(SPEECHT5, **changes)))


def speech2c(**changes: Any) -> Speech2C:
    return _shaken(Speech2C(replace(SPEECH2C, **changes)))


def _shaken(model: Any) -> Any:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def utterances(*parts: str) -> list[Utterance]:
    """Three of them with these parts; all alike in every call."""
    generator = torch.Generator().manual_seed(1)
    found = []
    for row, (samples, frames, symbols) in enumerate(zip(SAMPLES, FRAMES, TEXTS, strict=True)):
        text = torch.randint(4, 10, (symbols,), generator=generator)
        whole = Utterance(
            "abc"[row],
            wave=torch.randn(samples, generator=generator),
            text=torch.cat([torch.tensor([0]), text, torch.tensor([2])]),
            tokens=text,
            units=torch.randint(4, 7, (samples // 320,), generator=generator),
            mel=torch.randn(frames, 6, generator=generator),
            voice=torch.randn(5, generator=generator),
            speaker=row,
        )
        found.append(Utterance(whole.id, **{part: getattr(whole, part) for part in parts}))
    return found


def batch(*parts: str, row: int | None = None) -> Batch:
    """Of all utterances, or of one alone."""
    rows = utterances(*parts)
    return collate(rows if row is None else rows[row : row + 1], "test")
