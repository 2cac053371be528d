"""An untrained VATLM in a folder, and features that cost nothing."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from avtlm import checkpoint, config, systems
from avtlm.data.seeds import seed_for
from avtlm.frontends.lips import LipEncoderConfig
from avtlm.frontends.multimodal import FrontEndConfig
from avtlm.nn.transformer import EncoderConfig
from avtlm.systems.vatlm import VATLMConfig
from avtlm.units.features import Features


def save_encoder(folder: Path, seed: int = 0) -> Path:
    """Two layers of 16 values; returns the folder."""
    lips = LipEncoderConfig(size=22, stem_channels=4, widths=(4,), blocks=(1,), strides=(2,))
    settings = VATLMConfig(
        frontends=FrontEndConfig(lips=lips, phones=0),
        encoder=EncoderConfig(dim=16, layers=2, heads=2, feed_forward_dim=16, position_kernel=4, position_groups=2),
        units=7,
    )
    torch.manual_seed(seed)
    card = {"system": "vatlm", "task": "pretrain", "model": config.to_dict(settings)}
    checkpoint.save_model(folder, systems.find("vatlm").build(settings), card)
    return folder


def random_features(features: Features, indices: Sequence[int]) -> list[tuple[str, np.ndarray]]:
    """In place of Features.compute: four values a frame that depend on the utterance alone."""
    names = [(features.rows[index].id, features.length(index)) for index in indices]
    return [(name, np.random.default_rng(seed_for(name)).normal(size=(frames, 4)).astype(np.float32)) for name, frames in names]
