"""Cases of AV-HuBERT's and VATLM's models: lip encoder, pre-training, VATLM's four kinds of batches, attention decoder, CTC."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from avtlm import config
from avtlm.convert.names.vatlm import LIPS, find_name, rename, rename_key
from avtlm.convert.options import Options
from avtlm.convert.options.avhubert import WITHOUT_EFFECT, decoder, encoder, lip_encoder
from avtlm.data.batching import Batch
from avtlm.decoding.beam import attention_beam
from avtlm.frontends.lips import LipEncoder
from avtlm.frontends.multimodal import InputMask
from avtlm.objectives.ctc import ctc_loss
from avtlm.objectives.masked_prediction import masked_prediction_loss
from avtlm.objectives.seq2seq import seq2seq_loss, shift_right
from avtlm.recognizer import DecodingConfig, Recognizer, RecognizerConfig
from avtlm.systems.avhubert import AVHubert, AVHubertConfig
from avtlm.systems.vatlm import VATLM, VATLMConfig
from avtlm.text.vocabulary import EOS, PAD, Vocabulary
from benchmarks.replay.case import Case, CaseError, Check

SEEN = {"av": "av", "audio": "a", "video": "v"}  # names of the cases, and ours
# VATLM's batches by the names of the official criterion, in its order.
PARTS = {"videoaudio": "audio_video", "audiotext": "audio_text", "onlytext": "text", "onlyaudio": "audio"}
SPECIALS = 4  # <s>, <pad>, </s>, <unk> come before the clusters and the symbols in a fairseq dictionary
# Keys of the cases that are no options of the models: sizes of the data, which the tensors show, and how the case was made.
DATA = {"lens", "uni_lens", "tgt_lens", "fit_steps", "seed", "B", "T", "H"}
# Options of fine-tuning that change nothing in evaluation mode.
TRAINING = {"final_dropout", "freeze_finetune_updates", "no_pretrained_weights", "apply_mask"}
PREDICTOR = ("predictor.units", "predictor.project.weight", "predictor.project.bias")


# Building -------------------------------------------------------------------------------------------------------------------------------


def options_of(case: Case) -> Options:
    return Options(case.config, "case.json: config", {*WITHOUT_EFFECT, *DATA, *TRAINING})


def model_config(case: Case, options: Options) -> AVHubertConfig:
    vatlm = "VATHubert" in case.official
    embedding = next((tensor for key, tensor in case.state.items() if key.endswith("phone_embed.weight")), None)
    if vatlm and embedding is None:
        raise CaseError("state.safetensors: VATLM without phone_embed.weight.")
    sets = options.take("num_clusters", [0])
    if len(sets) != 1:
        raise CaseError(f"case.json: {len(sets)} sets of units; one model predicts one set here.")
    audio_dim = options.take("audio_feat_dim", 104)  # the front-end takes any width, though our filter bank makes one only
    settings = encoder(options, vatlm, sets[0] + SPECIALS, 0 if embedding is None else len(embedding), official_losses=True)
    return replace(settings, frontends=replace(settings.frontends, audio_dim=audio_dim))


def pretrained(case: Case) -> AVHubert:
    """The pre-training model with the case's weights, in evaluation mode."""
    options = options_of(case)
    settings = model_config(case, options)
    options.finish()
    model = VATLM(settings) if isinstance(settings, VATLMConfig) else AVHubert(settings)
    model.load_state_dict(rename(case.state, settings.masking == "input"))
    return model.eval()


