"""Every weight of a Zipformer has an official name, and every official name of one leads back to it."""

import pytest

from avtlm.convert.names.inverse import find_key
from avtlm.convert.names.transformer import find_name
from avtlm.convert.names.zipformer import UNUSED, zipformer_names
from tests.nn.zipformer.made_zipformer import zipformer


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("start", ["", "encoder."])
def test_names_go_both_ways(causal: bool, start: str) -> None:
    model = zipformer(causal=causal)
    rules = zipformer_names(model.config, start)
    keys = {find_key(rules, start + name): start + name for name in model.state_dict()}
    assert len(keys) == len(model.state_dict())
    assert all(find_name(rules, key, "a test") == name for key, name in keys.items())


def test_names_are_the_official_ones() -> None:
    rules = zipformer_names(zipformer(causal=True).config)
    for key, name in (
        ("encoder_embed.conv.4.weight", "embed.convs.1.weight"),
        ("encoder_embed.convnext.pointwise_conv2.bias", "embed.block.contract.bias"),
        ("encoder_embed.out_norm.log_scale", "embed.norm.log_scale"),
        ("encoder.encoders.0.layers.0.self_attn_weights.linear_pos.weight", "stacks.0.layers.0.attention_weights.positions.weight"),
        ("encoder.encoders.1.encoder.layers.1.feed_forward3.out_proj.bias", "stacks.1.layers.1.feed_forward3.contract.bias"),
        (
            "encoder.encoders.2.encoder.layers.0.conv_module2.depthwise_conv.chunkwise_conv_scale",
            "stacks.2.layers.0.convolution2.depthwise.chunkwise_scale",
        ),
        ("encoder.encoders.2.out_combiner.bypass_scale", "stacks.2.bypass.scale"),
        ("encoder.encoders.1.downsample.bias", "stacks.1.downsample.bias"),
        ("encoder.downsample_output.bias", "downsample.bias"),
    ):
        assert find_name(rules, key, "a test") == name
    for key in ("encoder.encoders.0.layers.1.bypass_scale", "encoder.encoders.1.encoder.layers.0.bypass_scale"):
        assert UNUSED.fullmatch(key)
        with pytest.raises(ValueError, match="no tensor of the Zipformer is called so"):
            find_name(rules, key, "the Zipformer")
    assert not UNUSED.fullmatch("encoder.encoders.0.layers.1.bypass.bypass_scale")
