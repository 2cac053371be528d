"""Key names of the official VATLM and AV-HuBERT models (they share all but the phone front-end).

The table turns the names of a pre-trained model into ours; a fine-tuned model has the same behind ``encoder.w2v_model.``, and a decoder, or
behind ``w2v_encoder.w2v_model.``, and a projection for CTC. Rules are tried in order and the first that fits counts.
"""

import re
from collections.abc import Mapping

from torch import Tensor

from avtlm.convert.names import inverse, transformer
from avtlm.convert.names.transformer import Rules

# Official keys with no counterpart: a dummy buffer that fairseq keeps to know its device, and a layer that models may have but never use.
IGNORED = re.compile(r"decoder\.embed_positions\._float_tensor|decoder\.version|(.+\.)?target_glu\..+")
FINE_TUNED = ("encoder.w2v_model.", "w2v_encoder.w2v_model.")

_BLOCK = {
    "conv1": "conv1",
    "conv2": "conv2",
    "bn1": "norm1",
    "bn2": "norm2",
    "relu1": "activation1",
    "relu2": "activation2",
    r"downsample\.0": "shortcut.0",
    r"downsample\.1": "shortcut.1",
}


LIPS: Rules = [
    (r"frontend3D\.0\.(.+)", r"stem.\1"),
    (r"frontend3D\.1\.(.+)", r"stem_norm.\1"),
    (r"frontend3D\.2\.(.+)", r"stem_activation.\1"),
    # Stages are counted from 1 there and from 0 here.
    *(
        (rf"trunk\.layer{stage + 1}\.(\d+)\.{theirs}\.(.+)", rf"stages.{stage}.\1.{ours}.\2")
        for stage in range(4)
        for theirs, ours in _BLOCK.items()
    ),
]

ENCODER: Rules = [
    *((rf"feature_extractor_video\.resnet\.{theirs}", f"frontends.lips.{ours}") for theirs, ours in LIPS),
    (r"feature_extractor_video\.proj\.(.+)", r"frontends.video.\1"),
    (r"feature_extractor_audio\.proj\.(.+)", r"frontends.audio.\1"),
    (r"phone_embed\.(.+)", r"frontends.text.embedding.\1"),
    (r"phone_conv\.0\.(.+)", r"frontends.text.conv1.\1"),
    (r"phone_conv\.2\.(.+)", r"frontends.text.conv2.\1"),
    (r"layer_norm\.(.+)", r"frontends.fusion.norm.\1"),
    (r"post_extract_proj\.(.+)", r"frontends.fusion.project.\1"),
    *transformer.encoder("feature_extractor_audio.encoder", "frontends.audio_encoder"),
    *transformer.encoder("feature_extractor_video.encoder", "frontends.video_encoder"),
    *transformer.encoder("encoder", "encoder"),
    (r"final_proj\.(.+)", r"predictor.project.\1"),
    (r"label_embs_concat", r"predictor.units"),
]

DECODER: Rules = [
    (r"decoder\.embed_tokens\.(.+)", r"decoder.embedding.\1"),
    (r"decoder\.embed_positions\.(.+)", r"decoder.positions.table.\1"),
    (r"decoder\.embed_out", r"decoder.output.weight"),
    *transformer.transformer("decoder", "decoder"),
]


def rename(state: Mapping[str, Tensor], mask_audio: bool = True) -> dict[str, Tensor]:
    """The same tensors under our names, for ``AVHubert`` or ``VATLM`` (pre-trained) or ``Recognizer`` (fine-tuned, with a decoder or CTC).

    Args:
        state: official state dictionary.
        mask_audio: the one learned mask vector belongs to the audio input (masking ``input``), not to the fused features (``feature``).

    Raises:
        ValueError: a name that the official models do not have.
    """
    return {name: tensor for key, tensor in state.items() if (name := rename_key(key, mask_audio)) is not None}


def rename_key(key: str, mask_audio: bool = True) -> str | None:
    """Our name for one official key; None for what has no counterpart."""
    if IGNORED.fullmatch(key):
        return None
    if key.startswith("decoder."):
        return find_name(DECODER, key)
    if key.startswith("w2v_encoder.proj."):
        return "ctc." + key.removeprefix("w2v_encoder.proj.")
    fine_tuned = next((prefix for prefix in FINE_TUNED if key.startswith(prefix)), "")
    inner, prefix = key.removeprefix(fine_tuned), "encoder." if fine_tuned else ""
    if inner == "mask_emb":
        return prefix + ("frontends.audio_mask" if mask_audio else "feature_mask")
    return prefix + find_name(ENCODER, inner)


def find_name(rules: Rules, key: str) -> str:
    """What the first fitting rule turns a key into. Raises ValueError if none fits."""
    return transformer.find_name(rules, key, "VATLM or AV-HuBERT")


def official_key(name: str, fine_tuned: bool, ctc: bool = False) -> str:
    """The official name of a tensor of AVHubert or VATLM, or of a Recognizer around one (``fine_tuned``; with ``ctc`` and no decoder, the
    official model is another one and names its encoder otherwise).

    Raises:
        ValueError: the official model has no such tensor.
    """
    rules, inner, prefix = ENCODER, name, ""
    if fine_tuned and name.startswith("ctc."):
        return "w2v_encoder.proj." + name.removeprefix("ctc.")
    if fine_tuned and name.startswith("decoder."):
        rules = DECODER
    elif fine_tuned and name.startswith("encoder."):
        inner, prefix = name.removeprefix("encoder."), FINE_TUNED[ctc]
    if inner in ("frontends.audio_mask", "feature_mask"):
        return prefix + "mask_emb"
    return prefix + inverse.find_key(rules, inner)
