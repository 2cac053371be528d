"""Runs: what is started, what is left out, what a failure does to the others, and how a stop is handed on."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.evidence import __main__ as evidence
from benchmarks.evidence.page import PAGE
from benchmarks.evidence.runs import ROOT, RUNS, Settings, Stopped, commands, duration, missing, read_results, run_all, start
from tests.benchmarks.evidence.made_results import report, write
from tests.benchmarks.evidence.test_page import in_favour
from tests.benchmarks.evidence.test_recipes import quick
from tests.test_docs import understand


def given(arguments: Sequence[str], option: str) -> str:
    return arguments[list(arguments).index(option) + 1]


class Machine:
    """Stands in for the processes: writes what the module would, or fails."""

    def __init__(self, failing: tuple[str, ...] = (), silent: tuple[str, ...] = ()) -> None:
        self.failing, self.silent = failing, silent
        self.started: list[list[str]] = []

    def __call__(self, arguments: Sequence[str]) -> int:
        self.started.append(list(arguments))
        name = arguments[0].rpartition(".")[2]
        if name in self.failing:
            return 3
        if name not in self.silent:
            if "--json" in arguments:
                path = Path(given(arguments, "--json"))
                write(path.parent, path.stem, report(name, in_favour))
            else:
                write(Path(given(arguments, "--out")), "report", quick(int(given(arguments, "--seed")), 10.0))
        return 0


def settings(tmp_path: Path, **changes: object) -> Settings:
    folders = {"speech": tmp_path / "speech", "noise": tmp_path / "noise"}
    return Settings(tmp_path / "out", tmp_path / "results", **({"folders": folders} | changes))  # type: ignore[arg-type]


def quiet() -> Console:
    return Console(file=io.StringIO(), width=200)


def said(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("name", RUNS)
def test_commands_are_ones_that_their_modules_understand(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for smoke in (False, True):
        module, *arguments = commands(name, settings(tmp_path, smoke=smoke))[0]
        understand(module, arguments, monkeypatch)


def test_a_recipe_is_run_once_for_every_seed_in_a_folder_of_its_own(tmp_path: Path) -> None:
    machine = Machine()
    ended = run_all(["quickstart"], settings(tmp_path, seeds=2), quiet(), start=machine)
    assert [each.how for each in ended] == ["done"]
    assert [given(each, "--seed") for each in machine.started] == ["1", "2"]
    assert len({given(each, "--out") for each in machine.started}) == 2
    found = read_results(tmp_path / "results", "quickstart")
    assert found is not None
    assert found["results"]["start"]["scratch"]["av"]["0"]["seeds"] == [11.0, 11.0]
    assert found["command"] == "python -m demos.quickstart --seed N"


def test_everything_is_measured_though_there_are_results_and_replaces_them(tmp_path: Path) -> None:
    """A comparison takes seeds from the file that it writes, if they are there; the page has to come from what is run now."""
    asked = settings(tmp_path)
    before = report("mandarin", in_favour) | {"measured": "before"}
    for folder, name in ((asked.results, "mandarin"), (asked.out / "mandarin", "results")):
        write(folder, name, before)
    seen: list[bool] = []

    class Looking(Machine):
        def __call__(self, arguments: Sequence[str]) -> int:
            seen.append(Path(given(arguments, "--json")).exists())
            assert read_results(asked.results, "mandarin") == before, "what is there stays until there is something new"
            return super().__call__(arguments)

    [ended] = run_all(["mandarin"], asked, quiet(), start=Looking())
    assert (ended.how, seen) == ("done", [False])
    assert read_results(asked.results, "mandarin") == report("mandarin", in_favour)


def test_a_failure_ends_no_other_run_and_nothing_is_claimed_done_without_results(tmp_path: Path) -> None:
    machine = Machine(failing=("mandarin",), silent=("multistage",))
    console, seen = quiet(), []
    ended = run_all(["mandarin", "multistage", "unpaired_text"], settings(tmp_path), console, lambda: seen.append("after"), start=machine)
    assert [(each.name, each.how) for each in ended] == [("mandarin", "failed"), ("multistage", "failed"), ("unpaired_text", "done")]
    assert "ended with exit status 3" in ended[0].why
    assert "has left no results" in ended[1].why
    assert seen == ["after"]


def test_runs_without_their_recordings_are_left_out(tmp_path: Path) -> None:
    machine = Machine()
    asked = settings(tmp_path, folders={"speech": tmp_path})
    ended = run_all(["self_supervised", "one_encoder"], asked, quiet(), start=machine)
    assert [each.how for each in ended] == ["done", "left out"]
    assert ended[1].why.startswith("needs NOISE=DIR, ")
    assert given(machine.started[0], "--speech") == str(tmp_path.resolve())


def test_a_run_waits_for_the_models_of_the_one_before_it(tmp_path: Path) -> None:
    asked = settings(tmp_path, seeds=2)
    [ended] = run_all(["superb_speechlm"], asked, quiet(), start=Machine())
    assert (ended.how, ended.why) == ("left out", "needs the models of the run unpaired_text, which has to end well before it")
    for command in commands("superb_speechlm", asked):
        for model in (word for word in command if word.endswith("/model")):
            assert missing("superb_speechlm", asked) is not None
            Path(model).mkdir(parents=True)
    assert missing("superb_speechlm", asked) is None
    assert RUNS["superb_speechlm"].shown == "python -m benchmarks.superb --model DIR DIR --tasks KS SID PR ASR --seed N"


def test_progress_says_what_is_left_by_what_earlier_runs_took(tmp_path: Path) -> None:
    """Results say two hours for three seeds; the other run has only its estimate."""
    write(tmp_path / "results", "mandarin", report("mandarin", in_favour))
    console = quiet()
    run_all(["mandarin", "multistage"], settings(tmp_path, seeds=6), console, start=Machine())
    first = next(line for line in said(console).splitlines() if "mandarin" in line)
    assert "[1/2]" in first
    other = 60 * RUNS["multistage"].minutes * 6 / 3
    assert f"about 4.0 h; all that is left about {duration(4 * 3600 + other)}" in first
    assert duration(1) == "1 min"
    assert duration(5400) == "90 min"


# Stopping ------------------------------------------------------------------------------------------------------------------------------

CHILD = """
import pathlib, sys, time
place = pathlib.Path(sys.argv[1])
try:
    (place / "begun").touch()
    time.sleep(60)
