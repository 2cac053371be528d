"""Clips and texts of a manifest for models that read and write both: what SpeechT5's pre-training and its six tasks are trained on, and the
units of unpaired text from which SpeechLM and SpeechUT learn.

The tasks of a source, and what their batches hold:

- ``speech``: clips to learn from by themselves: sound, and what the model wants of units, log mel spectrogram and voice;
- ``infilling``: transcripts alone, between their start and end symbols;
- ``units``: unit sequences of texts that nobody spoke, with an end symbol, and the texts that they stand for, without one (masked units
  alone need none: ``written: null``);
- ``synthesis``: a transcript that is read, and the spectrogram of its clip in the voice of its speaker;
- ``conversion``: sound, and the spectrogram of the clip that ``extra["target"]`` of its row names, in that one's voice: the id of another
  utterance of the manifest, or a file (whose speaker is ``extra["target_speaker"]``). Without one it is the clip's own, without the noise
  that training adds (enhancement);
- ``speaker``: sound, and the number of its speaker.

What a manifest shows to be wrong is said before the first step. Clips are cut by avtlm.data.spoken.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from avtlm.data import text_units
from avtlm.data.batching import Batch
from avtlm.data.dataset import OF_TEXT, ClipDataset, Source, seconds, written
from avtlm.data.heard_clips import HEARD, HeardDataset
from avtlm.data.inputs import InputFormat
from avtlm.data.manifest import Utterance as Row
from avtlm.data.manifest import read_manifest
from avtlm.data.seeds import seed_for
from avtlm.data.spoken import Utterance, collate, crop, crop_size, draw_starts
from avtlm.data.voices import Voices, read_voices, voice_names
from avtlm.frontends.filterbank import SAMPLE_RATE
from avtlm.frontends.mel import BANDS, WINDOW, log_mel
from avtlm.text.vocabulary import BOS, EOS, UNKNOWN, Tokenizer, Vocabulary

SPOKEN = ("speech", "infilling", "units", "synthesis", "conversion", "speaker")
WRITTEN_AS_SPEECH = ("speech", "synthesis", "conversion")
READS = {"infilling": "text", "synthesis": "text", "units": "units"}  # what is read in place of speech
LEAST_SAMPLES = WINDOW // 2 + 1  # of a spectrogram


class SpokenDataset(ClipDataset):
    """Examples of one source whose task is one of ``SPOKEN``.

    Args:
        source, seed, inputs, vocabulary, training: see ClipDataset.
        speakers: names, by their numbers, for ``speaker``.

    Raises:
        ValueError: a row that cannot be used, by its id: no sound or too little of it, no text or symbols that the vocabulary lacks, no
            voice, no target, a speaker who is not among those of the training.
    """

    def __init__(
        self,
        source: Source,
        seed: int = 0,
        inputs: InputFormat | None = None,
        vocabulary: Tokenizer | None = None,
        training: bool = True,
        speakers: Sequence[str] = (),
    ) -> None:
        super().__init__(source, seed, inputs, vocabulary, None, training)
        self.numbers = {name: number for number, name in enumerate(speakers)}
        self._writes = bool(self.inputs.mel_bands) and source.task in WRITTEN_AS_SPEECH
        if self._writes and self.inputs.mel_bands != BANDS:
            raise ValueError(f"model.spectrogram.bands: {self.inputs.mel_bands}, but the spectrograms of clips have {BANDS}; set {BANDS}.")
        self._voices: Voices | None = None
        if self._writes and self.inputs.voice_dim:
            if source.voices is None:
                raise ValueError(
                    f"{source.manifest}: the model writes in voices of {self.inputs.voice_dim} values; name their file under the source's "
                    "key voices, or set model.spectrogram.voice_dim to 0."
                )
            self._voices = read_voices(source.voices, self.inputs.voice_dim)
        self._places = {row.id: place for place, row in enumerate(self.manifest)}
        self._rows: dict[str, Row] = {}
        if source.task == "conversion" and any("target" in row.extra for row in self.manifest):
            self._rows = {row.id: row for row in read_manifest(source.manifest)}
        self._symbols = [self._check(row) for row in self.manifest]

    # Before the first step ------------------------------------------------------------------------------------------------------------

    def _check(self, row: Row) -> int:
        """Refuse a row that cannot be used; returns how many symbols its text has, or units if there are more."""
        task, count = self.source.task, 0
        if task not in OF_TEXT:
            if row.audio is None:
                raise self._wrong(row, f"has no audio, which {task} needs; leave it out")
            self._check_length(row, round(seconds(row) * SAMPLE_RATE))
        if task in READS and self.source.written is not None:
            count = len(self._ids(row))
        if task == "units":
            count = max(count, len(self._read_units(row)) - 2)
        if task == "conversion":
            self._check_target(row)
        if self._voices is not None:
            self._voices.of(*self._voice_names(row))
        if task == "speaker" and row.speaker not in self.numbers:
            who = "names no speaker" if row.speaker is None else f"is of speaker {row.speaker!r}, who is not among those of the training"
            raise self._wrong(row, f"{who}; leave it out")
        return count

    def _wrong(self, row: Row, what: str) -> ValueError:
        return ValueError(f"{self.source.manifest}: utterance {row.id!r} {what}.")

    def _check_length(self, row: Row, samples: int) -> None:
        hears = self.inputs.shortest if self.source.task != "synthesis" else 1
        writes = LEAST_SAMPLES if self._writes else 1
        if samples < max(hears, writes):
            what = "half a window of the spectrogram" if writes > hears else "one frame"
            least = max(hears, writes)
            raise self._wrong(row, f"has {samples} samples, fewer than the {least} of {what}; raise min_seconds or leave it out")

    def _ids(self, row: Row) -> list[int]:
        """What is read of a row's text, without start and end."""
        text = written(row, self.source.written)
        if text is None or not text.strip():
            raise self._wrong(row, f"has {'no' if text is None else 'an empty'} {self.source.written}; leave it out")
        assert self.vocabulary is not None, "a source of texts needs a vocabulary"
        ids = self.vocabulary.encode(text)
        if UNKNOWN in ids:
            lacking = self.vocabulary.unknown_report([text])
            raise self._wrong(row, f"has symbols that the vocabulary lacks ({lacking}); leave it out, or name vocabulary in fresh")
        return ids

    def _read_units(self, row: Row) -> Tensor:
        """Ids of the units that stand for a row's text, and their end."""
        if self.labels is not None and row.id not in self.labels:
            raise self._wrong(row, f"has no units in {self.labels.path}; run avtlm units text2units over the manifest again")
        units = self._units(row, None)[0]
        if not len(units):
            raise self._wrong(row, "stands for no unit at all; leave it out")
        if self.inputs.reduced_units:
            units = torch.unique_consecutive(units)
        return torch.cat([units, units.new_tensor([EOS])])

    def _check_target(self, row: Row) -> None:
        name = row.extra.get("target")
        if name is None:
            return
        if not isinstance(name, str):
            raise self._wrong(row, f"has the target {name!r:.60}; give the id of an utterance, or a file")
        if name in self._rows:
            if self._rows[name].audio is None:
                raise self._wrong(row, f"has the target {name!r}, which has no audio")
        elif self.manifest.shards is not None or not self.manifest.path(name).is_file():
            raise self._wrong(row, f"has the target {name!r}, which is neither an utterance of this manifest nor a file; leave it out")

    # Examples -------------------------------------------------------------------------------------------------------------------------

    def frames(self, index: int) -> int:
        """Length of a clip at the model's frame rate, as long as a batch may hold of it; of a text alone, its symbols, or its units."""
        return self._symbols[index] + 2 if self.source.task in OF_TEXT else super().frames(index)

    def batch(self, rows: Sequence[int], epoch: int = 0, progress: float = 1.0) -> Batch:
        """Several examples, in training cut as the source says."""
        found = [self.utterance(row, epoch, progress) for row in rows]
        if self.training and self.source.crop_frames is not None:
            longest = round(self.source.crop_frames * SAMPLE_RATE / self.inputs.frame_rate)
            padded = self.source.task == "speaker"  # one may hear as much of everyone as there is
            samples = [len(each.wave) for each in found if each.wave is not None]
            size = crop_size(samples, longest, padded)
            generator = torch.Generator().manual_seed(seed_for(self.seed, "crop", epoch, *(each.id for each in found)))
            found = crop(found, draw_starts(samples, size, generator), size, self.inputs.label_rate, padded)
        return collate(found, self.source.task)

    def utterance(self, index: int, epoch: int = 0, progress: float = 1.0) -> Utterance:
        """One example as it is in this epoch; ``progress`` (share of the training done) drives the noise ramp."""
        row, task = self.manifest[index], self.source.task
        if task == "infilling":
            return Utterance(row.id, text=torch.tensor([BOS, *self._ids(row), EOS]))
        if task == "units":
            spelled = None if self.source.written is None else torch.tensor(self._ids(row))
            return Utterance(row.id, text=spelled, text_units=self._read_units(row))
        text = torch.tensor(self._ids(row)) if task == "synthesis" else None  # without an end, as in the official data code
        wave = self._heard(index, epoch, progress) if task != "synthesis" else None
        units = None
        if task == "speech" and wave is not None and self.labels is not None:
            units = self._units(row, self.inputs.seconds(wave))[0]
        return Utterance(
            row.id,
            wave=wave,
            text=text,
            units=units,
            mel=self._mel(index) if self._writes else None,
            voice=self._voices.of(*self._voice_names(row)) if self._voices is not None else None,
            speaker=self.numbers[row.speaker or ""] if task == "speaker" else None,
        )

    def _heard(self, index: int, epoch: int, progress: float) -> Tensor:
        """float (samples,), with the noise that the source asks for."""
        rng = np.random.default_rng(seed_for(self.seed, "item", epoch, self.manifest[index].id)) if self.training else None
        return self._audio(index, None, rng, progress)

    def _mel(self, index: int) -> Tensor:
        """What is to be written, (frames, bands): of the target, or of the clip itself as it was recorded."""
        row = self.manifest[index]
        name = row.extra.get("target") if self.source.task == "conversion" else None
        if name is None or name in self._places:
            wave = self.wave(index if name is None else self._places[name])
        else:
            wave = self._sound(self._rows[name].audio if name in self._rows else name, row.id)
        if len(wave) < LEAST_SAMPLES:
            self._check_length(row, len(wave))
        return log_mel(torch.from_numpy(wave.astype(np.float32) / 32768.0))

    def _voice_names(self, row: Row) -> Sequence[str]:
        """Under which the voice of what is written may stand: of a file that is a target, its path as it is given, or its speaker."""
        name = row.extra.get("target") if self.source.task == "conversion" else None
        if name is None:
            return voice_names(row.id, row.speaker)
        speaker = self._rows[name].speaker if name in self._rows else row.extra.get("target_speaker")
        return voice_names(name, speaker)


def open_source(
    source: Source,
    seed: int = 0,
    inputs: InputFormat | None = None,
    vocabulary: Tokenizer | None = None,
    phones: Vocabulary | None = None,
    training: bool = True,
    speakers: Sequence[str] = (),
    tags: Sequence[str] = (),
) -> ClipDataset:
    """The dataset of a source, whatever its task is; see ClipDataset, SpokenDataset, HeardDataset and TextUnitDataset."""
    if source.task == text_units.TASK:
        return text_units.TextUnitDataset(source, seed, inputs, vocabulary, training)
    if source.task in HEARD:
        return HeardDataset(source, seed, inputs, training, tags)
    if source.task in SPOKEN:
        return SpokenDataset(source, seed, inputs, vocabulary, training, speakers)
    return ClipDataset(source, seed, inputs, vocabulary, phones, training)
