"""Useful operations of a training step: multiplications and additions of its matrix products and convolutions, over true frames alone.

What is unusual here:
- They are counted where they happen, in hooks on the model's layers: a layer that is dropped, lips that modality dropout hides and frames
  that are not predicted cost nothing, a teacher costs one pass, frozen layers no gradients of their own.
- Padding counts for nothing, whoever computes it: what a device achieves is not raised by wasting it. Recomputed layers count once.
- They are the operations of the definition, whatever computes them (positional convolutions by Fourier transforms count as convolutions).
- A layer of the encoder is counted as a whole, since it may be compiled. Lengths that are on a GPU are summed there, so that nothing waits.

Left out, since they are below a hundredth: norms, activations, softmax, cosines with negatives, the optimiser. Zero frames between clips in
the lips' stem are counted. Attention of decoders takes mean shares of padding.
"""

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from avtlm.data.batching import Batch
from avtlm.frontends.lips import LipEncoder
from avtlm.frontends.text import PhoneEncoder
from avtlm.nn.feed_forward import ExpertFeedForward
from avtlm.nn.positions import PositionalConvolution, PositionGate, StackedPositionalConvolution
from avtlm.nn.quantize import GumbelQuantizer
from avtlm.nn.transformer import Attention, DecoderLayer, DecoderStack, EncoderLayer
from avtlm.nn.zipformer.layer import View, ZipformerLayer
from avtlm.objectives.masked_prediction import UnitPredictor

Amount = float | Tensor
LEAVES = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass
class _Shares:
    """What is true of the batch that is computed: its rows, and the shares of their places that hold something.

    ``sums`` remembers sums over lengths; it holds the lengths as well, so that none takes the place of another in memory.
    """

    rows: int
    frames: float
    text: float
    tokens: float
    sums: dict[int, tuple[Tensor, Amount, Amount]] = field(default_factory=dict)


