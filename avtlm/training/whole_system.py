"""What a run of a system that is trained whole starts with: its vocabulary, its speakers, and the weights of a model for another task.

What is unusual here:
- A run for another task changes settings of the initial model, and takes its weights but for what the task has no use for (units, codes).
- The vocabulary is the initial model's, unless ``fresh`` names it or there is none; then it is made of the transcripts, and what belongs to
  the old one starts anew (embeddings, CTC).
"""

import dataclasses
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from avtlm import config, systems
from avtlm.data.dataset import Source, choose, written
from avtlm.data.manifest import Utterance, read_manifest
from avtlm.data.spoken_clips import READS
from avtlm.data.tags import listed, read_tags
from avtlm.decoding.settings import DecodingConfig
from avtlm.decoding.synthesis import LONGEST_OF_SPEECH, SynthesisOptions
from avtlm.protocols import DropsHeads, WholeConfig
from avtlm.text.vocabulary import FILE, Tokenizer, Vocabulary, load_vocabulary
from avtlm.training.heard_sources import SUBSAMPLED_RATE, tag_table, taught
from avtlm.training.initial import Start, load_except, merged, vocabulary_of

if TYPE_CHECKING:
    from avtlm.training.loop import TrainConfig

SPEAKERS = "speakers.txt"
OF_TEXT = ("recognition", "infilling", "units", "synthesis")  # sources whose transcripts are read or written
VOCABULARY = "vocabulary"  # in the key fresh
log = logging.getLogger(__name__)


def build_whole(settings: "TrainConfig", vocabulary: Tokenizer | None = None) -> Start:
    """The model, with the initial model's weights where there is one.

    Args:
        vocabulary: of the texts, in place of one that is made of the training data.

    Raises:
        ConfigError: wrong settings of the model.
        CheckpointError, ValueError: an initial model or data that do not fit.
    """
    system = systems.find(settings.system)
    kind: type[WholeConfig] = system.config_class()
    given, known = _initial(settings, kind)
    if settings.subwords is not None and known is not None and VOCABULARY not in settings.fresh:
        raise ValueError(f"subwords: {settings.subwords}, but {settings.initialise} has a vocabulary; name {VOCABULARY} in fresh.")
    if vocabulary is None:
        vocabulary = _vocabulary(settings, kind, known)
    speakers = speaker_table(settings) if any(part.task == "speaker" for part in settings.sources.values()) else ()
    kept = vocabulary is not None and known is not None and known.symbols == vocabulary.symbols
    counted: dict[str, Any] = {} if vocabulary is None else {"vocabulary": symbols_of(vocabulary, kind)}
    if kept and given is not None:
        counted["vocabulary"] = config.to_dict(given.config)["vocabulary"]
    counted |= {"speakers": len(speakers)} if speakers else {}
    told, tags = _heard(settings)
    counted |= told
    base = {} if given is None or settings.task == "pretrain" else config.to_dict(given.config)
    if not kept:
        base.pop("text_mask", None)  # vocabularies that are made here have one
    model_config = config.load(kind, model_settings(settings, base, counted))
    for name, part in settings.sources.items():
        read = READS.get(part.task, "speech")
        if read not in model_config.inputs:
            has = ", ".join(model_config.inputs)
            raise ValueError(
                f"sources.{name}.task: {part.task} reads {read}, but model.inputs is {has}; add it there, or choose another task."
            )
    model = system.build(model_config)
    if given is not None and settings.initialise_weights:
        if settings.task != "pretrain" and isinstance(given, DropsHeads):
            given.drop_heads()
        anew = [name for name in settings.fresh if name != VOCABULARY]
        if vocabulary is not None and not kept:
            log.info("initialise: %s has another vocabulary; what belongs to it starts from scratch", settings.initialise)
            anew += _parts(model, kind.vocabulary_parts)
        if speakers and read_speakers(settings.initialise) != speakers:
            anew += _parts(model, kind.speaker_parts)
        if tags and read_tags(settings.initialise) != tags and "tags" in told and settings.task != "pretrain":
            anew += _parts(model, kind.tag_parts)  # type: ignore[attr-defined]  # of systems that learn from such sources
        unwanted = tuple(f"{name}." for name in kind.optional_parts if not _parts(model, (name,)))
        taken = {name: tensor for name, tensor in given.state_dict().items() if not name.startswith(unwanted)}
        load_except(model, taken, anew)
    card = {"system": settings.system, "task": settings.task, "model": config.to_dict(model_config)}
    return Start(model, card, systems.input_format(model), vocabulary, None, speakers, decoding_of(settings), listed(tags), tags)


def model_settings(settings: "TrainConfig", base: dict[str, Any], counted: dict[str, Any]) -> dict[str, Any]:
    """Settings of a run's model: those of the initial model, changed by the task and what was counted, then by the configuration.

    Raises:
        ValueError: the configuration says otherwise what the run itself finds out.
    """
    made = systems.find(settings.system).config_class().of_task(settings.task)
    for name, value in {"task": made["task"], **counted}.items():
        if settings.model.get(name, value) != value:
            raise ValueError(f"model.{name}: {settings.model[name]}, but this run makes it {value}; leave the key out.")
    return merged(merged(base, {**made, **counted}), settings.model)


