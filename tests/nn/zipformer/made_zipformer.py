"""A Zipformer of a few thousand weights, all of them drawn so that every part has its say."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from avtlm.nn.zipformer import Zipformer, ZipformerConfig

TINY = ZipformerConfig(
    features=20,
    layers=(1, 2, 1),
    downsampling=(1, 2, 4),
    dims=(8, 12, 16),
    feed_forward=(8, 16, 16),
    heads=(2, 2, 4),
    kernels=(7, 5, 3),
    unmasked_dims=(8, 8, 8),
    query_head_dim=4,
    value_head_dim=3,
    position_head_dim=2,
    position_dim=8,
    chunk_sizes=(4, 8, -1),
    left_context=(8, 16, -1),
)


def zipformer(**changes: Any) -> Zipformer:
    """In evaluation, with weights of the size of those of a trained model."""
    torch.manual_seed(3)
    model = Zipformer(replace(TINY, **changes)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "scale" not in name:
                parameter.add_(0.2 * torch.randn(parameter.shape))
            elif "chunkwise" in name:
                parameter.normal_()
    return model


def features(batch: int, frames: int, seed: int = 1) -> Tensor:
    return torch.randn(batch, frames, TINY.features, generator=torch.Generator().manual_seed(seed))
