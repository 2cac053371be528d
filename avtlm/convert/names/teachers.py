"""Key names of MT2KD's teachers: Whisper's encoder (OpenAI's files and Hugging Face folders), BEATs, SpeechBrain's ECAPA-TDNN."""

import re

from avtlm.convert.names.transformer import ATTENTION, Rules, find_name, transformer

_LAYER = r"blocks\.(\d+)\."
_FIRST, _BLOCK = r"blocks\.0\.", r"blocks\.(\d+)\."

WHISPER_OPENAI: Rules = [
    *(
        (rf"{_LAYER}attn\.{theirs}\.(.+)", rf"encoder.layers.\1.self_attention.{ours}.\2")
        for theirs, ours in {"query": "query", "key": "key", "value": "value", "out": "output"}.items()
    ),
    (rf"{_LAYER}attn_ln\.(.+)", r"encoder.layers.\1.self_attention_norm.\2"),
    (rf"{_LAYER}mlp\.0\.(.+)", r"encoder.layers.\1.feed_forward.expand.\2"),
    (rf"{_LAYER}mlp\.2\.(.+)", r"encoder.layers.\1.feed_forward.contract.\2"),
    (rf"{_LAYER}mlp_ln\.(.+)", r"encoder.layers.\1.feed_forward_norm.\2"),
    (r"ln_post\.(.+)", r"encoder.norm.\1"),
    (r"conv1\.(.+)", r"convs.0.\1"),
    (r"conv2\.(.+)", r"convs.1.\1"),
    (r"positional_embedding", "positions"),
]
WHISPER_HUGGING_FACE: Rules = [
    *transformer("encoder", "encoder"),
    (r"encoder\.conv1\.(.+)", r"convs.0.\1"),
    (r"encoder\.conv2\.(.+)", r"convs.1.\1"),
    (r"encoder\.embed_positions\.weight", "positions"),
]
BEATS: Rules = [
    (r"patch_embedding\.(.+)", r"patches.\1"),
    (r"layer_norm\.(.+)", r"patch_norm.\1"),
    (r"post_extract_proj\.(.+)", r"project.\1"),
    (r"encoder\.pos_conv\.0\.weight_g", "positions.conv.parametrizations.weight.original0"),
    (r"encoder\.pos_conv\.0\.weight_v", "positions.conv.parametrizations.weight.original1"),
    (r"encoder\.pos_conv\.0\.bias", "positions.conv.bias"),
    (r"encoder\.layer_norm\.(.+)", r"norm.\1"),
    (r"encoder\.layers\.0\.self_attn\.relative_attention_bias\.weight", "relative.table.weight"),
    (r"encoder\.layers\.(\d+)\.self_attn\.grep_a", r"layers.\1.self_attention.gate.scale"),
    (r"encoder\.layers\.(\d+)\.self_attn\.grep_linear\.(.+)", r"layers.\1.self_attention.gate.project.\2"),
    *(
        (rf"encoder\.layers\.(\d+)\.self_attn\.{theirs}\.(.+)", rf"layers.\1.self_attention.{ours}.\2")
        for theirs, ours in ATTENTION.items()
    ),
    (r"encoder\.layers\.(\d+)\.self_attn_layer_norm\.(.+)", r"layers.\1.self_attention_norm.\2"),
    (r"encoder\.layers\.(\d+)\.fc1\.(weight|bias)", r"layers.\1.feed_forward.expand.\2"),
    (r"encoder\.layers\.(\d+)\.fc1\.linear\.(.+)", r"layers.\1.feed_forward.expand.\2"),  # where it is gated
    (r"encoder\.layers\.(\d+)\.fc2\.(.+)", r"layers.\1.feed_forward.contract.\2"),
    (r"encoder\.layers\.(\d+)\.final_layer_norm\.(.+)", r"layers.\1.feed_forward_norm.\2"),
    (r"predictor\.(.+)", r"predictor.\1"),
]
# One table for all layers, of which files hold copies.
BEATS_COPIES = re.compile(r"encoder\.layers\.[1-9]\d*\.self_attn\.relative_attention_bias\.weight")


def pooling(theirs: str, ours: str) -> Rules:
    """Names of attentive statistics pooling, there (a pattern) and here."""
    return [
        (rf"{theirs}\.tdnn\.conv\.conv\.(.+)", rf"{ours}.context.conv.\1"),
        (rf"{theirs}\.tdnn\.norm\.norm\.(.+)", rf"{ours}.context.norm.\1"),
        (rf"{theirs}\.conv\.conv\.(.+)", rf"{ours}.weights.\1"),
    ]


_ECAPA: Rules = [
    (rf"{_FIRST}conv\.conv\.(.+)", r"input.conv.\1"),
    (rf"{_FIRST}norm\.norm\.(.+)", r"input.norm.\1"),
    (rf"{_BLOCK}tdnn1\.conv\.conv\.(.+)", r"blocks.\1.first.conv.\2"),
    (rf"{_BLOCK}tdnn1\.norm\.norm\.(.+)", r"blocks.\1.first.norm.\2"),
    (rf"{_BLOCK}tdnn2\.conv\.conv\.(.+)", r"blocks.\1.last.conv.\2"),
    (rf"{_BLOCK}tdnn2\.norm\.norm\.(.+)", r"blocks.\1.last.norm.\2"),
    (rf"{_BLOCK}res2net_block\.blocks\.(\d+)\.conv\.conv\.(.+)", r"blocks.\1.parts.\2.conv.\3"),
    (rf"{_BLOCK}res2net_block\.blocks\.(\d+)\.norm\.norm\.(.+)", r"blocks.\1.parts.\2.norm.\3"),
    (rf"{_BLOCK}shortcut\.conv\.(.+)", r"blocks.\1.shortcut.\2"),
    (rf"{_BLOCK}se_block\.conv1\.conv\.(.+)", r"blocks.\1.squeeze.\2"),
    (rf"{_BLOCK}se_block\.conv2\.conv\.(.+)", r"blocks.\1.excite.\2"),
    (r"mfa\.conv\.conv\.(.+)", r"gather.conv.\1"),
    (r"mfa\.norm\.norm\.(.+)", r"gather.norm.\1"),
    *pooling("asp", "pooling"),
    (r"asp_bn\.norm\.(.+)", r"norm.\1"),
    (r"fc\.conv\.(.+)", r"output.\1"),
]


def ecapa_name(key: str) -> str:
    """Our name of a tensor of SpeechBrain's ECAPA-TDNN, whose blocks are counted from 1. Raises ValueError if there is none."""
    name = find_name(_ECAPA, key, "ECAPA-TDNN")
    return re.sub(r"^blocks\.(\d+)", lambda match: f"blocks.{int(match[1]) - 1}", name)
