"""Comparisons over seeds: seeds of earlier results are not run again."""

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmarks.over_seeds import Seeds, earlier_results
from benchmarks.spoken_ablation import PLANS, TASKS, TITLES, Ablation


def found(value: float) -> dict[str, Any]:
    """What a seed of the ablation comes to."""
    return {start: dict.fromkeys(TASKS, value) for start in TITLES}


def ablation(folder: Path, seeds: int, *known: dict[str, Any]) -> Ablation:
    """With what the first seeds came to by earlier results."""
    plan = dataclasses.replace(PLANS["smoke"], seeds=seeds)
    return Ablation(folder, plan, Console(file=io.StringIO()), earlier={"by_seed": list(known)})


def test_only_seeds_without_results_are_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[int] = []
    for stage in ("make_corpus", "label"):
        monkeypatch.setattr(Ablation, stage, lambda self: None)
    for stage in ("pretrain", "finetune"):
        monkeypatch.setattr(Ablation, stage, lambda self, seed: trained.append(seed))
    monkeypatch.setattr(Ablation, "evaluate", lambda self, seed: self.seeds.write(seed, found(30.0)))
    whole = ablation(tmp_path, 3, found(10.0), found(20.0)).run()
    assert trained == [3, 3]
    assert whole["results"]["whole"]["asr"] == {"mean": 20.0, "seeds": [10.0, 20.0, 30.0]}
    assert [one["whole"]["asr"] for one in whole["by_seed"]] == [10.0, 20.0, 30.0]


def test_nothing_is_made_when_all_seeds_are_known(tmp_path: Path) -> None:
    report = ablation(tmp_path / "none", 2, found(1.0), found(3.0), found(9.0)).run()
    assert report["results"]["text"]["vc"]["seeds"] == [1.0, 3.0]
    assert not (tmp_path / "none").exists()


def test_seeds_come_from_results_of_the_same_plan_alone(tmp_path: Path) -> None:
    path, plan = tmp_path / "results.json", PLANS["smoke"]
    assert earlier_results(None, plan, []) == earlier_results(path, plan, []) == {}
    asked = json.loads(json.dumps(dataclasses.asdict(plan) | {"changes": ["max_rows=4"], "seeds": 1}))
    path.write_text(json.dumps({"plan": asked, "by_seed": [found(5.0)]}))
    assert earlier_results(path, plan, ["max_rows=4"])["by_seed"] == [found(5.0)]
    assert earlier_results(path, plan, []) == {}
    assert earlier_results(path, dataclasses.replace(plan, labels=plan.labels + 1), ["max_rows=4"]) == {}
    path.write_text(json.dumps({"plan": asked}))
    assert earlier_results(path, plan, ["max_rows=4"])["by_seed"] == []


@pytest.mark.parametrize("text", ["", "[1]", '{"results": {}}', '{"plan": 3}', '{"plan": {}, "by_seed": 3}', '{"plan": {}, "seconds": 3}'])
def test_a_file_of_something_else_is_refused_in_a_sentence(tmp_path: Path, text: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(ValueError, match="holds no results of a comparison"):
        earlier_results(path, PLANS["smoke"], [])


def test_seeds_are_read_in_their_order(tmp_path: Path) -> None:
    seeds = Seeds(tmp_path, 3, {2: "two"})
    assert seeds.left == [1, 3]
    for seed in seeds.left:
        seeds.write(seed, f"made {seed}")
    assert seeds.read() == ["made 1", "two", "made 3"]
