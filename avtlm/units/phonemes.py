"""Phonemes of a text: words looked up in a lexicon, silences between some of them, and a duration for each, as SpeechLM makes them.

What is unusual here:
- A word that the lexicon lacks is counted and listed, whatever is done about it: its phonemes come from eSpeak NG's rules, or it is spoken
  noise (``<UNK>``, the published rule of SpeechLM-P), or its line is left out (that of the text-to-unit model).
- Phonemes found by rules are written in the lexicon's alphabet: with stress and with Kaldi's positions in the word if the lexicon has them.
- Everything drawn comes from a generator of the caller's; old ones of NumPy (RandomState) repeat the official scripts.

Source: SpeechLM (arXiv 2209.15329), data_process/phoneme_tokenizer/ltr2kaldi_phn_sil025.py, repeat_withou_insert_sil_less_4375.py,
phoneize_with_sil.py and filter_paireddata_by_len.py.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from avtlm.units import grapheme_to_phoneme
from avtlm.units.grapheme_to_phoneme import VOWELS

CONSONANTS = (
    *("B", "CH", "D", "DH", "F", "G", "HH", "JH", "K", "L", "M", "N", "NG", "P", "R", "S", "SH", "T", "TH", "V", "W", "Y", "Z", "ZH"),
)
UNKNOWN_WORD, SILENT_WORD = "<UNK>", "!SIL"
SILENCES = ("sil", "SIL", "<SIL>", "sp", "SP", "spn", "SPN", "<eps>", "_", "")
IPA_VOWELS = "iyɨʉɯuɪʏʊeøɘɵɤoəɛœɜɞʌɔæɐaɶɑɒɚɝᵻ"
# Frames of 20 ms that a phone lasts, mean and standard deviation: a fixed table, not estimated for every phone.
SILENCE_FRAMES, NOISE_FRAMES, PHONE_FRAMES = (14.0, 7.0), (32.0, 11.0), (5.0, 2.5)
MOST_FRAMES = 4375  # of a line; from here on its durations are means, made shorter
MOST_SYMBOLS, MOST_UPSAMPLED = 2000, 2800  # of a line on either side, before and after its phones have durations
WORDS_KEPT = 100_000  # of the words listed as missing, and of those whose phonemes are remembered

Unknown = Literal["espeak", "spn", "drop"]
Alphabet = Literal["kaldi", "arpabet", "ipa"]


class Draws(Protocol):
    """numpy.random.Generator, or RandomState."""

    def random(self, size: int) -> Any: ...
    def normal(self, loc: float, scale: float) -> Any: ...


# Alphabets ----------------------------------------------------------------------------------------------------------------------------


def kaldi_phones() -> list[str]:
    """The 364 symbols of Kaldi's LibriSpeech recipe in their order: silence and noise, phones with stress and position, disambiguation."""
    named = [f"{phone}{place}" for phone in ("SIL", "SPN") for place in ("", "_B", "_E", "_I", "_S")]
    spoken = [
        f"{phone}{stress}_{place}"
        for phone in sorted((*VOWELS, *CONSONANTS))
        for stress in (("", "0", "1", "2") if phone in VOWELS else ("",))
        for place in "BEIS"
    ]
    return ["<eps>", *named, *spoken, *(f"#{number}" for number in range(17))]


def mono_phones() -> list[str]:
    """The 42 symbols that SpeechLM's text-to-unit model reads, in their order."""
    return ["|", "<SIL>", "'", *sorted((*VOWELS, *CONSONANTS))]


def phone_class(symbol: str) -> Literal["vowel", "consonant", "silence"]:
    """What kind of phone a symbol of ARPAbet (with or without stress and position) or IPA is; noise counts as silence."""
    base = re.sub(r"_[BEIS]$", "", symbol)
    if base in SILENCES:
        return "silence"
    if base.rstrip("012").upper() in VOWELS or grapheme_to_phoneme.without_stress(base)[:1] in IPA_VOWELS:
        return "vowel"
    return "consonant"


# Words ---------------------------------------------------------------------------------------------------------------------------------


