"""Real jobs of two processes: the losses of one, no hang, and a way on for those that are left."""

import itertools
import json
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from avtlm import config
from avtlm.data.dataset import ClipDataset, Source
from avtlm.training.batch_norms import NormAverages
from avtlm.training.distributed import Processes, ProcessLost, is_loss_of_a_process, join
from avtlm.training.interruption import Interrupted
from avtlm.training.loop import TrainConfig, Trainer, train
from avtlm.training.stream import BatchStream
from avtlm.units.labels import read_labels, write_labels
from tests.made_corpus import MadeCorpus, make_corpus
from tests.training import made_whole as spoken
from tests.training import test_speech_systems as speech
from tests.training.made_jobs import finish, run_job, start
from tests.training.made_runs import MODEL, journal, pretraining, recognition, run, same, weights

CLOSE = 1e-5


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> MadeCorpus:
    return make_corpus(tmp_path_factory.mktemp("corpus"), 24)


def assert_close(one: Path, two: Path) -> None:
    """All that two runs have logged, and their models, to 1e-5."""
    lines = list(zip(journal(one), journal(two), strict=True))
    assert lines
    for ours, theirs in lines:
        assert theirs.pop("samples", None) == ours.pop("samples", None)
        assert theirs == pytest.approx(ours, rel=CLOSE, abs=CLOSE), f"step {ours['step']}"
    for part in ("weights.safetensors", "ema/weights.safetensors", "trainer/optimizer.safetensors"):
        if (one / part).exists():
            ours, theirs = load_file(one / part), load_file(two / part)
            assert ours.keys() == theirs.keys()
            for name, value in ours.items():
                assert torch.allclose(value.float(), theirs[name].float(), rtol=CLOSE, atol=CLOSE), f"{part} {name}"


# The losses of one process ----------------------------------------------------------------------------------------------------------------


def test_two_processes_train_vatlm_like_one_replicated_and_sharded(corpus: MadeCorpus, tmp_path: Path) -> None:
    """Four kinds of batches that come and go, layers and modalities that are dropped, batch norms, validation, an average of the weights;
    three rounds in a step, so that one process has more to do than the other."""
    validation = {"manifest": str(corpus.clips), "task": "audio_video", "split": "valid", "units": str(corpus.units)}
    changes = {"accumulate": 3, "steps": 6, "log_every": 1, "validation": validation, "validate_every": 3, "ema": 0.9, "max_rows": 3}
    one = run(pretraining(corpus, tmp_path / "one", **changes))
    ways = ("ddp", "fsdp")
    models = run_job(2, *(pretraining(corpus, tmp_path / way, parallel=way, **changes) for way in ways))
    assert any("valid_masked_loss" in line for line in journal(one))
    for model in models:
        assert_close(one, model)
        assert (model.parent / "best" / "weights.safetensors").exists()


def test_two_processes_train_a_recogniser_and_a_taught_model_like_one(corpus: MadeCorpus, tmp_path: Path) -> None:
    """Word error rates of all processes together, an encoder that is frozen at first, a teacher that follows its student."""
    heads = {"encoder": MODEL, "modality_dropout": 0.5, "freeze_encoder_steps": 2}
    changes = {"accumulate": 2, "steps": 4, "log_every": 1}
    labels = tmp_path / "fine.units"
    write_labels(labels, {name: np.repeat(row, 2) for name, row in read_labels(corpus.units).items()})
    runs = {
        "recogniser": recognition(corpus, tmp_path / "x", model=heads, validate_every=2, **changes),
        "taught": speech.pretraining(MadeCorpus(corpus.clips, corpus.sound, corpus.text, labels), tmp_path / "x", "mt4ssl", **changes),
    }
    single = [run(settings | {"output": str(tmp_path / name / "one")}) for name, settings in runs.items()]
    jobs = [settings | {"output": str(tmp_path / name / "two"), "parallel": "fsdp"} for name, settings in runs.items()]
    for one, two in zip(single, run_job(2, *jobs), strict=True):
        assert_close(one, two)
    assert any("valid_wer" in line for line in journal(single[0]))