except KeyboardInterrupt:
    time.sleep(0.3)
    (place / "saved").touch()
    sys.exit(130)
"""
PARENT = """
import sys
from benchmarks.evidence.runs import Stopped, start
try:
    start(["child", sys.argv[1]])
except Stopped:
    print("stopped")
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_a_stop_waits_until_the_run_has_saved_its_state(number: signal.Signals, tmp_path: Path) -> None:
    (tmp_path / "child.py").write_text(CHILD)
    path = os.pathsep.join([str(ROOT), str(tmp_path)])
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)], env=os.environ | {"PYTHONPATH": path}, cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    for _ in range(600):
        if (tmp_path / "begun").exists():
            break
        time.sleep(0.1)
    process.send_signal(number)
    out, _ = process.communicate(timeout=60)
    assert (tmp_path / "saved").exists()
    assert out == "stopped\n"


def test_a_run_that_was_stopped_itself_stops_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.evidence.runs.ROOT", tmp_path)
    (tmp_path / "child.py").write_text("raise SystemExit(130)")
    with pytest.raises(Stopped):
        start(["child"])
    (tmp_path / "child.py").write_text("raise SystemExit(7)")
    assert start(["child"]) == 7


# The command ---------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The command writes its page and results below a folder."""
    page = tmp_path / "evidence.md"
    page.write_text(PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(evidence, "PAGE", page)
    monkeypatch.setattr(evidence, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(evidence, "write_page", lambda page, results: write_page(page, results, PAGE))
    return tmp_path


def write_page(page: Path, results: Path, source: Path) -> None:
    from benchmarks.evidence import page as pages

    pages.write_page(page, results, source)


def use(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "run_all", lambda names, asked, console, after: run_all(names, asked, console, after, machine))


def test_one_system_is_run_and_put_on_the_page(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine()
    use(machine, monkeypatch)
    assert evidence.main(["speechut", "--out", str(places / "out")]) == 0
    assert [each[0] for each in machine.started] == ["benchmarks.unpaired_text"]
    text = (places / "evidence.md").read_text(encoding="utf-8")
    assert "| [SpeechUT](#speechut) | Does unpaired text in pre-training lower word errors? | **agrees** |" in text
    assert "| [MMSpeech](#mmspeech) | Do five tasks on speech, text and pairs lower character errors? | not yet run |" in text


def test_the_exit_status_says_that_something_failed(
    places: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use(Machine(failing=("mandarin",)), monkeypatch)
    assert evidence.main(["mmspeech", "multistage", "--out", str(places / "out")]) == 1
    shown = capsys.readouterr().err
    assert "mandarin: failed" in shown
    assert "multistage: done" in shown
    assert (places / "results" / "multistage.json").exists()


def test_recordings_are_wanted_of_those_who_ask_for_what_needs_them(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(Machine(), monkeypatch)
    assert evidence.main(["mt4ssl", "--out", str(places / "out")]) == 1
    assert evidence.main(["mt4ssl", "--out", str(places / "out"), "--speech", str(places)]) == 0


def test_a_stop_is_an_exit_status_of_its_own(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(names: Sequence[str], asked: Settings, console: Console, after: object) -> list[object]:
        raise Stopped

    monkeypatch.setattr(evidence, "run_all", stop)
    assert evidence.main(["mmspeech", "--out", str(places / "out")]) == 130


def test_smoke_leaves_the_page_and_the_results_alone(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine()
    use(machine, monkeypatch)
    before = (places / "evidence.md").read_text(encoding="utf-8")
    assert evidence.main(["mmspeech", "--smoke", "--out", str(places / "out")]) == 0
    assert given(machine.started[0], "--size") == "smoke"
    assert (places / "evidence.md").read_text(encoding="utf-8") == before
    assert json.loads((places / "out" / "results" / "mandarin.json").read_text())["results"]
    assert "**agrees**" in (places / "out" / "evidence.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("arguments", "message"), [(["vatml"], "'vatml' is no system of the page"), (["--seeds", "0"], "--seeds 0")])
def test_wrong_arguments_are_said_in_one_sentence(
    arguments: list[str], message: str, places: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evidence.main([*arguments, "--out", str(places / "out")]) == 1
    assert capsys.readouterr().err.startswith(f"evidence: {message}")
