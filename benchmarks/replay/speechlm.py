"""Cases of SpeechLM's official code: pre-training, fine-tuning with CTC and for translation (its data code: speechlm_data.py)."""

import re
from collections.abc import Mapping
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from avtlm.convert.model import Stored
from avtlm.convert.names.transformer import find_name
from avtlm.convert.names.unit_bridge import DISTANCE_NORM, UNITS, Bridge, bridge_rules, plain_key
from avtlm.convert.options import Options
from avtlm.convert.options.unit_bridge import bridge, fine_tuning, fine_tuning_spare, pretraining_spare
from avtlm.convert.speechlm import PRETRAINING, normed_distances, ours
from avtlm.data.batching import Batch
from avtlm.decoding.beam import BeamOptions, attention_beam
from avtlm.decoding.greedy import ctc_greedy
from avtlm.evaluation.wer import word_errors
from avtlm.frontends.multimodal import InputMask
from avtlm.nn.attention import padding_mask
from avtlm.nn.transformer import Decoder
from avtlm.objectives.loss import Loss
from avtlm.objectives.seq2seq import seq2seq_loss
from avtlm.systems.speechlm import SpeechLM, SpeechLMConfig
from avtlm.systems.unit_bridge import BridgeConfig, Crossing, Drawn, UnitBridge
from avtlm.text.vocabulary import EOS, PAD
from benchmarks.replay.case import Case, CaseError, Check
from benchmarks.replay.speech_encoders import batch_of, gradients, load


def pretrained_settings(case: Case, system: Bridge, state: Mapping[str, Tensor], given: Mapping[str, Any], rows: int) -> BridgeConfig:
    """Our configuration of a case's pre-trained model.

    Args:
        state: weights by the names of a pre-trained file.
        given: where the case describes the model: ``model``, ``task`` and ``criterion``.
        rows: symbols of text.
    """
    values = {**given["model"], **given.get("criterion", {}), "label_rate": given["task"]["label_rate"]}
    options = Options(values, "case.json: config.model", pretraining_spare())
    first = state["unit_embed_tokens.weight"].shape[0]
    second = state.get("label_embs_list.1", state.get("code_encoder_proj.weight", state["unit_embed_tokens.weight"])).shape[0]
    units = (first, second) if second != first or len(labels_of(case)) > 1 else (first,)
    settings = bridge(options, system, units, rows, bool(given["task"].get("normalize", False)), official=True)
    options.finish()
    return settings


def weights_of(state: Mapping[str, Tensor], settings: BridgeConfig, system: Bridge, keep_heads: bool = True) -> dict[str, Tensor]:
    """A case's weights by our names."""
    stored, unknown, _ = ours(cast(Mapping[str, Stored], state), settings, system, keep_heads)
    if unknown:
        raise CaseError(f"state.safetensors: {', '.join(unknown[:4])} are no tensors of {system}.")
    return cast(dict[str, Tensor], stored)


def our_name(settings: BridgeConfig, system: Bridge, key: str) -> str | None:
    """Our name of an official tensor, of two names of one tensor the first; None for one that the official code keeps and never uses.

    Those are SpeechUT's table of units in models that compare frames with the embeddings, norms of distances in post-norm layers, and
    after fine-tuning what only pre-training uses, and CTC's head in translation.
    """
    name = find_name(bridge_rules(system, settings.waveform.norm), plain_key(key), system)
    tied = settings.decoder is not None and settings.decoder.tie_embeddings
    if tied and name == "decoder.output.weight":
        return "decoder.embedding.weight"
    if settings.projects and name.startswith("predictor.project."):
        return name.replace("predictor.project.", "entrance.")
    distance = DISTANCE_NORM.fullmatch(plain_key(key))
    if (distance and not normed_distances(settings)[distance[1]]) or (settings.task != "pretrain" and name.startswith(PRETRAINING)):
        return None
    if name.startswith("ctc.") and settings.ctc_head == "none":
        return None
    if settings.projects and name == "predictor.units":
        return None if system == "speechut" else UNITS
    return name


def labels_of(case: Case) -> dict[str, Tensor]:
    """Units of speech by our names: of one kind or of two."""
    found = sorted(name for name in case.inputs if re.fullmatch(r"label(?:[._]?\d+)?", name))
    return {f"units_{place}" if place else "units": case.inputs[name] for place, name in enumerate(found)}


