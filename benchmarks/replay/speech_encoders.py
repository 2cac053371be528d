"""Cases of wav2vec 2.0, HuBERT, data2vec and MT4SSL in fairseq (fine-tuned ones: fine_tuned.py; their twins in transformers:
transformers_models.py)."""

import ast
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from avtlm import systems
from avtlm.convert.names.wav2vec2 import GATE, System, fairseq_name, rename
from avtlm.convert.options import Options
from avtlm.convert.options.wav2vec2 import WITHOUT_EFFECT, fairseq
from avtlm.data.batching import Batch
from avtlm.frontends.multimodal import InputMask
from avtlm.nn.quantize import GumbelQuantizer, QuantizerConfig
from avtlm.objectives.contrastive import contrastive_loss
from avtlm.recognizer import Recognizer
from avtlm.systems.data2vec import Data2Vec
from avtlm.systems.hubert import Hubert
from avtlm.systems.mt4ssl import MT4SSL
from avtlm.systems.speech_encoder import SpeechEncoder, SpeechEncoderConfig
from avtlm.systems.wav2vec2 import Negatives, Wav2Vec2
from benchmarks.replay.case import Case, CaseError, Check

SPECIALS = 4  # <s>, <pad>, </s>, <unk> come before the clusters and the letters in a fairseq dictionary


def build(system: System, settings: SpeechEncoderConfig) -> SpeechEncoder:
    return cast(SpeechEncoder, systems.find(system).build(settings))


def load(model: torch.nn.Module, state: Mapping[str, Tensor]) -> None:
    """Weights: all of them but a teacher that was not stored, which is a copy of its student then, and the vector of hidden frames where
    nothing is hidden."""
    own = model.state_dict()
    wrong = [name for name, tensor in state.items() if name not in own or own[name].shape != tensor.shape]
    missing = [name for name in own.keys() - state.keys() if not name.startswith("teacher.") and not _unused(model, name)]
    if wrong or missing:
        raise CaseError(f"state.safetensors: {', '.join([*wrong, *missing][:4])} do not fit the model of case.json.")
    model.load_state_dict(state, strict=False)
    if isinstance(model, Data2Vec) and model.teacher is not None and not any(name.startswith("teacher.") for name in state):
        own = model.state_dict()
        model.teacher.load_state_dict({name: own[name] for name in model.teacher.state_dict()})


def _unused(model: torch.nn.Module, name: str) -> bool:
    encoder = model.encoder if isinstance(model, Recognizer) else model
    return name.endswith("feature_mask") and isinstance(encoder, SpeechEncoder) and encoder.config.mask.prob == 0


def batch_of(wave: Tensor, padding: Tensor | None, targets: Mapping[str, Tensor] | None = None) -> Batch:
    lengths = torch.full((len(wave),), wave.shape[1]) if padding is None else (~padding.bool()).sum(1)
    return Batch(tuple(f"row {row}" for row in range(len(wave))), "audio", wave, lengths, targets=dict(targets or {}))


def gradients(check: Check, model: torch.nn.Module, total: Tensor, name_of: Callable[[str], str | None]) -> None:
    """Compare the gradients of a loss that a case holds under official names; those of tensors without a name of ours are zero."""
    names = [name for name in check.case.outputs if name.startswith("grad.")]
    if names:
        total.backward()
        parameters = dict(model.named_parameters(remove_duplicate=False))
        for name in names:
            ours = name_of(name.removeprefix("grad."))
            if ours is None:
                check.gradient(name, None)
                continue
            if ours not in parameters:
                raise CaseError(f"outputs.safetensors: {name} is of a tensor that the model of case.json has not got.")
            found = parameters[ours].grad
            check.gradient(name, found if found is None or not GATE.fullmatch(ours) else found.view_as(check.case.outputs[name]))


