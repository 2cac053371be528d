"""Speech with exact phoneme times from eSpeak NG, called through ctypes from the wheel that bundles it (extra ``synthetic``; GPL-3.0).

The library keeps global state (phases of its flutter, filters, echoes, noise) that neither a new voice nor a new start resets: what it says
depends on what it said before. So it is unloaded and loaded again for every utterance, which takes 4 ms and makes speech a function of its
arguments. Not thread-safe.
"""

import _ctypes
import ctypes
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr

from avtlm.errors import MissingExtra

SAMPLE_RATE = 16000
NATIVE_RATE = 22050
_SYNCHRONOUS = 2
_PHONEME_EVENTS, _IPA_NAMES, _KEEP_RUNNING = 1 << 0, 1 << 1, 1 << 15
_END, _PHONEME = 0, 7
_UTF8 = 1
_RATE, _PITCH, _RANGE = 1, 3, 4
QUIET = 0.004


class _Name(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Name),
    ]


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


@dataclass(frozen=True)
class Voice:
    """A voice of eSpeak NG: ``name`` is language+variant; rate in words a minute; pitch and its range from 0 to 99."""

    name: str
    rate: int
    pitch: int
    pitch_range: int


@dataclass(frozen=True)
class Phone:
    """An IPA symbol, without stress marks, and its time in seconds."""

    symbol: str
    start: float
    end: float


@dataclass(frozen=True)
class Speech:
    """float32 waveform at 16 kHz and its phones; an empty symbol is silence."""

    wave: np.ndarray
    phones: tuple[Phone, ...]


def require() -> None:
    """Raise MissingExtra if eSpeak NG is not installed."""
    try:
        import espeakng_loader  # noqa: F401
    except ImportError as error:
        raise MissingExtra("synthetic", "espeakng-loader", "synthetic speech") from error


class _Engine:
    """The library, loaded for one utterance. A context manager, so that it is gone afterwards."""

    def __init__(self, seed: int) -> None:
        require()
        import espeakng_loader

        self.library = ctypes.CDLL(espeakng_loader.get_library_path())
        self.data = Path(espeakng_loader.get_data_path())
        options = _PHONEME_EVENTS | _IPA_NAMES | _KEEP_RUNNING
        if self.library.espeak_Initialize(_SYNCHRONOUS, 0, str(self.data).encode(), options) != NATIVE_RATE:
            raise RuntimeError("eSpeak NG could not be started from the package espeakng-loader; install it again.")
        # Starting seeds the library's own noise with the time of day; the noise of its Klatt voices comes from the C library.
        self.library.espeak_ng_SetRandSeed(ctypes.c_long(seed))
        (ctypes.CDLL("msvcrt") if sys.platform == "win32" else ctypes.CDLL(None)).srand(ctypes.c_uint(seed))
        self.samples: list[np.ndarray] = []
        self.events: list[tuple[str, int]] = []
        self.callback = _Callback(self._receive)
        self.library.espeak_SetSynthCallback(self.callback)

    def __enter__(self) -> "_Engine":
        return self

    def __exit__(self, *_: object) -> None:
        self.library.espeak_Terminate()
        if sys.platform == "win32":
            _ctypes.FreeLibrary(self.library._handle)
        else:
            _ctypes.dlclose(self.library._handle)

    def _receive(self, wave: "ctypes._Pointer[ctypes.c_short]", count: int, events: "ctypes._Pointer[_Event]") -> int:
        if wave and count > 0:
            self.samples.append(np.ctypeslib.as_array(wave, (count,)).copy())
        index = 0
        while events[index].type != _END:
            if events[index].type == _PHONEME:
                self.events.append((events[index].id.string.decode("utf-8", "replace"), events[index].sample))
            index += 1
        return 0

    def use(self, voice: Voice) -> None:
        variant = voice.name.partition("+")[2]  # an unknown one is passed over in silence by the library
        if self.library.espeak_SetVoiceByName(voice.name.encode()) != 0 or not (self.data / "voices" / "!v" / variant).exists():
            raise ValueError(f"eSpeak NG has no voice {voice.name!r}; see its list of languages and variants.")
        for parameter, value in ((_RATE, voice.rate), (_PITCH, voice.pitch), (_RANGE, voice.pitch_range)):
            self.library.espeak_SetParameter(parameter, value, 0)

    def speak(self, text: str) -> tuple[np.ndarray, list[tuple[str, int]]]:
        raw = text.encode()
        self.library.espeak_Synth(raw, len(raw) + 1, 0, 1, 0, _UTF8, None, None)
        self.library.espeak_Synchronize()
        wave = np.concatenate(self.samples) if self.samples else np.zeros(0, np.int16)
        return wave.astype(np.float32) / 32768.0, self.events


def speak(text: str, voice: Voice, level: float = 0.08, lead: float = 0.1, tail: float = 0.1, seed: int = 1) -> Speech:
    """Say a sentence; the same arguments give the same samples.

    Args:
        text: words; a lone letter in upper case is spelt, in lower case it may be read as a word.
        level: root mean square of the result, of full scale 1.
        lead, tail: seconds of silence before and after.
        seed: of the voice's noise, from 0 to 2**31 - 1.

    Raises:
        MissingExtra: espeakng-loader is not installed.
        ValueError: no such voice, or nothing that can be said.
    """
    with _Engine(seed) as engine:
        engine.use(voice)
        native, events = engine.speak(text)
    loud = np.flatnonzero(np.abs(native) > QUIET)
    if len(loud) == 0 or not events:
        raise ValueError(f"eSpeak NG says nothing for {text!r}.")
    end = loud[-1] + 1
    wave = soxr.resample(native[:end], NATIVE_RATE, SAMPLE_RATE).astype(np.float32)
    wave *= level / float(np.sqrt(np.mean(wave**2)))
    wave = np.concatenate([np.zeros(round(lead * SAMPLE_RATE), np.float32), wave, np.zeros(round(tail * SAMPLE_RATE), np.float32)])
    starts = [sample / NATIVE_RATE + lead for _, sample in events] + [end / NATIVE_RATE + lead]
    phones = [Phone("sil", 0.0, starts[0])]
    for (name, _), start, stop in zip(events, starts[:-1], starts[1:], strict=True):
        symbol = name.strip("ˈˌ").replace("ː", "").strip("_: ")
        if stop > start:
            phones.append(Phone(symbol or "sil", start, min(stop, starts[-1])))
    phones.append(Phone("sil", starts[-1], starts[-1] + tail))
    return Speech(wave, tuple(phone for phone in phones if phone.end > phone.start))