def recogniser(case: Case, ctc: bool) -> Recognizer:
    """The fine-tuned model with the case's weights, in evaluation mode."""
    options = options_of(case)
    settings = model_config(case, options)
    vocabulary = Vocabulary.tokens([f"t{number:05d}" for number in range(options.take("vocab") - SPECIALS)])
    for key in ("beams", "max_len_a", "max_len_b"):
        options.take(key, 0)
    heads = RecognizerConfig(
        encoder=config.to_dict(settings),
        ctc_weight=1.0 if ctc else 0.0,
        decoder=None if ctc else decoder(options),
        decoding=DecodingConfig(method="ctc_greedy" if ctc else "attention"),
    )
    options.finish()
    model = Recognizer(heads, VATLM(settings) if isinstance(settings, VATLMConfig) else AVHubert(settings), vocabulary)
    missing, unexpected = model.load_state_dict(rename(case.state, settings.masking == "input"), strict=False)
    # A fine-tuned file may come without what only pre-training needs.
    spare = {f"encoder.{name}" for name in (*PREDICTOR, "frontends.audio_mask", "feature_mask")}
    if unexpected or set(missing) - spare:
        raise CaseError(f"state.safetensors: {sorted({*unexpected, *set(missing) - spare})[:4]} do not fit the model of case.json.")
    return model.eval()


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
        {"units": tensors["target0"]} if "target0" in tensors else {},
    )


def mask_of(tensors: Mapping[str, Tensor]) -> InputMask:
    video, source = tensors.get("mask_video"), tensors.get("video_sub_index")
    if video is not None and source is None and len(video) > 1:
        raise CaseError("inputs.safetensors: hidden video frames without video_sub_index, the frames that stand in for them.")
    if video is not None and source is not None:  # it speaks of hidden frames only
        source = torch.where(video, source, torch.arange(video.shape[1]))
    return InputMask(tensors.get("mask_audio"), video, source, tensors.get("mask_feature"))


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


# Lip encoder ----------------------------------------------------------------------------------------------------------------------------


