"""Waveform to frames by convolutions: the front-end of wav2vec 2.0 and everything that grew from it (arXiv 2006.11477, section 2).

What is unusual here:
- Two norm modes. ``group`` norms each channel over time behind the first convolution alone (base models of wav2vec 2.0, HuBERT, WavLM);
  ``layer`` norms the channels of every frame behind every convolution (large models, data2vec, MT4SSL).
- The statistics of ``group`` are taken over the valid frames of each row, so that a clip sounds the same in any batch; the official code
  takes them over zero padding too (``compute_padding``).
- On a CPU the clips of a padded batch are convolved one by one, so that no padding is; on a GPU all at once.
- Two rules say which frames of a padded row are valid. ``convolution`` counts those whose whole window lies within the clip (wav2vec 2.0,
  data2vec, MT4SSL, Hugging Face); ``samples``, the official HuBERT's, those with at least one sample of it, often one frame more.

Seven convolutions without padding, strides 5, 2, 2, 2, 2, 2, 2: a frame every 320 samples (20 ms at 16 kHz) over a window of 400.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avtlm.frontends.filterbank import SAMPLE_RATE
from avtlm.nn.attention import padding_mask
from avtlm.nn.convolution import StridedConvolution
from avtlm.nn.dropout import Dropout
from avtlm.nn.feed_forward import ACTIVATIONS, Activation
from avtlm.nn.gradient import ScaleGradient
from avtlm.nn.norm import LayerNorm, NormOverTime


@dataclass(frozen=True)
class WaveformConfig:
    """Sizes and kinds; the defaults are those of wav2vec 2.0 base and HuBERT base.

    Attributes:
        widths, kernels, strides: of the convolutions.
        norm: see the module's docstring.
        bias: of the convolutions (wav2vec 2.0 large only).
        normalise: whether waveforms come with zero mean and unit variance (large models, data2vec, MT4SSL); noted here because weights
            belong to it, applied where clips are read (avtlm.data.inputs).
        frame_padding: see the module's docstring.
        compute_padding: run norms over padding as the official code does.
        feature_norm: norm the channels of the last convolution's frames (all but some HuBERT models of Hugging Face).
        project_always: project to the encoder's width also from an equal one (the official wav2vec 2.0 and HuBERT do not).
        dropout: of the projected frames.
        norm_epsilon: what ``feature_norm`` adds to the variance.
    """

    widths: tuple[int, ...] = (512,) * 7
    kernels: tuple[int, ...] = (10, 3, 3, 3, 3, 2, 2)
    strides: tuple[int, ...] = (5, 2, 2, 2, 2, 2, 2)
    norm: Literal["group", "layer"] = "group"
    bias: bool = False
    activation: Activation = "gelu"
    normalise: bool = False
    frame_padding: Literal["convolution", "samples"] = "convolution"
    compute_padding: bool = False
    feature_norm: bool = True
    project_always: bool = True
    dropout: float = 0.1
    norm_epsilon: float = 1e-5

    def __post_init__(self) -> None:
        sizes = (len(self.widths), len(self.kernels), len(self.strides))
        if len(set(sizes)) > 1 or not sizes[0] or min(*self.widths, *self.kernels, *self.strides) < 1:
            raise ValueError(f"widths, kernels, strides: {sizes[0]}, {sizes[1]}, {sizes[2]} of them; give equally many, all at least 1.")

    @property
    def hop(self) -> int:
        """Samples from one frame to the next."""
        return math.prod(self.strides)

    @property
    def receptive_field(self) -> int:
        """Samples that one frame sees."""
        field, step = 1, 1
        for kernel, stride in zip(self.kernels, self.strides, strict=True):
            field, step = field + (kernel - 1) * step, step * stride
        return field

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return SAMPLE_RATE / self.hop

    def frames(self, samples: Tensor, layers: int | None = None) -> Tensor:
        """Frames whose whole window lies within so many samples, int of any shape; ``layers`` counts those of an earlier convolution."""
        for kernel, stride in list(zip(self.kernels, self.strides, strict=True))[:layers]:
            samples = torch.div(samples - kernel, stride, rounding_mode="floor") + 1
        return samples.clamp(min=0)

    def valid_frames(self, lengths: Tensor, samples: int, frames: int) -> Tensor:
        """Valid frames of each row: lengths (batch,) in samples of a batch of ``samples``, of which ``frames`` frames are left."""
        if self.frame_padding == "convolution":
            return self.frames(lengths).clamp(max=frames)
        block = samples // frames
        return torch.div(lengths.clamp(max=block * frames) + block - 1, block, rounding_mode="floor")


def normalise_waveform(wave: Tensor) -> Tensor:
    """Zero mean and unit variance over one clip (samples,), as the official code: 1e-5 is added to the variance."""
    return F.layer_norm(wave, wave.shape)


class ConvolutionLayer(nn.Module):
    """Convolution without padding, its norm if any, activation."""

    def __init__(self, config: WaveformConfig, index: int) -> None:
        super().__init__()
        inputs = 1 if index == 0 else config.widths[index - 1]
        width = config.widths[index]
        self.conv = StridedConvolution(inputs, width, config.kernels[index], config.strides[index], bias=config.bias)
        nn.init.kaiming_normal_(self.conv.weight)
        self.norm: nn.GroupNorm | nn.LayerNorm | None = None
        if config.norm == "layer":
            self.norm = nn.LayerNorm(width)
        elif index == 0:
            self.norm = nn.GroupNorm(width, width)
        self.activation = ACTIVATIONS[config.activation]

    def forward(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        """(batch, time, channels) -> (batch, shorter time, width). ``lengths``: valid outputs of each row; None takes all as valid."""
        x = self.conv(x)
        if isinstance(self.norm, nn.LayerNorm):
            x = self.norm(x)
        elif self.norm is not None:
            x = norm_over_time(x, lengths, self.norm)
        return self.activation(x)


def norm_over_time(x: Tensor, lengths: Tensor | None, norm: nn.GroupNorm) -> Tensor:
    """The group norm of single channels, (batch, time, channels), with statistics over each row's valid part; without lengths all of it."""
    if lengths is None:
        if x.shape[0] == 1 and x.is_contiguous() and x.device.type == "cpu":
            clip: Tensor = NormOverTime.apply(x[0], norm.weight, norm.bias, norm.eps)
            return clip[None]
        return norm(x.transpose(1, 2)).transpose(1, 2)
    valid = ~padding_mask(lengths, x.shape[1])[..., None]
    count = lengths.clamp(min=1)[:, None, None]
    values = x.float()
    centred = values - (values * valid).sum(1, keepdim=True) / count
    variance = (centred.square() * valid).sum(1, keepdim=True) / count
    return centred * torch.rsqrt(variance + norm.eps) * norm.weight + norm.bias