# Stages ---------------------------------------------------------------------------------------------------------------------------------


def speech_stages(check: Check, prefix: str, model: UnitBridge, batch: Batch, mask: InputMask | None, frames: int | None) -> Tensor:
    """Compare what the front-end and the speech encoder make of a batch; returns what the latter says."""
    heard, encoder = model.hear(batch, frames), model.encoder
    there = ~heard.padding
    seen = model.hide(heard.projected, mask)
    check.forward(f"{prefix}conv_features", model.hear(batch).convolved.transpose(1, 2))
    check.forward(f"{prefix}features_ln", heard.normed, there)
    check.forward(f"{prefix}features_proj", heard.projected, there)
    check.forward(f"{prefix}speech_encoder_in", seen, there)
    assert encoder.positions is not None
    check.forward(f"{prefix}pos_conv", encoder.positions(seen.masked_fill(heard.padding[..., None], 0.0), heard.padding), there)
    for index, state in enumerate(encoder.hidden_states(seen, heard.lengths, len(encoder.layers))[1:]):
        check.forward(f"{prefix}speech_layer_{index}", state, there)
    spoken = encoder(seen, heard.lengths)
    check.forward(f"{prefix}speech_encoder_out", spoken, there)
    stride = model.ctc_stride if model.config.task == "recognition" and model.decoder is None else 1  # as CTC's criterion is told it
    check.equal(f"{prefix}padding_mask", heard.padding[:, ::stride])
    return spoken


def unit_stages(check: Check, prefix: str, model: UnitBridge, entered: Tensor, lengths: Tensor, gaps: Tensor | None = None) -> Tensor:
    """Compare what the unit encoder makes of embeddings; returns what it says."""
    there = ~padding_mask(lengths, entered.shape[1])
    there = there if gaps is None else there & ~gaps
    check.forward(f"{prefix}unit_encoder_emb_in", entered, there)
    check.forward(f"{prefix}unit_encoder_emb_ln", model.unit_encoder.place(entered, lengths, gaps), there)
    for index, state in enumerate(model.unit_encoder.hidden_states(entered, lengths, gaps)[1:]):
        check.forward(f"{prefix}unit_layer_{index}", state, there)
    encoded = model.unit_encoder(entered, lengths, gaps=gaps)
    check.forward(f"{prefix}unit_encoder_out", encoded, there)
    return encoded


def ctc_places(model: UnitBridge, lengths: Tensor, frames: int, logits: Tensor) -> Tensor:
    """Frames of CTC that see no padding, bool (frames, batch): those of the input, and one more of the longest rows."""
    assert model.ctc is not None
    valid = model.ctc.frames(lengths)
    valid = torch.where(lengths == frames, logits.shape[1], valid)
    return ~padding_mask(valid, logits.shape[1]).t()


def text_stages(check: Check, model: UnitBridge, tokens: Tensor, hidden: Tensor | None) -> tuple[Tensor, Tensor]:
    """Compare the path of a text's units; returns what the unit encoder says, and lengths."""
    lengths = (tokens != PAD).sum(1)
    check.equal("text.unit_encoder_tokens", tokens)
    encoded = unit_stages(check, "text.", model, model.embed_units(tokens, hidden), lengths)
    if model.ctc is not None:
        logits = model.ctc(encoded)
        check.forward("text.ctc_logits", logits.transpose(0, 1), ctc_places(model, lengths, tokens.shape[1], logits))
        check.equal("text.ctc_padding_mask", padding_mask(lengths, tokens.shape[1])[:, :: model.ctc.stride])
    return encoded, lengths


def extracted(case: Case, check: Check, model: UnitBridge) -> None:
    """Compare features of unmasked speech."""
    inputs = case.inputs
    batch = batch_of(inputs["source"], inputs.get("padding_mask"))
    with torch.no_grad():
        heard = model.hear(batch)
        there = ~heard.padding
        check.equal("extract.padding_mask", heard.padding)
        check.forward("extract.features", model.encode(batch)[0], there)
        check.forward("extract.features_nopad_utt0", model.encode(batch_of(inputs["source"][:1], None))[0])
        # Asked for layers, the official training class leaves out the norm behind a pre-norm speech encoder.
        spoken = model.encoder(model.hide(heard.projected, None), heard.lengths, len(model.encoder.layers))
        states = torch.stack(model.unit_encoder.hidden_states(model.enter(spoken, heard.padding), heard.lengths))
        check.forward("extract.unit_states_output_layer", states, there[None].expand(len(states), -1, -1))


