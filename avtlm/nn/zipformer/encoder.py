"""Zipformer (Yao et al. 2023, arXiv 2310.11230): stacks of layers at different frame rates, in a U.

Filter-bank features at 100 Hz -> convolutions (50 Hz) -> stacks, each at its own rate and width -> 25 Hz. Between stacks vectors are cut,
or get zeros behind; what comes out has each channel from the last stack that has it.

What is unusual here:
- With ``causal``, frames are seen in chunks: every frame of its own chunk and of some before, whole clips with masks here, or as they come
  (streaming.py), with equal results.
- Much of it exists for training alone, and changes with `Zipformer.batch_count`, which whoever trains sets before every update; see
  schedules.py and balancing.py. In evaluation nothing is drawn, and the model is what its weights say.
- What a clip gives does not depend on its batch. The official code lets padding take part in four places; ``compute_padding`` in the
  configuration brings all of them back. For published weights the difference is in the last frames of padded clips.
- The official layers own one parameter more each (``bypass_scale``) that nothing uses.
"""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avtlm.nn.zipformer.config import ZipformerConfig
from avtlm.nn.zipformer.schedules import BatchCount
from avtlm.nn.zipformer.stack import Downsampling, Stack, downsampled
from avtlm.nn.zipformer.subsampling import ConvolutionalSubsampling, whole

HIDDEN_CLIPS = 0.125  # share of clips of which training hides all channels behind the unmasked ones, and again of which it hides half


@dataclass
class ZipformerOutput:
    """What a Zipformer gives.

    Attributes:
        frames: (batch, frames, dim), at 25 Hz.
        lengths: valid ones, (batch,).
        stacks: by stack, what each of its layers gives, (batch, frames, width) at the rate of the stack.
        stack_lengths: by stack, (batch,).
        penalty: scalar to be added to the loss in training, almost always 0; None in evaluation.
    """

    frames: Tensor
    lengths: Tensor
    stacks: list[list[Tensor]] = field(default_factory=list)
    stack_lengths: list[Tensor] = field(default_factory=list)
    penalty: Tensor | None = None


