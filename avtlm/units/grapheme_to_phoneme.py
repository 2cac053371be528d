"""Graphemes to phonemes by eSpeak NG's rules: IPA symbols, and the ARPAbet of English lexica (extra ``phonemes``; eSpeak NG is GPL-3.0).

The library comes in a wheel with its data. It is loaded for a list of texts and unloaded behind it, since it keeps one global state in a
process, which the synthesis of made corpora uses as well. Words are written by the rules of the whole text: "a" may be a letter or an
article. Not thread-safe.
"""

import _ctypes
import ctypes
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from avtlm.errors import MissingExtra

NATIVE_RATE = 22050
_SYNCHRONOUS, _KEEP_RUNNING, _UTF8 = 2, 1 << 15, 1
_IPA, _SEPARATOR = 0x02, "_"
PRIMARY, SECONDARY = "ˈ", "ˌ"

# What eSpeak NG's English voices say, without length marks; longer spellings come first when a symbol is taken apart.
ARPABET = {
    **{"aɪɚ": ("AY", "ER"), "aɪə": ("AY", "AH"), "aʊɚ": ("AW", "ER"), "ɑɹ": ("AA", "R"), "ɔɹ": ("AO", "R"), "oɹ": ("AO", "R")},
    **{"ɛɹ": ("EH", "R"), "ɪɹ": ("IH", "R"), "ʊɹ": ("UH", "R"), "iə": ("IY", "AH"), "əl": ("AH", "L"), "eə": ("EH", "R")},
    **{"ɪə": ("IH", "R"), "ʊə": ("UH", "R"), "l̩": ("AH", "L"), "n̩": ("AH", "N"), "m̩": ("AH", "M")},
    **{"aʊ": ("AW",), "aɪ": ("AY",), "eɪ": ("EY",), "oʊ": ("OW",), "əʊ": ("OW",), "ɔɪ": ("OY",), "tʃ": ("CH",), "dʒ": ("JH",)},
    **{"ɑ": ("AA",), "ɒ": ("AA",), "æ": ("AE",), "a": ("AE",), "ʌ": ("AH",), "ə": ("AH",), "ɐ": ("AH",), "ɔ": ("AO",), "ɛ": ("EH",)},
    **{"ɜ": ("ER",), "ɚ": ("ER",), "ɝ": ("ER",), "ᵻ": ("IH",), "ɪ": ("IH",), "i": ("IY",), "o": ("OW",), "e": ("EY",), "ʊ": ("UH",)},
    **{"u": ("UW",), "b": ("B",), "d": ("D",), "ð": ("DH",), "f": ("F",), "ɡ": ("G",), "g": ("G",), "h": ("HH",), "ç": ("HH",)},
    **{"k": ("K",), "x": ("K",), "l": ("L",), "ɫ": ("L",), "ɬ": ("L",), "m": ("M",), "n": ("N",), "ɲ": ("N", "Y"), "ŋ": ("NG",)},
    **{"p": ("P",), "ɹ": ("R",), "r": ("R",), "s": ("S",), "ʃ": ("SH",), "t": ("T",), "ɾ": ("T",), "ʔ": ("T",), "θ": ("TH",)},
    **{"v": ("V",), "w": ("W",), "ʍ": ("W",), "j": ("Y",), "z": ("Z",), "ʒ": ("ZH",)},
}
_LONGEST = max(map(len, ARPABET))
VOWELS = ("AA", "AE", "AH", "AO", "AW", "AY", "EH", "ER", "EY", "IH", "IY", "OW", "OY", "UH", "UW")


def require() -> None:
    """Raise MissingExtra if eSpeak NG is not installed."""
    try:
        import espeakng_loader  # noqa: F401
    except ImportError as error:
        raise MissingExtra("phonemes", "espeakng-loader", "the phonemes of words that no lexicon has") from error


class _Engine:
    """The library, loaded for some texts. A context manager, so that it is gone afterwards."""

    def __init__(self, language: str) -> None:
        require()
        import espeakng_loader

        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        data = str(Path(espeakng_loader.get_data_path())).encode()
        if self._library.espeak_Initialize(_SYNCHRONOUS, 0, data, _KEEP_RUNNING) != NATIVE_RATE:
            raise RuntimeError("eSpeak NG could not be started from the package espeakng-loader; install it again.")
        if self._library.espeak_SetVoiceByName(language.encode()) != 0:
            self.__exit__(None, None, None)
            raise ValueError(f"language: eSpeak NG knows no {language!r}; give one such as en-us.")
        self._library.espeak_TextToPhonemes.restype = ctypes.c_char_p
        self._library.espeak_TextToPhonemes.argtypes = [ctypes.POINTER(ctypes.c_char_p), ctypes.c_int, ctypes.c_int]

    def __enter__(self) -> "_Engine":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._library.espeak_Terminate()
        if sys.platform == "win32":
            _ctypes.FreeLibrary(self._library._handle)
        else:
            _ctypes.dlclose(self._library._handle)

    def read(self, text: str) -> str:
        """IPA of a text, phones divided by ``_`` and words by spaces."""
        raw = text.encode()  # held while the library's pointer walks over it, clause by clause
        place, parts = ctypes.c_char_p(raw), []
        while place.value is not None:
            said = self._library.espeak_TextToPhonemes(ctypes.byref(place), _UTF8, _IPA | ord(_SEPARATOR) << 8)
            parts.append((said or b"").decode("utf-8", "replace"))
        return " ".join(parts)


def ipa(texts: Sequence[str], language: str = "en-us") -> list[list[list[str]]]:
    """IPA symbols of every word of every text, with stress marks, without length marks. What is not spoken has no word.

    eSpeak NG may join short words into one ("of the"), so that there can be fewer words than the text has.

    Raises:
        MissingExtra: espeakng-loader is not installed.
        ValueError: an unknown language.
    """
    if not texts:
        return []
    with _Engine(language) as engine:
        return [_divide(engine.read(text)) for text in texts]


def _divide(said: str) -> list[list[str]]:
    """What the library wrote, by words and phones; notes in brackets tell of a change of language."""
    words = [[_bare(phone) for phone in word.split(_SEPARATOR)] for word in re.sub(r"\([^)]*\)", "", said).split()]
    return [kept for word in words if (kept := [phone for phone in word if phone.strip(PRIMARY + SECONDARY)])]


def _bare(phone: str) -> str:
    return phone.replace("ː", "").replace("-", "").strip(": ")


def without_stress(phone: str) -> str:
    """A symbol of IPA without its stress marks."""
    return phone.replace(PRIMARY, "").replace(SECONDARY, "")


def arpabet(word: Sequence[str], stress: bool = True) -> tuple[str, ...]:
    """A word in IPA as ARPAbet.

    Args:
        stress: write 0, 1 or 2 behind vowels.
    """
    found: list[str] = []
    for phone in word:
        level = "1" if PRIMARY in phone else "2" if SECONDARY in phone else "0"
        rest = without_stress(phone)
        while rest:
            length = next((size for size in range(min(_LONGEST, len(rest)), 0, -1) if rest[:size] in ARPABET), 0)
            for symbol in ARPABET.get(rest[:length], ()):  # a mark that English has no phone for is passed over
                vowel = symbol in VOWELS
                found.append(symbol + level if stress and vowel else symbol)
                level = "0" if vowel else level  # of two vowels the first is stressed
            rest = rest[max(length, 1) :]
    return tuple(found)
