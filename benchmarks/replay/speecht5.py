"""Cases of SpeechT5's official code: its models, losses and synthesis (searches: speecht5_search.py; batches and preparation:
speecht5_data.py; its twins in transformers: speecht5_transformers.py).

Over 400 lines, because all its tasks are looked into at the same stages.
"""

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from avtlm.convert.names.speecht5 import EMBEDDING, POST_NORM_UNUSED, READ_EMBEDDING, UNUSED, rename
from avtlm.convert.names.transformer import find_name
from avtlm.convert.options import Options
from avtlm.convert.options.speecht5 import NUMBERED, architecture, fairseq
from avtlm.convert.speecht5 import rules_of
from avtlm.data.batching import Batch
from avtlm.decoding.greedy import ctc_greedy
from avtlm.decoding.synthesis import LONGEST_OF_SPEECH, LONGEST_OF_TEXT, Speech, SynthesisOptions, synthesize
from avtlm.evaluation.wer import word_errors
from avtlm.frontends.multimodal import InputMask
from avtlm.nn.attention import padding_mask
from avtlm.nn.positions import LearnedPositions
from avtlm.nn.spectrogram import Written, shift_frames
from avtlm.nn.transformer import Decoder
from avtlm.objectives.ctc import ctc_loss
from avtlm.objectives.loss import Loss
from avtlm.objectives.reconstruction import guided_attention_loss, spectrogram_loss
from avtlm.objectives.seq2seq import seq2seq_loss
from avtlm.systems.speecht5 import Drawn, SpeechT5, SpeechT5Config
from avtlm.text.vocabulary import BOS, EOS, PAD
from avtlm.text.vocabulary import SPECIALS as SPECIAL_SYMBOLS
from benchmarks.replay.case import Case, Check
from benchmarks.replay.speech_encoders import SPECIALS, batch_of, gradients, load, with_copies


@dataclass
class Given:
    """A model with a case's weights, and what it reads."""

    case: Case
    model: SpeechT5
    batch: Batch

    @property
    def config(self) -> SpeechT5Config:
        return self.model.config


def settings_of(case: Case) -> SpeechT5Config:
    """Our configuration of a case's model, read off its options and the sizes of its tables."""
    config = case.config
    values: dict[str, Any] = architecture(config["arch_fn"], {})
    values |= {key: value for key, value in case.description.get("resolved_model_args", {}).items() if key not in ("max_distance",)}
    values |= {"t5_task": config["t5_task"], "speech_odim": config.get("speech_odim", 80)} | config.get("args", {})
    criterion = config.get("criterion") or {}
    values |= {key: value for key, value in criterion.items() if key != "sentence_avg"}
    options = Options(values, "case.json: config.args")
    symbols = SPECIALS + len(config["text_symbols"]) + 2 + NUMBERED * bool(values.get("iid_noise_target"))
    units = [count + SPECIALS for count in config.get("n_hubert", [])] or [0]
    named = config["t5_task"] == "s2c" and not values.get("sid_t5_postnet")
    return fairseq(options, symbols, units, symbols if named else 0)


def our_name(config: SpeechT5Config, key: str) -> str:
    """Our name of an official tensor; of a tied CTC head that of the embedding."""
    if key == "encoder.proj.weight" and config.ctc_head == "tied":
        return EMBEDDING if config.shared_embedding else READ_EMBEDDING
    return find_name(rules_of(config), key, "SpeechT5")