def with_copies(logits: Tensor, stored: Tensor | None) -> tuple[Tensor, Tensor]:
    """Logits (n, 1 + others), the truth first, where copies of the truth among the others are -inf: with those that a case lets stand.

    The official code knows a copy by the equality of all numbers of its projection, which the rounding of one matrix product may undo. It
    then compares the truth once more.

    Returns:
        The logits with such copies, and the logits to look for the largest in, where rounding decides between the truth and its copies.
    """
    if stored is None or stored.shape != logits.shape:
        return logits, logits
    copies = logits.isneginf() & stored.isfinite()
    return torch.where(copies, logits[:, :1], logits), torch.where(copies.any(1, keepdim=True), stored, logits)


# Fairseq --------------------------------------------------------------------------------------------------------------------------------


@dataclass
class FairseqCase:
    """A model with a case's weights in evaluation mode, and its inputs."""

    case: Case
    system: System
    model: SpeechEncoder
    batch: Batch
    masks: InputMask

    @property
    def pretrained(self) -> bool:
        """Whether the case holds losses."""
        return any(name.startswith("pre.") for name in self.case.outputs)


def options_of(values: Mapping[str, Any], where: str = "model") -> Options:
    return Options(values, f"case.json: config.{where}", WITHOUT_EFFECT)


def prepare(case: Case, system: System) -> FairseqCase:
    values, teaches = dict(case.config["model"]), system in ("data2vec", "mt4ssl")
    for key in ("pred_masked_weight", "pred_nomask_weight", "loss_weights"):
        if key in case.config and not teaches:
            values[key] = case.config[key]
    clusters = case.config.get("n_clusters", [])
    units = [count + SPECIALS for count in (clusters if isinstance(clusters, list) else [clusters])]
    if teaches and values.get("ema_anneal_end_step") is None:
        values["ema_anneal_end_step"] = values.get("max_update")
    options = options_of(values)
    settings = fairseq(options, system, units, official=True)
    options.finish()
    model = build(system, settings).eval()
    load(model, rename(case.state, system, "fairseq"))
    inputs = case.inputs
    labels = {match[1]: inputs[name] for name in inputs if (match := re.fullmatch(r"target(?:_(\d+))?", name))}
    ordered = sorted(labels, key=lambda number: int(number or 0))
    targets = {f"units_{place}" if place else "units": labels[number] for place, number in enumerate(ordered)}
    # The official code lets masks pass by whose share is 0.
    masks = InputMask(
        fused=inputs.get("mask_indices") if settings.mask.prob > 0 else None,
        channels=inputs.get("mask_channel_indices") if settings.channel_mask.prob > 0 else None,
    )
    return FairseqCase(case, system, model, batch_of(inputs["source"], inputs.get("padding_mask"), targets), masks)


def features(given: FairseqCase, check: Check) -> None:
    """What the unmasked model says, under the names of the different cases."""
    model, batch, inputs = given.model, given.batch, given.case.inputs
    heard = model.hear(batch)
    check.forward("conv_features", heard.convolved.transpose(1, 2))
    check.forward("feat.normed_conv_features", heard.normed)
    # The official encoder sets padded frames to zero in the very tensor that is given out.
    check.forward("feat.proj_features", heard.projected.masked_fill(heard.padding[..., None], 0.0))
    kept: list[Tensor] = []
    depth = given.model.config.encoder.layers
    states = model.encoder.hidden_states(model.hide(heard.projected, None), heard.lengths, depth, kept)
    whole = model.encode(batch)[0]
    # HuBERT counts the layer that is asked for from 1 (and takes 0 for the last one), the others from 0.
    asked = {layer: layer or depth for layer in range(depth + 1)} if given.system == "hubert" else {n: n + 1 for n in range(depth)}
    for prefix in ("feat.", ""):
        check.forward(f"{prefix}x", whole)
        check.equal(f"{prefix}padding_mask", heard.padding)
        for layer in range(depth):
            check.forward(f"{prefix}layer_{layer}.x", states[layer + 1].transpose(0, 1))
            check.forward(f"{prefix}layer_{layer}.ffn_out", kept[layer].transpose(0, 1))
        for number, layer in asked.items():
            check.forward(f"{prefix}x_layer{number}", states[layer])
        check.forward(f"{prefix}x_unpadded_first", model.encode(batch_of(inputs["source"][:1], None))[0])
    check.equal("padding_mask_out", heard.padding)
    if "x_masked" in given.case.outputs:  # losses may be over fewer frames, as there are labels for them
        check.forward("x_masked", model.encode(batch, mask=given.masks)[0])


