"""Mixtures for the miniature SUPERB: who speaks when (SD), two voices at once (SS), a voice in noise (SE); and real speech.

Noise is recordings, where a folder of them is given (ESC-10, say; a fifth of the files is kept for the test), else
made: from white to brown, hum with overtones, and babble of six voices of the same split.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from avtlm.data.manifest import Utterance
from avtlm.data.media import read_audio, write_wav
from avtlm.data.noise import babble, fit, mix_at_snr
from avtlm.data.seeds import seed_for
from benchmarks.superb_speech import SPLITS, Speech, coloured_noise
from preprocess.corpora import fsdd
from preprocess.corpora.sound_corpus import draw
from preprocess.superb.folder import Prepared, Row, write_folder

RATE = 16000
LOUDEST = 0.9  # of full scale, in mixtures
SNRS = {"train": (0.0, 15.0), "valid": (0.0, 15.0), "test": (2.5, 12.5)}  # dB, drawn between
SOUNDS = (".wav", ".flac", ".ogg", ".mp3")
KINDS = ("coloured", "hum", "babble")


class Mixtures:
    """Makes the folders ``SD``, ``SS`` and ``SE`` beside those of `Speech`.

    Args:
        noise: folder of recordings; None makes noise.

    Raises:
        ValueError: the folder has fewer than five recordings.
    """

    def __init__(self, speech: Speech, noise: Path | None) -> None:
        self.speech, self.seed, self.folder = speech, speech.seed, speech.folder
        self.recordings = None if noise is None else _recordings(noise)

    def write(self) -> None:
        """All three."""
        for task, make in (("SD", self._conversation), ("SS", self._pair), ("SE", self._noisy)):
            lists: dict[str, list[Row]] = {}
            for (split, own), count in zip(SPLITS.items(), self.speech.size.mixtures, strict=True):
                rows = self.speech.rows("commands", split)
                lists[own] = []
                for number in range(count):
                    rng = np.random.default_rng(seed_for(self.seed, task, split, number))
                    name = f"{own}_{number:04d}"
                    lists[own].append({"id": name, "audio": f"audio/{name}.wav", **make(self.folder / task, name, split, rows, rng)})
            recorded = ", recorded noise" if task == "SE" and self.recordings else ", made noise" if task == "SE" else ""
            write_folder(self.folder / task, task, f"miniature: commands{recorded}", Prepared(lists))

    def _conversation(self, folder: Path, name: str, split: str, rows: Sequence[Utterance], rng: np.random.Generator) -> Row:
        """Two speakers in three turns; each begins before or after the one before has ended."""
        first, second = _two_speakers(rows, rng)
        turns, start = [], 0.0
        for row in (first, second, _another(rows, first, rng)):
            wave = self.speech.wave("commands", row)
            begin, end = _spoken(row)
            turns.append((row.speaker, start, wave, begin, end))
            start = max(0.0, start + end - begin + float(rng.uniform(-0.8, 0.4)))
        samples = max(round(start * RATE) + len(wave) for _, start, wave, _, _ in turns)
        mixture = np.zeros(samples, np.float32)
        segments = []
        for speaker, start, wave, begin, end in turns:
            at = round(start * RATE)
            mixture[at : at + len(wave)] += wave * 10 ** (rng.uniform(-2.5, 2.5) / 20)
            segments.append([speaker, round(start + begin, 3), round(start + end, 3)])
        write_wav(folder / "audio" / f"{name}.wav", _within(mixture))
        return {"segments": segments}

    def _pair(self, folder: Path, name: str, split: str, rows: Sequence[Utterance], rng: np.random.Generator) -> Row:
        """Two speakers at once, as long as the shorter one speaks."""
        waves = [self.speech.wave("commands", row) for row in _two_speakers(rows, rng)]
        samples = min(map(len, waves))
        sources = np.stack([wave[:samples] for wave in waves])
        sources[1] *= 10 ** (rng.uniform(-2.5, 2.5) / 20)
        scale = min(1.0, LOUDEST / max(float(np.abs(sources.sum(0)).max()), float(np.abs(sources).max())))
        files = {"audio": sources.sum(0), "s1": sources[0], "s2": sources[1]}
        for kind, wave in files.items():
            write_wav(folder / kind / f"{name}.wav", (scale * wave).astype(np.float32))
        return {"sources": [f"s1/{name}.wav", f"s2/{name}.wav"]}

    def _noisy(self, folder: Path, name: str, split: str, rows: Sequence[Utterance], rng: np.random.Generator) -> Row:
        clean = self.speech.wave("commands", rows[int(rng.integers(len(rows)))])
        noisy = mix_at_snr(clean, self._noise(split, rows, len(clean), rng), float(rng.uniform(*SNRS[split])))
        scale = min(1.0, LOUDEST / max(float(np.abs(noisy).max()), float(np.abs(clean).max())))
        for kind, wave in (("audio", noisy), ("clean", clean)):
            write_wav(folder / kind / f"{name}.wav", (scale * wave).astype(np.float32))
        return {"clean": f"clean/{name}.wav"}

    def _noise(self, split: str, rows: Sequence[Utterance], samples: int, rng: np.random.Generator) -> np.ndarray:
        if self.recordings is not None:
            files = self.recordings["test" if split == "test" else "train"]
            sound = read_audio(files[int(rng.integers(len(files)))])
            return fit(np.roll(sound, -int(rng.integers(len(sound)))), samples)
        kind = KINDS[int(rng.integers(len(KINDS)))]
        if kind == "babble":
            chosen = [rows[int(place)] for place in rng.integers(0, len(rows), 6)]
            return babble([self.speech.wave("commands", row) for row in chosen], rng, samples)
        wave = coloured_noise(samples, float(rng.uniform(0, 2)), rng)
        if kind == "hum":
            tones = rng.uniform(50, 300) * np.arange(1, 9)[:, None] * np.arange(samples) / RATE
            overtones = (np.sin(2 * np.pi * (tones + rng.uniform(size=(8, 1)))) / np.arange(1, 9)[:, None]).sum(0)
            wave = 0.3 * wave + overtones.astype(np.float32)
        return wave


def add_digits(folder: Path, digits: Path, seed: int) -> None:
    """Real speakers: the Free Spoken Digit Dataset as keywords of a speaker that is not heard in training (``KS-digits``), and as speakers
    to be named (``SID-digits``).

    Raises:
        ValueError: no such recordings, or fewer than three speakers.
    """
    reading = fsdd.read(digits)
    speakers = sorted({row.speaker or "" for row in reading.rows})
    if len(speakers) < 3:
        raise ValueError(f"{digits}: holds digits of {len(speakers)} speakers; keywords of unheard ones need at least three.")
    assert reading.root is not None
    held_out = {speakers[-1]: "test", speakers[-2]: "dev"}
    takes = draw((row.id for row in reading.rows), 0.1, 0.2, seed, "takes")
    words: dict[str, list[Row]] = {"train": [], "dev": [], "test": []}
    voices: dict[str, list[Row]] = {"train": [], "dev": [], "test": []}
    for row in reading.rows:
        place = {"id": row.id, "audio": str((reading.root / (row.audio or "")).resolve()), "speaker": row.speaker}
        words[held_out.get(row.speaker or "", "train")].append({**place, "label": row.transcript})
        voices[SPLITS[takes[row.id]]].append({**place, "label": row.speaker})
    write_folder(folder / "KS-digits", "KS", "FSDD: digits of an unheard speaker", Prepared(words))
    write_folder(folder / "SID-digits", "SID", "FSDD: speakers of digits", Prepared(voices))


def _recordings(folder: Path) -> dict[str, list[Path]]:
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.suffix.lower() in SOUNDS}
    if len(files) < 5:
        raise ValueError(f"{folder}: holds {len(files)} recordings of noise; give a folder with at least five.")
    splits = draw(files, 0, 0.2, "noise")
    return {split: [path for name, path in files.items() if splits[name] == split] for split in ("train", "test")}


def _two_speakers(rows: Sequence[Utterance], rng: np.random.Generator) -> tuple[Utterance, Utterance]:
    first = rows[int(rng.integers(len(rows)))]
    others = [row for row in rows if row.speaker != first.speaker]
    return first, others[int(rng.integers(len(others)))]


def _another(rows: Sequence[Utterance], row: Utterance, rng: np.random.Generator) -> Utterance:
    """Another sentence of the same speaker."""
    own = [other for other in rows if other.speaker == row.speaker and other.id != row.id]
    return own[int(rng.integers(len(own)))]


def _spoken(row: Utterance) -> tuple[float, float]:
    """Seconds from which and to which something is said."""
    phones = [phone.split(":") for phone in (row.phones or "").split()]
    said = [(float(start), float(end)) for symbol, start, end in phones if symbol != "sil"]
    return said[0][0], said[-1][1]


def _within(wave: np.ndarray) -> np.ndarray:
    return (wave * min(1.0, LOUDEST / float(np.abs(wave).max()))).astype(np.float32)
