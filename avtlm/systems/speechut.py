"""SpeechUT: speech to units, units to text, one encoder-decoder of three parts (Zhang et al., arXiv 2210.03730).

What is unusual here:
- A speech encoder, a unit encoder that speech and text share, and a text decoder. Speech teaches the way from sound to units, text the way
  from units to letters; fine-tuning goes the whole way, with nothing added.
- Units of speech are one for every frame; those of text are reduced: runs of one unit are one unit. Nothing brings them to one rate.
- Units are predicted by cosine behind the first encoder, and by a plain linear layer behind the second, which masked units of text share.
- The decoder has scaled embeddings, sinusoids, and vectors of distances of its own that reach 24 symbols, whatever the unit encoder has.
- What text teaches counts by its mean, times the frames of speech in the loss of the step (`UnitBridge.combine`).

Pre-training is called S2U (speech to units), U2T (units to text) and MUM (masked units) in the paper.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from avtlm.data.batching import Batch
from avtlm.data.inputs import InputFormat
from avtlm.nn.transformer import DecoderConfig, EncoderConfig
from avtlm.nn.unit_encoder import UnitEncoderConfig
from avtlm.objectives.loss import Loss
from avtlm.objectives.masked_prediction import masked_prediction_loss
from avtlm.systems.unit_bridge import BridgeConfig, BridgeLosses, Drawn, UnitBridge
from avtlm.text.vocabulary import PAD


@dataclass(frozen=True)
class SpeechUTLosses(BridgeLosses):
    """Weights; the defaults are those of pre-training for recognition (for translation: ``attention`` 1 without CTC).

    Attributes:
        units: of the masked units of text.
    """

    units: float = 0.5


@dataclass(frozen=True)
class SpeechUTConfig(BridgeConfig):
    """The defaults are the base model for recognition, with 500 clusters and 28 letters: 155,816,602 parameters in the official code, 3,072
    of which (norms of distances in post-norm layers) nothing uses; they are left out here.

    Attributes:
        hide_units: hide some of the units that text is written from (no published model does).
    """

    encoder: EncoderConfig = field(
        default_factory=lambda: EncoderConfig(layers=6, heads=8, norm_first=False, layer_drop=0.0, key_distance=160)
    )
    unit_encoder: UnitEncoderConfig = field(default_factory=lambda: UnitEncoderConfig(layer_drop=0.0))
    decoder: DecoderConfig | None = field(
        default_factory=lambda: DecoderConfig(
            heads=12,
            activation="gelu",
            norm_first=False,
            attention_dropout=0.1,
            activation_dropout=0.0,
            layer_drop=0.1,
            tie_embeddings=False,
            scale_embedding=True,
            max_positions=3000,
            key_distance=24,
        )
    )
    hide_units: bool = False
    losses: SpeechUTLosses = field(default_factory=SpeechUTLosses)

    name: ClassVar[str] = "speechut"
    tuned: ClassVar[dict[str, float]] = {"ctc": 0.5, "attention": 0.5}

    @property
    def search(self) -> dict[str, Any]:
        """How the official code searches: settings of avtlm.decoding.settings.DecodingConfig."""
        if self.ctc_head == "none" or not self.losses.ctc:
            return {"method": "attention", "beam": 10, "max_length_ratio": 0.0, "max_length_extra": 512.0}
        if self.decoder is None:
            return {"method": "ctc_greedy"}
        limit = {"max_length_ratio": 0.25, "max_length_extra": 200.0}
        return {"method": "joint", "convention": "speechut", "beam": 10, "ctc_weight": 0.2, **limit}


class UnitOutput(nn.Linear):
    """Logits over units, without cosine or temperature."""

    def forward(self, frames: Tensor, inventory: int = 0) -> Tensor:
        """(n, dim) -> (n, units), float32; there is one inventory."""
        assert inventory == 0
        return super().forward(frames).float()


class SpeechUT(UnitBridge):
    """Speech encoder, unit encoder, CTC, text decoder, and two heads over units.

    Initialisation: see UnitBridge; the decoder's vectors of distances N(0, 1), the second head PyTorch's own.
    """

    config: SpeechUTConfig

    def __init__(self, config: SpeechUTConfig) -> None:
        super().__init__(config)
        if self.decoder is not None and self.decoder.distances is not None:
            nn.init.normal_(self.decoder.distances.table.weight)
        predicted = (config.units, *config.further_units)[-1]
        self.unit_output: UnitOutput | None = UnitOutput(config.encoder.dim, predicted) if config.task == "pretrain" else None

    @property
    def input_format(self) -> InputFormat:
        """Waveforms, and reduced units in place of text."""
        return dataclasses.replace(super().input_format, reduced_units=True)

    def drop_heads(self) -> None:
        """Remove what only pre-training needs."""
        super().drop_heads()
        self.unit_output = None

    # Losses (section 3) --------------------------------------------------------------------------------------------------------------

    def losses(self, batch: Batch, generator: torch.Generator) -> dict[str, Loss]:
        """Of a batch of speech with units, of units with text, or of units alone; in fine-tuning of speech with text.

        Raises:
            ValueError: the batch holds neither speech nor units.
        """
        config = self.config
        if config.task == "recognition":
            hides = self.training and max(config.mask.prob, config.channel_mask.prob) > 0
            return self.recognition_losses(batch, self.draw_masks(batch, generator) if hides else None)
        if batch.audio is not None:
            return self.speech_losses(batch, self.draw(batch, generator))
        units = batch.text_units
        if units is None:
            raise ValueError(f"{batch.ids[0]}: neither speech nor units to learn from.")
        if batch.text is None:
            return self.unit_losses(units, self.draw_hidden_units(units, generator))
        return self.text_losses(batch, self.draw_hidden_units(units, generator) if config.hide_units else None)

    def speech_losses(self, batch: Batch, drawn: Drawn) -> dict[str, Loss]:
        """Speech to units: those of hidden frames, behind both encoders; before the second one some others gave way to their units."""
        assert self.unit_output is not None, "a model without its heads cannot be trained further"
        return self.frame_losses(self.cross(batch, drawn), self.unit_output)

    def text_losses(self, batch: Batch, hidden: Tensor | None = None) -> dict[str, Loss]:
        """Units to text: ``batch.text`` by CTC behind the unit encoder, and by the decoder.

        Args:
            hidden: units that are hidden, bool (batch, units); None for none.

        Raises:
            ValueError: nothing is to be learned from text.
        """
        weights = self.config.losses
        assert batch.text_units is not None
        assert batch.text is not None
        assert batch.text_lengths is not None
        encoded, lengths = self.read_units(batch.text_units, hidden)
        found: dict[str, Loss] = {}
        if self.decoder is not None and weights.attention:
            loss = self.written_loss(encoded, lengths, batch.text, batch.text_lengths)
            found["attention"] = Loss(weights.attention * loss.value, loss.count, loss.logs)
        if self.ctc is not None and weights.ctc:
            loss = self.letter_loss(encoded, lengths, batch.text, batch.text_lengths)
            found["ctc"] = Loss(weights.ctc * loss.value, loss.count, loss.logs)
        if not found:
            raise ValueError(
                f"{batch.ids[0]}: neither losses.ctc nor losses.attention counts, so that text teaches nothing; leave its source out, or "
                "set written: null to learn from its units alone."
            )
        return found

    def unit_losses(self, units: Tensor, hidden: Tensor) -> dict[str, Loss]:
        """Masked units: ids (batch, units), of which those are to be named that are hidden, bool (batch, units)."""
        assert self.unit_output is not None, "a model without its heads cannot be trained further"
        weights = self.config.losses
        encoded, _ = self.read_units(units, hidden)
        loss = masked_prediction_loss(self.unit_output, encoded, units, hidden, units == PAD, weights.masked, weights.visible)
        count = loss.count / 2 if weights.masked > 0 and weights.visible > 0 else loss.count
        return {"masked_units": Loss(weights.units * loss.value, count, loss.named("units_"))}
