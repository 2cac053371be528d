"""A Transformer language model over the tokens of a recogniser: fused into its searches, or ranking what they find (docs/decoding.md).

What is unusual here:
- It is a decoder without a memory: pre-norm layers of causal self-attention, sinusoids from position 2, tied embeddings, as fairseq's
  ``transformer_lm`` (the language models of wav2vec 2.0, SpeechT5 and SpeechUT).
- Every sentence stands alone between ``</s>`` and ``</s>``, as a recogniser's transcripts do; contexts do not run on into the next one.
- Whole sentences in training and, in a search, one token at a time with the keys and values of those before kept: both give the same
  probabilities.

Papers: Vaswani et al. 2017; Synnaeve et al. 2020, arXiv 1911.08460 (appendix B), for the published sizes.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avtlm.data.batching import Batch
from avtlm.data.inputs import InputFormat
from avtlm.nn.cache import KeyValueCache
from avtlm.nn.dropout import Dropout
from avtlm.nn.feed_forward import Activation, FeedForward
from avtlm.nn.norm import LayerNorm
from avtlm.nn.positions import SinusoidalPositions
from avtlm.nn.transformer import Attention
from avtlm.objectives.loss import Loss
from avtlm.objectives.seq2seq import seq2seq_loss, shift_right
from avtlm.text.vocabulary import EOS, PAD


@dataclass(frozen=True)
class LanguageModelConfig:
    """Sizes and regularisation; the defaults are a small model for word pieces.

    Attributes:
        vocabulary: tokens; a training sets it to those of its vocabulary.
        tie_embeddings: the embeddings are the output's weights, too.
    """

    vocabulary: int = 0
    dim: int = 512
    layers: int = 6
    heads: int = 8
    feed_forward_dim: int = 2048
    activation: Activation = "gelu"
    dropout: float = 0.1
    attention_dropout: float = 0.1
    activation_dropout: float = 0.0
    tie_embeddings: bool = True
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        if self.heads < 1 or self.dim % self.heads or self.dim % 2 or self.layers < 1:
            raise ValueError(
                f"dim {self.dim}, heads {self.heads}, layers {self.layers}: give an even dim that heads divide, and at least 1 layer."
            )
        for name in ("dropout", "attention_dropout", "activation_dropout", "label_smoothing"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name}: {getattr(self, name)} is not a probability; give a number from 0 up to, but not including, 1.")


class Layer(nn.Module):
    """Causal self-attention and feed-forward, each normed before and around a residual."""

    def __init__(self, config: LanguageModelConfig) -> None:
        super().__init__()
        self.self_attention = Attention(config.dim, config.heads, config.attention_dropout)
        self.self_attention_norm = LayerNorm(config.dim)
        self.feed_forward = FeedForward(config.dim, config.feed_forward_dim, config.activation, config.activation_dropout)
        self.feed_forward_norm = LayerNorm(config.dim)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, extend: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None) -> Tensor:
        """(rows, new tokens, dim) -> the same; ``extend`` puts the cached keys and values before the new ones."""
        y = self.self_attention_norm(x)
        key, value = (self.self_attention.split(part(y)) for part in (self.self_attention.key, self.self_attention.value))
        if extend is not None:
            key, value = extend(key, value)
        x = x + self.dropout(self.self_attention.weigh(y, key, value, causal=x.shape[1] > 1))
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))


class LanguageModel(nn.Module):
    """Tokens to log-probabilities of the next one.

    Initialisation (fairseq's Transformer): embeddings N(0, dim^-0.5) with a zero padding row, projections Xavier uniform, biases 0.
    """

    def __init__(self, config: LanguageModelConfig) -> None:
        super().__init__()
        if config.vocabulary <= EOS:
            raise ValueError(f"vocabulary: {config.vocabulary} tokens; a model folder and a training know how many there are.")
        self.config = config
        self.embedding = nn.Embedding(config.vocabulary, config.dim, padding_idx=PAD)
        self.positions = SinusoidalPositions(config.dim, offset=PAD + 1)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.norm = LayerNorm(config.dim)
        self.output = None if config.tie_embeddings else nn.Linear(config.dim, config.vocabulary, bias=False)
        self.dropout = Dropout(config.dropout)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.normal_(self.embedding.weight, 0.0, config.dim**-0.5)
        nn.init.zeros_(self.embedding.weight[PAD])

    @property
    def input_format(self) -> InputFormat:
        """Neither sound nor picture."""
        return InputFormat(video_size=None)

    # Training ----------------------------------------------------------------------------------------------------------------------------

    def losses(self, batch: Batch, generator: torch.Generator) -> dict[str, Loss]:
        """Cross-entropy of the ``tokens`` and their ends."""
        del generator  # nothing is drawn but dropout
        tokens, lengths = batch.targets["tokens"], batch.target_lengths["tokens"]
        targets = torch.cat([tokens, tokens.new_full((len(tokens), 1), PAD)], 1).scatter(1, lengths[:, None], EOS)
        return {"language_model": seq2seq_loss(self(shift_right(targets, EOS, PAD)), targets, PAD, self.config.label_smoothing)}

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens (batch, length), starting with the start symbol -> logits (batch, length, vocabulary)."""
        return self._run(tokens, None)

    # Search (next_tokens.StepLanguageModel) ----------------------------------------------------------------------------------------------

    def initial_state(self, batch: int) -> KeyValueCache:
        """An empty cache for ``batch`` rows."""
        del batch  # rows are counted by the first step's tokens
        return KeyValueCache(len(self.layers))

    def step(self, tokens: Tensor, state: KeyValueCache) -> tuple[Tensor, KeyValueCache]:
        """tokens (rows,) -> log-probabilities (rows, vocabulary) of the next token in float32, and the grown cache."""
        return self._run(tokens[:, None], state)[:, -1].float().log_softmax(-1), state

    def _run(self, tokens: Tensor, cache: KeyValueCache | None) -> Tensor:
        first = 0 if cache is None else cache.length
        x = self.embedding(tokens) * self.config.dim**0.5
        x = self.dropout(x + self.positions(torch.arange(first, first + tokens.shape[1], device=tokens.device)).to(x.dtype))
        for index, layer in enumerate(self.layers):
            x = layer(x, None if cache is None else functools.partial(cache.append, index))
        if cache is not None:
            cache.advance(tokens.shape[1])
        x = self.norm(x)
        return F.linear(x, self.embedding.weight) if self.output is None else self.output(x)
