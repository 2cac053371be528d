"""The runs behind the claims: each a benchmark or recipe in a process and a folder of its own, which goes on where it was stopped.

A run that fails does not end the others. One that needs recordings which nobody named is left out, and said so.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from rich.console import Console

from benchmarks.evidence import recipes
from demos.stages import write_json

ROOT = Path(__file__).resolve().parents[2]
LEFT = "results.json"  # what a comparison leaves in its folder
STOPPED = 130  # how recipes and comparisons end when they were asked to stop
RECORDINGS = {
    "speech": "spoken digits of several speakers (7_speaker_0.wav) and other speech",
    "noise": "recorded sounds, a folder for each class (dog_bark/1-110389-A.ogg)",
}
Merge = Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]]
Start = Callable[[Sequence[str]], int]


@dataclass(frozen=True)
class Run:
    """A command whose results are figures of several seeds.

    Attributes:
        module: what is run, by ``python -m``.
        minutes: what it takes on two cores, roughly, until there are results that say it.
        needs: its options that name folders of recordings, and which ones of `RECORDINGS`.
        merge: of recipes, which are run once for every seed: makes one report of theirs.
        size: of a recipe, where everything is not as small as it gets.
        options: further ones of a recipe; ``{out}`` is the folder of all runs, ``{folder}`` that of this one and its ``{seed}``.
        behind: the run that has to be there before, whose models ``options`` name.
    """

    module: str
    minutes: float
    needs: tuple[tuple[str, str], ...] = ()
    merge: Merge | None = None
    size: str = "default"
    options: tuple[str, ...] = ()
    behind: str | None = None

    @property
    def shown(self) -> str:
        """The command as a page shows it."""
        command = [f"python -m {self.module}", *(f"{option} DIR" for option, _ in self.needs)]
        words = ["DIR" if "/" in word else word for word in self.options if "{folder}" not in word and word != "--json"]
        return " ".join([*command, *words, "--seed N"] if self.merge else command)


MODEL = "{out}/unpaired_text/pretrain_{seed}/speechlm_%s/model"
SUPERB = ("--model", MODEL % "with", MODEL % "without", "--tasks", "KS", "SID", "PR", "ASR", "--json", "{folder}/report.json")
RUNS: dict[str, Run] = {
    "lips_and_text": Run("benchmarks.lips_and_text", 30),
    "quickstart": Run("demos.quickstart", 45, merge=recipes.quickstart),
    "spoken_ablation": Run("benchmarks.spoken_ablation", 120),
    "speaking": Run("demos.speaking", 105, merge=recipes.speaking),
    "unpaired_text": Run("benchmarks.unpaired_text", 150),
    "superb_speechlm": Run("benchmarks.superb", 20, merge=recipes.superb, size="small", options=SUPERB, behind="unpaired_text"),
    "mandarin": Run("benchmarks.mandarin", 30),
    "self_supervised": Run("benchmarks.self_supervised", 60, (("--speech", "speech"),)),
    "one_encoder": Run("benchmarks.one_encoder", 60, (("--digits", "speech"), ("--noise", "noise"))),
    "multistage": Run("benchmarks.multistage", 40),
}


@dataclass(frozen=True)
class Settings:
    """Of all runs.

    Attributes:
        out: folder that has one for every run.
        results: folder of the results, a file NAME.json for every run that has ended well.
        seeds: how many. smoke: everything as small as it gets, to see that it works.
        folders: recordings, by the names of `RECORDINGS`.
    """

    out: Path
    results: Path
    seeds: int = 3
    smoke: bool = False
    folders: Mapping[str, Path] | None = None

    def folder(self, name: str) -> Path | None:
        """Where recordings of a kind are, if it was said."""
        return (self.folders or {}).get(name)


@dataclass(frozen=True)
class Ended:
    """What became of a run."""

    name: str
    how: Literal["done", "failed", "left out"]
    why: str = ""


class Stopped(KeyboardInterrupt):
    """A run was asked to stop, and has; whoever started it stops as well."""


def read_results(folder: Path, name: str) -> dict[str, Any] | None:
    """Results of a run, also those of a recipe as its one run wrote them; None where there are none yet.

    Raises:
        ValueError: the file is no JSON object.
    """
    path = folder / f"{name}.json"
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: is no JSON ({error}); delete the file, or run that part again.") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path}: holds no results; delete the file, or run that part again.")
    merge = RUNS[name].merge
    if merge is None or "results" in found:
        return found
    try:
        return merge([found])
    except KeyError as error:
        raise ValueError(
            f"{path}: is no report of {RUNS[name].module}, it lacks {error}; delete the file, or run that part again."
        ) from error


def total_seconds(report: Mapping[str, Any]) -> float | None:
    """Time of all stages of a report over all their attempts; None where it does not say."""
    seconds = report.get("seconds")
    if not isinstance(seconds, Mapping) or not seconds:
        return None
    return float(seconds["total"] if "total" in seconds else sum(seconds.values()))


def commands(name: str, settings: Settings) -> list[list[str]]:
    """What is started for a run, one behind the other; paths are absolute.

    A comparison leaves its results in its own folder: given those of ``settings.results``, it would take its seeds from there."""
    run, folder = RUNS[name], (settings.out / name).resolve()
    if run.merge is not None:
        size = "smoke" if settings.smoke else run.size
        return [
            [run.module, "--out", str(one), "--seed", str(seed), "--size", size, *_options(name, settings, seed)]
            for seed, one in ((seed, folder / str(seed)) for seed in range(1, settings.seeds + 1))
        ]
    needed: list[str] = []
    for option, kind in run.needs:
        recordings = settings.folder(kind)
        assert recordings is not None, f"{name} was started without {kind}"
        needed += [option, str(recordings.resolve())]
    size = "smoke" if settings.smoke else "small"
    return [[run.module, *needed, "--out", str(folder), "--json", str(folder / LEFT), "--seeds", str(settings.seeds), "--size", size]]


def _options(name: str, settings: Settings, seed: int) -> list[str]:
    """Further options of a recipe, with the folders of this call."""
    out = settings.out.resolve()
    return [word.format(out=out, folder=out / name / str(seed), seed=seed) for word in RUNS[name].options]


def missing(name: str, settings: Settings) -> str | None:
    """What a run needs that is not there: recordings that nobody named, or models of a run before it; None if it can start."""
    behind = RUNS[name].behind
    if behind is not None:
        models = [word for seed in range(1, settings.seeds + 1) for word in _options(name, settings, seed) if word.endswith("/model")]
        if not all(Path(model).is_dir() for model in models):
            return f"needs the models of the run {behind}, which has to end well before it"
    lacking = [kind for _, kind in RUNS[name].needs if settings.folder(kind) is None]
    if not lacking:
        return None
    return "needs " + " and ".join(f"{kind.upper()}=DIR, {RECORDINGS[kind]}" for kind in dict.fromkeys(lacking))


def start(arguments: Sequence[str]) -> int:
    """Run a module in a process group of its own and wait for it; returns its exit code.

    Ctrl-C and SIGTERM are handed to the group, which writes its state and ends; then this stops as well.

    Raises:
        Stopped: so asked, or the run was asked so itself.
    """
    asked = False
    process: subprocess.Popen[bytes] | None = None

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)

    # With a handler here, a run takes Ctrl-C even where a shell has started this in the background, and has it ignored.
    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        process = subprocess.Popen([sys.executable, "-m", *arguments], cwd=ROOT, start_new_session=True)
        if asked:  # before there was anything to hand it to
            stop(signal.SIGINT, None)
        code = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if asked or code == STOPPED:
        raise Stopped
    return code


def run_all(
    names: Sequence[str], settings: Settings, console: Console, after: Callable[[], None] = lambda: None, start: Start = start
) -> list[Ended]:
    """Run everything, one behind the other, and say what is left and how long it may take.

    Args:
        names: keys of `RUNS`.
        after: done behind every run that has left results.
        start: runs a module with its arguments, and returns its exit code.

    Returns:
        What became of each.

    Raises:
        Stopped: a run was asked to stop.
    """
    expected = {name: _expected(name, settings) for name in names}
    ended: list[Ended] = []
    ratio = 1.0  # of what runs took to what was expected of them, since this began
    taken: list[tuple[float, float]] = []
    for number, name in enumerate(names):
        left = ratio * sum(expected[other] for other in names[number:] if missing(other, settings) is None)
        head = f"[bold cyan]\\[{number + 1}/{len(names)}][/] [bold]{name}[/]"
        lacking = missing(name, settings)
        if lacking is not None:
            console.print(f"{head}  left out: {lacking}", highlight=False)
            ended.append(Ended(name, "left out", lacking))
            continue
        until = time.strftime("%a %H:%M", time.localtime(time.time() + left))
        times = "" if settings.smoke else f"  about {duration(ratio * expected[name])}; all that is left about {duration(left)}, to {until}"
        console.print(f"{head}{times}", highlight=False)
        problem = _run(name, settings, start)
        if problem is not None:
            console.print(f"{head}  [red]failed[/]: {problem}", highlight=False)
            ended.append(Ended(name, "failed", problem))
            continue
        ended.append(Ended(name, "done"))
        found = read_results(settings.results, name)
        seconds = None if found is None else total_seconds(found)
        if seconds is not None:
            taken.append((seconds, expected[name]))
            ratio = sum(one for one, _ in taken) / max(1.0, sum(two for _, two in taken))
        after()
    return ended


def duration(seconds: float) -> str:
    """Minutes below two hours, else hours."""
    return f"{max(1, round(seconds / 60))} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _expected(name: str, settings: Settings) -> float:
    """Seconds that a run is expected to take: what its last results say, for as many seeds."""
    last = read_results(settings.results, name)
    seconds = None if last is None else total_seconds(last)
    if last is None or seconds is None:
        return 60 * RUNS[name].minutes * settings.seeds / 3
    return seconds * settings.seeds / max(1, last.get("plan", {}).get("seeds", settings.seeds))


def _run(name: str, settings: Settings, start: Start) -> str | None:
    """Start what belongs to a run, and make one report of those of a recipe; returns what went wrong."""
    run, folder = RUNS[name], settings.out / name
    # Its seeds would be taken from there, whatever recordings they were measured on; finished stages are kept by all that they depend on.
    (folder / LEFT).unlink(missing_ok=True)
    for command in commands(name, settings):
        code = start(command)
        if code:
            return f"python -m {' '.join(command)} ended with exit status {code}."
    left = [folder / LEFT] if run.merge is None else [folder / str(seed) / "report.json" for seed in range(1, settings.seeds + 1)]
    try:
        reports = [json.loads(path.read_text(encoding="utf-8")) for path in left]
        report = reports[0] if run.merge is None else run.merge(reports) | {"command": run.shown}
    except FileNotFoundError as error:
        return f"it has left no results in {error.filename}."
    except (ValueError, OSError, KeyError) as error:
        return f"its results cannot be read: {error}"
    write_json(settings.results / f"{name}.json", report)
    return None
