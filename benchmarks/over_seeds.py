"""A comparison over several seeds as a command: its arguments, the cells of its table, a plot of its rates."""

import argparse
import dataclasses
import functools
import json
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from rich.console import Console, RenderableType

from avtlm.files import atomic_path
from demos.stages import Stages, finish, machine, restart_tuned, write_json

Report = Mapping[str, Any]


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


def earlier_seeds(path: Path | None, plan: Any, changes: Sequence[str]) -> dict[int, Any]:
    """What the seeds came to whose results are in a file already, by seed; none if there is no such file, or its plan is another.

    Raises:
        ValueError: the file holds no results.
    """
    if path is None or not path.exists():
        return {}
    try:
        report = json.loads(path.read_text())
        asked, found = dict(report["plan"]), list(report.get("by_seed", []))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} holds no results of a comparison; move it away, or give another file.") from error
    wanted = json.loads(json.dumps(dataclasses.asdict(plan) | {"changes": list(changes)}))
    same = {key: value for key, value in asked.items() if key != "seeds"} == {key: value for key, value in wanted.items() if key != "seeds"}
    return dict(enumerate(found, 1)) if same else {}


class OverSeeds(ABC):
    """A comparison in one folder: what its seeds share is made once, then each seed that is left goes through its stages.

    A stage is kept once it is finished, as long as the plan and the changes are the same, but for ``seeds``: more of them leave what is
    there. A subclass says which stages there are, and has a method for each, and `report`.

    Args:
        out: folder for everything that is made.
        plan: a dataclass with ``seeds`` and ``corpus``, the size of that.
        changes: to all trainings, as ``key=value``.
        known: what some seeds came to by earlier results.
        asked: what else has to be the same for a stage to be kept.

    Attributes:
        SHARED: stages that all seeds share, by the method that runs each, and what it does.
        STAGES: those of every seed, which is their methods' argument: ``pretrain`` is pretrain_1, and its folder of that name is made
            afresh when it starts.
        AFRESH: folders that shared stages make afresh.
    """

    SHARED: ClassVar[Mapping[str, tuple[str, str]]]
    STAGES: ClassVar[Mapping[str, tuple[str, str]]]
    AFRESH: ClassVar[Mapping[str, tuple[str, ...]]] = {}

    def __init__(
        self, out: Path, plan: Any, console: Console, changes: Sequence[str] = (), known: Mapping[int, Any] | None = None, **asked: Any
    ) -> None:
        self.out, self.plan, self.changes = out, plan, tuple(changes)
        self.seeds = Seeds(out / "results", plan.seeds, known)
        afresh = {f"{kind}_{seed}": (f"{kind}_{seed}",) for kind in self.STAGES for seed in self.seeds.left} | dict(self.AFRESH)
        settings = {key: value for key, value in dataclasses.asdict(plan).items() if key != "seeds"} | {"changes": list(changes)} | asked
        total = len(self.SHARED) + len(self.STAGES) * len(self.seeds.left)
        self.stages = Stages(out, console, total, afresh, **json.loads(json.dumps(settings)))

    @classmethod
    def compare(cls, options: argparse.Namespace, plan: Any, console: Console) -> Report:
        """What a command asks for; see `command`."""
        known = earlier_seeds(options.json, plan, options.changes)
        return cls(options.out, plan, console, options.changes, known).run()

    def run(self) -> dict[str, Any]:
        """All stages of the seeds that are left; returns the report."""
        for stage, (method, what) in self.SHARED.items() if self.seeds.left else ():
            self.stages.run(stage, what, getattr(self, method))
        for seed in self.seeds.left:
            for stage, (method, what) in self.STAGES.items():
                self.stages.run(f"{stage}_{seed}", f"seed {seed}: {what}", functools.partial(getattr(self, method), seed))
        return self.report()

    @abstractmethod
    def report(self) -> dict[str, Any]:
        """What all seeds came to."""

    def told(self, **figures: Any) -> dict[str, Any]:
        """A report of some figures: beside them the plan, what each seed came to, seconds of the stages, and the machine."""
        seconds = self.stages.seconds | {"total": round(sum(self.stages.seconds.values()), 1)}
        plan = dataclasses.asdict(self.plan) | {"changes": list(self.changes)}
        return {**figures, "plan": plan, "by_seed": self.seeds.read(), "seconds": seconds, "machine": machine()}


class OnTalkingHeads(OverSeeds):
    """A comparison on the corpus of the quickstart: that of the run in the folder ``corpus``; without one, it is made."""

    def __init__(
        self,
        out: Path,
        plan: Any,
        console: Console,
        changes: Sequence[str] = (),
        known: Mapping[int, Any] | None = None,
        corpus: Path | None = None,
    ) -> None:
        super().__init__(out, plan, console, changes, known, made=None if corpus is None else str(corpus))
        self.made = corpus or out
        self.lips = self.made / "lips" / "manifest.jsonl"

    @classmethod
    def compare(cls, options: argparse.Namespace, plan: Any, console: Console) -> Report:
        known = earlier_seeds(options.json, plan, options.changes)
        return cls(options.out, plan, console, options.changes, known, options.corpus).run()

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        use = "use corpus and lips of a finished quickstart in place of making them: runs/quickstart"
        parser.add_argument("--corpus", type=Path, metavar="DIR", help=use)

    def make_corpus(self) -> None:
        """Talking heads and their lips; nothing where they are made already.

        Raises:
            ValueError: there should be lips, and are none.
        """
        if self.made != self.out:
            if not self.lips.exists():
                raise ValueError(f"{self.lips}: there are no lips; run the quickstart first, or leave --corpus out.")
            return
        from preprocess.corpora.talking_heads import generate
        from preprocess.lip_roi import run

        generate(self.out / "corpus", size=self.plan.corpus)
        run(self.out / "corpus" / "manifest.jsonl", self.out / "lips", format="npy")


def command(
    name: str,
    summary: str,
    plans: Mapping[str, Any],
    compare: Callable[[argparse.Namespace, Any, Console], Report],
    table: Callable[[Report], RenderableType],
    draw: Callable[[Report, Path], None],
    arguments: Sequence[str] | None,
    width: int = 110,
    further: Callable[[argparse.ArgumentParser], None] = lambda parser: None,
    keeps_seeds: bool = True,
) -> int:
    """Read the arguments, compare, print the table, write what is asked for; returns the exit code.

    Args:
        name: of the module under benchmarks, and of its folder under runs.
        plans: dataclasses with ``seeds``, by their sizes; the size ``small`` is the usual one.
        compare: given the arguments, the plan and where to tell of progress, the report.
        arguments: None for those of the process.
        width: of the table.
        further: adds arguments.
        keeps_seeds: ``compare`` takes seeds from earlier results, see `earlier_seeds`.
    """
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=summary)
    further(parser)
    parser.add_argument("--out", type=Path, default=f"runs/{name}", metavar="DIR", help="folder for everything that is made")
    about = "write the results to this file" + ("; seeds that it holds by the same plan are not run again" if keeps_seeds else "")
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
        report = compare(options, plan, Console(stderr=True))
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
