"""Speech in noise: mixing at a signal-to-noise ratio, and babble.

Sources: AV-HuBERT's noisy-speech experiments (arXiv 2201.01763, section 3) mix int16 waveforms and bring a mixture that leaves the int16
range back into it as a whole; auto_avsr mixes float waveforms by the same energy ratio without touching the peaks. Where speech or noise
has no energy the ratio has no meaning, and the speech is returned as it was.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from avtlm.data.seeds import seed_for

INT16 = np.iinfo(np.int16)


def mix_at_snr(clean: np.ndarray, noise: np.ndarray, snr_db: float) -> np.ndarray:
    """Speech with noise, ``snr_db`` decibels apart in energy over the whole signal, silence included.

    Noise shorter than the speech is repeated; longer noise is cut from its start.

    Args:
        clean: (samples,) int16 or floating point.
        noise: (samples,), any type and any level.
        snr_db: speech energy over noise energy in dB.

    Returns:
        (samples,) in the type of ``clean``. int16: AV-HuBERT's formula, scaled as a whole if it would clip, truncated toward zero.
        Floating point: the plain sum, which may leave [-1, 1].

    Raises:
        ValueError: a signal is not one-dimensional or not finite, the speech is of another type, or the noise is empty.
    """
    if clean.ndim != 1 or noise.ndim != 1:
        raise ValueError(f"Mixing needs signals of shape (samples,), not {clean.shape} and {noise.shape}; take one channel.")
    if clean.dtype != np.int16 and not np.issubdtype(clean.dtype, np.floating):
        raise ValueError(f"Speech to be mixed is int16 or floating point, not {clean.dtype}; convert it first.")
    if len(clean) == 0:
        return clean.copy()
    speech, noise = clean.astype(np.float64), fit(noise, len(clean)).astype(np.float64)
    speech_rms, noise_rms = _rms(speech), _rms(noise)
    if not (np.isfinite(speech_rms) and np.isfinite(noise_rms) and np.isfinite(snr_db)):
        raise ValueError("The speech, the noise or the SNR is not finite; mix recorded signals at an SNR in dB.")
    if speech_rms == 0 or noise_rms == 0:
        return clean.copy()
    mixture = speech + noise * (speech_rms / (10 ** (snr_db / 20) * noise_rms))
    if clean.dtype == np.int16:
        high, low = mixture.max(), mixture.min()
        if high > INT16.max or low < INT16.min:
            mixture *= INT16.max / high if high >= -low else INT16.min / low
    return mixture.astype(clean.dtype)


def measured_snr(clean: np.ndarray, mixture: np.ndarray) -> float:
    """The SNR in dB of a mixture that was not scaled, given the speech in it; inf without noise, -inf without speech."""
    speech, rest = _rms(clean.astype(np.float64)), _rms(mixture.astype(np.float64) - clean.astype(np.float64))
    if rest == 0:
        return float("inf")
    return float(20 * np.log10(speech / rest)) if speech > 0 else float("-inf")


def fit(noise: np.ndarray, samples: int) -> np.ndarray:
    """``noise`` repeated as often as needed and cut from its start to ``samples``.

    Raises:
        ValueError: the noise is empty.
    """
    if len(noise) == 0:
        raise ValueError("The noise has no samples; give at least one.")
    return np.tile(noise, -(-samples // len(noise)))[:samples]


def mean_noise(noises: Sequence[np.ndarray]) -> np.ndarray:
    """Several noises as one: their mean, all cut to the shortest, rounded down to whole int16 steps (AV-HuBERT's ``noise_num`` > 1).

    Returns:
        (samples,) float32; a single noise stays as it is.

    Raises:
        ValueError: there are no noises.
    """
    if not noises:
        raise ValueError("A mean of noises needs at least one noise.")
    if len(noises) == 1:
        return noises[0].astype(np.float32)
    shortest = min(len(noise) for noise in noises)
    return np.floor(np.stack([noise[:shortest].astype(np.float32) for noise in noises]).mean(axis=0))


def mean_babble(clips: Sequence[np.ndarray]) -> np.ndarray:
    """Babble as AV-HuBERT makes it (of 30 clips): the mean of int16 clips, all cut to the shortest, truncated to int16.

    Raises:
        ValueError: there are no clips.
    """
    if not clips:
        raise ValueError("Babble needs at least one clip.")
    shortest = min(len(clip) for clip in clips)
    return np.mean([clip[:shortest].astype(np.float64) for clip in clips], axis=0).astype(np.int16)


def babble(clips: Sequence[np.ndarray], rng: np.random.Generator, samples: int | None = None) -> np.ndarray:
    """Babble of few clips: each at zero mean and unit variance, turned round by a random offset, repeated or cut to length, summed.

    The turning makes new babble of the same clips every time and leaves no common start. Silent clips add nothing.

    Args:
        clips: voices, (samples,) each, of any type.
        rng: draws one offset per clip, silent ones included.
        samples: length of the babble; the length of the longest clip if None.

    Returns:
        (samples,) float32, about sqrt(number of clips) in RMS; its level is set when it is mixed in.

    Raises:
        ValueError: there are no clips, or one is empty.
    """
    if not clips or any(len(clip) == 0 for clip in clips):
        raise ValueError("Babble needs at least one clip, and every clip at least one sample.")
    length = max(len(clip) for clip in clips) if samples is None else samples
    total = np.zeros(length, np.float32)
    for clip in clips:
        at = -int(rng.integers(len(clip))) % len(clip)
        voice = clip.astype(np.float32)
        loudest = max(float(voice.max()), -float(voice.min()))
        voice -= voice.mean()
        deviation = float(np.sqrt(np.dot(voice, voice) / len(voice)))
        if deviation <= 1e-6 * loudest:  # rounding in a constant signal is no voice
            continue
        voice *= 1 / deviation
        written = 0
        while written < length:  # the clip from its offset to its end, then over and over from its start
            part = voice[at : at + length - written]
            total[written : written + len(part)] += part
            written, at = written + len(part), 0
    return total


@dataclass(frozen=True)
class BabblePool:
    """Clips that stand around as background voices in an evaluation: the babble of a clip depends on the seed and its id alone.

    Args:
        clips: (samples,) each.
        speakers: who speaks in each clip.
        voices: how many clips one babble is made of.
        seed: another seed, another evaluation.

    Raises:
        ValueError: the two lists differ in length, or no voices are asked for.
    """

    clips: Sequence[np.ndarray]
    speakers: Sequence[str]
    voices: int = 6
    seed: int = 0

    def __post_init__(self) -> None:
        if len(self.clips) != len(self.speakers):
            raise ValueError(f"{len(self.clips)} clips and {len(self.speakers)} speakers: name one speaker for every clip.")
        if self.voices < 1:
            raise ValueError(f"Babble of {self.voices} voices cannot be made; ask for at least one.")

    def choose(self, clip_id: str, speaker: str) -> list[int]:
        """Which clips babble behind ``clip_id``: none of its own speaker's, of as many different speakers as there are.

        Raises:
            ValueError: the pool holds no other speaker.
        """
        others = [index for index, name in enumerate(self.speakers) if name != speaker]
        if not others:
            raise ValueError(f"The babble behind {clip_id!r} needs clips of speakers other than {speaker!r}; add some to the pool.")
        rng = np.random.default_rng(seed_for(self.seed, "babble voices", clip_id))
        order = [others[int(place)] for place in rng.permutation(len(others))]
        turn: dict[str, int] = {}
        rounds = {}
        for index in order:  # the first clip of every speaker comes before anyone's second
            rounds[index] = turn[self.speakers[index]] = turn.get(self.speakers[index], -1) + 1
        return sorted(order, key=rounds.__getitem__)[: self.voices]

    def noise(self, clip_id: str, speaker: str, samples: int) -> np.ndarray:
        """(samples,) float32 babble for ``clip_id``, the same at every SNR and for every modality."""
        rng = np.random.default_rng(seed_for(self.seed, "babble offsets", clip_id))
        return babble([self.clips[index] for index in self.choose(clip_id, speaker)], rng, samples)


def _rms(signal: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(signal)))) if len(signal) else 0.0
