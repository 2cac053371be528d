"""MMSpeech of a few thousand parameters, and batches for it."""

from dataclasses import replace
from typing import Any

import torch

from avtlm.data.batching import Batch, pad
from avtlm.nn.biased_decoder import BiasedDecoderConfig
from avtlm.nn.transformer import EncoderConfig
from avtlm.objectives.masking import SpanMaskConfig
from avtlm.systems.mmspeech import FIRST_PHONE, MMSpeech, MMSpeechConfig
from avtlm.text.vocabulary import EOS, PAD

MMSPEECH = MMSpeechConfig(
    encoder=EncoderConfig(
        dim=16, layers=4, heads=2, feed_forward_dim=16, dropout=0.0, attention_dropout=0.0, layer_drop=0.0, position_kernel=0
    ),
    decoder=BiasedDecoderConfig(
        dim=16, layers=2, heads=2, feed_forward_dim=16, dropout=0.0, max_positions=40, distance_buckets=4, drop_path=0.0
    ),
    speech_layers=2,
    position_kernel=9,
    position_groups=4,
    position_blocks=3,
    vocabulary=12,
    codes=7,
    phones=9,
    spare_phones=2,
    mask=SpanMaskConfig(prob=0.5, length=2, min_spans=1),
    paired_mask=SpanMaskConfig(prob=0.3, length=2, min_spans=1),
)
SAMPLES = (6400, 4000, 5200)


def mmspeech(**changes: Any) -> MMSpeech:
    """In evaluation mode; parameters off their start values, so that leaving one out shows."""
    model = MMSpeech(replace(MMSPEECH, **changes))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def _sound(rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return pad([0.3 * torch.randn(samples, generator=generator) for samples in SAMPLES[:rows]])


def _ids(sizes: list[int], low: int, high: int, seed: int = 2) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(low, high, (size,), generator=generator) for size in sizes]


def pairs(rows: int = 3) -> Batch:
    """Speech with transcripts and phonemes."""
    audio, lengths = _sound(rows)
    tokens, counts = pad(_ids([4, 2, 3][:rows], 4, 10), PAD)
    phones, phone_counts = pad(_ids([3, 2, 3][:rows], FIRST_PHONE, FIRST_PHONE + 9), PAD)
    names = tuple(f"pair {row}" for row in range(rows))
    targets, numbers = {"tokens": tokens, "phones": phones}, {"tokens": counts, "phones": phone_counts}
    return Batch(names, "recognition", audio, lengths, targets=targets, target_lengths=numbers)


def speech(rows: int = 3) -> Batch:
    """Speech with units."""
    audio, lengths = _sound(rows)
    units, _ = pad(_ids([20, 12, 16][:rows], FIRST_PHONE, FIRST_PHONE + 7), -1)
    return Batch(tuple(f"clip {row}" for row in range(rows)), "speech", audio, lengths, targets={"units": units})


def texts(rows: int = 3) -> Batch:
    """Phonemes of texts, and the texts."""
    ends = torch.tensor([EOS])
    phones, counts = pad([torch.cat([row, ends]) for row in _ids([7, 4, 9][:rows], FIRST_PHONE, FIRST_PHONE + 9)], PAD)
    text, lengths = pad(_ids([3, 2, 4][:rows], 4, 10), PAD)
    names = tuple(f"text {row}" for row in range(rows))
    return Batch(names, "units", text=text, text_lengths=lengths, text_units=phones, text_units_lengths=counts)
