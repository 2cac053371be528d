"""Cases of Speech2C's official code: pre-training, and fine-tuning with CTC and a decoder."""

import re
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from avtlm import config as configuration
from avtlm.convert.names.speecht5 import rename, speech2c_rules, speech2c_unused
from avtlm.convert.names.transformer import Rules, find_name
from avtlm.convert.names.wav2vec2 import FAIRSEQ_CTC
from avtlm.convert.options.speech2c import speech2c
from avtlm.frontends.multimodal import InputMask
from avtlm.nn.transformer import Decoder, Encoder
from avtlm.objectives.ctc import ctc_loss
from avtlm.objectives.seq2seq import seq2seq_loss
from avtlm.recognizer import Recognizer, RecognizerConfig
from avtlm.systems.speech2c import Speech2C, Speech2CConfig, without_repeats
from avtlm.text.vocabulary import BLANK, PAD, Vocabulary
from avtlm.text.vocabulary import SPECIALS as SPECIAL_SYMBOLS
from benchmarks.replay.case import Case, Check
from benchmarks.replay.decoding import TableLanguageModel
from benchmarks.replay.speech_encoders import SPECIALS, batch_of, gradients, load, options_of, with_copies
from benchmarks.replay.speecht5 import error_counts, with_padding_row
from benchmarks.replay.speecht5_search import searches


def settings_of(case: Case) -> Speech2CConfig:
    values = dict(case.config["model"])
    criterion = case.config.get("criterion", {})
    values |= {
        key: criterion[key] for key in ("pred_masked_weight", "pred_nomask_weight", "loss_weights", "dec_weight") if key in criterion
    }
    options = options_of(values)
    settings = speech2c(options, [case.config["n_units"] + SPECIALS], official=True)
    options.finish()
    return settings


def _rules(config: Speech2CConfig) -> Rules:
    return speech2c_rules(config.waveform.norm, config.decoder.tie_embeddings)


def _unused(config: Speech2CConfig) -> re.Pattern[str]:
    return speech2c_unused(config.encoder.norm_first, config.decoder.norm_first)


def our_name(config: Speech2CConfig, key: str) -> str:
    """Our name of an official tensor, of a fine-tuned model that of the recogniser."""
    rules = _rules(config)
    if key.startswith("w2v_encoder.proj."):
        return key.replace("w2v_encoder.proj.", "ctc.")
    if key.startswith(f"{FAIRSEQ_CTC}decoder."):
        return find_name(rules, key.removeprefix(FAIRSEQ_CTC), "Speech2C")
    if key.startswith(FAIRSEQ_CTC):
        return "encoder." + find_name(rules, key.removeprefix(FAIRSEQ_CTC), "Speech2C")
    return find_name(rules, key, "Speech2C")


def _encoder(encoder: Encoder, heard: Any, seen: Tensor, check: Check, prefix: str) -> Tensor:
    """Compare the stages of an encoder of frames."""
    check.forward(f"{prefix}conv_features", heard.convolved.transpose(1, 2))
    check.forward(f"{prefix}features_ln", heard.normed)
    empty = seen.masked_fill(heard.padding[..., None], 0.0)
    assert encoder.positions is not None
    placed = encoder.positions(empty, heard.padding)
    check.forward(f"{prefix}pos_conv", placed)
    check.forward(f"{prefix}encoder_in", seen)
    check.equal(f"{prefix}frame_padding_mask", heard.padding)
    check.equal(f"{prefix}encoder_padding_mask", heard.padding)
    states = encoder.hidden_states(seen, heard.lengths, len(encoder.layers))
    for index, state in enumerate(states[1:]):
        check.forward(f"{prefix}encoder_layer_{index}", state)
    encoded = encoder(seen, heard.lengths)
    check.forward(f"{prefix}encoder_out", encoded)
    return encoded


