"""Cases of wav2vec 2.0, HuBERT, WavLM and data2vec in transformers: bare models, with CTC, and wav2vec 2.0's pre-training."""

from dataclasses import replace
from typing import Literal

import torch

from avtlm import config
from avtlm.convert.names.wav2vec2 import hugging_face_name, rename
from avtlm.convert.options import Options
from avtlm.convert.options.huggingface import WITHOUT_EFFECT, hugging_face
from avtlm.data.batching import Batch
from avtlm.frontends.multimodal import InputMask
from avtlm.objectives.contrastive import contrastive_loss
from avtlm.objectives.ctc import ctc_loss
from avtlm.recognizer import Recognizer, RecognizerConfig
from avtlm.systems.wav2vec2 import Negatives, Wav2Vec2, Wav2Vec2Config
from avtlm.text.vocabulary import Vocabulary
from benchmarks.replay.case import Case, CaseError, Check
from benchmarks.replay.speech_encoders import SPECIALS, batch_of, build, gradients, load

CLASSES: dict[str, Literal["wav2vec2", "hubert", "wavlm", "data2vec"]] = {
    "Wav2Vec2": "wav2vec2",
    "Hubert": "hubert",
    "WavLM": "wavlm",
    "Data2VecAudio": "data2vec",
}


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
        vocabulary = Vocabulary.tokens([f"t{number:05d}" for number in range(len(state["ctc.bias"]) - SPECIALS)])
        model = Recognizer(RecognizerConfig(encoder=config.to_dict(settings)), encoder, vocabulary)
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
        _transformers_ctc(case, check, model, batch)
    elif pretraining:
        assert isinstance(encoder, Wav2Vec2)
        _transformers_pretraining(case, check, encoder, batch, mask)


def _transformers_ctc(case: Case, check: Check, model: torch.nn.Module, batch: Batch) -> None:
    assert isinstance(model, Recognizer)
    assert model.ctc is not None
    encoded, lengths = model.encoder.encode(batch)  # type: ignore[operator]
    logits = model.ctc(encoded)
    check.forward("ctc.logits", logits)
    labels = case.inputs["labels"]
    counts = (labels >= 0).sum(1)
    blank, reduction = case.config["hf"].get("pad_token_id", 0), case.config["hf"].get("ctc_loss_reduction", "mean")
    rows = [slice(None)] if reduction == "sum" else [slice(row, row + 1) for row in range(len(labels))]
    each = [ctc_loss(logits[row], lengths[row], labels[row].clamp(min=0), counts[row], blank) for row in rows]
    total = torch.stack([loss.value if reduction == "sum" else loss.value / loss.count.clamp(min=1) for loss in each])
    loss = total.sum() if reduction == "sum" else total.mean()
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
    encoded = model.encoder(model.hide(heard.projected, mask), heard.lengths)
    check.forward("pre.projected_states", model.project_context(encoded))
    quantised = model.quantizer(heard.normed.flatten(0, 1), hidden.flatten())
    check.forward("pre.projected_quantized_states", model.project_target(quantised.vectors).unflatten(0, hidden.shape))
    check.loss("pre.codevector_perplexity", quantised.hard_perplexity)
    logits, _ = model.compare(heard, encoded, hidden, Negatives(case.inputs["sampled_negative_indices"][hidden]))
    contrastive = contrastive_loss(logits)
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
