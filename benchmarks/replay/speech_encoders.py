"""Cases of wav2vec 2.0, HuBERT, data2vec and MT4SSL in fairseq (their twins in transformers: transformers_models.py)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from avtlm import config, systems
from avtlm.convert.names.wav2vec2 import System, fairseq_name, rename
from avtlm.convert.options import Options
from avtlm.convert.options.wav2vec2 import WITHOUT_EFFECT, fairseq
from avtlm.data.batching import Batch
from avtlm.decoding.greedy import ctc_greedy
from avtlm.frontends.multimodal import InputMask
from avtlm.nn.attention import padding_mask
from avtlm.nn.quantize import GumbelQuantizer, QuantizerConfig
from avtlm.objectives.ctc import ctc_loss
from avtlm.recognizer import Recognizer, RecognizerConfig
from avtlm.systems.data2vec import Data2Vec
from avtlm.systems.hubert import Hubert
from avtlm.systems.mt4ssl import MT4SSL
from avtlm.systems.speech_encoder import SpeechEncoder, SpeechEncoderConfig
from avtlm.systems.wav2vec2 import Negatives, Wav2Vec2
from avtlm.text.vocabulary import EOS, PAD, Vocabulary
from benchmarks.replay.case import Case, CaseError, Check

SPECIALS = 4  # <s>, <pad>, </s>, <unk> come before the clusters and the letters in a fairseq dictionary


def build(system: System, settings: SpeechEncoderConfig) -> SpeechEncoder:
    return cast(SpeechEncoder, systems.find(system).build(settings))


def load(model: torch.nn.Module, state: Mapping[str, Tensor]) -> None:
    """Weights, all of them but a teacher that was not stored, which is a copy of its student then."""
    missing, unexpected = model.load_state_dict(state, strict=False)
    if unexpected or any(not name.startswith("teacher.") for name in missing):
        raise CaseError(f"state.safetensors: {[*unexpected, *missing][:4]} do not fit the model of case.json.")
    if missing and isinstance(model, Data2Vec) and model.teacher is not None:
        model.teacher.encoder.load_state_dict(model.encoder.state_dict())


def batch_of(wave: Tensor, padding: Tensor | None, targets: Mapping[str, Tensor] | None = None) -> Batch:
    lengths = torch.full((len(wave),), wave.shape[1]) if padding is None else (~padding.bool()).sum(1)
    return Batch(tuple(f"row {row}" for row in range(len(wave))), "audio", wave, lengths, targets=dict(targets or {}))


def gradients(check: Check, model: torch.nn.Module, total: Tensor, name_of: Any) -> None:
    """Compare the gradients of a loss that a case holds under official names."""
    names = [name for name in check.case.outputs if name.startswith("grad.")]
    if names:
        total.backward()
        parameters = dict(model.named_parameters())
        for name in names:
            check.gradient(name, parameters[name_of(name.removeprefix("grad."))].grad)


# Fairseq --------------------------------------------------------------------------------------------------------------------------------


@dataclass
class FairseqCase:
    """A model with a case's weights in evaluation mode, and its inputs."""

    case: Case
    system: System
    model: SpeechEncoder
    batch: Batch
    masks: InputMask


def options_of(values: Mapping[str, Any], where: str = "model") -> Options:
    return Options(values, f"case.json: config.{where}", WITHOUT_EFFECT)


def prepare(case: Case, system: System) -> FairseqCase:
    values = dict(case.config["model"])
    for key in ("pred_masked_weight", "pred_nomask_weight", "loss_weights"):
        if key in case.config:
            values[key] = case.config[key]
    clusters = case.config.get("n_clusters", [])
    units = [count + SPECIALS for count in (clusters if isinstance(clusters, list) else [clusters])]
    if system in ("data2vec", "mt4ssl") and not values.get("ema_anneal_end_step"):
        values["ema_anneal_end_step"] = values.get("max_update", 0)
    options = options_of(values)
    settings = fairseq(options, system, units, official=True)
    options.finish()
    model = build(system, settings).eval()
    load(model, rename(case.state, system, "fairseq"))
    inputs = case.inputs
    labels = [inputs[name] for name in sorted(inputs) if name.startswith("target")]
    targets = {f"units_{number}" if number else "units": label for number, label in enumerate(labels)}
    masks = InputMask(fused=inputs.get("mask_indices"), channels=inputs.get("mask_channel_indices"))
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
    for prefix in ("feat.", ""):
        check.forward(f"{prefix}x", whole)
        check.equal(f"{prefix}padding_mask", heard.padding)
        for layer in range(depth):
            check.forward(f"{prefix}layer_{layer}.x", states[layer + 1].transpose(0, 1))
            check.forward(f"{prefix}layer_{layer}.ffn_out", kept[layer].transpose(0, 1))
            check.forward(f"{prefix}x_layer{layer}", states[layer + (0 if given.system == "hubert" else 1)])
        check.forward(f"{prefix}x_unpadded_first", model.encode(batch_of(inputs["source"][:1], None))[0])
    check.equal("padding_mask_out", heard.padding)
    check.forward("x_masked", model.encode(batch, mask=given.masks)[0])


