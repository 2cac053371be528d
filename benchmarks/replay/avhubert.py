"""Cases of AV-HuBERT's and VATLM's models: lip encoder, pre-training, VATLM's four kinds of batches; fine-tuned ones see
avhubert_recognition.py."""

import re
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from avtlm.convert.names.vatlm import LIPS, find_name
from avtlm.convert.options.avhubert import lip_encoder
from avtlm.data.batching import Batch
from avtlm.frontends.lips import LipEncoder
from avtlm.frontends.multimodal import InputMask
from avtlm.systems.avhubert import AVHubert, Prediction
from avtlm.systems.vatlm import VATLM
from benchmarks.replay.avhubert_models import SEEN, batch_of, gradients, load, mask_of, options_of, pretrained
from benchmarks.replay.avhubert_recognition import ctc_case, seq2seq_case
from benchmarks.replay.case import Case, CaseError, Check

# VATLM's batches by the names of the official criterion, in its order.
PARTS = {"videoaudio": "audio_video", "audiotext": "audio_text", "onlytext": "text", "onlyaudio": "audio"}


# Lip encoder ----------------------------------------------------------------------------------------------------------------------------


def lip_encoder_case(case: Case, check: Check) -> None:
    options = options_of(case)
    model = LipEncoder(lip_encoder(options))
    options.finish()
    weights = {find_name(LIPS, key): tensor for key, tensor in case.state.items()}
    load(model, weights)
    video = case.inputs["video"][:, 0]
    rows, frames = video.shape[:2]
    lengths = torch.full((rows,), frames)
    seen: dict[str, Tensor] = {}
    hooks = [
        stage.register_forward_hook(lambda _, __, out, name=f"trunk_layer{number}": seen.update({name: out}))
        for number, stage in enumerate(model.stages, 1)
    ]
    hooks += [model.stages[0].register_forward_hook(lambda _, given, __: seen.update(frontend3D=given[0]))]
    out = model.eval()(video, lengths)
    for hook in hooks:
        hook.remove()
    check.forward("output", out.transpose(1, 2))
    stem = seen.pop("frontend3D").unflatten(0, (rows, frames)).transpose(1, 2)
    for name, value, dim in [("frontend3D", stem, 2), *((name, value, 0) for name, value in seen.items())]:
        if name in case.outputs:
            check.forward(name, value.index_select(dim, torch.arange(0, value.shape[dim], thinning(case, name, value.shape[dim], dim))))
    loss = out.square().mean()
    check.loss("sq_mean", loss)
    loss.backward()
    parameters = dict(model.named_parameters())
    for name in case.outputs:
        if name.startswith("grad."):
            check.gradient(name, parameters[find_name(LIPS, name.removeprefix("grad."))].grad)
    model.load_state_dict(weights)
    with torch.no_grad():
        check.forward("train_mode_output", model.train()(video, lengths).transpose(1, 2))
    for name in ("mean", "var"):
        check.forward(f"train_mode_running_{name}_frontend", dict(model.named_buffers())[f"stem_norm.running_{name}"])


