"""Published sizes have the published numbers of parameters, and impossible ones are refused."""

from typing import Any

import pytest
import torch

from avtlm.nn.zipformer import LARGE, MEDIUM, SMALL, Zipformer, ZipformerConfig


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def unused(config: ZipformerConfig) -> int:
    """The official layers own a vector more each, which nothing uses."""
    return sum(layers * dim for layers, dim in zip(config.layers, config.dims, strict=True))


def test_the_medium_model_has_the_official_numbers_of_parameters() -> None:
    with torch.device("meta"):
        model = Zipformer(MEDIUM)
    assert count(model.embed) == 611_953
    owned = [layers * dim for layers, dim in zip(MEDIUM.layers, MEDIUM.dims, strict=True)]
    stacks = [count(stack) + more for stack, more in zip(model.stacks, owned, strict=True)]
    assert stacks == [2_058_306, 3_825_764, 11_664_631, 30_343_052, 11_664_631, 3_825_764]
    assert count(model.stacks) + count(model.downsample) + unused(MEDIUM) == 63_382_150
    assert (model.dim, MEDIUM.rate) == (512, 25.0)


@pytest.mark.parametrize(("config", "millions", "dim"), [(SMALL, 22.0, 256), (LARGE, 146.6, 768)])
def test_the_other_published_sizes_are_built(config: ZipformerConfig, millions: float, dim: int) -> None:
    with torch.device("meta"):
        model = Zipformer(config)
    assert count(model) / 1e6 == pytest.approx(millions, abs=1.0)
    assert model.dim == dim


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": (2, 2)}, "layers 2, downsampling 6.* give one for every stack"),
        ({"features": 6}, "at least 7 bands"),
        ({"dims": (192, 256, 384, 510, 384, 256)}, "give multiples of 4"),
        ({"kernels": (31, 30, 15, 15, 15, 31)}, "give odd numbers"),
        ({"unmasked_dims": (200, 192, 256, 256, 256, 192)}, "at most all of a stack"),
        ({"position_dim": 47}, "the last one even"),
        ({"causal": True, "chunk_sizes": (12,)}, "chunk_size: 12 frames; give a multiple of each of"),
        ({"causal": True, "left_context": (0,)}, "give frames, or -1 for everything"),
    ],
)
def test_impossible_sizes_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ZipformerConfig(**changes)