def wav2vec2_case(case: Case, check: Check) -> None:
    given = prepare(case, "wav2vec2")
    model, batch = given.model, given.batch
    assert isinstance(model, Wav2Vec2)
    with torch.no_grad():
        features(given, check)
    if "pre.loss" not in case.outputs:
        return
    settings = model.config
    heard = model.hear(batch)
    hidden = model.hidden_frames(heard, given.masks)
    rows, each = len(batch), int(hidden[0].sum())
    negatives = Negatives(_negatives(case, rows, each, settings.negatives + settings.batch_negatives), _codes(case, model, rows * each))
    encoded = model.encoder(model.hide(heard.projected, given.masks), heard.lengths)
    logits, quantised = model.compare(heard, encoded, hidden, negatives)
    check.forward("pre.logits", logits.view(rows, each, -1).permute(2, 0, 1))
    losses = model.masked_losses(heard, given.masks, negatives)
    contrastive, penalty = losses["contrastive"], losses["feature_penalty"]
    check.loss("pre.features_pen", penalty.logs["feature_penalty"][0])
    if quantised is not None:
        check.loss("pre.prob_perplexity", quantised.soft_perplexity)
        check.loss("pre.code_perplexity", quantised.hard_perplexity)
    total = torch.stack([loss.value for loss in losses.values()]).sum()
    check.loss("pre.loss", total)
    check.loss("pre.loss_infonce", contrastive.value)
    check.equal("pre.sample_size", contrastive.count)
    check.equal("pre.count", contrastive.count)
    check.equal("pre.correct", contrastive.logs["contrastive_accuracy"][0])
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
    if "pre.loss" not in case.outputs:
        return
    losses = model.masked_losses(batch, given.masks)
    masked, penalty = losses["masked_prediction"], losses["feature_penalty"]
    total = masked.value + penalty.value
    check.loss("pre.loss", total)
    check.equal("pre.sample_size", masked.count)
    check.loss("pre.features_pen", penalty.logs["feature_penalty"][0])
    check.loss("pre.loss_features_pen", penalty.value)
    assert model.predictor is not None
    units = model.units_of(batch)
    heard = model.hear(batch, units[0].shape[1])
    hidden = model.hidden_frames(heard, given.masks)
    encoded = model.encoder(model.hide(heard.projected, given.masks), heard.lengths)
    for word, letter, chosen in (("masked", "m", hidden), ("unmasked", "u", ~hidden & ~heard.padding)):
        for index, labels in enumerate(units):
            logits, target = model.predictor(encoded[chosen], index), labels[chosen][:, None]
            first = torch.cat([logits.gather(1, target), logits.scatter(1, target, float("-inf"))], 1)
            check.forward(f"pre.logits_{word}_{index}", first)
            check.loss(f"pre.loss_{letter}_{index}", F.cross_entropy(logits, target[:, 0], reduction="sum"))
            check.equal(f"pre.correct_{letter}_{index}", float((logits.argmax(-1) == target[:, 0]).sum()))
            check.equal(f"pre.count_{letter}_{index}", float(len(logits)))
    gradients(check, model, total, lambda key: fairseq_name(key, "hubert"))


def teaching_case(case: Case, check: Check) -> None:
    """data2vec and MT4SSL: losses, then steps of the teacher."""
    system: System = "mt4ssl" if "Multi2Vec" in case.official else "data2vec"
    given = prepare(case, system)
    model, batch = given.model, given.batch
    assert isinstance(model, Data2Vec)
    settings = model.config
    with torch.no_grad():
        features(given, check)
    heard, hidden, encoded = model.see(batch, given.masks)
    check.equal("pre.sample_size", len(encoded))
    if model.teacher is not None and model.regress is not None:
        loss = model.regression(heard, hidden, encoded)
        check.forward("pre.prediction", model.regress(encoded))
        check.forward("pre.target", model.teacher.targets(heard.projected, heard.lengths, settings.targets)[hidden])
        check.loss("pre.regression_loss", loss.value)
        check.loss("pre.target_var", loss.logs["target_spread"][0])
        check.loss("pre.pred_var", loss.logs["prediction_spread"][0])
        check.loss("pre.ema_decay_x1000", 1000 * settings.teacher.decay)
    losses = model.masked_losses(batch, given.masks)
    for name, each in losses.items():
        check.loss(f"pre.loss_{name}_scaled", each.value)
    if isinstance(model, MT4SSL) and model.config.classification_weight:
        logits, units = model.classified(encoded, hidden, batch.targets["units"])
        check.forward("pre.cluster_logits", logits)
        check.loss("pre.classification_loss", F.cross_entropy(logits, units, reduction="sum"))
    total = torch.stack([each.value for each in losses.values()]).sum()
    check.loss("pre.loss", total)
    gradients(check, model, total, lambda key: fairseq_name(key, system))
    _teacher_steps(case, check, model, system)