def lip_encoder_case(case: Case, check: Check) -> None:
    options = options_of(case)
    model = LipEncoder(lip_encoder(options))
    options.finish()
    weights = {find_name(LIPS, key): tensor for key, tensor in case.state.items()}
    model.load_state_dict(weights)
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
    # Large stages are stored thinned: every n-th frame of the stem and every n-th row of the trunk.
    stem = seen.pop("frontend3D").unflatten(0, (rows, frames)).transpose(1, 2)
    for name, value, dim in [("frontend3D", stem, 2), *((name, value, 0) for name, value in seen.items())]:
        if name in case.outputs:
            kept = case.outputs[name].shape[dim]
            step = next(step for step in range(1, value.shape[dim] + 1) if -(-value.shape[dim] // step) == kept)
            check.forward(name, value.index_select(dim, torch.arange(0, value.shape[dim], step)))
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


# Pre-training ---------------------------------------------------------------------------------------------------------------------------


def pretraining_case(case: Case, check: Check) -> None:
    model, inputs = pretrained(case), case.inputs
    batch = batch_of(inputs)
    for prefix, dropped in (("av", None), ("drop_video", "video"), ("drop_audio", "audio")):
        if any(name.startswith(f"{prefix}.") for name in case.outputs):
            keep = {} if dropped is None else {dropped: torch.zeros(len(batch), dtype=torch.bool)}
            masked_run(model, batch, mask_of(inputs), keep, check, f"{prefix}.")
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
    predictions(model, view.encoded, view.units, view.hidden, view.padding, check, prefix, "_0")
    check.loss(f"{prefix}features_pen", view.penalty)
    losses = model.masked_losses(batch, mask, keep)
    total = losses["masked_prediction"].value + losses["feature_penalty"].value
    check.loss(f"{prefix}loss", total)
    check.equal(f"{prefix}sample_size", losses["masked_prediction"].count)
    model.zero_grad()
    total.backward()
    gradients(check, model, f"{prefix}grad.", model.config.masking == "input")


def predictions(
    model: AVHubert, encoded: Tensor, units: Tensor, hidden: Tensor, padding: Tensor, check: Check, prefix: str, suffix: str
) -> None:
    """Logits, targets, losses and counts over the hidden (m) and the visible (u) frames."""
    for letter, frames in (("m", hidden & ~padding), ("u", ~hidden & ~padding)):
        logits, target = model.predictor(encoded[frames]), units[frames]
        check.forward(f"{prefix}logit_{letter}{suffix}", logits)
        check.equal(f"{prefix}target_{letter}{suffix}", target)
        weights = (1.0, 0.0) if letter == "m" else (0.0, 1.0)
        loss = masked_prediction_loss(model.predictor, encoded, units, hidden, padding, *weights)
        check.loss(f"{prefix}loss_{letter}{suffix}", loss.value)
        check.equal(f"{prefix}correct_{letter}{suffix}", (logits.argmax(-1) == target).sum())
        check.equal(f"{prefix}count_{letter}{suffix}", loss.count)


def unified_case(case: Case, check: Check) -> None:
    """VATLM's criterion over its four kinds of batches."""
    model, outputs = pretrained(case), case.outputs
    assert isinstance(model, VATLM)
    parts = [part for part in PARTS if any(name.startswith(f"{part}.") for name in case.inputs)]
    batches, losses = [], []
    for part in parts:
        prefix = f"{part}."
        tensors = {name.removeprefix(prefix): tensor for name, tensor in case.inputs.items() if name.startswith(prefix)}
        batch, mask = batch_of(tensors, PARTS[part]), mask_of(tensors)
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
        predictions(model, view.encoded, view.units, view.hidden, view.padding, check, prefix, "_0")
        # The criterion logs the same under other names.
        predictions(model, view.encoded, view.units, view.hidden, view.padding, check, "total.log.", f"_{part}_0")
    combined = model.combine(batches, losses)
    sums = {part: group["masked_prediction"].value + group["feature_penalty"].value for part, group in zip(parts, combined, strict=True)}
    total, count = torch.stack(list(sums.values())).sum(), torch.stack([group["masked_prediction"].count for group in losses]).sum()
    check.loss("total.loss", total)
    check.equal("total.sample_size", count)
    check.loss("total.log.loss", total)
    for name in ("sample_size", "ntokens"):
        check.equal(f"total.log.{name}", count)
    check.equal("total.log.nsentences", len(batches[0]))
    weights = {"onlytext": model.config.text_weight, "onlyaudio": model.config.audio_weight}
    for part, group in zip(parts, combined, strict=True):
        weight = weights.get(part, 1.0)
        if weight:  # what the criterion logs is not weighed yet
            check.loss(f"total.log.loss_{'video_audio' if part == 'videoaudio' else part}", sums[part] / weight)
            check.loss(f"total.log.loss_{part}_features_pen", group["feature_penalty"].value / weight)
    for name in {name.split(".")[0] for name in outputs if name.startswith("partial_")}:
        chosen = [index for index, part in enumerate(parts) if part in name.split("_")[1:]]
        groups = model.combine([batches[index] for index in chosen], [losses[index] for index in chosen])
        value = torch.stack([group["masked_prediction"].value + group["feature_penalty"].value for group in groups]).sum()
        check.loss(f"{name}.loss", value)
        check.equal(f"{name}.sample_size", torch.stack([losses[index]["masked_prediction"].count for index in chosen]).sum())
    total.backward()
    gradients(check, model, "total.grad.", model.config.masking == "input")


# Fine-tuning ----------------------------------------------------------------------------------------------------------------------------


def seq2seq_case(case: Case, check: Check) -> None:
    model, inputs, outputs = recogniser(case, ctc=False), case.inputs, case.outputs
    assert model.decoder is not None
    scale = case.config.get("feature_grad_mult", 1.0)
    if not torch.equal(shift_right(inputs["target"], EOS, PAD), inputs["prev_output_tokens"]):
        raise CaseError("inputs.safetensors: prev_output_tokens is not target with its end symbol in front.")
    for name, modality in SEEN.items():
        if not any(key.startswith(f"{name}.") for key in outputs):
            continue
        prefix, batch = f"{name}.", batch_of(inputs).only(modality)
        seen: list[Tensor] = []
        hooks = [layer.register_forward_hook(lambda _, __, out, seen=seen: seen.append(out[0])) for layer in model.decoder.layers]
        encoded, lengths = model.encoder.encode(batch)  # type: ignore[operator]
        logits = model.decoder(inputs["prev_output_tokens"], encoded, lengths)
        for hook in hooks:
            hook.remove()
        check.forward(f"{prefix}encoder_out_TBC", encoded.transpose(0, 1))
        if model.decoder.positions is not None:
            check.forward(f"{prefix}decoder_positions", model.decoder.place(inputs["prev_output_tokens"]))
        for number, out in enumerate(seen):
            check.forward(f"{prefix}decoder_layer{number}_TBE", out.transpose(0, 1))
        check.forward(f"{prefix}logits", logits)
        loss = seq2seq_loss(logits, inputs["target"], PAD, 0.1)
        check.loss(f"{prefix}loss_sum", loss.value)
        check.loss(f"{prefix}nll_sum", loss.logs["nll"][0])
        model.zero_grad()
        loss.value.backward()
        _scale_front_ends(model, scale)
        gradients(check, model, f"{prefix}grad.")
        searches(model, batch, encoded.detach(), lengths, case, check, prefix)


def _scale_front_ends(model: Recognizer, scale: float) -> None:
    """A case may be recorded with the gradient scale of pre-training; fine-tuning sets it to 1, and so does ours."""
    for key, parameter in model.named_parameters():
        if key.startswith(("encoder.frontends.video", "encoder.frontends.audio", "encoder.frontends.lips")) and parameter.grad is not None:
            parameter.grad *= scale


def searches(model: Recognizer, batch: Batch, encoded: Tensor, lengths: Tensor, case: Case, check: Check, prefix: str) -> None:
    """The n-best lists of every beam and length penalty of a case."""
    assert model.decoder is not None
    bound = case.bound("forward_max_abs_over_max1")
    for beam, penalty in case.config.get("beams", []):
        decoding = DecodingConfig(
            method="attention",
            beam=beam,
            length_penalty=penalty,
            max_length_ratio=case.config.get("max_len_a", 1.0),
            max_length_extra=case.config.get("max_len_b", 0),
            official_length_limit=True,
        )
        options = replace(model.beam_options(batch, decoding), nbest=beam)
        for row, hypotheses in enumerate(attention_beam(model.decoder, encoded, lengths, options)):
            key = f"{prefix}beam{beam}_lenpen{penalty}.utt{row}."
            lists = [[*hypothesis.tokens, EOS] for hypothesis in hypotheses]
            width = max(len(tokens) for tokens in lists)
            check.equal(f"{key}nbest_tokens", torch.tensor([tokens + [PAD] * (width - len(tokens)) for tokens in lists]))
            check.close(f"{key}nbest_score", torch.tensor([hypothesis.score for hypothesis in hypotheses]), bound)
            best = hypotheses[0]
            check.close(f"{key}best_positional_scores", torch.tensor([*best.token_scores, best.components["end"]]), bound)


def ctc_case(case: Case, check: Check) -> None:
    model, inputs = recogniser(case, ctc=True), case.inputs
    assert model.ctc is not None
    for name, modality in SEEN.items():
        if not any(key.startswith(f"{name}.") for key in case.outputs):
            continue
        prefix = f"{name}."
        encoded, lengths = model.encoder.encode(batch_of(inputs).only(modality))  # type: ignore[operator]
        logits = model.ctc(encoded)
        check.forward(f"{prefix}encoder_out_TBV", logits.transpose(0, 1))
        check.forward(f"{prefix}lprobs_TBV", logits.log_softmax(-1).transpose(0, 1))
        loss = ctc_loss(logits, lengths, inputs["target"], inputs["target_lengths"])
        check.loss(f"{prefix}ctc_loss_sum_blank0", loss.value)
        model.zero_grad()
        loss.value.backward()
        _scale_front_ends(model, case.config.get("feature_grad_mult", 1.0))
        gradients(check, model, f"{prefix}grad.")


def _names(*parts: str) -> Any:
    return lambda case: any(part in case.official for part in parts)


ADAPTERS = [
    (lambda case: case.official == "ResEncoder", lip_encoder_case),
    (_names("AVHubertSeq2Seq", "VATHubertSeq2Seq"), seq2seq_case),
    (_names("AVHubertCtc"), ctc_case),
    (_names("VATHubertModel + VATHubertCriterion"), unified_case),
    (_names("AVHubertModel", "VATHubertModel"), pretraining_case),
]
