"""How fast is a training step of VATLM, forward and backward, on lips, sound and text as long as those of real corpora?

    python -m benchmarks.train_step_vatlm [--json FILE] [--size base|quick|tiny] [--threads 2] [--device cuda] [--lengths lrs3]

A step has one batch each of lips with sound, of sound with phones and of phones alone, made of the same clips. The same clips make batches
in three ways: at random and padded as in the official code, which computes padding in the front-ends and the encoder; in buckets of similar
lengths, padded; and in buckets of which only true frames are computed. All are timed in turn, batch by batch, and medians are added up, so
that a busy machine slows all alike. The share of the matrix rate counts useful operations, those over true frames, whoever computes more.
No public library has this model to compare with; modality dropout, which would skip half of the lips, and dropped layers are left out.
"""

import argparse
import json
import platform
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from avtlm.data.batching import Batch, pad
from avtlm.files import write_text
from avtlm.frontends.filterbank import FRAME_RATE
from avtlm.frontends.lips import LipEncoderConfig
from avtlm.frontends.multimodal import FrontEndConfig, InputMask
from avtlm.nn.transformer import EncoderConfig
from avtlm.objectives.masking import SpanMaskConfig, imposters, span_mask
from avtlm.systems.vatlm import VATLM, VATLMConfig
from avtlm.training.flops import UsefulWork
from benchmarks.made_clips import LENGTHS, UNITS, bucketed
from benchmarks.train_step import hardware, matrix_rate, now, prepare

# What of the published size is left: width, layers, heads, widths of the lip encoder, side of the crops, and the factor on lengths.
SIZES = {
    "base": (768, 12, 12, (64, 128, 256, 512), 88, 1.0),
    "quick": (384, 4, 6, (32, 64, 128, 256), 88, 0.5),
    "tiny": (32, 2, 4, (4, 4, 8, 8), 44, 0.2),
}
PHONES = 46
KINDS = ("audio_video", "audio_text", "text")
Part = tuple[Batch, InputMask]


@dataclass(frozen=True)
class Clip:
    """Lips, sound and phones of one length at 25 Hz, with the units of its frames and what is hidden of each input."""

    audio: Tensor
    video: Tensor
    text: Tensor
    units: Tensor
    hidden_audio: Tensor
    hidden_video: Tensor
    stand_in: Tensor
    hidden_text: Tensor


@dataclass(frozen=True)
class Way:
    """A model, and how it gets its batches."""

    name: str
    order: str
    model: VATLM


def vatlm_config(size: str, dropout: float, official: bool = False) -> VATLMConfig:
    """VATLM base, or less of it; ``official`` computes padding everywhere."""
    dim, layers, heads, widths, side, _ = SIZES[size]
    lips = LipEncoderConfig(size=side, stem_channels=widths[0], widths=widths)
    encoder = EncoderConfig(
        dim=dim,
        layers=layers,
        heads=heads,
        feed_forward_dim=4 * dim,
        norm_first=True,
        dropout=dropout,
        attention_dropout=dropout,
        layer_drop=0.0,
        compute_padding=official,
        packing="never" if official else "auto",
    )
    frontends = FrontEndConfig(lips=lips, phones=PHONES, dropout=dropout, compute_padding=official)
    return VATLMConfig(units=UNITS, frontends=frontends, encoder=encoder)


def make_clips(seconds: Tensor, config: VATLMConfig, generator: torch.Generator) -> list[Clip]:
    """Noise, random units and phones, and the masks of a clip on its own, so that its loss is the same in any batch."""
    clips = []
    side = config.frontends.lips.size
    for frames in (seconds * FRAME_RATE).long().clamp(min=8).tolist():
        length = torch.tensor([frames])

        def hide(spans: SpanMaskConfig, length: Tensor = length, frames: int = frames) -> Tensor:
            return span_mask(length, frames, replace(spans, min_spans=1), generator, False)

        video = hide(config.video_mask)
        clips.append(
            Clip(
                audio=torch.randn(frames, config.frontends.audio_dim, generator=generator),
                video=torch.randint(0, 256, (frames, side, side), generator=generator, dtype=torch.uint8),
                text=torch.randint(0, PHONES, (4 * frames,), generator=generator),
                units=torch.randint(0, UNITS, (frames,), generator=generator),
                hidden_audio=hide(config.audio_mask)[0],
                hidden_video=video[0],
                stand_in=imposters(video, generator)[0],
                hidden_text=hide(config.text_mask)[0],
            )
        )
    return clips


