"""Spectrograms into and out of a decoder: what SpeechT5 has before and behind its layers to read and write speech (Tacotron 2's, Shen et
al. 2018, arXiv 1712.05884, by way of Transformer TTS).

What is unusual here:
- One step of the decoder writes ``reduction`` frames, and reads the last of those that the step before has written.
- Dropout before the decoder is always on, in synthesis too, so that the decoder cannot copy; whoever wants the same speech again passes
  what is kept.
- Frames behind the end of a row change nothing in it: convolutions see zeros there, batch norms leave them out. The official code lets them
  take part (``compute_padding``).
- To enhance speech, a decoder may read the frames of the noisy speech (``source``) instead of its own, and write what relates to them.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avtlm.nn.attention import padding_mask
from avtlm.nn.dropout import Dropout, drop
from avtlm.nn.positions import ScaledPositions


@dataclass(frozen=True)
class SpectrogramConfig:
    """Sizes; the defaults are SpeechT5's, base and large.

    Attributes:
        bands: values of a frame.
        reduction: frames that one step writes.
        prenet_layers, prenet_width, prenet_dropout: of the layers that read frames; the dropout never ends.
        voice_dim: width of the vector that says whose voice speaks (x-vector); 0 for none. voice_place: where it is told: in the ``frames``
            that the decoder reads, or in what it attends to, which the vector is added to (``add``) or stands beside (``concat``).
        postnet_layers, postnet_width, postnet_kernel, postnet_dropout: of the convolutions that refine what was written; 0 layers refine
            nothing. postnet_norm: each has a batch norm behind it.
        position_dropout: behind the positions of what is read. scaled_positions: they have a learned factor (ScaledPositions).
        reads: the frames that were ``written`` before, or those of the ``source``, without a voice.
        writes: ``frames``; a ``mask``, whose sigmoid the frames of the source are multiplied by; or a ``difference``, from which they are
            subtracted.
        compute_padding: let convolutions and batch norms see frames behind the end of a row, as the official code does.
    """

    bands: int = 80
    reduction: int = 2
    prenet_layers: int = 2
    prenet_width: int = 256
    prenet_dropout: float = 0.5
    voice_dim: int = 512
    voice_place: Literal["frames", "add", "concat"] = "frames"
    postnet_layers: int = 5
    postnet_width: int = 256
    postnet_kernel: int = 5
    postnet_dropout: float = 0.5
    position_dropout: float = 0.1
    compute_padding: bool = False
    postnet_norm: bool = True
    scaled_positions: bool = True
    reads: Literal["written", "source"] = "written"
    writes: Literal["frames", "mask", "difference"] = "frames"

    def __post_init__(self) -> None:
        if min(self.bands, self.reduction, self.prenet_layers, self.prenet_width) < 1 or min(self.postnet_layers, self.voice_dim) < 0:
            raise ValueError(
                f"spectrogram: bands {self.bands}, reduction {self.reduction}, prenet_layers {self.prenet_layers}, prenet_width "
                f"{self.prenet_width}, postnet_layers {self.postnet_layers}, voice_dim {self.voice_dim}; give at least 1 (0 for no "
                "convolutions, and for no voice)."
            )
        if self.needs_source and self.reduction > 1:
            raise ValueError(f"spectrogram: reads {self.reads}, writes {self.writes}, reduction {self.reduction}; it has to be 1 then.")
        if self.postnet_kernel % 2 == 0:
            raise ValueError(f"spectrogram: postnet_kernel {self.postnet_kernel} is even; give an odd one, so that frames stay in place.")

    @property
    def needs_source(self) -> bool:
        """The spectrogram of what is heard has a part in what is written."""
        return self.reads == "source" or self.writes != "frames"


def shift_frames(mel: Tensor, reduction: int) -> Tensor:
    """What the decoder reads when it is to write mel (batch, frames, bands): a zero frame, then the last of every ``reduction`` frames but
    those of the last step, (batch, frames // reduction, bands)."""
    read = mel[:, reduction - 1 :: reduction]
    return torch.cat([torch.zeros_like(read[:, :1]), read[:, :-1]], 1)


class SpectrogramPrenet(nn.Module):
    """Frames to the decoder's vectors: layers with endless dropout, positions, the voice.

    Initialisation: PyTorch's own.
    """

    def __init__(self, config: SpectrogramConfig, dim: int) -> None:
        super().__init__()
        self.config = config
        widths = (config.bands, *[config.prenet_width] * config.prenet_layers)
        self.layers = nn.ModuleList(nn.Linear(before, after) for before, after in pairwise(widths))
        self.project = nn.Linear(widths[-1], dim)
        self.positions = ScaledPositions(dim, config.scaled_positions)
        self.dropout = Dropout(config.position_dropout)
        place = config.voice_place if config.voice_dim else "none"
        self.voice = nn.Linear(dim + config.voice_dim, dim) if place == "frames" else None
        self.memory_voice: nn.Linear | None = None
        if place in ("add", "concat"):
            self.memory_voice = nn.Linear(config.voice_dim + (dim if place == "concat" else 0), dim)

    def draw(self, rows: int, steps: int, generator: torch.Generator) -> Tensor:
        """What dropout keeps of so many steps: bool (layers, rows, steps, width), on the CPU."""
        shape = (len(self.layers), rows, steps, self.config.prenet_width)
        return torch.rand(shape, generator=generator) >= self.config.prenet_dropout

    def read(self, frames: Tensor, keep: Tensor | None = None) -> Tensor:
        """The layers alone: (batch, steps, bands) -> (batch, steps, dim); ``keep`` see :meth:`forward`."""
        x, share = frames, self.config.prenet_dropout
        for index, layer in enumerate(self.layers):
            x = F.relu(layer(x))
            x = drop(x, share) if keep is None else x * keep[index] / (1.0 - share)
        out: Tensor = self.project(x)
        return out

    def forward(self, frames: Tensor, voice: Tensor | None, first: int = 0, keep: Tensor | None = None) -> Tensor:
        """Frames (batch, steps, bands), which stand at ``first`` and behind it -> (batch, steps, dim).

        Args:
            voice: (batch, voice_dim), of any length; None only where the model knows no voices, or for frames of the source.
            keep: what dropout keeps, bool (layers, batch, steps, width) or broadcastable to it; None draws as dropout does.

        Raises:
            ValueError: a voice of another width, or none.
        """
        x = self.read(frames, keep)
        places = torch.arange(first, first + frames.shape[1], device=frames.device)
        x = self.dropout(self.positions.gain * x + self.positions(places).to(x.dtype))
        return x if voice is None and self.config.reads == "source" else self.speak(x, voice)

    def speak(self, x: Tensor, voice: Tensor | None) -> Tensor:
        """Tell the decoder whose voice speaks."""
        if self.voice is None:
            return x
        return F.relu(self.voice(torch.cat([x, self._given(x, voice).expand(-1, x.shape[1], -1)], -1)))

    def inform(self, encoded: Tensor, voice: Tensor | None) -> Tensor:
        """Tell what the decoder attends to (batch, frames, dim) whose voice speaks, where that is told there."""
        if self.memory_voice is None:
            return encoded
        given = self._given(encoded, voice)
        if self.config.voice_place == "add":
            return encoded + self.memory_voice(given)
        out: Tensor = self.memory_voice(torch.cat([encoded, given.expand(-1, encoded.shape[1], -1)], -1))
        return out

    def _given(self, x: Tensor, voice: Tensor | None) -> Tensor:
        """The direction of a voice, (batch, 1, voice_dim)."""
        width = self.config.voice_dim
        if voice is None or voice.shape[-1] != width:
            found = "none" if voice is None else f"one of {voice.shape[-1]} values"
            raise ValueError(f"voice: {found}, but the model takes a speaker embedding of {width} values (an x-vector of the reference).")
        return F.normalize(voice.to(x.dtype))[:, None]


@dataclass(frozen=True)
class Written:
    """What the decoder wrote.

    Attributes:
        before, after: frames (batch, steps x reduction, bands), as written and refined.
        stop: logits of the end, (batch, steps x reduction).
    """

    before: Tensor
    after: Tensor
    stop: Tensor


class SpectrogramHead(nn.Module):
    """The decoder's vectors to frames and to the probability of the end, and the convolutions that refine the frames.

    Initialisation: PyTorch's own.
    """

    def __init__(self, config: SpectrogramConfig, dim: int) -> None:
        super().__init__()
        self.config = config
        self.frames = nn.Linear(dim, config.bands * config.reduction)
        self.stop = nn.Linear(dim, config.reduction)
        widths = (config.bands, *[config.postnet_width] * (config.postnet_layers - 1), config.bands)
        pairs = list(pairwise(widths))[: config.postnet_layers]
        half = config.postnet_kernel // 2
        self.convolutions = nn.ModuleList(nn.Conv1d(*pair, config.postnet_kernel, padding=half, bias=False) for pair in pairs)
        self.norms = nn.ModuleList(nn.BatchNorm1d(after) if config.postnet_norm else nn.Identity() for _, after in pairs)
        self.dropout = Dropout(config.postnet_dropout)

    def write(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The decoder's output (batch, steps, dim) -> frames (batch, steps x reduction, bands), not refined yet, and logits of the end."""
        return self.frames(x).unflatten(-1, (-1, self.config.bands)).flatten(1, 2), self.stop(x).flatten(1)

    def refine(self, frames: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Add what the convolutions find missing. (batch, frames, bands), of which so many are valid, -> the same."""
        if not self.config.postnet_layers:
            return frames
        x = frames.transpose(1, 2)
        valid = None
        if lengths is not None and not self.config.compute_padding:
            valid = ~padding_mask(lengths, frames.shape[1])
        for index, (conv, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            x = conv(x if valid is None else x * valid[:, None])
            x = norm(x) if valid is None else _norm_valid(norm, x, valid)
            x = self.dropout(torch.tanh(x) if index < len(self.norms) - 1 else x)
        return frames + x.transpose(1, 2)

    def relate(self, frames: Tensor, source: Tensor | None) -> Tensor:
        """Frames in the sense of the loss, of what was written and the source's frames (batch, frames, bands)."""
        if source is None or self.config.writes == "frames":
            return frames
        return frames.sigmoid() * source if self.config.writes == "mask" else frames - source

    def forward(self, x: Tensor, steps: Tensor | None = None, source: Tensor | None = None) -> Written:
        """The decoder's output (batch, steps, dim) -> what it wrote.

        Args:
            steps: valid ones of each row.
            source: frames of what is heard, as many as there are steps; for decoders that write a mask or a difference.
        """
        before, stop = self.write(x)
        after = self.refine(before, None if steps is None else steps * self.config.reduction)
        return Written(self.relate(before, source), self.relate(after, source), stop)


def _norm_valid(norm: nn.Module, x: Tensor, valid: Tensor) -> Tensor:
    """A batch norm over the valid frames alone: (batch, channels, frames) -> the same, zero elsewhere."""
    rows = x.transpose(1, 2)
    found = norm(rows[valid]).to(x.dtype)
    return torch.zeros_like(rows).masked_scatter(valid[..., None], found).transpose(1, 2)
