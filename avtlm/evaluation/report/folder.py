"""What a folder of a training or an evaluation holds, whatever of it there is: log, settings, model, figures, texts, starts.

Nothing is required and nothing stops the reading: what is damaged is named among the ``problems`` and left out.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from avtlm import checkpoint
from avtlm.evaluation.cells import KeptCell, read_cell
from avtlm.origin import STARTS
from avtlm.plain_yaml import ConfigError, read_yaml

LOG, CELLS = "log.jsonl", "cells"
MODELS = ("best", "model", "average", ".")  # where a run may have one, the most telling first
LARGEST = 50_000_000  # bytes of a JSON file that is looked at
NAMED = 5  # damaged lines of one file


@dataclass(frozen=True)
class Run:
    """One folder.

    Attributes:
        name: short, and another one for every run.
        log: (step, value) by name of the figure, by steps.
        samples: utterances of the last validation: ``id``, ``reference``, ``text``.
        settings: configuration, by dotted keys.
        model: folder of its model; None without one.
        facts: of the model, by what they are.
        evaluations: figures by name of their file.
        cells: what was recognised, see avtlm.evaluation.cells.
        starts: when, where and how it was started, see avtlm.origin.
        problems: sentences about what could not be read.
    """

    name: str
    folder: Path
    log: Mapping[str, Sequence[tuple[int, float]]] = field(default_factory=dict)
    samples: Sequence[Mapping[str, str]] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    model: Path | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    evaluations: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    cells: Sequence[KeptCell] = ()
    starts: Sequence[Mapping[str, Any]] = ()
    problems: Sequence[str] = ()

    @property
    def empty(self) -> bool:
        return not (self.log or self.settings or self.model or self.evaluations or self.cells)


def read_runs(folders: Sequence[str | Path]) -> list[Run]:
    """Every folder as a run; of one that holds runs but no log of its own, such as that of a pipeline, these too.

    Raises:
        ValueError: a folder is missing or holds nothing that is known here, or is given twice.
    """
    runs: list[Run] = []
    for given in map(Path, folders):
        if not given.is_dir():
            raise ValueError(f"{given}: there is no such folder; give those of trainings or evaluations.")
        found = [read_run(given, given.resolve().name or str(given))]
        if not found[0].log and found[0].model is None:
            inside = sorted(path.parent for path in given.glob(f"*/{LOG}"))
            found += [read_run(path, f"{found[0].name}/{path.name}") for path in inside]
        known = [run for run in found if not run.empty]
        if not known:
            problem = f" ({found[0].problems[0]})" if found[0].problems else ""
            raise ValueError(f"{given}: holds no log, no model and no figures of an evaluation; give the folder of a run{problem}.")
        runs += known
    twice = [run.folder for place, run in enumerate(runs) if run.folder.resolve() in [other.folder.resolve() for other in runs[:place]]]
    if twice:
        raise ValueError(f"{twice[0]}: is given twice; name every folder once.")
    return _named_apart(runs)


def read_run(folder: Path, name: str) -> Run:
    """One folder, as far as it can be read."""
    problems: list[str] = []
    log, samples = _read_log(folder / LOG, problems)
    settings = _settings(folder, problems)
    model, facts = _model(folder, problems)
    evaluations, cells = _figures(folder, problems)
    starts = [line for _, line in _lines(folder / STARTS, problems)]
    return Run(name, folder, log, samples, settings, model, facts, evaluations, cells, starts, problems)


def _named_apart(runs: Sequence[Run]) -> list[Run]:
    """Runs whose names differ: by further folders of their paths, where those alone are the same."""
    names = []
    for run in runs:
        same = [other.folder.resolve().parts for other in runs if other.name == run.name and other is not run]
        parts, depth = run.folder.resolve().parts, 2
        if same:
            while depth < len(parts) and any(other[-depth:] == parts[-depth:] for other in same):
                depth += 1
        names.append("/".join(parts[-depth:]) if same else run.name)
    return [replace(run, name=name) for run, name in zip(runs, names, strict=True)]


def _lines(path: Path, problems: list[str]) -> list[tuple[int, dict[str, Any]]]:
    """JSON objects, one a line, with the lines' numbers; of those that are damaged the first are named."""
    if not path.is_file():
        return []
    found, damaged = [], []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict):
            found.append((number, row))
        else:
            damaged.append(number)
    if damaged:
        named = ", ".join(str(number) for number in damaged[:NAMED]) + (f" and {len(damaged) - NAMED} more" if damaged[NAMED:] else "")
        problems.append(f"{path}: line {named}: not a JSON object (a log that was cut off, or damaged); skipped.")
    return found