class Lexicon(Mapping[str, tuple[str, ...]]):
    """Phones of words.

    Args:
        words: phones by word.
        name: for errors.
    """

    def __init__(self, words: Mapping[str, tuple[str, ...]], name: str = "lexicon") -> None:
        self._words, self.name = words, name
        self.phones = sorted({phone for phones in words.values() for phone in phones})
        self.positions = any(re.search(r"_[BEIS]$", phone) for phone in self.phones)
        bare = [re.sub(r"_[BEIS]$", "", phone) for phone in self.phones]
        self.stress = any(re.fullmatch(r"[A-Z]+[012]", phone) for phone in bare)
        spoken = {phone.rstrip("012") for phone in bare if phone not in SILENCES}
        self.arpabet = spoken <= {*VOWELS, *CONSONANTS}

    @classmethod
    def read(cls, path: str | Path) -> "Lexicon":
        """Read lines ``WORD PHONE PHONE ...``, or Kaldi's ``WORD WORD PHONE ...`` (align_lexicon), where the last entry of a word counts.

        Lines that begin with ``;;;`` are comments, and ``WORD(2)`` a further pronunciation, which is passed over, as in CMUdict.

        Raises:
            FileNotFoundError: no such file.
            ValueError: a line without phones, or bytes that are no UTF-8, by the line.
        """
        entries: list[tuple[int, list[str]]] = []
        with open(path, "rb") as handle:
            for number, raw in enumerate(handle, 1):
                try:
                    fields = raw.decode("utf-8").split(" #")[0].split()
                except UnicodeDecodeError:
                    raise ValueError(f"{path}, line {number}: is not UTF-8 text; convert the lexicon.") from None
                if fields and not fields[0].startswith(";;;") and not re.fullmatch(r".+\(\d+\)", fields[0]):
                    entries.append((number, fields))
        twice = bool(entries) and all(len(fields) > 2 and fields[0] == fields[1] for _, fields in entries)
        words: dict[str, tuple[str, ...]] = {}
        for number, fields in entries:
            phones = fields[2:] if twice else fields[1:]
            if not phones:
                raise ValueError(f"{path}, line {number}: expected a word and its phones; found {' '.join(fields)[:60]!r}.")
            words[fields[0]] = tuple(phones)
        if not words:
            raise ValueError(f"{path}: the lexicon has no words.")
        return cls(words, str(path))

    def __getitem__(self, word: str) -> tuple[str, ...]:
        return self._words[word]

    def __iter__(self) -> Iterator[str]:
        return iter(self._words)

    def __len__(self) -> int:
        return len(self._words)

    def find(self, word: str) -> tuple[str, ...] | None:
        """Phones of a word as it is written, or in upper or lower case."""
        return next((self._words[form] for form in (word, word.upper(), word.lower()) if form in self._words), None)


@dataclass
class MissingWords:
    """Words that a lexicon lacks: how often, among how many words; of each how often, for the first 100,000 different ones."""

    total: int = 0
    missing: int = 0
    words: Counter[str] = field(default_factory=Counter)

    def add(self, word: str) -> None:
        self.missing += 1
        if word in self.words or len(self.words) < WORDS_KEPT:
            self.words[word] += 1

    def listed(self) -> list[tuple[str, int]]:
        """Words with their counts, the most frequent first."""
        return sorted(self.words.items(), key=lambda pair: (-pair[1], pair[0]))

    def __str__(self) -> str:
        if not self.missing:
            return f"all {self.total} words are in the lexicon"
        worst = ", ".join(f"{word!r} {count}x" for word, count in self.listed()[:10])
        more = len(self.words) - 10
        rest = f" and {more} more" if more > 0 else ""
        return f"{self.missing} of {self.total} words are not in the lexicon ({100 * self.missing / self.total:.2f} %): {worst}{rest}"


