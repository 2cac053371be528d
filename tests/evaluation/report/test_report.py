"""A page says what lies in a folder, of whatever system, and nothing in the folder can add to its markup."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from avtlm import cli
from avtlm.data.manifest import Manifest, read_manifest, write_manifest
from avtlm.evaluation.evaluate import evaluate
from avtlm.evaluation.report import report
from avtlm.evaluation.report.training import number
from tests.evaluation.report.read_page import read_page
from tests.made_corpus import MadeCorpus, make_corpus
from tests.test_cli import failure
from tests.training.made_runs import DECODER, MODEL, pretraining, recognition, run

HOSTILE = "</td><script>alert(1)</script><img src=http://evil.example/x.png onerror=alert(2)> ]]> \x00 & \"'"
SMALL = {"steps": 6, "log_every": 2, "save_every": 6}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> MadeCorpus:
    return make_corpus(tmp_path_factory.mktemp("corpus"), 12)


@pytest.fixture(scope="module")
def pretrained(corpus: MadeCorpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(pretraining(corpus, tmp_path_factory.mktemp("runs") / "pretrain", **SMALL)).parent


@pytest.fixture(scope="module")
def finetuned(corpus: MadeCorpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a recogniser with CTC and an attention decoder, and its evaluation."""
    model = {"encoder": MODEL, "modality_dropout": 0.0, "ctc_weight": 0.5, "decoder": DECODER, "dropout": 0.0}
    folder = tmp_path_factory.mktemp("runs") / "finetune"
    run(recognition(corpus, folder, model=model, validate_every=3, **SMALL))
    asked = {"split": "valid", "snrs": [0.0], "noise": "white", "visual": {"missing": (50.0,)}, "cells": folder / "cells"}
    found = evaluate(corpus.clips, folder / "model", ["a", "av"], **asked)  # type: ignore[arg-type]
    (folder / "evaluation.json").write_text(json.dumps(found.to_json()))
    return folder


def test_a_fine_tuned_run_is_shown_with_all_its_figures(corpus: MadeCorpus, finetuned: Path, tmp_path: Path) -> None:
    done = report([finetuned], tmp_path / "report.html", corpus.clips, "valid", count=2)
    assert done.problems == ()
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    page = read_page(done.path)
    assert page.all("title") != []
    lines = [json.loads(line) for line in (finetuned / "log.jsonl").read_text().splitlines()]
    figures = {row[0]: row for row in page.table("figures of log.jsonl")[1:]}
    for name in {name for line in lines for name in line} - {"step", "samples"}:
        values = [line[name] for line in lines if name in line]
        assert figures[name][2:4] == [number(values[0]), number(values[-1])], name
        assert figures[name][1] == str(len({line["step"] for line in lines if name in line}))
    evaluation = json.loads((finetuned / "evaluation.json").read_text())
    rates = {row[0]: row for row in page.table("word error rate in % (95 % interval)")[1:]}
    low, high = evaluation["interval_95"]["av"]["0"]
    assert rates["Audio-visual"][2] == f"{evaluation['wer']['av']['0']:.1f} ({low:.1f}-{high:.1f})"
    missing = page.table("missing frames")
    assert missing[0] == ["input", "0 %", "50 %"]
    kinds = {(row[0], row[1]): row for row in page.table("errors by kind")[1:]}
    assert set(kinds) == {
        ("Audio only", "clean"),
        ("Audio only", "white, 0 dB"),
        ("Audio-visual", "clean"),
        ("Audio-visual", "white, 0 dB"),
        ("Audio-visual", "missing 50 %"),
    }
    assert kinds["Audio only", "clean"][8] == "2"
    settings = {row[0]: row[1] for row in page.table("config.yaml")[1:]}
    assert (settings["steps"], settings["task"], settings["optim.lr"]) == ("6", "recognition", "0.003")
    origin = {row[0]: row[1] for row in page.table("where its figures come from")[1:]}
    assert "torch" in origin["training: versions"]
    assert len(page.all("audio")) == len(page.all("img")) == 2
    assert "what CTC says of every frame" in page.text
    assert [row[:2] for row in page.table("Runs of this report")[1:]] == [["finetune", str(finetuned)]]


def test_pretraining_alone_is_shown_and_what_it_lacks_is_said(pretrained: Path, tmp_path: Path) -> None:
    page = read_page(report([pretrained], tmp_path / "report.html").path)
    assert "No figures of an evaluation in JSON" in page.text
    assert "No recognised texts were kept: pretrain." in page.text
    assert "No manifest was given" in page.text
    [row] = page.table("Runs of this report")[1:]
    assert row[2:5] == ["vatlm", "pretrain", "6 of 6"]
    assert page.all("audio") == []


