"""BEATs, fine-tuned to tag sound (Chen et al., arXiv 2212.09058), as MT2KD's teacher of sound.

What is unusual here:
- Patches of 16 frames by 16 bands are the tokens, eight to every 160 ms, from low to high and then on in time.
- Layers are post-norm; residuals are multiplied by (2 x layers)^(1/4) (DeepNorm).
- Relative positions as in WavLM, but their gate sees projected queries, where WavLM's sees the layer's input.
- Of padding a patch is taken to hold the share of its place in the sequence, as officially, not of its place in time.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from avtlm.nn.attention import attend, padding_mask
from avtlm.nn.feed_forward import ACTIVATIONS, FeedForward, GatedFeedForward
from avtlm.nn.positions import PositionalConvolution, RelativePositions
from avtlm.nn.transformer import Attention

GATED = "glu"


@dataclass(frozen=True)
class BeatsConfig:
    """Sizes; the defaults are those of BEATs_iter3+ fine-tuned on AudioSet.

    Attributes:
        patch: frames, and bands, of a patch.
        embedding_dim: of a patch before it is projected to ``dim``.
        position_kernel, position_groups: of the positional convolution.
        relative_buckets, relative_distance: see RelativePositions.
        tags: classes.
        patch_bias: patches have one.
        deep_norm: residuals are scaled.
        norm_first: norms stand before the parts of a layer, and one behind all layers; not with deep_norm.
        relative: attention knows relative positions. gated: by as much as a gate of each query says.
        activation: of the feed-forward parts; ``glu`` gates them (GatedFeedForward).
    """

    dim: int = 768
    layers: int = 12
    heads: int = 12
    feed_forward_dim: int = 3072
    patch: int = 16
    embedding_dim: int = 512
    position_kernel: int = 128
    position_groups: int = 16
    relative_buckets: int = 320
    relative_distance: int = 800
    tags: int = 527
    patch_bias: bool = False
    deep_norm: bool = True
    norm_first: bool = False
    relative: bool = True
    gated: bool = True
    activation: str = "gelu"

    def __post_init__(self) -> None:
        if self.norm_first and self.deep_norm:
            raise ValueError("norm_first, deep_norm: a model has one of them, or none.")
        if self.activation not in (*ACTIVATIONS, GATED):
            raise ValueError(f"activation: {self.activation!r}; give one of {', '.join((*ACTIVATIONS, GATED))}.")


class BeatsLayer(nn.Module):
    """Self-attention and feed-forward, normed behind scaled residuals, or before them."""

    def __init__(self, config: BeatsConfig) -> None:
        super().__init__()
        self.norm_first = config.norm_first
        self.scale = (2.0 * config.layers) ** 0.25 if config.deep_norm else 1.0
        self.self_attention = Attention(config.dim, config.heads, gated=config.gated)
        self.self_attention_norm = nn.LayerNorm(config.dim)
        sizes = (config.dim, config.feed_forward_dim)
        self.feed_forward = GatedFeedForward(*sizes, 0.0) if config.activation == GATED else FeedForward(*sizes, config.activation, 0.0)
        self.feed_forward_norm = nn.LayerNorm(config.dim)

    def forward(self, x: Tensor, lengths: Tensor, bias: Tensor | None) -> Tensor:
        """(batch, patches, dim) of which so many are valid, with the bias of their distances (heads, patches, patches) -> the same."""
        if self.norm_first:
            x = x + self._attend(self.self_attention_norm(x), lengths, bias)
            return x + self.feed_forward(self.feed_forward_norm(x))
        x = self.self_attention_norm(x * self.scale + self._attend(x, lengths, bias))
        out: Tensor = self.feed_forward_norm(x * self.scale + self.feed_forward(x))
        return out

    def _attend(self, x: Tensor, lengths: Tensor, bias: Tensor | None) -> Tensor:
        attention = self.self_attention
        query, key, value = (attention.split(project(x)) for project in (attention.query, attention.key, attention.value))
        gate = None if bias is None or attention.gate is None else attention.gate(query)
        seen = attend(query, key, value, lengths=lengths, bias=None if bias is None else bias[None], bias_scale=gate)
        return attention.output(seen.flatten(-2))


class Beats(nn.Module):
    """Features at 100 Hz to logits of classes."""

    def __init__(self, config: BeatsConfig) -> None:
        super().__init__()
        self.config = config
        self.patches = nn.Conv2d(1, config.embedding_dim, config.patch, config.patch, bias=config.patch_bias)
        self.patch_norm = nn.LayerNorm(config.embedding_dim)
        self.project = nn.Linear(config.embedding_dim, config.dim) if config.embedding_dim != config.dim else nn.Identity()
        self.positions = PositionalConvolution(config.dim, config.position_kernel, config.position_groups)
        self.norm = nn.LayerNorm(config.dim)
        self.relative = RelativePositions(config.heads, config.relative_buckets, config.relative_distance) if config.relative else None
        self.layers = nn.ModuleList(BeatsLayer(config) for _ in range(config.layers))
        self.predictor = nn.Linear(config.dim, config.tags)

    def forward(self, features: Tensor, lengths: Tensor, kept: list[Tensor] | None = None) -> Tensor:
        """Logits of clips (batch, tags): the mean over their patches.

        Args:
            features: (batch, frames, bands).
            lengths: valid frames, (batch,).
            kept: is appended what each layer puts out, (batch, patches, dim).

        Raises:
            ValueError: less than one patch.
        """
        if features.shape[1] < self.config.patch:
            raise ValueError(f"BEATs: {features.shape[1]} frames are less than one patch of {self.config.patch}; leave the clip out.")
        x = self.patches(features[:, None])  # (batch, width, times, heights)
        x = self.project(self.patch_norm(x.flatten(2).transpose(1, 2)))  # (batch, patches, dim)
        valid = held(lengths, features.shape[1], x.shape[1])
        padding = padding_mask(valid, x.shape[1])
        x = x.masked_fill(padding[..., None], 0.0)
        x = x + self.positions(x)
        x = x if self.config.norm_first else self.norm(x)
        bias = None if self.relative is None else self.relative(x.shape[1])
        for layer in self.layers:
            x = layer(x, valid, bias)
            if kept is not None:
                kept.append(x)
        x = self.norm(x) if self.config.norm_first else x
        logits: Tensor = self.predictor(x).masked_fill(padding[..., None], 0.0)
        return logits.sum(1) / valid.clamp(min=1)[:, None]


def held(lengths: Tensor, steps: int, places: int) -> Tensor:
    """How many of ``places`` hold something, where ``lengths`` (batch,) of ``steps`` do: every place stands for as many steps, whole ones,
    and the rest at the end is not looked at (``forward_padding_mask``)."""
    return torch.div(lengths + steps // places - 1, steps // places, rounding_mode="floor").clamp(max=places)
