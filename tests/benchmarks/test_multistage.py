"""The grid of first and second stages: what it varies, what each row is compared with, and that it runs."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from avtlm import config
from avtlm.training.loop import TrainConfig
from benchmarks.multistage import (
    CONFIGS,
    MIDDLES,
    NONE,
    PLANS,
    PRETRAINING,
    SCRATCH,
    STARTS,
    Grid,
    Plan,
    baselines,
    draw,
    main,
    relative,
    table,
)
from preprocess.corpora.talking_heads import SIZES


def results() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for place, start in enumerate(STARTS):
        for number, middle in enumerate(MIDDLES):
            rate = 80.0 - 10 * place - 5 * number
            found.setdefault(start, {})[middle] = {"wer": {"mean": rate, "seeds": [rate - 1, rate + 1]}}
    for start, middles in found.items():
        for middle, row in middles.items():
            row["baselines"] = baselines(found, start, middle)
    return found


def test_every_row_names_its_baselines_with_their_rates() -> None:
    found = results()
    assert found[SCRATCH][NONE]["baselines"] == []
    assert found["av_mae"][NONE]["baselines"] == [{"baseline": "random initialisation, no mid-training", "wer": 80.0, "relative": 25.0}]
    assert [each["baseline"] for each in found["both"]["italian"]["baselines"]] == [
        "random initialisation, no mid-training",
        "MAE and CLR, no mid-training",
    ]
    assert found["both"]["italian"]["baselines"][1] == {"baseline": "MAE and CLR, no mid-training", "wer": 40.0, "relative": 25.0}
    assert [each["wer"] for each in found[SCRATCH]["german"]["baselines"]] == [80.0]


def test_a_reduction_is_relative_to_the_baseline() -> None:
    assert relative(50.0, 40.0) == 20.0
    assert relative(40.0, 50.0) == -25.0
    assert relative(0.0, 1.0) is None


def test_the_table_has_a_row_for_every_start_and_mid_training() -> None:
    screen = io.StringIO()
    Console(file=screen, width=160).print(table({"results": results(), "plan": {"seeds": 2}}))
    text = screen.getvalue()
    for words in (*STARTS.values(), *MIDDLES.values()):
        assert words in text
    # The baseline of the same start is that of random initialisation where that is the start.
    assert text.count("(from ") == len(STARTS) * len(MIDDLES) - 1 + len(STARTS) * (len(MIDDLES) - 1)
    assert "+25.0 (from 80.00)" in text


def test_the_plot_is_a_picture(tmp_path: Path) -> None:
    draw({"results": results()}, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_variants_fit_the_configuration_and_plans_the_corpus() -> None:
    assert {*PRETRAINING, SCRATCH} == set(STARTS)
    assert {plan.corpus for plan in PLANS.values()} <= set(SIZES)
    assert PLANS["small"].seeds >= 3
    for changes in PRETRAINING.values():
        assert config.load(TrainConfig, CONFIGS / "1_pretrain.yaml", changes).model["objective"] in ("mae", "clr", "both")


@pytest.mark.usefixtures("in_this_process")
def test_a_corpus_that_is_not_there_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--out", str(tmp_path / "out"), "--size", "smoke", "--corpus", str(tmp_path / "none")]) == 1
    assert "there are no lips; run the quickstart first" in capsys.readouterr().err


@pytest.mark.slow
def test_it_runs_from_a_corpus_to_figures(tmp_path: Path) -> None:
    pytest.importorskip("espeakng_loader")
    pytest.importorskip("mediapipe")
    found = Grid(tmp_path, Plan("smoke", 1, 1, 1, 12, 40, 8, 1), Console(file=io.StringIO()), ("max_rows=4",)).run()
    for start in STARTS:
        for middle in MIDDLES:
            assert found["results"][start][middle]["wer"]["seeds"][0] >= 0
    assert "token_accuracy" in found["results"]["both"]["german"]
    json.dumps(found)
