"""Mandarin text to phonemes: through the words of a lexicon, as MMSpeech's code does, or through pinyin.

What is unusual here:
- A phoneme is a part of pinyin: an initial, the vowels with their tone (1 to 5), or the nasal behind them: 中国 is ``zh o1 ng g uo2``.
- The official segmentation follows the lexicon's words character by character as long as any word goes on like that, and may stop in the
  middle of one; what is no word then is spelled by its characters.
- What cannot be said is refused, in one sentence. The official code reads every digit as zero, and leaves out Latin letters and characters
  that the lexicon lacks; `OFFICIAL` does the same.

Source: OFA-Sys/OFA (arXiv 2212.00500), utils/text2phone.py and utils/phone/zh/phone_dict.txt, whose 120 phonemes these are.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from avtlm.errors import MissingExtra

EXTRA = "mandarin"
TONED = {  # vowel parts, and the tones that each has
    **dict.fromkeys(("a", "ai", "ao", "e", "ei", "i", "ia", "iao", "ie", "iu", "o", "ou", "u", "ua", "uai", "uo", "v"), "12345"),
    "er": "234",
    "ue": "1234",
    "ui": "1234",
}
INITIALS = ("b", "p", "m", "f", "d", "t", "n", "l", "g", "k", "h", "j", "q", "x", "zh", "ch", "sh", "r", "z", "c", "s", "y", "w")
NASALS = ("n", "ng")
# In the order of the official dictionary, which is the alphabet's.
PHONEMES = tuple(sorted({*INITIALS, *NASALS, *(vowel + tone for vowel, tones in TONED.items() for tone in tones)}))
DIGITS = "零一二三四五六七八九"
_SYLLABLE = re.compile(rf"({'|'.join(sorted(INITIALS, key=len, reverse=True))})?([a-zêü]+?)(ng|n)?([1-5])")
# Vowel parts that the dictionary writes otherwise; of "iong" both vowels have the tone.
_VOWELS = {"ve": "ue", "ê": "ei", "ü": "v", "üe": "ue"}
_INTERJECTIONS = re.compile(r"(?:m|n|ng|hm|hng)([1-5])")


@dataclass(frozen=True)
class MandarinConfig:
    """How text becomes phonemes.

    Attributes:
        lexicon: file of words, a tab, and their phonemes with spaces between; of several lines for a word the first one counts. None for
            pinyin (of the extra ``mandarin``).
        traditional: characters are made simplified ones (``convert``), or refused.
        digits: are ``read`` one by one, ``refuse``\\ d, or all read as ``zero``.
        unknown: Latin letters and characters without phonemes are refused, or left out (``drop``).
    """

    lexicon: str | None = None
    traditional: Literal["convert", "refuse"] = "refuse"
    digits: Literal["read", "refuse", "zero"] = "refuse"
    unknown: Literal["refuse", "drop"] = "refuse"


def official(lexicon: str | None) -> MandarinConfig:
    """What MMSpeech's code does."""
    return MandarinConfig(lexicon, traditional="convert", digits="zero", unknown="drop")


