"""A comparison over several seeds as a command: its arguments, the cells of its table, a plot of its rates."""

import argparse
import dataclasses
import functools
import json
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from rich import box
from rich.console import Console, RenderableType
from rich.table import Table

from avtlm.files import atomic_path
from demos.stages import Stages, finish, machine, restart_tuned, write_json

Report = Mapping[str, Any]


def averaged(values: Sequence[float], digits: int = 3) -> dict[str, Any]:
    """A figure of a report: the mean over the seeds, and that of each."""
    return {"mean": round(float(np.mean(values)), digits), "seeds": [round(value, digits) for value in values]}


def empty_table(title: str, words: Sequence[str], figures: Iterable[str]) -> Table:
    """A table without rows, by the headings of its columns: those of words, then those of figures."""
    result = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for heading in words:
        result.add_column(heading)
    for heading in figures:
        result.add_column(heading, justify="right")
    return result


def cell(found: Mapping[str, Any], digits: int = 2) -> str:
    """The mean of several seeds, with the lowest and the highest."""
    return f"{found['mean']:.{digits}f} ({min(found['seeds']):.{digits}f}-{max(found['seeds']):.{digits}f})"


def draw_rates(panels: Mapping[str, Sequence[Mapping[str, Any]]], rows: Sequence[str], marked: Sequence[bool], path: Path) -> None:
    """A panel for every measure, in it a bar for every row and a dot for every seed.

    Args:
        panels: by measure, what each row has: ``mean`` and ``seeds``.
        rows: their names, from top to bottom.
        marked: those that stand out.
        path: a .png file, written atomically.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.0 + 3.2 * len(panels), 3.5), dpi=160, facecolor="white")
    FigureCanvasAgg(figure)
    drawn = figure.subplots(1, len(panels), sharey=True)
    for axes, (measure, cells) in zip(drawn, panels.items(), strict=True):
        for place, (found, stands_out) in enumerate(zip(cells, marked, strict=True)):
            colour = "#1261a6" if stands_out else "#6b7280"
            axes.barh(place, found["mean"], color=colour, alpha=0.35, height=0.65)
            axes.plot(found["seeds"], [place] * len(found["seeds"]), "o", color=colour, markersize=4)
        axes.set_title(measure, fontsize=10, loc="left")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="x", color="#e4e7eb", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(labelsize=8)
    drawn[0].set_yticks(range(len(rows)), list(rows))
    drawn[0].invert_yaxis()
    figure.tight_layout()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})


class Seeds:
    """What the seeds of a comparison came to, in a folder with a file for each; those of earlier results need not be run again.

    Args:
        folder: where the files are.
        count: how many seeds there are to be, from 1.
        known: what some of them came to elsewhere, by seed.
    """

    def __init__(self, folder: Path, count: int, known: Mapping[int, Any] | None = None) -> None:
        self.folder, self.count = folder, count
        self.known = {seed: found for seed, found in (known or {}).items() if seed <= count}

    @property
    def left(self) -> list[int]:
        """Seeds that have to be run."""
        return [seed for seed in range(1, self.count + 1) if seed not in self.known]

    def write(self, seed: int, found: Any) -> None:
        write_json(self.folder / f"{seed}.json", found)

    def read(self) -> list[Any]:
        """What all seeds came to, from the first to the last."""
        fresh = {seed: json.loads((self.folder / f"{seed}.json").read_text()) for seed in self.left}
        return [(self.known | fresh)[seed] for seed in range(1, self.count + 1)]


def earlier_results(path: Path | None, plan: Any, changes: Sequence[str]) -> Report:
    """``by_seed``, ``seconds`` and ``machine`` of the report in a file; nothing if there is no such file, or its plan is another.

    Raises:
        ValueError: the file holds no results.
    """
    if path is None or not path.exists():
        return {}
    try:
        report = json.loads(path.read_text())
        asked = dict(report["plan"])
        found = {"by_seed": list(report.get("by_seed", [])), "seconds": dict(report.get("seconds", {})), "machine": report.get("machine")}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} holds no results of a comparison; move it away, or give another file.") from error
    wanted = json.loads(json.dumps(dataclasses.asdict(plan) | {"changes": list(changes)}))
    # What a plan has come to have since says nothing else by its default.
    asked = {one.name: one.default for one in dataclasses.fields(plan) if one.default is not dataclasses.MISSING} | asked
    same = {key: value for key, value in asked.items() if key != "seeds"} == {key: value for key, value in wanted.items() if key != "seeds"}
    return found if same else {}


class OverSeeds(ABC):
    """A comparison in one folder: what its seeds share is made once, then each seed that is left goes through its stages.

    A stage is kept once it is finished, as long as the plan and the changes are the same, but for ``seeds``: more of them leave what is
    there. A subclass says which stages there are, and has a method for each, and `report`.

    Args:
        out: folder for everything that is made.
        plan: a dataclass with ``seeds``.
        changes: to all trainings, as ``key=value``.
        earlier: results whose seeds need not be run again, see `earlier_results`.
        folders: those of ``FOLDERS``, by their names. With another one no stage is kept.

    Attributes:
        FOLDERS: options of the command that name folders which are there already: what for, and whether they have to be given.
        SHARED: stages that all seeds share, by the method that runs each, and what it does.
        STAGES: those of every seed, by a method, what it does, and the method's arguments before the last, which is the seed. ``pretrain``
            is pretrain_1, and its folder of that name is made afresh when it starts.
        AFRESH: folders that shared stages make afresh.
    """

    FOLDERS: ClassVar[Mapping[str, tuple[str, bool]]] = {}
    SHARED: ClassVar[Mapping[str, tuple[str, str]]] = {}
    STAGES: ClassVar[Mapping[str, tuple[str, ...]]]
    AFRESH: ClassVar[Mapping[str, tuple[str, ...]]] = {}

    def __init__(
        self,
        out: Path,
        plan: Any,
        console: Console,
        changes: Sequence[str] = (),
        earlier: Report | None = None,
        **folders: Path | None,
    ) -> None:
        self.out, self.plan, self.changes, self.earlier = out, plan, tuple(changes), earlier or {}
        self.folders = {name: folder for name, folder in folders.items() if folder is not None}
        self.seeds = Seeds(out / "results", plan.seeds, dict(enumerate(self.earlier.get("by_seed", []), 1)))
        afresh = {f"{kind}_{seed}": (f"{kind}_{seed}",) for kind in self.STAGES for seed in self.seeds.left} | dict(self.AFRESH)
        asked = {name: None if folder is None else str(folder) for name, folder in folders.items()}
        settings = {key: value for key, value in dataclasses.asdict(plan).items() if key != "seeds"} | {"changes": list(changes)} | asked
        total = len(self.SHARED) + len(self.STAGES) * len(self.seeds.left)
        self.stages = Stages(out, console, total, afresh, **json.loads(json.dumps(settings)))

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """The options of ``FOLDERS``."""
        for name, (what, required) in cls.FOLDERS.items():
            parser.add_argument(f"--{name}", type=Path, required=required, metavar="DIR", help=what)

    @classmethod
    def compare(cls, options: argparse.Namespace, plan: Any, console: Console) -> Report:
        """What a command asks for; see `command`."""
        folders = {name: getattr(options, name) for name in cls.FOLDERS}
        earlier = earlier_results(options.json, plan, options.changes)
        return cls(options.out, plan, console, options.changes, earlier, **folders).run()

    def run(self) -> dict[str, Any]:
        """All stages of the seeds that are left; returns the report."""
        for stage, (method, what) in self.SHARED.items() if self.seeds.left else ():
            self.stages.run(stage, what, getattr(self, method))
        for seed in self.seeds.left:
            for stage, (method, what, *given) in self.STAGES.items():
                self.stages.run(f"{stage}_{seed}", f"seed {seed}: {what}", functools.partial(getattr(self, method), *given, seed))
        return self.report()

    @abstractmethod
    def report(self) -> dict[str, Any]:
        """What all seeds came to."""

    def told(self, **figures: Any) -> dict[str, Any]:
        """A report of some figures: beside them the plan, what each seed came to, seconds of the stages, and the machine.

        Seconds of seeds that were not run again are those of their own run; where none was run, so is the machine.
        """
        plan = dataclasses.asdict(self.plan) | {"changes": list(self.changes)}
        taken = dict(self.earlier.get("seconds", {})) | self.stages.seconds
        names = [*self.SHARED, *(f"{stage}_{seed}" for seed in range(1, self.plan.seeds + 1) for stage in self.STAGES)]
        seconds = {name: taken[name] for name in names if name in taken}
        seconds["total"] = round(sum(seconds.values()), 1)
        ran = machine() if self.seeds.left else self.earlier.get("machine") or machine()
        return {**figures, "plan": plan, "by_seed": self.seeds.read(), "seconds": seconds, "machine": ran}


def command(
    name: str,
    summary: str,
    plans: Mapping[str, Any],
    comparison: type[OverSeeds],
    table: Callable[[Report], RenderableType],
    draw: Callable[[Report, Path], None],
    arguments: Sequence[str] | None,
    width: int = 110,
) -> int:
    """Read the arguments, compare, print the table, write what is asked for; returns the exit code.

    Args:
        name: of the module under benchmarks, and of its folder under runs.
        plans: dataclasses with ``seeds``, by their sizes; the size ``small`` is the usual one.
        arguments: None for those of the process.
        width: of the table.
    """
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=summary)
    comparison.add_arguments(parser)
    parser.add_argument("--out", type=Path, default=f"runs/{name}", metavar="DIR", help="folder for everything that is made")
    about = "write the results to this file; seeds that it holds by the same plan are not run again"
    parser.add_argument("--json", type=Path, metavar="FILE", help=about)
    parser.add_argument("--plot", type=Path, metavar="PNG", help="draw them (default: comparison.png in the folder of the run)")
    parser.add_argument("--size", choices=list(plans), default="small", help="smoke: minutes, to see that all works (default: small)")
    parser.add_argument("--seeds", type=int, metavar="N", help="how many (default: 3)")
    parser.add_argument("changes", nargs="*", metavar="KEY=VALUE", help="settings of the trainings: max_rows=4")
    options = parser.parse_args(arguments)
    restart_tuned(f"benchmarks.{name}", sys.argv[1:] if arguments is None else arguments)
    plan = plans[options.size]
    plan = dataclasses.replace(plan, seeds=options.seeds or plan.seeds)

    def work() -> None:
        report = comparison.compare(options, plan, Console(stderr=True))
        Console(width=width).print(table(report))
        if options.json is not None:
            write_json(options.json, {**report, "command": repeatable(name, options, plan.seeds)})
        draw(report, options.plot or options.out / "comparison.png")

    return finish(name, work)


def repeatable(name: str, options: argparse.Namespace, seeds: int) -> str:
    """The command that results come from, without the paths of one machine: folders that were named are ``DIR``."""
    named = [key for key, value in vars(options).items() if isinstance(value, Path) and key not in ("out", "json", "plot")]
    words = [f"python -m benchmarks.{name}", *(f"--{key} DIR" for key in named), f"--size {options.size}", f"--seeds {seeds}"]
    return " ".join([*words, *options.changes])
