"""The recipe for a model that hears and speaks: what it reports, and that it runs from a corpus to samples and figures."""

import io
import json
import sys
from pathlib import Path

import pytest
from rich.console import Console

from avtlm.data.media import read_audio
from avtlm.data.sound import SAMPLE_RATE
from avtlm.errors import MissingExtra
from demos.speaking import PLANS, SAMPLES, Plan, Speaking, Whisper, words
from preprocess.corpora.read_aloud import SIZES


def console() -> Console:
    return Console(file=io.StringIO(), width=200)


def test_words_are_compared_without_case_and_punctuation() -> None:
    assert words(" Yesterday, the old man\N{RIGHT SINGLE QUOTATION MARK}s  ball...") == "yesterday the old man's ball"
    assert words("It was 5 o'clock!") == "it was o'clock"
    assert words("...") == ""


def test_every_plan_names_a_size_of_the_corpus() -> None:
    assert {plan.corpus for plan in PLANS.values()} <= set(SIZES)


def test_the_report_has_all_judges(tmp_path: Path) -> None:
    run = Speaking(tmp_path, PLANS["smoke"], 1, console())
    rates = {"avtlm": {"recorded": 2.0, "synthesised": 9.5}, "whisper": {"recorded": 20.0, "synthesised": 31.0}}
    ends = {name: {kind: [rate - 1.0, rate + 3.0] for kind, rate in each.items()} for name, each in rates.items()}
    found = {"utterances": 120, "cut": 3, "wer": rates, "interval_95": ends, "texts": {}}
    (tmp_path / "evaluation.json").write_text(json.dumps(found))
    report = json.loads(run.report().read_text())
    assert report["wer"] == rates
    assert report["plan"]["asr_steps"] == PLANS["smoke"].asr_steps
    assert isinstance(run.console.file, io.StringIO)
    shown = " ".join(run.console.file.getvalue().split())  # titles are wrapped
    assert "120 unseen sentences" in shown
    assert "Whisper tiny.en" in shown
    assert "9.5 ±2" in shown
    assert "3 of 120 did not end by themselves" in shown


def test_without_whisper_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faster_whisper", None)
    with pytest.raises(MissingExtra, match=r"avtlm\[whisper\]"):
        Whisper()


@pytest.mark.slow
def test_a_small_run_leaves_samples_and_figures_and_is_not_run_twice(tmp_path: Path) -> None:
    pytest.importorskip("espeakng_loader")
    plan = Plan("smoke", 10, 2, 2, 2)
    changes = ("max_rows=4",)
    first = Speaking(tmp_path, plan, 1, console(), changes)
    report = json.loads(first.run().read_text())
    assert report["utterances"] == 6
    assert set(report["wer"]["avtlm"]) == {"recorded", "synthesised"}
    assert len(list((tmp_path / "samples").glob("*_synthesised.wav"))) == min(SAMPLES, 6)
    assert len(list((tmp_path / "samples").glob("*_attention.png"))) == min(SAMPLES, 6)
    for path in sorted((tmp_path / "synthesised").iterdir()):
        assert len(read_audio(path)) > 0.1 * SAMPLE_RATE
    again = Speaking(tmp_path, plan, 1, console(), changes)
    again.run()
    assert isinstance(again.console.file, io.StringIO)
    assert again.console.file.getvalue().count("done before") == 5