def _teacher_steps(case: Case, check: Check, model: Data2Vec, system: System) -> None:
    """Steps of the average. A case may hold references to one tensor, which then show it after the last step throughout."""
    updates, keys = case.config.get("ema_updates", []), case.config.get("ema_keys", [])
    taken: dict[str, Tensor] = {}
    for number in updates:
        assert model.teacher is not None
        decay = model.config.teacher.decay_at(number, int(case.config["model"].get("max_update", 0)))
        check.loss(f"ema.decay_at_{number}", decay)
        model.teacher.follow(model.encoder, decay, model.config.teacher.copy_positions)
        own = model.state_dict()
        taken |= {f"ema.after_{number}.{key}": own[fairseq_name(f"_ema.{key}", system)].clone() for key in keys}
    for key in keys:
        names = [f"ema.after_{number}.{key}" for number in updates]
        stored = [case.outputs[name] for name in names if name in case.outputs]
        shared = all(torch.equal(each, stored[0]) for each in stored[1:])
        for name in names:
            check.forward(name, taken[names[-1] if shared else name])


def ctc_case(case: Case, check: Check) -> None:
    """A wav2vec 2.0 model fine-tuned with CTC."""
    options = options_of(case.config["w2v_model"] | case.config.get("arg_overrides", {}), "w2v_model")
    settings = fairseq(options, "wav2vec2", normalise=bool(case.config.get("normalize", False)), official=True)
    options.finish()
    head = options_of(case.config.get("ctc", {}), "ctc")
    weight, mode = head.take("blank_weight", 0.0), head.choose("blank_mode", "add", {"add": "add", "set": "set"})
    for key in ("final_dropout", "apply_mask", "freeze_finetune_updates", "zero_infinity", "sentence_avg"):
        head.take(key, False)  # nothing of this shows in evaluation, or the sum of the loss
    head.finish()
    state = rename(case.state, "wav2vec2", "fairseq")
    vocabulary = Vocabulary.tokens([f"t{number:05d}" for number in range(len(state["ctc.bias"]) - SPECIALS)])
    encoder = build("wav2vec2", settings)
    model = Recognizer(RecognizerConfig(encoder=config.to_dict(settings)), encoder, vocabulary).eval()
    load(model, state)
    assert model.ctc is not None
    batch = batch_of(case.inputs["source"], case.inputs.get("padding_mask"))
    encoded, lengths = encoder.encode(batch)
    raw = model.ctc(encoded)
    padding = padding_mask(lengths, raw.shape[1])
    check.forward("encoder_out", raw.transpose(0, 1))
    check.equal("padding_mask_out", padding)
    blank = F.one_hot(torch.tensor(0), raw.shape[2]).bool()
    logits = torch.where(blank, raw + weight if mode == "add" else torch.full_like(raw, weight), raw) if weight else raw
    forced = torch.where(blank, 0.0, float("-inf"))
    logits = torch.where(padding[..., None], forced, logits)
    check.forward("logits", logits.transpose(0, 1))
    check.forward("log_probs", logits.log_softmax(-1).transpose(0, 1))
    target = case.inputs["target"]
    counts = ((target != PAD) & (target != EOS)).sum(1)
    loss = ctc_loss(logits, lengths, target, counts)
    check.loss("loss", loss.value)
    check.equal("sample_size", len(target))
    for row, best in enumerate(ctc_greedy(logits.log_softmax(-1), lengths)):
        check.equal(f"greedy_ids_{row}", torch.tensor(best.tokens))
    gradients(check, model, loss.value, lambda key: fairseq_name(key, "wav2vec2"))


def quantizer_case(case: Case, check: Check) -> None:
    options = options_of(case.config["args"], "args")
    start, end, decay = options.take("temp")
    groups, entries, dim = options.take("groups"), options.take("num_vars"), options.take("vq_dim")
    shared, depth, factor = (
        options.take("combine_groups", False),
        options.take("weight_proj_depth", 1),
        options.take("weight_proj_factor", 3),
    )
    inputs, first = options.take("dim"), options.take("time_first", True)
    options.require("hard", True)
    options.finish()
    model = GumbelQuantizer(QuantizerConfig(groups, entries, dim, shared, depth, factor, start, end, decay), inputs, dim)
    load(model, {fairseq_name(f"quantizer.{key}", "wav2vec2").removeprefix("quantizer."): tensor for key, tensor in case.state.items()})
    x = case.inputs["x"] if first else case.inputs["x"].transpose(1, 2)
    shape = x.shape[:2]
    noise = case.inputs["gumbel_noise"].view(-1, groups, entries)
    for mode in ("eval", "train"):
        model.train(mode == "train")
        if mode == "train":
            model.set_updates(case.config["num_updates"])
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
    (lambda case: case.official.startswith("fairseq.models.wav2vec.wav2vec2_asr.Wav2VecCtc"), ctc_case),
    (lambda case: case.official.startswith("fairseq.modules.gumbel_vector_quantizer"), quantizer_case),
]
