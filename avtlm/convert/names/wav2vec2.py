"""Key names of wav2vec 2.0, HuBERT, WavLM, data2vec and MT4SSL: in fairseq (and WavLM's own code, which follows it) and in Hugging Face.

All share the encoder; the heads have names of their own. A model fine-tuned with CTC has the same names behind a prefix, and a projection.
Each table is written once and read in both directions.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from avtlm.convert.names.inverse import find_key
from avtlm.convert.names.transformer import ATTENTION, LAYER, Rules, encoder, find_name

System = Literal["wav2vec2", "hubert", "wavlm", "data2vec", "mt4ssl"]

FAIRSEQ_CTC = "w2v_encoder.w2v_model."
# Behind what the encoder stands in the classes of transformers with heads. There, MT4SSL's encoder is data2vec's.
HUGGING_FACE = {"wav2vec2": "wav2vec2.", "hubert": "hubert.", "wavlm": "wavlm.", "data2vec": "data2vec_audio.", "mt4ssl": "data2vec_audio."}
# The factors of WavLM's gates carry empty dimensions there: (1, heads, 1, 1).
GATE = re.compile(r".+\.gate\.scale")

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


_LAYER_NORM: Rules = [(rf"{_CONVOLUTION}2\.1\.(.+)", r"frontend.layers.\1.norm.\2")]
_GROUP_NORM: Rules = [(rf"{_CONVOLUTION}2\.(weight|bias)", r"frontend.layers.\1.norm.\2")]
_SHARED: Rules = [
    (r"mask_emb", r"feature_mask"),
    (rf"{_CONVOLUTION}0\.(.+)", r"frontend.layers.\1.conv.\2"),
    (r"layer_norm\.(.+)", r"frontend.norm.\1"),
    (r"post_extract_proj\.(.+)", r"frontend.project.\1"),
    *_encoder("encoder", "encoder"),
]
FAIRSEQ: Rules = [*_LAYER_NORM, *_GROUP_NORM, *_SHARED]
# Of a positional convolution behind a batch norm; without one, the convolution stands in the norm's place.
_BATCH_NORM: Rules = [
    (r"encoder\.pos_conv\.0\.(.+)", r"encoder.positions.norm.\1"),
    (r"encoder\.pos_conv\.1\.(.+)", r"encoder.positions.conv.\1"),
]

# What scores the entries is one layer, or several, all but the last of which stand in a row of their own with their activation.
_QUANTIZERS = ("quantizer", "input_quantizer")
_ONE_LAYER: Rules = [(rf"{name}\.weight_proj\.(weight|bias)", rf"{name}.score.0.\1") for name in _QUANTIZERS]
_HIDDEN_LAYER: Rules = [(rf"{name}\.weight_proj\.(\d+)\.0\.(weight|bias)", rf"{name}.score.\1.\2") for name in _QUANTIZERS]
_LAST_LAYER: Rules = [(rf"{name}\.weight_proj\.(\d+)\.(weight|bias)", rf"{name}.score.\1.\2") for name in _QUANTIZERS]
_CONTRAST: Rules = [
    *((rf"{name}\.vars", rf"{name}.entries") for name in _QUANTIZERS),
    (r"project_inp\.(.+)", r"project_input.\1"),
    (r"project_q\.(.+)", r"project_target.\1"),
    (r"final_proj\.(.+)", r"project_context.\1"),
    (r"target_glu\.0\.(.+)", r"target_glu.\1"),
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
    "wav2vec2": [*_ONE_LAYER, *_HIDDEN_LAYER, *_LAST_LAYER, *_CONTRAST],
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
    (rf"{_HF_CONV}parametrizations\.weight\.original0", rf"{_OUR_CONV}parametrizations.weight.original0"),
    (rf"{_HF_CONV}parametrizations\.weight\.original1", rf"{_OUR_CONV}parametrizations.weight.original1"),
    (rf"{_HF_CONV}bias", rf"{_OUR_CONV}bias"),
    (rf"{_HF_CONV}weight", rf"{_OUR_CONV}weight"),
    (r"encoder\.pos_conv_embed\.batch_norm\.(.+)", r"encoder.positions.norm.\1"),
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
    *(
        (rf"encoder\.{LAYER}adapter_layer\.{theirs}\.(.+)", rf"encoder.layers.\1.adapter.{ours}.\2")
        for theirs, ours in (("norm", "norm"), ("linear_1", "expand"), ("linear_2", "contract"))
    ),
    (r"encoder\.layer_norm\.(.+)", r"encoder.norm.\1"),
    (r"adapter\.layers\.(\d+)\.conv\.(.+)", r"adapter.convs.\1.\2"),
    (r"adapter\.proj\.(.+)", r"adapter.project.\1"),
    (r"adapter\.proj_layer_norm\.(.+)", r"adapter.norm.\1"),
]
CONTRAST: Rules = [
    *_ONE_LAYER,
    (r"quantizer\.codevectors", r"quantizer.entries"),
    (r"project_q\.(.+)", r"project_target.\1"),
    (r"project_hid\.(.+)", r"project_context.\1"),
]
# The spelling of a weight norm in files of transformers that a torch before 2.1 has written.
OLD_SPELLING: Rules = [
    (rf"{_HF_CONV}weight_g", rf"{_OUR_CONV}parametrizations.weight.original0"),
    (rf"{_HF_CONV}weight_v", rf"{_OUR_CONV}parametrizations.weight.original1"),
]


# To our names -------------------------------------------------------------------------------------------------------------------------


def fairseq_name(key: str, system: System, whole: bool = False, batch_norm: bool = False) -> str:
    """Our name for a key of fairseq: of a pre-trained model, or of a Recognizer for one fine-tuned with CTC.

    A teacher's keys stand behind ``_ema.``; in a checkpoint they are a dictionary of their own under that name. They are those of an
    encoder without its prefix, or of a ``whole`` model. ``batch_norm``: there is one before the positional convolution.

    Raises:
        ValueError: no such model has that key.
    """
    if key.startswith("w2v_encoder.proj."):
        return "ctc." + key.removeprefix("w2v_encoder.proj.")
    if whole and key.startswith("_ema."):
        return "teacher." + find_name([*FAIRSEQ, *HEADS[system]], key.removeprefix("_ema."), system)
    inner = key.removeprefix(FAIRSEQ_CTC)
    rules = [*(_BATCH_NORM if batch_norm else ()), *FAIRSEQ, *HEADS[system]]
    return ("encoder." if inner != key else "") + find_name(rules, inner, system)


def hugging_face_name(key: str, ctc: bool = False) -> str:
    """Our name for a key of a Hugging Face model, of which bare models have no prefix; ``ctc``: of a ForCTC one, for a Recognizer.

    Raises:
        ValueError: no such model has that key.
    """
    if key.startswith("lm_head."):
        return "ctc." + key.removeprefix("lm_head.")
    prefix = next((prefix for prefix in HUGGING_FACE.values() if key.startswith(prefix)), "")
    rules = [*TRANSFORMERS, *CONTRAST, *OLD_SPELLING]
    return ("encoder." if ctc else "") + find_name(rules, key.removeprefix(prefix), "a Hugging Face speech encoder")


def rename(state: Mapping[str, Tensor], system: System, layout: Literal["fairseq", "hugging_face"]) -> dict[str, Tensor]:
    """The same tensors under our names, for a system (pre-trained) or for a Recognizer around it (fine-tuned with CTC).

    Raises:
        ValueError: a name that such models do not have.
    """
    ctc = any(key.startswith("lm_head.") for key in state)
    whole, batch_norm = is_whole(state), has_batch_norm(state)
    renamed = {}
    for key, tensor in state.items():
        name = fairseq_name(key, system, whole, batch_norm) if layout == "fairseq" else hugging_face_name(key, ctc)
        renamed[name] = tensor.flatten() if GATE.fullmatch(name) else tensor
    return renamed


def is_whole(keys: Iterable[str]) -> bool:
    """Whether the teacher among these keys of fairseq is a copy of the whole model."""
    return any(key.startswith("_ema.feature_extractor.") for key in keys)


def has_batch_norm(keys: Iterable[str]) -> bool:
    """Whether there is one before the positional convolution among these keys of fairseq."""
    return any(key.endswith("encoder.pos_conv.0.running_mean") for key in keys)


# And back -----------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FairseqLayout:
    """What the keys of a model in fairseq depend on besides its system.

    Attributes:
        group_norm: the convolutions have one norm, behind the first of them.
        batch_norm: there is one before the positional convolution.
        score_layers: depth of the quantiser.
        whole: the teacher is a copy of the whole model.
    """

    group_norm: bool = True
    batch_norm: bool = False
    score_layers: int = 1
    whole: bool = False


def fairseq_key(name: str, system: System, layout: FairseqLayout, fine_tuned: bool = False) -> str:
    """The key in fairseq of a tensor of a system, or of a Recognizer around one (``fine_tuned``).

    Raises:
        ValueError: the official model has no such tensor.
    """
    if fine_tuned and name.startswith("ctc."):
        return "w2v_encoder.proj." + name.removeprefix("ctc.")
    if layout.whole and name.startswith("teacher."):
        return "_ema." + fairseq_key(name.removeprefix("teacher."), system, layout)
    scores: Rules = _ONE_LAYER
    if layout.score_layers > 1:
        last = layout.score_layers - 1
        ends = [(rf"{each}\.weight_proj\.{last}\.(weight|bias)", rf"{each}.score.{last}.\1") for each in _QUANTIZERS]
        scores = [*ends, *_HIDDEN_LAYER]
    heads = [*scores, *_CONTRAST] if system == "wav2vec2" else HEADS[system]
    norms = [*(_BATCH_NORM if layout.batch_norm else ()), *(_GROUP_NORM if layout.group_norm else _LAYER_NORM)]
    return (FAIRSEQ_CTC if fine_tuned else "") + find_key([*norms, *_SHARED, *heads], name.removeprefix("encoder.") if fine_tuned else name)


def hugging_face_key(name: str, system: System, kind: Literal["bare", "pretraining", "ctc"] = "bare") -> str:
    """The key in transformers of a tensor of a system, or of a Recognizer around one (``ctc``).

    Raises:
        ValueError: that class of transformers has no such tensor.
    """
    if kind == "ctc":
        if name.startswith("ctc."):
            return "lm_head." + name.removeprefix("ctc.")
        name = name.removeprefix("encoder.")
    elif kind == "pretraining" and name.startswith(("quantizer.", "project_")):
        return find_key(CONTRAST, name)
    return ("" if kind == "bare" else HUGGING_FACE[system]) + find_key(TRANSFORMERS, name)