def wav2vec2_case(case: Case, check: Check) -> None:
    given = prepare(case, "wav2vec2")
    model, batch = given.model, given.batch
    assert isinstance(model, Wav2Vec2)
    with torch.no_grad():
        features(given, check)
    if not given.pretrained:
        return
    settings = model.config
    heard = model.hear(batch)
    hidden = model.hidden_frames(heard, given.masks)
    rows, each = len(batch), int(hidden[0].sum())
    if bool((hidden.sum(1) != each).any()) or not each:
        raise CaseError(f"inputs.safetensors: mask_indices hides {hidden.sum(1).tolist()} frames; the official code needs equal numbers.")
    negatives = Negatives(_negatives(case, rows, each, settings.negatives + settings.batch_negatives), _codes(case, model, rows * each))
    encoded = model.encoder(model.hide(heard.projected, given.masks), heard.lengths)
    logits, quantised = model.compare(heard, encoded, hidden, negatives)
    stored = case.outputs.get("pre.logits")
    logits, ranked = with_copies(logits, None if stored is None else stored.permute(1, 2, 0).flatten(0, 1))
    check.forward("pre.logits", logits.view(rows, each, -1).permute(2, 0, 1))
    contrastive = contrastive_loss(logits)
    losses = {**model.masked_losses(heard, given.masks, negatives), "contrastive": contrastive}
    penalty = losses["feature_penalty"]
    check.loss("pre.features_pen", penalty.logs["feature_penalty"][0])
    codes = quantised or heard.quantised
    if codes is not None:
        check.loss("pre.prob_perplexity", codes.soft_perplexity)
        check.loss("pre.code_perplexity", codes.hard_perplexity)
    total = torch.stack([loss.value for loss in losses.values()]).sum()
    check.loss("pre.loss", total)
    check.loss("pre.loss_infonce", contrastive.value)
    check.equal("pre.sample_size", contrastive.count)
    check.equal("pre.count", contrastive.count)
    check.equal("pre.correct", contrastive_loss(ranked).logs["contrastive_accuracy"][0])
    gradients(check, model, total, lambda key: fairseq_name(key, "wav2vec2"))


def _negatives(case: Case, rows: int, each: int, number: int) -> Tensor | None:
    """Negatives of every hidden frame; the official layout is read as the official code reads it."""
    return case.inputs["neg_idxs"].view(rows * each, number) if number else None


def _codes(case: Case, model: Wav2Vec2, frames: int) -> Tensor | None:
    """Entries of random code vectors, from their numbers among all combinations; (frames, negatives, groups)."""
    settings, number = model.config.quantizer, model.config.code_negatives
    if not number or settings is None:
        return None
    found = case.inputs["cb_idxs"]
    if found.numel() == number * frames:
        powers = settings.entries ** torch.arange(settings.groups - 1, -1, -1)
        found = found.flatten()[:, None].div(powers, rounding_mode="floor") % settings.entries
    return found.reshape(number, frames, settings.groups).transpose(0, 1)