def thinning(case: Case, name: str, whole: int, dim: int) -> int:
    """Large stages are stored thinned: every n-th frame of the stem and every n-th row of the trunk; the description says which."""
    meaning = str(case.description.get("tensors", {}).get("outputs", {}).get(name, {}).get("meaning", ""))
    told = re.search(r"every (\d+)(?:st|nd|rd|th) ", meaning)
    kept = case.outputs[name].shape[dim]
    steps = [step for step in range(1, whole + 1) if -(-whole // step) == kept]
    if not steps:
        raise CaseError(f"outputs.safetensors: {name} has {kept} frames or rows, which no thinning of {whole} gives.")
    return int(told[1]) if told else steps[0]


# Pre-training ---------------------------------------------------------------------------------------------------------------------------


def pretraining_case(case: Case, check: Check) -> None:
    model, inputs = pretrained(case), case.inputs
    batch, mask = batch_of(inputs), mask_of(inputs, model.config.video_stand_in == "other_clip")
    for prefix, dropped in (("av", None), ("drop_video", "video"), ("drop_audio", "audio")):
        if any(name.startswith(f"{prefix}.") for name in case.outputs):
            keep = {} if dropped is None else {dropped: torch.zeros(len(batch), dtype=torch.bool)}
            masked_run(model, batch, mask, keep, check, f"{prefix}.")
    with torch.no_grad():
        for name, modality in SEEN.items():
            seen = batch.only(modality)
            if any(out in case.outputs for out in (f"extract_finetune.{name}", f"forward_features_only.{name}")):
                encoded = model.encode(seen)[0]
                check.forward(f"extract_finetune.{name}", encoded)
                check.forward(f"forward_features_only.{name}", encoded)
        for name in case.outputs:
            if name.startswith("extract_features.layer"):
                check.forward(name, model.encode(batch, int(name.removeprefix("extract_features.layer")))[0])
        whole = batch_of(inputs, padded=False)
        check.forward("extract_features.last_nopadmask", model.encode(whole)[0])
        check.forward("extract_features.ret_conv", model.frontends.fuse(model.frontends.join(whole)))


def masked_run(model: AVHubert, batch: Batch, mask: InputMask, keep: dict[str, Tensor], check: Check, prefix: str) -> None:
    """One forward with given masks, its losses and gradients."""
    seen: dict[str, Tensor] = {}
    hooks = [model.encoder.positions.register_forward_hook(lambda _, __, out: seen.update(encoder_pos_conv_BET=out.transpose(1, 2)))]
    for number, layer in enumerate(model.encoder.layers):
        name = f"encoder_layer{number}_TBE"
        hooks += [layer.register_forward_hook(lambda _, __, out, name=name: seen.update({name: out.transpose(0, 1)}))]
    view = model.predict(batch, mask, keep)
    for hook in hooks:
        hook.remove()
    with torch.no_grad():
        for name, modality in (("audio", "a"), ("video", "v")):
            joined = model.frontends.join(batch.only(modality), mask, keep).joined
            place = model.config.frontends.modalities.index(name) if model.config.frontends.fusion == "concat" else 0
            check.forward(f"{prefix}features_{name}_BFT", joined.split(model.dim, -1)[place].transpose(1, 2))
        joined = model.frontends.join(batch, mask, keep).joined[:, : view.fused.shape[1]]
        check.forward(f"{prefix}fused_layer_norm_BTE", model.frontends.fusion.norm(joined))
    check.forward(f"{prefix}post_extract_proj_BTE", view.fused)
    for name, value in seen.items():
        check.forward(prefix + name, value)
    predictions(model, view, check, prefix)
    check.loss(f"{prefix}features_pen", view.penalty)
    losses = model.masked_losses(batch, mask, keep)
    total = losses["masked_prediction"].value + losses["feature_penalty"].value
    check.loss(f"{prefix}loss", total)
    check.equal(f"{prefix}sample_size", losses["masked_prediction"].count)
    model.zero_grad()
    total.backward()
    gradients(check, model, f"{prefix}grad.", model.config.masking == "input")


def predictions(model: AVHubert, view: Prediction, check: Check, prefix: str, part: str = "") -> None:
    """Logits, targets, losses and counts over the hidden (m) and the visible (u) frames, for every inventory of units."""
    for letter, frames in (("m", view.hidden & ~view.padding), ("u", ~view.hidden & ~view.padding)):
        for number, units in enumerate(view.units):
            name = f"_{letter}{part}_{number}"
            logits, target = model.predictor(view.encoded[frames], number), units[frames]
            check.forward(f"{prefix}logit{name}", logits)
            check.equal(f"{prefix}target{name}", target)
            check.loss(f"{prefix}loss{name}", F.cross_entropy(logits, target, reduction="sum"))
            check.equal(f"{prefix}correct{name}", (logits.argmax(-1) == target).sum())
            check.equal(f"{prefix}count{name}", len(target))


def unified_case(case: Case, check: Check) -> None:
    """VATLM's criterion over its four kinds of batches."""
    model, outputs = pretrained(case), case.outputs
    assert isinstance(model, VATLM)
    parts = [part for part in PARTS if any(name.startswith(f"{part}.") for name in case.inputs)]
    batches, losses = [], []
    for part in parts:
        prefix = f"{part}."
        tensors = {name.removeprefix(prefix): tensor for name, tensor in case.inputs.items() if name.startswith(prefix)}
        batch, mask = batch_of(tensors, PARTS[part]), mask_of(tensors, model.config.video_stand_in == "other_clip")
        batches.append(batch)
        losses.append(model.masked_losses(batch, mask))
        with torch.no_grad():
            joined, view = model.frontends.join(batch, mask).joined, model.predict(batch, mask)
        frames = view.encoded.shape[1]
        check.forward(f"{prefix}fused_layer_norm_BTE", model.frontends.fusion.norm(joined[:, :frames]))
        if f"{prefix}phone_conv_BFT" in outputs:
            assert model.frontends.text is not None
            assert batch.text is not None
            assert batch.text_lengths is not None
            with torch.no_grad():
                check.forward(f"{prefix}phone_conv_BFT", model.frontends.text(batch.text, batch.text_lengths).transpose(1, 2))
        check.forward(f"{prefix}encoder_out_BTC", view.encoded)
        check.loss(f"{prefix}features_pen", view.penalty)
        check.equal(f"{prefix}padding_mask_out", view.padding)
        predictions(model, view, check, prefix)
        predictions(model, view, check, "total.log.", f"_{part}")  # the criterion logs the same under other names
    combined = model.combine(batches, losses)
    sums = {part: group["masked_prediction"].value + group["feature_penalty"].value for part, group in zip(parts, combined, strict=True)}
    total, count = torch.stack(list(sums.values())).sum(), torch.stack([group["masked_prediction"].count for group in losses]).sum()
    check.loss("total.loss", total)
    check.equal("total.sample_size", count)
    check.loss("total.log.loss", total)
    for name in ("sample_size", "ntokens"):
        check.equal(f"total.log.{name}", count)
    check.equal("total.log.nsentences", len(batches[0]))
    # What the criterion logs is not weighed yet.
    weighed, model.config = model.config, replace(model.config, text_weight=1.0, audio_weight=1.0)
    plain, model.config = model.combine(batches, losses), weighed
    for part, group in zip(parts, plain, strict=True):
        whole = group["masked_prediction"].value + group["feature_penalty"].value
        check.loss(f"total.log.loss_{'video_audio' if part == 'videoaudio' else part}", whole)
        check.loss(f"total.log.loss_{part}_features_pen", group["feature_penalty"].value)
    for name in {name.split(".")[0] for name in outputs if name.startswith("partial_")}:
        chosen = [index for index, part in enumerate(parts) if part in name.split("_")[1:]]
        groups = model.combine([batches[index] for index in chosen], [losses[index] for index in chosen])
        value = torch.stack([group["masked_prediction"].value + group["feature_penalty"].value for group in groups]).sum()
        check.loss(f"{name}.loss", value)
        check.equal(f"{name}.sample_size", torch.stack([losses[index]["masked_prediction"].count for index in chosen]).sum())
    total.backward()
    gradients(check, model, "total.grad.", model.config.masking == "input")


def _names(*parts: str) -> Any:
    return lambda case: any(part in case.official for part in parts)


ADAPTERS = [
    (lambda case: case.official == "ResEncoder", lip_encoder_case),
    (_names("AVHubertSeq2Seq", "VATHubertSeq2Seq"), seq2seq_case),
    (_names("AVHubertCtc"), ctc_case),
    (_names("VATHubertModel + VATHubertCriterion"), unified_case),
    (_names("AVHubertModel", "VATHubertModel"), pretraining_case),
]