def collate(clips: Sequence[Clip], device: str) -> list[Part]:
    """The three padded batches of a step and their masks."""
    ids = tuple(f"clip {row}" for row in range(len(clips)))
    audio, lengths = pad([clip.audio for clip in clips])
    video = pad([clip.video for clip in clips])[0]
    text, text_lengths = pad([clip.text for clip in clips])
    units = {"units": pad([clip.units for clip in clips], -1)[0]}
    counts = {"units": lengths}
    hidden = pad([clip.hidden_audio for clip in clips])[0]
    stand_in = pad([clip.stand_in for clip in clips])[0]
    lips = InputMask(audio=hidden, video=pad([clip.hidden_video for clip in clips])[0], video_source=stand_in)
    both = {"targets": units, "target_lengths": counts}
    parts = [
        (Batch(ids, KINDS[0], audio=audio, audio_lengths=lengths, video=video, video_lengths=lengths, **both), lips),
        (Batch(ids, KINDS[1], audio=audio, audio_lengths=lengths, text=text, text_lengths=text_lengths, **both), InputMask(audio=hidden)),
        (
            Batch(ids, KINDS[2], text=text, text_lengths=text_lengths, **both),
            InputMask(fused=pad([clip.hidden_text for clip in clips])[0]),
        ),
    ]
    return [(batch.to(device), mask.to(device)) for batch, mask in parts]


def step(model: VATLM, parts: Sequence[Part], precision: str, device: str, clock: str) -> tuple[list[float], float]:
    """Seconds of each kind of batch, forward and backward, and on a GPU the peak of its memory in GB."""
    model.train()
    seconds = []
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    for batch, mask in parts:
        model.zero_grad(set_to_none=True)
        start = now(device, clock)
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            losses = model.masked_losses(batch, mask)
        total = torch.stack([loss.value for loss in losses.values()]).sum()
        (total / losses["masked_prediction"].count).backward()
        seconds.append(now(device, clock) - start)
    model.zero_grad(set_to_none=True)
    return seconds, torch.cuda.max_memory_allocated() / 1e9 if device == "cuda" else 0.0


def useful_flops(model: VATLM, plan: Sequence[Sequence[Part]]) -> list[float]:
    """Useful operations of a step over all batches, by kind."""
    work = UsefulWork(model)
    found = [0.0] * len(KINDS)
    model.train()
    for parts in plan:
        for kind, (batch, mask) in enumerate(parts):
            with work.counting(batch.to("cpu")):
                model.masked_losses(batch, mask)
            found[kind] += float(work.take())
    work.remove()
    return found


def mean_loss(model: VATLM, plan: Sequence[Sequence[Part]]) -> float:
    """The mean cross-entropy of all hidden frames, without dropout and with the norms' running statistics."""
    model.eval()
    with torch.no_grad():
        losses = [model.masked_losses(*part)["masked_prediction"] for parts in plan for part in parts]
    return float(sum(loss.value for loss in losses) / sum(loss.count for loss in losses))


