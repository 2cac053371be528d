"""Key names of fairseq's Transformers, which the tables of single systems build on."""

import re
from collections.abc import Iterable

Rules = list[tuple[str, str]]

LAYER = r"layers\.(\d+)\."
ATTENTION = {"q_proj": "query", "k_proj": "key", "v_proj": "value", "out_proj": "output"}


def transformer(theirs: str, ours: str) -> Rules:
    """Names inside the layers of an encoder or a decoder, there (a pattern) and here."""
    rules = [
        (rf"{theirs}\.{LAYER}{block}\.{projection}\.(.+)", rf"{ours}.layers.\1.{name}.{part}.\2")
        for block, name in (("self_attn", "self_attention"), ("encoder_attn", "cross_attention"))
        for projection, part in ATTENTION.items()
    ]
    rules += [
        (rf"{theirs}\.{LAYER}{block}\.(.+)", rf"{ours}.layers.\1.{name}.\2")
        for block, name in (
            ("self_attn_layer_norm", "self_attention_norm"),
            ("encoder_attn_layer_norm", "cross_attention_norm"),
            ("final_layer_norm", "feed_forward_norm"),
            ("fc1", "feed_forward.expand"),
            ("fc2", "feed_forward.contract"),
        )
    ]
    return [*rules, (rf"{theirs}\.layer_norm\.(.+)", rf"{ours}.norm.\1")]


def encoder(theirs: str, ours: str) -> Rules:
    """Names of a Transformer encoder with its positional convolution."""
    return [
        (rf"{theirs}\.pos_conv\.0\.weight_g", rf"{ours}.positions.conv.parametrizations.weight.original0"),
        (rf"{theirs}\.pos_conv\.0\.weight_v", rf"{ours}.positions.conv.parametrizations.weight.original1"),
        (rf"{theirs}\.pos_conv\.0\.bias", rf"{ours}.positions.conv.bias"),
        *transformer(theirs, ours),
    ]


def find_name(rules: Iterable[tuple[str, str]], key: str, model: str) -> str:
    """What the first fitting rule turns a key into. Raises ValueError, naming the ``model``, if none fits."""
    for pattern, ours in rules:
        match = re.fullmatch(pattern, key)
        if match:
            return match.expand(ours)
    raise ValueError(f"{key!r}: no tensor of {model} is called so; the checkpoint belongs to another model.")
