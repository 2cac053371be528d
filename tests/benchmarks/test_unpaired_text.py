"""The comparison of pre-trainings with and without unpaired text: what it leaves out, what it reports, and that it runs."""

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from avtlm import config
from avtlm.data.manifest import Manifest, Utterance, read_manifest, validate, write_manifest
from avtlm.data.media import write_wav
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
    main,
    table,
)
from preprocess.corpora.read_aloud import SIZES
from tests.made_media import chirps, tone


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


def recordings(folder: Path) -> Path:
    """A string's worth of digits and five seconds of something else."""
    for digit in range(4):
        write_wav(folder / "digits" / f"{digit}_ann_0.wav", tone(0.5, 8000, 200 + 100 * digit), 8000)
    write_wav(folder / "reading" / "long.wav", chirps(5.0))
    return folder


def test_recordings_are_further_rows_of_what_has_no_transcripts_however_often_the_stage_is_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def generate(out: Path, size: str) -> None:
        if not (out / "unpaired" / "manifest.jsonl").exists():
            write_wav(out / "unpaired" / "a.wav", chirps(1.0))
            row = Utterance("a", audio="a.wav", audio_samples=16_000)
            write_manifest(out / "unpaired" / "manifest.jsonl", Manifest(out / "unpaired", (row,)))

    monkeypatch.setattr("preprocess.corpora.read_aloud.generate", generate)
    out, speech = tmp_path / "out", recordings(tmp_path / "speech")
    for _ in range(2):
        run = Comparison(out, PLANS["smoke"], Console(file=io.StringIO()), speech=speech)
        run.make_corpus()
        made = read_manifest(run.part("unpaired"))
        assert [row.id for row in made] == ["a", "digits_ann_000", "recording_0000_000", "recording_0000_001"]
        assert all(row.transcript is None for row in made)
        assert validate(made, read_files=True) == []
    alone = Comparison(tmp_path / "alone", PLANS["smoke"], Console(file=io.StringIO()))
    alone.make_corpus()
    assert len(read_manifest(alone.part("unpaired"))) == 1


@pytest.mark.usefixtures("in_this_process")
def test_a_folder_without_recordings_is_refused_and_seeds_without_them_are_not_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.comparison_corpora.OnReadAloud.make_corpus", lambda self: None)
    monkeypatch.setattr("avtlm.data.manifest.read_manifest", lambda path: Manifest(tmp_path, ()))
    results = tmp_path / "results.json"
    results.write_text(json.dumps({"plan": dataclasses.asdict(PLANS["smoke"]) | {"changes": []}, "by_seed": [{}, {}]}))
    (tmp_path / "empty").mkdir()
    for folder, reason in (("none", "there is no such folder"), ("empty", "holds no recordings; name a folder with some")):
        arguments = ["--speech", str(tmp_path / folder), "--out", str(tmp_path / "out"), "--size", "smoke", "--json", str(results)]
        assert main(arguments) == 1
        assert f"{tmp_path / folder}: {reason}" in capsys.readouterr().err


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
