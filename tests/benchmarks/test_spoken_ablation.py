"""The ablation of SpeechT5's pre-training: what it leaves out, what it reports, and that it runs."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from avtlm import config
from avtlm.training.loop import TrainConfig
from benchmarks.spoken_ablation import CONFIGS, PLANS, SCRATCH, TASKS, TITLES, VARIANTS, Ablation, Plan, draw, table
from preprocess.corpora.read_aloud import SIZES


def report() -> dict[str, Any]:
    cell = {"mean": 12.5, "seeds": [10.0, 15.0]}
    return {"results": {start: dict.fromkeys(TASKS, cell) for start in TITLES}, "plan": {"seeds": 2}}


def test_every_variant_leaves_out_what_it_says() -> None:
    made = {name: config.load(TrainConfig, CONFIGS / "tiny_pretrain.yaml", changes) for name, changes in VARIANTS.items()}
    assert set(made["whole"].sources) == {"speech", "text"}
    assert set(made["speech"].sources) == {"text"}
    assert set(made["text"].sources) == {"speech"}
    assert made["codebook"].model["codebook"] is None
    assert made["units"].model["losses"]["units"] == 0
    assert set(TITLES) == {*VARIANTS, SCRATCH}


def test_plans_and_tasks_fit_the_corpus_and_the_configurations() -> None:
    assert {plan.corpus for plan in PLANS.values()} <= set(SIZES)
    for name, source, _, _ in TASKS.values():
        assert set(config.load(TrainConfig, CONFIGS / f"{name}.yaml").sources) == {source}


def test_the_table_has_the_mean_and_the_range_of_every_pretraining() -> None:
    screen = io.StringIO()
    Console(file=screen, width=110).print(table(report()))
    for title in TITLES.values():
        assert title in screen.getvalue()
    assert screen.getvalue().count("12.50 (10.00-15.00)") == len(TITLES) * len(TASKS)


def test_the_plot_is_a_picture(tmp_path: Path) -> None:
    draw(report(), tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_it_runs_from_a_corpus_to_figures(tmp_path: Path) -> None:
    pytest.importorskip("espeakng_loader")
    plan = Plan("smoke", 5, 50, 1, 4, (1, 1, 1), 800, 1)
    found = Ablation(tmp_path, plan, Console(file=io.StringIO()), ("max_rows=4",)).run()
    assert set(found["results"]) == set(TITLES)
    for start in TITLES:
        assert all(cell["seeds"][0] >= 0 for cell in found["results"][start].values())
    json.dumps(found)