def _read_log(path: Path, problems: list[str]) -> tuple[dict[str, list[tuple[int, float]]], list[dict[str, str]]]:
    figures: dict[str, dict[int, float]] = {}
    samples: list[dict[str, str]] = []
    for number, line in _lines(path, problems):
        step = line.get("step")
        if not isinstance(step, int | float) or not math.isfinite(step):
            problems.append(f"{path}: line {number}: has no step; skipped.")
            continue
        for name, value in line.items():
            if name != "step" and _is_number(value):
                figures.setdefault(name, {})[int(step)] = float(value)  # of lines for one step the last counts
        given = line.get("samples")
        if isinstance(given, list):
            whole = [each for each in given if isinstance(each, dict) and all(isinstance(each.get(key), str) for key in SAMPLE)]
            samples = [{key: each[key] for key in SAMPLE} for each in whole]
    return {name: sorted(points.items()) for name, points in figures.items()}, samples


SAMPLE = ("id", "reference", "text")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _settings(folder: Path, problems: list[str]) -> dict[str, Any]:
    path = folder / checkpoint.CONFIG
    if not path.is_file():
        return {}
    try:
        return dict(flattened(read_yaml(path)))
    except (ConfigError, OSError) as error:
        problems.append(f"{error} The configuration is left out.")
        return {}


def flattened(settings: Mapping[str, Any], before: str = "") -> list[tuple[str, Any]]:
    """Settings by dotted keys, in their order."""
    found: list[tuple[str, Any]] = []
    for key, value in settings.items():
        name = f"{before}{key}"
        found += flattened(value, f"{name}.") if isinstance(value, Mapping) and value else [(name, value)]
    return found


def _model(folder: Path, problems: list[str]) -> tuple[Path | None, dict[str, str]]:
    """The first model that the run has, and what its folder says without being loaded."""
    from safetensors import safe_open

    for name in MODELS:
        place = folder / name
        if not (place / checkpoint.WEIGHTS).is_file():
            continue
        try:
            settings = checkpoint.load_config(place)
            with safe_open(place / checkpoint.WEIGHTS, framework="pt") as weights:
                sizes = [math.prod(weights.get_slice(key).get_shape()) for key in weights.keys()]  # noqa: SIM118 (not a dictionary)
        except (checkpoint.CheckpointError, ConfigError, OSError) as error:
            problems.append(f"{error} The model is left out.")
            continue
        facts = {"system": str(settings["system"]), "task": str(settings.get("task") or "")}
        facts |= {"parameters": f"{sum(sizes):,}", "size": f"{(place / checkpoint.WEIGHTS).stat().st_size / 1e6:.1f} MB"}
        return place, facts
    return None, {}


def _figures(folder: Path, problems: list[str]) -> tuple[dict[str, Mapping[str, Any]], list[KeptCell]]:
    """JSON files that an evaluation has written, and the cells among them; other JSON files are none of our business."""
    evaluations: dict[str, Mapping[str, Any]] = {}
    cells = []
    for path in [*sorted(folder.glob("*.json")), *sorted((folder / CELLS).glob("*.json"))]:
        if not path.is_file() or path.stat().st_size > LARGEST:
            problems.append(f"{path}: is no file of at most {LARGEST // 1_000_000} MB; left out.")
            continue
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(content, dict) and "asked" in content and "utterances" in content:
                cells.append(read_cell(path))
            elif isinstance(content, dict) and is_evaluation(content):
                evaluations[path.name] = content
        except RecursionError:
            problems.append(f"{path}: is nested too deep; left out.")
        except (ValueError, OSError) as error:
            problems.append(f"{path}: cannot be read ({error}); left out.")
    return evaluations, cells


def is_evaluation(content: Mapping[str, Any]) -> bool:
    """Whether this is what a verb that measures has written: rates by input and condition, or single figures of a model."""
    return has_rates(content) or ("model" in content and any(_is_number(value) for value in content.values()))


def has_rates(content: Mapping[str, Any]) -> bool:
    """Whether it has error rates in percent by input and condition."""
    rates = content.get("wer")
    return isinstance(rates, dict) and bool(rates) and all(modality in ("a", "v", "av") and _is_row(row) for modality, row in rates.items())


def _is_row(row: Any) -> bool:
    return isinstance(row, dict) and bool(row) and all(_is_number(value) for value in row.values())