class MandarinPhonemizer:
    """Texts to phonemes.

    Args:
        config: how.
        words: phonemes by word, in place of ``config.lexicon``.

    Raises:
        OSError: the lexicon cannot be read.
        ValueError: one of its lines is not a word, a tab and phonemes.
        MissingExtra: what pinyin or simplified characters need is not installed.
    """

    def __init__(self, config: MandarinConfig, words: Mapping[str, Sequence[str]] | None = None) -> None:
        self.config = config
        if words is None and config.lexicon is not None:
            words = read_lexicon(config.lexicon)
        self.words = words
        self._prefixes = {word[:length] for word in words or () for length in range(1, len(word) + 1)}
        if words is None:
            _pinyin()

    def __call__(self, text: str, where: str = "text") -> list[str]:
        """Phonemes of a text.

        Args:
            where: begins errors, such as a file and a line.

        Raises:
            ValueError: characters that cannot be said, or that are refused.
        """
        text = self.normalise(text, where)
        if self.words is None:
            return self._by_pinyin(text, where)
        found: list[str] = []
        for token in self.tokens(text):
            for part in (token,) if token in self.words else token:
                if part in self.words:
                    found += self.words[part]
                else:
                    self._missing(part, where)
        return found

    def normalise(self, text: str, where: str = "text") -> str:
        """The text with digits and traditional characters as the configuration wants them.

        Raises:
            ValueError: it has some that are refused.
        """
        digits = re.findall(r"[0-9]+", text)
        if digits and self.config.digits == "refuse":
            raise ValueError(f"{where}: has the digits {digits[0]}; write them in characters, as they are said.")
        if digits:
            text = re.sub(r"[0-9]", lambda match: DIGITS[0 if self.config.digits == "zero" else int(match[0])], text)
        simplified = simplify(text)
        if simplified != text and self.config.traditional == "refuse":
            other = next((old for old, new in zip(text, simplified) if old != new), text)
            raise ValueError(f"{where}: has the traditional character {other}; write simplified ones, or set traditional to convert.")
        return simplified

    def tokens(self, text: str) -> list[str]:
        """Pieces of a text that are words, beginnings of words, or single characters."""
        found, start = [], 0
        while start < len(text):
            end = start
            while end < len(text) and text[start : end + 1] in self._prefixes:
                end += 1
            end = max(end, start + 1)
            found.append(text[start:end])
            start = end
        return found

    def _by_pinyin(self, text: str, where: str) -> list[str]:
        lazy_pinyin, style = _pinyin()
        found: list[str] = []
        # What has no pinyin is given to errors, piece by piece.
        for syllable in lazy_pinyin(text, style=style, neutral_tone_with_five=True, v_to_u=False, errors=lambda piece: [f"?{piece}"]):
            if not syllable.startswith("?"):
                found += phonemes_of(syllable)
                continue
            for character in syllable[1:]:
                self._missing(character, where)
        return found

    def _missing(self, character: str, where: str) -> None:
        """Refuse a character without phonemes, but not one that nobody says."""
        if self.config.unknown == "drop" or unicodedata.category(character)[0] in "PZSC":
            return
        if character.isascii() or "LATIN" in unicodedata.name(character, ""):
            raise ValueError(
                f"{where}: has the Latin letter {character!r}, which has no phonemes; write it in characters, or leave the text out."
            )
        raise ValueError(
            f"{where}: has the character {character!r}, whose phonemes are unknown; add it to the lexicon, or leave the text out."
        )


def phonemes_of(syllable: str) -> list[str]:
    """Phonemes of a syllable of pinyin with its tone behind, and ``v`` for ü: ``zhong1`` is ``zh o1 ng``.

    Raises:
        ValueError: it is no such syllable.
    """
    said = _INTERJECTIONS.fullmatch(syllable)
    match = re.fullmatch(_SYLLABLE, f"en{said[1]}" if said else syllable)
    if match is None:
        raise ValueError(f"pinyin: {syllable!r} is no syllable with a tone from 1 to 5.")
    initial, vowels, nasal, tone = match.groups()
    vowels = _VOWELS.get(vowels, vowels)
    parts = ["i", "o"] if vowels == "io" else [vowels]
    if any(part not in TONED for part in parts):
        raise ValueError(f"pinyin: {syllable!r} has no vowels of Mandarin.")
    toned = [part + (tone if tone in TONED[part] else "4" if tone == "5" and part != "er" else "2") for part in parts]
    return [each for each in (initial, *toned, nasal) if each]


def read_lexicon(path: str | Path) -> dict[str, list[str]]:
    """Phonemes by word; of several lines for a word the first one counts.

    Raises:
        OSError: the file cannot be read.
        ValueError: a line is not a word, a tab and phonemes, or no UTF-8.
    """
    found: dict[str, list[str]] = {}
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is not UTF-8 text; convert the file.") from error
    for number, line in enumerate(lines, 1):
        fields = line.strip().split("\t")
        if len(fields) != 2 or not fields[1].split():
            raise ValueError(f"{path}, line {number}: expected a word, a tab and its phonemes, found {line[:60]!r}.")
        found.setdefault(fields[0], fields[1].split())
    return found


def simplify(text: str) -> str:
    """Traditional characters to simplified ones, by the words of MediaWiki's tables."""
    if text.isascii():
        return text
    try:
        from zhconv import convert
    except ImportError as error:
        raise MissingExtra(EXTRA, "zhconv", "telling traditional characters from simplified ones") from error
    simplified: str = convert(text, "zh-hans")
    return simplified


def _pinyin() -> tuple[Any, Any]:
    """The function that finds pinyin, and the style that it is asked for."""
    try:
        from pypinyin import Style, lazy_pinyin
    except ImportError as error:
        raise MissingExtra(EXTRA, "pypinyin", "pinyin of Mandarin texts; or give a lexicon") from error
    return lazy_pinyin, Style.TONE3
