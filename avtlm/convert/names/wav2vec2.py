"""Key names of wav2vec 2.0, HuBERT, WavLM, data2vec and MT4SSL: in fairseq (and WavLM's own code, which follows it) and in Hugging Face.

All share the encoder; the heads have names of their own. A model fine-tuned with CTC has the same names behind a prefix, and a projection.
"""

import re
from collections.abc import Mapping
from typing import Literal

from torch import Tensor

from avtlm.convert.names.transformer import ATTENTION, LAYER, Rules, encoder, find_name

System = Literal["wav2vec2", "hubert", "wavlm", "data2vec", "mt4ssl"]

FAIRSEQ_CTC = "w2v_encoder.w2v_model."
HUGGING_FACE = ("wav2vec2.", "hubert.", "wavlm.", "data2vec_audio.")

_CONVOLUTION = r"feature_extractor\.conv_layers\.(\d+)\."


def _encoder(theirs: str, ours: str) -> Rules:
    """As fairseq's encoder; with data2vec's stack of positional convolutions and WavLM's relative positions."""
    attention = rf"{theirs}\.{LAYER}self_attn\."
    return [
        (rf"{theirs}\.pos_conv\.(\d+)\.0\.(.+)", rf"{ours}.positions.convs.\1.\2"),
        (rf"{theirs}\.layers\.0\.self_attn\.relative_attention_bias\.weight", rf"{ours}.relative.table.weight"),
        (rf"{attention}grep_linear\.(.+)", rf"{ours}.layers.\1.self_attention.gate.project.\2"),
        (rf"{attention}grep_a", rf"{ours}.layers.\1.self_attention.gate.scale"),
        *encoder(theirs, ours),
    ]


FAIRSEQ: Rules = [
    (r"mask_emb", r"feature_mask"),
    (rf"{_CONVOLUTION}0\.(.+)", r"frontend.layers.\1.conv.\2"),
    (rf"{_CONVOLUTION}2\.1\.(.+)", r"frontend.layers.\1.norm.\2"),
    (rf"{_CONVOLUTION}2\.(weight|bias)", r"frontend.layers.\1.norm.\2"),
    (r"layer_norm\.(.+)", r"frontend.norm.\1"),
    (r"post_extract_proj\.(.+)", r"frontend.project.\1"),
    *_encoder("encoder", "encoder"),
]

_QUANTIZER: Rules = [
    (r"quantizer\.(?:vars|codevectors)", r"quantizer.entries"),
    (r"quantizer\.weight_proj\.(weight|bias)", r"quantizer.score.0.\1"),
    (r"quantizer\.weight_proj\.(\d+)\.(?:0\.)?(weight|bias)", r"quantizer.score.\1.\2"),
    (r"project_q\.(.+)", r"project_target.\1"),
]
_UNITS: Rules = [
    (r"final_proj\.(.+)", r"predictor.project.\1"),
    (r"label_embs_concat", r"predictor.units"),
    (r"target_glu\.0\.(.+)", r"predictor.glu.\1"),
]
_TEACHER: Rules = [
    (r"final_proj\.(.+)", r"regress.\1"),
    *_encoder("_ema", "teacher.encoder"),
]
HEADS: dict[str, Rules] = {
    "wav2vec2": [
        *_QUANTIZER,
        *((f"input_{theirs}", f"input_{ours}") for theirs, ours in _QUANTIZER if theirs.startswith("quantizer")),
        (r"project_inp\.(.+)", r"project_input.\1"),
        (r"final_proj\.(.+)", r"project_context.\1"),
        (r"target_glu\.0\.(.+)", r"target_glu.\1"),
    ],
    "hubert": _UNITS,
    "wavlm": _UNITS,
    "data2vec": _TEACHER,
    "mt4ssl": [*_TEACHER, (r"final_proj_hubert\.(.+)", r"classify.\1")],
}

