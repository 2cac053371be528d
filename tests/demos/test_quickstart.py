"""The quickstart: its stages are run once, go on after a kill, and start afresh under another plan; its report has the promised shape."""

import dataclasses
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from avtlm import checkpoint
from avtlm.data.manifest import read_manifest
from demos import quickstart
from demos.quickstart import PLANS, Quickstart, main
from demos.stages import ENVIRONMENT
from preprocess.corpora.talking_heads import SIZES

ROOT = Path(__file__).resolve().parent.parent.parent
CONDITIONS = ["clean", "10", "5", "0", "-5", "-10"]
STAGES = ["corpus", "lips", "units1", "pretrain1", "units2", "pretrain2", "finetune", "evaluation"]


def made(folder: Path, plan: quickstart.Plan = PLANS["smoke"], seed: int = 1) -> tuple[Quickstart, list[str]]:
    """A quickstart whose stages only note that they were run, and those notes."""
    run = Quickstart(folder, plan, seed, Console(file=io.StringIO(), width=200))
    done: list[str] = []

    def note(name: str) -> None:
        done.append(name)
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / "made").write_text(json.dumps(dataclasses.asdict(plan)))

    for method, name in (("make_corpus", "corpus"), ("cut_lips", "lips"), ("finetune", "finetune")):
        setattr(run, method, lambda name=name: note(name))
    run.label = lambda iteration: note(f"units{iteration}")  # type: ignore[method-assign]
    run.pretrain = lambda iteration: note(f"pretrain{iteration}")  # type: ignore[method-assign]
    run.evaluate = lambda: note("evaluation")  # type: ignore[method-assign]
    run.report = lambda: folder  # type: ignore[method-assign]
    return run, done


def test_a_second_run_does_nothing_and_remembers_the_times(tmp_path: Path) -> None:
    first, done = made(tmp_path)
    first.run()
    assert done == STAGES
    second, again = made(tmp_path)
    second.run()
    assert again == []
    assert second.stages.seconds == first.stages.seconds
    assert list(second.stages.seconds) == STAGES


def test_a_stage_that_failed_goes_on_and_its_time_is_added_up(tmp_path: Path) -> None:
    run, _ = made(tmp_path)

    def fail(iteration: int) -> None:
        (tmp_path / "pretrain1").mkdir()
        (tmp_path / "pretrain1" / "half").write_text("done")
        time.sleep(0.2)
        raise ValueError("disk full")

    run.pretrain = fail  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="disk full"):
        run.run()
    second, done = made(tmp_path)
    second.run()
    assert done == STAGES[3:]
    assert (tmp_path / "pretrain1" / "half").exists()
    assert second.stages.seconds["pretrain1"] >= 0.2


def test_under_another_plan_the_stages_that_depend_on_it_start_afresh(tmp_path: Path) -> None:
    made(tmp_path)[0].run()
    (tmp_path / "pretrain2" / "old").write_text("weights of the first plan")
    (tmp_path / "pretrain1" / "old").write_text("weights that still hold")
    plan = PLANS["smoke"]
    run, done = made(tmp_path, dataclasses.replace(plan, pretrain_steps=(plan.pretrain_steps[0], 99)))
    run.run()
    assert done == STAGES[5:]
    assert not (tmp_path / "pretrain2" / "old").exists()
    assert (tmp_path / "pretrain1" / "old").exists()
    run, done = made(tmp_path, seed=2)
    run.run()
    assert done == STAGES


@pytest.mark.parametrize("name", PLANS)
def test_a_plan_fits_its_corpus(name: str) -> None:
    plan, size = PLANS[name], SIZES[PLANS[name].corpus]
    assert plan.few_labels < plan.labels <= size.train[0] * size.train[1]
    assert name == "smoke" or plan.seeds >= 3


def rates(names: list[str], start: float) -> dict[str, dict[str, float]]:
    return {modality: {name: start + index for index, name in enumerate(names)} for modality in ("a", "v", "av")}


def test_the_report_has_its_shape_and_averages_the_seeds(tmp_path: Path) -> None:
    output = io.StringIO()
    run = Quickstart(tmp_path, PLANS["smoke"], 1, Console(file=output, width=200))
    run.stages.seconds = {"corpus": 1.5, "lips": 2.0}
    interval = {modality: {name: [1.0, 90.0] for name in CONDITIONS} for modality in ("a", "v", "av")}
    evaluation = {"wer": rates(CONDITIONS, 10.0), "interval_95": interval, "utterances": 8, "words": 48}
    runs = [{"seed": seed, "wer": rates(["clean", "0"], 20.0 + seed)} for seed in (1, 2)]
    (tmp_path / "evaluation.json").write_text(json.dumps(evaluation))
    (tmp_path / "comparison.json").write_text(json.dumps({"labels": 6, "steps": 10, "pretrained": runs, "scratch": runs}))
    report = json.loads(run.report().read_text())
    check_report(report)
    assert report["seconds"] == {"corpus": 1.5, "lips": 2.0, "total": 3.5}
    assert report["pretrained_vs_scratch"]["scratch_mean"]["av"] == {"clean": 21.5, "0": 22.5}
    assert (tmp_path / "wer_against_snr.png").read_bytes().startswith(b"\x89PNG")
    shown = output.getvalue()
    assert "synthetic" in shown
    assert f"avtlm transcribe VIDEO.mp4 --model {tmp_path / 'model'}" in shown.replace("\n", " ").replace("  ", " ")