@dataclass(frozen=True)
class PronunciationConfig:
    """How words become phones.

    Attributes:
        lexicon: file, of a trained model in its folder; None leaves all words to eSpeak NG.
        unknown: what becomes of a word that the lexicon lacks: ``espeak``, its phonemes by rules; ``spn``, spoken noise; ``drop``, its
            line is left out.
        alphabet: without a lexicon: ARPAbet with stress and positions as Kaldi's (``kaldi``), plain (``arpabet``), or ``ipa``.
        stress: false takes the stress marks off the lexicon's vowels.
        silence: the symbol for silence, at both ends of a line and between some words.
        silence_probability: of a silence between two words.
        noise: the symbol for spoken noise, if the lexicon has no word ``<UNK>``.
        language: voice of eSpeak NG.
    """

    lexicon: str | None = None
    unknown: Unknown = "espeak"
    alphabet: Alphabet = "arpabet"
    stress: bool = True
    silence: str = "SIL"
    silence_probability: float = 0.25
    noise: str = "SPN"
    language: str = "en-us"

    def __post_init__(self) -> None:
        if not 0.0 <= self.silence_probability <= 1.0:
            raise ValueError(f"silence_probability: {self.silence_probability} is not a probability; give a number from 0 to 1.")
        if not self.silence.split() == [self.silence] or not self.noise.split() == [self.noise]:
            raise ValueError(f"silence: {self.silence!r}, noise: {self.noise!r}; give symbols without white space.")


Words = list[tuple[str, ...]]


class Phonemizer:
    """Texts to phones by words.

    Args:
        config: how; its file is not read here.
        lexicon: None leaves all to eSpeak NG.

    Attributes:
        missing: what the lexicon has lacked so far.

    Raises:
        MissingExtra: eSpeak NG is needed, but not installed.
        ValueError: words are to be found by rules, but the lexicon's phones are not ARPAbet.
    """

    def __init__(self, config: PronunciationConfig, lexicon: Lexicon | None = None) -> None:
        self.config, self.lexicon = config, lexicon
        self.missing = MissingWords()
        self._ruled: dict[str, tuple[str, ...]] = {}
        if lexicon is None or config.unknown == "espeak":
            grapheme_to_phoneme.require()
        if lexicon is not None and config.unknown == "espeak" and not lexicon.arpabet:
            raise ValueError(
                f"{lexicon.name}: its phones are not those of ARPAbet, which words by eSpeak NG's rules are written in; choose spn or drop "
                "for words that it lacks."
            )

    @classmethod
    def open(cls, config: PronunciationConfig, folder: str | Path | None = None) -> "Phonemizer":
        """With the lexicon that the configuration names, in ``folder`` if it lies there.

        Raises:
            FileNotFoundError, ValueError, MissingExtra: see Lexicon.read and Phonemizer.
        """
        if config.lexicon is None:
            return cls(config)
        own = None if folder is None else Path(folder) / config.lexicon
        return cls(config, Lexicon.read(own if own is not None and own.exists() else config.lexicon))

    @property
    def symbols(self) -> list[str] | None:
        """All phones that there can be, in a fixed order; None for IPA, which has no closed list.

        Those of Kaldi's recipe are in its order, so that their numbers are those of its phone table.
        """
        lexicon, config = self.lexicon, self.config
        if lexicon is None and config.alphabet == "ipa":
            return None
        if lexicon is None or (lexicon.positions and lexicon.arpabet and config.stress):
            return kaldi_phones() if lexicon is not None or config.alphabet == "kaldi" else mono_phones()
        phones = {self._written(phone) for phone in lexicon.phones}
        if config.unknown == "espeak":
            phones |= {*CONSONANTS, *((f"{phone}{level}" for phone in VOWELS for level in "012") if self._stressed else VOWELS)}
        return [config.silence, *sorted(phones | {config.noise} - {config.silence})]

    def __call__(self, texts: Sequence[str]) -> list[Words | None]:
        """The words of every text, each as its phones; None for a text that is left out."""
        if self.lexicon is None:
            return [self._by_rule(words) for words in grapheme_to_phoneme.ipa(texts, self.config.language)]
        divided = [text.split() for text in texts]
        if self.config.unknown == "espeak":
            self._remember(dict.fromkeys(word for words in divided for word in words if self.lexicon.find(word) is None))
        return [self._looked_up(words, self.lexicon) for words in divided]

    def _looked_up(self, words: list[str], lexicon: Lexicon) -> Words | None:
        found: Words = []
        lacking = False
        for word in words:
            self.missing.total += 1
            phones = lexicon.find(word)
            if phones is None:
                self.missing.add(word)
                lacking = True
                phones = self._ruled.get(word) if self.config.unknown == "espeak" else lexicon.find(UNKNOWN_WORD)
            found.append(tuple(map(self._written, phones or (self.config.noise,))))
        return None if lacking and self.config.unknown == "drop" else found

    def _written(self, phone: str) -> str:
        return phone if self.config.stress else re.sub(r"^([A-Z]+)[012]", r"\1", phone)

    def _by_rule(self, words: list[list[str]]) -> Words:
        self.missing.total += len(words)
        if self.config.alphabet == "ipa":
            return [tuple(map(grapheme_to_phoneme.without_stress, word)) for word in words]
        kaldi = self.config.alphabet == "kaldi"
        written = [grapheme_to_phoneme.arpabet(word, stress=kaldi) for word in words]
        return [placed(word) if kaldi else word for word in written if word]

    @property
    def _stressed(self) -> bool:
        return self.lexicon is not None and self.lexicon.stress and self.config.stress

    def _remember(self, words: Iterable[str]) -> None:
        """Find the phonemes of words by rules, those that are not known already; each alone, as a lexicon has them."""
        new = [word for word in words if word not in self._ruled]
        if len(self._ruled) + len(new) > WORDS_KEPT:
            self._ruled.clear()
            new = list(words)
        assert self.lexicon is not None
        for word, said in zip(new, grapheme_to_phoneme.ipa([word.lower() for word in new], self.config.language), strict=True):
            phones = grapheme_to_phoneme.arpabet([phone for part in said for phone in part], self._stressed)
            self._ruled[word] = placed(phones) if self.lexicon.positions else phones