def weights_of(config: SpeechT5Config, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A case's weights by our names."""
    kept = {key: tensor for key, tensor in state.items() if config.encoder.norm_first or not POST_NORM_UNUSED.fullmatch(key)}
    if config.ctc_head == "tied":
        kept = {key: tensor for key, tensor in kept.items() if not key.startswith("encoder.proj.")}
    if not config.encoder.key_distance:
        kept = {key: tensor for key, tensor in kept.items() if not re.search(r"encoder\.(?:pos_emb|layers\.\d+\.norm_k)\.", key)}
    return rename(kept, rules_of(config), UNUSED, "SpeechT5")


def prepare(case: Case) -> Given:
    settings = settings_of(case)
    model = SpeechT5(settings).eval()
    state = weights_of(settings, case.state)
    if "feature_mask" not in state and settings.mask.prob == 0 and "speech" in settings.inputs:
        state["feature_mask"] = model.feature_mask.detach()
    load(model, state)
    return Given(case, model, reading(case))


def reading(case: Case) -> Batch:
    """What a case reads and writes."""
    inputs = case.inputs
    names = {"dec_target": "mel", "spkembs": "voice", "hubert_target_0": "units"}
    names |= {key: f"units_{key.removeprefix('hubert_target_')}" for key in inputs if key.startswith("hubert_target_") and key not in names}
    targets = {name: inputs[key] for key, name in names.items() if key in inputs}
    lengths = {"mel": inputs["dec_target_lengths"]} if "dec_target_lengths" in inputs else {}
    noisy = inputs.get("src_tokens")
    if noisy is not None and noisy.dim() == 3:  # frames of what is heard; the lengths beside them may be of its samples
        counted = inputs.get("src_lengths", lengths.get("mel"))
        assert counted is not None
        targets["source"] = noisy
        lengths["source"] = counted if int(counted.max()) <= noisy.shape[1] else inputs["tgt_lengths"]
    if "target" in inputs:
        target = inputs["target"]
        targets |= {"tokens": target.masked_fill(target == EOS, PAD), "speaker": target[:, 0]}
        lengths["tokens"] = ((target != PAD) & (target != EOS)).sum(1)
    if "source" in inputs:
        batch = batch_of(inputs["source"], inputs.get("padding_mask"), targets)
        return Batch(batch.ids, batch.task, batch.audio, batch.audio_lengths, targets=targets, target_lengths=lengths)
    text = inputs["src_tokens"]
    ids = tuple(f"row {row}" for row in range(len(text)))
    return Batch(ids, "text", text=text, text_lengths=(text != PAD).sum(1), targets=targets, target_lengths=lengths)


# What the parts of a model say ----------------------------------------------------------------------------------------------------------


@dataclass
class Read:
    """What the encoder says, where its input ends, and what the decoder attends to."""

    encoded: Tensor
    lengths: Tensor
    memory: Tensor


def reads(given: Given, check: Check, prefix: str, batch: Batch, mask: InputMask | None = None, frames: int | None = None) -> Read:
    """Run the encoder, and compare its stages."""
    model = given.model
    if batch.audio is not None:
        assert batch.audio_lengths is not None
        x = batch.audio[..., None]
        for index, layer in enumerate(model.frontend.layers):
            x = layer(x, None)
            check.forward(f"{prefix}conv_layer_{index}", x.transpose(1, 2))
        heard = model.hear(batch, frames)
        check.forward(f"{prefix}conv_features", heard.convolved.transpose(1, 2))
        check.forward(f"{prefix}features_ln", heard.normed)
        check.forward(f"{prefix}features_proj", heard.projected)
        check.forward(f"{prefix}pos_conv", model.speech_positions(model.hide(heard.projected, mask)))
        check.forward(f"{prefix}sinusoidal_positions", model.frame_numbers(heard.padding))
        check.loss(f"{prefix}features_pen", heard.convolved.square().mean())
        check.equal(f"{prefix}frame_padding_mask", heard.padding)
        seen, lengths = model.lead(model.read_speech(heard, mask), heard.lengths)
    else:
        assert batch.text is not None
        assert batch.text_lengths is not None
        seen, lengths = model.read_text(batch.text), batch.text_lengths
        check.forward(f"{prefix}text_encoder_prenet_out", seen)
    check.forward(f"{prefix}encoder_in", seen)
    check.equal(f"{prefix}encoder_padding_mask", padding_mask(lengths, seen.shape[1]))
    states = model.encoder.hidden_states(seen, lengths, len(model.encoder.layers))  # without the norm behind pre-norm layers
    for index, state in enumerate(states[1:]):
        check.forward(f"{prefix}encoder_layer_{index}", state)
    encoded, memory = model.encode_seen(seen, lengths)
    check.forward(f"{prefix}encoder_out", encoded)
    if model.config.ctc_head != "none":
        check.forward(f"{prefix}ctc_logits", model.ctc_logits(encoded).transpose(0, 1))
    return Read(encoded, lengths, memory)


def writes_text(given: Given, check: Check, prefix: str, read: Read, tokens: Tensor) -> Tensor:
    """Run the decoder over text, and compare its stages."""
    decoder = given.model.decoder
    assert isinstance(decoder, Decoder)
    seen, kept = with_padding_row(decoder, tokens, decoder.embed(tokens)), []
    check.forward(f"{prefix}decoder_in", seen)
    lengths = (tokens != PAD).sum(1)
    out = decoder.decode(seen, decoder.project_memory(read.memory, read.lengths), lengths=lengths, kept=kept)
    for index, state in enumerate(kept):
        check.forward(f"{prefix}decoder_layer_{index}", state)
    check.forward(f"{prefix}decoder_out", out)
    logits = decoder.predict(out)
    check.forward(f"{prefix}logits", logits)
    return logits


def with_padding_row(decoder: Decoder, tokens: Tensor, seen: Tensor) -> Tensor:
    """What a decoder with learned positions sees there: padding has a row of the table, which is zero but in made-up weights. Nothing else
    heeds what stands at padding."""
    if not isinstance(decoder.positions, LearnedPositions):
        return seen
    row = decoder.positions.table.weight[decoder.positions.offset - 1]
    return torch.where((tokens == PAD)[..., None], seen + row, seen)


def writes_speech(given: Given, check: Check, prefix: str, read: Read, keep: Tensor | None) -> tuple[Written, list[Tensor]]:
    """Run the decoder over frames, and compare its stages."""
    model, inputs = given.model, given.case.inputs
    assert model.speech_prenet is not None
    assert model.spectrogram is not None
    frames, voice, lengths = inputs["prev_output_tokens"], inputs.get("spkembs"), inputs["tgt_lengths"]
    check.value(
        f"{prefix}prev_output_tokens",
        float((shift_frames(inputs["dec_target"], model.config.spectrogram.reduction) - frames).abs().max()),
        0.0,
        1e-6,
    )
    plain = model.speech_prenet.read(frames, keep)
    check.forward(f"{prefix}speech_decoder_prenet_linear_out", plain)
    check.forward(f"{prefix}speech_decoder_prenet_posenc_out", model.speech_prenet.positions.place(plain))
    source, steps = model.source(given.batch) if model.config.spectrogram.needs_source else (None, lengths)
    if source is not None and model.config.spectrogram.reads == "source":
        frames, lengths, voice = source, steps, None
    seen = model.speech_prenet(frames, voice, keep=keep)
    check.forward(f"{prefix}decoder_in", seen)
    kept: list[Tensor] = []
    weights: list[Tensor] = []
    memory = model.decoder.project_memory(model.speech_prenet.inform(read.memory, inputs.get("spkembs")), read.lengths)
    out = model.decoder.decode(seen, memory, lengths=lengths, kept=kept, weights=weights)
    for index, state in enumerate(kept):
        check.forward(f"{prefix}decoder_layer_{index}", state)
    check.forward(f"{prefix}decoder_out", out)
    for index, each in enumerate(weights):
        check.forward(f"{prefix}cross_attn_{index}", each)
    check.forward(f"{prefix}cross_attn_mean", weights[-1].mean(1))
    written: Written = model.spectrogram(out, lengths, source)
    check.forward(f"{prefix}mel_before", written.before)
    check.forward(f"{prefix}mel_after", written.after)
    check.forward(f"{prefix}stop_logits", written.stop)
    return written, weights


def total_of(losses: Mapping[str, Loss]) -> Tensor:
    return torch.stack([loss.value for loss in losses.values()]).sum()


def count_of(losses: Mapping[str, Loss]) -> Tensor:
    return torch.stack([loss.count for loss in losses.values()]).sum()


def modes(given: Given, check: Check, run: Callable[[str], None]) -> None:
    """Evaluation without, and training with gradients; dropout is 0 in both."""
    given.model.eval()
    with torch.no_grad():
        run("eval.")
    given.model.train()
    run("train.")
    given.model.eval()


# Recognition ----------------------------------------------------------------------------------------------------------------------------


def recognition_case(case: Case, check: Check) -> None:
    given, weights = prepare(case), settings_of(case).losses
    model, batch, inputs = given.model, given.batch, case.inputs
    target, tokens = inputs["target"], inputs["prev_output_tokens"]

    def run(mode: str) -> None:
        mask = InputMask(fused=inputs.get("mask.time"), channels=inputs.get("mask.channel")) if mode == "train." else None
        read = reads(given, check, mode, batch, mask)
        logits = writes_text(given, check, mode, read, tokens)
        losses = model.recognition_losses(batch, mask)
        total, count = total_of(losses), count_of(losses)
        if (case.config.get("criterion") or {}).get("sentence_avg", True) is False:
            count = batch.target_lengths["tokens"].sum()  # what the official code divides by then
        check.loss(f"{mode}loss", total)
        check.equal(f"{mode}sample_size", count)
        check.loss(f"{mode}loss_normalised", total / count)
        spoken = seq2seq_loss(logits, target, PAD, weights.label_smoothing)
        symbols = batch.target_lengths["tokens"]
        heard = ctc_loss(model.ctc_logits(read.encoded), read.lengths, batch.targets["tokens"], symbols, model.config.blank)
        check.loss(f"{mode}log.ce_loss", spoken.value if weights.attention else 0.0)
        check.loss(f"{mode}log.nll_loss", spoken.logs["nll"][0] if weights.attention else 0.0)
        check.loss(f"{mode}log.ctc_loss", heard.value if weights.ctc else 0.0)
        check.loss(f"{mode}log.loss", total)
        check.equal(f"{mode}log.ntokens", float(symbols.sum()))
        check.equal(f"{mode}log.nsentences", len(target))
        check.equal(f"{mode}log.sample_size", count)
        check.equal(f"{mode}log.n_correct", spoken.logs["token_accuracy"][0])
        check.equal(f"{mode}log.total", spoken.count)
        symbols_of_text = [*SPECIAL_SYMBOLS, *case.config["text_symbols"], "<mask>", "<ctc_blank>"]
        error_counts(check, mode, model.ctc_logits(read.encoded), read.lengths, target, model.config.blank, symbols_of_text)
        if mode == "train.":
            gradients(check, model, total, lambda key: our_name(model.config, key))

    modes(given, check, run)
    if "extract.features_layer" in case.outputs:
        with torch.no_grad():
            check.forward("extract.features_layer", model.encode(batch, case.config["tgt_enc_layer"] + 1)[0])


def error_counts(check: Check, mode: str, logits: Tensor, lengths: Tensor, target: Tensor, blank: int, symbols: Sequence[str]) -> None:
    """What the official criterion counts by the way in evaluation: errors of greedy CTC in symbols and in words."""
    totals = {name: 0 for name in ("c_errors", "c_total", "w_errors", "w_total")}
    for best, row in zip(ctc_greedy(logits.log_softmax(-1), lengths, blank), target, strict=True):
        wanted = row[(row != PAD) & (row != EOS)].tolist()
        found = list(best.tokens)
        for name, (mistakes, count) in (
            ("c", word_errors(" ".join(map(str, wanted)), " ".join(map(str, found)))),
            ("w", word_errors(spelled(wanted, symbols), spelled(found, symbols))),
        ):
            totals[f"{name}_errors"] += mistakes
            totals[f"{name}_total"] += count
    for name, count in totals.items():
        check.equal(f"{mode}log.{name}", count)
    check.equal(f"{mode}log.wv_errors", totals["w_errors"])


def spelled(ids: Sequence[int], symbols: Sequence[str]) -> str:
    """Text of symbols, where the sign of a word's start or end is its space."""
    return "".join(symbols[index] for index in ids if index not in (BOS, EOS)).replace("\u2581", " ").replace("|", " ").strip()


# Generation -----------------------------------------------------------------------------------------------------------------------------


def generation_case(case: Case, check: Check) -> None:
    given = prepare(case)
    model, batch, inputs = given.model, given.batch, case.inputs
    settings, reduction = model.config.losses.reconstruction, model.config.spectrogram.reduction
    keep, lengths = inputs.get("prenet_keep"), inputs["dec_target_lengths"]

    def run(mode: str) -> None:
        read = reads(given, check, mode, batch)
        written, weights = writes_speech(given, check, mode, read, keep)
        _after(case, check, mode, model)
        model.load_state_dict(before)
        losses = model.generation_losses(batch, keep=keep)
        loss = losses["spectrogram"]
        total = loss.value / loss.count
        parts = spectrogram_loss(written, inputs["dec_target"], lengths, settings, reduction)
        guide = model.config.waveform.frames(batch.audio_lengths) if batch.audio_lengths is not None else read.lengths
        check.equal("src_frame_lengths", guide)
        check.loss(f"{mode}loss", total)
        _logs(check, mode, parts, total)
        steps = torch.div(lengths, reduction, rounding_mode="floor")
        check.loss(f"{mode}log.enc_dec_attn_loss", guided_attention_loss(weights, steps, guide, settings))
        for side, part in (("encoder", model.text_prenet), ("decoder", model.speech_prenet)):
            if part is not None and part.positions.scale is not None:
                check.loss(f"{mode}log.{side}_alpha", part.positions.scale)
        check.equal(f"{mode}log.ntokens", float((read.lengths if batch.audio_lengths is None else batch.audio_lengths).sum()))
        check.equal(f"{mode}log.nsentences", len(batch))
        check.equal(f"{mode}log.sample_size", 1)
        if mode == "train.":
            gradients(check, model, total, lambda key: our_name(model.config, key))

    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes(given, check, run)
    model.load_state_dict(before)  # without what training made of running statistics
    if "gen.mel" in case.outputs:
        ratio = LONGEST_OF_SPEECH if batch.audio is not None else LONGEST_OF_TEXT
        speech = first_spoken(given, SynthesisOptions(longest=ratio))
        check.forward("gen.mel", speech.mel)
        check.forward("gen.stop_probs", speech.stop)
        check.forward("gen.attn", speech.attention)


def _after(case: Case, check: Check, mode: str, model: SpeechT5) -> None:
    """Running statistics after one pass of training."""
    state = model.state_dict()
    start = f"{mode}after."
    for name in case.outputs:
        if name.startswith(start):
            check.forward(name, state[our_name(model.config, name.removeprefix(start))])


def _logs(check: Check, prefix: str, parts: Loss, total: Tensor) -> None:
    for theirs, ours in (("l1_loss", "absolute"), ("l2_loss", "squared"), ("bce_loss", "stop")):
        value, count = parts.logs[ours]
        check.loss(f"{prefix}log.{theirs}", value / count)
    check.loss(f"{prefix}log.loss", total)


def first_spoken(given: Given, options: SynthesisOptions) -> Speech:
    """The first row of a case alone, without its padding, synthesised with the dropout that the case holds."""
    batch, inputs = given.batch, given.case.inputs
    if batch.audio is not None:
        assert batch.audio_lengths is not None
        alone = batch_of(batch.audio[:1, : int(batch.audio_lengths[0])], None)
    else:
        assert batch.text is not None
        assert batch.text_lengths is not None
        text = batch.text[:1, : int(batch.text_lengths[0])]
        alone = Batch(batch.ids[:1], "text", text=text, text_lengths=batch.text_lengths[:1])
    voice = inputs.get("spkembs", inputs.get("speaker_embeddings"))
    with torch.no_grad():
        encoded, lengths = given.model.encode(alone)
    prenet = given.config.spectrogram
    always = torch.ones(1, prenet.prenet_layers, prenet.prenet_width, dtype=torch.bool)  # where a case drops nothing
    keep = inputs.get("gen.prenet_keep", always)[:, :, None]
    return synthesize(given.model, encoded, lengths, None if voice is None else voice[:1], options=options, keep=keep)[0]


# Speakers -------------------------------------------------------------------------------------------------------------------------------


def speaker_case(case: Case, check: Check) -> None:
    given = prepare(case)
    model, batch = given.model, given.batch
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    def run(mode: str) -> None:
        read = reads(given, check, mode, batch)
        seen = read.memory if model.config.pooling == "decoder" else read.encoded
        check.forward(f"{mode}class_logits", model.name_speaker(seen, read.lengths))
        _after(case, check, mode, model)
        model.load_state_dict(before)
        if model.speaker_head is not None:
            check.forward(f"{mode}embedding", model.speaker_head(model.pool(seen, read.lengths)))
        model.load_state_dict(before)
        start, kept = torch.zeros(len(batch), 1, model.config.decoder.dim), []
        check.forward(f"{mode}decoder_in", start)
        out = model.decoder.decode(start, model.decoder.project_memory(seen, read.lengths), kept=kept)
        for index, state in enumerate(kept):
            check.forward(f"{mode}decoder_layer_{index}", state)
        check.forward(f"{mode}decoder_out", out)
        loss = model.speaker_losses(batch)["speaker"]
        check.loss(f"{mode}loss", loss.value)
        check.loss(f"{mode}log.loss", loss.value)
        check.loss(f"{mode}log.ce_loss", loss.value)
        check.loss(f"{mode}log.nll_loss", loss.logs["speaker_loss"][0])
        for name in ("sample_size", "log.sample_size", "log.ntokens", "log.nsentences", "log.total"):
            check.equal(f"{mode}{name}", loss.count)
        check.equal(f"{mode}log.ctc_loss", 0)
        check.equal(f"{mode}log.n_correct", loss.logs["speaker_accuracy"][0])
        # To name a voice, the official code asks the decoder, however voices are pooled, and lets it attend to the last layer, in which no
        # symbol was before the frames.
        if model.speaker_head is not None and model.speaker is not None:
            heard = model.hear(batch)
            plain = model.encode_seen(model.read_speech(heard), heard.lengths)[0]
            answer = model.decoder.decode(start, model.decoder.project_memory(plain, heard.lengths))[:, 0]
            logits = model.speaker_head.classify(model.speaker_head(answer), model.speaker.weight)
            check.equal(f"{mode}generate_class", logits.argmax(-1))
        if mode == "train.":
            gradients(check, model, loss.value, lambda key: our_name(model.config, key))

    modes(given, check, run)


# Pre-training ---------------------------------------------------------------------------------------------------------------------------


def pretraining_case(case: Case, check: Check) -> None:
    given = prepare(case)
    model = given.model
    if model.quantizer is not None:
        model.quantizer.set_updates(case.config.get("num_updates", 0))
    for mode in ("eval.", "train."):
        model.train(mode == "train.")
        with torch.set_grad_enabled(mode == "train."):
            _speech_branch(given, check, f"{mode}speech.")
            model.zero_grad()
            _text_branch(given, check, f"{mode}text.")
        if model.quantizer is not None:
            check.close(f"{mode}gumbel_temp", torch.tensor(model.quantizer.temperature), case.bound("forward"))


def _drawn(given: Given, part: str, rows: int, frames: int, mask: InputMask | None = None, keep: Tensor | None = None) -> Drawn:
    """What chance decided in a case."""
    config, inputs = given.config, given.case.inputs
    if config.codebook is None:
        return Drawn(mask, keep=keep)
    mixed = torch.zeros(rows, frames, dtype=torch.bool)
    mixed[:, inputs[f"{part}.codebook_perm"][: int(frames * config.mixing)]] = True
    noise = inputs[f"{part}.gumbel_noise"].view(-1, config.codebook.groups, config.codebook.entries)
    return Drawn(mask, mixed, noise, keep)


def _codes(given: Given, check: Check, prefix: str, read: Read, drawn: Drawn) -> Read:
    """What the decoder attends to."""
    model = given.model
    seen, codes = model.quantise(read.memory, read.lengths, drawn)
    check.forward(f"{prefix}encoder_out_after_mix", seen)
    if codes is not None:
        check.forward(f"{prefix}quantized", codes.vectors.unflatten(0, seen.shape[:2]))
        check.loss(f"{prefix}prob_perplexity", codes.soft_perplexity)
        check.loss(f"{prefix}code_perplexity", codes.hard_perplexity)
        check.loss(f"{prefix}log.code_perplexity", codes.hard_perplexity)
    return Read(read.encoded, read.lengths, seen)


def _speech_branch(given: Given, check: Check, prefix: str) -> None:
    model, batch, inputs = given.model, given.batch, given.case.inputs
    mask, keep = InputMask(fused=inputs["mask.time"], channels=inputs.get("mask.channel")), inputs.get("prenet_keep")
    units = model.units_of(batch)
    assert units is not None
    assert model.predictor is not None
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    read = reads(given, check, prefix, batch, mask, units[0].shape[1])
    drawn = _drawn(given, "speech", *read.encoded.shape[:2], mask, keep)
    written, _ = writes_speech(given, check, prefix, _codes(given, check, prefix, read, drawn), keep)
    model.load_state_dict(before)
    losses = model.speech_losses(batch, drawn)
    total, count = total_of(losses), count_of(losses)
    hidden, padding = inputs["mask.time"][:, : read.encoded.shape[1]], padding_mask(read.lengths, read.encoded.shape[1])
    weights = model.config.losses
    places = itertools.product(enumerate(units), (("masked", hidden & ~padding), ("unmasked", ~hidden & ~padding)))
    for (number, labels), (word, chosen) in places:
        logits, target = model.predictor(read.encoded[chosen], number), labels[chosen][:, None]
        plain = torch.cat([logits.gather(1, target), logits.scatter(1, target, float("-inf"))], 1)
        first, ranked = with_copies(plain, given.case.outputs.get(f"{prefix}hubert_logits_{word}_{number}"))
        check.forward(f"{prefix}hubert_logits_{word}_{number}", first)
        truth = torch.zeros_like(target[:, 0])
        check.loss(f"{prefix}log.loss_{word[0]}_{number}", F.cross_entropy(first, truth, reduction="sum"))
        check.equal(f"{prefix}log.correct_{word[0]}_{number}", float((ranked.argmax(-1) == 0).sum()))
        check.equal(f"{prefix}log.count_{word[0]}_{number}", float(len(first)))
    for name, logged in (("feature_penalty", "features_pen"), ("diversity", "prob_perplexity")):
        if name in losses and weights.units:  # logged before the whole is weighed
            check.loss(f"{prefix}log.loss_{logged}", losses[name].value / weights.units)
    settings, reduction = model.config.losses.reconstruction, model.config.spectrogram.reduction
    parts = spectrogram_loss(written, inputs["dec_target"], inputs["dec_target_lengths"], settings, reduction)
    _logs(check, prefix, parts, total)
    if "spectrogram" in losses:
        check.loss(f"{prefix}log.dec_loss", losses["spectrogram"].value / count / weights.spectrogram)
    check.loss(f"{prefix}loss", total)
    check.loss(f"{prefix}loss_normalised", total / count)
    for name in ("sample_size", "log.sample_size", "log.ntokens"):
        check.equal(f"{prefix}{name}", count)
    check.equal(f"{prefix}log.nsentences", len(batch))
    check.equal(f"{prefix}log.ngpu", 1)
    if total.requires_grad:
        _gradients(given, check, "speech", total / count)


def _text_branch(given: Given, check: Check, prefix: str) -> None:
    model, inputs = given.model, given.case.inputs
    tokens, target = inputs["text.src_tokens"], inputs["text.target"]
    ids = given.batch.ids[: len(tokens)]
    lengths = (tokens != PAD).sum(1)
    read = reads(given, check, prefix, Batch(ids, "text", text=tokens, text_lengths=lengths))
    drawn = _drawn(given, "text", *tokens.shape)
    seen = _codes(given, check, prefix, read, drawn)
    logits = writes_text(given, check, prefix, seen, inputs["text.prev_output_tokens"])
    losses = model.text_losses(Batch(ids, "text", text=target, text_lengths=(target != PAD).sum(1)), tokens, lengths, drawn)
    total, count = total_of(losses), count_of(losses)
    check.loss(f"{prefix}log.bart_loss", seq2seq_loss(logits, target, PAD, 0.0).value)
    if "diversity" in losses:
        check.loss(f"{prefix}log.loss_prob_perplexity", losses["diversity"].value)
    check.loss(f"{prefix}log.loss", total)
    check.loss(f"{prefix}loss", total)
    check.loss(f"{prefix}loss_normalised", total / count)
    for name in ("sample_size", "log.sample_size", "log.ntokens"):
        check.equal(f"{prefix}{name}", count)
    check.equal(f"{prefix}log.nsentences", len(tokens))
    if total.requires_grad:
        _gradients(given, check, "text", total / count)


def _gradients(given: Given, check: Check, part: str, loss: Tensor) -> None:
    start = f"grad.{part}."
    loss.backward()
    parameters = dict(given.model.named_parameters())
    for name in given.case.outputs:
        if name.startswith(start):
            check.gradient(name, parameters[our_name(given.config, name.removeprefix(start))].grad)


def _is(task: str) -> Callable[[Case], bool]:
    return lambda case: case.official.startswith("T5TransformerModel") and case.config.get("t5_task") == task


ADAPTERS = [
    (_is("s2t"), recognition_case),
    (_is("t2s"), generation_case),
    (_is("s2s"), generation_case),
    (_is("s2c"), speaker_case),
    (_is("pretrain"), pretraining_case),
]