# Pre-training ---------------------------------------------------------------------------------------------------------------------------


def drawn_of(case: Case, settings: BridgeConfig) -> Drawn:
    """What a case holds in place of chance; of models that swap nothing it may hold the draws of swaps all the same."""
    inputs = case.inputs
    swap = inputs.get("mask.mix_selected") if settings.swap.prob else None
    return Drawn(InputMask(fused=inputs["mask.speech"]), swap, int(inputs.get("label_offset", torch.tensor(0))))


def text_of(case: Case) -> Batch | None:
    """Units of a text, and its letters; None for a case of speech alone."""
    if "text.src_tokens" not in case.inputs:
        return None
    tokens, letters = case.inputs["text.src_tokens"], case.inputs["text.target"]
    plain = letters.masked_fill(letters == EOS, PAD)[:, : int(((letters != PAD) & (letters != EOS)).sum(1).max())]
    return Batch(
        tuple(f"text {row}" for row in range(len(tokens))),
        "units",
        text=plain,
        text_lengths=(plain != PAD).sum(1),
        text_units=tokens,
        text_units_lengths=(tokens != PAD).sum(1),
    )


def crossing_of(check: Check, model: UnitBridge, batch: Batch, drawn: Drawn) -> Crossing:
    """Compare speech on its way through both encoders."""
    crossing = model.cross(batch, drawn)
    frames = crossing.units[0].shape[1]
    speech_stages(check, "speech.", model, batch, drawn.mask, frames)
    check.equal("speech.unit_encoder_tokens", crossing.tokens)
    check.equal("speech.swap_indices", crossing.swapped)
    unit_stages(check, "speech.", model, crossing.entered, crossing.entered_lengths, crossing.gaps)
    return crossing


def unit_logits(check: Check, crossing: Crossing, heads: list[Any]) -> None:
    """Compare logits of the units of hidden and of other frames at both depths, and what is counted of them."""
    padding = crossing.heard.padding
    places = {"m": crossing.hidden & ~padding, "u": ~crossing.hidden & ~padding}
    for depth, (head, states) in enumerate(zip(heads, (crossing.spoken, crossing.encoded), strict=True)):
        for letter, chosen in places.items():
            logits, target = head(states[chosen]), crossing.units[0 if depth == 0 else -1][chosen]
            check.forward(f"speech.logit_{letter}_{depth}", logits)
            check.equal(f"speech.target_{letter}_{depth}", target)
            check.loss(f"log.loss_{letter}_{depth}", F.cross_entropy(logits, target, reduction="sum"))
            check.equal(f"log.correct_{letter}_{depth}", float((logits.argmax(-1) == target).sum()))
            check.equal(f"log.count_{letter}_{depth}", float(len(target)))


def totals(check: Check, model: UnitBridge, groups: list[tuple[Batch, dict[str, Loss]]], sentences: int) -> Tensor:
    """Compare the loss of a step and what it is divided by; returns the loss.

    Args:
        sentences: that the official code counts.
    """
    combined = model.combine([batch for batch, _ in groups], [losses for _, losses in groups])
    total = torch.stack([loss.value for losses in combined for loss in losses.values()]).sum()
    count = torch.stack([loss.count for losses in combined for loss in losses.values()]).sum()
    speech = groups[0][1]
    check.loss("speech.features_pen", speech["feature_penalty"].logs["feature_penalty"][0])
    check.loss("log.loss_features_pen", speech["feature_penalty"].value)
    if "unit_distance" in speech:
        check.loss("speech.embedding_l2_loss", speech["unit_distance"].logs["unit_distance"][0])
        check.loss("log.loss_embedding_l2_loss", speech["unit_distance"].value)
    check.loss("loss", total)
    for name in ("sample_size", "log.sample_size", "log.ntokens"):
        check.equal(name, count)
    check.equal("log.nsentences", sentences)
    return total