def test_an_evaluation_alone_is_shown(finetuned: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(finetuned / "evaluation.json", alone)
    page = read_page(report([alone], tmp_path / "report.html").path)
    assert "No log.jsonl with figures: alone" in page.text
    assert len(page.table("word error rate in %")) == 3
    (alone / "evaluation.json").write_text(json.dumps({"model": "m", "manifest": "x", "accuracy": 91.25, "interval_95": [90.0, 92.5]}))
    other = dict(read_page(report([alone], tmp_path / "report.html").path).table("Other figures"))
    assert (other["accuracy"], other["model"]) == ("91.25", "m")


def test_runs_are_compared_side_by_side(corpus: MadeCorpus, pretrained: Path, finetuned: Path, tmp_path: Path) -> None:
    changed = tmp_path / "changed"
    shutil.copytree(finetuned, changed)
    text = (changed / "config.yaml").read_text()
    (changed / "config.yaml").write_text(text.replace("lr: 0.003", "lr: 0.01").replace("seed: 1\n", ""))
    evaluation = json.loads((changed / "evaluation.json").read_text())
    evaluation["wer"]["av"]["clean"] += 2.5
    (changed / "evaluation.json").write_text(json.dumps(evaluation))
    page = read_page(report([finetuned, changed], tmp_path / "report.html").path)
    settings = {row[0]: row[1:] for row in page.table("Settings in which the runs differ")[1:]}
    assert settings == {"optim.lr": ["0.003", "0.01"], "seed": ["1", "(not set)"]}
    rates = {row[0]: row[2] for row in page.table("Error rates in % (difference from finetune)")[1:]}
    assert rates["Audio-visual, clean"] == f"{evaluation['wer']['av']['clean']:.1f} (+2.5)"
    assert rates["Audio-visual, 0 dB"].endswith("(+0)")
    last = {row[0]: row[2] for row in page.table("Last values")[1:]}
    assert last["loss"].endswith("(+0)")
    loss = next(svg for svg in page.all("svg") if svg.get("aria-label", "").startswith("loss."))
    assert loss["aria-label"].count("from") == 2  # both curves in one chart
    both = report([pretrained.parent, finetuned.parent], tmp_path / "all.html")
    assert both.runs == (f"{pretrained.parent.name}/pretrain", f"{finetuned.parent.name}/finetune")


def test_a_damaged_log_and_other_damage_are_named_and_the_rest_is_shown(finetuned: Path, tmp_path: Path) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(finetuned, folder)
    whole = (folder / "log.jsonl").read_text()
    (folder / "log.jsonl").write_text('{"step": 1, "loss": NaN}\nnot json\n[1]\n{"loss": 3}\n' + whole + '{"step": 7, "lo')
    (folder / "broken.json").write_text('{"wer": ')
    (folder / "config.yaml").write_text("steps: [1")
    next((folder / "cells").iterdir()).write_text('{"asked": {}, "utterances": 3}')
    (folder / "best" / "weights.safetensors").write_bytes(b"nothing")
    done = report([folder], tmp_path / "report.html")
    page = read_page(done.path)
    named = "\n".join(done.problems)
    assert f"log.jsonl: line 2, 3, {len(whole.splitlines()) + 5}: not a JSON object" in named
    assert "log.jsonl: line 4: has no step" in named
    assert "broken.json: cannot be read" in named
    assert "config.yaml" in named
    assert "is no finished cell" in named
    assert "weights.safetensors is damaged" in named
    assert all(" ".join(problem.split()) in page.text for problem in done.problems)
    figures = {row[0]: row for row in page.table("figures of log.jsonl")[1:]}
    assert figures["loss"][2] == "not finite"
    assert "One value is not finite" in page.text


def test_nothing_in_the_data_becomes_markup(corpus: MadeCorpus, finetuned: Path, tmp_path: Path) -> None:
    folder = tmp_path / "<b>run"
    shutil.copytree(finetuned, folder)
    manifest = read_manifest(corpus.clips)
    rows = tuple(dataclasses.replace(row, id=f"{row.id}{HOSTILE}", transcript=HOSTILE, speaker=HOSTILE) for row in manifest)
    write_manifest(tmp_path / "manifest.jsonl", Manifest(manifest.root, rows))
    for path in (folder / "cells").iterdir():
        cell = json.loads(path.read_text())
        cell["utterances"] = [{"id": row.id, "reference": HOSTILE, "text": HOSTILE.upper()} for row in rows]
        cell["asked"] |= {"noise": HOSTILE}
        path.write_text(json.dumps(cell))
    evaluation = json.loads((folder / "evaluation.json").read_text())
    evaluation |= {"manifest": HOSTILE, "split": HOSTILE, "utterances": HOSTILE, "visual_sound": HOSTILE, "origin": {"command": HOSTILE}}
    evaluation["wer"]["av"][HOSTILE] = 1.0
    (folder / f"{'x' * 9}.json").write_text(json.dumps(evaluation))
    (folder / "config.yaml").write_text(json.dumps({"a": HOSTILE.replace("\x00", ""), "steps": HOSTILE.replace("\x00", "")}))
    line = {"step": 9, HOSTILE: 1.0, "samples": [{"id": HOSTILE, "reference": HOSTILE, "text": HOSTILE}]}
    (folder / "log.jsonl").write_text(json.dumps(line) + "\n")
    (folder / "starts.jsonl").write_text(json.dumps({"command": HOSTILE, "machine": {HOSTILE: HOSTILE}}) + "\n")
    done = report([folder], tmp_path / "report.html", tmp_path / "manifest.jsonl", "valid", 1, title=HOSTILE)
    page = read_page(done.path)
    assert "<script" not in done.path.read_text()
    assert "<script>alert(1)</script>" in page.text
    assert "alert(2)>" in page.text


def test_clips_that_cannot_be_read_are_named_on_the_page(corpus: MadeCorpus, finetuned: Path, tmp_path: Path) -> None:
    manifest = read_manifest(corpus.clips).split("valid")
    lost = dataclasses.replace(manifest[0], audio="none.wav")
    mute = dataclasses.replace(manifest[1], audio=None, audio_samples=0)
    write_manifest(tmp_path / "manifest.jsonl", Manifest(manifest.root, (lost, mute)))
    done = report([finetuned], tmp_path / "report.html", tmp_path / "manifest.jsonl", "valid")
    page = read_page(done.path)
    assert any("none.wav" in problem for problem in done.problems)
    assert "Its sound cannot be read" in page.text
    assert "This clip has no sound." in page.text
    assert len(page.all("img")) == 2


def test_samples_begin_with_the_worst_and_are_the_same_for_the_same_seed(corpus: MadeCorpus, finetuned: Path, tmp_path: Path) -> None:
    pages = [report([finetuned], tmp_path / f"{n}.html", corpus.clips, None, 4, seed).path.read_text() for n, seed in enumerate((0, 0, 1))]
    assert pages[0] == pages[1]
    assert pages[0] != pages[2]
    assert len(read_page(tmp_path / "0.html").all("article")) == 4


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (["none"], 1, "there is no such folder"),
        (["."], 1, "holds no log, no model and no figures"),
        (["{run}", "{run}"], 1, "is given twice"),
        (["{run}", "--samples", "-1"], 1, "samples: -1"),
        (["{run}", "-o", "page.txt"], 2, "name it *.html"),
    ],
)
def test_what_cannot_be_shown_is_one_sentence(
    arguments: list[str],
    code: int,
    reason: str,
    pretrained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    given = [word.format(run=pretrained) for word in arguments]
    assert reason in failure(capsys, "report", *([] if "-o" in given else ["-o", "page.html"]), *given, code=code)
    assert list(tmp_path.iterdir()) == []


def test_the_verb_says_where_the_page_is(pretrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["report", str(pretrained), "-o", str(tmp_path / "deep" / "page.html"), "--title", "My run"]) == 0
    assert capsys.readouterr().out == f"report: {tmp_path / 'deep' / 'page.html'} (0.1 MB)\n"
    assert "My run" in read_page(tmp_path / "deep" / "page.html").text


def test_maps_have_a_row_for_every_symbol_and_a_column_for_every_frame(finetuned: Path) -> None:
    from avtlm.data.dataset import Item
    from avtlm.decoding.settings import DecodingConfig
    from avtlm.evaluation.report.samples import alignments
    from avtlm.transcribe import load_recognizer

    model = load_recognizer(finetuned / "model")
    model.config = dataclasses.replace(model.config, decoding=DecodingConfig("attention", beam=2, min_length=3))  # type: ignore[assignment]
    wave = np.random.default_rng(0).normal(0, 3000, 16000).astype(np.int16)
    text, maps = alignments(model, Item("u", audio=model.inputs.audio(wave, 25)))
    assert text
    values, names = maps["ctc"]
    assert values.shape == (len(names), 25)
    assert names[-1] == "(blank)"
    assert len(set(names)) == len(names)
    looks, tokens = maps["attention"]
    assert looks.shape == (len(tokens), 25)
    assert np.allclose(looks.sum(1), 1, atol=1e-4)
