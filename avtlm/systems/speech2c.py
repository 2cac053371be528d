"""Speech2C: HuBERT with a decoder that writes the units without their repeats (Ao et al., arXiv 2203.17113).

What is unusual here:
- The encoder is HuBERT's with learned vectors of distances; those of the decoder's self-attention reach 24 units (section 2.1).
- The decoder writes what is left of the units when runs of one unit become one (section 2.2, eq. 3). Its vocabulary is that of the units;
  fine-tuning writes letters with a decoder of its own vocabulary, behind a CTC head (section 2.3; avtlm.recognizer).
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from avtlm.data.batching import Batch, pad
from avtlm.frontends.multimodal import InputMask
from avtlm.nn.transformer import Decoder, DecoderConfig, EncoderConfig
from avtlm.objectives.loss import Loss
from avtlm.objectives.masked_prediction import masked_prediction_loss
from avtlm.objectives.seq2seq import seq2seq_loss, shift_right
from avtlm.systems.hubert import Hubert, HubertConfig
from avtlm.text.vocabulary import EOS, PAD


@dataclass(frozen=True)
class Speech2CConfig(HubertConfig):
    """The defaults are the base model's.

    Attributes:
        decoder: its embeddings are scaled, and not tied to the output.
        decoder_vocabulary: symbols that it writes, of which the units (with the dictionary's special symbols) are the first; 0 for the
            units alone.
        decoder_weight: of its cross-entropy, a mean over units, times the frames in the loss; 0 leaves the decoder's loss out.
    """

    encoder: EncoderConfig = field(default_factory=lambda: EncoderConfig(norm_first=False, key_distance=160))
    decoder: DecoderConfig = field(
        default_factory=lambda: DecoderConfig(
            heads=12,
            activation="gelu",
            norm_first=False,
            attention_dropout=0.1,
            activation_dropout=0.0,
            tie_embeddings=False,
            scale_embedding=True,
            key_distance=24,
        )
    )
    decoder_vocabulary: int = 0
    decoder_weight: float = 1.0


class Speech2C(Hubert):
    """Speech encoder with a head over units and a decoder that writes them."""

    config: Speech2CConfig

    def __init__(self, config: Speech2CConfig) -> None:
        super().__init__(config)
        symbols = config.decoder_vocabulary or config.units
        self.decoder: Decoder | None = Decoder(config.decoder, symbols, config.encoder.dim, PAD)

    def drop_heads(self) -> None:
        """Remove the head over units and the decoder."""
        super().drop_heads()
        self.decoder = None

    def masked_losses(self, batch: Batch, mask: InputMask) -> dict[str, Loss]:
        """Masked prediction, the penalty on the size of the features, and the units that the decoder writes (eq. 4)."""
        config = self.config
        assert self.predictor is not None, "a model without its head cannot be trained further"
        assert self.decoder is not None
        units = self.units_of(batch)
        heard = self.hear(batch, units[0].shape[1])
        hidden = self.hidden_frames(heard, mask)
        encoded = self.encoder(self.hide(heard.projected, mask), heard.lengths)
        weights = (config.masked_weight, config.visible_weight)
        loss = masked_prediction_loss(self.predictor, encoded, units, hidden, heard.padding, *weights)
        found = {"masked_prediction": loss, "feature_penalty": self.feature_penalty(heard, config.feature_penalty, loss.count)}
        if config.decoder_weight:
            written = without_repeats(batch.targets["units"])
            logits = self.decoder(shift_right(written, EOS, PAD), encoded, heard.lengths)
            spoken = seq2seq_loss(logits, written, PAD, 0.0)
            share = config.decoder_weight * loss.count / spoken.count.clamp(min=1)
            found["decoder"] = Loss(spoken.value * share, torch.zeros_like(loss.count), spoken.logs)
        return found


def without_repeats(units: Tensor) -> Tensor:
    """Units (batch, frames), padded with -1 or the padding symbol, with one for each run of one, and the end symbol: (batch, units)."""
    rows = [torch.unique_consecutive(row[(row >= 0) & (row != PAD)]) for row in units.cpu()]
    return pad([torch.cat([row, row.new_tensor([EOS])]) for row in rows], PAD)[0].to(units.device)
