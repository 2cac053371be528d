"""What a run starts with: the model, fresh or from another model's folder, its vocabulary, its phones, and how its lips were cut."""

import dataclasses
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from avtlm import checkpoint, config, systems
from avtlm.data.dataset import ClipDataset, Source, choose, written
from avtlm.data.inputs import InputFormat
from avtlm.data.manifest import read_manifest
from avtlm.nn.feed_forward import spread
from avtlm.protocols import DropsHeads, MakesTeacher, PredictsUnits
from avtlm.recognizer import Recognizer, RecognizerConfig
from avtlm.text.vocabulary import LETTERS, Tokenizer, Vocabulary, load_vocabulary
from avtlm.training.hand_over import take_decoder

if TYPE_CHECKING:
    from avtlm.training.loop import TrainConfig

PHONES = "phones.txt"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Start:
    """What `build` makes.

    Attributes:
        card: configuration that the model's folder will carry.
        inputs: what the model takes in.
        vocabulary: of a model that reads or writes text.
        phones: symbol table of the text inputs, None without any.
        speakers: names of those that are told apart, by their numbers.
        decoding: settings for the folder of a model that is trained whole.
        files: further text files for the folder, by name.
        tags: names of the classes of sounds, by their numbers.
    """

    model: nn.Module
    card: dict[str, Any]
    inputs: InputFormat
    vocabulary: Tokenizer | None
    phones: Vocabulary | None
    speakers: tuple[str, ...] = ()
    decoding: Any = None
    files: Mapping[str, str] = field(default_factory=dict)
    tags: tuple[str, ...] = ()


# Which runs a source is for; all others are for pre-training.
RUNS: dict[str, tuple[str, ...]] = {
    "recognition": ("recognition", "transcription"),
    "sentences": ("language_model",),
    "text_to_units": ("text_to_units",),
    "synthesis": ("generation",),
    "conversion": ("generation",),
    "speaker": ("speaker", "transcription"),
    "tagging": ("transcription",),
}
UNPAIRED = ("speech", "infilling", "units")  # what systems that are trained whole pre-train on
NEEDS_SEVERAL = ("distillation", "tagging")  # only for systems that say what they learn from (System.learns)


def check_sources(settings: "TrainConfig") -> None:
    """The sources of a run fit its task and its system.

    Raises:
        ValueError: one does not, by its key.
    """
    system = systems.find(settings.system)
    if (settings.task == "text_to_units") != (system.task == "text_to_units"):
        raise ValueError(
            f"task: {settings.task} for {settings.system}; the task text_to_units and the systems fast_text2unit and text2unit belong "
            "together."
        )
    if settings.task in systems.WHOLE and not system.whole:
        raise ValueError(f"task: {settings.task} for {settings.system}, which is not trained whole; fine-tune it with recognition.")
    for key, part in {**{f"sources.{name}": part for name, part in settings.sources.items()}, "validation": settings.validation}.items():
        if part is not None and _is_one_of_several(key, part, settings, system):
            continue
        if part is None or (settings.task == "pretrain" and part.task == "recognition" and system.paired):
            continue
        if settings.task not in RUNS.get(part.task, ("pretrain",)):
            raise ValueError(f"{key}.task: {part.task!r} gives no batches for a run whose task is {settings.task!r}; change one of them.")
        if settings.task == "pretrain" and (part.task in UNPAIRED) != system.whole:
            kinds = ", ".join(UNPAIRED) if system.whole else "audio_video, audio, audio_text and text"
            raise ValueError(f"{key}.task: {part.task!r} gives no batches that {settings.system} learns from; choose among {kinds}.")
        if settings.task == "pretrain" and part.units is None and system.units:
            raise ValueError(f"{key}.units: missing; a pre-training source needs unit labels (see avtlm units --help).")


def _is_one_of_several(key: str, part: Source, settings: "TrainConfig", system: systems.System) -> bool:
    """Whether a source is among those that a system itself says it learns from (System.learns).

    Raises:
        ValueError: such a source for another system, or another source for such a system.
    """
    if system.learns is None and part.task not in NEEDS_SEVERAL and (part.task, settings.task) != ("speaker", "transcription"):
        return False
    allowed = (system.learns or {}).get(settings.task, ())
    if part.task not in allowed:
        choice = f"choose among {', '.join(allowed)}" if allowed else "choose another task, or the system mt2kd"
        raise ValueError(f"{key}.task: {part.task!r} gives no batches that {settings.system} learns from by {settings.task}; {choice}.")
    return True


