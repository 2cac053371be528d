"""AV-HuBERT and VATLM from the options and tensors of a case: models, batches and masks, and the comparison of gradients."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from avtlm.convert.names.vatlm import rename, rename_key
from avtlm.convert.options import Options
from avtlm.convert.options.avhubert import DECODER, WITHOUT_EFFECT, encoder
from avtlm.data.batching import Batch
from avtlm.frontends.multimodal import InputMask
from avtlm.systems.avhubert import AVHubert, AVHubertConfig
from avtlm.systems.vatlm import VATLM, VATLMConfig
from benchmarks.replay.case import Case, CaseError, Check

SEEN = {"av": "av", "audio": "a", "video": "v"}  # names of the cases, and ours
SPECIALS = 4  # <s>, <pad>, </s>, <unk> come before the clusters and the symbols in a fairseq dictionary
# Keys of the cases that are no options of the models: sizes of the data, which the tensors show, and how the case was made.
DATA = {"lens", "uni_lens", "tgt_lens", "fit_steps", "seed", "B", "T", "H", "W"}
# Options of fine-tuning that change nothing in evaluation mode.
TRAINING = {
    *("final_dropout", "freeze_finetune_updates", "no_pretrained_weights", "apply_mask", "layerdrop", "mask_length", "mask_prob"),
    *("w2v_path", "data"),
}


def options_of(case: Case, without_effect: Iterable[str] = ()) -> Options:
    return Options(case.config, "case.json: config", {*WITHOUT_EFFECT, *DATA, *TRAINING, *without_effect})


def model_config(case: Case, options: Options) -> AVHubertConfig:
    vatlm = "VATHubert" in case.official
    embedding = next((tensor for key, tensor in case.state.items() if key.endswith("phone_embed.weight")), None)
    if vatlm and embedding is None:
        raise CaseError("state.safetensors: VATLM without phone_embed.weight.")
    sizes = [clusters + SPECIALS for clusters in options.take("num_clusters", [0])]
    audio_dim = options.take("audio_feat_dim", 104)  # the front-end takes any width, though our filter bank makes one only
    settings = encoder(options, vatlm, sizes, 0 if embedding is None else len(embedding), official_losses=True)
    return replace(settings, frontends=replace(settings.frontends, audio_dim=audio_dim))


def pretrained(case: Case) -> AVHubert:
    """The pre-training model with the case's weights, in evaluation mode."""
    options = options_of(case, DECODER)
    settings = model_config(case, options)
    options.finish()
    model = VATLM(settings) if isinstance(settings, VATLMConfig) else AVHubert(settings)
    load(model, rename(case.state, settings.masking == "input"))
    return model.eval()


def load(model: nn.Module, weights: Mapping[str, Tensor], spare: Iterable[str] = ()) -> None:
    """Give a model the case's weights; those of its encoder that are ``spare`` may be missing.

    Raises:
        CaseError: other names or shapes.
    """
    expected, left_out = model.state_dict(), {f"encoder.{name}" for name in spare}
    wrong = {name for name in {*expected, *weights} - left_out if name not in expected or name not in weights}
    wrong |= {name for name, tensor in weights.items() if name in expected and tensor.shape != expected[name].shape}
    if wrong:
        raise CaseError(
            f"state.safetensors: {', '.join(sorted(wrong)[:4])}{', ...' if len(wrong) > 4 else ''} do not fit the model of case.json."
        )
    model.load_state_dict(weights, strict=False)


def batch_of(tensors: Mapping[str, Tensor], task: str = "audio_video", padded: bool = True) -> Batch:
    """Official layouts, audio (batch, features, frames) and video (batch, 1, frames, height, width), as ours."""
    audio, video, text = (tensors.get(name) for name in ("audio", "video", "phones"))
    first = next((tensor for tensor in (audio, video, text) if tensor is not None), None)
    if first is None:
        raise CaseError("inputs.safetensors: neither audio nor video nor phones.")
    frames = audio.shape[2] if audio is not None else video.shape[2] if video is not None else 0
    lengths = torch.full((len(first),), frames)
    if padded and "padding_mask" in tensors:
        lengths = (~tensors["padding_mask"]).sum(1)
    return Batch(
        tuple(f"row {row}" for row in range(len(first))),
        task,
        None if audio is None else audio.transpose(1, 2),
        None if audio is None else lengths,
        None if video is None else video[:, 0],
        None if video is None else lengths,
        text,
        # The official text path knows no padding.
        None if text is None else torch.full((len(text),), text.shape[1]),
        {"units" if name == "target0" else f"units_{name[6:]}": tensors[name] for name in tensors if re.fullmatch(r"target\d+", name)},
    )


def mask_of(tensors: Mapping[str, Tensor], other_clip: bool = False) -> InputMask:
    """Given masks. What stands in for hidden frames of another clip lies in the row ``video_perm``, or ``video_shift`` rows on; of two rows
    that is the other one."""
    video, source, row = (tensors.get(name) for name in ("mask_video", "video_sub_index", "video_perm"))
    if video is not None and source is None and len(video) > 1:
        if other_clip and row is None and (len(video) == 2 or "video_shift" in tensors):
            row = (torch.arange(len(video)) + tensors.get("video_shift", torch.tensor(1))) % len(video)
        if row is None:
            raise CaseError("inputs.safetensors: hidden video frames without video_sub_index, the frames that stand in for them.")
        source = torch.arange(video.shape[1]).expand(len(video), -1)
    if video is not None and source is not None:  # it speaks of hidden frames only
        source = torch.where(video, source, torch.arange(video.shape[1]))
    return InputMask(tensors.get("mask_audio"), video, source, tensors.get("mask_feature"), row, tensors.get("mask_channel"))


def gradients(check: Check, model: nn.Module, prefix: str, mask_audio: bool = True) -> None:
    """Compare the gradients that a case holds under ``prefix`` and official names."""
    parameters = dict(model.named_parameters())
    for name in check.case.outputs:
        if name.startswith(prefix):
            ours = rename_key(name.removeprefix(prefix), mask_audio)
            if ours is None:
                check.skip(name, "the official model never uses this parameter.")
            else:
                check.gradient(name, parameters[ours].grad)
