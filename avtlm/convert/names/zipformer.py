"""Key names of the Zipformer in icefall: ``encoder_embed.*`` and ``encoder.*`` of a checkpoint, whose shapes are ours."""

import re

from avtlm.convert.names.transformer import Rules
from avtlm.nn.zipformer import ZipformerConfig

# One parameter in every layer that no line of the official code uses.
UNUSED = re.compile(r"encoder\.encoders\.\d+\.(?:encoder\.)?layers\.\d+\.bypass_scale")
UNUSED_VALUE = 0.5  # at which it starts, and stays

_LAYER = (
    ("self_attn_weights.in_proj", "attention_weights.project"),
    ("self_attn_weights.linear_pos", "attention_weights.positions"),
    ("nonlin_attention.in_proj", "nonlinear_attention.project"),
    ("nonlin_attention.out_proj", "nonlinear_attention.output"),
    *(
        pair
        for number in (1, 2)
        for pair in (
            (f"self_attn{number}.in_proj", f"attention{number}.value"),
            (f"self_attn{number}.out_proj", f"attention{number}.output"),
            (f"conv_module{number}.in_proj", f"convolution{number}.project"),
            (f"conv_module{number}.out_proj", f"convolution{number}.output"),
        )
    ),
    *(
        pair
        for number in (1, 2, 3)
        for pair in (
            (f"feed_forward{number}.in_proj", f"feed_forward{number}.expand"),
            (f"feed_forward{number}.out_proj", f"feed_forward{number}.contract"),
        )
    ),
    ("norm", "norm"),
)
_PLAIN = (("conv_module{}.depthwise_conv", "convolution{}.depthwise"),)
_CAUSAL = (
    ("conv_module{}.depthwise_conv.causal_conv", "convolution{}.depthwise.causal"),
    ("conv_module{}.depthwise_conv.chunkwise_conv", "convolution{}.depthwise.chunkwise"),
)


def zipformer_names(config: ZipformerConfig, ours: str = "") -> Rules:
    """Official names (patterns) and ours, of the convolutions and of all stacks; see `UNUSED` for what has no name here.

    Args:
        ours: what stands before our names, such as ``encoder.``.
    """
    rules = [
        (r"encoder_embed\.conv\.0\.(.+)", rf"{ours}embed.convs.0.\1"),
        (r"encoder_embed\.conv\.4\.(.+)", rf"{ours}embed.convs.1.\1"),
        (r"encoder_embed\.conv\.7\.(.+)", rf"{ours}embed.convs.2.\1"),
        (r"encoder_embed\.convnext\.depthwise_conv\.(.+)", rf"{ours}embed.block.depthwise.\1"),
        (r"encoder_embed\.convnext\.pointwise_conv1\.(.+)", rf"{ours}embed.block.expand.\1"),
        (r"encoder_embed\.convnext\.pointwise_conv2\.(.+)", rf"{ours}embed.block.contract.\1"),
        (r"encoder_embed\.out\.(.+)", rf"{ours}embed.project.\1"),
        (r"encoder_embed\.out_norm\.(.+)", rf"{ours}embed.norm.\1"),
        (r"encoder\.downsample_output\.bias", f"{ours}downsample.bias"),
    ]
    depthwise = [(theirs.format(n), name.format(n)) for theirs, name in (_CAUSAL if config.causal else _PLAIN) for n in (1, 2)]
    for number, factor in enumerate(config.downsampling):
        stack, layers = rf"encoder\.encoders\.{number}\.", rf"{ours}stacks.{number}.layers.\1."
        if factor > 1:
            rules += [
                (rf"{stack}downsample\.bias", f"{ours}stacks.{number}.downsample.bias"),
                (rf"{stack}out_combiner\.bypass_scale", f"{ours}stacks.{number}.bypass.scale"),
            ]
        layer = (rf"{stack}encoder\." if factor > 1 else stack) + r"layers\.(\d+)\."
        if config.causal:
            rules += [
                (rf"{layer}conv_module{n}\.depthwise_conv\.chunkwise_conv_scale", rf"{layers}convolution{n}.depthwise.chunkwise_scale")
                for n in (1, 2)
            ]
        rules += [(rf"{layer}{re.escape(theirs)}\.(.+)", rf"{layers}{name}.\2") for theirs, name in (*depthwise, *_LAYER)]
        rules += [
            (rf"{layer}bypass\.bypass_scale", f"{layers}bypass.scale"),
            (rf"{layer}bypass_mid\.bypass_scale", f"{layers}middle_bypass.scale"),
        ]
    return rules
