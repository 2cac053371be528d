"""Prints of sound, by which nearly equal recordings are found among thousands (Haitsma and Kalker 2002, ISMIR).

Sixteen bits for every 20 ms: whether the difference of neighbouring bands of a spectrum grows or falls in the next 80 ms. They survive
other codings, rates and levels, and cuts at the ends; recordings are the same where few bits differ. Other speeds, and noise as loud as
the speech, are not seen through.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from avtlm.data.container import SAMPLE_RATE

HOP, FRAME = 320, 4096  # samples at 16 kHz
STEP = 4  # hops between the two spectra that are compared
BANDS = np.geomspace(200.0, 3600.0, 18)  # edges of 17 bands in Hz
QUIET = 30.0  # dB under the loudest frame from which on bits are those of noise
ALIKE = 0.25  # share of differing bits up to which sound is the same; chance is 0.5
LEAST = 40  # frames that have to agree: 0.8 s
HITS = 2  # equal words of 32 bits, at one lag, that make a pair worth a look
COMMON = 30  # recordings that hold a word before it says nothing
MOST_WORDS = 20_000_000  # in memory at a time; more are thinned out by their own bits, equally in equal recordings


@dataclass(frozen=True)
class Print:
    """Of one recording: uint16 (frames,), and which of the frames are loud enough to count, bool (frames,)."""

    bits: np.ndarray
    loud: np.ndarray


@dataclass(frozen=True)
class Pair:
    """Two recordings, by their places, that hold the same sound for some seconds; the second lags behind the first."""

    first: int
    second: int
    seconds: float
    lag: float
    differing: float


def make_print(wave: np.ndarray) -> Print:
    """The print of float (samples,) at 16 kHz; empty for less than a third of a second."""
    count = 1 + (len(wave) - FRAME) // HOP
    if count <= STEP:
        return Print(np.zeros(0, np.uint16), np.zeros(0, bool))
    frames = np.lib.stride_tricks.sliding_window_view(np.asarray(wave, np.float32), FRAME)[::HOP]
    window = np.hanning(FRAME).astype(np.float32)
    edges = np.round(BANDS * FRAME / SAMPLE_RATE).astype(int)
    energy = np.empty((count, len(BANDS) - 1))
    for start in range(0, count, 256):  # a long recording in pieces
        spectrum = np.abs(np.fft.rfft(frames[start : start + 256] * window)) ** 2
        energy[start : start + 256] = np.add.reduceat(spectrum, edges, axis=1)[:, :-1]
    level = 10 * np.log10(energy.sum(axis=1) + 1e-10)
    slope = np.diff(np.log(energy + 1e-10), axis=1)
    grows = slope[STEP:] > slope[:-STEP]
    bits = (grows * (1 << np.arange(grows.shape[1]))).sum(axis=1).astype(np.uint16)
    loud = level > max(level.max() - QUIET, -40.0)
    return Print(bits, loud[STEP:] & loud[:-STEP])


def near_equal(prints: Sequence[Print]) -> list[Pair]:
    """Pairs of recordings with the same sound, the longest first."""
    votes = Counter[tuple[int, int, int]]()
    for first, second, lag in _candidates(prints):
        votes[first, second, lag] += 1
    best: dict[tuple[int, int], Pair] = {}
    for (first, second, lag), hits in votes.items():
        if hits < HITS or (first, second) in best:
            continue
        pair = _compare(prints, first, second, lag)
        if pair is not None:
            best[first, second] = pair
    return sorted(best.values(), key=lambda pair: (-pair.seconds, pair.first, pair.second))


def _candidates(prints: Sequence[Print]) -> Iterator[tuple[int, int, int]]:
    """Places of two recordings that hold an equal word of two neighbouring frames, and by how many frames the second is later."""
    total = sum(max(0, len(each.bits) - 1) for each in prints)
    thin = 1 << max(0, int(np.ceil(np.log2(max(1, total) / MOST_WORDS))))
    parts = []
    for place, each in enumerate(prints):
        if len(each.bits) < 2:
            continue
        word = (each.bits[:-1].astype(np.uint32) << 16) | each.bits[1:]
        kept = each.loud[:-1] & each.loud[1:] & ((word * np.uint32(2654435761)) >> 12 & np.uint32(thin - 1) == 0)
        at = np.flatnonzero(kept)
        parts.append((word[at], np.full(len(at), place), at))
    if not parts:
        return
    words, places, positions = (np.concatenate(column) for column in zip(*parts))
    order = np.argsort(words, kind="stable")
    words, places, positions = words[order], places[order], positions[order]
    bounds = np.flatnonzero(np.diff(words)) + 1
    for begin, end in zip([0, *bounds.tolist()], [*bounds.tolist(), len(words)]):
        if end - begin < 2 or end - begin > COMMON:
            continue
        for left in range(begin, end):
            for right in range(left + 1, end):
                if places[left] != places[right]:
                    yield int(places[left]), int(places[right]), int(positions[right] - positions[left])


def _compare(prints: Sequence[Print], first: int, second: int, lag: int) -> Pair | None:
    """The pair, if the bits of both agree where they overlap."""
    one, other = prints[first], prints[second]
    begin, end = max(0, -lag), min(len(one.bits), len(other.bits) - lag)
    left, right = slice(begin, end), slice(begin + lag, end + lag)
    both = one.loud[left] & other.loud[right]
    if int(both.sum()) < LEAST:
        return None
    differing = np.unpackbits((one.bits[left] ^ other.bits[right])[both].view(np.uint8)).mean()
    if differing > ALIKE:
        return None
    return Pair(first, second, round((end - begin) * HOP / SAMPLE_RATE, 2), round(lag * HOP / SAMPLE_RATE, 2), round(float(differing), 3))
