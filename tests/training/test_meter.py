"""The meter counts utterances, seconds and operations, and parts of a loss add up to it."""

import time
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from avtlm.data.batching import Batch
from avtlm.data.inputs import InputFormat
from avtlm.objectives.loss import Loss
from avtlm.training import meter as module
from avtlm.training.meter import RATES, Meter, frames_of, seconds_of


def loss(value: float, count: float) -> Loss:
    return Loss(torch.tensor(value), torch.tensor(count))


def features(*lengths: int) -> Batch:
    audio = torch.zeros(len(lengths), max(lengths), 104)
    return Batch(tuple(f"u{row}" for row in range(len(lengths))), "audio", audio, torch.tensor(lengths))


def test_a_batch_counts_its_utterances_frames_and_seconds_without_padding() -> None:
    meter = Meter()
    meter.add_batch(features(25, 50), InputFormat())
    meter.add_batch(features(100), InputFormat())
    assert (meter.utterances, meter.frames, meter.seconds) == (3, 175, 7.0)


def test_waveforms_count_at_their_rate_and_video_alone_has_seconds_too() -> None:
    speech = InputFormat("none", None, 50.0, True, 50.0)
    wave = Batch(("a", "b"), "audio", torch.zeros(2, 32000), torch.tensor([16000, 32000]))
    assert (frames_of(wave, speech), seconds_of(wave, speech)) == (150, 3.0)
    lips = Batch(("a",), "recognition", video=torch.zeros(1, 50, 88, 88), video_lengths=torch.tensor([50]))
    assert (frames_of(lips, InputFormat()), seconds_of(lips, InputFormat())) == (50, 2.0)
    text = Batch(("a",), "text", text=torch.zeros(1, 400), text_lengths=torch.tensor([400]))
    assert (frames_of(text, InputFormat()), seconds_of(text, InputFormat())) == (100, 0.0)
    units = Batch(("a",), "units", text=torch.zeros(1, 9), text_units=torch.zeros(1, 30), text_units_lengths=torch.tensor([30]))
    assert (frames_of(units, speech), seconds_of(units, speech)) == (30, 0.0)


def test_rates_are_per_second_and_pauses_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: clock[0])
    meter = Meter()
    meter.add_batch(features(50, 50), InputFormat())
    meter.work = torch.tensor(6e9)
    clock[0] = 102.0
    before = time.perf_counter()
    clock[0] = 110.0
    meter.pause(before)
    assert meter.rates(peak=1e10) == pytest.approx(dict(zip(RATES, (50.0, 1.0, 2.0, 0.3), strict=True)))


def test_parts_add_up_to_the_loss_over_steps_and_batches() -> None:
    meter = Meter()
    total = 0.0
    for masked, penalty, count in ((6.0, 2.0, 4.0), (9.0, 3.0, 2.0)):
        groups = [{"masked": loss(masked, count), "penalty": loss(penalty, 0.0)}, {"masked": loss(1.0, 1.0), "penalty": loss(0.5, 0.0)}]
        step = torch.tensor(count + 1)
        meter.add_parts(groups, step, True)
        meter.add_value("loss", (masked + penalty + 1.5) / step)
        total += (masked + penalty + 1.5) / float(step)
    means = meter.means()
    assert means["part/masked"] + means["part/penalty"] == pytest.approx(means["loss"])
    assert means["loss"] == pytest.approx(total / 2)


def test_a_loss_of_one_part_has_no_line_for_it() -> None:
    meter = Meter()
    meter.add_parts([{"recognition": loss(3.0, 2.0)}], torch.tensor(2.0), True)
    assert meter.means() == {}


def test_meters_of_several_processes_add_up() -> None:
    meters = []
    for first in (True, False):
        meter = Meter()
        meter.add_parts([{"masked": loss(6.0, 3.0), "penalty": loss(2.0, 0.0)}], torch.tensor(8.0), first)
        meter.add_batch(features(25, 25), InputFormat())
        meter.work = 5.0
        meters.append(meter)

    def gather(own: Any) -> list[Any]:
        others = [({name: (float(n), float(d)) for name, (n, d) in meters[1].sums.items()}, 50, 2, 2.0, 5.0)]
        return [own, *others]

    total = meters[0].merged(SimpleNamespace(several=True, gather=gather))  # type: ignore[arg-type]
    assert total.means() == pytest.approx({"part/masked": 12 / 8, "part/penalty": 4 / 8})
    assert (total.utterances, total.frames, total.seconds, total.work) == (4, 100, 4.0, 10.0)


def test_the_note_says_how_fast_a_run_goes() -> None:
    line = {"loss": 2.345, "audio/masked_accuracy": 0.5, "utterances_per_second": 12.34, "audio_seconds_per_second": 45.2}
    assert (
        Meter.note(line | {"device_utilisation": 0.314}) == "loss 2.35, accuracy 0.50, 12.3 utterances/s, 45.2 s of audio/s, 31 % of peak"
    )
    assert Meter.note(line | {"audio_seconds_per_second": 7200.0}).endswith("2 h of audio/s")
    assert Meter.note({"loss": 1.0, "utterances_per_second": 3.0, "audio_seconds_per_second": 0.0}) == "loss 1, 3 utterances/s"
