"""Comparisons over seeds: which stages they run, by what arguments, and that seeds of earlier results are not run again."""

import dataclasses
import io
import json
from pathlib import Path
from typing import Any, ClassVar

import pytest
from rich.console import Console
from rich.table import Table

from benchmarks.over_seeds import OverSeeds, Report, Seeds, averaged, command, earlier_results
from benchmarks.spoken_ablation import PLANS, TASKS, TITLES, Ablation


@dataclasses.dataclass(frozen=True)
class Plan:
    steps: int = 1
    seeds: int = 2


class Noted(OverSeeds):
    """A comparison that trains nothing."""

    FOLDERS: ClassVar = {"speech": ("recordings", True), "noise": ("sounds", False)}
    SHARED: ClassVar = {"corpus": ("make", "make the corpus")}
    STAGES: ClassVar = {
        "train_one": ("train", "train the first", "one"),
        "train_two": ("train", "train the second", "two"),
        "evaluate": ("evaluate", "measure both"),
    }
    done: ClassVar[list[tuple[Any, ...]]] = []

    def make(self) -> None:
        self.done.append(("make", *self.folders))

    def train(self, name: str, seed: int) -> None:
        self.done.append((name, seed))

    def evaluate(self, seed: int) -> None:
        self.seeds.write(seed, 10 * seed)

    def report(self) -> dict[str, Any]:
        return self.told(wer=averaged(self.seeds.read()))


def noted(*arguments: str) -> tuple[int, list[tuple[Any, ...]]]:
    """What the command ends with, and what it has done."""
    Noted.done.clear()

    def table(report: Report) -> Table:
        return Table(title=f"mean {report['wer']['mean']}")

    code = command("noted", "Nothing.", {"small": Plan(), "smoke": Plan()}, Noted, table, lambda report, path: None, list(arguments))
    return code, list(Noted.done)


@pytest.mark.usefixtures("in_this_process")
def test_stages_of_every_seed_are_run_in_their_order_with_their_own_arguments(tmp_path: Path) -> None:
    asked = ["--speech", "here", "--out", str(tmp_path)]
    trained = [(name, seed) for seed in (1, 2) for name in ("one", "two")]
    assert noted(*asked) == (0, [("make", "speech"), *trained])
    assert noted(*asked) == (0, [])
    assert noted(*asked, "--seeds", "3") == (0, [("one", 3), ("two", 3)])
    assert json.loads((tmp_path / "stages" / "train_two_3.json").read_text())["asked"]["speech"] == "here"


@pytest.mark.usefixtures("in_this_process")
def test_no_stage_is_kept_when_the_recordings_are_others(tmp_path: Path) -> None:
    asked = ["--out", str(tmp_path), "--seeds", "1", "--speech"]
    stages = [("make", "speech"), ("one", 1), ("two", 1)]
    assert noted(*asked, "here")[1] == stages
    assert noted(*asked, "there")[1] == stages
    assert noted(*asked, "there", "--noise", "sounds")[1] == [("make", "speech", "noise"), *stages[1:]]


@pytest.mark.usefixtures("in_this_process")
def test_a_folder_that_has_to_be_given_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        noted("--out", str(tmp_path))
    assert "the following arguments are required: --speech" in capsys.readouterr().err


@pytest.mark.usefixtures("in_this_process")
def test_a_command_takes_seeds_from_its_own_results(tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    asked = ["--speech", "here", "--json", str(results), "--out"]
    assert noted(*asked, str(tmp_path / "one"))[0] == 0
    before = json.loads(results.read_text())
    assert before["wer"] == {"mean": 15.0, "seeds": [10, 20]}
    assert before["command"] == "python -m benchmarks.noted --speech DIR --size small --seeds 2"
    assert noted(*asked, str(tmp_path / "two")) == (0, [])
    assert json.loads(results.read_text()) == before


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


def test_results_of_before_a_setting_was_there_are_those_of_its_default(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"plan": {"seeds": 1, "changes": []}, "by_seed": [7]}))
    assert earlier_results(path, Plan(), [])["by_seed"] == [7]
    assert earlier_results(path, Plan(steps=2), []) == {}


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