def hubert_case(case: Case, check: Check) -> None:
    given = prepare(case, "hubert")
    model, batch = given.model, given.batch
    assert isinstance(model, Hubert)
    with torch.no_grad():
        features(given, check)
    if not given.pretrained:
        return
    losses, settings = model.masked_losses(batch, given.masks), model.config
    masked, penalty = losses["masked_prediction"], losses["feature_penalty"]
    total = masked.value + penalty.value
    check.equal("pre.sample_size", masked.count)
    check.loss("pre.features_pen", penalty.logs["feature_penalty"][0])
    check.loss("pre.loss_features_pen", penalty.value)
    assert model.predictor is not None
    units = model.units_of(batch)
    heard = model.hear(batch, units[0].shape[1])
    hidden = model.hidden_frames(heard, given.masks)
    encoded = model.encoder(model.hide(heard.projected, given.masks), heard.lengths)
    parts = (("masked", hidden & ~heard.padding, settings.masked_weight), ("unmasked", ~hidden & ~heard.padding, settings.visible_weight))
    for word, chosen, weight in parts:
        for index, labels in enumerate(units):
            logits, target = model.predictor(encoded[chosen], index), labels[chosen][:, None]
            plain = torch.cat([logits.gather(1, target), logits.scatter(1, target, float("-inf"))], 1)
            first, ranked = with_copies(plain, case.outputs.get(f"pre.logits_{word}_{index}"))
            truth = torch.zeros_like(target[:, 0])
            loss = F.cross_entropy(first, truth, reduction="sum")
            total = total + weight * (loss - F.cross_entropy(plain, truth, reduction="sum"))
            check.forward(f"pre.logits_{word}_{index}", first)
            check.loss(f"pre.loss_{word[0]}_{index}", loss)
            check.equal(f"pre.correct_{word[0]}_{index}", float((ranked.argmax(-1) == 0).sum()))
            check.equal(f"pre.count_{word[0]}_{index}", float(len(logits)))
    check.loss("pre.loss", total)
    batch_norm = settings.encoder.position_norm == "batch"
    gradients(check, model, total, lambda key: fairseq_name(key, "hubert", batch_norm=batch_norm))


def teaching_case(case: Case, check: Check) -> None:
    """data2vec and MT4SSL: losses, then steps of the teacher."""
    system: System = "mt4ssl" if "Multi2Vec" in case.official else "data2vec"
    given = prepare(case, system)
    model, batch = given.model, given.batch
    assert isinstance(model, Data2Vec)
    whole = model.config.teacher.whole
    with torch.no_grad():
        features(given, check)
    parts: dict[str, Tensor] = {}
    if given.pretrained:
        heard, hidden, encoded = model.see(batch, given.masks)
        check.equal("pre.sample_size", len(encoded))
        if model.regress is not None:
            loss = model.regression(batch, heard, hidden, encoded)
            check.forward("pre.prediction", model.regress(encoded))
            check.forward("pre.target", model.targets(batch, heard)[hidden])
            check.loss("pre.regression_loss", loss.value)
            check.loss("pre.target_var", loss.logs["target_spread"][0])
            check.loss("pre.pred_var", loss.logs["prediction_spread"][0])
            check.loss("pre.ema_decay_x1000", 1000 * float(case.config["model"].get("ema_decay", 0.999)))
            parts["regression"] = loss.value
        if isinstance(model, MT4SSL) and model.classify is not None:
            logits, units = model.classified(encoded, hidden, batch.targets["units"])
            parts["classification"] = F.cross_entropy(logits, units, reduction="sum")
            check.forward("pre.cluster_logits", logits)
            check.loss("pre.classification_loss", parts["classification"])
        weights = case.config.get("loss_weights") or dict.fromkeys(parts, 1.0)
        if not set(parts) <= set(weights):
            raise CaseError(f"case.json: config.loss_weights has no weight for {', '.join(sorted(set(parts) - set(weights)))}.")
        scaled = {name: float(weights[name]) * value for name, value in parts.items() if weights[name]}
        for name, value in scaled.items():
            check.loss(f"pre.loss_{name}_scaled", value)
        total = torch.stack(list(scaled.values())).sum()
        check.loss("pre.loss", total)
        gradients(check, model, total, lambda key: fairseq_name(key, system))
    if model.teacher is not None:
        _teacher_steps(case, check, model, lambda key: fairseq_name(key, system, whole))


