"""What a run keeps in its folder: ``model/``, a model with its trainer state (and ``ema/`` in it), replaced atomically, and ``log.jsonl``.

Of several processes the first one writes whole tensors, so that a run goes on with any number of them, sharded or not.
"""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from avtlm import checkpoint
from avtlm.model_card import trained_card
from avtlm.recognizer import Recognizer
from avtlm.text.vocabulary import load_vocabulary
from avtlm.training.averaging import Weights
from avtlm.training.distributed import whole
from avtlm.training.initial import PHONES
from avtlm.training.state import EMA, FOLDER, TrainState, load_state, moments, save_state
from avtlm.training.whole_system import SPEAKERS, read_speakers

if TYPE_CHECKING:
    from avtlm.training.loop import Trainer

log = logging.getLogger(__name__)


def save(run: "Trainer", folder: Path, resumable: bool = True) -> None:
    """Replace a model folder atomically. Every process has to call this."""
    tensors = run.model.state_dict(keep_vars=True)
    numbers = run.replicas.numbers
    weights = {name: whole(tensor).reshape(()) if name in numbers else whole(tensor) for name, tensor in tensors.items()}
    remembered = moments(run.optimizer, run.names) if resumable else {}
    averaged: dict[str, Tensor] = {}
    if resumable and run.average is not None:
        own = {id(parameter): whole(run.average.weights[name]) for parameter, name in run.names.items()}
        averaged = {name: own.get(id(tensor), weights[name]).reshape(weights[name].shape) for name, tensor in tensors.items()}
    if run.processes.first:
        with checkpoint.replace_folder(folder) as temporary:
            _write(run, temporary, weights, run.folder.name)
            if averaged:
                (temporary / EMA).mkdir()
                _write(run, temporary / EMA, averaged, f"{run.folder.name}, moving average")
            if resumable:
                save_state(temporary, run.state, remembered)
    run.processes.wait()


def _write(run: "Trainer", folder: Path, weights: dict[str, Tensor], name: str) -> None:
    decoding = run.model.config.decoding if isinstance(run.model, Recognizer) else run.start.decoding
    tables = {PHONES: run.start.phones.symbols if run.start.phones is not None else [], SPEAKERS: list(run.start.speakers)}
    extra = {table: "\n".join(symbols) + "\n" for table, symbols in tables.items() if symbols} | dict(run.start.files)
    checkpoint.write_model(folder, Weights(weights), run.start.card, run.start.vocabulary, extra, trained_card(run, name), decoding)


def load_model(run: "Trainer") -> bool:
    """The weights of the run's own checkpoint, if there is one.

    Raises:
        ValueError: the folder holds another run.
    """
    folder = run.model_folder
    if run.processes.first:
        checkpoint.put_back(folder)
    run.processes.wait()
    if not (folder / FOLDER).exists():
        return False
    if checkpoint.load_config(folder) != run.start.card:
        raise ValueError(f"{folder}: holds a run with another model configuration; choose another output or remove the folder.")
    vocabulary, phones = run.start.vocabulary, run.start.phones
    if vocabulary is not None and load_vocabulary(folder).symbols != vocabulary.symbols:
        raise ValueError(f"{folder}: was trained on transcripts with other symbols; choose another output or remove the folder.")
    if read_speakers(folder) != run.start.speakers:
        raise ValueError(f"{folder}: was trained on other speakers; choose another output or remove the folder.")
    table = folder / PHONES
    if phones is not None and table.exists() and table.read_text(encoding="utf-8").split() != phones.symbols:
        raise ValueError(f"{folder}: was trained on texts with other phones; choose another output or remove the folder.")
    checkpoint.load_into(run.model, folder)
    return True


def load_trainer(run: "Trainer") -> TrainState:
    """All else of the checkpoint that :func:`load_model` found."""
    positions = run.state.positions
    state = load_state(run.model_folder, run.optimizer, run.names)
    state.positions = {name: state.positions.get(name, start) for name, start in positions.items()}
    if run.average is not None and (run.model_folder / EMA).exists():
        run.average.load(checkpoint.load_weights(run.model_folder / EMA))
    log.info("%s: resuming at step %d", run.model_folder, state.step)
    return state
