"""Synthesised, converted, enhanced and separated speech against a reference recording.

Distances only: what listeners think (MOS) is not estimated here.
"""

import math
from dataclasses import dataclass
from itertools import permutations

import numpy as np

from avtlm.errors import MissingExtra

RATE = 16000


def si_sdr(estimate: np.ndarray, target: np.ndarray, zero_mean: bool = True) -> np.ndarray:
    """Scale-invariant signal-to-distortion ratio in dB (Le Roux et al. 2019).

    Args:
        estimate: waveforms (..., samples).
        target: waveforms of the same shape.
        zero_mean: remove the mean of both first, as tables of separation do.

    Returns:
        (...) in dB.

    Raises:
        ValueError: shapes differ, or there is no sample.
    """
    estimate, target = np.asarray(estimate, np.float64), np.asarray(target, np.float64)
    if estimate.shape != target.shape or not estimate.shape or not estimate.shape[-1]:
        raise ValueError(
            f"an estimate of shape {estimate.shape} for a target of shape {target.shape}; they have to be equal and not empty."
        )
    if zero_mean:
        estimate, target = (signal - signal.mean(axis=-1, keepdims=True) for signal in (estimate, target))
    tiny = np.finfo(np.float32).eps  # keeps silence finite, as torchmetrics does
    energy = (target**2).sum(axis=-1, keepdims=True)
    projected = ((estimate * target).sum(axis=-1, keepdims=True) + tiny) / (energy + tiny) * target
    ratio = ((projected**2).sum(axis=-1) + tiny) / (((projected - estimate) ** 2).sum(axis=-1) + tiny)
    result: np.ndarray = 10 * np.log10(ratio)
    return result


def separation_gain(estimates: np.ndarray, targets: np.ndarray, mixture: np.ndarray) -> float:
    """SI-SDR improvement over the mixture in dB, mean over speakers, under their best permutation.

    Args:
        estimates, targets: (speakers, samples).
        mixture: (samples,).

    Raises:
        ValueError: shapes differ.
    """
    best = max(float(si_sdr(estimates[list(order)], targets).mean()) for order in permutations(range(len(targets))))
    return best - float(si_sdr(np.broadcast_to(mixture, np.shape(targets)), targets).mean())


@dataclass(frozen=True)
class Alignment:
    """Dynamic time warping: pairs of frames (pairs, 2), their mean distance and the sum of their distances."""

    path: np.ndarray
    mean: float
    total: float


def warp(distance: np.ndarray) -> Alignment:
    """The cheapest monotonic alignment with steps (1, 0), (0, 1) and (1, 1), of equal weight.

    Args:
        distance: (frames, frames of the other), not negative.

    Raises:
        ValueError: one of the two has no frame.
    """
    distance = np.asarray(distance, np.float64)
    rows, columns = distance.shape
    if not rows or not columns:
        raise ValueError(f"a table of {rows} x {columns} distances cannot be aligned; both sides need frames.")
    # Cost of the best path to each cell, a frame at a time; inside a row each cell may also be reached from its left neighbour.
    cost = np.full((rows + 1, columns + 1), np.inf)
    cost[0, 0] = 0.0
    for i in range(rows):
        here = math.inf
        line: list[float] = []
        for there, reached in zip(distance[i].tolist(), np.minimum(cost[i, :-1], cost[i, 1:]).tolist(), strict=True):
            here = there + min(reached, here)
            line.append(here)
        cost[i + 1, 1:] = line
    i, j = rows, columns
    path = [(i - 1, j - 1)]
    while (i, j) != (1, 1):
        i, j = min(((i - 1, j - 1), (i - 1, j), (i, j - 1)), key=lambda cell: cost[cell])
        path.append((i - 1, j - 1))
    return Alignment(np.array(path[::-1]), float(cost[rows, columns]) / len(path), float(cost[rows, columns]))


def cepstral_distances(cepstra: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Euclidean distance of mel-cepstra (frames, 1 + order) and (frames, 1 + order) without c0, for all pairs: (frames, frames).

    Raises:
        ValueError: the orders differ.
    """
    cepstra, others = np.asarray(cepstra, np.float64), np.asarray(others, np.float64)
    if cepstra.ndim != 2 or others.ndim != 2 or cepstra.shape[1] != others.shape[1] or cepstra.shape[1] < 2:
        raise ValueError(f"mel-cepstra of shapes {cepstra.shape} and {others.shape}; give (frames, 1 + order) of the same order.")
    difference = cepstra[:, None, 1:] - others[None, :, 1:]
    return np.asarray(np.sqrt((difference**2).sum(axis=-1)))


def mel_cepstral_distortion(cepstra: np.ndarray, others: np.ndarray, align: bool = True) -> float:
    """MCD in dB between mel-cepstra whose first column is c0, which is left out.

    Args:
        align: warp time; False compares frame by frame and leaves out what one has more.

    Raises:
        ValueError: the orders differ, or one has no frame.
    """
    distance = cepstral_distances(cepstra, others)
    if align:
        mean = warp(distance).mean
    else:
        frames = min(distance.shape)
        if not frames:
            raise ValueError("mel-cepstra without a frame cannot be compared.")
        mean = float(np.diagonal(distance)[:frames].mean())
    return 10 / math.log(10) * math.sqrt(2) * mean


def pesq(estimate: np.ndarray, target: np.ndarray) -> float:
    """Wide-band PESQ (ITU-T P.862.2) of a waveform at 16 kHz.

    Raises:
        ValueError: no speech was found, or the clip is too short.
        ImportError: the package pesq is not installed; it is compiled when it is, so no extra brings it.
    """
    try:
        import pesq as package
    except ImportError as error:
        raise ImportError(
            "pesq is needed for the perceptual quality of speech; install it with: pip install pesq (a C compiler has to be there)."
        ) from error
    try:
        return float(package.pesq(RATE, np.asarray(target, np.float32), np.asarray(estimate, np.float32), "wb"))
    except package.PesqError as error:
        raise ValueError(
            f"PESQ cannot be computed for this clip ({error or type(error).__name__}); it needs speech of at least 0.25 s."
        ) from error


def stoi(estimate: np.ndarray, target: np.ndarray) -> float:
    """Short-time objective intelligibility of a waveform at 16 kHz (Taal et al. 2011), 1 at best.

    Raises:
        ValueError: shapes differ.
        MissingExtra: the package pystoi is not installed.
    """
    try:
        from pystoi import stoi as package
    except ImportError as error:
        raise MissingExtra("metrics", "pystoi", "the intelligibility of speech") from error
    if np.shape(estimate) != np.shape(target):
        raise ValueError(f"an estimate of {np.size(estimate)} samples for a target of {np.size(target)}; cut them to the same length.")
    return float(package(np.asarray(target, np.float64), np.asarray(estimate, np.float64), RATE))
