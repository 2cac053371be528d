"""Cases of wav2vec 2.0, HuBERT, WavLM and data2vec in transformers: bare models, with CTC, and wav2vec 2.0's pre-training."""

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from avtlm.convert.names.wav2vec2 import hugging_face_name, rename
from avtlm.convert.options import Options
from avtlm.convert.options.huggingface import WITHOUT_EFFECT, hugging_face
from avtlm.data.batching import Batch
from avtlm.frontends.multimodal import InputMask
from avtlm.objectives.contrastive import contrastive_loss
from avtlm.recognizer import Recognizer
from avtlm.systems.wav2vec2 import Negatives, Wav2Vec2, Wav2Vec2Config
from benchmarks.replay.case import Case, CaseError, Check
from benchmarks.replay.fine_tuned import ctc_losses, recognizer
from benchmarks.replay.speech_encoders import batch_of, build, gradients, load

CLASSES: dict[str, Literal["wav2vec2", "hubert", "wavlm", "data2vec"]] = {
    "Wav2Vec2": "wav2vec2",
    "Hubert": "hubert",
    "WavLM": "wavlm",
    "Data2VecAudio": "data2vec",
}
REDUCTIONS = {"wavlm": "mean"}  # of the CTC loss over a batch, where a configuration does not say; the others take the sum


def transformers_case(case: Case, check: Check) -> None:
    values, inputs = case.config["hf"], case.inputs
    cls = case.official.removeprefix("transformers.")
    system = next((system for name, system in CLASSES.items() if cls.removeprefix(name) in ("Model", "ForCTC", "ForPreTraining")), None)
    if system is None:
        raise CaseError(f"case.json: {cls} is no class that is replayed.")
    ctc, pretraining = cls.endswith("ForCTC"), cls.endswith("ForPreTraining")
    options = Options(values, "case.json: config.hf", WITHOUT_EFFECT)
    settings = hugging_face(options, system, official=True)
    options.finish()
    if isinstance(settings, Wav2Vec2Config):
        settings = replace(settings, negatives_from="all")
    encoder = build(system, settings)
    state = rename(case.state, system, "hugging_face")
    model: torch.nn.Module = encoder
    if ctc:
        model = recognizer(settings, encoder, len(state["ctc.bias"]))
    elif not pretraining:
        encoder.drop_heads()
    load(model.eval(), state)
    batch = batch_of(inputs["input_values"], 1 - inputs["attention_mask"] if "attention_mask" in inputs else None)
    mask = InputMask(fused=inputs.get("mask_time_indices"))
    with torch.no_grad():
        heard = encoder.hear(batch)
        check.forward("extract_features", heard.normed)
        states = encoder.encoder.hidden_states(encoder.hide(heard.projected, None), heard.lengths, settings.encoder.layers)
        for index, state_of in enumerate(states):
            check.forward(f"hidden_{index}", state_of)
        check.forward("last_hidden_state", encoder.encode(batch)[0])
        check.forward("last_hidden_nomask_first", encoder.encode(batch_of(inputs["input_values"][:1], None))[0])
        check.forward("last_hidden_time_masked", encoder.encode(batch, mask=mask)[0])
    if ctc:
        _transformers_ctc(case, check, model, batch, REDUCTIONS.get(system, "sum"))
    elif pretraining:
        assert isinstance(encoder, Wav2Vec2)
        _transformers_pretraining(case, check, encoder, batch, mask)


def distance(case: Case, name: str, ours: Tensor) -> float:
    """How far a tensor is from the one that a case holds, if any."""
    return float((ours.detach() - case.outputs[name]).abs().max()) if name in case.outputs else 0.0


def transcripts(labels: Tensor, blank: int) -> list[Tensor]:
    """Rows of (batch, symbols) without what stands for padding: negative numbers, and blanks, which no transcript holds."""
    return [row[(row >= 0) & (row != blank)] for row in labels]


def _transformers_ctc(case: Case, check: Check, model: torch.nn.Module, batch: Batch, reduction: str) -> None:
    assert isinstance(model, Recognizer)
    assert model.ctc is not None
    encoded, lengths = model.encoder.encode(batch)  # type: ignore[operator]
    logits = model.ctc(encoded)
    check.forward("ctc.logits", logits)
    values = case.config["hf"]
    blank = values.get("pad_token_id", 0)
    labels = transcripts(case.inputs["labels"], blank)
    each = ctc_losses(logits, lengths, labels, blank, values.get("ctc_zero_infinity", False))
    counts = torch.tensor([max(1, len(row)) for row in labels])
    loss = each.sum() if values.get("ctc_loss_reduction", reduction) == "sum" else (each / counts).mean()
    check.loss("ctc.loss", loss)
    gradients(check, model, loss, lambda key: hugging_face_name(key, ctc=True))


def _transformers_pretraining(case: Case, check: Check, model: Wav2Vec2, batch: Batch, mask: InputMask) -> None:
    """There, all frames are quantised, negatives are places among them, and diversity counts chosen codes in evaluation mode."""
    assert mask.fused is not None
    assert model.quantizer is not None
    assert model.project_target is not None
    assert model.project_context is not None
    assert model.config.quantizer is not None
    heard = model.hear(batch)
    hidden = mask.fused
    # A case may be made with masks on that its options switch off, or not.
    shown = [mask] if case.config["hf"].get("apply_spec_augment", True) else [mask, None]
    forms = [model.encoder(model.hide(heard.projected, each), heard.lengths) for each in shown]
    project = model.project_context
    encoded = min(forms, key=lambda form: distance(case, "pre.projected_states", project(form)))
    check.forward("pre.projected_states", project(encoded))
    quantised = model.quantizer(heard.normed.flatten(0, 1), hidden.flatten())
    vectors = model.project_target(quantised.vectors)
    check.forward("pre.projected_quantized_states", vectors.unflatten(0, hidden.shape))
    check.loss("pre.codevector_perplexity", quantised.hard_perplexity)
    places = case.inputs["sampled_negative_indices"][hidden]
    logits, _ = model.compare(heard, encoded, hidden, Negatives(places))
    # As in with_copies, which is for cases that hold the logits: here only the loss shows which copies of the truth rounding set apart.
    alike = (vectors[places] == vectors[hidden.flatten()][:, None]).all(-1)
    copies = torch.cat([torch.zeros_like(alike[:, :1]), ~alike], 1) & logits.isneginf()
    counted = [contrastive_loss(each) for each in (logits, torch.where(copies, logits[:, :1], logits))]
    contrastive = min(counted, key=lambda loss: distance(case, "pre.contrastive_loss", loss.value))
    codes = model.config.quantizer.groups * model.config.quantizer.entries
    diversity = (codes - quantised.hard_perplexity) / codes * contrastive.count
    check.loss("pre.contrastive_loss", contrastive.value)
    check.loss("pre.diversity_loss", diversity)
    total = contrastive.value + model.config.diversity_weight * diversity
    check.loss("pre.loss", total)
    gradients(check, model, total, hugging_face_name)


ADAPTERS = [
    (lambda case: case.official.startswith("transformers.") and "hf" in case.config, transformers_case),
]