_HF_CONV = r"encoder\.pos_conv_embed\.conv\."
_OUR_CONV = r"encoder.positions.conv."
TRANSFORMERS: Rules = [
    (r"masked_spec_embed", r"feature_mask"),
    (rf"{_CONVOLUTION}conv\.(.+)", r"frontend.layers.\1.conv.\2"),
    (rf"{_CONVOLUTION}layer_norm\.(.+)", r"frontend.layers.\1.norm.\2"),
    (r"feature_projection\.layer_norm\.(.+)", r"frontend.norm.\1"),
    (r"feature_projection\.projection\.(.+)", r"frontend.project.\1"),
    (rf"{_HF_CONV}(?:weight_g|parametrizations\.weight\.original0)", rf"{_OUR_CONV}parametrizations.weight.original0"),
    (rf"{_HF_CONV}(?:weight_v|parametrizations\.weight\.original1)", rf"{_OUR_CONV}parametrizations.weight.original1"),
    (rf"{_HF_CONV}bias", rf"{_OUR_CONV}bias"),
    (r"encoder\.pos_conv_embed\.layers\.(\d+)\.conv\.(.+)", r"encoder.positions.convs.\1.\2"),
    *(
        (rf"encoder\.{LAYER}attention\.{theirs}\.(.+)", rf"encoder.layers.\1.self_attention.{ours}.\2")
        for theirs, ours in ATTENTION.items()
    ),
    (r"encoder\.layers\.0\.attention\.rel_attn_embed\.weight", r"encoder.relative.table.weight"),
    (rf"encoder\.{LAYER}attention\.gru_rel_pos_linear\.(.+)", r"encoder.layers.\1.self_attention.gate.project.\2"),
    (rf"encoder\.{LAYER}attention\.gru_rel_pos_const", r"encoder.layers.\1.self_attention.gate.scale"),
    (rf"encoder\.{LAYER}layer_norm\.(.+)", r"encoder.layers.\1.self_attention_norm.\2"),
    (rf"encoder\.{LAYER}final_layer_norm\.(.+)", r"encoder.layers.\1.feed_forward_norm.\2"),
    (rf"encoder\.{LAYER}feed_forward\.intermediate_dense\.(.+)", r"encoder.layers.\1.feed_forward.expand.\2"),
    (rf"encoder\.{LAYER}feed_forward\.output_dense\.(.+)", r"encoder.layers.\1.feed_forward.contract.\2"),
    (r"encoder\.layer_norm\.(.+)", r"encoder.norm.\1"),
    *_QUANTIZER,
    (r"project_hid\.(.+)", r"project_context.\1"),
]


def fairseq_name(key: str, system: System, whole_teacher: bool = False) -> str:
    """Our name for a key of fairseq: of a pre-trained model, or of a Recognizer for one fine-tuned with CTC.

    A teacher's keys stand behind ``_ema.``; in a checkpoint they are a dictionary of their own under that name. They are those of its
    encoder, or of a ``whole_teacher``.

    Raises:
        ValueError: no such model has that key.
    """
    if key.startswith("w2v_encoder.proj."):
        return "ctc." + key.removeprefix("w2v_encoder.proj.")
    if whole_teacher and key.startswith("_ema."):
        return "teacher." + fairseq_name(key.removeprefix("_ema."), system)
    inner = key.removeprefix(FAIRSEQ_CTC)
    return ("encoder." if inner != key else "") + find_name([*FAIRSEQ, *HEADS[system]], inner, system)


def hugging_face_name(key: str, ctc: bool = False) -> str:
    """Our name for a key of a Hugging Face model, of which bare models have no prefix; ``ctc``: of a ForCTC one, for a Recognizer.

    Raises:
        ValueError: no such model has that key.
    """
    if key.startswith("lm_head."):
        return "ctc." + key.removeprefix("lm_head.")
    prefix = next((prefix for prefix in HUGGING_FACE if key.startswith(prefix)), "")
    return ("encoder." if ctc else "") + find_name(TRANSFORMERS, key.removeprefix(prefix), "a Hugging Face speech encoder")


def rename(state: Mapping[str, Tensor], system: System, layout: Literal["fairseq", "hugging_face"]) -> dict[str, Tensor]:
    """The same tensors under our names, for a system (pre-trained) or for a Recognizer around it (fine-tuned with CTC).

    Raises:
        ValueError: a name that such models do not have.
    """
    ctc, whole = (any(key.startswith(prefix) for key in state) for prefix in ("lm_head.", "_ema.encoder."))
    renamed = {}
    for key, tensor in state.items():
        name = fairseq_name(key, system, whole) if layout == "fairseq" else hugging_face_name(key, ctc)
        # The gate's factors carry empty dimensions there.
        renamed[name] = tensor.flatten() if re.fullmatch(r".+\.gate\.scale", name) else tensor
    return renamed