def build(settings: "TrainConfig", vocabulary: Tokenizer | None = None) -> Start:
    """Build what a configuration describes, with the initial model's weights where it names one.

    Args:
        vocabulary: of the texts, in place of one that is made of the training data.

    Raises:
        ConfigError: wrong settings of the model.
        CheckpointError, ValueError: an initial model or data that do not fit.
    """
    system = systems.find(settings.system)
    if system.whole and settings.task != "recognition":
        from avtlm.training.whole_system import build_whole  # which builds on this module

        return build_whole(settings, vocabulary)
    if settings.task == "text_to_units":
        from avtlm.training.unit_generator import build_unit_generator  # which builds on this module

        return build_unit_generator(settings, vocabulary)
    phones = phone_table(settings.sources.values(), settings.initialise)
    if settings.task == "pretrain":
        model_config = config.load(system.config_class(), dict(settings.model))
        model = system.build(model_config)
        if settings.initialise is not None:
            given, _ = systems.load_encoder(settings.initialise)
            load_except(model, given.state_dict(), settings.fresh)
            if "teacher" in settings.fresh and isinstance(model, MakesTeacher):
                model.make_teacher()
        card = {"system": settings.system, "task": "pretrain", **_geometry(settings), "model": config.to_dict(model_config)}
        return Start(model, card, systems.input_format(model), None, phones)
    if settings.task == "language_model":
        return _language_model(settings, vocabulary)
    heads = config.load(RecognizerConfig, settings.model)
    encoder_settings: dict[str, Any] = {}
    initial: nn.Module | None = None
    if settings.initialise is not None:
        initial, _ = systems.load_encoder(settings.initialise)
        if not issubclass(system.config_class(), type(initial.config)):
            held = checkpoint.load_config(settings.initialise)["system"]
            raise ValueError(
                f"initialise: {settings.initialise} holds a {held} model, but system is {settings.system}; name one of its own."
            )
        encoder_settings = config.to_dict(initial.config)
    encoder_config = config.load(system.config_class(), merged(encoder_settings, heads.encoder))
    encoder = system.build(encoder_config)
    for part in (encoder, initial):
        if isinstance(part, DropsHeads):
            part.drop_heads()
    if initial is not None and settings.initialise_weights:
        load_except(encoder, initial.state_dict(), settings.fresh)
    heads = dataclasses.replace(heads, encoder=config.to_dict(encoder_config))
    vocabulary = vocabulary or _vocabulary(settings)
    card = {"system": settings.system, "task": "recognition", **_geometry(settings), "model": config.to_dict(heads)}
    recognizer = Recognizer(heads, encoder, vocabulary)
    if settings.keep_decoder and settings.initialise is not None:
        take_decoder(recognizer, settings.initialise)
    recognizer.open_search(heads.decoding)  # a file that is missing is found before training, not when it is first searched
    return Start(recognizer, card, systems.input_format(encoder), vocabulary, phones)


def _language_model(settings: "TrainConfig", vocabulary: Tokenizer | None) -> Start:
    """A language model over the tokens of a recogniser, or of its own texts."""
    if vocabulary is None and settings.vocabulary_from is not None:
        vocabulary = load_vocabulary(checkpoint.check(settings.vocabulary_from))
    vocabulary = vocabulary or _vocabulary(settings)
    system = systems.find(settings.system)
    model_config = config.load(system.config_class(), {**settings.model, "vocabulary": len(vocabulary)})
    model = system.build(model_config)
    if settings.initialise is not None:
        given, own = systems.load_language_model(settings.initialise)
        if own.symbols != vocabulary.symbols:
            raise ValueError(f"initialise: {settings.initialise} has other tokens than this run; set vocabulary_from to it.")
        load_except(model, given.state_dict(), settings.fresh)
    card = {"system": settings.system, "task": "language_model", "model": config.to_dict(model_config)}
    return Start(model, card, systems.input_format(model), vocabulary, None)


def _vocabulary(settings: "TrainConfig") -> Tokenizer:
    """Characters or word pieces of the training transcripts (all rows, also those that a limit leaves out: the alphabet is no secret)."""
    texts: list[str] = []
    for part in settings.sources.values():
        rows = choose(read_manifest(part.manifest), dataclasses.replace(part, limit=None))
        texts += [text for text in (written(row, part.written) for row in rows) if text is not None]
    return vocabulary_of(texts, settings)


def vocabulary_of(texts: Sequence[str], settings: "TrainConfig") -> Tokenizer:
    """A vocabulary of the kind that a configuration asks for.

    Raises:
        ValueError: there are no texts, or too few for so many word pieces.
    """
    if not texts:
        raise ValueError("sources: no transcripts to build a vocabulary from; this task needs them.")
    if settings.subwords is not None:
        from avtlm.text.subwords import Subwords

        return Subwords.train(texts, settings.subwords)
    if settings.vocabulary == LETTERS:
        letters = Vocabulary.letters()
        lacking = letters.unknown_report(texts)
        if lacking.unknown:
            log.warning("vocabulary: letters: %s in the transcripts.", lacking)
        return letters
    return Vocabulary.characters(texts)


