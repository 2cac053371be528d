"""The comparison of pre-trainings with and without unpaired text: what it leaves out, what it reports, and that it runs."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from avtlm import config
from avtlm.training.loop import TrainConfig
from benchmarks.unpaired_text import (
    ALIGNMENT,
    CONFIGS,
    KINDS,
    NAMES,
    PLANS,
    SCRATCH,
    STARTS,
    SYSTEMS,
    TASKS,
    WITH,
    WITHOUT,
    Comparison,
    Plan,
    draw,
    table,
)
from preprocess.corpora.read_aloud import SIZES


def report() -> dict[str, Any]:
    cell = {"mean": 12.5, "seeds": [10.0, 15.0]}
    shares = {ALIGNMENT: {"3": {kind: {"mean": 45.0, "seeds": [40.0, 50.0]} for kind in KINDS}}}
    starts = {start: dict.fromkeys(TASKS, cell) | ({} if start == SCRATCH else shares) for start in STARTS}
    return {"results": dict.fromkeys(SYSTEMS, starts), "plan": {"seeds": 2}}


@pytest.mark.parametrize("system", SYSTEMS)
def test_all_sources_but_speech_hold_text(system: str) -> None:
    settings = config.load(TrainConfig, CONFIGS / system / "tiny_pretrain.yaml")
    assert set(settings.sources) == {"speech", *SYSTEMS[system]}
    assert all(settings.sources[name].task == "units" for name in SYSTEMS[system])
    without = [f"sources.{name}=null" for name in SYSTEMS[system]]
    assert set(config.load(TrainConfig, CONFIGS / system / "tiny_pretrain.yaml", without).sources) == {"speech"}


def test_plans_and_tasks_fit_the_corpus_and_the_configurations() -> None:
    assert {plan.corpus for plan in PLANS.values()} <= set(SIZES)
    assert set(NAMES) == set(SYSTEMS)
    for system in SYSTEMS:
        for name, column, _ in TASKS.values():
            [source] = config.load(TrainConfig, CONFIGS / system / f"{name}.yaml").sources.items()
            assert (source[0], source[1].written) == ("labelled", column)


def test_the_table_has_the_mean_and_the_range_of_every_start() -> None:
    screen = io.StringIO()
    Console(file=screen, width=140).print(table(report()))
    for words in (*STARTS.values(), *NAMES.values()):
        assert words in screen.getvalue()
    assert screen.getvalue().count("12.50 (10.00-15.00)") == len(SYSTEMS) * len(STARTS) * len(TASKS)
    assert screen.getvalue().count("45.0 (40.0-50.0)") == len(SYSTEMS) * len((WITH, WITHOUT)) * len(KINDS)


def test_the_plot_is_a_picture(tmp_path: Path) -> None:
    draw(report(), tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_it_runs_from_a_corpus_to_figures(tmp_path: Path) -> None:
    pytest.importorskip("espeakng_loader")
    plan = Plan("smoke", 5, 50, 40, 1, (8, 8), (1, 1), 800, 40, 1)
    found = Comparison(tmp_path, plan, Console(file=io.StringIO()), ("max_rows=4",)).run()
    assert set(found["results"]) == set(SYSTEMS)
    for starts in found["results"].values():
        assert set(starts) == set(STARTS)
        assert all(cells[task]["seeds"][0] >= 0 for cells in starts.values() for task in TASKS)
        for start in (WITH, WITHOUT):
            assert list(starts[start][ALIGNMENT]) == ["3", "4", "5", "6"]
            assert all(set(kinds) == set(KINDS) and 0 <= kinds["total"]["mean"] <= 100 for kinds in starts[start][ALIGNMENT].values())
    json.dumps(found)