def test_two_processes_train_a_model_of_speech_and_text_like_one(tmp_path: Path) -> None:
    """Batches of one modality each, batch norms behind the decoder, dropout that never ends, validation of written speech."""
    made = spoken.make_spoken_corpus(tmp_path / "corpus")
    source = {"manifest": str(made.sound), "task": "speech", "units": str(made.units), "voices": spoken.voices(made), "split": "valid"}
    changes = {"steps": 4, "log_every": 1, "validate_every": 2, "ema": 0.9}
    runs = [
        spoken.pretraining(made, tmp_path / "x", accumulate=3, mixing={}, validation=source, **changes),
        spoken.finetuning(made, tmp_path / "x", "synthesis", accumulate=2, **changes),
    ]
    single = [run(settings | {"output": str(tmp_path / f"one{number}")}) for number, settings in enumerate(runs)]
    jobs = [
        settings | {"output": str(tmp_path / f"{way}{n}"), "parallel": way} for way in ("ddp", "fsdp") for n, settings in enumerate(runs)
    ]
    shutil.copytree(single[1].parent, tmp_path / "further")  # goes on in shards
    jobs.append(runs[1] | {"output": str(tmp_path / "further"), "steps": 6, "parallel": "fsdp"})
    *made_by_two, further = run_job(2, *jobs)
    for one, two in zip(single * 2, made_by_two, strict=True):
        assert_close(one, two)
    assert_close(run(runs[1] | {"output": str(single[1].parent), "steps": 6}), further)
    assert any("valid_loss" in line for line in journal(single[1]))


def test_the_rounds_of_a_step_are_shared_out_with_no_utterance_lost_or_doubled(corpus: MadeCorpus) -> None:
    dataset = ClipDataset(Source(str(corpus.sound), "audio", units=str(corpus.units)))
    stream = BatchStream("audio", dataset, 1, 200, 3)
    turns = 2 * len(stream.plan(0)) + 1
    whole = list(stream.batches((0, 0), iter([0.0] * turns)))
    parts = [list(stream.batches((0, 0), iter([0.0 if turn % 3 == rank else None for turn in range(turns)]))) for rank in range(3)]
    for turn, (batch, place) in enumerate(whole):
        assert batch is not None
        taken = [part[turn][0] for part in parts]
        assert [rank for rank, other in enumerate(taken) if other is not None] == [turn % 3]
        other = taken[turn % 3]
        assert other is not None
        assert other.ids == batch.ids
        assert {part[turn][1] for part in parts} == {place}


def test_an_update_of_several_rounds_is_that_of_their_union(corpus: MadeCorpus, tmp_path: Path) -> None:
    """Without anything random, two batches in two rounds give the gradient of the sum of their losses over the sum of their counts."""
    source = {"sound": {"manifest": str(corpus.sound), "task": "audio", "units": str(corpus.units)}}
    settings = pretraining(corpus, tmp_path / "run", sources=source, accumulate=2)
    trainer = Trainer(config.load(TrainConfig, settings))
    trainer.model.eval()
    batches = [batch for batch, _ in trainer.streams["sound"].batches((0, 0), iter([0.0, 0.0])) if batch is not None]
    losses = []
    for batch in batches:
        losses += list(trainer.model.losses(batch, torch.Generator().manual_seed(0)).values())  # type: ignore[operator]
    total = torch.stack([loss.value for loss in losses]).sum() / torch.stack([loss.count for loss in losses]).sum()
    wanted = torch.autograd.grad(total, trainer.model.predictor.units)[0]  # type: ignore[union-attr, arg-type]
    for batch in batches:
        trainer.replicas.backward(trainer.replicas.forward([batch], torch.Generator().manual_seed(0), last=True))
    trainer.replicas.divide(torch.stack([loss.count for loss in losses]).sum())
    found = trainer.model.predictor.units.grad  # type: ignore[union-attr]
    assert torch.allclose(found, wanted, rtol=1e-4, atol=1e-8)  # type: ignore[arg-type]


def test_averages_of_batch_norms_are_those_of_batches_in_order() -> None:
    torch.manual_seed(0)
    batches = torch.randn(4, 5, 3)
    single, shared = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    watched = NormAverages(shared)
    for _ in range(2):
        watched.start_step()
        for batch in batches:
            single(batch)
            watched.start_batch()
            shared(batch)
            watched.end_batch()
        watched.finish_step([(0, index) for index in range(4)], Processes(0, 1, torch.device("cpu")))
    for name, value in single.state_dict().items():
        assert torch.allclose(value, shared.state_dict()[name], rtol=1e-6, atol=1e-7), name


# Losing a process -------------------------------------------------------------------------------------------------------------------------


def steps_done(settings: dict[str, Any]) -> int:
    state = Path(settings["output"]) / "model" / "trainer" / "state.json"
    return int(json.loads(state.read_text())["step"]) if state.exists() else 0


def wait_for_steps(settings: dict[str, Any], steps: int, job: list[Any]) -> None:
    deadline = time.monotonic() + 240
    while steps_done(settings) < steps and time.monotonic() < deadline and all(process.poll() is None for process in job):
        time.sleep(0.005)