class Zipformer(nn.Module):
    """See the module's docstring. Initialised as PyTorch does, but for small last maps of all parts (see activations.scale_down)."""

    def __init__(self, config: ZipformerConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = ConvolutionalSubsampling(config.features, config.dims[0], config.compute_padding)
        self.stacks = nn.ModuleList(Stack(config, number) for number in range(len(config.layers)))
        self.downsample = Downsampling(config.output_downsampling, config.compute_padding)
        self._count = BatchCount()

    @property
    def dim(self) -> int:
        """Width of what comes out."""
        return self.config.dim

    @property
    def batch_count(self) -> float:
        """Batches of 600 seconds that training has seen so far, which schedules follow."""
        return self._count.value

    @batch_count.setter
    def batch_count(self, count: float) -> None:
        self._count.value = count

    def forward(self, features: Tensor, lengths: Tensor, chunk_size: int | None = None, left_context: int | None = None) -> ZipformerOutput:
        """Encode a batch.

        Args:
            features: log filter banks (batch, frames, bands) at 100 Hz.
            lengths: valid frames of each clip, (batch,).
            chunk_size: frames at 50 Hz that a causal model sees at once; -1 for all, None for a drawn one in training and all else.
            left_context: frames at 50 Hz before a chunk, rounded down to chunks but at least one; -1 for all; None likewise.

        Raises:
            ValueError: chunks for a model that is not causal, or that cannot be divided; fewer than 9 frames.
        """
        batches = self._batches()
        chunk, left = self._chunks(chunk_size, left_context)
        stacks, found = self._run(features, lengths, chunk, left, len(self.stacks))
        lengths = found.pop()
        frames = self.joined([stack[0] for stack in stacks])
        frames = self.downsample(frames, None if whole(lengths, frames.shape[1]) else lengths.to(frames.device))
        penalty = None
        if batches is not None:
            penalty = torch.stack([features.new_zeros(()), *(part for stack in stacks for part in stack[2])]).sum()
        return ZipformerOutput(
            frames, downsampled(lengths, self.config.output_downsampling), [stack[1] for stack in stacks], found, penalty
        )

    def hidden_states(self, features: Tensor, lengths: Tensor) -> tuple[list[Tensor], Tensor]:
        """What each stack puts out at 50 Hz, widened by zeros and brought to 25 Hz as the output is, and the output: (batch, frames, dim)
        each, and valid frames (batch,)."""
        stacks, found = self._run(features, lengths, -1, -1, len(self.stacks))
        lengths = found.pop()
        outputs = [stack[0] for stack in stacks]
        states = [*(widened(output, self.dim) for output in outputs), self.joined(outputs)]
        valid = None if whole(lengths, states[0].shape[1]) else lengths.to(features.device)
        return [self.downsample(state, valid) for state in states], downsampled(lengths, self.config.output_downsampling)

    def first_stacks(
        self, features: Tensor, lengths: Tensor, count: int, chunk_size: int | None = None, left_context: int | None = None
    ) -> tuple[list[list[Tensor]], list[Tensor]]:
        """The first so many stacks alone, for heads that read no more: ``stacks`` and ``stack_lengths`` of ZipformerOutput."""
        chunk, left = self._chunks(chunk_size, left_context)
        stacks, found = self._run(features, lengths, chunk, left, count)
        return [stack[1] for stack in stacks], found[:-1]

    def _run(
        self, features: Tensor, lengths: Tensor, chunk: int, left: int, count: int
    ) -> tuple[list[tuple[Tensor, list[Tensor], list[Tensor]]], list[Tensor]]:
        """What stacks, their layers and their penalties are; lengths at the rates of the stacks, and at last those at 50 Hz."""
        batches = self._batches()
        x, lengths = self.embed(features, lengths, batches)
        masks = self._channel_masks(x) if batches is not None else [None] * len(self.stacks)
        results = []
        for stack, mask in zip(self.stacks[:count], masks, strict=False):
            assert isinstance(stack, Stack)
            x, penalties = widened(x, stack.dim), list[Tensor]()
            x, layers = stack(x, lengths, chunk, left, mask, batches, penalties)
            results.append((x, layers, penalties))
        return results, [*(downsampled(lengths, factor) for factor in self.config.downsampling[:count]), lengths]

    def joined(self, outputs: list[Tensor]) -> Tensor:
        """Each channel from the last stack that has it: (batch, frames, width) each -> (batch, frames, dim)."""
        pieces, width = [outputs[-1]], outputs[-1].shape[-1]
        for output in reversed(outputs[:-1]):
            if output.shape[-1] > width:
                pieces.append(output[..., width:])
                width = output.shape[-1]
        return torch.cat(pieces, -1) if len(pieces) > 1 else pieces[0]

    def _batches(self) -> float | None:
        """The count that schedules follow; None in evaluation."""
        return self._count.value if self.training else None

    def _chunks(self, chunk_size: int | None, left_context: int | None) -> tuple[int, int]:
        """Frames of a chunk at 50 Hz, and chunks before it; -1 for all."""
        config = self.config
        if not config.causal:
            if chunk_size not in (None, -1) or left_context not in (None, -1):
                raise ValueError(f"chunk_size: {chunk_size}, left_context: {left_context}, but the model is not causal; leave them out.")
            return -1, -1
        if chunk_size is None:
            chunk_size = drawn(config.chunk_sizes) if self.training else -1
        if left_context is None:
            left_context = drawn(config.left_context) if self.training and chunk_size > 0 else -1
        config.check_chunk(chunk_size)
        return chunk_size, chunks_before(chunk_size, left_context)

    def _channel_masks(self, x: Tensor) -> list[Tensor | None]:
        """For every stack factors (batch, 1, dim): of some clips the channels behind the unmasked ones are zero, of others half of them."""
        config = self.config
        kept = torch.rand(2, len(x), 1, 1, device=x.device) > HIDDEN_CLIPS
        all_kept, half_kept = kept[0], kept[0] & kept[1]
        masks: list[Tensor | None] = []
        for dim, unmasked in zip(config.dims, config.unmasked_dims, strict=True):
            middle = unmasked + (dim - unmasked) // 2
            shown = x.new_ones(len(x), 1, unmasked)
            near = all_kept.to(x.dtype).expand(-1, -1, middle - unmasked)
            masks.append(torch.cat([shown, near, half_kept.to(x.dtype).expand(-1, -1, dim - middle)], -1) if dim > unmasked else None)
        return masks


def widened(x: Tensor, dim: int) -> Tensor:
    """The first channels, or all of them and zeros: (..., width) -> (..., dim)."""
    return x[..., :dim] if x.shape[-1] >= dim else F.pad(x, (0, dim - x.shape[-1]))


def drawn(choices: tuple[int, ...]) -> int:
    """One of these, from the global generator of the CPU."""
    return choices[int(torch.randint(len(choices), ()))]


def chunks_before(chunk_size: int, left_context: int) -> int:
    """Chunks that frames of a left context make, at least one; -1 for all."""
    return -1 if chunk_size < 0 or left_context < 0 else max(1, left_context // chunk_size)
