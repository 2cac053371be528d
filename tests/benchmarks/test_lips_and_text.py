"""The comparison of VATLM's pre-training with AV-HuBERT's: what each leaves out, what it reports, and that it runs."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from avtlm import config
from avtlm.training.loop import TrainConfig
from benchmarks.lips_and_text import CONFIGS, LEFT_OUT, MEASURES, PLANS, SCRATCH, TITLES, Comparison, Plan, draw, table
from demos.parallel import Job
from preprocess.corpora.talking_heads import SIZES


def report() -> dict[str, Any]:
    cell = {"mean": 12.5, "seeds": [10.0, 15.0]}
    inputs = {"v": {"clean": cell}, "av": {"clean": cell, "0": cell}, "a": {"clean": cell}}
    return {"results": dict.fromkeys(TITLES, inputs), "plan": {"seeds": 2}}


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """The trainings that are asked for; none is done."""
    found: list[Job] = []

    def note(what: str, asked: list[Job], steps: int, work: Any = None) -> list[Any]:
        found.extend(asked)
        wer = {given: {"clean": 40.0, "0": 50.0} for given in ("a", "v", "av")}
        return [wer] * len(asked)

    monkeypatch.setattr("benchmarks.lips_and_text.train_together", note)
    return found


def test_pre_trainings_differ_in_their_kinds_of_input_alone(tmp_path: Path, jobs: list[Job]) -> None:
    Comparison(tmp_path, PLANS["small"], Console(file=io.StringIO())).pretrain(2)
    settings = [config.load(TrainConfig, job.config, job.changes) for job in jobs]
    kinds = [set(each.sources) for each in settings]
    assert kinds == [{"audio_video", "audio", "audio_text", "text"}, {"audio_video", "audio"}, {"audio_video"}]
    assert {source.task for each in settings for name, source in each.sources.items() if name != "audio_video"} == {
        "audio",
        "audio_text",
        "text",
    }
    assert {source.weight for each in settings for name, source in each.sources.items() if name != "audio_video"} == {0.5}
    for each in settings[1:]:
        assert each.sources["audio_video"] == settings[0].sources["audio_video"]
        assert (each.steps, each.seed, each.model, each.optim) == (settings[0].steps, 2, settings[0].model, settings[0].optim)


def test_fine_tunings_differ_in_their_start_alone(tmp_path: Path, jobs: list[Job]) -> None:
    Comparison(tmp_path, PLANS["small"], Console(file=io.StringIO())).finetune(3)
    settings = [config.load(TrainConfig, job.config, job.changes) for job in jobs]
    assert [each.initialise_weights for each in settings] == [True, True, True, False]
    starts = [Path(str(each.initialise)).parent.name for each in settings]
    assert starts == [*LEFT_OUT, "vatlm"]
    assert list(TITLES) == [*LEFT_OUT, SCRATCH]
    for each in settings[1:]:
        assert (each.sources, each.steps, each.seed) == (settings[0].sources, settings[0].steps, 3)
    written = json.loads((tmp_path / "results" / "3.json").read_text())
    assert set(written) == set(TITLES)


def test_plans_fit_the_corpus_and_a_folder_without_lips_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert {plan.corpus for plan in PLANS.values()} <= set(SIZES)
    assert CONFIGS.is_dir()
    with pytest.raises(ValueError, match="there are no lips; run the quickstart first"):
        Comparison(tmp_path / "out", PLANS["smoke"], Console(file=io.StringIO()), corpus=tmp_path).make_corpus()


def test_the_report_has_every_measure_of_every_seed(tmp_path: Path, jobs: list[Job]) -> None:
    comparison = Comparison(tmp_path, PLANS["smoke"], Console(file=io.StringIO()))
    for seed in (1, 2):
        comparison.finetune(seed)
    found = comparison.report()
    for start in TITLES:
        for path in MEASURES:
            given, noise = path.split("/")
            assert found["results"][start][given][noise]["seeds"] == [50.0 if noise == "0" else 40.0] * 2


def test_the_table_has_the_mean_and_the_range_and_the_plot_is_a_picture(tmp_path: Path) -> None:
    screen = io.StringIO()
    Console(file=screen, width=130).print(table(report()))
    assert all(words in screen.getvalue() for words in (*TITLES.values(), *MEASURES.values()))
    assert screen.getvalue().count("12.5 (10.0-15.0)") == len(TITLES) * len(MEASURES)
    draw(report(), tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_it_runs_from_a_corpus_to_figures(tmp_path: Path) -> None:
    pytest.importorskip("espeakng_loader")
    plan = Plan("smoke", 5, 2, 0.5, 6, 1, 1)
    found = Comparison(tmp_path, plan, Console(file=io.StringIO()), ("max_rows=4",)).run()
    assert set(found["results"]) == set(TITLES)
    assert all(noise["seeds"][0] >= 0 for row in found["results"].values() for each in row.values() for noise in each.values())
    json.dumps(found)
