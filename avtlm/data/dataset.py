"""Clips of a manifest as training examples: media in, features and targets out.

A ``Source`` of the configuration becomes a ``ClipDataset``; rows of it, collated, become a ``Batch``. Waveforms and crops are kept in
memory as far as it is allowed; the rest is read as it is needed.

A little over 400 lines, because an example belongs together with how it is cut and padded.
"""

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from avtlm.data.augment import AugmentConfig, add_noise, draw_view, draw_warp, mask_frequencies
from avtlm.data.batching import Batch, fit, pad
from avtlm.data.clip_memory import ClipMemory
from avtlm.data.inputs import CROP, InputFormat
from avtlm.data.manifest import Manifest, Utterance, read_manifest
from avtlm.data.media import MediaError, read_lip_crops, read_track
from avtlm.data.noise import babble
from avtlm.data.noise_files import read_noise_files
from avtlm.data.seeds import seed_for
from avtlm.data.shards import ShardConfig, ShardLabels, ShardReader
from avtlm.frontends.filterbank import FRAME_RATE, SAMPLE_RATE
from avtlm.frontends.text import DOWNSAMPLING
from avtlm.text.vocabulary import PAD, UNKNOWN, Tokenizer, Vocabulary
from avtlm.units.labels import UnitLabels, read_labels

log = logging.getLogger(__name__)

Task = Literal[
    "audio_video",
    "audio",
    "audio_text",
    "text",
    "recognition",
    "sentences",
    "text_to_units",
    "speech",
    "infilling",
    "units",
    "synthesis",
    "conversion",
    "speaker",
    "distillation",
    "tagging",
]
OF_TEXT = ("sentences", "infilling", "units")  # without media: whatever sound or picture a row has is not looked at
# What would not fit if clips were cut.
WHOLE = ("recognition", "text", "sentences", "text_to_units", "infilling", "units", "synthesis", "conversion", "distillation")
TRANSCRIPT = "transcript"
IN_SHARDS = "shards"
SIDE = 96  # of lip crops as they are stored


