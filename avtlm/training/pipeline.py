"""Trainings in a row, each starting from the model of the one before: pre-training, mid-training, fine-tuning.

A stage is a configuration of `avtlm train` with a folder of its own. Beside its run lies ``stage.json``: with which settings it was
trained, and from which weights. By that a finished stage is known and left alone, and a broken one goes on. A stage whose
settings or predecessor have changed is neither: it is refused, or trained anew where that is asked for.
"""

import dataclasses
import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avtlm import checkpoint, config
from avtlm.config import ConfigError
from avtlm.files import write_text
from avtlm.training.loop import TrainConfig, train

STAMP = "stage.json"
MODELS = ("model", "best", "average")  # folders of a run that the next stage may start from
# Keys that change how a stage runs, and what it tells, but not what comes of it.
WITHOUT_EFFECT = ("threads", "workers", "log_every", "save_every", "tensorboard", "wandb", "timeout_seconds", "samples")
OF_ONE_STAGE = re.compile(r"(\d+):(.+)", re.DOTALL)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stage:
    """One training.

    Attributes:
        number: counted from 1.
        config: where its settings stand.
    """

    number: int
    config: Path
    settings: TrainConfig

    @property
    def folder(self) -> Path:
        return Path(self.settings.output)

    @property
    def stamp(self) -> Path:
        return self.folder / STAMP

    @property
    def asked(self) -> dict[str, Any]:
        """What of its settings its model depends on, as it is written into the stamp."""
        settings = {key: value for key, value in config.to_dict(self.settings).items() if key not in WITHOUT_EFFECT}
        return json.loads(json.dumps(settings))


def read_stages(configs: Sequence[str | Path], overrides: Sequence[str] = ()) -> list[Stage]:
    """Stages in the order of their configurations; one that names no initial model starts from the one before.

    Args:
        overrides: changes to all of them (``threads=1``), or to one by its number (``2:steps=100``).

    Raises:
        ConfigError: a wrong setting, two stages of one folder, or a stage that starts from something else than the one before.
    """
    stages: list[Stage] = []
    numbered = [(None, each) if found is None else (int(found[1]), found[2]) for each in overrides for found in [OF_ONE_STAGE.match(each)]]
    for number, _ in numbered:
        if number is not None and not 1 <= number <= len(configs):
            raise ConfigError(f"{number}: there is no such stage; there are {len(configs)}.")
    for number, path in enumerate(configs, 1):
        settings = config.load(TrainConfig, path, [change for place, change in numbered if place in (None, number)])
        before = stages[-1] if stages else None
        same = next((stage for stage in stages if stage.folder == Path(settings.output)), None)
        if same is not None:
            raise ConfigError(f"{path}: its output {settings.output} is that of stage {same.number} ({same.config}); give each its own.")
        if before is not None and settings.initialise is None:
            settings = dataclasses.replace(settings, initialise=str(before.folder / MODELS[0]))
        if before is not None and Path(settings.initialise or "") not in [before.folder / name for name in MODELS]:
            raise ConfigError(
                f"{path}: it starts from {settings.initialise}, but the stage before it leaves {before.folder / MODELS[0]}; name that, or "
                "give the configurations in their order."
            )
        stages.append(Stage(number, Path(path), settings))
    return stages


def pipeline(
    configs: Sequence[str | Path], overrides: Sequence[str] = (), again: bool = False, tell: Callable[[str], None] = log.info
) -> Path:
    """Run what is left of the stages.

    Args:
        overrides: see `read_stages`.
        again: train a stage anew whose settings or predecessor have changed; its folder is deleted.
        tell: is given a line for every stage.

    Returns:
        The model folder of the last stage.

    Raises:
        ConfigError: see `read_stages`; or something has changed and ``again`` is False.
        ValueError, Interrupted: see avtlm.training.loop.train.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError("pipeline: runs stages one after the other in one process; start each of them by torchrun -m avtlm.cli train.")
    stages = read_stages(configs, overrides)
    for stage in stages:
        head = f"stage {stage.number} of {len(stages)} ({stage.config.name}, {stage.folder})"
        start = _digest(stage.settings.initialise)
        found = _read(stage)
        change = None if found is None else _difference(stage, found, start)
        if change is not None and not again:
            raise ConfigError(
                f"{stage.folder}: stage {stage.number} was trained with something else: {change}; undo that, choose another output, or "
                "give --again to delete this folder and train it anew."
            )
        if change is not None:
            tell(f"{head}: trained anew, since {change}")
            shutil.rmtree(stage.folder)
            found = None
        if found is not None and found["finished"] and (stage.folder / MODELS[0]).is_dir():
            tell(f"{head}: done before")
            continue
        if change is None:
            tell(f"{head}: {'starts' if found is None else 'goes on'}")
        content = {"settings": stage.asked, "start": start, "finished": False}
        _write(stage, content)
        train(stage.settings)
        _write(stage, content | {"finished": True})
    return stages[-1].folder / MODELS[0]


def _digest(folder: str | None) -> str | None:
    """What tells the weights of a model folder from others; None without one.

    Raises:
        CheckpointError: the folder is incomplete.
    """
    if folder is None:
        return None
    found = hashlib.sha256()
    with open(checkpoint.check(folder) / checkpoint.WEIGHTS, "rb") as weights:
        while part := weights.read(1 << 24):
            found.update(part)
    return found.hexdigest()


def _read(stage: Stage) -> dict[str, Any] | None:
    """The stamp of a stage; None of one that has not begun.

    Raises:
        ConfigError: its folder holds another run, or the stamp is damaged.
    """
    if not stage.stamp.exists():
        if any((stage.folder / name).exists() for name in MODELS):
            raise ConfigError(
                f"{stage.folder}: holds a run that no pipeline has started, so nobody knows what it started from; choose another output, "
                "or remove the folder."
            )
        return None
    try:
        found = json.loads(stage.stamp.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    if not isinstance(found, dict) or set(found) != {"settings", "start", "finished"} or not isinstance(found["settings"], dict):
        raise ConfigError(f"{stage.stamp}: is damaged; remove {stage.folder} to train this stage anew.")
    return found


def _difference(stage: Stage, found: Mapping[str, Any], start: str | None) -> str | None:
    """In words, what is asked for now and was not when the stage was trained; None if it is the same."""
    now, before = dict(_leaves(stage.asked)), dict(_leaves(found["settings"]))
    for key in sorted(set(now) | set(before)):
        if now.get(key) != before.get(key):
            return f"{key} is {now.get(key, 'absent')!r} now, but was {before.get(key, 'absent')!r}"
    return None if found["start"] == start else f"the model that it starts from, {stage.settings.initialise}, is another one now"


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _write(stage: Stage, content: Mapping[str, Any]) -> None:
    write_text(stage.stamp, json.dumps(content, indent=1) + "\n")
