"""Lip encoder: a 3-D convolutional stem and a 2-D ResNet over every frame (AV-HuBERT section 3; Stafylakis & Tzimiropoulos 2017).

What is unusual here:
- Padded frames are never computed. The clips of a batch are laid end to end with two zero frames between them, which is just the padding
  that the stem's kernel of 5 frames would see at each clip's ends, and only the true frames go on. Equal to padding by construction, 2 x
  cheaper on batches of sentences of different lengths.
- The default is AV-HuBERT's ResNet-18 with a PReLU for each channel; narrower ones for small runs may also skip the stem's max-pooling, and
  flatten the last feature map in place of averaging it.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avtlm.nn.attention import padding_mask

# Mean and standard deviation of grey lip crops on [0, 1], as AV-HuBERT and auto_avsr normalise them.
GREY_MEAN, GREY_STD = 0.421, 0.165
STEM_FRAMES = 5


@dataclass(frozen=True)
class LipEncoderConfig:
    """Sizes of the lip encoder; the defaults are AV-HuBERT's (11,186,688 parameters before the projection).

    ``size`` is the side of the frames in pixels: 88, or 44 where 2 x 2 pixels of the crop are averaged before (see InputFormat).
    """

    size: int = 88
    stem_channels: int = 64
    stem_stride: int = 2
    stem_pool: bool = True
    widths: tuple[int, ...] = (64, 128, 256, 512)
    blocks: tuple[int, ...] = (2, 2, 2, 2)
    strides: tuple[int, ...] = (1, 2, 2, 2)
    activation: Literal["prelu", "relu"] = "prelu"
    reduce: Literal["average", "flatten"] = "average"

    def __post_init__(self) -> None:
        if not len(self.widths) == len(self.blocks) == len(self.strides) >= 1:
            raise ValueError(
                f"widths, blocks, strides: {len(self.widths)}, {len(self.blocks)} and {len(self.strides)} entries; "
                "give one of each per stage."
            )

    @property
    def map_size(self) -> int:
        """Height and width of the last feature map, in cells."""
        size = -(-self.size // self.stem_stride)
        for stride in ((2,) if self.stem_pool else ()) + self.strides:
            size = -(-size // stride)
        return size

    @property
    def output_dim(self) -> int:
        return self.widths[-1] * (self.map_size**2 if self.reduce == "flatten" else 1)


def normalise_grey(video: Tensor) -> Tensor:
    """uint8 crops to zero mean and unit variance; float crops are taken as normalised already."""
    if video.dtype != torch.uint8:
        return video
    return video.float().mul_(1.0 / (255.0 * GREY_STD)).sub_(GREY_MEAN / GREY_STD)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut, with separate activations."""

    def __init__(self, inputs: int, outputs: int, stride: int, activation: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.activation1 = make_activation(activation, outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.activation2 = make_activation(activation, outputs)
        self.shortcut: nn.Module = nn.Identity()
        # A 1 x 1 convolution of a stride over few channels overwrites foreign memory on a CPU in its backward pass (tests/known_issues/
        # test_strided_pointwise_convolution.py); skipping pixels before it is the same.
        self.skip = stride if inputs < 16 else 1
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride // self.skip, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(self.activation1(self.norm1(self.conv1(x)))))
        return self.activation2(y + self.shortcut(x[:, :, :: self.skip, :: self.skip]))


def make_activation(name: str, channels: int) -> nn.Module:
    return nn.PReLU(channels) if name == "prelu" else nn.ReLU()


class LipEncoder(nn.Module):
    """Grey mouth crops to one vector per frame, at the crops' rate (25 Hz).

    Initialisation: 2-D convolutions N(0, sqrt(2 / (kernel area * outputs))), batch norms 1 and 0, PReLU 0.25, the rest PyTorch's.
    """

    def __init__(self, config: LipEncoderConfig) -> None:
        super().__init__()
        self.config = config
        stride = config.stem_stride
        self.stem = nn.Conv3d(1, config.stem_channels, (STEM_FRAMES, 7, 7), (1, stride, stride), (STEM_FRAMES // 2, 3, 3), bias=False)
        self.stem_norm = nn.BatchNorm3d(config.stem_channels)
        self.stem_activation = make_activation(config.activation, config.stem_channels)
        stages, inputs = [], config.stem_channels
        for width, blocks, step in zip(config.widths, config.blocks, config.strides, strict=True):
            stages.append(
                nn.Sequential(
                    *(BasicBlock(inputs if i == 0 else width, width, step if i == 0 else 1, config.activation) for i in range(blocks))
                )
            )
            inputs = width
        self.stages = nn.ModuleList(stages)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
                nn.init.normal_(module.weight, 0.0, (2.0 / fan_out) ** 0.5)

    @property
    def output_dim(self) -> int:
        return self.config.output_dim

    def forward(self, video: Tensor, lengths: Tensor, shown: Tensor | None = None) -> Tensor:
        """Encode a batch of clips.

        Args:
            video: (batch, frames, size, size), uint8 grey values or floats that are normalised already.
            lengths: true frames of each clip, (batch,); 0 for a clip without video.
            shown: bool (batch, frames); all other frames are grey to their neighbours, and not computed. None shows all.

        Returns:
            (batch, frames, output_dim); zeros at padded frames, and at those that are not shown.
        """
        valid = ~padding_mask(lengths, video.shape[1])
        if torch.compiler.is_exporting():
            return self._every_frame(video, valid)
        if not bool((lengths > 0).any()):
            return torch.zeros(*valid.shape, self.output_dim, device=video.device)
        pictures, wanted = normalise_grey(video[valid]), valid
        if shown is not None:
            seen, wanted = shown[valid], valid & shown
            pictures = pictures.masked_fill(~seen[:, None, None], 0.0)
        frames, true_frames = _end_to_end(pictures, lengths)
        features = self.encode_frames(frames, true_frames if shown is None else true_frames[seen])
        out = features.new_zeros(*valid.shape, self.output_dim)
        return out.masked_scatter(wanted[..., None], features)

    def _every_frame(self, video: Tensor, valid: Tensor) -> Tensor:
        """The same with padded frames computed and left out, for a graph that is exported: it knows no numbers of frames."""
        grey = normalise_grey(video).masked_fill(~valid[..., None, None], 0.0)  # what the stem pads with
        x = self.stem_activation(self.stem_norm(self.stem(grey[:, None])))  # (batch, channels, frames, height, width)
        features = self._encode_maps(x.transpose(1, 2).flatten(0, 1))
        return features.unflatten(0, valid.shape).masked_fill(~valid[..., None], 0.0)

    def encode_frames(self, frames: Tensor, true_frames: Tensor) -> Tensor:
        """normalised frames (total, height, width) with zero frames between clips, indices of the true ones (n,) -> (n, output_dim)."""
        x = self.stem(frames[None, None])[:, :, true_frames]  # (1, channels, n, height, width)
        x = self.stem_activation(self.stem_norm(x))
        return self._encode_maps(x[0].transpose(0, 1).contiguous(memory_format=torch.channels_last))

    def _encode_maps(self, x: Tensor) -> Tensor:
        """What the stem puts out, (n, channels, height, width) -> (n, output_dim)."""
        if self.config.stem_pool:
            x = F.max_pool2d(x, 3, 2, 1)
        for stage in self.stages:
            x = stage(x)
        return x.flatten(1) if self.config.reduce == "flatten" else x.mean((2, 3))


def _end_to_end(frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """All true frames (n, height, width) with STEM_FRAMES // 2 zero frames after each clip, and where the true ones are, (n,)."""
    gap = STEM_FRAMES // 2
    row = torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths)
    true_frames = torch.arange(len(row), device=lengths.device) + gap * row
    total = frames.new_zeros(len(row) + gap * len(lengths), *frames.shape[1:])
    return total.index_copy(0, true_frames, frames), true_frames
