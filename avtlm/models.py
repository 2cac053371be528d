"""Models of every kind, opened by name and saved again: what `avtlm.load` and `avtlm.save` do.

A model that was opened remembers the settings and vocabulary files of its folder as long as it lives, so that it can be saved after
training in a notebook, wherever the folder has gone since.
"""

import weakref
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from avtlm import checkpoint, config, systems
from avtlm.checkpoint import CARD, CONFIG, WEIGHTS
from avtlm.export.folder import check_choice, is_exported
from avtlm.hub import folder_of
from avtlm.model_card import UNKNOWN, licence_of, model_card, read_card
from avtlm.nn.int8 import is_quantised, quantise
from avtlm.protocols import DropsHeads
from avtlm.recognizer import Recognizer
from avtlm.transcriber import Transcriber
from avtlm.whole_model import WholeModel


@dataclass(frozen=True)
class Origin:
    """Where a model comes from.

    Attributes:
        name: of the folder or on the hub.
        settings: of its config.yaml.
        files: vocabulary and other files by name.
        licence: as its card states it.
    """

    name: str
    settings: dict[str, Any]
    files: dict[str, bytes] = field(default_factory=dict)
    licence: str = UNKNOWN

    def save(self, folder: Path) -> None:
        """Write the files, as a vocabulary does."""
        for name, content in self.files.items():
            (folder / name).write_bytes(content)


_ORIGINS: "weakref.WeakKeyDictionary[nn.Module, Origin]" = weakref.WeakKeyDictionary()


def load(
    name: str | Path,
    device: torch.device | str | None = None,
    revision: str | None = None,
    cache: str | Path | None = None,
    token: str | None = None,
    backend: str | None = None,
    weights: str | None = None,
) -> Any:
    """A model in evaluation mode, of whatever kind its folder holds.

    Args:
        name: a model folder, or ``owner/name`` of the hub (extra ``hub``). A folder comes first.
        device: default: the GPU if there is one.
        revision, cache, token: of a model on the hub; see avtlm.hub.pull.
        backend, weights: of a model that writes text, see avtlm.transcribe.load_recognizer; with ``int8`` the device is the CPU.

    Returns:
        An avtlm.transcriber.Transcriber (recognition, transcription), whose ``vocabulary`` and ``decoding`` come with it; or the model
        itself: an encoder (pre-training), SpeechT5 for speech or speakers, a language model, a text-to-unit model, a vocoder.

    Raises:
        CheckpointError, ConfigError, VocabularyError: the folder is incomplete or damaged.
        HubError: the hub has no such model, or cannot be reached.
        MissingExtra: a name of the hub without the extra ``hub``, or graphs without the extra ``export``.
        ValueError: 8-bit weights or ONNX of a model that has no such thing.
    """
    if is_exported(name):
        from avtlm.export.exported import open_exported

        check_choice(name, backend, weights)
        return open_exported(name)
    folder = folder_of(name, revision, cache, token)
    check_choice(folder, backend, weights)
    if weights == "int8" and device is not None and torch.device(device).type != "cpu":
        raise ValueError(f"device: {device} for a model with 8-bit weights, which are for a CPU; give cpu, or float32.")
    settings = checkpoint.load_config(folder)
    task = settings.get("task")
    model: nn.Module
    if task in ("recognition", "transcription"):
        model = systems.load(folder)
    elif task in systems.WHOLE:
        model, _ = systems.load_whole(folder, task)
    elif task == "language_model":
        model, _ = systems.load_language_model(folder)
    elif task == "text_to_units":
        model, _ = systems.load_text2unit(folder)
    elif settings["system"] in systems.VOCODERS:
        model = systems.load_vocoder(folder)
    else:
        model, _ = systems.load_encoder(folder)
    kept = [path for path in sorted(folder.iterdir()) if path.is_file() and path.name not in (WEIGHTS, CONFIG, CARD)]
    called = str(name) if Path(name) != folder else folder.resolve().name
    files = {path.name: path.read_bytes() for path in kept}
    _ORIGINS[model] = Origin(called, settings, files, licence_of(read_card(folder)))
    if weights == "int8":
        return quantise(model).eval()
    return model.to(device or ("cuda" if torch.cuda.is_available() else "cpu")).eval()


def save(model: nn.Module, folder: str | Path, licence: str | None = None) -> Path:
    """Write a model folder, replacing an older one atomically: weights as they are now, settings, vocabulary and a model card.

    Args:
        model: one that `load` has opened, also after training, or a Recognizer or system built in Python.
        folder: of the new model.
        licence: for the card, an identifier of the hub such as ``cc-by-4.0``; default: that of the model it was opened from.

    Raises:
        CheckpointError: ``folder`` is something else than a model folder.
        ValueError: this is no model of avtlm, or one that was exported or has 8-bit weights.
    """
    if is_quantised(model) or (isinstance(model, Transcriber) and not isinstance(model, Recognizer | WholeModel)):
        raise ValueError("save: this model has 8-bit weights, or was exported, and cannot be saved; save the one it was made from.")
    origin = _ORIGINS.get(model)
    settings = _settings(model, origin)
    inner = model.model if isinstance(model, WholeModel) else model
    target = Path(folder)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    notes = [] if origin is None else [f"Saved from Python; it was opened from {origin.name}."]
    stated = licence or (UNKNOWN if origin is None else origin.licence)
    card = model_card(target.resolve().name, settings, parameters, stated, notes=notes)
    with checkpoint.replace_folder(target) as temporary:
        if origin is not None:
            origin.save(temporary)
        vocabulary, decoding = (model.vocabulary, model.decoding) if isinstance(model, Transcriber) else (None, None)
        checkpoint.write_model(temporary, inner, settings, vocabulary, None, card, decoding)
    _ORIGINS[model] = Origin(target.resolve().name, settings, {} if origin is None else origin.files, stated)
    return target


def _settings(model: nn.Module, origin: Origin | None) -> dict[str, Any]:
    """What config.yaml has to say so that the model can be rebuilt."""
    before = {} if origin is None else origin.settings
    if isinstance(model, Recognizer):
        about = {"system": _system(model.encoder), "task": "recognition", "model": config.to_dict(model.config)}
        return {**before, **about, "geometry": model.geometry}
    if isinstance(model, WholeModel):
        inner: Any = model.model
        return {**before, "system": _system(inner), "task": "transcription", "model": config.to_dict(inner.config)}
    name = _system(model)
    if name in systems.VOCODERS:
        return {"task": "vocoder", **before, "system": name, "model": config.to_dict(model.config)}
    system = systems.find(name)
    settings = {"task": system.task or "pretrain", **before, "system": name, "model": config.to_dict(model.config)}
    if settings["task"] == "pretrain" and isinstance(model, DropsHeads):
        with torch.device("meta"):
            whole = system.build(model.config)
        if set(model.state_dict()) != set(whole.state_dict()):
            settings["heads"] = False  # what it was pre-trained with is gone
    return settings


def _system(model: nn.Module) -> str:
    """The name of the system whose model this is.

    Raises:
        ValueError: it is of none.
    """
    place = (type(model).__module__, type(model).__name__)
    for name, system in {**systems.SYSTEMS, **systems.VOCODERS}.items():
        if (system.module, system.model) == place:
            return name
    raise ValueError(f"save: {'.'.join(place)} is no model of avtlm; give one that avtlm.load has opened, or one of avtlm.systems.")
