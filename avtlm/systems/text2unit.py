"""Units for text, one after the other: an autoregressive encoder-decoder as SpeechUT's text-to-unit generator (arXiv 2210.03730).

What is unusual here:
- It writes reduced units: one for every run of equal ones, so that it needs no durations. What it learns from are the units of speech.
- It reads phones, or without a pronunciation the characters of the transcript. What the paper's model reads is not stated, nor are its
  heads, losses and beam; it has 6 + 6 layers of 768, and so have the defaults. Layers are post-norm, as SpeechUT's.
- A unit's id is its number and four special symbols before it.

Search is in avtlm.units.generators.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from avtlm.data.batching import Batch, pad
from avtlm.data.inputs import InputFormat
from avtlm.nn.dropout import Dropout
from avtlm.nn.feed_forward import Activation
from avtlm.nn.positions import SinusoidalPositions
from avtlm.nn.transformer import Decoder, DecoderConfig, Encoder, EncoderConfig
from avtlm.objectives.loss import Loss
from avtlm.objectives.seq2seq import seq2seq_loss, shift_right
from avtlm.text.vocabulary import EOS, PAD, SPECIALS
from avtlm.units.phonemes import PronunciationConfig


@dataclass(frozen=True)
class Text2UnitConfig:
    """Sizes and regularisation.

    Attributes:
        vocabulary: phones or characters, the special symbols among them; a training counts them.
        units: clusters, from 0.
        label_rate: units per second before they are reduced.
        max_units: longest line, in reduced units; search stops there.
        units_per_symbol: search stops behind so many units for each symbol, too.
        pronunciation: how words become the phones that it reads; null reads characters.
    """

    vocabulary: int = 0
    units: int = 500
    label_rate: float = 50.0
    dim: int = 768
    layers: int = 6
    decoder_layers: int = 6
    heads: int = 12
    feed_forward_dim: int = 3072
    activation: Activation = "gelu"
    norm_first: bool = False
    dropout: float = 0.1
    attention_dropout: float = 0.1
    activation_dropout: float = 0.0
    tie_embeddings: bool = False
    label_smoothing: float = 0.1
    max_units: int = 2800
    units_per_symbol: float = 10.0
    pronunciation: PronunciationConfig | None = None

    def __post_init__(self) -> None:
        if min(self.layers, self.decoder_layers, self.units, self.max_units) < 1 or self.units_per_symbol <= 0 or self.label_rate <= 0:
            counts = f"layers: {self.layers}, decoder_layers: {self.decoder_layers}, units: {self.units}, max_units: {self.max_units}"
            raise ValueError(f"{counts}; give at least 1 of each, and units_per_symbol and label_rate above 0.")
        if self.heads < 1 or self.dim % self.heads or self.dim % 2:
            raise ValueError(f"dim: {self.dim}, heads: {self.heads}; give an even dim that heads divide.")
        if not 0.0 <= self.label_smoothing < 1.0:
            raise ValueError(
                f"label_smoothing: {self.label_smoothing} is not a probability; give a number from 0 up to, but not including, 1."
            )

    @property
    def encoder(self) -> EncoderConfig:
        """Of symbols; their positions are in its input."""
        return EncoderConfig(**self._sizes, layers=self.layers, layer_drop=0.0, position_kernel=0)

    @property
    def decoder(self) -> DecoderConfig:
        """Of units."""
        longest = max(2, self.max_units + 1)
        return DecoderConfig(
            **self._sizes, layers=self.decoder_layers, tie_embeddings=self.tie_embeddings, scale_embedding=True, max_positions=longest
        )

    @property
    def _sizes(self) -> dict[str, Any]:
        names = ("dim", "heads", "feed_forward_dim", "activation", "norm_first", "dropout", "attention_dropout", "activation_dropout")
        return {name: getattr(self, name) for name in names}


class Text2Unit(nn.Module):
    """Symbols to reduced units.

    Initialisation: embeddings N(0, dim^-0.5) with a zero row of padding; the rest see Encoder and Decoder.
    """

    def __init__(self, config: Text2UnitConfig) -> None:
        super().__init__()
        if config.vocabulary <= EOS:
            raise ValueError(f"vocabulary: {config.vocabulary} symbols; a model folder and a training know how many there are.")
        self.config = config
        self.embedding = nn.Embedding(config.vocabulary, config.dim, padding_idx=PAD)
        self.positions = SinusoidalPositions(config.dim, offset=PAD + 1)
        self.encoder = Encoder(config.encoder)
        self.decoder = Decoder(config.decoder, config.units + len(SPECIALS), padding_id=PAD)
        self.dropout = Dropout(config.dropout)
        nn.init.normal_(self.embedding.weight, 0.0, config.dim**-0.5)
        nn.init.zeros_(self.embedding.weight[PAD])

    @property
    def input_format(self) -> InputFormat:
        """Neither sound nor picture; frames are those of the units."""
        return InputFormat(video_size=None, label_rate=self.config.label_rate, frame_rate=self.config.label_rate)

    @property
    def inventory(self) -> dict[str, int]:
        """Units that are learned; what is read is in the vocabulary."""
        return {"units": self.config.units, "phones": 0}

    def read(self, text: Tensor) -> tuple[Tensor, Tensor]:
        """Symbols with their end, int (batch, symbols) padded with PAD -> (batch, symbols, dim) and lengths (batch,)."""
        places = self.positions(torch.arange(text.shape[1], device=text.device)) * (text != PAD)[..., None]
        x = self.embedding(text) * self.config.dim**0.5 + places
        lengths = (text != PAD).sum(1)
        return self.encoder(self.dropout(x), lengths), lengths

    def losses(self, batch: Batch, generator: torch.Generator) -> dict[str, Loss]:
        """Label-smoothed cross-entropy of the reduced ``units`` and their end."""
        del generator  # nothing is drawn but dropout
        assert batch.text is not None
        written = reduced_targets(batch.targets["units"], batch.target_lengths["units"])
        logits = self.decoder(shift_right(written, EOS, PAD), *self.read(batch.text))
        loss = seq2seq_loss(logits, written, PAD, self.config.label_smoothing)
        return {"units": Loss(loss.value, loss.count, {"nll": loss.logs["nll"], "unit_accuracy": loss.logs["token_accuracy"]})}


def reduced_targets(units: Tensor, lengths: Tensor) -> Tensor:
    """Units (batch, frames) of these lengths, without repeats, as ids behind the special symbols, with their end: (batch, units)."""
    rows = [torch.unique_consecutive(row[:length]) for row, length in zip(units.cpu(), lengths.tolist(), strict=True)]
    return pad([torch.cat([row + len(SPECIALS), row.new_tensor([EOS])]) for row in rows], PAD)[0].to(units.device)