def _teacher_steps(case: Case, check: Check, model: Data2Vec, name_of: Callable[[str], str]) -> None:
    """Steps of the average. A case may hold references to one tensor, which then show it after the last step throughout."""
    updates, keys = case.config.get("ema_updates", []), case.config.get("ema_keys", [])
    taken: dict[str, Tensor] = {}
    for number in updates:
        assert model.teacher is not None
        decay = model.config.teacher.decay_at(number, int(case.config["model"].get("max_update", 0)))
        check.loss(f"ema.decay_at_{number}", decay)
        model.teacher.follow(model, decay, model.config.teacher.copy_positions)
        own = model.state_dict()
        taken |= {f"ema.after_{number}.{key}": own[name_of(f"_ema.{key}")].clone() for key in keys}
    for key in keys:
        names = [f"ema.after_{number}.{key}" for number in updates]
        stored = [case.outputs[name] for name in names if name in case.outputs]
        shared = all(torch.equal(each, stored[0]) for each in stored[1:])
        for name in names:
            check.forward(name, taken[names[-1] if shared else name])


def quantizer_case(case: Case, check: Check) -> None:
    options = options_of(case.config["args"], "args")
    temperature = options.take("temp")
    start, end, decay = ast.literal_eval(temperature) if isinstance(temperature, str) else temperature
    groups, entries, dim = options.take("groups"), options.take("num_vars"), options.take("vq_dim")
    depth, factor, hard = options.take("weight_proj_depth", 1), options.take("weight_proj_factor", 1), options.take("hard", True)
    inputs, first, shared = options.take("dim"), options.take("time_first", True), options.take("combine_groups", False)
    options.take("std", 0)  # of the first values
    options.finish()
    settings = QuantizerConfig(groups, entries, dim, shared, depth, factor, start, end, decay, hard)
    model = GumbelQuantizer(settings, inputs, dim)
    load(model, {fairseq_name(f"quantizer.{key}", "wav2vec2").removeprefix("quantizer."): tensor for key, tensor in case.state.items()})
    x = case.inputs["x"] if first else case.inputs["x"].transpose(1, 2)
    shape = x.shape[:2]
    noise = case.inputs["gumbel_noise"].view(-1, groups, entries)
    for mode in ("eval", "train"):
        model.train(mode == "train")
        if mode == "train":
            model.set_updates(case.config.get("num_updates", 0))
            check.close("temp", torch.tensor(model.temperature), case.bound("forward"))
        found = model(x.flatten(0, 1), noise=noise)
        vectors = found.vectors.unflatten(0, shape)
        vectors = vectors if first else vectors.transpose(1, 2)
        check.forward(f"{mode}.x", vectors)
        check.equal(f"{mode}.targets", found.codes.unflatten(0, shape))
        check.loss(f"{mode}.prob_perplexity", found.soft_perplexity)
        check.loss(f"{mode}.code_perplexity", found.hard_perplexity)
    codes = groups * entries
    probe = (vectors * case.inputs["w"]).sum() + 0.1 * (codes - found.soft_perplexity) / codes
    check.loss("train.probe_loss", probe)
    gradients(check, model, probe, lambda key: fairseq_name(f"quantizer.{key}", "wav2vec2").removeprefix("quantizer."))


ADAPTERS = [
    (lambda case: case.official.startswith("fairseq.models.wav2vec.wav2vec2.Wav2Vec2Model"), wav2vec2_case),
    (lambda case: case.official.startswith("fairseq.models.hubert.hubert.HubertModel"), hubert_case),
    (lambda case: case.official.endswith(("Data2VecAudioModel", "Multi2VecModel")) and "transformers" not in case.official, teaching_case),
    (lambda case: case.official.startswith("fairseq.modules.gumbel_vector_quantizer"), quantizer_case),
]