def compare(options: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    """All figures, for the tables and the file."""
    generator = torch.Generator().manual_seed(options.seed)
    torch.manual_seed(options.seed)
    config = vatlm_config(options.size, options.dropout)
    model, official = VATLM(config), VATLM(vatlm_config(options.size, options.dropout, official=True))
    official.load_state_dict(model.state_dict())
    model.to(options.device)
    official.to(options.device)
    ways = [
        Way("random, padded", "random", official),
        Way("bucketed, padded", "bucketed", official),
        Way("bucketed, packed", "bucketed", model),
    ]
    results: list[dict[str, Any]] = []
    checks: dict[str, float] = {}
    rates: dict[str, list[float]] = {name: [] for name in options.precision}
    for lengths in options.lengths:
        rows = options.rows or LENGTHS[lengths].rows
        clips = make_clips(LENGTHS[lengths].draw(rows * options.batches, generator) * SIZES[options.size][5], config, generator)
        orders = {
            "random": [list(range(start, start + rows)) for start in range(0, len(clips), rows)],
            "bucketed": bucketed(clips, rows, generator),
        }
        plans = {name: [collate([clips[row] for row in each], options.device) for each in order] for name, order in orders.items()}
        found = [mean_loss(way.model, plans[way.order]) for way in ways]
        checks[lengths] = (max(found) - min(found)) / abs(found[0])
        flops = useful_flops(model, plans["bucketed"])
        times: dict[tuple[str, str, int], list[list[float]]] = {}
        peaks: dict[tuple[str, str], float] = {}
        for repeat in range(-1, options.repeats):
            say(f"{lengths}: round {repeat + 1} of {options.repeats}")
            for precision in options.precision:
                rates[precision].append(matrix_rate(precision, options.device, options.matrix, options.clock))
            for number in range(options.batches if repeat >= 0 else 1):
                for way in ways:
                    for precision in options.precision:
                        seconds, peak = step(way.model, plans[way.order][number], precision, options.device, options.clock)
                        peaks[way.name, precision] = max(peak, peaks.get((way.name, precision), 0.0))
                        if repeat >= 0:
                            times.setdefault((way.name, precision, number), []).append(seconds)
        seconds_of_video = sum(len(clip.units) for clip in clips) / FRAME_RATE
        for precision in options.precision:
            rate = statistics.median(rates[precision])
            for way in ways:
                by_kind = [
                    sum(statistics.median(each[kind] for each in times[way.name, precision, number]) for number in range(options.batches))
                    for kind in range(len(KINDS))
                ]
                places = sum(parts[0][0].targets["units"].numel() for parts in plans[way.order])
                results.append(
                    {
                        "lengths": lengths,
                        "batches": way.name,
                        "precision": precision,
                        "seconds": sum(by_kind),
                        "seconds_by_kind": dict(zip(KINDS, by_kind, strict=True)),
                        "video_seconds_per_second": seconds_of_video / sum(by_kind),
                        "padding": 1.0 - sum(len(clip.units) for clip in clips) / places,
                        "useful_flops": dict(zip(KINDS, flops, strict=True)),
                        "share_of_matrix_rate": sum(flops) / sum(by_kind) / rate,
                        **({"peak_memory_gb": peaks[way.name, precision]} if options.device == "cuda" else {}),
                    }
                )
    matrix = {name: statistics.median(each) for name, each in rates.items()}
    return {"results": results, "largest_relative_difference_of_losses": checks, "matrix_rate": matrix}


def tables(report: dict[str, Any]) -> list[Table]:
    """The figures by lengths."""
    found = []
    for lengths in dict.fromkeys(line["lengths"] for line in report["results"]):
        lines = [line for line in report["results"] if line["lengths"] == lengths]
        table = Table(title=f"VATLM, lengths like those of {lengths}", title_justify="left")
        for heading in ("precision", "batches"):
            table.add_column(heading)
        kinds = ("lips + sound", "sound + text", "text")
        for heading in ("padding", "seconds", *kinds, "video s / s", "x random", "of matrix rate", "peak GB"):
            table.add_column(heading, justify="right")
        for line in lines:
            first = next(each for each in lines if each["precision"] == line["precision"])
            peak = f"{line['peak_memory_gb']:.2f}" if "peak_memory_gb" in line else ""
            table.add_row(
                *(line["precision"], line["batches"], f"{line['padding']:.0%}", f"{line['seconds']:.3f}"),
                *(f"{line['seconds_by_kind'][kind]:.3f}" for kind in KINDS),
                *(f"{line['video_seconds_per_second']:.1f}", f"{first['seconds'] / line['seconds']:.2f}"),
                *(f"{line['share_of_matrix_rate']:.0%}", peak),
            )
        found.append(table)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.train_step_vatlm", description="Time a training step of VATLM.")
    options = prepare(parser, arguments, lengths=["lrs3"], batches=2, repeats=2)
    console = Console()
    report = {
        "command": " ".join(["python -m benchmarks.train_step_vatlm", *(sys.argv[1:] if arguments is None else arguments)]),
        "hardware": hardware(options.device),
        **compare(options, lambda line: console.print(line, style="dim", highlight=False)),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in ("torch", "avtlm")}},
    }
    for table in tables(report):
        console.print(table)
    for lengths, apart in report["largest_relative_difference_of_losses"].items():
        console.print(f"{lengths}: losses of padded and packed batches differ by {apart:.1e} (relative).", highlight=False)
    if options.json is not None:
        write_text(options.json, json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
