"""A model that writes speech, the voice it speaks in, and what makes waveforms of its spectrograms: batches in, speech out.

What is unusual here:
- Every utterance is encoded alone and draws random numbers of its own, so that what is said depends on neither its batch nor its place in
  it, even in models whose official code lets padding take part.
- Without a vocoder, waveforms come from Griffin-Lim (avtlm.frontends.griffin_lim).
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from avtlm import checkpoint, config, systems
from avtlm.data.batching import Batch, pad
from avtlm.data.container import SAMPLE_RATE
from avtlm.data.media import write_wav
from avtlm.data.seeds import seed_for
from avtlm.data.voices import read_voices
from avtlm.decoding.synthesis import Speech, SynthesisOptions, synthesize
from avtlm.files import atomic_path
from avtlm.frontends.griffin_lim import griffin_lim
from avtlm.frontends.mel import BANDS, HOP
from avtlm.text.vocabulary import Tokenizer

logger = logging.getLogger(__name__)

Voice = str | Path | np.ndarray | Tensor
Vocoder = str | Path | nn.Module
VOICES = (".npy", ".npz", ".safetensors")


@dataclass(frozen=True, eq=False)
class Spoken:
    """What was said.

    Attributes:
        wave: float32 (samples,), 256 for each frame, at ``rate``.
        mel: log mel spectrogram, float32 (frames, bands), see avtlm.frontends.mel.
        attention: where the decoder looked, the mean of each layer's heads, float32 (layers, steps, symbols or frames that were read); one
            for each part of a recording that was divided.
        cut: some of it did not end by itself.
        rate: samples per second.
    """

    wave: np.ndarray
    mel: np.ndarray
    attention: tuple[np.ndarray, ...]
    cut: bool
    rate: int = SAMPLE_RATE

    @property
    def seconds(self) -> float:
        """How long it is."""
        return len(self.wave) / self.rate

    def save(self, path: str | Path, mel: str | Path | None = None, attention: str | Path | None = None) -> None:
        """Write a .wav file of 16 bits, softer where it would be clipped; each file is written atomically.

        Args:
            mel: also write the spectrogram, an .npy file.
            attention: also draw where the decoder looked, a .png file.
        """
        write_wav(path, self.wave / max(1.0, float(np.abs(self.wave).max(initial=0.0))), self.rate)
        if mel is not None:
            with atomic_path(mel) as temporary:
                np.save(temporary, self.mel, allow_pickle=False)
        if attention is not None:
            from avtlm.evaluation.attention_plot import plot_attention

            plot_attention(self.attention, attention)


@dataclass(frozen=True)
class SpeechWriter:
    """A model that writes speech, in evaluation mode.

    Attributes:
        model: a system that meets avtlm.decoding.synthesis.Synthesizer and encodes batches.
        vocabulary: of the texts that it reads; None if it reads none.
        options: when speech ends.
        name: of its folder.
    """

    model: Any
    vocabulary: Tokenizer | None
    options: SynthesisOptions
    name: str = "model"

    @property
    def device(self) -> torch.device:
        device: torch.device = next(self.model.parameters()).device
        return device


def load_writer(model: str | Path | SpeechWriter, options: Sequence[str] = ()) -> SpeechWriter:
    """Open a model that writes speech, on the GPU if there is one.

    Args:
        options: changes to the settings in its folder: ``("threshold=0.4", "longest=10")``, see SynthesisOptions.

    Raises:
        CheckpointError, ConfigError, VocabularyError: the folder is incomplete, or an option is unknown or wrong.
        ValueError: the folder holds something else.
    """
    if isinstance(model, SpeechWriter):
        return replace(model, options=config.load(SynthesisOptions, config.to_dict(model.options), options))
    network, vocabulary = systems.load_whole(model, "generation")
    settings = config.load(SynthesisOptions, checkpoint.load_decoding(model), options)
    return SpeechWriter(systems.for_use(network), vocabulary, settings, str(model))


@dataclass(frozen=True)
class Delivery:
    """How things are said: by which model, in which voice, through which vocoder, from which seed."""

    writer: SpeechWriter
    voice: Tensor | None
    vocoder: nn.Module | None
    seed: int

    @classmethod
    def prepare(
        cls,
        model: str | Path | SpeechWriter,
        voice: Voice | None = None,
        vocoder: Vocoder | None = None,
        seed: int = 0,
        options: Sequence[str] = (),
        speaker: str | None = None,
    ) -> "Delivery":
        """Open what is a file yet, and see that all of it fits; see avtlm.speaking.synthesize for the arguments.

        Raises:
            CheckpointError, ConfigError, VocabularyError: a folder is incomplete.
            ValueError: a voice, vocoder or model that does not fit.
        """
        writer = load_writer(model, options)
        settings = writer.model.config.spectrogram
        return cls(writer, find_voice(voice, settings.voice_dim, speaker), open_vocoder(vocoder, settings.bands, writer.device), seed)

    def say(self, batches: Sequence[Batch]) -> list[Spoken]:
        """Speech of batches of one row each.

        Raises:
            FloatingPointError: the model writes numbers that are not finite.
        """
        if not batches:
            return []
        writer, device = self.writer, self.writer.device
        with torch.inference_mode():
            encoded = [writer.model.encode(batch.to(device)) for batch in batches]
            states, _ = pad([rows[0] for rows, _ in encoded])
            lengths = torch.cat([length for _, length in encoded])
            voice = None if self.voice is None else self.voice.to(device).expand(len(batches), -1)
            source = ends = None
            if writer.model.config.spectrogram.needs_source:
                heard = [writer.model.source(batch.to(device)) for batch in batches]
                source, ends = pad([rows[0] for rows, _ in heard])[0], torch.cat([length for _, length in heard])
            generators = [torch.Generator().manual_seed(seed_for(self.seed, "synthesis")) for _ in batches]
            found = synthesize(writer.model, states, lengths, voice, generators, writer.options, attention="mean", source=source, ends=ends)
            return [self._spoken(batch.ids[0], speech) for batch, speech in zip(batches, found, strict=True)]

    def _spoken(self, name: str, speech: Speech) -> Spoken:
        mel = speech.mel.float()
        if not bool(mel.isfinite().all()):
            raise FloatingPointError(f"{name}: {self.writer.name} wrote values that are not finite; its training has diverged.")
        wave = griffin_lim(mel, seed_for(self.seed, "phases")) if self.vocoder is None else self.vocoder(mel[None])[0]
        if speech.cut:
            logger.warning(
                "%s: speech did not end by itself and was cut after %.1f s; the model may not know such input (longest cuts later).",
                name,
                len(mel) * HOP / SAMPLE_RATE,
            )
        assert speech.attention is not None
        return Spoken(wave.cpu().numpy(), mel.cpu().numpy(), (speech.attention.float().cpu().numpy(),), speech.cut)


# Voices and vocoders ------------------------------------------------------------------------------------------------------------------


def find_voice(voice: Voice | None, width: int, speaker: str | None = None) -> Tensor | None:
    """A speaker embedding as a model takes it, float32 (1, width); None for a model that knows no voices (width 0).

    Args:
        voice: the embedding; an .npy file of it; or an .npz or .safetensors file of one, or of several by name.
        speaker: whose of a file's embeddings.

    Raises:
        ValueError: there is a voice too many or none, or it cannot be read, is of another size or says nothing.
    """
    if not width:
        if voice is not None or speaker is not None:
            raise ValueError("voice: this model knows no voices and speaks in the one that it has learned; leave the voice out.")
        return None
    if speaker is not None and (not isinstance(voice, str | Path) or Path(voice).suffix not in VOICES[1:]):
        raise ValueError(
            f"speaker: {speaker!r}, but only a voice file *.npz or *.safetensors has embeddings by name; give one, or no speaker."
        )
    if voice is None:
        raise ValueError(f"voice: none is given, but the model takes a speaker embedding of {width} values (an x-vector of the reference).")
    name = str(voice) if isinstance(voice, str | Path) else "the embedding"
    found = _read_voice(Path(voice), width, speaker) if isinstance(voice, str | Path) else torch.as_tensor(voice)
    if found.numel() != width or max(found.shape, default=0) != width:
        raise ValueError(f"voice: {name} has {found.numel()} values, but the model takes a speaker embedding of {width}.")
    found = found.reshape(1, width).float()
    if not bool(found.isfinite().all()) or not bool(found.any()):
        raise ValueError(f"voice: {name} is zero or not finite, as of a silent reference; take a clip in which somebody speaks.")
    return found


def _read_voice(path: Path, width: int, speaker: str | None) -> Tensor:
    if not path.is_file() or path.suffix not in VOICES:
        fault = "is no file of speaker embeddings" if path.exists() else "is not there"
        raise ValueError(f"voice: {path} {fault}; give the embedding (x-vector) of a reference clip as {', '.join(VOICES)}.")
    if path.suffix == ".npy":
        try:
            return torch.from_numpy(np.load(path, allow_pickle=False))
        except (OSError, ValueError, TypeError, EOFError) as error:
            raise ValueError(f"voice: {path} is no array of numbers ({' '.join(str(error).split())[:200]}).") from error
    voices = read_voices(path, width)
    if speaker is None and len(voices.vectors) != 1:
        some = ", ".join(list(voices.vectors)[:8])
        raise ValueError(f"voice: {path} holds {len(voices.vectors)} voices; name the speaker, such as one of {some or '(none)'}.")
    return voices.of(*voices.vectors if speaker is None else (speaker,))


def open_vocoder(vocoder: Vocoder | None, bands: int, device: torch.device) -> nn.Module | None:
    """A vocoder that fits spectrograms of so many bands; None for Griffin-Lim.

    Raises:
        CheckpointError, ConfigError: its folder is incomplete, or holds something else.
        ValueError: it does not fit.
    """
    if vocoder is None:
        if bands != BANDS:
            raise ValueError(f"vocoder: none is given, and Griffin-Lim takes {BANDS} bands, but this model writes {bands}; give its own.")
        return None
    opened: Any = vocoder if isinstance(vocoder, nn.Module) else systems.load_vocoder(vocoder)
    if opened.config.bands != bands or opened.hop != HOP:
        raise ValueError(
            f"vocoder: it makes {opened.hop} samples of each frame of {opened.config.bands} bands, but the model writes frames of {HOP} "
            f"samples and {bands} bands; give the vocoder that belongs to it."
        )
    network: nn.Module = opened.to(device).eval()
    return network
