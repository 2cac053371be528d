"""What a frozen encoder says about a sound: all of its hidden states, or filter banks with deltas as the baseline of the benchmark.

The hidden states are what enters the first layer and what every layer puts out (13 of a base Transformer); a pre-norm encoder's last one is
normed. Of SpeechLM and SpeechUT they are the outputs of both encoders' layers, as their authors give them; of a Zipformer those of its
stacks, brought to the rate and width of its output. Frames beyond round(seconds x rate) are cut, and a length that is further off than a
few frames is an error, as in s3prl (interfaces.py).
"""

import abc
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from avtlm import systems
from avtlm.checkpoint import CONFIG, WEIGHTS, load_config
from avtlm.config import to_dict
from avtlm.data.batching import Batch, pad
from avtlm.data.inputs import InputFormat
from avtlm.frontends.filterbank import SAMPLE_RATE, STEP, WINDOW
from avtlm.protocols import ShowsLayers

FBANK = "fbank"
FBANK_BANDS, FBANK_DELTA = 80, 5
LEAST_DEVIATION = 1e-4  # of a log energy or a delta, over a clip; rounding alone makes 1e-6
TOLERANCE = 5  # frames that a length may be off, s3prl's TOLERABLE_SEQLEN_DIFF
FORMAT = 1  # of what the states are; another number makes caches void
BATCH_SECONDS = 120.0  # of sound that is encoded at once, with padding


class Upstream(abc.ABC):
    """A frozen encoder as the benchmark sees it.

    Attributes:
        name: for tables.
        key: says whether another one would give the same.
        layers: hidden states of a frame.
        width: values of each.
        frame_rate: frames per second.
        parameters: how many weights it has.
        together: whether clips may be encoded in one batch without a change of what they give.
    """

    name: str
    key: str
    layers: int
    width: int
    frame_rate: float
    parameters: int = 0
    together: bool = True

    @property
    def hop(self) -> float:
        """Samples of a frame."""
        return SAMPLE_RATE / self.frame_rate

    def expected(self, samples: int) -> int:
        """Frames that so many samples should give."""
        return round(samples / self.hop)

    def states(self, waves: Sequence[np.ndarray]) -> list[Tensor]:
        """Hidden states of clips, float32 (samples,) of -1 to 1 at 16 kHz -> float32 (frames, layers, width) on the CPU.

        Raises:
            ValueError: a clip is too short, or gives more or fewer frames than its length says.
        """
        found = []
        for group in groups([len(wave) for wave in waves], BATCH_SECONDS * SAMPLE_RATE if self.together else 0):
            for wave, states in zip([waves[row] for row in group], self._states([waves[row] for row in group]), strict=True):
                expected = self.expected(len(wave))
                if abs(len(states) - expected) >= TOLERANCE:
                    raise ValueError(
                        f"{self.name} gives {len(states)} frames of {len(wave) / SAMPLE_RATE:.2f} s of sound, where {self.frame_rate:g} a "
                        f"second make {expected}; its frame rate is not what its configuration says."
                    )
                found.append(states[:expected].float().cpu())
        return found

    @abc.abstractmethod
    def _states(self, waves: Sequence[np.ndarray]) -> list[Tensor]: ...


class FilterBank(Upstream):
    """The baseline: 80 log mel bands of Kaldi at 100 Hz, their deltas and double deltas, each with mean 0 and variance 1 over the clip."""

    name, key = "FBANK", f"{FBANK}-{FBANK_BANDS}-{FBANK_DELTA}-{FORMAT}"
    layers, width, frame_rate = 1, 3 * FBANK_BANDS, SAMPLE_RATE / STEP

    def _states(self, waves: Sequence[np.ndarray]) -> list[Tensor]:
        return [self._one(wave)[:, None] for wave in waves]

    def _one(self, wave: np.ndarray) -> Tensor:
        import torchaudio
        from torchaudio.compliance import kaldi

        if len(wave) < WINDOW:
            raise ValueError(f"{len(wave)} samples are fewer than the {WINDOW} of one window; leave the clip out.")
        bands = kaldi.fbank(torch.from_numpy(wave)[None].float(), num_mel_bins=FBANK_BANDS, sample_frequency=SAMPLE_RATE).t()[None]
        delta = torchaudio.functional.compute_deltas(bands, FBANK_DELTA)
        features = torch.cat([bands, delta, torchaudio.functional.compute_deltas(delta, FBANK_DELTA)], 1)[0].t()
        # A value that stays the same, as bands above the sound's own range do, is 0; divided by almost nothing it would be thousands.
        centred, deviation = features - features.mean(0), features.std(0, unbiased=len(features) > 1)
        return torch.where(deviation > LEAST_DEVIATION, centred / deviation.clamp(min=LEAST_DEVIATION), 0.0)