@dataclass(frozen=True)
class Source:
    """One corpus, or one part of one, in one role.

    Attributes:
        manifest: path of the manifest, or folder or URL of shards (see avtlm.data.shards), or, for ``sentences``, a text file with one in
            every line.
        task: kind of batch it gives; ``sentences`` are the transcripts alone, for language models; for those behind it, of models that read
            and write both speech and text, see avtlm.data.spoken_clips; for ``distillation`` and ``tagging`` avtlm.data.heard_clips.
        split: which split; None takes all rows, as do sentences of which none has a split.
        units: file of unit labels (pre-training), see avtlm.units.labels; ``shards`` takes those that lie in the shards.
        written: the column of the manifest that is written, or read: ``transcript``, or a key of ``extra`` such as ``translation``;
            null for ``units`` that stand alone.
        phonemes: file of labels with the phonemes of the transcripts, for ``recognition`` by models that name these, too (MMSpeech).
        voices: file of speaker embeddings for models that write in a voice, see avtlm.data.voices.
        max_frames: bound of one batch of this source in place of the run's; of texts, symbols.
        further_units: files of labels of further inventories (cluster ensembles), for models that predict several at once.
        teachers: folder of what teachers say about the clips (``avtlm teach``), for ``distillation``; null asks the model's own teachers.
        learns: from which of them: ``speech``, ``sound``, ``speaker``; null from all that there are.
        limit: use only this many utterances, drawn with ``limit_seed`` (the small labelled part of low-resource experiments).
        weight: share of the steps that contain a batch of this source.
        modality: for ``recognition``, what is given of clips with sound and picture: both, the sound (``a``) or the lips (``v``).
        cache: keep decoded sound and crops in memory, which all workers share.
        cache_gb: bound on that memory in gigabytes; what does not fit is decoded each time.
        shards: how shards are read.
        crop_frames: cut the utterances of every training batch, each at a random place, to the shortest of them and at most to this many
            frames of the model (AV-HuBERT on VoxCeleb2: 400); null pads them to the longest. Shorter clips of
            ``speaker`` are padded all the same. Not for tasks whose texts or targets would not fit.
    """

    manifest: str
    task: Task
    split: str | None = "train"
    units: str | None = None
    limit: int | None = None
    limit_seed: int = 0
    weight: float = 1.0
    modality: Literal["av", "a", "v"] = "av"
    max_seconds: float = 20.0
    min_seconds: float = 0.2
    crop_frames: int | None = None
    cache: bool = True
    cache_gb: float = 4.0
    shards: ShardConfig = field(default_factory=ShardConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    further_units: tuple[str, ...] = ()
    written: str | None = TRANSCRIPT
    voices: str | None = None
    max_frames: int | None = None
    phonemes: str | None = None
    teachers: str | None = None
    learns: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.further_units and self.units is None:
            raise ValueError(f"further_units: {', '.join(self.further_units)}, but there are no units; name the first file under units.")
        if not 0 < self.weight <= 1:
            raise ValueError(f"weight: {self.weight} is not a share of the steps; give a number above 0, at most 1.")
        if self.modality != "av" and self.task != "recognition":
            raise ValueError(f"modality: {self.modality!r} for {self.task}; only recognition has a choice; name another task.")
        if self.cache_gb < 0:
            raise ValueError(f"cache_gb: {self.cache_gb}; give the gigabytes of memory for decoded clips, or cache: false for none.")
        if self.crop_frames is not None and (self.crop_frames < 1 or self.task in WHOLE):
            raise ValueError(f"crop_frames: {self.crop_frames} for {self.task}; give at least 1, and only for clips without transcripts.")
        if self.voices is not None and self.task not in ("speech", "synthesis", "conversion"):
            raise ValueError(f"voices: {self.voices} for {self.task}; only speech, synthesis and conversion have a voice; leave it out.")
        if self.written is None and self.task != "units":
            raise ValueError(f"written: null for {self.task}; only units stand without a text, so name the column of the texts.")
        if self.phonemes is not None and self.task != "recognition":
            raise ValueError(f"phonemes: {self.phonemes} for {self.task}; only recognition names them; leave it out.")
        if (self.teachers is not None or self.learns is not None) and self.task != "distillation":
            raise ValueError(
                f"teachers, learns: {self.teachers or self.learns} for {self.task}; only distillation has teachers; leave them out."
            )
        if self.learns is not None and (not self.learns or not set(self.learns) <= {"speech", "sound", "speaker"}):
            raise ValueError(f"learns: {', '.join(self.learns) or 'nothing'}; choose among speech, sound and speaker, or null for all.")
        if self.max_frames is not None and self.max_frames < 1:
            raise ValueError(f"max_frames: {self.max_frames}; give at least 1, or null for the run's.")


@dataclass(frozen=True)
class Item:
    """One example, unpadded."""

    id: str
    audio: Tensor | None = None
    video: Tensor | None = None
    text: Tensor | None = None
    units: Tensor | None = None
    tokens: Tensor | None = None
    further_units: tuple[Tensor, ...] = ()
    phones: Tensor | None = None


def seconds(row: Utterance) -> float:
    """Duration of the media or, without any, of the timed phones (0 if they have no times either)."""
    last = (row.phones or "").rpartition(" ")[2].rsplit(":", 1)
    try:
        return row.duration or float(last[-1])
    except ValueError:
        return 0.0


def written(row: Utterance, column: str | None = TRANSCRIPT) -> str | None:
    """The text of a row: its transcript, or what its ``extra`` holds under another name; no column holds none."""
    if column is None:
        return None
    text = row.transcript if column == TRANSCRIPT else row.extra.get(column)
    return text if isinstance(text, str) else None


def choose(manifest: Manifest, source: Source) -> Manifest:
    """The rows of a manifest that a source uses, in a fixed order.

    Raises:
        ValueError: no row is left.
    """
    sentences = source.task in OF_TEXT
    if sentences and source.written is not None:
        manifest = manifest.filter(lambda u: bool(written(u, source.written)))
    whole = source.split is None or (sentences and all(row.split is None for row in manifest))
    rows = manifest if source.split is None or whole else manifest.split(source.split)
    rows = rows if sentences else rows.filter(lambda u: source.min_seconds <= seconds(u) <= source.max_seconds)
    if source.limit is not None:
        order = sorted(range(len(rows)), key=lambda i: seed_for(source.limit_seed, "limit", rows[i].id))[: source.limit]
        kept = {rows[i].id for i in order}
        rows = rows.filter(lambda u: u.id in kept)
    if len(rows) == 0 and sentences:
        what = source.written or "row"
        raise ValueError(f"{source.manifest}: no {what} of split {source.split or 'any'}; check split.")
    if len(rows) == 0 and source.split is not None and source.split not in (splits := {row.split for row in manifest}):
        there = ", ".join(sorted(filter(None, splits)))
        hint = f"there is {there}" if there else "its rows have none: write them, or take all (split: null; avtlm evaluate --split all)"
        raise ValueError(f"{source.manifest}: no utterance of split {source.split}; {hint}.")
    if len(rows) == 0:
        raise ValueError(
            f"{source.manifest}: no utterance of split {source.split or 'any'} "
            f"between {source.min_seconds:g} and {source.max_seconds:g} seconds; check split, min_seconds and max_seconds."
        )
    return rows


class ClipDataset:
    """Examples of one source.

    Args:
        source: what to read and how to change it.
        seed: of the run; with the epoch and the id it seeds everything drawn for one example.
        inputs: what the model takes in.
        vocabulary: turns transcripts into ``tokens`` (tasks ``recognition`` and ``sentences``).
        phones: symbol table for frame-level phones (tasks with text).
        training: augment; otherwise clips are given centred, and clean unless the source asks for noise, which is the same every time.
    """

    def __init__(
        self,
        source: Source,
        seed: int = 0,
        inputs: InputFormat | None = None,
        vocabulary: Tokenizer | None = None,
        phones: Vocabulary | None = None,
        training: bool = True,
    ) -> None:
        self.source = source
        self.manifest = choose(read_manifest(source.manifest), source)
        self.seed = seed
        self.inputs = inputs or InputFormat()
        self.vocabulary = vocabulary
        self.phones = phones
        self.training = training
        self._reader = self._shard_reader()
        self.labels: UnitLabels | None = self._labels()
        self.further_labels = [read_labels(path) for path in source.further_units]
        self.phonemes = None if source.phonemes is None else read_labels(source.phonemes)
        unsaid = [row.id for row in self.manifest if self.phonemes is not None and not len(self.phonemes.get(row.id, ()))]
        if unsaid:
            raise ValueError(
                f"{source.phonemes}: no phonemes of utterance {unsaid[0]!r}; run avtlm units text2units over the manifest again."
            )
        # Where units are read in place of a text, there are as many as there are.
        for labels in [] if self.labels is None or source.task == "units" else [self.labels, *self.further_labels]:
            labels.check(self.manifest, self.inputs.label_rate)
        if self.inputs.waveform and (source.augment.frequency_masks or source.augment.frequency_warp):
            raise ValueError(
                f"{source.manifest}: augment.frequency_masks and frequency_warp work on filter banks, not on this model's waveforms; set 0."
            )
        noise = source.augment.noise
        self.noises = read_noise_files(noise.lists, noise.kinds, source.split or "train") if noise and noise.lists else None
        self._waves, self._crops = self._memories()
        self._noted: set[str] = set()

    def __len__(self) -> int:
        return len(self.manifest)

    def frames(self, index: int) -> int:
        """Length of an utterance at the model's frame rate, as long as a batch may hold of it; of a sentence, its tokens and its end."""
        row = self.manifest[index]
        if self.source.task == "sentences":
            return len(self._text(row)) + 1
        frames = row.video_frames if self._has_video and row.video_frames else max(1, round(seconds(row) * self.inputs.frame_rate))
        return min(frames, self.source.crop_frames) if self.training and self.source.crop_frames else frames

    @property
    def _has_video(self) -> bool:
        return self.inputs.video_size is not None and self.source.task in ("audio_video", "recognition")

    def wave(self, index: int) -> np.ndarray:
        """int16 (samples,) at 16 kHz. What is remarkable about a file, such as a lower rate, is said once for the whole source."""
        kept = self._waves.get(index)
        if kept is not None:
            return kept.view(np.int16)
        wave = self._sound(self.manifest[index].audio, self.manifest[index].id)
        self._waves.put(index, wave)
        return wave

    def _sound(self, name: str | None, utterance: str) -> np.ndarray:
        """The sound of a file, int16 (samples,)."""
        path, content = self._media(name)
        sound, notes = read_track(path, content=content)
        if sound is None:
            raise MediaError(path, "has no audio track.")
        for note in notes:
            if note not in self._noted:
                self._noted.add(note)
                log.warning("%s: utterance %r: %s (said once).", self.source.manifest, utterance, note)
        return np.round(np.clip(sound, -1, 32767 / 32768) * 32768).astype(np.int16)

    def crops(self, index: int) -> np.ndarray:
        """uint8 (frames, 96, 96)."""
        kept = self._crops.get(index)
        if kept is not None:
            return kept.reshape(-1, SIDE, SIDE)
        path, content = self._media(self.manifest[index].video)
        crops = np.asarray(read_lip_crops(path, content))
        self._crops.put(index, crops)
        return crops

    def _media(self, name: str | None) -> tuple[str | Path, bytes | None]:
        """Where a file is, and its content if it lies in a shard."""
        assert name is not None
        return (self.manifest.path(name), None) if self._reader is None else self._reader.media(name)

    def _shard_reader(self) -> ShardReader | None:
        if self.manifest.shards is not None:
            return ShardReader(self.manifest.shards, self.source.shards)
        if self.source.units == IN_SHARDS or self.source.shards != ShardConfig():
            key = "units" if self.source.units == IN_SHARDS else "shards"
            raise ValueError(
                f"{self.source.manifest}: is a manifest of plain files, so the key {key!r} cannot speak of shards; change one."
            )
        return None

    def _labels(self) -> UnitLabels | None:
        if self.source.units != IN_SHARDS or self._reader is None:
            return read_labels(self.source.units) if self.source.units else None
        return UnitLabels(Path(self.source.manifest), ShardLabels(self._reader), self._reader.index.label_counts)

    def _memories(self) -> tuple[ClipMemory, ClipMemory]:
        """For waves and for crops, made here so that workers that are forked later share them."""
        limit = int(self.source.cache_gb * 1e9) if self.source.cache else 0
        # Counts of a manifest may be a little off: resampled sound, a last frame.
        heard = self.source.task not in OF_TEXT
        waves = [2 * round(seconds(row) * SAMPLE_RATE + 100) if row.audio and heard else 0 for row in self.manifest]
        memory = ClipMemory(waves, limit)
        frames = [
            max(row.video_frames, round(seconds(row) * FRAME_RATE) + 2) if row.video and self._has_video else 0 for row in self.manifest
        ]
        return memory, ClipMemory([count * SIDE * SIDE for count in frames], max(0, limit - memory.total))

    @property
    def groups(self) -> list[int] | None:
        """The shard of every utterance if batches mix a window of shards only."""
        index = self.manifest.shards
        return [index.homes[row.id] for row in self.manifest] if index is not None and self.source.shards.window else None

    def batch(self, rows: Sequence[int], epoch: int = 0, progress: float = 1.0) -> Batch:
        """Several examples, in training cut as the source says; see :meth:`item`."""
        items = [self.item(row, epoch, progress) for row in rows]
        if self.training and self.source.crop_frames is not None:
            rng = np.random.default_rng(seed_for(self.seed, "crop", epoch, *(item.id for item in items)))
            items = crop_together(items, self.source.crop_frames, rng, self.inputs.label_rate, self.inputs.frame_rate)
        return collate(items, self.source.task)

    def item(self, index: int, epoch: int = 0, progress: float = 1.0) -> Item:
        """One example as it is in this epoch; ``progress`` (share of the training done) drives the noise ramp."""
        row = self.manifest[index]
        rng = np.random.default_rng(seed_for(self.seed, "item", epoch, row.id)) if self.training else None
        if self.source.task == "sentences":
            return Item(row.id, tokens=self._text(row))
        if self.source.task == "text":
            phones, units = self._phones(row), self._units(row, None)
            return Item(row.id, text=phones, units=units[0], further_units=tuple(units[1:]))
        video = None
        if self._has_video and row.video is not None and "v" in self.source.modality:
            video = self._video(index, rng)
        frames = None if video is None else len(video)
        heard = row.audio is not None and "a" in self.source.modality
        audio = self._audio(index, frames, rng, progress) if heard else None
        text = self._phones(row) if self.source.task == "audio_text" else None
        length = frames / FRAME_RATE if frames is not None else self.inputs.seconds(audio) if audio is not None else 0.0
        units = [] if self.labels is None else self._units(row, length)
        said = None if self.phonemes is None else torch.from_numpy(self.phonemes[row.id]).long() + self.inputs.first_unit
        return Item(row.id, audio, video, text, units[0] if units else None, self._tokens(row), tuple(units[1:]), said)

    def _video(self, index: int, rng: np.random.Generator | None) -> Tensor:
        crops = self.crops(index)
        if rng is None:
            return self.inputs.video(crops)
        return self.inputs.video(crops, *draw_view(self.source.augment, rng, crops.shape[1] - CROP))

    def _audio(self, index: int, frames: int | None, rng: np.random.Generator | None, progress: float) -> Tensor:
        wave, config = self.wave(index), self.source.augment
        if config.noise is not None:
            drawing = np.random.default_rng(seed_for("validation noise", self.manifest[index].id)) if rng is None else rng
            wave = add_noise(wave, lambda rng: self._noise(index, rng), config.noise, progress, drawing)
        warp = 1.0 if rng is None else draw_warp(config, rng)
        features = self.features(index, wave, frames, warp)
        if rng is not None and not self.inputs.waveform:
            features = torch.from_numpy(mask_frequencies(features.numpy(), config, rng))
        return features

    def features(self, index: int, wave: np.ndarray, frames: int | None, warp: float = 1.0) -> Tensor:
        """What the model takes in of an utterance's sound (see InputFormat.audio). Raises ValueError: too few samples for a frame."""
        if len(wave) < self.inputs.shortest:
            raise ValueError(
                f"{self.source.manifest}: utterance {self.manifest[index].id!r} has {len(wave)} samples, fewer than the "
                f"{self.inputs.shortest} of one frame; raise min_seconds or leave it out."
            )
        return self.inputs.audio(wave, frames, warp)

    def _noise(self, index: int, rng: np.random.Generator) -> np.ndarray:
        """What is mixed into a clip: recordings where there are lists of them, else babble of other clips."""
        config, samples = self.source.augment.noise, len(self.wave(index))
        assert config is not None
        if self.noises is not None:
            return self.noises.draw(rng, samples, config.count)
        return babble(self._others(index, config.voices, rng), rng, samples)

    def _others(self, index: int, voices: int, rng: np.random.Generator) -> list[np.ndarray]:
        """Clips for the babble: of other speakers where the manifest names any, else other clips of the same one."""
        speaker = self.manifest[index].speaker
        places = rng.choice(len(self), min(len(self), 8 * voices + 8), replace=False).tolist()
        drawn = [i for i in places if i != index and self.manifest[i].audio]
        strangers = [i for i in drawn if speaker is None or self.manifest[i].speaker != speaker]
        return [self.wave(pick) for pick in (strangers or drawn)[:voices]] or [self.wave(index)]

    def _phones(self, row: Utterance) -> Tensor:
        if self.phones is None or row.phones is None:
            raise ValueError(f"{self.source.manifest}: utterance {row.id!r} has no phones; a source with text needs them.")
        return torch.tensor(frame_level_phones(row, self.phones))

    def _units(self, row: Utterance, length: float | None) -> list[Tensor]:
        """Units of every inventory; without a length (seconds) as many as there are."""
        if self.labels is None:
            raise ValueError(
                f"{self.source.manifest}: a pre-training source needs unit labels; set its key 'units' (see avtlm units --help)."
            )
        found = [torch.from_numpy(labels[row.id]).long() + self.inputs.first_unit for labels in (self.labels, *self.further_labels)]
        return found if length is None else [fit(units, round(length * self.inputs.label_rate), -1) for units in found]

    def _tokens(self, row: Utterance) -> Tensor | None:
        return self._text(row) if self.source.task == "recognition" else None

    def _text(self, row: Utterance) -> Tensor:
        text = written(row, self.source.written)
        if self.vocabulary is None or text is None:
            raise ValueError(
                f"{self.source.manifest}: utterance {row.id!r} has no {self.source.written}; this task needs one for every utterance."
            )
        return torch.tensor(self.vocabulary.encode(text), dtype=torch.long)


def frame_level_phones(row: Utterance, phones: Vocabulary) -> list[int]:
    """``symbol:start:end ...`` in seconds to one phone id every 10 ms, each phone repeated for its duration."""
    ids: list[int] = []
    index = {symbol: number for number, symbol in enumerate(phones.symbols)}
    for entry in (row.phones or "").split():
        symbol, _, end = entry.rsplit(":", 2)
        ids += [index.get(symbol, UNKNOWN)] * max(0, round(float(end) * 100) - len(ids))
    return ids


def crop_together(
    items: Sequence[Item], longest: int, rng: np.random.Generator, label_rate: float = FRAME_RATE, frame_rate: float = FRAME_RATE
) -> list[Item]:
    """Cut all examples to the shortest, and at most to ``longest`` frames, each at a random place; see `cut`."""
    lengths = [_frames(item, frame_rate) for item in items]
    size = min(longest, *lengths)
    return cut(items, size, [int(rng.integers(0, length - size + 1)) for length in lengths], label_rate, frame_rate)


def cut(
    items: Sequence[Item], size: int, starts: Sequence[int], label_rate: float = FRAME_RATE, frame_rate: float = FRAME_RATE
) -> list[Item]:
    """At most ``size`` frames, ``frame_rate`` of them per second, of every example from its own start, with the units and phones that
    belong to them. Waveforms are cut where their frames begin."""
    ratio, samples = label_rate / frame_rate, round(SAMPLE_RATE / frame_rate)
    parts = []
    for item, start in zip(items, starts, strict=True):
        first, last = round(start * ratio), round(start * ratio) + round(size * ratio)
        step = samples if item.audio is not None and item.audio.dim() == 1 else 1
        parts.append(
            dataclasses.replace(
                item,
                audio=None if item.audio is None else item.audio[start * step : (start + size) * step],
                video=None if item.video is None else item.video[start : start + size],
                text=None if item.text is None else item.text[DOWNSAMPLING * start : DOWNSAMPLING * (start + size)],
                units=None if item.units is None else item.units[first:last],
                further_units=tuple(units[first:last] for units in item.further_units),
            )
        )
    return parts


def _frames(item: Item, frame_rate: float) -> int:
    there = item.audio if item.audio is not None else item.video
    if there is None:
        return 0
    return int(len(there) * frame_rate / SAMPLE_RATE) if there.dim() == 1 else len(there)


def collate(items: Sequence[Item], task: str) -> Batch:
    """Pad the examples of one batch. A modality that no row has is None; a row that lacks one has length 0."""
    audio, audio_lengths = _optional([item.audio for item in items])
    video, video_lengths = _optional([item.video for item in items])
    text, text_lengths = _optional([item.text for item in items])
    targets, target_lengths = {}, {}
    for name, value in (("units", -1), ("tokens", PAD), ("phones", PAD)):
        rows = [getattr(item, name) for item in items]
        if all(row is not None for row in rows):
            targets[name], target_lengths[name] = pad(rows, value)
    for number, further in enumerate(zip(*(item.further_units for item in items), strict=True), 1):
        targets[f"units_{number}"], target_lengths[f"units_{number}"] = pad(further, -1)
    ids = tuple(item.id for item in items)
    return Batch(ids, task, audio, audio_lengths, video, video_lengths, text, text_lengths, targets, target_lengths)


def _optional(rows: Sequence[Tensor | None]) -> tuple[Tensor | None, Tensor | None]:
    first = next((row for row in rows if row is not None), None)
    if first is None:
        return None, None
    return pad([first[:0] if row is None else row for row in rows])
