"""The batch that travels through the house, and the plan of which utterances make up which batch.

A missing modality is None for the whole batch, or has length 0 in single rows; a tensor never only looks like data.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Padded tensors with their lengths.

    Attributes:
        ids: utterance ids, one per row.
        task: which kind of batch this is: that of its source, see avtlm.data.dataset.
        audio: (batch, frames, 104) stacked log filter bank at 25 Hz, or waveforms (batch, samples) at 16 kHz, with ``audio_lengths``
            (batch,) in frames or samples.
        video: (batch, frames, size, size) uint8 (normalised by the model) or float (normalised already), with ``video_lengths``.
        text: (batch, length) int phone ids at 100 Hz, or ids of symbols that are read, with ``text_lengths``
            (beside ``text_units``: of the text that they stand for, without an end).
        targets: by name: ``units`` (batch, frames) int padded with -1, ``tokens`` (batch, symbols) int, ``phones`` of these (batch,
            symbols) int, ``mel`` (batch, frames, bands) log mel spectrograms, ``voice`` (batch, width) in which they are written,
            ``speaker`` (batch,) int.
        target_lengths: by the same names, (batch,); of ``voice`` and ``speaker`` there are none.
        text_units: (batch, length) int ids of units that are read, the end symbol behind them, with ``text_units_lengths``.
    """

    ids: tuple[str, ...]
    task: str
    audio: Tensor | None = None
    audio_lengths: Tensor | None = None
    video: Tensor | None = None
    video_lengths: Tensor | None = None
    text: Tensor | None = None
    text_lengths: Tensor | None = None
    targets: Mapping[str, Tensor] = field(default_factory=dict)
    target_lengths: Mapping[str, Tensor] = field(default_factory=dict)
    text_units: Tensor | None = None
    text_units_lengths: Tensor | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def _map(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        fields: dict[str, Any] = {}
        for part in ("audio", "video", "text", "text_units"):
            for name in (part, f"{part}_lengths"):
                value = getattr(self, name)
                fields[name] = None if value is None else change(value)
        for name in ("targets", "target_lengths"):
            fields[name] = {key: change(value) for key, value in getattr(self, name).items()}
        return dataclasses.replace(self, **fields)

    def to(self, device: torch.device | str) -> "Batch":
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "Batch":
        return self._map(Tensor.pin_memory)

    def waveforms(self) -> tuple[Tensor, Tensor]:
        """The sound (batch, samples) and the samples of each row (batch,), for models that take nothing else.

        Raises:
            ValueError: no sound, or none as a waveform.
        """
        if self.audio is None or self.audio.dim() != 2:
            found = "no sound" if self.audio is None else "features"
            raise ValueError(f"{self.ids[0]}: {found} where this model takes a waveform (batch, samples) at 16 kHz.")
        assert self.audio_lengths is not None
        return self.audio, self.audio_lengths

    def only(self, modality: str) -> "Batch":
        """The batch as seen through ``av`` (unchanged), ``a`` or ``v``.

        Raises:
            ValueError: another modality, or one that this batch has not got.
        """
        if modality not in ("av", "a", "v"):
            raise ValueError(f"modality: {modality!r} is unknown; choose av, a or v.")
        absent = [name for letter, name in (("a", "audio"), ("v", "video")) if letter in modality and getattr(self, name) is None]
        if absent:
            raise ValueError(f"modality: {modality!r} was asked for, but {self.ids[0]} has no {' and no '.join(absent)}.")
        if modality == "a":
            return dataclasses.replace(self, video=None, video_lengths=None)
        if modality == "v":
            return dataclasses.replace(self, audio=None, audio_lengths=None)
        return self


def pad(rows: Sequence[Tensor], value: float = 0) -> tuple[Tensor, Tensor]:
    """Rows of (length, ...) -> (batch, longest, ...) filled up with ``value``, and the lengths (batch,)."""
    lengths = torch.tensor([len(row) for row in rows])
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=value), lengths


def fit(row: Tensor, length: int, value: float = 0) -> Tensor:
    """Cut or fill up one row of (length, ...)."""
    if row.shape[0] >= length:
        return row[:length]
    return F.pad(row, (0, 0) * (row.dim() - 1) + (0, length - row.shape[0]), value=value)


def plan_batches(frames: Sequence[int], max_frames: int, max_rows: int, generator: torch.Generator, buckets: int = 8) -> list[list[int]]:
    """One epoch of batches over utterances of the given lengths.

    Utterances are shuffled, cut into as many windows of ``buckets`` batches as there are, sorted by length within each window, and packed
    until the padded size would pass ``max_frames`` or the batch has ``max_rows``. The batches are shuffled again.

    Args:
        frames: length of every utterance.
        max_frames: bound on rows x longest row.
        max_rows: bound on rows.

    Raises:
        ValueError: an utterance is longer than ``max_frames`` on its own.
    """
    longest = max(frames, default=0)
    if longest > max_frames:
        raise ValueError(f"max_frames: {max_frames} is less than the longest utterance, {longest} frames; raise it or cut the utterance.")
    order = torch.randperm(len(frames), generator=generator).tolist()
    window = max_rows * buckets
    batches: list[list[int]] = []
    for start in range(0, len(order), window):
        rows: list[int] = []
        for index in sorted(order[start : start + window], key=lambda i: frames[i]):
            if rows and (len(rows) == max_rows or frames[index] * (len(rows) + 1) > max_frames):
                batches.append(rows)
                rows = []
            rows.append(index)
        if rows:
            batches.append(rows)
    return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]


def plan_by_groups(
    frames: Sequence[int],
    groups: Sequence[int],
    window: int,
    max_frames: int,
    max_rows: int,
    generator: torch.Generator,
    buckets: int = 8,
) -> list[list[int]]:
    """As plan_batches, but only the utterances of ``window`` groups are mixed, and done with before the next ones; groups come in a random
    order.

    Args:
        groups: the group of every utterance, such as its shard.
    """
    members: dict[int, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    names = list(members)
    order = [names[i] for i in torch.randperm(len(names), generator=generator).tolist()]
    batches = []
    for start in range(0, len(order), window):
        rows = [index for group in order[start : start + window] for index in members[group]]
        plan = plan_batches([frames[row] for row in rows], max_frames, max_rows, generator, buckets)
        batches += [[rows[place] for place in batch] for batch in plan]
    return batches


@dataclass(frozen=True)
class PlanSummary:
    """How well batches are filled.

    Attributes:
        padding: share of the padded frames that hold nothing.
        fill: mean padded size of a batch as a share of ``max_frames``.
    """

    utterances: int
    batches: int
    padding: float
    fill: float

    def __str__(self) -> str:
        rows = f"{self.utterances} utterances in {self.batches} batches"
        return f"{rows}, {100 * self.padding:.1f} % of their frames are padding, {100 * self.fill:.0f} % of max_frames are used"


def summarise(frames: Sequence[int], plan: Sequence[Sequence[int]], max_frames: int) -> PlanSummary:
    """Padding and size of the batches of a plan over utterances of these lengths."""
    padded = sum(len(rows) * max(frames[index] for index in rows) for rows in plan)
    used = sum(frames[index] for rows in plan for index in rows)
    return PlanSummary(sum(map(len, plan)), len(plan), 1 - used / padded, padded / (max_frames * len(plan)))
