"""What a checkpoint of fairseq's trainer holds: a configuration, weights, dictionaries, a SentencePiece model.

Layout: fairseq's trainer.py and AV-HuBERT's misc/fix_state.py. ``task_state`` has the dictionaries: ``dictionaries`` (of units, one per set
of labels; MT4SSL's ``discrete_dictionary``), ``target_dictionary`` (of transcripts), ``s2s_tokenizer``, and VATLM's ``phone_dictionary``;
SpeechLM's and SpeechUT's ``text_dictionary`` (of letters) and ``text_src_dictionary`` (of the units of texts).
Before 2021 the configuration was one long list of options, ``args``. WavLM's released files hold the options of the model alone, and its
weights.
"""

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from avtlm.convert.pickles import StoredTensor, TorchFile, TorchFileError, plain
from avtlm.convert.stand_ins import StandIn

MISSING = "???"  # omegaconf's sign for a value that was never given
TEACHER = "_ema"  # data2vec's teacher, a dictionary of its own among the weights
WAVLM = "wavlm"
FOLDER = " (of a Hugging Face model give the folder with its config.json)"


@dataclass(frozen=True)
class Container:
    """A checkpoint of fairseq.

    Attributes:
        cfg: the whole configuration as plain dictionaries, references resolved.
        weights: the model's tensors by official name, still in the file; a teacher's behind ``_ema.``.
        units: symbols of each set of units, the special ones among them.
        target: symbols of the transcripts.
        phones: symbols of the phones.
        text, text_units: symbols of unpaired texts, and of the units that they are read as.
        subwords: the serialised SentencePiece model.
        mixed: the options of the model stand among others that it does not read (``args``, WavLM), so that unknown ones say nothing.
    """

    path: Path
    cfg: dict[str, Any]
    weights: dict[str, StoredTensor]
    units: list[list[str]] = field(default_factory=list)
    target: list[str] | None = None
    phones: list[str] | None = None
    subwords: bytes | None = None
    mixed: bool = False
    text: list[str] | None = None
    text_units: list[str] | None = None

    @property
    def model(self) -> dict[str, Any]:
        """``cfg.model``."""
        return group(self.cfg, "model", self.path)

    @property
    def name(self) -> str:
        """The model's name in fairseq's registry; ``wavlm`` for WavLM's own files."""
        return str(self.model.get("_name"))


def read_container(path: str | Path, weightless: bool = False) -> Container:
    """Read a checkpoint of fairseq's trainer, or of WavLM.

    Args:
        weightless: take a file without weights, too, which tells the configuration of others.

    Raises:
        TorchFileError: the file is damaged, asks for foreign code, or holds something else.
        OSError: it cannot be opened.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        raise TorchFileError(f"{path} holds tensors alone{FOLDER}.")
    content = TorchFile(path).content
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict) or not {"cfg", "args"} & set(content):
        raise TorchFileError(f"{path} is a file of torch, but no checkpoint of fairseq: it has no 'model' and 'cfg'{FOLDER}.")
    configuration = content.get("cfg") or content.get("args")
    if configuration is None:
        raise TorchFileError(f"{path} has no configuration: neither 'cfg' nor, as in files from before 2021, 'args' holds any options.")
    weights = _tensors(path, content["model"], weightless)
    try:
        cfg = plain(configuration)
        if not isinstance(cfg, dict):
            raise TorchFileError("'cfg' is no group of options.")
        mixed = not isinstance(cfg.get("model"), dict)
        if mixed:
            cfg = grouped(cfg)
        cfg = resolved(cfg)
        state = content.get("task_state") or {}
        if not isinstance(state, dict):
            raise TorchFileError("'task_state' is no dictionary.")
        phones = _dictionaries(state.get("phone_dictionary"))
        target = _dictionaries(state.get("target_dictionary"))
        text, text_units = (_dictionaries(state.get(key)) for key in ("text_dictionary", "text_src_dictionary"))
        units = _dictionaries(state.get("dictionaries")) or _dictionaries(state.get("discrete_dictionary"))
        subwords = _subwords(state.get("s2s_tokenizer"))
    except (TorchFileError, RecursionError) as error:
        raise TorchFileError(f"{path} is no checkpoint that can be converted: {error}") from error
    first = [found[0] if found else None for found in (target, phones, text, text_units)]
    return Container(path, cfg, weights, units, first[0], first[1], subwords, mixed, first[2], first[3])


def _tensors(path: Path, model: Mapping[Any, Any], weightless: bool) -> dict[str, StoredTensor]:
    """The weights, those of a teacher's dictionary among them."""
    weights: dict[Any, Any] = {}
    for key, value in model.items():
        if isinstance(key, str) and key.split(".")[-1] == TEACHER and isinstance(value, dict):
            weights |= {f"{key}.{name}": tensor for name, tensor in value.items()}
        else:
            weights[key] = value
    odd = [str(key) for key, value in weights.items() if not isinstance(key, str) or not isinstance(value, StoredTensor)]
    if odd or not (weights or weightless):
        raise TorchFileError(f"{path}: 'model' should hold tensors only, but {', '.join(odd[:4]) or 'it is empty'}.")
    return weights


