"""Texts to units, line by line: by a trained text-to-unit model, or as phones with silences and durations (SpeechLM-P).

A generator takes some lines at a time and gives for each the numbers of its units, whose names are its ``symbols``. What it gives for a
line depends on the line and its id alone: silences and durations are drawn from the id and the seed.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from avtlm import checkpoint, systems
from avtlm.data.batching import pad
from avtlm.data.seeds import seed_for
from avtlm.decoding.beam import BeamOptions, attention_beam
from avtlm.systems.fast_text2unit import FastText2Unit
from avtlm.systems.text2unit import Text2Unit
from avtlm.text.vocabulary import BOS, EOS, PAD, SPECIALS, UNKNOWN, Tokenizer
from avtlm.units.phonemes import MOST_UPSAMPLED, MissingWords, Phonemizer, PronunciationConfig, add_silences, mono_phones, upsample

BATCH_SYMBOLS = 4096  # read at once, padding among them


@dataclass
class Counts:
    """What a generator has met: words that its lexicon lacks, and symbols that its model does not know."""

    missing: MissingWords = field(default_factory=MissingWords)
    unknown: Counter[str] = field(default_factory=Counter)

    def to_json(self) -> dict[str, Any]:
        return {"words": self.missing.total, "missing": self.missing.missing, "listed": self.missing.words, "unknown": self.unknown}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Counts":
        return cls(MissingWords(values["words"], values["missing"], Counter(values["listed"])), Counter(values["unknown"]))


class TextToUnits(Protocol):
    """A generator of units."""

    @property
    def symbols(self) -> list[str]:
        """Names of the units by their numbers."""

    @property
    def identity(self) -> str:
        """Says whether another generator would give the same."""

    counts: Counts

    def __call__(self, texts: Sequence[str], ids: Sequence[str]) -> list[np.ndarray | None]:
        """Units of every line, int32 (units,); None for one that is left out: with unknown words, if these are to be, or too long."""


class PhonemeUnits:
    """Phones as units: those of the words, silences between some, each repeated for its duration (SpeechLM-P's text side).

    Args:
        phonemizer: words to phones.
        symbols: of the units in their order; None takes those of the phonemizer.
        seed: of silences and durations.
        durations: repeat phones; otherwise each stands once.

    Raises:
        ValueError: there is no list of symbols.
    """

    def __init__(self, phonemizer: Phonemizer, symbols: Sequence[str] | None = None, seed: int = 0, durations: bool = True) -> None:
        found = phonemizer.symbols if symbols is None else list(symbols)
        if found is None:
            raise ValueError(
                "alphabet: phones in IPA have no numbers by themselves; give their list with --dictionary, or another alphabet."
            )
        self.symbols = found
        self.counts = Counts(phonemizer.missing)
        self._phonemizer, self._seed, self._durations = phonemizer, seed, durations
        self._index = {symbol: number for number, symbol in enumerate(found)}

    @property
    def identity(self) -> str:
        lexicon = self._phonemizer.lexicon
        words = 0 if lexicon is None else hash_of("".join(f"{word} {phones}" for word, phones in lexicon.items()))
        return hash_of(json.dumps([asdict(self._phonemizer.config), words, self.symbols, self._seed, self._durations]))

    def __call__(self, texts: Sequence[str], ids: Sequence[str]) -> list[np.ndarray | None]:
        self._phonemizer.missing = self.counts.missing
        config = self._phonemizer.config
        found: list[np.ndarray | None] = []
        for name, words in zip(ids, self._phonemizer(texts), strict=True):
            rng = np.random.default_rng(seed_for(self._seed, "phones", name))
            phones = None if not words else add_silences(words, rng, config.silence, config.silence_probability)
            if phones is not None and self._durations:
                phones = upsample(phones, rng)
            kept = phones is not None and (not self._durations or len(phones) < MOST_UPSAMPLED)
            found.append(np.array([self._number(phone, name) for phone in phones or ()], dtype=np.int32) if kept else None)
        return found

    def _number(self, phone: str, name: str) -> int:
        if phone not in self._index:
            raise ValueError(f"line {name!r}: the phone {phone!r} is not in the dictionary of {len(self.symbols)} units; add it there.")
        return self._index[phone]


class ModelUnits:
    """Units by a trained model.

    Args:
        model: a `FastText2Unit` or `Text2Unit` in evaluation mode.
        vocabulary: of what it reads.
        phonemizer: words to phones; None for a model that reads characters.
        seed: of the silences.
        beam: hypotheses of a model that writes one unit after the other.
        identity: says what else the units depend on, such as the weights.
    """

    def __init__(
        self, model: nn.Module, vocabulary: Tokenizer, phonemizer: Phonemizer | None, seed: int = 0, beam: int = 1, identity: str = ""
    ) -> None:
        assert isinstance(model, FastText2Unit | Text2Unit)
        self.model, self.counts = model, Counts() if phonemizer is None else Counts(phonemizer.missing)
        self.symbols = [str(unit) for unit in range(model.config.units)]
        self._vocabulary, self._phonemizer, self._seed, self._beam, self._identity = vocabulary, phonemizer, seed, beam, identity
        self._index = {symbol: number for number, symbol in enumerate(vocabulary.symbols)}

    @property
    def identity(self) -> str:
        pronunciation = None if self._phonemizer is None else asdict(self._phonemizer.config)
        return hash_of(json.dumps([self._identity, pronunciation, self._seed, self._beam]))

    def __call__(self, texts: Sequence[str], ids: Sequence[str]) -> list[np.ndarray | None]:
        read = self._read(texts, ids)
        found: list[np.ndarray | None] = [None] * len(read)
        order = sorted((place for place, row in enumerate(read) if row is not None), key=lambda place: (len(read[place] or ()), place))
        for places in _batches(order, [len(row or ()) for row in read]):
            text, _ = pad([torch.tensor(read[place]) for place in places], PAD)
            for place, units in zip(places, self._generate(text.to(next(self.model.parameters()).device)), strict=True):
                found[place] = units.cpu().numpy().astype(np.int32)
        return found

    def _read(self, texts: Sequence[str], ids: Sequence[str]) -> list[list[int] | None]:
        """Ids of what is read, with their end; what the model does not know is counted."""
        if self._phonemizer is None:
            for symbol, count in self._vocabulary.unknown_report(texts).symbols.items():
                self.counts.unknown[symbol] += count
            return [[*self._vocabulary.encode(text), EOS] for text in texts]
        self._phonemizer.missing = self.counts.missing
        config = self._phonemizer.config
        found: list[list[int] | None] = []
        for name, words in zip(ids, self._phonemizer(texts), strict=True):
            if words is None:
                found.append(None)
                continue
            rng = np.random.default_rng(seed_for(self._seed, "phones", name))
            phones = add_silences(words, rng, config.silence, config.silence_probability)
            self.counts.unknown.update(phone for phone in phones if phone not in self._index)
            found.append([*(self._index.get(phone, UNKNOWN) for phone in phones), EOS])
        return found

    @torch.inference_mode()
    def _generate(self, text: Tensor) -> list[Tensor]:
        """Units of some lines of about one length."""
        model = self.model
        if isinstance(model, FastText2Unit):
            return model.generate(text)[0]
        settings = model.config
        limits = {"max_len_a": settings.units_per_symbol, "max_len_b": 10.0, "max_len": settings.max_units}
        options = BeamOptions(self._beam, never=(BOS, UNKNOWN), **limits)  # type: ignore[arg-type]
        found = attention_beam(model.decoder, *model.read(text), options)
        return [torch.tensor(best.tokens, dtype=torch.long) - len(SPECIALS) for best, *_ in found]


def _batches(order: Sequence[int], lengths: Sequence[int]) -> list[list[int]]:
    """Rows, ordered by length, in batches of at most `BATCH_SYMBOLS` with their padding, the longest first; a longer row is alone.

    Each has a power of two of rows, since a plan stays in memory for each shape of a batch (see FastText2Unit.generate)."""
    batches: list[list[int]] = []
    end = len(order)
    while end:
        rows = min(end, max(1, BATCH_SYMBOLS // lengths[order[end - 1]]))
        rows = 1 << (rows.bit_length() - 1)
        batches.append(list(order[end - rows : end]))
        end -= rows
    return batches


def hash_of(text: str) -> str:
    """A short hash that is the same in every process."""
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def open_generator(
    model: str | Path | None = None,
    lexicon: str | Path | None = None,
    changes: dict[str, Any] | None = None,
    dictionary: Sequence[str] | None = None,
    seed: int = 0,
    beam: int = 1,
    durations: bool = True,
) -> TextToUnits:
    """A generator: of a model's folder, or of phones without one.

    Args:
        model: folder of a text-to-unit model; None makes phones themselves the units.
        lexicon: in place of the model's; None keeps that, or leaves all words to eSpeak NG.
        changes: further settings of the pronunciation, see PronunciationConfig.
        dictionary: symbols of phones in their order, where these are the units.
        durations: see PhonemeUnits.

    Raises:
        CheckpointError, FileNotFoundError, ValueError, MissingExtra: something is missing, damaged or does not fit.
    """
    given = {**(changes or {}), **({} if lexicon is None else {"lexicon": str(lexicon)})}
    if model is None:
        if given.get("alphabet") == "arpabet" and lexicon is None:
            given = {"silence": mono_phones()[1], **given}
        config = replace(PronunciationConfig(alphabet="kaldi"), **given)
        return PhonemeUnits(Phonemizer.open(config), dictionary, seed, durations)
    found, vocabulary = systems.load_text2unit(model)
    systems.for_use(found)
    pronunciation: PronunciationConfig | None = found.config.pronunciation  # type: ignore[union-attr, assignment]
    if pronunciation is None and given:
        raise ValueError(f"{model}: this model reads characters, so that it needs no {' and no '.join(given)}; leave them out.")
    phonemizer = None if pronunciation is None else Phonemizer.open(replace(pronunciation, **given), model)
    weights = Path(model) / checkpoint.WEIGHTS
    digest = hashlib.blake2b(digest_size=8)
    with open(weights, "rb") as handle:
        while block := handle.read(1 << 22):
            digest.update(block)
    return ModelUnits(found, vocabulary, phonemizer, seed, beam, digest.hexdigest())
