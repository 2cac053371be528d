"""A comparison over several seeds as a command: its arguments, the cells of its table, a plot of its rates."""

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from avtlm.files import atomic_path
from demos.stages import Stages, finish, restart_tuned, write_json

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


def stages_over_seeds(
    out: Path,
    seeds: Seeds,
    plan: Any,
    console: Console,
    changes: Sequence[str],
    kinds: Sequence[str],
    once: Mapping[str, tuple[str, ...]],
    **asked: Any,
) -> Stages:
    """Stages of a comparison: two that all seeds share, and some for each of them.

    Args:
        seeds: those that have stages are the ones that are left.
        plan: a dataclass; a finished stage is kept only while it says the same, but for ``seeds``: more of them leave what is there.
        kinds: stages of each seed, ``pretrain`` for pretrain_1, whose folder of that name is made afresh when they start.
        once: the same for shared stages, by the folders that each makes.
        asked: what else has to be the same.
    """
    afresh = {f"{kind}_{seed}": (f"{kind}_{seed}",) for kind in kinds for seed in seeds.left} | dict(once)
    settings = {key: value for key, value in dataclasses.asdict(plan).items() if key != "seeds"} | {"changes": list(changes)} | asked
    return Stages(out, console, 2 + len(kinds) * len(seeds.left), afresh, **json.loads(json.dumps(settings)))


def make_talking_heads(out: Path, made: Path, size: str) -> None:
    """A corpus of talking heads and their lips in ``out``; nothing where ``made`` is another folder, in which both are already.

    Raises:
        ValueError: they are not.
    """
    if made != out:
        lips = made / "lips" / "manifest.jsonl"
        if not lips.exists():
            raise ValueError(f"{lips}: there are no lips; run the quickstart first, or leave --corpus out.")
        return
    from preprocess.corpora.talking_heads import generate
    from preprocess.lip_roi import run

    generate(out / "corpus", size=size)
    run(out / "corpus" / "manifest.jsonl", out / "lips", format="npy")


def command(
    name: str,
    summary: str,
    plans: Mapping[str, Any],
    compare: Callable[[argparse.Namespace, Any, Console], Report],
    table: Callable[[Report], Table],
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
