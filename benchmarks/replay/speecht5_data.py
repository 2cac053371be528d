"""Cases of SpeechT5's data code: batches, log mel spectrograms, holes in texts; and the vocoder of transformers."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from avtlm.convert.names.speecht5 import VOCODER_RULES
from avtlm.convert.names.transformer import find_name
from avtlm.convert.options import Options
from avtlm.convert.options.speecht5 import NUMBERED, vocoder
from avtlm.data.batching import Batch
from avtlm.data.spoken import Utterance, collate, crop, crop_size
from avtlm.frontends.mel import log_mel, mel_bands
from avtlm.nn.attention import padding_mask
from avtlm.nn.spectrogram import shift_frames
from avtlm.nn.vocoder import Vocoder
from avtlm.objectives.infilling import AFTER_MASK, InfillingConfig, infill, span_probabilities
from avtlm.objectives.seq2seq import shift_right
from avtlm.text.vocabulary import EOS, PAD
from benchmarks.replay.case import Case, CaseError, Check
from benchmarks.replay.speech_encoders import SPECIALS, load

# Holes of single words, instead of spans with Poisson lengths.
SINGLE = {"span-poisson": False, "word": True, "subword": True}
SILENCE = 2048  # samples, of which a case keeps the result alone


def batches_case(case: Case, check: Check) -> None:
    config, inputs = case.config, case.inputs
    for part, task, sizes in (
        ("pretrain", "pretrain", "lens"),
        ("tts", "generation", "text"),
        ("vc", "generation", "src"),
        ("asr", "recognition", "src"),
    ):
        if {"pretrain": "pre"}.get(part, part) not in config:
            continue
        settings = config[{"pretrain": "pre"}.get(part, part)]
        rows = [_utterance(inputs, part, row) for row in range(len(settings[sizes]))]
        whole = rows
        if part == "pretrain":
            padded = settings.get("pad", False)
            samples = [len(row.wave) for row in rows if row.wave is not None]
            size = crop_size(samples, settings["max"], padded)
            # The case gives starts for the rows that have to be cut, in their order.
            given = iter(inputs["pretrain.crop_starts"].tolist() if "pretrain.crop_starts" in inputs else [])
            rows = crop(rows, [next(given) if length > size else 0 for length in samples], size, padded=padded)
        _batch(check, part, collate(rows, task), whole, config["r"])


def _utterance(inputs: dict[str, Tensor], part: str, row: int) -> Utterance:
    text = inputs.get(f"{part}.text_{row}")
    writes = part == "asr"
    return Utterance(
        str(row),
        wave=inputs.get(f"{part}.source_{row}"),
        text=None if writes else text,
        tokens=text if writes else None,
        units=inputs.get(f"{part}.label_{row}"),
        mel=inputs.get(f"{part}.fbank_{row}"),
        voice=inputs.get(f"{part}.spk_{row}"),
    )


def _batch(check: Check, part: str, batch: Batch, whole: Sequence[Utterance], reduction: int) -> None:
    check.equal(f"{part}.id", torch.tensor([int(name) for name in batch.ids]))
    if batch.audio is not None:
        assert batch.audio_lengths is not None
        check.equal(f"{part}.source", batch.audio)
        check.equal(f"{part}.padding_mask", padding_mask(batch.audio_lengths, batch.audio.shape[1]))
        check.equal(f"{part}.src_lengths", batch.audio_lengths)
        if part == "vc":
            check.equal(f"{part}.ntokens", batch.audio_lengths.sum())
    if batch.text is not None:
        assert batch.text_lengths is not None
        check.equal(f"{part}.src_tokens", batch.text)
        check.equal(f"{part}.src_lengths", batch.text_lengths)
        check.equal(f"{part}.ntokens", batch.text_lengths.sum())
    if "units" in batch.targets:
        units = batch.targets["units"]
        check.equal(f"{part}.target_list.0", units.masked_fill(units < 0, PAD))  # ours are padded with -1
        check.equal(f"{part}.target_lengths_list.0", batch.target_lengths["units"])
        check.equal(f"{part}.ntokens_list", batch.target_lengths["units"].sum()[None])
    if "mel" in batch.targets:
        mel, lengths = batch.targets["mel"], batch.target_lengths["mel"]
        frames = torch.tensor([len(row.mel) for row in whole if row.mel is not None])
        # The official code marks the end of what there was before the crop; our loss takes the last frame that it compares.
        check.equal(f"{part}.labels", padding_mask(frames - 1, mel.shape[1]).float())
        check.equal(f"{part}.dec_target", mel)
        check.equal(f"{part}.target", mel)
        check.equal(f"{part}.dec_target_lengths", lengths)
        check.equal(f"{part}.prev_output_tokens", shift_frames(mel, reduction))
        check.equal(f"{part}.tgt_lengths", torch.div(lengths, reduction, rounding_mode="floor"))
        check.equal(f"{part}.spkembs", batch.targets["voice"])
    if "tokens" in batch.targets:
        tokens, lengths = batch.targets["tokens"], batch.target_lengths["tokens"]
        ended = torch.cat([tokens, tokens.new_full((len(tokens), 1), PAD)], 1).scatter(1, lengths[:, None], EOS)
        check.equal(f"{part}.target", ended)
        check.equal(f"{part}.target_lengths", lengths + 1)
        check.equal(f"{part}.ntokens", lengths.sum())
        check.equal(f"{part}.prev_output_tokens", shift_right(ended, EOS, PAD))


def mel_case(case: Case, check: Check) -> None:
    bound = case.bound("float")
    for name, wave in case.inputs.items():
        number = name.removeprefix("wave_")
        found = log_mel(wave)
        check.close(f"logmel_{number}", found, bound)
        check.close(f"hf_logmel_{number}", found, bound)
    check.close("logmel_silence", log_mel(torch.zeros(SILENCE)), bound)
    check.close("mel_basis", mel_bands(), bound)


# Holes in texts -------------------------------------------------------------------------------------------------------------------------


@dataclass
class StoredDraws:
    """Draws in the order in which a case holds them."""

    inputs: dict[str, Tensor]
    prefix: str
    seed: int = 0
    number: int = field(default=0)

    def _next(self, kind: str) -> Tensor:
        name = f"{self.prefix}.draw{self.number}.{kind}"
        if name not in self.inputs:
            raise CaseError(f"inputs.safetensors: no {name}; the official code drew something else next.")
        self.number += 1
        return self.inputs[name]

    def spans(self, count: int) -> list[int]:
        del count
        lengths: list[int] = self._next("lengths").tolist()
        return lengths

    def order(self, count: int) -> list[int]:
        del count
        order: list[int] = self._next("perm").tolist()
        return order

    def uniform(self, count: int) -> list[float]:
        del count
        numbers: list[float] = self._next("uniform").tolist()
        return numbers

    def tokens(self, count: int) -> list[int]:
        del count
        numbers: list[int] = self._next("randint").tolist()
        return numbers

    def turn(self, chance: float, count: int) -> int:
        """Numpy draws this, anew from the seed of each example."""
        state = np.random.RandomState(self.seed)
        return int(state.randint(1, count + 1)) if state.random_sample() < chance else 0


def infilling_case(case: Case, check: Check) -> None:
    for number, example in enumerate(case.config["examples"]):
        options = Options({**case.config.get("defaults", {}), **example}, f"case.json: config.examples.{number}")
        options.take("len", 0)
        whole, single = options.take("whole", False), options.choose("mask_length", "span-poisson", SINGLE)
        traces: dict[int, Any] = {1: "span", -1: "tokens", 0: "nothing"}
        config = InfillingConfig(
            options.take("mask", 0.3),
            options.take("poisson_lambda", 3.5) * (not single),
            options.take("mask_random", 0.1),
            traces[options.take("replace_length", 1)],
            options.take("insert", 0.0),
            options.take("permute_sentences", 0.0),
            rotated=options.take("rotate", 0.0),
            numbered=NUMBERED if options.take("iid", False) else 0,
        )
        options.finish()
        key = f"ex{number}"
        tokens = case.inputs[f"{key}.tokens"]
        names = (f"{key}.word_start_by_id", "word_start_by_id")
        words = next((case.inputs[name] for name in names if name in case.inputs), None) if whole else None
        if whole and words is None:
            raise CaseError(f"inputs.safetensors: no {' or '.join(names)}, by which example {number} knows words.")
        begins = None if words is None else words[tokens].bool().tolist()
        # <mask> and CTC's blank are the last symbols of the dictionary, but for mask symbols with numbers.
        size = case.config["V"]
        mask = size - AFTER_MASK - (config.numbered if size > config.numbered + AFTER_MASK + SPECIALS else 0)
        numbers = case.inputs.get(f"{key}.uni_mask_idxs", case.inputs.get("uni_mask_idxs"))
        draws = StoredDraws(case.inputs, key, int(hash((case.config.get("seed", 1), 0, 0)) % 1e6))
        pair = infill(tokens.tolist(), mask, config, draws, begins)
        for name, found in zip(("source", "target"), map(torch.tensor, pair), strict=True):
            numbered = found >= mask + AFTER_MASK
            if config.numbered and numbers is not None:
                found = found.masked_scatter(numbered, numbers[(found - mask - AFTER_MASK)[numbered]])
            check.equal(f"{key}.{name}", found)
        if not single:
            check.close(f"{key}.poisson_probs", span_probabilities(config.mean_span), case.bound("float"))


# Vocoder --------------------------------------------------------------------------------------------------------------------------------


def vocoder_case(case: Case, check: Check) -> None:
    options = Options(case.config["cfg"], "case.json: config.cfg")
    model = Vocoder(vocoder(options)).eval()
    options.finish()
    load(model, {find_name(VOCODER_RULES, key, "SpeechT5HifiGan"): tensor for key, tensor in case.state.items()})
    mel = case.inputs["spectrogram"]
    with torch.no_grad():
        check.forward("waveform_batch", model(mel))
        check.forward("waveform_single", model(mel[-1:])[0])  # the case takes the last row alone


ADAPTERS = [
    (lambda case: case.official.startswith("collater methods of Speech"), batches_case),
    (lambda case: "logmelfilterbank" in case.official, mel_case),
    (lambda case: "TextPretrainDataset" in case.official, infilling_case),
    (lambda case: case.official == "transformers.SpeechT5HifiGan", vocoder_case),
]
