"""The Transformer encoder and decoder that every system shares.

What is unusual here:
- The encoder follows fairseq's wav2vec 2.0 one: a positional convolution is added to the input, layers are pre-norm (``norm_first``) or
  post-norm, and intermediate layers can be asked for. A pre-norm encoder ends in one more norm, which intermediate layers do not pass
  through.
- The decoder follows fairseq's: sinusoids from position 2, tied embeddings, no embedding scale by default. It works on whole sentences
  (training) or step by step with key/value caches (search); the memory's keys and values are projected once per utterance, whose
  hypotheses share them.
- Lengths, not masks, at the doors; a row of length 0 is allowed.
- The encoder packs a batch with enough padding on entry and unpacks it on exit (packing.py): no layer works on padding.

Over 400 lines, because encoder and decoder share their attention and its checks.

Papers: Vaswani et al. 2017; Baevski et al. 2020 (section 2); Shi et al. 2022, AV-HuBERT (section 3).
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avtlm.nn.adapters import LayerAdapter
from avtlm.nn.attention import attend, attention_weights, padding_mask
from avtlm.nn.cache import KeyValueCache
from avtlm.nn.dropout import Dropout
from avtlm.nn.feed_forward import EXPERTS, JOINT, Activation, ExpertFeedForward, FeedForward, Routing
from avtlm.nn.norm import LayerNorm
from avtlm.nn.packing import Packing, PackingMode, choose_packing
from avtlm.nn.positions import (
    KeyPositions,
    LearnedPositions,
    PositionalConvolution,
    PositionGate,
    PositionNorm,
    RelativePositions,
    SinusoidalPositions,
    StackedPositionalConvolution,
    convolve_packed,
    distance_bias,
)


@dataclass(frozen=True)
class EncoderConfig:
    """Sizes and regularisation of the encoder; the defaults are the base model of AV-HuBERT and VATLM.

    Attributes:
        position_blocks: more than 1 stacks positional convolutions as data2vec does (StackedPositionalConvolution).
        relative_buckets: adds WavLM's gated relative positions with so many buckets; 0 adds none.
        relative_distance: see RelativePositions.
        position_kernel: of the positional convolution; 0 for none, where positions are in the input already.
        key_distance: adds learned vectors of distances up to this one (KeyPositions) as SpeechT5 does, in pre-norm layers normed by each;
            0 adds none.
        compute_padding: let stacked positional convolutions see padding, and compute padded frames, as the official code does.
        packing: work on true frames alone: ``always``, ``never`` or, ``auto``, where it is faster and padding is not to be computed; what
            padded frames of the output hold (zeros, if packed) is the only difference.
        experts: kinds of input that have feed-forward parts of their own, of audio, video, text and joint (several of them at once, and
            what is not named); none are plain layers, as in every official model. See feed_forward.py.
        joint_layers: of the layers with experts, so many last ones have the joint expert alone, for every kind of input.
        position_norm: ``weight`` or ``batch`` for one positional convolution, see there; ``layer`` makes it a stack of one.
        position_activation: behind positional convolutions.
        adapter_dim: width of adapters behind pre-norm layers (adapters.py); 0 adds none.
        norm_epsilon: what is added to variances.
    """

    dim: int = 768
    layers: int = 12
    heads: int = 12
    feed_forward_dim: int = 3072
    activation: Activation = "gelu"
    norm_first: bool = True
    dropout: float = 0.1
    attention_dropout: float = 0.1
    activation_dropout: float = 0.0
    layer_drop: float = 0.05
    position_kernel: int = 128
    position_groups: int = 16
    position_blocks: int = 1
    relative_buckets: int = 0
    relative_distance: int = 800
    key_distance: int = 0
    compute_padding: bool = False
    packing: PackingMode = "auto"
    experts: tuple[str, ...] = ()
    joint_layers: int = 0
    position_norm: PositionNorm = "weight"
    position_activation: Activation = "gelu"
    adapter_dim: int = 0
    norm_epsilon: float = 1e-5

    def __post_init__(self) -> None:
        _check_heads(self.dim, self.heads)
        _check_probabilities(self, "dropout", "attention_dropout", "activation_dropout", "layer_drop")
        if self.experts and (not set(self.experts) <= set(EXPERTS) or JOINT not in self.experts):
            raise ValueError(f"experts: {', '.join(self.experts)}; choose among {', '.join(EXPERTS)}, and joint has to be among them.")
        if not 0 <= self.joint_layers <= (self.layers if self.experts else 0):
            raise ValueError(f"joint_layers: {self.joint_layers}; give 0, or with experts at most all {self.layers} layers.")
        if self.position_blocks < 1 or self.relative_buckets < 0 or self.adapter_dim < 0:
            raise ValueError(
                f"position_blocks: {self.position_blocks}, relative_buckets: {self.relative_buckets}, adapter_dim: {self.adapter_dim}; "
                "give at least 1, 0 and 0."
            )
        if self.position_kernel < 0 or self.key_distance < 0:
            raise ValueError(f"position_kernel: {self.position_kernel}, key_distance: {self.key_distance}; give 0 (none) or more.")
        if self.key_distance and (self.relative_buckets or self.packing == "always"):
            raise ValueError(f"key_distance: {self.key_distance} goes with relative_buckets 0 and packing auto or never.")
        if self.position_norm == "batch" and self.position_blocks > 1:
            raise ValueError(f"position_norm: batch for {self.position_blocks} position_blocks, which norm by layer; set weight.")
        if self.adapter_dim and not self.norm_first:
            raise ValueError(f"adapter_dim: {self.adapter_dim}; only pre-norm layers have adapters; set 0, or norm_first.")


@dataclass(frozen=True)
class DecoderConfig:
    """Sizes and regularisation of the decoder; the defaults are AV-HuBERT's and VATLM's base fine-tuning.

    ``max_positions`` bounds the length of the text: it is the size of a table of ``learned`` positions, and search stops there.
    ``key_distance`` is that of EncoderConfig, for self-attention (Speech2C's). ``embedding_norm`` norms what enters the layers.
    """

    dim: int = 768
    layers: int = 6
    heads: int = 4
    feed_forward_dim: int = 3072
    activation: Activation = "relu"
    norm_first: bool = True
    dropout: float = 0.1
    attention_dropout: float = 0.0
    activation_dropout: float = 0.1
    layer_drop: float = 0.0
    tie_embeddings: bool = True
    scale_embedding: bool = False
    positions: Literal["sinusoidal", "learned", "none"] = "sinusoidal"
    max_positions: int = 2048
    key_distance: int = 0
    embedding_norm: bool = False

    def __post_init__(self) -> None:
        _check_heads(self.dim, self.heads)
        _check_probabilities(self, "dropout", "attention_dropout", "activation_dropout", "layer_drop")
        if self.key_distance < 0:
            raise ValueError(f"key_distance: {self.key_distance}; give 0 (none) or more.")
        if self.max_positions < 2:
            raise ValueError(f"max_positions: {self.max_positions}; a text has at least one token and its end, so give at least 2.")


def _check_heads(dim: int, heads: int) -> None:
    if heads < 1 or dim % heads:
        raise ValueError(f"heads: {heads} does not divide dim {dim}; choose a divisor of dim.")


def _check_probabilities(config: object, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if not 0.0 <= value < 1.0:
            raise ValueError(f"{name}: {value} is not a probability; give a number from 0 up to, but not including, 1.")


class Attention(nn.Module):
    """Multi-head attention with separate projections, so that official checkpoints map key by key.

    Args:
        gated: see PositionGate.
        query_scale: multiplies queries, besides head_dim ** -0.5 (OFA's decoder).
        head_scales: multiply what each head puts out by a learned number, 1 at first (NormFormer, arXiv 2110.09456).
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        dropout: float = 0.0,
        memory_dim: int | None = None,
        gated: bool = False,
        query_scale: float = 1.0,
        head_scales: bool = False,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.query_scale = query_scale
        self.head_scale = nn.Parameter(torch.ones(heads)) if head_scales else None
        self.gate = PositionGate(heads, dim // heads) if gated else None
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(memory_dim or dim, dim)
        self.value = nn.Linear(memory_dim or dim, dim)
        self.output = nn.Linear(dim, dim)

    def split(self, x: Tensor) -> Tensor:
        """(..., dim) -> (..., heads, head_dim)."""
        return x.unflatten(-1, (self.heads, -1))

    def forward(
        self,
        x: Tensor,
        memory: Tensor | None = None,
        lengths: Tensor | None = None,
        bias: Tensor | None = None,
        causal: bool = False,
        distances: Tensor | None = None,
    ) -> Tensor:
        """x (batch, queries, dim) over itself or over memory (batch, keys, memory_dim) of the given lengths -> like x; x may be packed."""
        source = x if memory is None else memory
        scale = None if self.gate is None or bias is None else self.gate(self.split(x))
        return self.weigh(x, self.split(self.key(source)), self.split(self.value(source)), lengths, bias, causal, scale, distances)

    def weigh(
        self,
        x: Tensor,
        key: Tensor,
        value: Tensor,
        lengths: Tensor | None = None,
        bias: Tensor | None = None,
        causal: bool = False,
        bias_scale: Tensor | None = None,
        distances: Tensor | None = None,
    ) -> Tensor:
        """The same with keys and values (batch, keys, heads, head_dim) already projected; see attend. ``distances``: vectors of distances,
        see KeyPositions; x is not packed then."""
        query, dropout = self.split(self.query(x)), self.dropout if self.training else 0.0
        if self.query_scale != 1.0:
            query = query * self.query_scale
        if distances is not None:
            away = distance_bias(query, key.shape[1], distances)
            bias = away if bias is None else away + bias
        out = attend(query, key, value, lengths=lengths, bias=bias, bias_scale=bias_scale, causal=causal, dropout=dropout)
        if self.head_scale is not None:
            out = out * self.head_scale[:, None].to(out.dtype)
        return self.output(out.flatten(-2))


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward, each around a residual, normed before (``norm_first``) or after."""

    def __init__(self, config: EncoderConfig, experts: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.norm_first = config.norm_first
        self.self_attention = Attention(config.dim, config.heads, config.attention_dropout, gated=config.relative_buckets > 0)
        self.self_attention_norm = LayerNorm(config.dim, config.norm_epsilon)
        sizes = (config.dim, config.feed_forward_dim, config.activation, config.activation_dropout)
        self.feed_forward = ExpertFeedForward(experts, lambda: FeedForward(*sizes)) if experts else FeedForward(*sizes)
        self.feed_forward_norm = LayerNorm(config.dim, config.norm_epsilon)
        self.dropout = Dropout(config.dropout)
        self.adapter = LayerAdapter(config.dim, config.adapter_dim) if config.adapter_dim else None
        self.distance_norm = _distance_norm(config)

    def forward(
        self,
        x: Tensor,
        lengths: Tensor | None,
        bias: Tensor | None = None,
        kept: list[Tensor] | None = None,
        routing: Routing | None = None,
        distances: Tensor | None = None,
    ) -> Tensor:
        """(batch, frames, dim), or packed (frames of all, dim) with frames routed one by one -> the same.

        What the feed-forward part puts out, before dropout and residual, is appended to ``kept``. ``distances``: see KeyPositions.
        """
        if distances is not None and self.distance_norm is not None:
            distances = self.distance_norm(distances)
        chosen = (routing or Routing(),) if isinstance(self.feed_forward, ExpertFeedForward) else ()
        if self.norm_first:
            x = x + self.dropout(self.self_attention(self.self_attention_norm(x), lengths=lengths, bias=bias, distances=distances))
            y = self.feed_forward(self.feed_forward_norm(x), *chosen)
            out = x + self.dropout(y)
            if self.adapter is not None:
                out = out + self.adapter(out)
        else:
            x = self.self_attention_norm(x + self.dropout(self.self_attention(x, lengths=lengths, bias=bias, distances=distances)))
            y = self.feed_forward(x, *chosen)
            out = self.feed_forward_norm(x + self.dropout(y))
        if kept is not None:
            kept.append(y)
        return out


class Encoder(nn.Module):
    """Positional convolution, then a stack of layers.

    Initialisation (BERT's, as in HuBERT): Linear weights N(0, 0.02), biases 0; norms 1 and 0; positional convolution see positions.py.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.positions: PositionalConvolution | StackedPositionalConvolution | None = None
        sizes, activation = (config.position_kernel, config.position_groups), config.position_activation
        if config.position_kernel == 0:
            pass
        elif config.position_blocks > 1 or config.position_norm == "layer":
            self.positions = StackedPositionalConvolution(config.dim, *sizes, config.position_blocks, config.compute_padding, activation)
        else:
            self.positions = PositionalConvolution(config.dim, *sizes, activation, config.position_norm, config.compute_padding)
        own = config.layers - config.joint_layers
        experts = (
            [config.experts if index < own else (JOINT,) for index in range(config.layers)] if config.experts else [()] * config.layers
        )
        self.layers = nn.ModuleList(EncoderLayer(config, names) for names in experts)
        self.norm = LayerNorm(config.dim, config.norm_epsilon)
        self.dropout = Dropout(config.dropout)
        self.layers.apply(initialise_like_bert)
        self.relative: RelativePositions | None = None
        if config.relative_buckets:
            self.relative = RelativePositions(config.heads, config.relative_buckets, config.relative_distance)
            self.relative.apply(initialise_like_bert)
        self.distances = KeyPositions(config.dim // config.heads, config.key_distance) if config.key_distance else None

    def forward(
        self,
        x: Tensor,
        lengths: Tensor | None,
        output_layer: int | None = None,
        routing: Routing | None = None,
        first_layer: int = 0,
        bias: Tensor | None = None,
    ) -> Tensor:
        """Encode (batch, frames, dim) of the given lengths.

        Args:
            bias: what attention of all layers adds besides, such as minus infinity at frames that it passes over (see attend); encoders
                with relative_buckets have their own.
            first_layer: so many layers are passed by; what enters behind them has its positions already, and sees no dropout before it.
            routing: which experts the rows go through; the joint ones by default. Plain layers don't ask.
            output_layer: stop after this layer, counted from 1, and return what it puts out, without the final norm of a pre-norm encoder
                (also for the last layer: this is what clustering uses).

        Raises:
            ValueError: output_layer is not a layer of this encoder.
        """
        states, packing = self._run(x, lengths, output_layer, None, routing, first_layer, bias, last_alone=True)
        return states[-1] if packing is None else packing.unpack(states[-1])

    def hidden_states(
        self,
        x: Tensor,
        lengths: Tensor | None,
        output_layer: int | None = None,
        kept: list[Tensor] | None = None,
        routing: Routing | None = None,
        first_layer: int = 0,
        bias: Tensor | None = None,
    ) -> list[Tensor]:
        """The input of the first layer, the output of every layer, and, for the whole pre-norm stack, the normed output in the last
        place.

        Args:
            kept: is appended what the feed-forward part of every layer puts out, before dropout and residual (data2vec's targets).
            first_layer, bias: see forward.
        """
        outputs: list[Tensor] | None = None if kept is None else []
        states, packing = self._run(x, lengths, output_layer, outputs, routing, first_layer, bias)
        if packing is not None:
            states = [packing.unpack(state) for state in states]
        if kept is not None and outputs is not None:
            kept += outputs if packing is None else [packing.unpack(output) for output in outputs]
        return states

    def _run(
        self,
        x: Tensor,
        lengths: Tensor | None,
        output_layer: int | None,
        kept: list[Tensor] | None,
        routing: Routing | None,
        first_layer: int,
        bias: Tensor | None,
        last_alone: bool = False,
    ) -> tuple[list[Tensor], Packing | None]:
        """The states, or only the last one so that no memory is held for the others, and, if they are packed, how."""
        config = self.config
        if output_layer is not None and not 1 <= output_layer <= len(self.layers):
            raise ValueError(f"output_layer: {output_layer} is not between 1 and {len(self.layers)}, the number of encoder layers.")
        assert bias is None or self.relative is None
        dense = config.compute_padding or config.key_distance > 0 or bias is not None
        mode: PackingMode = "never" if config.packing == "auto" and dense else config.packing
        packing = choose_packing(mode, lengths, x, biased=self.relative is not None)
        bias = bias if self.relative is None else self.relative(x.shape[1])
        distances = None if self.distances is None else self.distances.table.weight
        if packing is not None:
            x = packing.pack(x)
            if self.positions is not None:
                x = x + convolve_packed(self.positions, x, packing)
            lengths, routing = packing.lengths, None if routing is None else routing.of_frames(packing.sequence)
        elif self.positions is not None:
            padding = None if lengths is None else padding_mask(lengths, x.shape[1])
            if padding is not None:
                x = x.masked_fill(padding[..., None], 0.0)
            x = x + self.positions(x, padding)
        if not config.norm_first:
            x = self.norm(x)
        x = x if first_layer else self.dropout(x)
        states = [x]
        for layer in self.layers[first_layer:output_layer]:
            # Dropping whole layers costs nothing to draw: one number per layer, from the global generator that dropout uses too.
            if not (self.training and config.layer_drop > 0 and torch.rand(()) < config.layer_drop):
                x = layer(x, lengths, bias, kept, routing, distances)
            states = [x] if last_alone else [*states, x]
        if output_layer is None and config.norm_first:
            states[-1] = self.norm(x)
        return states, packing


def _distance_norm(config: EncoderConfig | DecoderConfig) -> LayerNorm | None:
    """The norm of the vectors of distances that every pre-norm layer has (post-norm ones of official models have one without use)."""
    return LayerNorm(config.dim // config.heads) if config.key_distance and config.norm_first else None


def initialise_like_bert(module: nn.Module) -> None:
    """Linear and embedding weights N(0, 0.02), biases 0 (fairseq's ``init_bert_params``)."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, 0.0, 0.02)


@dataclass
class Memory:
    """What the encoder said, ready to be attended to: per decoder layer the projected keys and values (rows, keys, heads, head_dim)."""

    keys: list[Tensor]
    values: list[Tensor]
    lengths: Tensor

    def select(self, rows: Tensor) -> "Memory":
        """Rows in another order or several times (hypotheses of one utterance)."""
        swapped = self.keys[0].transpose(1, 2).is_contiguous()  # heads first, which indexing would not keep

        def select(part: Tensor) -> Tensor:
            return part.transpose(1, 2)[rows].transpose(1, 2) if swapped else part[rows]

        return Memory([select(key) for key in self.keys], [select(value) for value in self.values], self.lengths[rows])

    def heads_first(self) -> "Memory":
        """The same, but all keys of a head lie side by side: a single query for each row reads them twice as fast, several do not."""
        keys, values = ([part.transpose(1, 2).contiguous().transpose(1, 2) for part in parts] for parts in (self.keys, self.values))
        return Memory(keys, values, self.lengths)


class DecoderLayer(nn.Module):
    def __init__(self, config: DecoderConfig, memory_dim: int) -> None:
        super().__init__()
        self.norm_first = config.norm_first
        self.self_attention = Attention(config.dim, config.heads, config.attention_dropout)
        self.self_attention_norm = LayerNorm(config.dim)
        self.cross_attention = Attention(config.dim, config.heads, config.attention_dropout, memory_dim)
        self.cross_attention_norm = LayerNorm(config.dim)
        self.feed_forward = FeedForward(config.dim, config.feed_forward_dim, config.activation, config.activation_dropout)
        self.feed_forward_norm = LayerNorm(config.dim)
        self.dropout = Dropout(config.dropout)
        self.distance_norm = _distance_norm(config)

    def forward(
        self,
        x: Tensor,
        memory_key: Tensor,
        memory_value: Tensor,
        memory_lengths: Tensor,
        extend: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None,
        lengths: Tensor | None = None,
        distances: Tensor | None = None,
        weights: list[Tensor] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """x (rows, new tokens, dim) -> (x, keys, values); ``extend`` puts the cached keys and values before the new ones.

        Where rows are a multiple of the memory's, neighbouring rows share one of it: to the attention they are queries of one utterance.
        ``lengths``, ``weights``: see DecoderStack.decode; ``distances``: see KeyPositions.
        """
        if distances is not None and self.distance_norm is not None:
            distances = self.distance_norm(distances)
        before = self.norm_first
        y = self.self_attention_norm(x) if before else x
        key, value = (self.self_attention.split(part(y)) for part in (self.self_attention.key, self.self_attention.value))
        if extend is not None:
            key, value = extend(key, value)
        x = x + self.dropout(self.self_attention.weigh(y, key, value, lengths, causal=bool(x.shape[1] > 1), distances=distances))
        x = x if before else self.self_attention_norm(x)
        y = self.cross_attention_norm(x) if before else x
        queries = y.flatten(0, 1).unflatten(0, (memory_key.shape[0], -1))  # not at once: a graph would know one hypothesis from several
        if weights is not None:
            look = self.cross_attention.split(self.cross_attention.query(queries))
            weights.append(attention_weights(look, memory_key, memory_lengths))
        x = x + self.dropout(self.cross_attention.weigh(queries, memory_key, memory_value, memory_lengths).flatten(0, 1).view(x.shape))
        x = x if before else self.cross_attention_norm(x)
        x = x + self.dropout(self.feed_forward(self.feed_forward_norm(x) if before else x))
        return x if before else self.feed_forward_norm(x), key, value


class DecoderStack(nn.Module):
    """Layers that attend to themselves and to the encoder's output, vectors in and vectors out.

    Initialisation (fairseq's Transformer): projections Xavier uniform, biases 0; vectors of distances see positions.py.
    """

    def __init__(self, config: DecoderConfig, memory_dim: int | None = None) -> None:
        super().__init__()
        self._build(config, memory_dim)
        _initialise_projections(self)

    def _build(self, config: DecoderConfig, memory_dim: int | None) -> None:
        self.config = config
        self.embedding_norm = LayerNorm(config.dim) if config.embedding_norm else nn.Identity()
        self.layers = nn.ModuleList(DecoderLayer(config, memory_dim or config.dim) for _ in range(config.layers))
        self.norm = LayerNorm(config.dim) if config.norm_first else nn.Identity()
        self.distances = KeyPositions(config.dim // config.heads, config.key_distance) if config.key_distance else None
        self.dropout = Dropout(config.dropout)

    def project_memory(self, encoded: Tensor, lengths: Tensor) -> Memory:
        """Keys and values of the encoder's output (rows, keys, memory_dim) for every layer, computed once per utterance."""
        attentions = [layer.cross_attention for layer in self.layers]
        assert all(isinstance(a, Attention) for a in attentions)
        return Memory([a.split(a.key(encoded)) for a in attentions], [a.split(a.value(encoded)) for a in attentions], lengths)  # type: ignore[union-attr, operator]

    def initial_state(self, batch: int) -> KeyValueCache:
        """An empty cache for ``batch`` rows."""
        del batch  # rows are counted by the first step's tokens
        return KeyValueCache(len(self.layers))

    def decode(
        self,
        x: Tensor,
        memory: Memory,
        cache: KeyValueCache | None = None,
        lengths: Tensor | None = None,
        weights: list[Tensor] | None = None,
        kept: list[Tensor] | None = None,
    ) -> Tensor:
        """Run the layers over vectors (rows, new tokens, dim) -> the same.

        Args:
            cache: of the tokens before these; it grows.
            lengths: valid tokens of each row (without a cache). What stands behind them is not attended to by anything; it matters only to
                who looks at padding, since every token sees those before it alone.
            weights: is appended where each layer looks in the memory, (rows, heads, new tokens, keys).
            kept: is appended what each layer puts out.
        """
        distances = None if self.distances is None else self.distances.table.weight
        for index, layer in enumerate(self.layers):
            if self.training and self.config.layer_drop > 0 and torch.rand(()) < self.config.layer_drop:
                continue
            extend = None if cache is None else functools.partial(cache.append, index)
            x, _, _ = layer(x, memory.keys[index], memory.values[index], memory.lengths, extend, lengths, distances, weights)
            if kept is not None:
                kept.append(x)
        if cache is not None:
            cache.advance(x.shape[1])
        out: Tensor = self.norm(x)
        return out


def _initialise_projections(module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


class Decoder(DecoderStack):
    """Tokens to logits over the vocabulary, attending to the encoder's output.

    Initialisation: embeddings N(0, dim^-0.5) with a zero padding row, the rest see DecoderStack.
    """

    def __init__(self, config: DecoderConfig, vocabulary: int, memory_dim: int | None = None, padding_id: int = 1) -> None:
        nn.Module.__init__(self)  # the embedding comes first
        self.embedding = nn.Embedding(vocabulary, config.dim, padding_idx=padding_id)
        self.padding_id = padding_id
        self.positions: SinusoidalPositions | LearnedPositions | None = None
        if config.positions == "sinusoidal":
            self.positions = SinusoidalPositions(config.dim, offset=padding_id + 1)
        elif config.positions == "learned":
            self.positions = LearnedPositions(config.dim, config.max_positions, offset=padding_id + 1)
        self._build(config, memory_dim)
        self.output = None if config.tie_embeddings else nn.Linear(config.dim, vocabulary, bias=False)
        _initialise_projections(self)
        nn.init.normal_(self.embedding.weight, 0.0, config.dim**-0.5)
        nn.init.zeros_(self.embedding.weight[padding_id])

    def step(self, tokens: Tensor, memory: Memory, state: KeyValueCache) -> tuple[Tensor, KeyValueCache]:
        """One token for every row: tokens (rows,) -> logits (rows, vocabulary) of the next one, and the grown cache.

        Rows may be a multiple of the memory's: first all hypotheses of the first utterance, then those of the second, and so on.
        """
        return self.predict(self.decode(self.embed(tokens[:, None], state.length), memory, state))[:, -1], state

    def forward(self, tokens: Tensor, encoded: Tensor, lengths: Tensor) -> Tensor:
        """Teacher forcing: tokens (batch, length), starting with the start symbol -> logits (batch, length, vocabulary)."""
        return self.predict(self.decode(self.embed(tokens), self.project_memory(encoded, lengths)))

    def place(self, tokens: Tensor, first: int = 0) -> Tensor:
        """Vectors of the positions ``first``, ``first`` + 1, ... of tokens (rows, length) -> (rows, length, dim); zeros at padding."""
        assert self.positions is not None
        vectors = self.positions(torch.arange(first, first + tokens.shape[1], device=tokens.device))
        return vectors * (tokens != self.padding_id)[..., None]

    def embed(self, tokens: Tensor, first: int = 0) -> Tensor:
        """What the layers see of tokens (rows, length), which stand at ``first`` and behind it: (rows, length, dim)."""
        scale = self.config.dim**0.5 if self.config.scale_embedding else 1.0
        x = self.embedding(tokens) * scale
        if self.positions is not None:
            x = x + self.place(tokens, first).to(x.dtype)
        out: Tensor = self.dropout(self.embedding_norm(x))
        return out

    def predict(self, x: Tensor) -> Tensor:
        """What the layers put out (rows, length, dim) -> logits (rows, length, vocabulary)."""
        return F.linear(x, self.embedding.weight) if self.output is None else self.output(x)

    def look(self, tokens: Tensor, encoded: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Where it looks in the encoder's output while it reads tokens (batch, length), beginning with the start symbol: weights (layers,
        batch, heads, length, frames), which sum to 1 over the valid frames, and the logits (batch, length, vocabulary)."""
        weights: list[Tensor] = []
        logits = self.predict(self.decode(self.embed(tokens), self.project_memory(encoded, lengths), weights=weights))
        return torch.stack(weights), logits