def grouped(options: Mapping[str, Any]) -> dict[str, Any]:
    """One long list of options in the groups that fairseq has today; each has all of them, since the list does not say whose they are.

    WavLM's list names no architecture; lists of lists are written as text in ``args``.
    """

    def read(key: str, value: Any) -> Any:
        if key in ("latent_temp", "loss_weights") and isinstance(value, str):
            try:
                return ast.literal_eval(value)
            except (SyntaxError, ValueError):
                return value
        return value

    everything = {key: read(key, value) for key, value in options.items()}
    name = options.get("arch") or (WAVLM if "extractor_mode" in options else None)
    return {
        "model": {**everything, "_name": name},
        "task": {**everything, "_name": options.get("task")},
        "criterion": {**everything, "_name": options.get("criterion")},
    }


def group(cfg: Mapping[str, Any], name: str, path: Path) -> dict[str, Any]:
    """A group of options; empty if there is none.

    Raises:
        TorchFileError: it is no group.
    """
    found = cfg.get(name) or {}
    if not isinstance(found, dict):
        raise TorchFileError(f"{path}: cfg.{name} is {found!r:.60}, no group of options.")
    return found


def resolved(cfg: dict[str, Any]) -> dict[str, Any]:
    """Replace references such as ``${task.label_rate}``; those that lead nowhere are missing values. A fine-tuned model's ``w2v_args`` is
    the configuration of another run, and refers to itself."""

    def look_up(reference: str, depth: int) -> Any:
        value: Any = cfg
        for part in reference.split("."):
            value = value.get(part, MISSING) if isinstance(value, dict) else MISSING
        return follow(value, depth + 1)

    def follow(value: Any, depth: int = 0) -> Any:
        match = re.fullmatch(r"\$\{([\w.]+)\}", value) if isinstance(value, str) else None
        if match:
            return look_up(match[1], depth) if depth < 8 else MISSING
        if isinstance(value, dict):
            return {key: resolved(item) if key == "w2v_args" and isinstance(item, dict) else follow(item) for key, item in value.items()}
        return [follow(item) for item in value] if isinstance(value, list) else value

    made: dict[str, Any] = follow(cfg)
    return made


def _dictionaries(value: Any) -> list[list[str]]:
    """Symbols of one pickled Dictionary or of several."""
    found = []
    for each in value if isinstance(value, list | tuple) else [] if value is None else [value]:
        state = each.state if isinstance(each, StandIn) else None
        symbols = state.get("symbols") if isinstance(state, dict) else None
        if not isinstance(symbols, list) or not all(isinstance(symbol, str) for symbol in symbols):
            raise TorchFileError("a dictionary in 'task_state' does not list its symbols.")
        found.append(list(symbols))
    return found


def _subwords(tokenizer: Any) -> bytes | None:
    """The SentencePiece model of a pickled SentencepieceBPE: its state is the serialised model, or has it under ``model_proto``."""
    if tokenizer is None:
        return None
    state = tokenizer.state if isinstance(tokenizer, StandIn) else None
    processor = state.get("sp") if isinstance(state, dict) else None
    proto = processor.state if isinstance(processor, StandIn) else None
    proto = proto.get("model_proto") if isinstance(proto, dict) else proto
    if not isinstance(proto, bytes):
        raise TorchFileError("'s2s_tokenizer' is no SentencePiece tokenizer.")
    return proto