def placed(phones: Sequence[str]) -> tuple[str, ...]:
    """Phones of a word with Kaldi's marks of their place: beginning, inside, end, or single."""
    if len(phones) == 1:
        return (f"{phones[0]}_S",)
    last = len(phones) - 1
    return tuple(f"{phone}_{'B' if index == 0 else 'E' if index == last else 'I'}" for index, phone in enumerate(phones))


# Silences and durations ------------------------------------------------------------------------------------------------------------------


def add_silences(words: Sequence[Sequence[str]], rng: Draws, silence: str = "SIL", probability: float = 0.25) -> list[str]:
    """Phones of a line with a silence at both ends, and between two words with some probability: one draw for each gap."""
    draws = rng.random(len(words) - 1) if probability > 0 and len(words) > 1 else ()
    phones = [silence]
    for index, word in enumerate(words):
        phones += word
        if index < len(draws) and draws[index] < probability:
            phones.append(silence)
    return [*phones, silence]


def typical_frames(phone: str) -> tuple[float, float]:
    """Mean and standard deviation of a phone's duration, in frames of 20 ms."""
    base = re.sub(r"_[BEIS]$", "", phone).strip("<>").lower()
    return SILENCE_FRAMES if base == "sil" else NOISE_FRAMES if base == "spn" else PHONE_FRAMES


def draw_durations(phones: Sequence[str], rng: Draws, most: int = MOST_FRAMES) -> list[int]:
    """A duration of at least one frame for every phone of a line: round(N(mean, deviation)).

    A line that comes to ``most`` frames takes its means instead, made shorter by 1, 2, ... frames until it fits.

    Raises:
        ValueError: the line has too many phones for that.
    """
    table = [typical_frames(phone) for phone in phones]
    durations = [max(1, round(rng.normal(mean, deviation))) for mean, deviation in table]
    less = 0
    while sum(durations) >= most:
        if len(phones) >= most:
            raise ValueError(f"a line of {len(phones)} phones does not fit into {most} frames; divide it.")
        less += 1
        durations = [max(1, round(mean - less)) for mean, _ in table]
    return durations


def upsample(phones: Sequence[str], rng: Draws, most: int = MOST_FRAMES) -> list[str]:
    """Every phone of a line repeated for its duration; see `draw_durations`."""
    durations = draw_durations(phones, rng, most)
    return [phone for phone, duration in zip(phones, durations, strict=True) for _ in range(duration)]


def fits(*lengths: int, most: int) -> bool:
    """Whether both sides of a pair of lines hold something, and fewer than ``most`` symbols."""
    return all(0 < length < most for length in lengths)


def letters(text: str) -> str:
    """A text as letters: in upper case, divided by spaces, ``|`` behind every word, and without the mark ``<unk>`` of unknown words."""
    return " ".join(" ".join([*word, "|"]) for word in text.replace("<unk>", "").upper().split())
