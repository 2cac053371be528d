"""A comparison whose seeds came from ``--json FILE`` counted the time of the others alone: made again, it took no time at all."""

import dataclasses
import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmarks.spoken_ablation import PLANS, TASKS, TITLES, Ablation

SECONDS = {"corpus": 9.0, "units": 1.0, "pretrain_1": 20.0, "finetune_1": 30.0, "evaluate_1": 5.0, "total": 65.0}
ELSEWHERE = {"processor": "another"}


def ablation(folder: Path, seeds: int) -> Ablation:
    earlier: dict[str, Any] = {"by_seed": [{start: dict.fromkeys(TASKS, 5.0) for start in TITLES}], "seconds": SECONDS}
    plan = dataclasses.replace(PLANS["smoke"], seeds=seeds)
    return Ablation(folder, plan, Console(file=io.StringIO()), earlier=earlier | {"machine": ELSEWHERE})


def test_results_that_are_told_again_say_what_they_took_and_where(tmp_path: Path) -> None:
    report = ablation(tmp_path, 1).run()
    assert report["seconds"] == SECONDS
    assert report["machine"] == ELSEWHERE


def test_the_time_of_a_further_seed_is_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for stage in ("make_corpus", "label", "pretrain", "finetune"):
        monkeypatch.setattr(Ablation, stage, lambda self, *seed: None)
    monkeypatch.setattr(
        Ablation, "evaluate", lambda self, seed: self.seeds.write(seed, {start: dict.fromkeys(TASKS, 7.0) for start in TITLES})
    )
    report = ablation(tmp_path, 2).run()
    assert {name: report["seconds"][name] for name in SECONDS if name.endswith("_1")} == {
        name: taken for name, taken in SECONDS.items() if name.endswith("_1")
    }
    assert {"pretrain_2", "finetune_2", "evaluate_2"} <= set(report["seconds"])
    assert 55.0 <= report["seconds"]["total"] < 65.0
    assert report["machine"] != ELSEWHERE