class ModelStates(Upstream):
    """The hidden states of an encoder in a model folder. Audio-visual ones hear alone.

    Raises:
        CheckpointError, ConfigError: the folder is incomplete or damaged.
        ValueError: there is no encoder of sound in it.
    """

    def __init__(self, folder: str | Path, device: torch.device | str | None = None) -> None:
        folder = Path(folder)
        encoder, self._inputs = systems.load_encoder(folder)
        settings: Any = getattr(encoder, "config", None)
        reads = getattr(settings, "inputs", ("speech",))
        if not isinstance(encoder, ShowsLayers) or "speech" not in reads:
            raise ValueError(
                f"{folder}: a {load_config(folder)['system']} model without an encoder of sound; give the folder of one that hears, "
                f"or {FBANK}."
            )
        self._encoder = systems.for_use(encoder, device)
        self._device = next(encoder.parameters()).device
        self.name = "/".join(folder.resolve().parts[-2:])
        self.key = _key(folder)
        self.frame_rate = self._inputs.frame_rate
        self.parameters = sum(parameter.numel() for parameter in encoder.parameters())
        self.together = not _computes_padding(to_dict(settings))
        tried = self._states([np.random.default_rng(0).normal(0, 0.1, SAMPLE_RATE).astype(np.float32)])[0]
        self.layers, self.width = tried.shape[1:]

    @torch.inference_mode()
    def _states(self, waves: Sequence[np.ndarray]) -> list[Tensor]:
        batch = _batch(waves, self._inputs).to(self._device)
        encoder: Any = self._encoder
        states, lengths = encoder.hidden_states(batch)
        joined = torch.stack(states, 2)
        if not bool(torch.isfinite(joined).all()):
            raise ValueError(f"{self.name} gives hidden states that are not finite numbers; its weights are damaged.")
        return [row[:length] for row, length in zip(joined, lengths.tolist(), strict=True)]


def open_upstream(model: str | Path, device: torch.device | str | None = None) -> Upstream:
    """The encoder of a model folder, or ``fbank``; errors as of `ModelStates`."""
    return FilterBank() if str(model) == FBANK else ModelStates(model, device)


def groups(sizes: Sequence[int], most: float) -> list[list[int]]:
    """Rows in batches of at most so much with their padding, in their order; a larger one, or any with ``most`` 0, is alone."""
    found: list[list[int]] = []
    for row, size in enumerate(sizes):
        if not found or max(size, *(sizes[other] for other in found[-1])) * (len(found[-1]) + 1) > most:
            found.append([])
        found[-1].append(row)
    return found


def _batch(waves: Sequence[np.ndarray], inputs: InputFormat) -> Batch:
    rows = [inputs.audio(np.round(np.clip(wave, -1, 32767 / 32768) * 32768).astype(np.int16)) for wave in waves]
    audio, lengths = pad(rows)
    return Batch(tuple(f"clip {number}" for number in range(1, len(rows) + 1)), "audio", audio=audio, audio_lengths=lengths)


def _computes_padding(settings: Any) -> bool:
    """Whether what a clip gives depends on its batch (quirks of official code)."""
    if isinstance(settings, Mapping):
        return any((key == "compute_padding" and value is True) or _computes_padding(value) for key, value in settings.items())
    return isinstance(settings, list) and any(map(_computes_padding, settings))


def _key(folder: Path) -> str:
    return digest([folder / WEIGHTS, folder / CONFIG], str(FORMAT))


def digest(files: Iterable[Path], salt: str = "") -> str:
    """A hash of what files hold."""
    found = hashlib.blake2b(salt.encode(), digest_size=16)
    for path in files:
        with open(path, "rb") as handle:
            while block := handle.read(1 << 22):
                found.update(block)
    return found.hexdigest()
