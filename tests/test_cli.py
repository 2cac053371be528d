"""The command line: help for strangers, one function per verb, one-sentence errors, exit codes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from avtlm import __version__, cli
from avtlm.data.media import write_wav
from avtlm.training import loop
from tests import made_media
from tests.made_model import save_corpus, save_tiny_recognizer

VERBS = ("train", "units", "transcribe", "synthesize", "convert-voice", "enhance", "evaluate", "info", "doctor")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_tiny_recognizer(tmp_path_factory.mktemp("tiny") / "model"))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_corpus(tmp_path_factory.mktemp("corpus"))


def failure(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 1) -> str:
    """Run a command that must fail; return its one sentence."""
    assert cli.main(list(arguments)) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("avtlm: ")
    assert "Traceback" not in lines[0]
    assert "unexpected" not in lines[0]
    return lines[0]


def test_without_a_verb_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    text = capsys.readouterr().out
    assert all(verb in text for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main([verb, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert f"usage: avtlm {verb}" in text
    assert "--debug" in text


def test_the_surface_of_the_command_line_is_frozen() -> None:
    """A new verb or option is a promise: change this list with intent, and the README with it."""
    parser = cli._parser()
    actions = next(action for action in parser._actions if action.dest == "verb")
    assert actions.choices is not None
    surface = {
        name: sorted(
            option
            for action in sub._actions
            for option in (sorted(action.option_strings, key=len) or [action.dest])[-1:]
            if option != "--help"
        )
        for name, sub in dict(actions.choices).items()
    }
    assert surface == {
        "train": ["--debug", "config", "overrides"],
        "plan": ["--debug", "--device", "--efficiency", "--gpus", "--hours", "--json", "--utilisation", "config", "overrides"],
        "profile": ["--debug", "--json", "--steps", "config", "overrides"],
        "units": ["--batch-frames", "--clusters", "--clusters-from", "--debug", "--dump", "--fit-split", "--fraction", "--km", "--layer",
                  "--max-iterations", "--max-no-improvement", "--modality", "--model", "--plain-mfcc", "--rate", "--restarts", "--seed",
                  "--shard", "--split", "--stream", "manifest", "out"],
        "transcribe": ["--backend", "--debug", "--decoding", "--format", "--geometry", "--int8", "--json", "--min-silence", "--modality",
                       "--model", "--out", "--real-time", "--resume", "--srt", "--stream", "--vad", "--vtt", "--window", "files"],
        "synthesize": ["--attention", "--debug", "--file", "--longest", "--mel", "--model", "--out", "--seed", "--speaker", "--threshold",
                       "--vocoder", "--voice", "text"],
        **{verb: ["--attention", "--debug", "--longest", "--mel", "--model", "--out", "--seed", "--speaker", "--threshold", "--vocoder",
                  "--voice", "--window", "files"] for verb in ("convert-voice", "enhance")},
        "evaluate": ["--cells", "--characters", "--debug", "--decoding", "--json", "--limit", "--modality", "--model", "--noise",
                     "--noise-dir", "--out", "--plot", "--recognizer", "--seed", "--snr", "--split", "--translation", "--visual",
                     "--visual-snr", "--vocoder", "--voices", "manifest"],
        "average": ["--debug", "--out", "models"],
        "label": ["--debug", "--min-confidence", "--modality", "--model", "--out", "--split", "manifest"],
        "convert": ["--averaged", "--debug", "--out", "--pretrained", "--system", "--to", "--vocabulary", "source"],
        "visualize": ["--debug", "--inputs", "--layer", "--limit", "--model", "--out", "--seed", "--split", "manifest"],
        "units text2units": ["--alphabet", "--beam", "--debug", "--dictionary", "--lexicon", "--missing", "--model", "--no-durations",
                             "--out", "--reduced", "--seed", "--unknown", "text"],
        "units reduce": ["--debug", "--durations", "--out", "labels"],
        "visualize alignment": ["--debug", "--layers", "--limit", "--model", "--out", "--seed", "--split", "--units", "manifest"],
        "pipeline": ["--again", "--debug", "configs"],
        "export": ["--debug", "--format", "--int8", "--json", "--opset", "--out", "model"],
        "report": ["--debug", "--manifest", "--modality", "--out", "--samples", "--seed", "--split", "--title", "folders"],
        "pull": ["--debug", "--revision", "name"],
        "push": ["--debug", "--licence", "--private", "model", "name"],
        "teach": ["--debug", "--device", "--labels", "--out", "--teachers", "manifest"],
        "tag": ["--debug", "--json", "--least", "--manifest", "--model", "--split", "--top", "--window", "files"],
        "verify": ["--debug", "--json", "--manifest", "--model", "--split", "--threshold", "--trials", "--window", "files"],
        "superb": ["--batch", "--cache", "--data", "--debug", "--device", "--json", "--lr", "--lr-sweep", "--model", "--no-cache", "--out",
                   "--seed", "--steps", "overrides", "task"],
        "info": ["--debug", "--json", "path"],
        "doctor": ["--debug", "--json"],
    }  # fmt: skip


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["--version"])
    assert stop.value.code == 0
    assert __version__ in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments", [["fly"], ["transcribe"], ["transcribe", "a", "--modality", "x"], ["transcribe", "a", "--srt", "--json"], ["info"]]
)
def test_wrong_use_exits_with_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2


def test_train_calls_the_function_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(loop, "train", lambda config, overrides: Path(config, *overrides))
    assert cli.main(["train", "c.yaml", "a=1", "b.c=2"]) == 0
    assert capsys.readouterr().out == "model: c.yaml/a=1/b.c=2\n"


def test_a_missing_configuration_is_wrong_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "none.yaml: cannot read this configuration" in failure(capsys, "train", str(tmp_path / "none.yaml"), code=2)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("sytem: vatlm\n", "key 'sytem' is not known; did you mean 'system'?"),
        ("system: [vatlm]\n", "key 'system' is ['vatlm']; expected text."),
    ],
)
def test_a_wrong_configuration_is_wrong_use(content: str, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(content)
    sentence = failure(capsys, "train", str(path), code=2)
    assert sentence == f"avtlm: {path}: {reason}"
    assert os.listdir(tmp_path) == ["c.yaml"]


def test_info_describes_a_media_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = made_media.write_media(tmp_path / "a.mp4", made_media.talking(0.4), audio=made_media.tone(0.4, 44100), rate=44100, channels=2)
    assert cli.main(["info", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["kind"] == "media"
    assert (found["video"]["codec"], found["video"]["fps"]) == ("h264", 25.0)
    assert found["audio"] == [{"codec": "aac", "sample_rate": 44100, "channels": 2}]


def test_info_describes_a_manifest(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (corpus, corpus.parent):
        assert cli.main(["info", str(path), "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert (found["kind"], found["utterances"], found["number of problems"]) == ("manifest", 6, 0)
        assert found["splits"]["test"]["words"] == 15


def test_info_describes_a_model(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info", model]) == 0
    text = capsys.readouterr().out
    assert "vatlm" in text
    assert "weights.safetensors" in text


@pytest.mark.parametrize("kind", ["missing", "text", "empty folder", "broken manifest"])
def test_info_says_what_is_wrong(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = {
        "missing": tmp_path / "none",
        "text": tmp_path / "a.mp4",
        "empty folder": tmp_path / "empty",
        "broken manifest": tmp_path / "m.jsonl",
    }[kind]
    (tmp_path / "a.mp4").write_text("this is a text")
    (tmp_path / "empty").mkdir()
    (tmp_path / "m.jsonl").write_text("{}\n")
    assert str(path) in failure(capsys, "info", str(path))


def test_doctor_reports_versions_and_backends(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["doctor", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["versions"]["avtlm"] == __version__
    assert found["attention"]["sdpa on cpu"].startswith("works")
    assert found["attention"]["reference on cpu"].startswith("works")
    assert "h264" in found["codecs"]["decodes"]


def test_transcribe_a_sound_file(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = made_media.write_media(tmp_path / "a.mp4", None, audio=made_media.chirps(1.0))
    assert cli.main(["transcribe", str(path), "--model", model, "--modality", "a"]) == 0
    text = capsys.readouterr().out.strip()
    assert text
    assert cli.main(["transcribe", str(path), "--model", model, "--modality", "a", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["file"], found["text"], found["duration"]) == (str(path), text, pytest.approx(1.0, abs=0.05))


@pytest.mark.parametrize(("kind", "start"), [("srt", "1\n00:00:0"), ("vtt", "WEBVTT")])
def test_transcribe_to_subtitles(kind: str, start: str, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(made_media.write_media(tmp_path / "a.mp4", None, audio=made_media.chirps(1.0)))
    assert cli.main(["transcribe", path, "--model", model, "--modality", "a", f"--{kind}", "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / f"a.{kind}").read_text().startswith(start)
    assert capsys.readouterr().out.strip() == str(tmp_path / "out" / f"a.{kind}")


def test_a_file_is_written_in_the_format_of_its_name(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(made_media.write_media(tmp_path / "a.mp4", None, audio=made_media.chirps(1.0)))
    search = ["--decoding", "method=ctc_beam", "--decoding", "nbest=3", "--decoding", "hot_words={blue: 30}"]
    for name in ("x.json", "x.srt", "x.txt"):
        target = tmp_path / "new" / name
        assert cli.main(["transcribe", path, "--model", model, "--modality", "a", "-o", str(target), *search]) == 0
        assert capsys.readouterr().out.strip() == str(target)
    found = json.loads((tmp_path / "new" / "x.json").read_text())
    assert "blue" in found["text"].split()
    assert len(found["hypotheses"]) == 3
    assert all(set(each["components"]) == {"ctc", "hot_words"} for each in found["hypotheses"])
    assert all(0 <= word["start"] < word["end"] <= 1.1 and 0 <= word["confidence"] <= 1 for word in found["words"])
    assert (tmp_path / "new" / "x.txt").read_text() == found["text"] + "\n"
    assert " --> " in (tmp_path / "new" / "x.srt").read_text()
    assert cli.main(["transcribe", path, "--model", model, "--modality", "a", "--format", "json", *search]) == 0
    assert json.loads(capsys.readouterr().out)["words"] == found["words"]
    assert "does not fit" in failure(capsys, "transcribe", path, "--model", model, "--format", "vtt", "-o", "x.srt", code=2)


def test_subtitles_of_several_files_need_a_folder(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--out FOLDER" in failure(capsys, "transcribe", "a.mp4", "b.mp4", "--srt", "--model", model, code=2)


def test_a_broken_file_is_reported_and_the_others_go_on(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = [str(made_media.write_media(tmp_path / f"{name}.mp4", None, audio=made_media.chirps(0.8))) for name in "ac"]
    bad = tmp_path / "b.mp4"
    bad.write_text("not a film")
    assert cli.main(["transcribe", good[0], str(bad), good[1], "--model", model, "--modality", "a"]) == 1
    captured = capsys.readouterr()
    assert [line.split("\t")[0] for line in captured.out.splitlines()] == good
    assert str(bad) in captured.err.splitlines()[0]
    assert "1 of 3 files" in captured.err.splitlines()[-1]


@pytest.mark.parametrize("case", ["no audio track", "silent", "a text file", "an empty file", "missing", "three samples"])
def test_unusable_sound_is_one_sentence(case: str, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "clip.mp4"
    if case == "no audio track":
        made_media.write_media(path, made_media.talking(0.4))
    elif case == "silent":
        made_media.write_media(path, made_media.talking(0.4), audio=np.zeros(6400, np.float32))
    elif case == "three samples":
        path = tmp_path / "clip.wav"
        write_wav(path, np.array([0.1, 0.2, 0.3], np.float32))
    elif case != "missing":
        path.write_text("some text" if case == "a text file" else "")
    assert str(path) in failure(capsys, "transcribe", str(path), "--model", model, "--modality", "a")


def test_a_model_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sentence = failure(capsys, "transcribe", "a.mp4", "--model", str(tmp_path / "none"), "--modality", "a")
    assert "none: there is no such model" in sentence
    assert "make quickstart" in sentence


@pytest.mark.parametrize("file", ["weights.safetensors", "config.yaml", "vocabulary.json"])
def test_a_model_folder_with_a_missing_file_is_named(file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = save_tiny_recognizer(tmp_path / "model")
    (folder / file).unlink()
    assert f"{file} is missing" in failure(capsys, "transcribe", "a.mp4", "--model", str(folder), "--modality", "a")


def test_evaluate_prints_a_table_and_writes_json(model: str, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "wer.json")
    arguments = ["evaluate", str(corpus), "--model", model, "--modality", "a", "v", "av", "--snr", "0", "-5", "--out", out]
    assert cli.main(arguments) == 0
    table = capsys.readouterr().out
    assert "audio-visual" in table
    assert "-5 dB" in table
    found = json.loads(Path(out).read_text())
    assert set(found["wer"]) == {"a", "v", "av"}
    assert set(found["wer"]["a"]) == {"clean", "0", "-5"}
    assert found["wer"]["v"]["0"] == found["wer"]["v"]["clean"]
    assert (found["utterances"], found["words"]) == (5, 15)


def test_evaluate_takes_kinds_of_noise_and_ratios_as_lists(
    model: str, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, plot = str(tmp_path / "wer.json"), tmp_path / "wer.png"
    arguments = ["evaluate", str(corpus), "--model", model, "--modality", "a", "av", "--noise", "babble,white", "--snr", "-10,0,5"]
    assert cli.main([*arguments, "--out", out, "--plot", str(plot)]) == 0
    report = json.loads(Path(out).read_text())
    assert report["noise"] == ["babble", "white"]
    assert list(report["by_noise"]["white"]["wer"]["a"]) == ["clean", "-10", "0", "5"]
    assert plot.read_bytes().startswith(b"\x89PNG")
    table = capsys.readouterr().out
    assert all(word in table for word in ("babble", "white", "mean", "-10 dB"))
    assert cli.main([*arguments[:3], model, "--snr=-5,0", "--plot", str(plot), "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)["wer"]["av"]) == ["clean", "-5", "0"]


def test_evaluate_corrupts_pictures_and_keeps_its_cells(
    model: str, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, cells = str(tmp_path / "wer.json"), tmp_path / "cells"
    arguments = ["evaluate", str(corpus), "--model", model, "--modality", "a", "v", "--visual", "blur=2", "offset", "--cells", str(cells)]
    assert cli.main([*arguments, "--snr", "0", "--out", out, "--plot", str(tmp_path / "wer.png")]) == 0
    table = capsys.readouterr().out
    assert "blur: standard deviation of the blur (sound: clean)" in table
    report = json.loads(Path(out).read_text())
    assert list(report["visual"]["offset"]["wer"]["v"]) == ["-400", "-200", "-80", "0", "80", "200", "400"]
    assert report["origin"]["versions"]["avtlm"] == __version__
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["wer.png", "wer_visual.png"]
    assert len(list(cells.iterdir())) == 2 + 1 + 1 + 6  # clean sound and lips; noise; blur; offsets
    assert cli.main([*arguments, "--json", "--visual-snr", "0", "--plot", str(tmp_path / "lips.png")]) == 0
    assert json.loads(capsys.readouterr().out)["visual_sound"] == "babble, 0 dB"
    assert (tmp_path / "lips.png").read_bytes().startswith(b"\x89PNG")
    assert "'fog' is unknown" in failure(capsys, *arguments[:4], "--visual", "fog")


def test_noise_without_ratios_and_ratios_that_are_none_are_wrong_use(model: str, corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["evaluate", str(corpus), "--model", model]
    assert "--noise and --noise-dir need signal-to-noise ratios" in failure(capsys, *arguments, "--noise", "white", code=2)
    with pytest.raises(SystemExit) as stop:
        cli.main([*arguments, "--snr", "loud"])
    assert stop.value.code == 2
    assert "'loud' is not a list of ratios in dB" in capsys.readouterr().err
    assert "give the folder that has music/test.tsv" in failure(capsys, *arguments, "--snr", "0", "--noise", "babble,music")


def test_evaluate_of_a_split_that_is_not_there_is_one_sentence(model: str, corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no utterance of split valid" in failure(capsys, "evaluate", str(corpus), "--model", model, "--split", "valid")


def test_units_are_made_from_a_manifest(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["units", str(corpus), str(tmp_path / "units"), "--clusters", "4", "--fit-split", "test"]) == 0
    assert "6 utterances" in capsys.readouterr().out
    files = sorted(path.name for path in (tmp_path / "units").iterdir())
    assert files == ["kmeans.json", "kmeans.safetensors", "manifest.report.json", "manifest.units"]


def test_units_of_a_large_corpus_are_made_in_parts(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["units", str(corpus), str(tmp_path / "units"), "--dump", str(tmp_path / "dump"), "--clusters", "4", "--fit-split", "test"]
    assert cli.main([*common, "--shard", "2/2"]) == 0
    assert "shard 2/2: 0 pieces done, 1 missing" in capsys.readouterr().out
    assert cli.main([*common, "--shard", "1/2"]) == 0
    assert "shard 1/2: 1 pieces done, all there: run it without --shard" in capsys.readouterr().out
    assert cli.main([*common, "--km"]) == 0
    text = capsys.readouterr().out
    assert "6 utterances" in text
    assert "4 units in use, perplexity" in text
    assert (tmp_path / "units" / "km" / "dict.km.txt").read_text() == "0 1\n1 1\n2 1\n3 1\n"
    assert "shard: '3'; write it as 2/8" in failure(capsys, *common, "--shard", "3")
    assert "shard: 3/2" in failure(capsys, *common, "--shard", "3/2")


def test_an_unforeseen_error_says_how_to_see_more(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(config: str, overrides: list[str]) -> None:
        raise KeyError("deep inside")

    monkeypatch.setattr(loop, "train", fail)
    assert cli.main(["train", "c.yaml"]) == 1
    text = capsys.readouterr().err
    assert "unexpected KeyError: 'deep inside'" in text
    assert "--debug" in text
    for arguments in (["--debug", "train", "c.yaml"], ["train", "c.yaml", "--debug"]):
        with pytest.raises(KeyError):
            cli.main(arguments)


def test_control_c_exits_with_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def stop(config: str, overrides: list[str]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "train", stop)
    assert cli.main(["train", "c.yaml"]) == 130
    assert capsys.readouterr().err == "avtlm: stopped.\n"


def test_a_real_interrupt_of_a_real_process_exits_with_130() -> None:
    script = (
        "import signal, sys, time; from avtlm import cli; from avtlm.verbs import training; "
        "signal.signal(signal.SIGINT, signal.default_int_handler); "  # background jobs ignore it
        "training._train = lambda o: (print('on', flush=True), time.sleep(30)); sys.exit(cli.main(['train', 'x']))"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130


def test_the_installed_command_works() -> None:
    result = subprocess.run([sys.executable, "-m", "avtlm.cli", "--help"], capture_output=True, text=True, check=False)
    assert result.returncode == 0
    assert all(verb in result.stdout for verb in VERBS)
