"""SpeechT5 models of a few thousand random weights that write speech, a vocoder for them, and a voice, in folders and files."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from avtlm import config
from avtlm.checkpoint import save_model
from avtlm.decoding.synthesis import SynthesisOptions
from avtlm.nn.vocoder import Vocoder, VocoderConfig
from avtlm.systems.speecht5 import SpeechT5
from avtlm.text.vocabulary import SPACE, SPECIALS, Vocabulary
from tests.systems.sequence_models import SPECTROGRAM, speecht5

SYMBOLS = (*SPECIALS, SPACE, *"abcde", "<mask>", "<ctc_blank>")
WIDTH = 5  # of a voice
OPTIONS = SynthesisOptions(longest=8.0)


def writer(**changes: Any) -> SpeechT5:
    """A model of 80 bands whose speech ends sooner or later."""
    spectrogram = replace(SPECTROGRAM, bands=80, **changes.pop("spectrogram", {}))
    model = speecht5(task="generation", spectrogram=spectrogram, **changes)
    assert model.spectrogram is not None
    with torch.no_grad():
        # What the decoder says changes little from step to step; so much of it that "bad cab" ends after 0.35 s.
        model.spectrogram.stop.weight *= 25.0
        model.spectrogram.stop.bias.fill_(22.65)
        model.spectrogram.frames.bias -= 3.0  # soft enough for a waveform
    return model


def save_writer(folder: Path, options: SynthesisOptions = OPTIONS, vocabulary: bool = True, **changes: Any) -> Path:
    """The folder of a `writer`."""
    model = writer(**changes)
    card = {"system": "speecht5", "task": "generation", "model": config.to_dict(model.config)}
    save_model(folder, model, card, Vocabulary(SYMBOLS) if vocabulary else None, decoding=options)
    return folder


def save_vocoder(folder: Path, **changes: Any) -> Path:
    """The folder of a vocoder for them, off its start values, which are silent."""
    sizes: dict[str, Any] = {"width": 8, "rates": (16, 16), "kernels": (32, 32), "block_kernels": (3,), "block_dilations": ((1, 3),)}
    settings = VocoderConfig(**{**sizes, **changes})
    model = Vocoder(settings)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    save_model(folder, model, {"system": "hifigan", "task": "vocoder", "model": config.to_dict(settings)})
    return folder


def voice(seed: int = 0) -> np.ndarray:
    """A speaker embedding."""
    return np.random.default_rng(seed).normal(size=WIDTH).astype(np.float32)


def save_voice(path: Path, seed: int = 0) -> Path:
    np.save(path, voice(seed))
    return path
