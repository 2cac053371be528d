"""Key names of SpeechLM and SpeechUT in their official code on fairseq, pre-trained and fine-tuned.

Both share Speech2C's names for what hears and what writes. The embedding of units has two names there, the head for CTC of a fine-tuned
file two as well; post-norm layers carry norms of distances that nothing uses.
"""

import re
from typing import Literal

from avtlm.convert.names.speecht5 import Layout, speech2c_rules
from avtlm.convert.names.transformer import Rules, transformer

Bridge = Literal["speechlm", "speechut"]

UNITS = "unit_embedding.weight"
# What stands before the names of the pre-trained model in a fine-tuned file: of SpeechLM with CTC, and of all others.
PREFIXES = ("w2v_encoder.w2v_model.", "encoder.w2v_model.")
# The head for CTC once more.
HEAD_AGAIN = re.compile(r"(?:w2v_encoder|encoder)\.proj\.(.+)")
UNUSED = re.compile(r"(?:unit_encoder|decoder)\.version|.+\._float_tensor")
# Norms of distances by the stack that they are in; those of post-norm stacks are not used.
DISTANCE_NORM = re.compile(r"(encoder|unit_encoder|decoder)\.layers\.\d+\.norm_k\..+")


def bridge_rules(system: Bridge, layout: Layout = "group") -> Rules:
    """Of one of the systems, as its pre-trained files name tensors."""
    return [
        (r"unit_embed_tokens\.weight", UNITS),
        (r"unit_encoder\.embed_tokens\.weight", UNITS),
        (r"unit_encoder\.embed_positions\.weight", r"unit_encoder.positions.table.weight"),
        (r"unit_encoder\.layernorm_embedding\.(.+)", r"unit_encoder.norm.\1"),
        (r"unit_encoder\.pos_emb\.pe_k\.weight", r"unit_encoder.encoder.distances.table.weight"),
        (r"unit_encoder\.layers\.(\d+)\.norm_k\.(.+)", r"unit_encoder.encoder.layers.\1.distance_norm.\2"),
        *transformer("unit_encoder", "unit_encoder.encoder"),
        (r"unit_encoder_ctc_head\.1\.weight", r"ctc.conv.weight"),
        (r"unit_encoder_ctc_head\.3\.2\.(.+)", r"ctc.norm.\1"),
        (r"unit_encoder_ctc_head\.5\.(.+)", r"ctc.output.\1"),
        (r"unit_encoder_ctc_head\.(weight|bias)", r"ctc.output.\1"),  # where that is a linear layer
        (r"target_glu\.0\.(.+)", r"predictor.glu.\1"),
        (r"decoder\.layernorm_embedding\.(.+)", r"decoder.embedding_norm.\1"),
        *(_speechlm_heads(layout) if system == "speechlm" else _speechut_heads(layout)),
    ]


def _speechlm_heads(layout: Layout) -> Rules:
    """One like the other behind each encoder."""
    return [
        (r"final_proj_list\.0\.(.+)", r"predictor.project.\1"),
        (r"final_proj_list\.1\.(.+)", r"shared_predictor.project.\1"),
        (r"label_embs_list\.0", r"predictor.units"),
        (r"label_embs_list\.1", r"shared_predictor.units"),
        *(rule for rule in speech2c_rules(layout) if not rule[1].startswith("predictor.")),
    ]


def _speechut_heads(layout: Layout) -> Rules:
    """HuBERT's behind the first encoder, a linear layer behind the second."""
    return [(r"code_encoder_proj\.(.+)", r"unit_output.\1"), *speech2c_rules(layout)]


def plain_key(key: str) -> str:
    """What a tensor of a fine-tuned file is called in a pre-trained one."""
    again = HEAD_AGAIN.fullmatch(key)
    if again:
        return f"unit_encoder_ctc_head.{again[1]}"
    for prefix in PREFIXES:
        key = key.removeprefix(prefix)
    return key