def _decoder(decoder: Decoder, tokens: Tensor, encoded: Tensor, lengths: Tensor, check: Check, prefix: str) -> Tensor:
    seen = with_padding_row(decoder, tokens, decoder.embed(tokens))
    check.forward(f"{prefix}decoder_in", seen)
    kept: list[Tensor] = []
    valid = (tokens != PAD).sum(1)
    out = decoder.decode(seen, decoder.project_memory(encoded, lengths), lengths=valid, kept=kept)
    for index, state in enumerate(kept):
        check.forward(f"{prefix}decoder_layer_{index}", state)
    logits = decoder.predict(out)
    check.forward(f"{prefix}decoder_logits", logits)
    return logits


def pretraining_case(case: Case, check: Check) -> None:
    settings, inputs = settings_of(case), case.inputs
    model = Speech2C(settings).eval()
    load(model, rename(case.state, _rules(settings), _unused(settings), "Speech2C"))
    batch = batch_of(inputs["source"], inputs.get("padding_mask"), {"units": inputs["unit_target"]})
    mask = InputMask(fused=inputs["mask.time"], channels=inputs.get("mask.channel"))
    [units] = model.units_of(batch)
    heard = model.hear(batch, units.shape[1])
    encoded = _encoder(model.encoder, heard, model.hide(heard.projected, mask), check, "")
    assert model.decoder is not None
    assert model.predictor is not None
    check.value("decoder_target", float((without_repeats(inputs["unit_target"]) != inputs["decoder_target"]).sum()), 0.0, 0.0)
    logits = _decoder(model.decoder, inputs["prev_output_tokens"], encoded, heard.lengths, check, "")
    losses = model.masked_losses(batch, mask)
    total = torch.stack([loss.value for loss in losses.values()]).sum()
    count = losses["masked_prediction"].count
    hidden = inputs["mask.time"][:, : encoded.shape[1]]
    for word, chosen in (("masked", hidden & ~heard.padding), ("unmasked", ~hidden & ~heard.padding)):
        scores, target = model.predictor(encoded[chosen]), units[chosen][:, None]
        plain = torch.cat([scores.gather(1, target), scores.scatter(1, target, float("-inf"))], 1)
        first, ranked = with_copies(plain, case.outputs.get(f"hubert_logits_{word}"))
        check.forward(f"hubert_logits_{word}", first)
        truth = torch.zeros_like(target[:, 0])
        check.loss(f"log.loss_{word[0]}_0", F.cross_entropy(first, truth, reduction="sum"))
        check.equal(f"log.correct_{word[0]}_0", float((ranked.argmax(-1) == 0).sum()))
        check.equal(f"log.count_{word[0]}_0", float(len(first)))
    spoken = seq2seq_loss(logits, inputs["decoder_target"], PAD, 0.0)
    check.loss("features_pen", losses["feature_penalty"].logs["feature_penalty"][0])
    check.loss("log.loss_features_pen", losses["feature_penalty"].value)
    check.loss("log.dec_loss", spoken.value)
    check.loss("log.dec_nll_loss", spoken.logs["nll"][0])
    check.equal("log.dec_sample_size", spoken.count)
    check.equal("log.dec_n_correct", spoken.logs["token_accuracy"][0])
    check.equal("log.total", spoken.count)
    check.loss("loss", total)
    for name in ("sample_size", "log.sample_size", "log.ntokens"):
        check.equal(name, count)
    check.equal("log.nsentences", len(batch))
    with torch.no_grad():
        check.forward("extract.features", model.encode(batch)[0])
        for name in case.outputs:
            if name.startswith("extract.layer"):
                check.forward(name, model.encode(batch, int(name.removeprefix("extract.layer")))[0])
    gradients(check, model, total, lambda key: our_name(settings, key))