def _initial(settings: "TrainConfig", kind: type[Any]) -> tuple[nn.Module | None, Tokenizer | None]:
    """The initial model and its vocabulary."""
    if settings.initialise is None:
        return None, None
    given, _ = systems.load_encoder(settings.initialise)
    if not isinstance(given.config, kind):
        raise ValueError(f"initialise: {settings.initialise} holds no {settings.system} model; name the folder of one.")
    there = (Path(settings.initialise) / FILE).exists()
    return given, load_vocabulary(settings.initialise) if there else None


def _parts(model: nn.Module, names: tuple[str, ...]) -> list[str]:
    """Those of the parts that a model has."""
    return [name for name in names if any(key.startswith(f"{name}.") for key in model.state_dict())]


def _heard(settings: "TrainConfig") -> tuple[dict[str, Any], tuple[str, ...]]:
    """Settings of the model that sources of sounds and of teachers decide, and the names of the classes of sounds."""
    sources = settings.sources
    tags = tag_table(sources, settings.initialise)
    if tags:
        return {"tags": len(tags)}, tags
    taught_by = [part for part in sources.values() if part.task == "distillation"]
    encoder = settings.model.get("encoder", {})
    told, tags = taught(taught_by, SUBSAMPLED_RATE / encoder.get("output_downsampling", 2)) if taught_by else ({}, ())
    return told, tags or read_tags(settings.initialise)


# Vocabulary ---------------------------------------------------------------------------------------------------------------------------


def symbols_of(vocabulary: Tokenizer, kind: type[WholeConfig]) -> int:
    """Symbols of a model with this vocabulary; word pieces and made-up vocabularies do not count the further ones."""
    further = kind.further_symbols
    return len(vocabulary) + (0 if tuple(vocabulary.symbols[-len(further) :]) == further else len(further))


def _vocabulary(settings: "TrainConfig", kind: type[WholeConfig], known: Tokenizer | None) -> Tokenizer | None:
    """That of the initial model, or one of the transcripts; None for a run without texts that starts without one."""
    texts = _texts(settings)
    for name, row, text in texts:
        if not text.strip():
            raise ValueError(f"sources.{name}: utterance {row.id!r} has an empty {settings.sources[name].written}; leave it out.")
    if known is None or VOCABULARY in settings.fresh:
        if not texts:
            return None
        made = vocabulary_of([text for _, _, text in texts], settings)
        return Vocabulary([*made.symbols, *kind.further_symbols], made.spelling) if isinstance(made, Vocabulary) else made
    report = known.unknown_report(text for _, _, text in texts)
    if report.unknown:
        raise ValueError(
            f"sources: the vocabulary of {settings.initialise} lacks symbols of the transcripts ({report}); change or leave out "
            f"their rows, or name {VOCABULARY} in fresh."
        )
    return known


def _texts(settings: "TrainConfig") -> list[tuple[str, Utterance, str]]:
    """Source, row and text of all training texts, also of those that a limit leaves out: the alphabet is no secret."""
    found = []
    for name, part in settings.sources.items():
        for row in _rows(part) if part.task in OF_TEXT else ():
            text = written(row, part.written)
            if text is not None:
                found.append((name, row, text))
    return found


def _rows(part: Source) -> Iterator[Utterance]:
    yield from choose(read_manifest(part.manifest), dataclasses.replace(part, limit=None))


# Speakers -----------------------------------------------------------------------------------------------------------------------------


def speaker_table(settings: "TrainConfig") -> tuple[str, ...]:
    """Names of the speakers of all sources; their places are their numbers.

    Raises:
        ValueError: there are fewer than two.
    """
    named = [part for part in settings.sources.values() if part.task == "speaker"]
    names = {row.speaker for part in named for row in _rows(part) if row.speaker is not None}
    if len(names) < 2:
        raise ValueError(f"sources: {len(names)} speakers are named, and at least two are to be told apart; check the manifests' speaker.")
    return tuple(sorted(names))


def read_speakers(folder: str | Path | None) -> tuple[str, ...]:
    """Those that a model folder names; none if it has no list."""
    path = None if folder is None else Path(folder) / SPEAKERS
    return tuple(path.read_text(encoding="utf-8").splitlines()) if path is not None and path.is_file() else ()


# Decoding -----------------------------------------------------------------------------------------------------------------------------


def decoding_of(settings: "TrainConfig") -> DecodingConfig | SynthesisOptions | None:
    """How the model will be used; None leaves it to the defaults.

    Raises:
        ConfigError: unknown or wrong settings.
    """
    try:
        if settings.task == "generation":
            hears = any(part.task == "conversion" for part in settings.sources.values())
            return config.load(SynthesisOptions, ({"longest": LONGEST_OF_SPEECH} if hears else {}) | settings.decoding)
        return config.load(DecodingConfig, settings.decoding) if settings.decoding else None
    except config.ConfigError as error:
        raise config.ConfigError(str(error).replace("configuration", "decoding", 1)) from None
