"""Cases of the closest public code to the multi-stage system: CAV-MAE's squares, removal, encoder, decoder, both losses and gradients."""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from avtlm.nn.removal import Kept
from avtlm.nn.transformer import EncoderConfig
from avtlm.objectives.contrastive import paired_contrastive_loss
from avtlm.objectives.removal import keep_smallest
from avtlm.systems.cav_mae import CAVMAE, TEMPERATURE, CAVMAEConfig
from benchmarks.replay.case import Case, CaseError, Check

LAYERS = 12  # of every modality with the joint ones
# Official names by ours, of layers and of the rest; where three projections are one tensor there, a part of it.
PARTS = {
    "attn.qkv": "self_attention.{}",
    "attn.proj": "self_attention.output",
    "mlp.fc1": "feed_forward.expand",
    "mlp.fc2": "feed_forward.contract",
    "norm1": "self_attention_norm",
    "norm2": "feed_forward_norm",
}
STACKS = {"blocks_a": "audio.layers", "blocks_v": "video.layers", "blocks_u": "joint.layers", "decoder_blocks": "decoder.encoder.layers"}
REST = {
    "patch_embed_a.proj": "audio_patches",
    "patch_embed_v.proj": "video_patches",
    "norm_a": "audio.norm",
    "norm_v": "video.norm",
    "norm": "norm",
    "decoder_embed": "decoder.project",
    "decoder_norm": "decoder.encoder.norm",
    "decoder_pred_a": "decoder.heads.0",
    "decoder_pred_v": "decoder.heads.1",
}
# Places of squares: sinusoids that are computed here, or, where they are learned, weights.
GRIDS = {
    "pos_embed_a": "audio_grid",
    "pos_embed_v": "video_grid",
    "decoder_pos_embed_a": "decoder_audio_grid",
    "decoder_pos_embed_v": "decoder_video_grid",
}
LETTERS = {"a": "audio", "v": "video"}
PROJECTIONS = ("query", "key", "value")
# Options of the official class, and what they are if a case does not say.
DEFAULTS: dict[str, Any] = {
    "img_size": 224,
    "audio_length": 1024,
    "embed_dim": 768,
    "modality_specific_depth": 11,
    "num_heads": 12,
    "decoder_embed_dim": 512,
    "decoder_depth": 8,
    "decoder_num_heads": 16,
    "mlp_ratio": 4.0,
    "norm_pix_loss": False,
    "tr_pos": False,
}
FIXED = {"patch_size": 16, "in_chans": 3}  # the official code computes with these, whatever it is told
STRUCTURES: dict[str, Any] = {"unstructured": "unstructured", "time": "time", "freq": "frequency", "tf": "both"}


def settings_of(case: Case) -> CAVMAEConfig:
    """Our configuration of a case's model."""
    given, config = case.config["model"], case.config
    unknown = [name for name in given if name not in DEFAULTS and given[name] != FIXED.get(name)]
    if unknown:
        raise CaseError(f"case.json: config.model: options that avtlm does not know: {', '.join(sorted(unknown))}.")
    mode = config.get("mask_mode", "unstructured")
    if mode not in STRUCTURES:
        raise CaseError(f"case.json: mask_mode is {mode!r}; avtlm knows {', '.join(STRUCTURES)}.")
    model = DEFAULTS | given

    def layers(dim: int, depth: int, heads: int) -> EncoderConfig:
        hidden = int(dim * model["mlp_ratio"])
        return EncoderConfig(dim, depth, heads, hidden, dropout=0.0, attention_dropout=0.0, layer_drop=0.0, position_kernel=0)

    own = model["modality_specific_depth"]
    return CAVMAEConfig(
        picture=model["img_size"],
        frames=model["audio_length"],
        encoder=layers(model["embed_dim"], own, model["num_heads"]),
        joint_layers=LAYERS - own,
        decoder=layers(model["decoder_embed_dim"], model["decoder_depth"], model["decoder_num_heads"]),
        learned_positions=model["tr_pos"],
        removed_audio=config.get("mask_a", 0.75),
        removed_video=config.get("mask_v", 0.75),
        structure=STRUCTURES[mode],
        normalise_targets=model["norm_pix_loss"],
        reconstruction_weight=config.get("mae_loss_weight", 1.0),
        contrast_weight=config.get("contrast_weight", 0.01),
    )


def our_tensors(name: str, tensor: Tensor) -> dict[str, Tensor]:
    """An official tensor, or the gradient of one, under our names and in our shapes; none for what nothing uses.

    Raises:
        CaseError: a name that CAV-MAE has not.
    """
    found = re.fullmatch(r"(\w+)\.(\d+)\.(attn\.qkv|attn\.proj|mlp\.fc1|mlp\.fc2|norm[12])(_[av])?\.(weight|bias)", name)
    if found and found[1] in STACKS:
        stack, number, part, modality, kind = found.groups()
        if modality is not None:
            place = int(part == "norm2")
            return {f"joint.norms.{LETTERS[modality[1]]}.{number}.{place}.{kind}": tensor} if stack == "blocks_u" else {}
        ours = f"{STACKS[stack]}.{number}.{PARTS[part]}.{kind}"
        if part == "attn.qkv":
            return {ours.format(which): piece for which, piece in zip(PROJECTIONS, tensor.chunk(3), strict=True)}
        return {ours: tensor}
    part, _, kind = name.rpartition(".")
    if part in REST:
        if part.startswith("patch_embed") and kind == "weight":  # a convolution there: channels before pixels
            tensor = tensor.permute(0, 2, 3, 1).flatten(1)
        return {f"{REST[part]}.{kind}": tensor}
    if name == "mask_token":
        return {"decoder.mask_token": tensor.flatten()}
    vector = re.fullmatch(r"(decoder_)?modality_([av])", name)
    if vector:
        return {f"{'decoder.' if vector[1] else ''}modality.{'av'.index(vector[2])}": tensor.flatten()}
    if name in GRIDS:
        return {GRIDS[name]: tensor.squeeze(0)}
    raise CaseError(f"state.safetensors: CAV-MAE has no {name}.")