def phone_table(sources: Iterable[Source], initial: str | Path | None = None) -> Vocabulary | None:
    """Symbols of the timed phones of all sources with text; None if there are none and no initial model knows any.

    The symbols of an initial model keep their places, since its embeddings belong to them; new ones come after them.
    """
    symbols: set[str] = set()
    for part in sources:
        if part.task in ("text", "audio_text"):
            for row in read_manifest(part.manifest):
                symbols |= {entry.rsplit(":", 2)[0] for entry in (row.phones or "").split()}
    known = None if initial is None else Path(initial) / PHONES
    if known is None or not known.is_file():
        return Vocabulary.tokens(symbols) if symbols else None
    first = known.read_text(encoding="utf-8").split()
    return Vocabulary([*first, *sorted(symbols - set(first))], "tokens")


def _geometry(settings: "TrainConfig") -> dict[str, str]:
    """How the lips of the training clips were aligned, so that a user's video is cut in the same way.

    Raises:
        ValueError: the clips were cut in different ways.
    """
    found: dict[str, str] = {}
    for part in settings.sources.values():
        if part.task in ("audio_video", "recognition"):
            for row in read_manifest(part.manifest):
                if row.video is not None and isinstance(row.extra.get("geometry"), str):
                    found.setdefault(row.extra["geometry"], f"{part.manifest}, utterance {row.id!r}")
    if len(found) > 1:
        places = " but ".join(f"{name} in {place}" for name, place in sorted(found.items()))
        raise ValueError(f"sources: lips are cut in different ways ({places}); crop them all with the same --geometry.")
    return {"geometry": next(iter(found))} if found else {}


def check_inventory(model: nn.Module, datasets: Mapping[str, ClipDataset], phones: Vocabulary | None) -> None:
    """Unit labels and phones fit the model's tables; datasets by their keys in the configuration.

    Raises:
        ValueError: a unit or a phone that the model has no row for.
    """
    if not isinstance(model, PredictsUnits):
        return
    for name, dataset in datasets.items():
        if dataset.labels is None and model.inventory["units"] and dataset.source.task == "speech":
            raise ValueError(f"{name}.units: missing; make labels (see avtlm units --help), or set model.units to 0.")
        keys = ["units", *(f"units_{number + 1}" for number in range(len(dataset.further_labels)))]
        for key, labels in zip(keys, [dataset.labels, *dataset.further_labels], strict=True):
            which = "units" if key == "units" else "further_units"
            if key not in model.inventory:
                raise ValueError(f"{name}.further_units: {len(keys)} inventories, but the model predicts fewer; set model.further_units.")
            highest = -1 if labels is None else max((int(row.max()) for row in labels.values() if len(row)), default=-1)
            first = dataset.inputs.first_unit
            size = model.inventory.get("text_units" if dataset.source.task == "units" else key, model.inventory[key])
            told = f" and {first + 1} special symbols" if first else ""
            if highest + first >= size:
                raise ValueError(
                    f"{name}.{which}: has unit {highest}, but the model predicts {size} units, "
                    f"counted from 0; set model.{which} to the number of clusters{told}."
                )
        said, rows = dataset.phonemes, model.inventory.get("text_units", 0)
        highest = -1 if said is None else max(int(row.max()) for row in said.values() if len(row))
        if highest + dataset.inputs.first_unit >= rows and said is not None:
            raise ValueError(
                f"{name}.phonemes: has phoneme {highest}, but the model knows {max(rows - dataset.inputs.first_unit, 0)}; set "
                "model.phones, or leave the key out."
            )
    if phones is not None and len(phones) > model.inventory["phones"]:
        raise ValueError(
            f"model.frontends.phones: {model.inventory['phones']} is too few for the {len(phones)} symbols of the texts "
            "(phones and 4 special ones)."
        )


def load_except(model: nn.Module, weights: dict[str, Tensor], fresh: Sequence[str]) -> None:
    """Copy weights, strictly, into all but the modules named in ``fresh``; plain layers give theirs to every expert of the model.

    Raises:
        ValueError: names or shapes differ elsewhere, or ``fresh`` names nothing.
    """
    own, weights = model.state_dict(), spread(model, weights)
    for name in fresh:
        if not any(key.startswith(name + ".") or key == name for key in own):
            raise ValueError(
                f"fresh: {name!r} is no part of this model; its parts are {', '.join(dict.fromkeys(key.split('.')[0] for key in own))}."
            )
    kept = {key: own[key] for key in own if any(key.startswith(name + ".") or key == name for name in fresh)}
    given = {key: value for key, value in weights.items() if not any(key.startswith(name + ".") or key == name for name in fresh)}
    wrong = [key for key in own if key not in kept and (key not in given or given[key].shape != own[key].shape)] + [
        key for key in given if key not in own
    ]
    if wrong:
        raise ValueError(
            f"initialise: {len(wrong)} tensors do not fit this model ({', '.join(wrong[:4])}); use the same sizes, or name them in fresh."
        )
    model.load_state_dict({**given, **kept})


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """``base`` with single settings of nested groups replaced."""
    result = dict(base)
    for key, value in changes.items():
        result[key] = merged(result[key], value) if isinstance(value, dict) and isinstance(result.get(key), dict) else value
    return result