class UsefulWork:
    """Counts the useful operations of a model's steps.

    Args:
        model: gets hooks; they do nothing outside of `counting`.
    """

    def __init__(self, model: nn.Module) -> None:
        self._batch: _Shares | None = None
        self._known = 0.0
        self._on_device: Tensor | None = None
        self._handles: list[RemovableHandle] = []
        self._watch(model, "frames")

    def _watch(self, module: nn.Module, padding: str, of_known_layer: bool = False) -> None:
        """Hook a module and what is in it; ``padding`` names the lengths that its rows are padded by ("none" if they are not).

        ``of_known_layer``: whether it is in a layer that counts its attention itself.
        """
        hook: Callable[..., None] | None = None
        inside = True
        if isinstance(module, LEAVES):
            hook = self._leaf(module, padding)
        elif isinstance(module, EncoderLayer):
            hook, inside = self._encoder_layer(module), False
        elif isinstance(module, PositionalConvolution | StackedPositionalConvolution):
            hook, inside = self._positions(module), False
        elif isinstance(module, DecoderLayer):
            hook = self._decoder_layer
        elif isinstance(getattr(module, "embedding", None), nn.Embedding) and getattr(module, "output", module) is None:
            hook = self._tied_output
        elif isinstance(module, UnitPredictor):
            hook = self._unit_predictor
        elif isinstance(module, GumbelQuantizer):
            hook = self._quantizer
        elif isinstance(module, ZipformerLayer):
            hook = self._zipformer_layer
        if hook is not None:
            self._handles.append(module.register_forward_hook(hook))
        if isinstance(module, LipEncoder):
            padding = "none"
        elif isinstance(module, PhoneEncoder):
            padding = "text"
        elif isinstance(module, DecoderStack):
            padding = "tokens"
        elif isinstance(module, Attention) and not of_known_layer:
            self._handles.append(module.output.register_forward_hook(self._own_attention))
        for name, child in module.named_children() if inside else ():
            # Keys and values of what the encoder said are projected frame by frame.
            frames = isinstance(module, DecoderLayer) and name == "cross_attention"
            for part in (child.key, child.value) if frames else ():
                self._watch(part, "frames")  # type: ignore[arg-type]
            for part in (child.query, child.output) if frames else (child,):
                self._watch(part, padding, isinstance(module, DecoderLayer))  # type: ignore[arg-type]

    def remove(self) -> None:
        """Take the hooks off again."""
        for handle in self._handles:
            handle.remove()

    @contextlib.contextmanager
    def counting(self, batch: Batch) -> Iterator[None]:
        """Count what the model computes while the block runs, with its backward pass where gradients are enabled.

        Args:
            batch: what it computes; with lengths on the CPU, which are read.
        """
        inputs = [(part, lengths) for part, lengths in ((batch.audio, batch.audio_lengths), (batch.video, batch.video_lengths))]
        text = _share(batch.text, batch.text_lengths)
        tokens, ends = batch.targets.get("tokens"), batch.target_lengths.get("tokens")
        if batch.text_units is not None:  # which are read in place of frames, while the text is written
            inputs.append((batch.text_units, batch.text_units_lengths))
            tokens, ends = batch.text, batch.text_lengths
        # Every transcript has its end behind it.
        said = 1.0 if tokens is None or ends is None else float((ends + 1).sum()) / (len(batch) * (tokens.shape[1] + 1))
        frames = max(
            (_share(part, lengths) for part, lengths in inputs if part is not None), default=text if batch.text is not None else said
        )
        self._batch = _Shares(len(batch), frames, text, said)
        try:
            yield
        finally:
            self._batch = None

    def take(self) -> Amount:
        """The operations since the last call; a tensor if some of them are known on a device only."""
        total: Amount = self._known if self._on_device is None else self._on_device + self._known
        self._known, self._on_device = 0.0, None
        return total

    def _add(self, amount: Amount) -> None:
        if isinstance(amount, Tensor):
            self._on_device = amount if self._on_device is None else self._on_device + amount
        else:
            self._known += amount

    # Layers --------------------------------------------------------------------------------------------------------------------------

    def _leaf(self, module: nn.Module, padding: str) -> Callable[..., None]:
        cost, outputs = _cost_of_position(module)

        def count(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
            if self._batch is None:
                return
            padded = padding != "none" and output.dim() >= 3 and output.shape[0] == self._batch.rows > 1
            share: float = getattr(self._batch, padding) if padded else 1.0
            self._add(cost * (output.numel() / outputs) * share * _passes(inputs[0], module.weight))  # type: ignore[arg-type]

        return count

    def _encoder_layer(self, layer: EncoderLayer) -> Callable[..., None]:
        frame = _cost_of_frame(layer)
        dim = layer.self_attention.query.in_features
        weights = [parameter for parameter in layer.parameters() if parameter.dim() > 1]

        def count(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
            if self._batch is None:
                return
            x, lengths = inputs[0], inputs[1] if len(inputs) > 1 else None
            frames, squares = self._sums(x, lengths)
            distances = inputs[5] if len(inputs) > 5 else None
            more = 0.0 if distances is None else 2.0 * len(distances) * dim
            self._add(((frame + more) * frames + 4.0 * dim * squares) * _passes(x, *weights))

        return count

    def _sums(self, x: Tensor, lengths: Tensor | None) -> tuple[Amount, Amount]:
        """Frames of a batch, padded (rows, frames, dim) or packed (frames of all, dim), and the sum of their squares over rows."""
        assert self._batch is not None
        if lengths is None:
            return float(x.shape[0] * x.shape[1]), float(x.shape[0] * x.shape[1] ** 2)
        if id(lengths) not in self._batch.sums:
            values = (lengths if x.dim() == 2 else lengths.clamp(max=x.shape[1])).float()
            found = (values.sum(), values.square().sum())
            sums: tuple[Amount, Amount] = (found[0].item(), found[1].item()) if lengths.device.type == "cpu" else found
            self._batch.sums[id(lengths)] = (lengths, *sums)
        return self._batch.sums[id(lengths)][1:]

    def _positions(self, module: PositionalConvolution | StackedPositionalConvolution) -> Callable[..., None]:
        convolutions = [part for part in module.modules() if isinstance(part, nn.Conv1d)]
        cost = sum(_cost_of_position(part)[0] for part in convolutions)
        weights = [parameter for part in convolutions for parameter in part.parameters()]

        def count(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
            if self._batch is None:
                return
            x, padding = inputs[0], inputs[1] if len(inputs) > 1 else None
            frames: Amount = float(x.shape[0] * x.shape[1])
            if padding is not None:
                there = (~padding).sum().float()
                frames = there.item() if padding.device.type == "cpu" else there
            self._add(cost * frames * _passes(x, *weights))

        return count

    def _zipformer_layer(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        """Attention alone; its linear maps and convolutions are counted where they happen."""
        if self._batch is not None:
            assert isinstance(module, ZipformerLayer)
            x, view = inputs
            assert isinstance(view, View)
            _, squares = self._sums(x, view.lengths)
            weights, values = module.attention_weights, module.attention1.value.out_features
            scores = weights.heads * (weights.query_dim + weights.position_dim)
            self._add(2.0 * (scores + 2 * values + module.nonlinear_attention.width) * squares * _passes(x, weights.project.weight))

    def _decoder_layer(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if self._batch is not None:
            x, memory, share = inputs[0], inputs[1], self._batch.tokens
            keys = x.shape[1] * share + memory.shape[1] * self._batch.frames
            self._add(4.0 * x.numel() * share * keys * _passes(x, x))

    def _own_attention(self, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Of a sequence on itself, whole and without other lengths than the batch's: language models."""
        if self._batch is not None:
            self._add(4.0 * output.numel() * self._batch.frames * output.shape[1] * self._batch.frames * _passes(output, output))

    def _tied_output(self, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        if self._batch is not None:
            weight: Tensor = module.embedding.weight  # type: ignore[union-attr, assignment]
            share = self._batch.tokens if isinstance(module, DecoderStack) else self._batch.frames
            self._add(2.0 * output.numel() * weight.shape[1] * share * _passes(weight, weight))

    def _unit_predictor(self, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        if self._batch is not None:
            units: Tensor = module.units  # type: ignore[assignment]
            self._add(2.0 * output.numel() * units.shape[1] * _passes(inputs[0], units))

    def _quantizer(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if self._batch is not None:
            assert isinstance(module, GumbelQuantizer)
            self._add(2.0 * output.vectors.numel() * module.config.entries * _passes(output.vectors, module.entries))


def _share(part: Tensor | None, lengths: Tensor | None) -> float:
    """The share of the places of (batch, length, ...) that are not padding."""
    return 1.0 if part is None or lengths is None or part.numel() == 0 else float(lengths.sum()) / (part.shape[0] * part.shape[1])


def _passes(x: Tensor, *weights: Tensor) -> float:
    """Passes of the forward one's size: gradients of the input and of the weights cost as much as it does."""
    if not torch.is_grad_enabled():
        return 1.0
    return 1.0 + x.requires_grad + any(weight.requires_grad for weight in weights)


def _cost_of_position(module: nn.Module) -> tuple[float, int]:
    """Operations for one place of the output, over all its channels, and how many channels there are."""
    if isinstance(module, nn.Linear):
        return 2.0 * module.in_features * module.out_features, module.out_features
    assert isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d)
    taps = math.prod(module.kernel_size) * (module.in_channels // module.groups)
    return 2.0 * taps * module.out_channels, module.out_channels


def _cost_of_frame(layer: EncoderLayer) -> float:
    """Operations of a layer's linear maps for one frame, which goes through one of its experts."""
    total = 0.0
    for name, module in layer.named_modules():
        if isinstance(module, nn.Linear):
            above = [layer.get_submodule(name[:end]) for end, letter in enumerate(name) if letter == "."]
            times = 1.0
            for part in above:
                if isinstance(part, ExpertFeedForward):
                    times /= len(part.experts)
                elif isinstance(part, PositionGate):
                    times *= layer.self_attention.heads
            total += times * _cost_of_position(module)[0]
    return total
