"""Cases of the data code that SpeechLM and SpeechUT share: batches and masks."""

import torch
from torch import Tensor

from avtlm.data.spoken import Utterance, collate, crop, crop_size
from avtlm.nn.attention import padding_mask
from avtlm.objectives.masking import SpanMaskConfig, span_mask
from avtlm.objectives.seq2seq import shift_right
from avtlm.systems.speech2c import without_repeats
from avtlm.text.vocabulary import EOS, PAD
from benchmarks.replay.case import Case, Check
from benchmarks.replay.preparation import LegacyDraws


def collate_case(case: Case, check: Check) -> None:
    for name, asked in case.description["subcases"].items():
        inputs, count = case.inputs, len(asked["lens"])
        waves = [inputs[f"{name}.source{row}"] for row in range(count)]
        labels = [inputs[f"{name}.label{row}"] for row in range(count)]
        # Letters have no rate: they are targets as they are.
        rate, padded = asked["label_rates"][0], asked["pad_audio"]
        framed = rate > 0
        rows = [
            Utterance(f"row {row}", wave, units=label if framed else None, tokens=None if framed else label)
            for row, (wave, label) in enumerate(zip(waves, labels, strict=True))
        ]
        size = crop_size([len(wave) for wave in waves], asked["max_sample_size"] or max(map(len, waves)), padded)
        starts = iter(inputs[f"{name}.crop_starts"].tolist() if f"{name}.crop_starts" in inputs else [])
        rows = crop(rows, [next(starts, 0) if len(wave) > size else 0 for wave in waves], size, rate if framed else 50.0, padded)
        batch = collate(rows, "speech")
        assert batch.audio is not None
        assert batch.audio_lengths is not None
        kind = "units" if framed else "tokens"
        target, lengths = batch.targets[kind], batch.target_lengths[kind]
        target = target.masked_fill(padding_mask(lengths, target.shape[1]), PAD)
        check.equal(f"{name}.source", batch.audio)
        check.equal(f"{name}.padding_mask", padding_mask(batch.audio_lengths, batch.audio.shape[1]))
        check.equal(f"{name}.target", target)
        check.equal(f"{name}.target_lengths", lengths)
        if asked["dec"]:
            written = without_repeats(target) if framed else ended(target, lengths)
            check.equal(f"{name}.decoder_target", written)
            check.equal(f"{name}.decoder_target_lengths", (written != PAD).sum(1))
            check.equal(f"{name}.prev_output_tokens", shift_right(written, EOS, PAD))


def ended(letters: Tensor, counts: Tensor) -> Tensor:
    """Letters (batch, symbols) with the end symbol behind them."""
    return torch.cat([letters, letters.new_full((len(letters), 1), PAD)], 1).scatter(1, counts[:, None], EOS)


def mask_case(case: Case, check: Check) -> None:
    for name, asked in case.description["subcases"].items():
        rows, frames = asked["shape"]
        padding = case.inputs.get(f"{name}.padding_mask")
        settings = SpanMaskConfig(
            prob=asked["mask_prob"],
            length=asked["mask_length"],
            min_spans=asked["min_masks"],
            lengths=asked.get("mask_type", "static"),
            spread=float(asked.get("mask_other", 0.0)),
            overlap=not asked.get("no_overlap", False),
            min_space=asked.get("min_space", 1),
        )
        lengths = torch.full((rows,), frames) if padding is None else (~padding.bool()).sum(1)
        mask = span_mask(lengths, frames, settings, LegacyDraws(asked["numpy_seed"], padding is not None))
        check.equal(f"{name}.mask", mask)
        check.value(f"{name}: masked per row", float((mask.sum(1) != torch.tensor(asked["masked_per_row"])).sum()), 0.0, 0.0)


ADAPTERS = [
    (lambda case: "HubertDataset.collater" in case.official and "SpeechLM" in case.official, collate_case),
    (lambda case: "compute_mask_indices" in str(case.description.get("official", "")), mask_case),
]
