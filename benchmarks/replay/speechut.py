"""Cases of SpeechUT's official code: pre-training for recognition and for translation, and fine-tuning with the searches of both."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from avtlm import config as configuration
from avtlm import systems
from avtlm.checkpoint import save_model
from avtlm.convert.names.transformer import find_name, transformer
from avtlm.convert.names.unit_bridge import plain_key
from avtlm.data.batching import Batch
from avtlm.decoding.beam import BeamOptions, attention_beam
from avtlm.decoding.ctc_prefix import PrefixScorer
from avtlm.decoding.language_model import MappedLanguageModel
from avtlm.decoding.result import Hypothesis
from avtlm.decoding.settings import DecodingConfig
from avtlm.nn.transformer import Decoder
from avtlm.objectives.loss import Loss
from avtlm.systems.language_model import LanguageModel, LanguageModelConfig
from avtlm.systems.speechut import SpeechUT, SpeechUTConfig
from avtlm.text.vocabulary import BLANK, EOS, PAD, UNKNOWN, Vocabulary
from avtlm.transcriber import Transcriber
from benchmarks.replay.case import Case, CaseError, Check
from benchmarks.replay.speech_encoders import batch_of, gradients, load
from benchmarks.replay.speechlm import (
    crossing_of,
    ctc_places,
    drawn_of,
    extracted,
    fine_tuned,
    heard_case,
    labels_of,
    our_name,
    pretrained_settings,
    text_of,
    text_stages,
    totals,
    translated,
    unit_logits,
    unit_stages,
    weights_of,
)

IMPOSSIBLE = -1e10  # the official log of 0
CLOSE = 1e-3  # of scores of whole texts, which the official search adds up in float32


def rows_of(state: Mapping[str, Tensor]) -> int:
    """Symbols of text, by the names of a pre-trained file: those of the decoder, or of CTC in a model that has none."""
    table = next(
        (
            state[key]
            for key in ("decoder.embed_tokens.weight", "unit_encoder_ctc_head.5.weight", "unit_encoder_ctc_head.weight")
            if key in state
        ),
        (),
    )
    return len(table)


# Pre-training ---------------------------------------------------------------------------------------------------------------------------


def pretraining_case(case: Case, check: Check) -> None:
    state, inputs = case.state, case.inputs
    given = {**case.config, "model": case.description.get("full_model_cfg") or case.config["model"]}
    settings = pretrained_settings(case, "speechut", state, given, rows_of(state))
    assert isinstance(settings, SpeechUTConfig)
    model = SpeechUT(settings).eval()
    load(model, weights_of(state, settings, "speechut"))
    batch = batch_of(inputs["source"], inputs.get("padding_mask"), labels_of(case))
    drawn = drawn_of(case, settings)
    unit_logits(check, crossing_of(check, model, batch, drawn), [model.predictor, model.unit_output])
    groups, sentences = [(batch, model.speech_losses(batch, drawn))], len(batch)
    text = text_of(case)
    if text is not None:
        groups.append((text, _text_case(case, check, model, text)))
        sentences += len(text)
    if "mum.src_tokens" in inputs and settings.losses.units:
        units = inputs["mum.src_tokens"]
        named = tuple(f"units {row}" for row in range(len(units)))
        alone = Batch(named, "units", text_units=units, text_units_lengths=(units != PAD).sum(1))
        groups.append((alone, _units_case(case, check, model, units)))
    # The official code counts sentences of speech and of text, but not those of units alone.
    total = totals(check, model, groups, sentences)
    gradients(check, model, total, lambda key: our_name(settings, "speechut", key))
    extracted(case, check, model)


def _text_case(case: Case, check: Check, model: SpeechUT, text: Batch) -> dict[str, Loss]:
    """Units to text."""
    settings, inputs = model.config, case.inputs
    hidden = inputs["mask.text"] if settings.hide_units else None
    assert text.text_units is not None
    encoded, lengths = text_stages(check, model, text.text_units, hidden)
    if model.decoder is not None:
        _decoder(check, "text.", model.decoder, inputs["text.prev_output_tokens"], encoded, lengths)
    if not (settings.losses.attention or settings.losses.ctc):
        return {}
    losses = model.text_losses(text, hidden)
    if "ctc" in losses:
        check.loss("log.text_ctc_loss", losses["ctc"].logs["ctc_loss"][0])
        check.equal("log.text_sample_size", losses["ctc"].count)
    if "attention" in losses:
        written = losses["attention"]
        check.loss("log.text_dec_loss", written.value / settings.losses.attention)
        check.loss("log.text_dec_nll_loss", written.logs["nll"][0])
        check.equal("log.correct_text_dec", written.logs["token_accuracy"][0])
        check.equal("log.count_text_dec", written.count)
        if "ctc" not in losses:
            check.equal("log.text_sample_size", written.count)
    return losses


def _decoder(check: Check, prefix: str, decoder: Decoder, tokens: Tensor, encoded: Tensor, lengths: Tensor) -> None:
    there, kept = tokens != PAD, []
    out = decoder.decode(decoder.embed(tokens), decoder.project_memory(encoded, lengths), kept=kept)
    for index, state in enumerate(kept):
        check.forward(f"{prefix}decoder_layer_{index}", state, there)
    check.forward(f"{prefix}decoder_logits", decoder.predict(out), there)


def _units_case(case: Case, check: Check, model: SpeechUT, units: Tensor) -> dict[str, Loss]:
    """Masked units."""
    hidden, valid = case.inputs["mask.mum"], units != PAD
    check.equal("mum.unit_encoder_tokens", units)
    encoded = unit_stages(check, "mum.", model, model.embed_units(units, hidden), valid.sum(1))
    assert model.unit_output is not None
    for letter, chosen in (("m", hidden & valid), ("u", ~hidden & valid)):
        logits, target = model.unit_output(encoded[chosen]), units[chosen]
        check.forward(f"mum.logit_{letter}_0", logits)
        check.equal(f"mum.target_{letter}_0", target)
        check.loss(f"log.mum_loss_{letter}_0", F.cross_entropy(logits, target, reduction="sum"))
        check.equal(f"log.correct_{letter}_0_mum", float((logits.argmax(-1) == target).sum()))
        check.equal(f"log.count_{letter}_0_mum", float(len(target)))
    losses = model.unit_losses(units, hidden)
    check.equal("log.unit_sample_size", losses["masked_units"].count)
    return losses


# Fine-tuning ----------------------------------------------------------------------------------------------------------------------------


def tuned_case(case: Case, check: Check) -> None:
    kind = "translation" if "speechut_st.py" in case.official else "joint"
    # The criterion of the released recipes smooths labels by 0.1.
    rows = rows_of({plain_key(key): tensor for key, tensor in case.state.items()})
    settings, state = fine_tuned(case, "speechut", kind, rows, 0.1)
    assert isinstance(settings, SpeechUTConfig)
    model = SpeechUT(settings).eval()
    load(model, state)
    batch, encoded, lengths, mask = heard_case(case, check, model)
    if model.ctc is not None:
        logits = model.ctc(encoded)
        check.forward("eval.ctc_logits", logits.transpose(0, 1), ctc_places(model, lengths, encoded.shape[1], logits))
        check.equal("eval.ctc_padding_mask", (torch.arange(encoded.shape[1])[None] >= lengths[:, None])[:, :: model.ctc_stride])
    if model.decoder is not None:
        translated(case, check, model, encoded, lengths)
    losses = model.recognition_losses(batch, mask)
    total = torch.stack([loss.value for loss in losses.values()]).sum()
    check.loss("train.loss", total)
    check.equal("train.sample_size", torch.stack([loss.count for loss in losses.values()]).sum())
    if "ctc" in losses:
        check.loss("train.ctc_loss", losses["ctc"].logs["ctc_loss"][0])
    if "attention" in losses:
        written = losses["attention"]
        check.loss("train.dec_loss", written.value / settings.losses.attention)
        for prefix in ("train.", "train.dec_"):
            check.loss(f"{prefix}nll_loss", written.logs["nll"][0])
            check.equal(f"{prefix}n_correct", written.logs["token_accuracy"][0])
    gradients(check, model, total, lambda key: our_name(settings, "speechut", key))
    if model.decoder is not None:
        with torch.no_grad():
            _searches(case, check, model, batch, single=kind == "joint")


def _searches(case: Case, check: Check, model: SpeechUT, batch: Batch, single: bool) -> None:
    """Every search of a case: of recognition one utterance at a time, of translation the batch as it is."""
    source, lengths = case.inputs["source"], batch.audio_lengths
    assert lengths is not None
    assert isinstance(model.decoder, Decoder)
    batches = [batch_of(row[None, :length], None) for row, length in zip(source, lengths.tolist(), strict=True)] if single else [batch]
    read = [model.encode(each) for each in batches]
    heard = [model.ctc_logits(encoded).log_softmax(-1) if model.ctc is not None else None for encoded, _ in read]
    if "prefix.scores" in case.outputs and heard[0] is not None:
        _prefixes(case, check, heard[0])
    for name, asked in case.config.get("gen", {}).items():
        unknown = asked.keys() - {"beam", "max_len_b", "ctc_weight", "lm_weight", "len_penalty", "min_len"}
        if unknown:
            raise CaseError(f"case.json: config.gen.{name} asks for {', '.join(sorted(unknown))}, which is not replayed.")
        weight, language = asked.get("ctc_weight", 0.0), asked.get("lm_weight", 0.0)
        options = BeamOptions(
            beam=asked["beam"],
            nbest=asked["beam"],
            length_penalty=asked.get("len_penalty", 1.0),
            max_len_a=0,
            max_len_b=asked["max_len_b"],
            min_len=asked.get("min_len", 1),
            ctc_weight=weight,
            lm_weight=language,
            convention="speechut" if single else "fairseq",
            blank=BLANK,
        )
        model_of_text = _language_model(case) if language else None

        def search(asked: BeamOptions, text: MappedLanguageModel | None = model_of_text) -> list[list[Hypothesis]]:
            found: list[list[Hypothesis]] = []
            assert model.decoder is not None
            for (encoded, frames), log_probs in zip(read, heard, strict=True):
                own = log_probs if asked.ctc_weight else None
                longer = None if own is None else model.ctc_frames(frames)
                found += attention_beam(model.decoder, encoded, frames, asked, text, own, ctc_lengths=longer)
            return found

        _compare(check, f"gen.{name}", search(options))
        if not language:
            never = tuple(each for each in (model.config.mask_id, model.config.blank) if each is not None)
            _compare_opened(check, f"gen.{name}", search(replace(options, never=never)), _opened(case, model, batches, asked))


def _compare(check: Check, name: str, found: Sequence[Sequence[Hypothesis]]) -> None:
    """Hypotheses of every row, as many as a case holds."""
    for row, hypotheses in enumerate(found):
        for rank, hypothesis in enumerate(hypotheses):
            key = f"{name}.utt{row}.hyp{rank}"
            check.equal(f"{key}.tokens", torch.tensor([*hypothesis.tokens, EOS]))
            check.forward(f"{key}.score", torch.tensor(hypothesis.score))
            check.forward(f"{key}.positional_scores", torch.tensor([*hypothesis.token_scores, hypothesis.components["end"]]))


def _compare_opened(check: Check, name: str, expected: Sequence[Sequence[Hypothesis]], found: Sequence[Sequence[Hypothesis]]) -> None:
    """What a model folder gives: the same, but for mask symbols and blanks, which the official code may write and ours never does."""
    for row, (theirs, ours) in enumerate(zip(expected, found, strict=True)):
        for rank, (one, other) in enumerate(zip(theirs, ours, strict=True)):
            key = f"opened {name}.utt{row}.hyp{rank}"
            check.value(f"{key}: tokens differ", float(one.tokens != other.tokens), 0.0, 0.0)
            check.value(f"{key}: score", other.score, one.score, CLOSE)


def _opened(case: Case, model: SpeechUT, batches: Sequence[Batch], asked: dict[str, Any]) -> list[Sequence[Hypothesis]]:
    """The same search as those do it who have a model folder."""
    symbols = list(case.description["dictionaries"]["target"])
    with tempfile.TemporaryDirectory() as folder:
        form = {"system": "speechut", "task": "transcription", "model": configuration.to_dict(model.config)}
        save_model(Path(folder) / "model", model, form, Vocabulary(symbols, "tokens"))
        opened: Transcriber = systems.load(Path(folder) / "model")
    weight, limit = asked.get("ctc_weight", 0.0), {"max_length_ratio": 0.0, "max_length_extra": float(asked["max_len_b"])}
    joint: dict[str, Any] = {"method": "joint", "convention": "speechut", "ctc_weight": weight} if weight else {"method": "attention"}
    further = {"length_penalty": asked.get("len_penalty", 1.0), "min_length": asked.get("min_len", 1)}
    decoding = DecodingConfig(beam=asked["beam"], nbest=asked["beam"], words=False, **limit, **further, **joint)
    return [row.hypotheses for batch in batches for row in opened.transcribe_batch(batch, decoding)]


def _language_model(case: Case) -> MappedLanguageModel:
    """The case's language model, whose dictionary has other ids."""
    arguments, names = case.description["lm_args"], case.description["dictionaries"]
    tied = bool(arguments["share_decoder_input_output_embed"])
    model = LanguageModel(
        LanguageModelConfig(
            vocabulary=len(names["lm"]),
            dim=arguments["decoder_embed_dim"],
            layers=arguments["decoder_layers"],
            heads=arguments["decoder_attention_heads"],
            feed_forward_dim=arguments["decoder_ffn_embed_dim"],
            activation=arguments["activation_fn"],
            tie_embeddings=tied,
        )
    ).eval()
    rules = [
        (r"lm\.decoder\.embed_tokens\.weight", "embedding.weight"),
        (r"lm\.decoder\.output_projection\.weight", "output.weight"),
        *((theirs, mine.removeprefix("lm.")) for theirs, mine in transformer(r"lm\.decoder", "lm")),
    ]
    left_out = ("version", "_float_tensor", *(("output_projection.weight",) if tied else ()))
    state = {key: tensor for key, tensor in case.state.items() if key.startswith("lm.") and not key.endswith(left_out)}
    load(model, {find_name(rules, key, "a language model"): tensor for key, tensor in state.items()})
    ids = [names["lm"].index(symbol) if symbol in names["lm"] else -1 for symbol in names["target"]]
    return MappedLanguageModel(model, ids, UNKNOWN)


def _prefixes(case: Case, check: Check, log_probs: Tensor) -> None:
    """Scores of a prefix that grows token by token, each with every symbol behind it."""
    check.forward("prefix.log_probs", log_probs[0])
    scorer = PrefixScorer(log_probs, torch.tensor([log_probs.shape[1]]), BLANK)
    state, rows = scorer.start(torch.tensor([0])), []
    for token in case.inputs["prefix.tokens"].tolist():
        scores = scorer.psi(state)[0]
        scores[EOS] = state.complete()[0]
        rows.append(scores.clamp(min=IMPOSSIBLE))
        state = scorer.advance(state, torch.tensor([0]), torch.tensor([token]))
    check.forward("prefix.scores", torch.stack(rows).float())


ADAPTERS = [
    (lambda case: case.official.endswith("speechut.py:SpeechutModel"), pretraining_case),
    (lambda case: case.official.endswith("speechut_asr.py:SpeechUTASR"), tuned_case),
    (lambda case: case.official.endswith("speechut_st.py:SpeechUTS2T"), tuned_case),
]