def weights_of(state: Mapping[str, Tensor], learned_positions: bool = False) -> dict[str, Tensor]:
    """A case's weights by our names; vectors of modalities side by side."""
    named: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if learned_positions or name not in GRIDS:
            named |= our_tensors(name, tensor)
    for prefix in ("", "decoder."):
        named[f"{prefix}modality"] = torch.stack([named.pop(f"{prefix}modality.{place}") for place in range(2)])
    return named


def build(case: Case) -> CAVMAE:
    """The model of a case with its weights.

    Raises:
        CaseError: they do not fit.
    """
    model = CAVMAE(settings_of(case)).eval()
    named, own = weights_of(case.state, model.config.learned_positions), model.state_dict()
    wrong = sorted(set(own) ^ set(named)) + [name for name in own if name in named and own[name].shape != named[name].shape]
    if wrong:
        raise CaseError(f"state.safetensors: {', '.join(wrong[:4])} do not fit the model of case.json.")
    model.load_state_dict(named)
    return model


def kept_sound(case: Case, model: CAVMAE) -> Kept:
    """Which squares of sound stay: by the noise, or, where whole times or frequencies go, which Python's ``random`` draws, by the case."""
    noise, config = case.inputs["noise_a"], model.config
    if config.structure == "unstructured":
        return model.remove(noise)
    return keep_smallest(case.outputs["ids_restore_a"].float(), config.removed_audio)


def cav_mae_case(case: Case, check: Check) -> None:
    model, bound = build(case), case.bound("forward")
    for name, ours in GRIDS.items():
        if name in case.state and not model.config.learned_positions:
            check.value(f"{name}: off by", float((getattr(model, ours) - case.state[name][0]).abs().max()), 0.0, bound)
    audio, video = model.squares(case.inputs["audio"], case.inputs["image"])
    check.equal("patches_a", audio)
    check.equal("patches_v", video)
    kept = {"a": kept_sound(case, model), "v": model.remove_pictures(case.inputs["noise_v"])}
    for letter, each in kept.items():
        check.equal(f"mask_{letter}", each.removed.float())
        if letter == "v" or model.config.structure == "unstructured":
            check.equal(f"ids_restore_{letter}", case.inputs[f"noise_{letter}"].argsort(1).argsort(1))
        else:
            check.skip("ids_restore_a", "whole times and frequencies are removed by a draw that the case does not hold.")
    encoded = model.encode(audio, video, kept["a"], kept["v"])
    check.forward("latent", encoded.joint)
    check.forward("latent_contrast_a", encoded.audio)
    check.forward("latent_contrast_v", encoded.video)
    predicted = model.reconstruct(encoded)
    losses = model.losses(audio, video, encoded, predicted)
    for letter, ours in zip(LETTERS, predicted, strict=True):
        check.forward(f"pred_{letter}", ours)
        check.loss(f"loss_mae_{letter}", losses[LETTERS[letter]])
    views = encoded.audio.mean(1), encoded.video.mean(1)
    for name, both_ways in (("nce_single", False), ("nce_bidirectional", True)):
        contrast = paired_contrastive_loss(*views, TEMPERATURE, both_ways)
        check.loss(name, contrast.value / contrast.count)
        if not both_ways:
            found, count = contrast.logs["contrastive_accuracy"]
            check.forward("contrast_acc", found / count)
    check.loss("loss", losses["total"])
    losses["total"].backward()
    _compare_gradients(case, check, model)


def _compare_gradients(case: Case, check: Check, model: CAVMAE) -> None:
    tolerance = relative(case.description["tolerance"]["grad"])
    parameters = dict(model.named_parameters())
    for name, expected in case.outputs.items():
        if not name.startswith("grad."):
            continue
        # Nothing uses some norms, nor, in the passes for the contrast, those of joint layers before the last one: these have no gradients.
        parts = our_tensors(name.removeprefix("grad."), expected)
        pairs = [(_gradient(parameters, key), part) for key, part in parts.items()] or [(None, expected)]
        error = max(float((part if found is None else found - part).abs().max()) for found, part in pairs)
        size = max(float(expected.abs().max()), 1e-6)
        check.value(name, error / size, 0.0, tolerance)


def _gradient(parameters: Mapping[str, Any], key: str) -> Tensor | None:
    """Of a parameter, or of one of the vectors of modalities; None for what has none, such as fixed places."""
    name, _, place = key.rpartition(".")
    if name.endswith("modality"):
        return parameters[name].grad[int(place)]  # type: ignore[no-any-return]
    return parameters[key].grad if key in parameters else None


def relative(stated: float | str) -> float:
    """The number of a tolerance such as "1e-4 relative"."""
    return float(str(stated).split()[0])


def _is_cav_mae(case: Case) -> bool:
    return case.official.startswith("CAVMAE")


ADAPTERS = [(_is_cav_mae, cav_mae_case)]
