"""A plan's figures are those of the real model, and follow from each other."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from avtlm import cli, config
from avtlm.data.batching import Batch
from avtlm.frontends.filterbank import SAMPLE_RATE
from avtlm.plain_yaml import dump_yaml
from avtlm.plan import Plan, memory_of, plan
from avtlm.training.flops import UsefulWork
from avtlm.training.loop import TrainConfig, Trainer
from avtlm.training.made_batches import made_batch
from avtlm.training.measuring import Kept, is_attention, measure
from avtlm.training.peak import datasheet
from tests.made_corpus import MadeCorpus, make_corpus
from tests.training import made_runs
from tests.training.test_speech_systems import MODELS
from tests.training.test_speech_systems import pretraining as speech

ROOT = Path(__file__).resolve().parent.parent
ABSENT = MadeCorpus(*(Path("nowhere") / name for name in ("clips.jsonl", "sound.jsonl", "text.jsonl", "all.units")))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> MadeCorpus:
    return make_corpus(tmp_path_factory.mktemp("corpus"), 12)


@pytest.fixture(scope="module")
def fast_units(corpus: MadeCorpus, tmp_path_factory: pytest.TempPathFactory) -> MadeCorpus:
    return made_runs.with_units_at_50_hz(corpus, tmp_path_factory.mktemp("units"))


def planned(settings: dict[str, Any], **more: Any) -> Plan:
    return plan(config.load(TrainConfig, settings), **more)


# The model ------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("system", MODELS)
def test_parameters_and_their_memory_are_those_of_the_model_and_its_optimiser(system: str, fast_units: MadeCorpus, tmp_path: Path) -> None:
    settings = speech(ABSENT, tmp_path / "run", system, ema=0.99)
    found = planned(settings, device="h100")
    run = Trainer(config.load(TrainConfig, speech(fast_units, tmp_path / "run", system, ema=0.99)))
    parameters = list(run.model.parameters())
    assert found.parameters == sum(parameter.numel() for parameter in parameters)
    assert found.trained == sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
    for parameter in parameters:
        if parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)
    run.optimizer.step()
    moments = [value for state in run.optimizer.state.values() for value in state.values() if value.dim() > 0]
    assert found.memory["optimiser"] * 1e9 == pytest.approx(sum(value.nbytes for value in moments))
    assert found.memory["gradients"] * 1e9 == pytest.approx(sum(each.grad.nbytes for each in parameters if each.grad is not None))
    held = [*parameters, *run.model.buffers()]
    assert found.memory["weights"] * 1e9 == pytest.approx(sum(tensor.nbytes for tensor in held))
    assert run.average is not None
    assert found.memory["moving average"] * 1e9 == pytest.approx(sum(weight.nbytes for weight in run.average.weights.values()))


def test_shards_divide_what_is_kept_between_steps(corpus: MadeCorpus, tmp_path: Path) -> None:
    """8 P bytes for a step and 16 P / N otherwise, as docs/training.md says; plain copies exchange gradients through buffers."""
    settings = config.load(TrainConfig, speech(corpus, tmp_path, "hubert", parallel="fsdp"))
    model = torch.nn.Linear(250_000, 1000, bias=False, device="meta")
    one, four = (memory_of(settings, model, gpus, 0.0) for gpus in (1, 4))
    assert sum(one.values()) == pytest.approx(4.0)
    assert sum(four.values()) == pytest.approx(2.0 + 4.0 / 4)
    plain = memory_of(config.load(TrainConfig, speech(corpus, tmp_path, "hubert")), model, 4, 5e9)
    assert plain == pytest.approx({"weights": 1.0, "gradients": 1.0, "optimiser": 2.0, "exchange of gradients": 1.0, "activations": 5.0})


# Work and activations -------------------------------------------------------------------------------------------------------------------


def test_work_and_activations_of_full_batches_are_what_full_batches_take(fast_units: MadeCorpus, tmp_path: Path) -> None:
    model = MODELS["hubert"] | {"encoder": MODELS["hubert"]["encoder"] | {"layer_drop": 0.0}}
    source = {"manifest": "nowhere.jsonl", "task": "audio", "units": "nowhere.units", "crop_frames": 60}
    settings = speech(ABSENT, tmp_path, "hubert", model=model, sources={"audio": source}, max_rows=8, max_frames=500)
    found = planned(settings, device="a100")
    assert found.round_frames == 8 * 60
    assert found.round_seconds == pytest.approx(8 * (59 * 320 + 400) / SAMPLE_RATE)
    # The same batch in whole.
    run = Trainer(config.load(TrainConfig, speech(fast_units, tmp_path / "run", "hubert", model=model)))
    batch = made_batch(config.load(TrainConfig, settings).sources["audio"], run.start, 8, 60, torch.Generator().manual_seed(0))
    cost = measure(run.rounds, batch, timed=False)
    assert found.round_work == pytest.approx(cost.work, rel=0.01)
    assert found.memory["activations"] * 1e9 == pytest.approx(cost.kept, rel=0.02)


def test_what_is_kept_counts_every_memory_once_and_no_weights() -> None:
    layer = torch.nn.Linear(30, 20)
    x = torch.randn(7, 30)
    kept = Kept(layer)
    with torch.autograd.graph.saved_tensors_hooks(kept.pack, lambda tensor: tensor):
        y = layer(x)
        total = (y.exp() * y[:, :10].repeat(1, 2)).sum()  # keeps exp(y) twice, and a copy of a part of y
    total.backward()
    assert kept.bytes == 4 * 7 * (30 + 20 + 20)
    assert is_attention(torch.zeros(4, 9, 9))
    assert not is_attention(torch.zeros(4, 9, 8))


def test_recomputed_layers_keep_less(tmp_path: Path) -> None:
    model = MODELS["hubert"] | {"encoder": MODELS["hubert"]["encoder"] | {"layers": 8}}
    plain, recomputed = (
        planned(speech(ABSENT, tmp_path, "hubert", model=model, activation_checkpointing=recompute), device="h100").memory["activations"]
        for recompute in (False, True)
    )
    assert recomputed < 0.7 * plain


def test_the_kinds_of_a_round_add_up_by_their_weights(tmp_path: Path) -> None:
    whole = made_runs.pretraining(ABSENT, tmp_path)
    for source in whole["sources"].values():
        source["weight"] = 1.0
    alone = [planned(whole | {"sources": {name: source}}, device="h100") for name, source in whole["sources"].items()]
    together = planned(whole, device="h100")
    assert together.round_work == pytest.approx(sum(each.round_work for each in alone), rel=1e-6)
    assert together.round_frames == sum(each.round_frames for each in alone)
    for source in whole["sources"].values():
        source["weight"] = 0.5
    assert planned(whole, device="h100").round_work == pytest.approx(together.round_work / 2, rel=1e-6)
    mixed = [dict(source, weight=1.0) for source in whole["sources"].values()]
    shares = whole | {"sources": dict(zip(whole["sources"], mixed, strict=True))}
    shares["mixing"] = {"kind": "shares", "shares": {name: 1.0 for name in whole["sources"]}, "batches": 2}
    assert planned(shares, device="h100").round_work == pytest.approx(together.round_work / 2, rel=1e-6)


# Time -----------------------------------------------------------------------------------------------------------------------------------


def test_an_estimate_follows_from_work_peak_and_what_is_assumed(tmp_path: Path) -> None:
    settings = speech(ABSENT, tmp_path, "hubert", steps=1000, precision="bf16", accumulate=6)
    found = planned(settings, device="h100", gpus=4, hours=2.0, utilisation=0.2, efficiency=0.5)
    sheet = datasheet("h100")
    assert sheet is not None
    assert sheet.bf16 is not None
    assert found.estimated
    # 6 rounds on 4 devices are 2 after another.
    assert found.step_seconds == pytest.approx(2 * found.round_work / (0.2 * sheet.bf16 * 1e12) / 0.5)
    assert found.frames_per_second == pytest.approx(6 * found.round_frames / found.step_seconds)
    assert found.audio_seconds_per_second == pytest.approx(6 * found.round_seconds / found.step_seconds)
    assert found.training_hours == pytest.approx(1000 * found.step_seconds / 3600)
    assert found.passes == pytest.approx(1000 * 6 * found.round_seconds / 7200)
    assert found.hours_of_pass == pytest.approx(found.training_hours / found.passes)
    assert found.memory_of_device == 80
    assert found.fits
    assert "ESTIMATE" in found.table()


def test_without_a_named_device_a_step_is_measured_here(corpus: MadeCorpus, tmp_path: Path) -> None:
    found = planned(made_runs.pretraining(corpus, tmp_path / "run"), hours=1.0)
    assert not found.estimated
    assert found.device.startswith("CPU")
    assert found.peak.source == "measured"
    assert found.update_seconds > 0
    assert found.step_seconds > found.update_seconds
    reached = found.round_work / (found.step_seconds - found.update_seconds) / found.peak.flops
    assert found.utilisation == pytest.approx(reached)
    assert "a step was measured here" in found.table()
    assert "memory_of_device" in found.to_json()


def test_every_device_needs_a_round(tmp_path: Path) -> None:
    found = planned(speech(ABSENT, tmp_path, "hubert"), device="h100", gpus=8)
    assert found.accumulate == 8
    assert found.efficiency == 0.9
    assert any("an update has 8 rounds" in sentence for sentence in found.assumed)
    assert planned(speech(ABSENT, tmp_path, "hubert"), device="h100").efficiency == 1.0


# Data and batches -----------------------------------------------------------------------------------------------------------------------


def test_real_data_give_the_length_of_clips_and_the_vocabulary(corpus: MadeCorpus, tmp_path: Path) -> None:
    settings = made_runs.recognition(corpus, tmp_path)
    found = planned(settings, device="h100")
    run = Trainer(config.load(TrainConfig, settings))
    assert found.parameters == sum(parameter.numel() for parameter in run.model.parameters())
    assert not any("for want of data" in sentence for sentence in found.assumed)
    dataset = run.streams["labelled"].dataset
    mean = sum(dataset.frames(index) for index in range(len(dataset))) / len(dataset)
    rows = min(4, 1000 // round(mean))
    assert found.round_frames == rows * round(mean)
    absent = planned(made_runs.recognition(ABSENT, tmp_path), device="h100")
    assert absent.round_frames == 4 * 250
    assert {"clips of 10 s, for want of data (labelled)", "a vocabulary of 32 symbols"} <= set(absent.assumed)


def test_a_language_model_is_planned_without_hours(tmp_path: Path) -> None:
    model = {"dim": 32, "layers": 2, "heads": 2, "feed_forward_dim": 48}
    source = {"manifest": "nowhere.txt", "task": "sentences"}
    settings = {"system": "language_model", "task": "language_model", "output": str(tmp_path), "model": model, "sources": {"text": source}}
    found = planned(settings, device="h100")
    assert (found.passes, found.hours_of_pass, found.audio_seconds_per_second) == (None, None, 0.0)
    assert found.round_frames == 10 * 100
    assert "passes" not in found.table()


@pytest.mark.parametrize("modality", ["av", "a", "v"])
def test_made_batches_are_what_a_source_would_give(corpus: MadeCorpus, tmp_path: Path, modality: str) -> None:
    settings = made_runs.recognition(corpus, tmp_path)
    settings["sources"]["labelled"]["modality"] = modality
    run = Trainer(config.load(TrainConfig, settings))
    real = next(run.streams["labelled"].batches((0, 0), iter([0.0])))[0]
    made = made_batch(run.settings.sources["labelled"], run.start, 3, 25, torch.Generator().manual_seed(0))
    assert real is not None

    def kinds(batch: Batch) -> dict[str, Any]:
        parts = {name: getattr(batch, name) for name in ("audio", "video", "text")} | dict(batch.targets)
        return {name: part if part is None else (part.dtype, part.shape[2:]) for name, part in parts.items()}

    assert kinds(made) == kinds(real)
    losses = run.model.losses(made, torch.Generator().manual_seed(0))  # type: ignore[operator]
    assert all(torch.isfinite(loss.value) for loss in losses.values())


def test_work_is_counted_from_the_layers_alone(corpus: MadeCorpus, tmp_path: Path) -> None:
    """Twice as many clips are twice the work, whatever is in them."""
    heads = {"encoder": made_runs.MODEL, "modality_dropout": 0.0}
    run = Trainer(config.load(TrainConfig, made_runs.recognition(corpus, tmp_path, model=heads)))
    run.model.eval()
    work, found = UsefulWork(run.model), []
    for rows in (1, 2):
        batch = made_batch(run.settings.sources["labelled"], run.start, rows, 25, torch.Generator().manual_seed(rows))
        with work.counting(batch):
            run.model.losses(batch, torch.Generator().manual_seed(0))  # type: ignore[operator]
        found.append(float(work.take()))
    assert found[1] == pytest.approx(2 * found[0], rel=0.02)


# Errors and the command -----------------------------------------------------------------------------------------------------------------


def test_wrong_wishes_are_answered_in_one_sentence(tmp_path: Path) -> None:
    settings = speech(ABSENT, tmp_path, "hubert")
    with pytest.raises(ValueError, match=r"device: 'abacus' is not in the table; choose one of B200, .*, T4\."):
        planned(settings, device="abacus")
    with pytest.raises(ValueError, match=r"precision: V100 has no units for bf16; set precision=fp32\."):
        planned(settings | {"precision": "bf16"}, device="v100")
    with pytest.raises(ValueError, match=r"gpus 0, hours 1, utilisation 0\.1, efficiency 0\.9: give at least 1 device"):
        planned(settings, gpus=0)
    with pytest.raises(ValueError, match=r"initialise: nowhere/model is not there, and the encoder has its sizes from it"):
        planned(made_runs.recognition(ABSENT, tmp_path, initialise="nowhere/model"))


def test_the_command_plans_a_published_configuration_without_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["plan", str(ROOT / "configs" / "hubert" / "tiny.yaml"), "steps=500", "--gpus", "2", "--hours", "10", "--device", "h100"]
    assert cli.main([*arguments, "--json", str(tmp_path / "plan.json")]) == 0
    text = capsys.readouterr().out
    assert "tiny.yaml on 2 x H100, fp32 (an ESTIMATE from its datasheet, nothing was timed)" in text
    values = json.loads((tmp_path / "plan.json").read_text())
    assert values["steps"] == 500
    assert f"{values['parameters']:,}" in text
    file = tmp_path / "run.yaml"
    file.write_text(dump_yaml(speech(ABSENT, tmp_path / "run", "hubert")))
    assert cli.main(["plan", str(file), "--hours", "1", "--device", "abacus"]) == 1
    assert capsys.readouterr().err.startswith("avtlm: device: 'abacus' is not in the table")