def recognition_case(case: Case, check: Check) -> None:
    settings, inputs = settings_of(case), case.inputs
    state = {key: tensor for key, tensor in case.state.items() if not _unused(settings).fullmatch(key)}
    weight, smoothing = case.config["dec_weight"], case.config["label_smoothing"]
    # Both heads are there in the official model, whatever they weigh.
    heads = RecognizerConfig(configuration.to_dict(settings), ctc_weight=0.5, decoder=settings.decoder, label_smoothing=smoothing)
    encoder = Speech2C(settings)
    encoder.drop_heads()
    letters = Vocabulary.tokens([f"t{number:05d}" for number in range(len(case.state["w2v_encoder.proj.weight"]) - SPECIALS)])
    model = Recognizer(heads, encoder, letters).eval()
    # What only pre-training uses stays in the official model.
    used = {key: tensor for key, tensor in state.items() if not key.startswith((f"{FAIRSEQ_CTC}label_embs", f"{FAIRSEQ_CTC}final_proj"))}
    load(model, {our_name(settings, key): tensor for key, tensor in used.items()})
    batch = batch_of(inputs["source"], inputs.get("padding_mask"))
    assert model.ctc is not None
    assert model.decoder is not None
    target, tokens = inputs["target"], inputs["prev_output_tokens"]
    for mode in ("eval.", "train."):
        model.train(mode == "train.")
        mask = InputMask(fused=inputs["mask.time"], channels=inputs.get("mask.channel")) if mode == "train." else None
        heard = encoder.hear(batch)
        encoded = _encoder(encoder.encoder, heard, encoder.hide(heard.projected, mask), check, mode)
        ctc = model.ctc(encoded)
        check.forward(f"{mode}ctc_logits", ctc.transpose(0, 1))
        logits = _decoder(model.decoder, tokens, encoded, heard.lengths, check, mode)
        written = ctc_loss(ctc, heard.lengths, target, (target != PAD).sum(1), BLANK)
        spoken = seq2seq_loss(logits, inputs["decoder_target"], PAD, smoothing)
        total = (1.0 - weight) * written.value + weight * spoken.value
        check.loss(f"{mode}loss", total)
        check.loss(f"{mode}log.loss", total)
        check.loss(f"{mode}log.ctc_loss", written.value)
        check.loss(f"{mode}log.dec_loss", spoken.value)
        check.loss(f"{mode}log.dec_nll_loss", spoken.logs["nll"][0])
        check.equal(f"{mode}log.dec_sample_size", len(target))
        check.equal(f"{mode}log.dec_n_correct", spoken.logs["token_accuracy"][0])
        check.equal(f"{mode}log.total", spoken.count)
        check.equal(f"{mode}log.ntokens", written.count)
        for name in ("sample_size", "log.sample_size", "log.nsentences"):
            check.equal(f"{mode}{name}", len(target))
        error_counts(check, mode, ctc, heard.lengths, target, BLANK, [*SPECIAL_SYMBOLS, *case.description["letters"]])
        if mode == "train.":
            gradients(check, model, total, lambda key: our_name(settings, key))
    model.eval()
    whole, lengths = inputs["source"], batch.audio_lengths
    assert lengths is not None
    with torch.no_grad():
        read = [encoder.encode(batch_of(row[None, :length], None)) for row, length in zip(whole, lengths.tolist(), strict=True)]
        heard_alone = [model.ctc(encoded).log_softmax(-1) for encoded, _ in read]
        for row, log_probs in enumerate(heard_alone):
            check.forward(f"ctc_log_probs.utt{row}", log_probs[0])
        language = TableLanguageModel(inputs["lm.bigram_logits"]) if "lm.bigram_logits" in inputs else None
        searches(case, check, model.decoder, read, heard_alone, encoder.encode(batch), language, case.bound("scores"), BLANK, ())


ADAPTERS = [
    (lambda case: "speech2c.models.speech2c.Speech2cModel" in case.official, pretraining_case),
    (lambda case: "speech2c_asr.Speech2cCtc" in case.official, recognition_case),
]
