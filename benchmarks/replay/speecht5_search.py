"""Cases of SpeechT5's beam search: attention alone, with CTC, with a language model; also as those search who have a model folder."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from avtlm import config, systems
from avtlm.checkpoint import save_model
from avtlm.data.batching import Batch
from avtlm.decoding.beam import BeamOptions, attention_beam
from avtlm.decoding.settings import DecodingConfig
from avtlm.systems.speecht5 import SpeechT5Config
from avtlm.text.vocabulary import EOS, SPACE, Vocabulary
from avtlm.text.vocabulary import SPECIALS as SPECIAL_SYMBOLS
from avtlm.transcriber import Transcriber
from benchmarks.replay.case import Case, CaseError, Check
from benchmarks.replay.decoding import TableLanguageModel
from benchmarks.replay.speech_encoders import batch_of
from benchmarks.replay.speecht5 import Given, prepare

# What a search may be asked for that a model folder's search has no setting for, or counts otherwise.
RARE = {"normalize_scores", "temperature", "unk_penalty", "no_repeat_ngram_size", "max_len_a"}


def search_case(case: Case, check: Check) -> None:
    given = prepare(case)
    model, bound = given.model, case.bound("scores")
    language = TableLanguageModel(case.inputs["lm.bigram_logits"]) if "lm.bigram_logits" in case.inputs else None
    whole, lengths = case.inputs["source"], given.batch.audio_lengths
    assert lengths is not None
    alone = [batch_of(row[None, :length], None) for row, length in zip(whole, lengths.tolist(), strict=True)]
    read = [model.encode(batch) for batch in alone]
    with torch.no_grad():
        ctc = [model.ctc_logits(encoded).log_softmax(-1) for encoded, _ in read]
    for row, log_probs in enumerate(ctc):
        check.forward(f"ctc_log_probs.utt{row}", log_probs[0])
    searches(case, check, model.decoder, read, ctc, model.encode(given.batch), language, bound, model.config.blank, (model.config.mask_id,))
    opened_searches(given, check, alone, bound)


def opened_searches(given: Given, check: Check, alone: Sequence[Batch], bound: float) -> None:
    """Every search without a language model once more, as those do it who have a model folder."""
    case, settings = given.case, given.config
    symbols = [SPACE if symbol == "\u2581" else symbol for symbol in case.config["text_symbols"]]
    vocabulary = Vocabulary([*SPECIAL_SYMBOLS, *symbols, *SpeechT5Config.further_symbols])
    with tempfile.TemporaryDirectory() as folder:
        form = {"system": "speecht5", "task": "transcription", "model": config.to_dict(settings)}
        save_model(Path(folder) / "model", given.model, form, vocabulary)
        opened: Transcriber = systems.load(Path(folder) / "model")
    for name, asked in case.config["gen"].items():
        if asked.get("lm_weight") or asked.keys() & RARE:
            continue
        weight, beam = asked.get("ctc_weight", 0.0), asked["beam"]
        shared: dict[str, Any] = {"max_length_ratio": 0.0, "max_length_extra": float(asked["max_len_b"]), "words": False}
        shared |= {"length_penalty": asked.get("len_penalty"), "min_length": asked.get("min_len")}
        joint: dict[str, Any] = {"method": "joint", "convention": "speecht5", "ctc_weight": weight} if weight else {"method": "attention"}
        decoding = DecodingConfig(beam=beam, nbest=beam, **shared, **joint)
        batches = alone if asked.get("single", True) else [given.batch]
        found = [result.hypotheses for batch in batches for result in opened.transcribe_batch(batch, decoding)]
        for row, hypotheses in enumerate(found):
            for rank, hypothesis in enumerate(hypotheses):
                key = f"{name}.utt{row}.hyp{rank}"
                if f"{key}.tokens" not in case.outputs:
                    continue  # a case holds the best ones
                same = case.outputs[f"{key}.tokens"].tolist() == [*hypothesis.tokens, EOS]
                check.value(f"opened {key}: tokens differ", float(not same), 0.0, 0.0)
                check.value(f"opened {key}: score", hypothesis.score, float(case.outputs[f"{key}.score"]), bound)


def searches(
    case: Case,
    check: Check,
    decoder: Any,
    read: list[tuple[Tensor, Tensor]],
    ctc: list[Tensor],
    together: tuple[Tensor, Tensor],
    language: TableLanguageModel | None,
    bound: float,
    blank: int,
    never: tuple[int, ...],
) -> None:
    """Every search of a case, one utterance at a time or the batch as it is."""
    for name, asked in case.config["gen"].items():
        asked = dict(asked)
        single = asked.pop("single", True)
        options = BeamOptions(
            beam=asked.pop("beam"),
            nbest=case.config["gen"][name]["beam"],
            length_penalty=asked.pop("len_penalty", 1.0),
            normalize=asked.pop("normalize_scores", True),
            temperature=asked.pop("temperature", 1.0),
            unk_penalty=asked.pop("unk_penalty", 0.0),
            no_repeat_ngram=asked.pop("no_repeat_ngram_size", 0),
            max_len_a=asked.pop("max_len_a", 0),
            max_len_b=asked.pop("max_len_b"),
            min_len=asked.pop("min_len", 1),
            ctc_weight=asked.pop("ctc_weight", 0.0),
            lm_weight=asked.pop("lm_weight", 0.0),
            convention="speecht5",
            blank=blank,
            never=never,
        )
        if asked:
            raise CaseError(f"case.json: config.gen.{name} asks for {', '.join(asked)}, which is not replayed.")
        model = language if options.lm_weight else None
        if single:
            found = [attention_beam(decoder, *each, options, model, heard)[0] for each, heard in zip(read, ctc, strict=True)]
        else:
            found = attention_beam(decoder, *together, options, model)
        for row, hypotheses in enumerate(found):
            key = f"{name}.utt{row}"
            check.equal(f"{key}.n_hyp", len(hypotheses))
            for rank, hypothesis in enumerate(hypotheses):
                check.equal(f"{key}.hyp{rank}.tokens", torch.tensor([*hypothesis.tokens, EOS]))
                check.close(f"{key}.hyp{rank}.score", torch.tensor(hypothesis.score), bound)
                parts = torch.tensor([*hypothesis.token_scores, hypothesis.components["end"]])
                check.close(f"{key}.hyp{rank}.positional_scores", parts, bound)


ADAPTERS = [(lambda case: "sequence_generator" in case.official and "T5TransformerModel" in case.official, search_case)]