class WaveformFrontEnd(nn.Module):
    """Convolutions, norm over channels, projection to the encoder's width.

    Initialisation: convolutions Kaiming normal, projection PyTorch's own, norms 1 and 0.

    Args:
        config: sizes and kinds.
        dim: width of the encoder behind it.
    """

    def __init__(self, config: WaveformConfig, dim: int) -> None:
        super().__init__()
        self.config = config
        width = config.widths[-1]
        self.layers = nn.ModuleList(ConvolutionLayer(config, index) for index in range(len(config.widths)))
        self.norm = LayerNorm(width, config.norm_epsilon) if config.feature_norm else nn.Identity()
        self.project = nn.Linear(width, dim) if config.project_always or width != dim else nn.Identity()
        self.dropout = Dropout(config.dropout)

    def convolve(self, wave: Tensor, lengths: Tensor, gradient_scale: float = 1.0) -> Tensor:
        """Waveforms (batch, samples) with lengths (batch,) -> (batch, frames, width), not normed yet.

        Args:
            gradient_scale: multiplies the gradients into the convolutions; with 0 they run without (fine-tuning).

        Raises:
            ValueError: not even the longest clip fills one window.
        """
        config = self.config
        if wave.shape[1] < config.receptive_field:
            raise ValueError(
                f"audio: {wave.shape[1]} samples are fewer than the {config.receptive_field} of one frame "
                f"({1000 * config.receptive_field / SAMPLE_RATE:g} ms); leave such clips out."
            )
        if config.compute_padding:
            lengths = torch.full_like(lengths, wave.shape[1])
        with torch.set_grad_enabled(torch.is_grad_enabled() and gradient_scale > 0):
            if lengths.device.type == "cpu" and not torch.compiler.is_exporting():
                x = self._one_by_one(wave, lengths)
            else:
                x = self._convolve(wave, None if config.compute_padding else lengths)
            if 0 < gradient_scale != 1:
                x = ScaleGradient.apply(x, gradient_scale)
        return x

    def _convolve(self, wave: Tensor, lengths: Tensor | None) -> Tensor:
        """(batch, samples) -> (batch, frames, width); without lengths all samples are valid."""
        x = wave[..., None]
        for index, layer in enumerate(self.layers):
            x = layer(x, None if lengths is None or index else self.config.frames(lengths, 1))
        return x

    def _one_by_one(self, wave: Tensor, lengths: Tensor) -> Tensor:
        """The same of every row alone up to its last valid frame, zeros behind it."""
        config, samples = self.config, wave.shape[1]
        frames = int(config.frames(torch.tensor(samples)))
        valid = config.valid_frames(lengths, samples, frames)
        # By the rule ``samples`` the last valid frame may see padding.
        seen = torch.maximum(lengths, (valid - 1) * config.hop + config.receptive_field)
        rows = []
        for row, length, end, count in zip(wave, lengths, seen.tolist(), valid.tolist(), strict=True):
            if count == 0:
                rows.append(wave.new_zeros(frames, config.widths[-1]))
                continue
            found = self._convolve(row[None, :end], None if end == length else length[None])[0, :count]
            rows.append(F.pad(found, (0, 0, 0, frames - count)))
        return torch.stack(rows)

    def forward(self, convolved: Tensor) -> tuple[Tensor, Tensor]:
        """What :meth:`convolve` gave -> normed (batch, frames, width) and projected (batch, frames, dim), before any dropout."""
        normed = self.norm(convolved)
        return normed, self.project(normed)
