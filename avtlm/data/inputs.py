"""Sound and lip crops to what a model takes in: one object for training, evaluation, the command line and the demo."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from avtlm.frontends.filterbank import FRAME_RATE, SAMPLE_RATE, audio_features
from avtlm.frontends.waveform import normalise_waveform

CROP = 88


@dataclass(frozen=True)
class InputFormat:
    """How a model wants its inputs; it follows from the model's configuration.

    Attributes:
        audio_normalise: see avtlm.frontends.filterbank.audio_features; of a waveform ``utterance`` or ``none``.
        video_size: side of the frames: the crop of 88 pixels, or 88 averaged over square cells (44 = 2 x 2); None for a model that hears
            only.
        label_rate: units per second that the model learns from.
        waveform: the model takes waveforms in place of filter banks.
        frame_rate: frames per second of the model.
        shortest: samples below which there is no frame.
        mel_bands: of the log mel spectrograms that it learns to write (avtlm.frontends.mel); 0 if it writes none.
        voice_dim: width of the speaker embedding in whose voice it writes them; 0 if it knows no voices.
        first_unit: id of the first unit in the model's tables, behind special symbols; labels count from 0.
        reduced_units: runs of one unit become one where units are read in place of text (SpeechUT).
        phone_durations: it learns how long the phones of a text last.
    """

    audio_normalise: str = "frame"
    video_size: int | None = CROP
    label_rate: float = FRAME_RATE
    waveform: bool = False
    frame_rate: float = FRAME_RATE
    shortest: int = 1
    mel_bands: int = 0
    voice_dim: int = 0
    first_unit: int = 0
    reduced_units: bool = False
    phone_durations: bool = False

    def __post_init__(self) -> None:
        if self.video_size is not None and (self.video_size < 1 or CROP % self.video_size):
            raise ValueError(f"video_size: {self.video_size} does not divide the crop of {CROP} pixels; choose 88, 44 or 22.")
        if self.waveform and self.audio_normalise not in ("utterance", "none"):
            raise ValueError(f"audio_normalise: {self.audio_normalise!r} of a waveform; choose utterance or none.")

    def audio(self, wave: np.ndarray, frames: int | None = None, warp: float = 1.0) -> Tensor:
        """int16 (samples,) at 16 kHz -> (frames, 104), see audio_features; or the waveform itself, float32 (samples,), which is neither
        matched to a video's ``frames`` nor warped.

        Raises:
            ValueError: there are too few samples for a frame.
        """
        if len(wave) < self.shortest:
            raise ValueError(
                f"{len(wave)} samples are fewer than the {self.shortest} of one frame ({1000 * self.shortest / SAMPLE_RATE:g} ms); "
                "leave the clip out (min_seconds)."
            )
        if not self.waveform:
            return audio_features(torch.from_numpy(wave), frames, self.audio_normalise, warp)
        samples = torch.from_numpy(wave.astype(np.float32) / 32768.0)
        return normalise_waveform(samples) if self.audio_normalise == "utterance" else samples

    def seconds(self, audio: Tensor) -> float:
        """Length of what :meth:`audio` gave."""
        return len(audio) / (SAMPLE_RATE if self.waveform else FRAME_RATE)

    def video(self, crops: np.ndarray, offset: tuple[int, int] | None = None, mirror: bool = False) -> Tensor:
        """uint8 (frames, 96, 96) -> uint8 (frames, video_size, video_size): cut (the centre without an offset), mirror, average."""
        assert self.video_size is not None, "a model that hears only was given lips"
        y, x = offset if offset is not None else ((crops.shape[1] - CROP) // 2, (crops.shape[2] - CROP) // 2)
        cut = crops[:, y : y + CROP, x : x + CROP]
        cell = CROP // self.video_size
        if cell > 1:
            # Sums of whole numbers over strided views: twenty times faster than a mean over reshaped axes.
            cut = cut.astype(np.uint16)
            cut = sum((cut[:, i::cell] for i in range(1, cell)), start=cut[:, 0::cell])
            cut = sum((cut[..., i::cell] for i in range(1, cell)), start=cut[..., 0::cell])
            cut = ((cut + cell * cell // 2) // (cell * cell)).astype(np.uint8)
        return torch.from_numpy(np.ascontiguousarray(cut[:, :, ::-1] if mirror else cut))