def pretraining_case(case: Case, check: Check) -> None:
    state, config = case.state, case.config
    model_options = case.description.get("full_model_cfg") or config["model"]
    rows = len(state["unit_encoder_ctc_head.5.weight"]) if "unit_encoder_ctc_head.5.weight" in state else 0
    settings = pretrained_settings(case, "speechlm", state, {**config, "model": model_options}, rows)
    assert isinstance(settings, SpeechLMConfig)
    model = SpeechLM(settings).eval()
    load(model, weights_of(state, settings, "speechlm"))
    inputs = case.inputs
    batch, text = batch_of(inputs["source"], inputs.get("padding_mask"), labels_of(case)), text_of(case)
    crossing = crossing_of(check, model, batch, drawn_of(case, settings))
    unit_logits(check, crossing, [model.predictor, model.shared_predictor])
    groups = [(batch, model.speech_losses(crossing))]
    if text is not None:
        assert text.text_units is not None
        hidden = inputs["mask.text"]
        text_stages(check, model, text.text_units, hidden)
        if model.ctc is not None and settings.losses.ctc:
            groups.append((text, model.text_losses(text, hidden)))
            loss = groups[1][1]["letters"]
            check.loss("log.text_ctc_loss", loss.logs["ctc_loss"][0])
            check.equal("log.text_sample_size", loss.count)
    total = totals(check, model, groups, len(batch) + (len(text) if text is not None else 0))
    gradients(check, model, total, lambda key: our_name(settings, "speechlm", key))
    extracted(case, check, model)


# Fine-tuning ----------------------------------------------------------------------------------------------------------------------------


def fine_tuned(case: Case, system: Bridge, kind: str, rows: int, smoothing: float = 0.0) -> tuple[BridgeConfig, dict[str, Tensor]]:
    """Our configuration of a case's fine-tuned model, and its weights by our names; ``smoothing`` of labels where the case states none.

    A case may say apart what its criterion weighs, or among the other settings.
    """
    state = {plain_key(key): tensor for key, tensor in case.state.items() if not key.startswith("lm.")}
    given = case.config["pretrain"]
    given = {**given, "model": case.description.get("pretrained_model_cfg") or given["model"]}
    settings = pretrained_settings(case, system, state, given, rows)
    values = case.description.get("full_model_cfg") or case.config["ft"]
    options = Options(values, "case.json: config.ft", fine_tuning_spare())
    criterion = {"label_smoothing": smoothing, "dec_weight": 0.5, **case.config, **case.config.get("criterion", {})}
    settings = fine_tuning(options, settings, kind, float(criterion["label_smoothing"]), float(criterion["dec_weight"]))
    options.finish()
    return settings, weights_of(state, settings, system, keep_heads=False)


def heard_case(case: Case, check: Check, model: UnitBridge) -> tuple[Batch, Tensor, Tensor, InputMask]:
    """Compare the encoders of a fine-tuned model; returns the batch, what they say with lengths, and the masks of training."""
    inputs = case.inputs
    model.start_step(0, 1)  # where encoders may be frozen
    batch = batch_of(inputs["source"], inputs.get("padding_mask"))
    target = inputs["target"]
    batch = Batch(
        batch.ids,
        "recognition",
        batch.audio,
        batch.audio_lengths,
        targets={"tokens": target},
        target_lengths={"tokens": inputs.get("target_lengths", (target != PAD).sum(1))},
    )
    heard = model.hear(batch)
    spoken = speech_stages(check, "eval.", model, batch, None, None)
    check.equal("eval.unit_encoder_tokens", heard.padding.long())
    encoded = unit_stages(check, "eval.", model, model.enter(spoken, heard.padding), heard.lengths)
    return batch, encoded, heard.lengths, InputMask(fused=inputs.get("mask.speech"), channels=inputs.get("mask.channel"))