def test_what_goes_wrong_is_said_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "corpus" / "video").mkdir(parents=True)
    assert main(["--size", "smoke", "--out", str(tmp_path)]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"quickstart: {tmp_path / 'corpus'} holds a corpus")
    with pytest.raises(SystemExit) as caught:
        main(["--size", "huge"])
    assert caught.value.code == 2


def check_report(report: dict[str, Any]) -> None:
    for modality in ("a", "v", "av"):
        assert list(report["wer"][modality]) == CONDITIONS
        assert all(isinstance(rate, float) and rate >= 0 for rate in report["wer"][modality].values())
        for name, (low, high) in report["interval_95"][modality].items():
            assert low <= report["wer"][modality][name] <= high
    assert set(report["wer"]) == {"a", "v", "av"}
    comparison = report["pretrained_vs_scratch"]
    assert len(comparison["pretrained"]) == len(comparison["scratch"]) >= 1
    assert [run["seed"] for run in comparison["pretrained"]] == [run["seed"] for run in comparison["scratch"]]
    assert set(comparison["pretrained_mean"]) == set(comparison["scratch_mean"]) == {"a", "v", "av"}
    assert report["seconds"]["total"] == pytest.approx(sum(s for name, s in report["seconds"].items() if name != "total"), abs=0.11)
    assert {"processor", "cores", "gpu", "python", "torch"} <= set(report["machine"])


# The whole of it ------------------------------------------------------------------------------------------------------------------------


def start(folder: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "demos.quickstart", "--size", "smoke", "--out", str(folder)]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, env=os.environ | {"COLUMNS": "160"})


def finish(folder: Path) -> str:
    process = start(folder)
    _, shown = process.communicate(timeout=900)
    assert process.returncode == 0, shown
    return shown


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A smoke run from beginning to end."""
    folder = tmp_path_factory.mktemp("whole")
    finish(folder)
    return folder


@pytest.mark.slow
def test_a_smoke_run_leaves_report_pictures_and_a_model(whole: Path) -> None:
    report = json.loads((whole / "report.json").read_text())
    check_report(report)
    assert list(report["seconds"]) == [*STAGES, "total"]
    for picture in ("wer_against_snr.png", "contact_sheet.png"):
        assert (whole / picture).read_bytes().startswith(b"\x89PNG"), picture
    assert len(read_manifest(whole / "lips" / "manifest.jsonl")) == 24
    assert checkpoint.load_config(whole / "model")["task"] == "recognition"
    assert not (whole / "model" / "trainer").exists()
    assert "synthetic" in (whole / "model" / "README.md").read_text()


@pytest.mark.slow
def test_the_model_transcribes_a_clip(whole: Path) -> None:
    corpus = read_manifest(whole / "corpus" / "manifest.jsonl")
    command = [
        sys.executable,
        "-m",
        "avtlm.cli",
        "transcribe",
        str(corpus.path(corpus[0].video)),
        "--model",
        str(whole / "model"),
        "--json",
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert "text" in result.stdout


@pytest.mark.slow
def test_a_second_run_reuses_every_stage(whole: Path) -> None:
    def state() -> dict[str, tuple[int, bytes]]:
        files = (path for path in whole.rglob("*") if path.is_file() and path.parent != whole)
        return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}

    before, report = state(), json.loads((whole / "report.json").read_text())
    shown = finish(whole)
    assert shown.count("done before") == len(STAGES)
    assert state() == before
    assert json.loads((whole / "report.json").read_text()) == report


@pytest.mark.slow
def test_a_run_killed_in_pre_training_ends_as_if_it_had_not_been(whole: Path, tmp_path: Path) -> None:
    process = start(tmp_path)
    end = time.monotonic() + 600
    while time.monotonic() < end and not (tmp_path / "stages" / "pretrain1.json").exists() and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    stamps = sorted(path.stem for path in (tmp_path / "stages").iterdir())
    assert stamps == sorted(STAGES[:4]), stamps
    shown = finish(tmp_path)
    assert shown.count("done before") == 3
    for name in ("report.json", "evaluation.json", "comparison.json"):
        first, second = (json.loads((folder / name).read_text()) for folder in (whole, tmp_path))
        assert (first["wer"] == second["wer"]) if "wer" in first else first == second, name
    first, second = (load_file(folder / "model" / "weights.safetensors") for folder in (whole, tmp_path))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
