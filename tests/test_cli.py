"""The command line: help for strangers, one function per verb, one-sentence errors, exit codes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from avtlm import __version__, cli
from avtlm.training import loop

VERBS = ("train", "units", "transcribe", "synthesize", "convert-voice", "enhance", "evaluate", "info", "doctor")


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