def ctc_case(case: Case, check: Check) -> None:
    rows = len(case.state.get("w2v_encoder.proj.5.weight", case.state.get("w2v_encoder.proj.weight", ())))
    settings, state = fine_tuned(case, "speechlm", "ctc", rows)
    assert isinstance(settings, SpeechLMConfig)
    model = SpeechLM(settings).eval()
    load(model, state)
    batch, encoded, lengths, mask = heard_case(case, check, model)
    assert model.ctc is not None
    logits = model.ctc(encoded)
    there = ctc_places(model, lengths, encoded.shape[1], logits)
    check.forward("eval.encoder_out", logits.transpose(0, 1), there)
    check.forward("eval.log_probs", logits.log_softmax(-1).transpose(0, 1), there)
    mistakes = symbols = 0
    for row, (best, target) in enumerate(
        zip(ctc_greedy(logits.log_softmax(-1), model.ctc.frames(lengths)), batch.targets["tokens"], strict=True)
    ):
        check.equal(f"eval.greedy_ids_{row}", torch.tensor(best.tokens))
        wrong, count = word_errors(" ".join(map(str, target[target != PAD].tolist())), " ".join(map(str, best.tokens)))
        mistakes, symbols = mistakes + wrong, symbols + count
    check.equal("eval.c_errors", mistakes)
    check.equal("eval.c_total", symbols)
    check.loss("eval.loss", model.recognition_losses(batch)["ctc"].value)
    loss = model.recognition_losses(batch, mask)["ctc"]
    check.loss("train.loss", loss.value)
    check.equal("train.sample_size", loss.count)
    gradients(check, model, loss.value, lambda key: our_name(settings, "speechlm", key))


def translation_case(case: Case, check: Check) -> None:
    settings, state = fine_tuned(case, "speechlm", "translation", len(case.state["decoder.embed_tokens.weight"]))
    assert isinstance(settings, SpeechLMConfig)
    model = SpeechLM(settings).eval()
    load(model, state)
    batch, encoded, lengths, mask = heard_case(case, check, model)
    translated(case, check, model, encoded, lengths)
    loss = model.recognition_losses(batch, mask)["attention"]
    check.loss("train.loss", loss.value)
    check.loss("train.nll_loss", loss.logs["nll"][0])
    check.equal("train.n_correct", loss.logs["token_accuracy"][0])
    check.equal("train.sample_size", loss.count)
    gradients(check, model, loss.value, lambda key: our_name(settings, "speechlm", key))
    searches(case, check, model, batch)


def translated(case: Case, check: Check, model: UnitBridge, encoded: Tensor, lengths: Tensor) -> Tensor:
    """Compare the decoder's stages; returns its logits."""
    decoder, tokens = model.decoder, case.inputs["prev_output_tokens"]
    assert isinstance(decoder, Decoder)
    there = case.inputs["decoder_target"] != PAD
    kept: list[Tensor] = []
    out = decoder.decode(decoder.embed(tokens), decoder.project_memory(encoded, lengths), kept=kept)
    for index, layer in enumerate(kept):
        check.forward(f"eval.decoder_layer_{index}", layer, there)
    logits = decoder.predict(out)
    check.forward("eval.decoder_logits", logits, there)
    smoothing = model.config.losses.label_smoothing
    check.loss("eval.loss", seq2seq_loss(logits, case.inputs["decoder_target"], PAD, smoothing).value)
    return logits


def searches(case: Case, check: Check, model: UnitBridge, batch: Batch) -> None:
    """Every search of a case without CTC, over the batch as it is."""
    with torch.no_grad():
        encoded, lengths = model.encode(batch)
    for name, asked in case.config.get("gen", {}).items():
        asked = dict(asked)
        options = BeamOptions(
            beam=asked["beam"],
            nbest=asked.pop("beam"),
            length_penalty=asked.pop("len_penalty", asked.pop("lenpen", 1.0)),
            max_len_a=asked.pop("max_len_a", 0),
            max_len_b=asked.pop("max_len_b"),
            min_len=asked.pop("min_len", 1),
        )
        if asked:
            raise CaseError(f"case.json: config.gen.{name} asks for {', '.join(asked)}, which is not replayed.")
        assert model.decoder is not None
        for row, hypotheses in enumerate(attention_beam(model.decoder, encoded, lengths, options)):
            for rank, hypothesis in enumerate(hypotheses):
                key = f"gen.{name}.utt{row}.hyp{rank}"
                check.equal(f"{key}.tokens", torch.tensor([*hypothesis.tokens, EOS]))
                check.forward(f"{key}.score", torch.tensor(hypothesis.score))
                check.forward(f"{key}.positional_scores", torch.tensor([*hypothesis.token_scores, hypothesis.components["end"]]))


ADAPTERS = [
    (lambda case: case.official.endswith("speechlm.py:SpeechlmModel"), pretraining_case),
    (lambda case: case.official.endswith("speechlm_ctcasr.py:SpeechLMCtc"), ctc_case),
    (lambda case: case.official.endswith("speechlm_st.py:SpeechLMS2T"), translation_case),
]
