"""Reduced units: one for every run of equal ones, with how long it lasted; and runs of frame-level phones with their times.

SpeechUT's text side reads reduced units (arXiv 2210.03730, section 3.1); what a text-to-unit model with durations learns from is the other
half of them.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np


def reduce_units(units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Merge repeats: units (frames,) -> units without neighbouring equals and the frames that each lasted, both int32 (runs,)."""
    starts = np.flatnonzero(np.concatenate([[True], units[1:] != units[:-1]])) if len(units) else np.zeros(0, dtype=np.int64)
    return units[starts].astype(np.int32), np.diff(np.append(starts, len(units))).astype(np.int32)


def expand_units(units: np.ndarray, durations: np.ndarray) -> np.ndarray:
    """The inverse: repeat every unit for its duration, int32 (frames,).

    Raises:
        ValueError: another number of durations than units, or a negative one.
    """
    if len(units) != len(durations) or (len(durations) and durations.min() < 0):
        raise ValueError(f"{len(units)} units and {len(durations)} durations: give every unit one of 0 or more frames.")
    return np.repeat(units, durations).astype(np.int32)


def reduce_labels(labels: Mapping[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Id, reduced units and durations of every utterance."""
    for name, units in labels.items():
        yield name, *reduce_units(units)


def timed_phones_of_frames(frames: np.ndarray, symbols: Sequence[str], rate: float) -> str:
    """Phones of every frame as the ``phones`` of a manifest: ``symbol:start:end ...`` in seconds, neighbouring equals merged.

    Args:
        frames: numbers of phones (frames,), such as an aligner gives them.
        symbols: the phones by their numbers.
        rate: frames per second.

    Raises:
        ValueError: a number without a symbol.
    """
    if len(frames) and not 0 <= frames.min() <= frames.max() < len(symbols):
        raise ValueError(f"phone {frames.min() if frames.min() < 0 else frames.max()} of a frame is none of the {len(symbols)} symbols.")
    phones, durations = reduce_units(frames)
    ends = np.cumsum(durations)
    entries = zip(phones.tolist(), ends - durations, ends, strict=True)
    return " ".join(f"{symbols[phone]}:{first / rate:.4f}:{last / rate:.4f}" for phone, first, last in entries)
