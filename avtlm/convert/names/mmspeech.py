"""Key names of MMSpeech in its official code (OFA on fairseq) and in the port of ModelScope, which differs in the layers of the decoder."""

import re

from avtlm.convert.names.transformer import Rules, transformer

EMBEDDING, OUTPUT = "decoder.embedding.weight", "decoder.output_projection.weight"
# What pictures need, what follows from sizes, and what no line of the official code uses.
UNUSED = re.compile(
    r"encoder\.(?:encoder\.phone_layer_norm|final_proj)\..+"
    r"|decoder\.(?:version|token_rp_bucket|image_rp_bucket|image_position_idx)"
    r"|decoder\.(?:embed_image_positions|image_pos_ln|code_layernorm_embedding|image_rel_pos_table_list)\..+"
)
# ModelScope's words in the layers of the decoder, and the official ones.
PORTED = (
    ("cross_attn_mid_layer_norm", "cross_attn_ln"),
    ("self_attn_mid_layer_norm", "self_attn_ln"),
    ("cross_attn_layer_norm", "encoder_attn_layer_norm"),
    ("cross_attn", "encoder_attn"),
    ("ffn_layer_norm", "ffn_layernorm"),
)


def official_key(key: str) -> str:
    """What a tensor of the port is called in the official code."""
    match = re.fullmatch(r"(decoder\.layers\.\d+\.)([^.]+)(\..+)", key)
    return key if match is None else match[1] + dict(PORTED).get(match[2], match[2]) + match[3]


def ported_key(key: str) -> str:
    """What an official tensor is called in the port."""
    match = re.fullmatch(r"(decoder\.layers\.\d+\.)([^.]+)(\..+)", key)
    return key if match is None else match[1] + {there: here for here, there in PORTED}.get(match[2], match[2]) + match[3]


def rules() -> Rules:
    """Of the official names."""
    placed: Rules = []
    for theirs, ours in (("pos_conv", "speech_positions"), ("phone_pos_conv", "phone_positions")):
        placed += [
            (rf"encoder\.encoder\.{theirs}\.(\d+)\.0\.(weight|bias)", rf"{ours}.convs.\1.\2"),
            (rf"encoder\.encoder\.{theirs}\.0\.weight_g", rf"{ours}.conv.parametrizations.weight.original0"),
            (rf"encoder\.encoder\.{theirs}\.0\.weight_v", rf"{ours}.conv.parametrizations.weight.original1"),
            (rf"encoder\.encoder\.{theirs}\.0\.bias", rf"{ours}.conv.bias"),
        ]
    return [
        (r"encoder\.mask_emb", "feature_mask"),
        (r"encoder\.subsample\.conv\.0\.(.+)", r"frontend.convs.0.\1"),
        (r"encoder\.subsample\.conv\.2\.(.+)", r"frontend.convs.1.\1"),
        (r"encoder\.subsample\.out\.0\.(.+)", r"frontend.flat.\1"),
        (r"encoder\.post_subsample_proj\.(.+)", r"frontend.project.\1"),
        (r"encoder\.phone_item_embedding\.weight", "phone_embedding.weight"),
        *placed,
        *transformer(r"encoder\.encoder", "encoder"),
        (r"decoder\.embed_tokens\.weight", EMBEDDING),
        (r"decoder\.output_projection\.weight", "decoder.output.weight"),
        (r"decoder\.embed_positions\.weight", "decoder.places.weight"),
        (r"decoder\.pos_ln\.(.+)", r"decoder.place_norm.\1"),
        (r"decoder\.layernorm_embedding\.(.+)", r"decoder.embedding_norm.\1"),
        *(
            (rf"decoder\.{kind}_pos_{part[0]}_linear\.(.+)", rf"decoder.{kind}_{part}.\1")
            for kind in ("self", "cross")
            for part in ("query", "key")
        ),
        (r"decoder\.token_rel_pos_table_list\.(\d+)\.weight", r"decoder.layers.\1.distances.weight"),
        (r"decoder\.layers\.(\d+)\.self_attn\.c_attn", r"decoder.layers.\1.self_attention.head_scale"),
        (r"decoder\.layers\.(\d+)\.encoder_attn\.c_attn", r"decoder.layers.\1.cross_attention.head_scale"),
        (r"decoder\.layers\.(\d+)\.self_attn_ln\.(.+)", r"decoder.layers.\1.self_output_norm.\2"),
        (r"decoder\.layers\.(\d+)\.cross_attn_ln\.(.+)", r"decoder.layers.\1.cross_output_norm.\2"),
        (r"decoder\.layers\.(\d+)\.ffn_layernorm\.(.+)", r"decoder.layers.\1.feed_forward.inner_norm.\2"),
        (r"decoder\.layers\.(\d+)\.w_resid", r"decoder.layers.\1.residual_scale"),
        (r"decoder\.layers\.(\d+)\.adapter\.down_proj\.(.+)", r"decoder.layers.\1.adapter.expand.\2"),
        (r"decoder\.layers\.(\d+)\.adapter\.up_proj\.(.+)", r"decoder.layers.\1.adapter.contract.\2"),
        *transformer("decoder", "decoder"),
    ]