def test_a_killed_process_ends_the_job_with_a_sentence_and_a_restart_goes_on_exactly(corpus: MadeCorpus, tmp_path: Path) -> None:
    source = {"sound": {"manifest": str(corpus.sound), "task": "audio", "units": str(corpus.units)}}
    changes = {"sources": source, "accumulate": 2, "steps": 24, "save_every": 2, "log_every": 2, "ema": 0.9, "workers": 1}
    whole = pretraining(corpus, tmp_path / "whole", **changes)
    broken = pretraining(corpus, tmp_path / "broken", **changes)
    job = start(2, whole, broken)
    wait_for_steps(broken, 4, job)
    job[1].send_signal(signal.SIGKILL)
    (code, printed, errors), (other, _, _) = finish(job)
    assert other == -signal.SIGKILL
    assert code == 1
    assert printed == f"model: {tmp_path}/whole/model\n"
    assert "another process of this run has ended or does not answer; started again, the run goes on" in errors
    assert 4 <= steps_done(broken) < 24
    shutil.copytree(tmp_path / "broken", tmp_path / "alone")

    # A run that was stopped on one process goes on with two, in the same job.
    begun = pretraining(corpus, tmp_path / "begun", **changes)
    step = Trainer._step

    def stop(self: Trainer, number: int, *rest: Any) -> None:
        if number == 7:
            signal.raise_signal(signal.SIGTERM)
        step(self, number, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_step", stop)
        with pytest.raises(Interrupted):
            run(begun)
    assert steps_done(begun) == 8
    again, joined = run_job(2, broken, begun | {"parallel": "fsdp"})
    assert same(again, tmp_path / "whole" / "model")
    assert same(again / "ema", tmp_path / "whole" / "model" / "ema")
    assert journal(again) == journal(tmp_path / "whole" / "model")
    for other_way in (joined, run(broken | {"output": str(tmp_path / "alone")})):
        for name, value in weights(again).items():
            assert torch.allclose(value.float(), weights(other_way)[name].float(), rtol=CLOSE, atol=CLOSE), name


def test_a_signal_to_one_process_stops_all_with_a_checkpoint(corpus: MadeCorpus, tmp_path: Path) -> None:
    source = {"sound": {"manifest": str(corpus.sound), "task": "audio", "units": str(corpus.units)}}
    settings = pretraining(corpus, tmp_path / "run", sources=source, accumulate=2, steps=2000, save_every=2)
    job = start(2, settings)
    wait_for_steps(settings, 2, job)
    job[1].send_signal(signal.SIGTERM)
    (code, printed, errors), (other, silent, _) = finish(job)
    assert (code, other) == (0, 0), errors
    assert printed == f"model: {tmp_path}/run/model\n"
    assert silent == ""
    assert f"signal to another process; stopped at step {steps_done(settings)} of 2000 with a checkpoint" in errors


@pytest.mark.slow
def test_a_process_that_hangs_ends_the_job_after_the_timeout(corpus: MadeCorpus, tmp_path: Path) -> None:
    source = {"sound": {"manifest": str(corpus.sound), "task": "audio", "units": str(corpus.units)}}
    settings = pretraining(corpus, tmp_path / "run", sources=source, accumulate=2, steps=5000, save_every=2, timeout_seconds=15)
    job = start(2, settings)
    wait_for_steps(settings, 2, job)
    job[1].send_signal(signal.SIGSTOP)
    job[0].wait(90)
    job[1].kill()
    (code, _, errors), _ = finish(job)
    assert code == 1
    assert "another process of this run has ended or does not answer" in errors


def test_errors_of_lost_processes_are_told_from_others() -> None:
    assert is_loss_of_a_process(RuntimeError("[../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]"))
    assert is_loss_of_a_process(RuntimeError("Application timeout caused pair closure"))
    assert is_loss_of_a_process(torch.distributed.DistBackendError("NCCL communicator was aborted"))
    assert not is_loss_of_a_process(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert issubclass(ProcessLost, ValueError)


# What cannot work -------------------------------------------------------------------------------------------------------------------------


def test_more_processes_than_rounds_are_refused(corpus: MadeCorpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(ValueError, match="accumulate: 2 rounds in an update are too few for 4 processes; give 4 or a multiple"):
        train(config.load(TrainConfig, pretraining(corpus, tmp_path / "run", accumulate=2)))
    assert not (tmp_path / "run").exists()


def test_a_process_without_a_gpu_of_its_own_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match="process 1: this machine has 1 GPUs; start one process for each"):
        join(1.0, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"accumulate": 0}, "accumulate 0"),
        ({"timeout_seconds": 0}, "give at least 1 round, and some time"),
        ({"parallel": "dp"}, "parallel"),
    ],
)
def test_impossible_settings_are_refused(corpus: MadeCorpus, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run(pretraining(corpus, tmp_path / "run", **change))
    assert list(itertools.islice(tmp_path.iterdir(), 1)) == []
