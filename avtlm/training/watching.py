"""Where a run can be watched: ``log.jsonl`` always, TensorBoard where it is installed, Weights & Biases for those who ask for it.

All three get the same lines under the same names, from the first process alone, and samples with the step they were made at. A run that
goes on forgets the lines of steps that it repeats: those of the file when it opens it, those of TensorBoard by its
``purge_step``; Weights & Biases keeps what it has seen of them.
"""

import importlib.util
import json
import logging
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TextIO

from avtlm.errors import MissingExtra
from avtlm.files import write_text

log = logging.getLogger(__name__)

FOLDER, RUN_ID = "tensorboard", "wandb_id"


@dataclass(frozen=True)
class Sample:
    """A validation utterance: what was said, and what the model wrote down."""

    id: str
    reference: str
    text: str


class Watcher(Protocol):
    """Shows numbers and samples somewhere."""

    def numbers(self, step: int, values: Mapping[str, float]) -> None: ...

    def samples(self, step: int, samples: Sequence[Sample]) -> None: ...

    def close(self) -> None: ...


class Journal:
    """The log of a run.

    Args:
        folder: of the run.
        step: finished steps; what was written of later ones is void.
        first: whether this is the first process; the others write nothing.
        tensorboard: write event files too, in ``tensorboard/``, if the package is there.
        wandb: project of Weights & Biases to log to; None does not.
        settings: of the run, for Weights & Biases.

    Raises:
        MissingExtra: ``wandb`` without the package.
    """

    def __init__(
        self, folder: Path, step: int, first: bool, tensorboard: bool, wandb: str | None = None, settings: Mapping[str, Any] | None = None
    ) -> None:
        check(wandb)
        self._watchers: list[Watcher] = []
        self._file: TextIO | None = None
        if not first:
            return
        path = folder / "log.jsonl"
        if path.exists():
            lines = [
                line for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}") and json.loads(line)["step"] <= step
            ]
            write_text(path, "".join(line + "\n" for line in lines))
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 (closed with the journal)
        if tensorboard and has_tensorboard():
            self._watchers.append(TensorBoard(folder / FOLDER, step))
        elif tensorboard:
            log.info("%s: no TensorBoard here (pip install 'avtlm[tensorboard]' adds it); the numbers are in log.jsonl", folder)
        if wandb is not None:
            self._watchers.append(WeightsAndBiases(folder, wandb, settings or {}))

    def write(self, line: Mapping[str, float], samples: Sequence[Sample] = ()) -> None:
        """Write one line, which has a ``step``, and samples with it."""
        if self._file is None:
            return
        shown = {"samples": [asdict(sample) for sample in samples]} if samples else {}
        self._file.write(json.dumps({**line, **shown}, ensure_ascii=False) + "\n")
        self._file.flush()
        step, values = int(line["step"]), {name: value for name, value in line.items() if name != "step"}
        for watcher in self._watchers:
            watcher.numbers(step, values)
            if samples:
                watcher.samples(step, samples)

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for watcher in self._watchers:
            watcher.close()
        if self._file is not None:
            self._file.close()


def has_tensorboard() -> bool:
    """Whether the package is installed."""
    return importlib.util.find_spec("tensorboard") is not None


def check(wandb: str | None) -> None:
    """Raises MissingExtra: a project of Weights & Biases is named, but the package is not installed."""
    if wandb is not None and importlib.util.find_spec("wandb") is None:
        raise MissingExtra("wandb", "wandb", f"logging to Weights & Biases (wandb: {wandb})")


class TensorBoard:
    """Event files; `tensorboard --logdir RUN/tensorboard` shows them."""

    def __init__(self, folder: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=step + 1)

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def samples(self, step: int, samples: Sequence[Sample]) -> None:
        rows = [f"| {_cell(sample.id)} | {_cell(sample.reference)} | {_cell(sample.text)} |" for sample in samples]
        self._writer.add_text("samples", "\n".join(["| utterance | said | understood |", "|---|---|---|", *rows]), step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


def _cell(text: str) -> str:
    """Text that is no part of a table's markup."""
    return text.replace("|", "\\|") or "(nothing)"


class WeightsAndBiases:
    """One run of a project. What only concerns the service (account, server, offline use) is in its environment variables.

    The run's id is in its folder, so that a run that goes on is one run there too.
    """

    def __init__(self, folder: Path, project: str, settings: Mapping[str, Any]) -> None:
        import wandb

        file = folder / RUN_ID
        if not file.exists():
            write_text(file, secrets.token_hex(8) + "\n")
        number = file.read_text(encoding="utf-8").strip()
        self._table = wandb.Table
        self._run = wandb.init(project=project, name=folder.name, id=number, resume="allow", dir=str(folder), config=dict(settings))
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log({**values, "step": step})

    def samples(self, step: int, samples: Sequence[Sample]) -> None:
        rows = [[sample.id, sample.reference, sample.text] for sample in samples]
        self._run.log({"samples": self._table(columns=["utterance", "said", "understood"], data=rows), "step": step})

    def close(self) -> None:
        self._run.finish()
