"""Published sizes have the published numbers of parameters, and impossible ones are refused."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from avtlm.config import load, to_dict
from avtlm.nn.zipformer import LARGE, MEDIUM, SMALL, Zipformer, ZipformerConfig
from tests.nn.zipformer.made_zipformer import TINY, features


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
        ({"dims": (192, 256, 384, 3, 384, 256)}, "give at least 4"),
        ({"query_head_dim": (32, 32)}, "query_head_dim: .* or one for each of the 6"),
        ({"value_head_dim": (12, 12, 0, 12, 12, 12)}, "give at least 1, the last one even"),
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


def test_stacks_may_have_heads_of_their_own_widths_and_parts_are_rounded_down() -> None:
    config = replace(TINY, dims=(9, 14, 16), feed_forward=(10, 16, 16), query_head_dim=(4, 5, 6), value_head_dim=(3, 2, 4))
    model = Zipformer(config).eval()
    found = [
        (layer.attention_weights.project.out_features, layer.attention1.value.out_features, layer.nonlinear_attention.width)
        for layer in (stack.layers[0] for stack in model.stacks)  # type: ignore[union-attr, index]
    ]
    assert found == [(2 * (2 * 4 + 2), 2 * 3, 6), (2 * (2 * 5 + 2), 2 * 2, 10), (4 * (2 * 6 + 2), 4 * 4, 12)]
    assert [model.stacks[0].layers[0].get_submodule(f"feed_forward{n}.expand").out_features for n in (1, 2, 3)] == [7, 10, 12]  # type: ignore[union-attr, index]
    assert model(features(1, 40), torch.tensor([40])).frames.shape == (1, 8, 16)
    assert load(ZipformerConfig, to_dict(config)) == config
