"""MT2KD's teachers as one: each is given a clip and says something about it, at a rate and a width of its own.

- ``speech``: frames. Whisper's encoder (Hugging Face folder, or OpenAI's ``.pt``), or any encoder in a model folder of avtlm that hears.
- ``sound``: probabilities of classes. BEATs fine-tuned on AudioSet (``.pt``), or a model folder that tags.
- ``speaker``: a vector. SpeechBrain's ECAPA-TDNN (folder, or ``embedding_model.ckpt``), or a model folder that knows voices.

A teacher hears a clip alone, so that what it says does not depend on what else is asked; official teachers hear whole batches.
"""

import abc
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from avtlm.checkpoint import CONFIG
from avtlm.data.batching import Batch
from avtlm.data.inputs import InputFormat
from avtlm.frontends.filterbank import SAMPLE_RATE, STEP
from avtlm.frontends.teacher_features import beats_filterbank, speaker_filterbank, whisper_log_mel

LEAST_SAMPLES = SAMPLE_RATE // 5  # below which BEATs has no patch and ECAPA-TDNN nothing to reflect


class Teacher(abc.ABC):
    """One frozen model, on its device, in evaluation mode.

    Attributes:
        width: values of a frame, of a clip or of a voice.
        rate: frames per second; 0 of what is said about a clip as a whole.
        tags: names of the classes, where they have any.
    """

    width: int
    rate: float = 0.0
    tags: tuple[str, ...] = ()

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self.model, self.device = model.to(device).eval(), device

    @torch.no_grad()
    def answer(self, wave: Tensor) -> Tensor:
        """What it says about a clip, float (samples,) of -1 to 1 at 16 kHz: float32 (frames, width) or (width,), on its device.

        Raises:
            ValueError: a clip that it cannot hear: too short, or too long.
        """
        if len(wave) < LEAST_SAMPLES:
            raise ValueError(
                f"{len(wave)} samples are too few for a teacher; leave out clips of less than {LEAST_SAMPLES / SAMPLE_RATE:g} s."
            )
        with torch.autocast(self.device.type, enabled=False):  # the same in a training in bfloat16
            said = self.say(wave.to(self.device, torch.float32))
        if not bool(torch.isfinite(said).all()):
            raise ValueError("a teacher gave numbers that are not finite; the clip or the teacher's file is damaged.")
        return said.float()

    @abc.abstractmethod
    def say(self, wave: Tensor) -> Tensor:
        """The same for a clip that may be heard."""


class WhisperTeacher(Teacher):
    """Frames behind the last norm of Whisper's encoder."""

    rate = 50.0

    def __init__(self, model: Any, device: torch.device) -> None:
        super().__init__(model, device)
        self.width = model.config.dim
        self.bands = model.config.bands

    def say(self, wave: Tensor) -> Tensor:
        mel = whisper_log_mel(wave[None], self.bands)
        frames: Tensor = self.model(mel, torch.tensor([len(wave) // STEP], device=self.device))[0]
        return frames[0]


class BeatsTeacher(Teacher):
    """Probabilities of BEATs' classes."""

    def __init__(self, model: Any, device: torch.device, tags: tuple[str, ...]) -> None:
        super().__init__(model, device)
        self.width, self.tags = model.config.tags, tags

    def say(self, wave: Tensor) -> Tensor:
        features = beats_filterbank(wave)
        logits: Tensor = self.model(features[None], torch.tensor([len(features)], device=self.device))
        return logits[0].sigmoid()


class EcapaTeacher(Teacher):
    """ECAPA-TDNN's vector."""

    def __init__(self, model: Any, device: torch.device) -> None:
        super().__init__(model, device)
        self.width = model.config.dim

    def say(self, wave: Tensor) -> Tensor:
        features = speaker_filterbank(wave)
        embedded: Tensor = self.model(features[None], torch.tensor([len(features)], device=self.device))
        return embedded[0]


class EncoderTeacher(Teacher):
    """Frames of an encoder of avtlm."""

    def __init__(self, model: Any, device: torch.device) -> None:
        super().__init__(model, device)
        self.inputs: InputFormat = model.input_format
        self.rate = self.inputs.frame_rate
        self.width = model.dim

    def say(self, wave: Tensor) -> Tensor:
        heard: Any = self.model
        frames: Tensor = heard.encode(_batch(wave, self.inputs))[0]
        return frames[0]


class TaggingTeacher(Teacher):
    """Probabilities of a model of avtlm that tags sounds."""

    def __init__(self, model: Any, device: torch.device, tags: tuple[str, ...]) -> None:
        super().__init__(model, device)
        self.width, self.tags = model.config.tags, tags

    def say(self, wave: Tensor) -> Tensor:
        model: Any = self.model
        logits: Tensor = model.tag_logits(model.hear(_batch(wave, model.input_format)))
        return logits[0].sigmoid()


class VoiceTeacher(Teacher):
    """The vector of a voice by a model of avtlm that has one."""

    def __init__(self, model: Any, device: torch.device) -> None:
        super().__init__(model, device)
        self.width = model.config.voice_dim

    def say(self, wave: Tensor) -> Tensor:
        model: Any = self.model
        embedded: Tensor = model.embed_speaker(model.hear(_batch(wave, model.input_format)))
        return embedded[0]


def _batch(wave: Tensor, inputs: InputFormat) -> Batch:
    """One clip as a model of avtlm takes it in; waveforms have passed through int16 there, as all sound does."""
    samples = np.round(np.clip(wave.cpu().numpy(), -1, 32767 / 32768) * 32768).astype(np.int16)
    audio = inputs.audio(samples)
    batch = Batch(("clip",), "recognition", audio=audio[None], audio_lengths=torch.tensor([len(audio)]))
    return batch.to(wave.device)


def open_teacher(name: str, place: str | Path, device: torch.device | str = "cpu") -> Teacher:
    """A teacher from where its checkpoint lies.

    Args:
        name: ``speech``, ``sound`` or ``speaker``.

    Raises:
        ValueError: there is nothing, or something else there.
    """
    device, place = torch.device(device), Path(place)
    if not place.exists():
        raise ValueError(f"teachers.{name}: there is no {place}; name a checkpoint that is there.")
    if (place / CONFIG).is_file():
        return _own(name, place, device)
    from avtlm.convert import teachers

    if name == "speech":
        return WhisperTeacher(teachers.read_whisper(place), device)
    if name == "sound":
        model, tags = teachers.read_beats(place)
        return BeatsTeacher(model, device, tags)
    return EcapaTeacher(teachers.read_ecapa(place), device)


def _own(name: str, place: Path, device: torch.device) -> Teacher:
    """A teacher from a model folder of avtlm."""
    from avtlm import systems
    from avtlm.data.tags import read_tags

    model, inputs = systems.load_encoder(place)
    wanted = {"sound": "tag_logits", "speaker": "embed_speaker"}.get(name, "encode")
    if not hasattr(model, wanted) or not hasattr(model, "dim") or inputs.video_size is not None:
        can = {"sound": "tags sounds", "speaker": "knows voices"}.get(name, "hears alone")
        raise ValueError(f"teachers.{name}: {place} holds no model that {can}; name another one.")
    if name == "speech":
        return EncoderTeacher(model, device)
    return TaggingTeacher(model, device, read_tags(place)) if name == "sound" else VoiceTeacher(model, device)
