"""What a run of a text-to-unit model starts with: its phones or characters, its lexicon, and the weights of another model for them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avtlm import config, systems
from avtlm.data.dataset import choose, written
from avtlm.data.manifest import read_manifest
from avtlm.data.text_units import TASK, row_phones
from avtlm.text.vocabulary import Tokenizer, Vocabulary
from avtlm.training.initial import Start, load_except, vocabulary_of
from avtlm.units.phonemes import Lexicon, PronunciationConfig

if TYPE_CHECKING:
    from avtlm.training.loop import TrainConfig

LEXICON = "lexicon.txt"  # in a model folder


def build_unit_generator(settings: "TrainConfig", vocabulary: Tokenizer | None = None) -> Start:
    """The model, with the initial model's weights where there is one, and its lexicon for the folder.

    Args:
        vocabulary: of what is read, in place of one that is made of the training data.

    Raises:
        ConfigError: wrong settings of the model.
        CheckpointError, FileNotFoundError, ValueError: an initial model, a lexicon or data that do not fit.
    """
    system = systems.find(settings.system)
    given, known = (None, None) if settings.initialise is None else systems.load_text2unit(settings.initialise)
    model_config = config.load(system.config_class(), {**settings.model, "vocabulary": 3})  # to know what it reads
    pronunciation: PronunciationConfig | None = model_config.pronunciation
    vocabulary = vocabulary or known or _vocabulary(settings, pronunciation)
    files: dict[str, str] = {}
    changes: dict[str, Any] = {"vocabulary": len(vocabulary)}
    if pronunciation is not None:
        if pronunciation.silence not in vocabulary.symbols:
            some = ", ".join(vocabulary.symbols[4:12])
            raise ValueError(
                f"model.pronunciation.silence: {pronunciation.silence!r} is none of the phones of the training data ({some}, ...); name "
                "theirs, such as sil."
            )
        if pronunciation.lexicon is not None:
            Lexicon.read(pronunciation.lexicon)  # a damaged one is found before training
            files[LEXICON] = Path(pronunciation.lexicon).read_text(encoding="utf-8")
            changes["pronunciation"] = replace(pronunciation, lexicon=LEXICON)
    model_config = replace(model_config, **changes)
    model = system.build(model_config)
    if given is not None:
        load_except(model, given.state_dict(), settings.fresh)
    card = {"system": settings.system, "task": TASK, "model": config.to_dict(model_config)}
    return Start(model, card, systems.input_format(model), vocabulary, None, files=files)


def _vocabulary(settings: "TrainConfig", pronunciation: PronunciationConfig | None) -> Tokenizer:
    """The phones of all training rows, also of those that a limit leaves out, or the characters of their transcripts."""
    rows = [(part, row) for part in settings.sources.values() for row in choose(read_manifest(part.manifest), replace(part, limit=None))]
    if pronunciation is None:
        return vocabulary_of([text for part, row in rows if (text := written(row, part.written)) is not None], settings)
    phones: Sequence[str] = [" ".join(row_phones(row)) for _, row in rows]
    if not any(phones):
        raise ValueError(
            "sources: no row has phones, which this model reads; align the corpus, or set model.pronunciation to null (text2unit alone) to "
            "read characters."
        )
    return Vocabulary.tokens(phones)
