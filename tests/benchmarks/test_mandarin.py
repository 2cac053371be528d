"""The ablation of MMSpeech's pre-training on Mandarin: what it leaves out, how it counts, what it reports, and that it runs."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from avtlm import config
from avtlm.systems.mmspeech import MMSpeechLosses
from avtlm.training.loop import TrainConfig
from benchmarks.mandarin import CONFIGS, PLANS, SCRATCH, TESTS, TITLES, VARIANTS, Ablation, Plan, draw, rates, table
from preprocess.corpora.read_aloud_mandarin import SIZES


def report() -> dict[str, Any]:
    cell = {"mean": 12.5, "seeds": [10.0, 15.0], "interval_95": [9.0, 16.0]}
    return {"results": {start: dict.fromkeys(TESTS, cell) for start in TITLES}, "plan": {"seeds": 2}}


def test_every_variant_leaves_out_one_task() -> None:
    made = {name: config.load(TrainConfig, CONFIGS / "tiny_pretrain.yaml", changes) for name, changes in VARIANTS.items()}
    assert set(made["whole"].sources) == {"speech", "text", "pairs"}
    assert set(made["p2t"].sources) == {"speech", "pairs"}
    assert [name for name, settings in made.items() if settings.initialise is None] == ["p2t"]
    for name, settings in made.items():
        weights = config.load(MMSpeechLosses, settings.model["losses"])
        assert [task for task, weight in vars(weights).items() if not weight] == ([name] if name in ("s2c", "msp", "pp") else [])
    assert set(TITLES) == {*VARIANTS, SCRATCH}


def test_plans_fit_the_corpus_and_its_configurations() -> None:
    for plan in PLANS.values():
        assert plan.labels <= SIZES[plan.corpus].labelled[0]
    assert set(config.load(TrainConfig, CONFIGS / "tiny_finetune.yaml").sources) == {"pairs"}


def test_rates_are_of_characters_summed_over_sentences_and_averaged_over_seeds() -> None:
    said = ["今天天气好", "他在家"]
    found = rates([(said, ["今天天气好", "她在家"]), (said, ["今天气好", ""])])
    assert found["seeds"] == [12.5, 50.0]
    assert found["mean"] == 31.25
    low, high = found["interval_95"]
    assert low == 10.0  # of the first sentence alone, one error in ten characters of both seeds
    assert high == pytest.approx(66.67)


def test_the_table_has_the_mean_the_range_and_the_interval_of_every_pretraining() -> None:
    screen = io.StringIO()
    Console(file=screen, width=130).print(table(report()))
    for title in TITLES.values():
        assert title in screen.getvalue()
    assert screen.getvalue().count("12.5 (10.0-15.0)") == len(TITLES) * len(TESTS)
    assert screen.getvalue().count("9.0-16.0") == len(TITLES) * len(TESTS)


def test_the_plot_is_a_picture(tmp_path: Path) -> None:
    draw(report(), tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_it_runs_from_a_corpus_to_figures(tmp_path: Path) -> None:
    pytest.importorskip("espeakng_loader")
    plan = Plan("smoke", 5, 8, (1, 1, 1), 1)
    found = Ablation(tmp_path, plan, Console(file=io.StringIO()), ("max_rows=4",)).run()
    assert set(found["results"]) == set(TITLES)
    for start in TITLES:
        assert all(cell["seeds"][0] >= 0 for cell in found["results"][start].values())
    assert len(found["samples"]) == 5
    json.dumps(found)
