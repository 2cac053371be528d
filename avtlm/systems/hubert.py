"""HuBERT: masked prediction of offline cluster units from speech (Hsu et al., arXiv 2106.07447).

What is unusual here:
- Units come from clustering MFCC (iteration 1: 100 units at 100 Hz, of which every second is predicted), then a layer of the model before
  (500 units at 50 Hz); see avtlm.units.
- Several inventories may be predicted at once (cluster ensembles, section II-C). Their labels are the targets ``units``, ``units_1``, ...
- Frames and units are compared by cosine, as in AV-HuBERT (objectives/masked_prediction.py).
- The official code counts one frame more of a padded clip than wav2vec 2.0 does (``waveform.frame_padding: samples``).
"""

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from avtlm.data.batching import Batch
from avtlm.frontends.filterbank import SAMPLE_RATE
from avtlm.frontends.multimodal import InputMask
from avtlm.objectives.loss import Loss
from avtlm.objectives.masked_prediction import UnitPredictor, masked_prediction_loss, units_of_frames
from avtlm.objectives.masking import SpanMaskConfig
from avtlm.systems.speech_encoder import SpeechEncoder, SpeechEncoderConfig


@dataclass(frozen=True)
class HubertConfig(SpeechEncoderConfig):
    """The defaults are HuBERT base with 500 clusters (94,697,600 parameters).

    Attributes:
        units: size of the inventory (for official checkpoints: clusters + 4, the dictionary's special symbols first).
        further_units: sizes of further inventories.
        separate_projections: every inventory has a projection of the frames to itself.
        unit_glu: units pass a gated linear layer before they are compared.
        final_dim, temperature, similarity: see AVHubertConfig.
        label_rate: units per second in a batch.
        masked_weight, visible_weight: of the cross-entropy over hidden and over other frames.
        feature_penalty: weight of the mean square of the convolutions' output, times the frames in the loss.
    """

    mask: SpanMaskConfig = field(default_factory=SpanMaskConfig)
    units: int = 504
    further_units: tuple[int, ...] = ()
    separate_projections: bool = False
    unit_glu: bool = False
    final_dim: int = 256
    temperature: float = 0.1
    similarity: Literal["cosine", "dot"] = "cosine"
    label_rate: float = 50.0
    masked_weight: float = 1.0
    visible_weight: float = 0.0
    feature_penalty: float = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.units, *self.further_units, self.units) < 2:
            raise ValueError(f"units: {self.units}; masked prediction needs at least 2 units.")
        if self.label_rate <= 0:
            raise ValueError(f"label_rate: {self.label_rate} units per second; give a positive number.")


class Hubert(SpeechEncoder):
    """Speech encoder with a head over units."""

    config: HubertConfig

    def __init__(self, config: HubertConfig) -> None:
        super().__init__(config)
        self.predictor: UnitPredictor | None = UnitPredictor(
            config.encoder.dim,
            (config.units, *config.further_units),
            config.final_dim,
            config.temperature,
            config.similarity,
            config.separate_projections,
            config.unit_glu,
        )

    @property
    def inventory(self) -> dict[str, int]:
        """Units that are predicted; there are no phones."""
        further = {f"units_{number}": size for number, size in enumerate(self.config.further_units, 1)}
        return {"units": self.config.units, **further, "phones": 0}

    @property
    def label_rate(self) -> float:
        """Units per second in a batch."""
        return self.config.label_rate

    def drop_heads(self) -> None:
        """Remove the head over units."""
        self.predictor = None

    # Losses (section II-B, II-C) -----------------------------------------------------------------------------------------------------

    def losses(self, batch: Batch, generator: torch.Generator) -> dict[str, Loss]:
        """Masked prediction over the batch's units, and the penalty on the size of the features."""
        return self.masked_losses(batch, self.draw_masks(batch, generator))

    def masked_losses(self, batch: Batch, mask: InputMask) -> dict[str, Loss]:
        """The same with given masks, so that a stored case can be replayed."""
        config = self.config
        assert self.predictor is not None, "a model without its head cannot be trained further"
        units = self.units_of(batch)
        heard = self.hear(batch, units[0].shape[1])
        hidden = self.hidden_frames(heard, mask)
        encoded = self.encoder(self.hide(heard.projected, mask), heard.lengths)
        weights = (config.masked_weight, config.visible_weight)
        loss = masked_prediction_loss(self.predictor, encoded, units, hidden, heard.padding, *weights)
        return {"masked_prediction": loss, "feature_penalty": self.feature_penalty(heard, config.feature_penalty, loss.count)}

    def units_of(self, batch: Batch) -> list[Tensor]:
        """Units of every inventory for the frames that have any: int (batch, frames).

        Raises:
            ValueError: an inventory without labels.
        """
        names = ["units", *(f"units_{number + 1}" for number in range(len(self.config.further_units)))]
        absent = [name for name in names if name not in batch.targets]
        if absent:
            raise ValueError(
                f"{batch.ids[0]}: no labels {absent[0]!r}; a model of {len(names)} inventories learns from {', '.join(names)}."
            )
        assert batch.audio is not None
        waveform = self.config.waveform
        frames, rate = int(waveform.frames(torch.tensor(batch.audio.shape[1]))), self.config.label_rate * waveform.hop / SAMPLE_RATE
        shortest = min(batch.targets[name].shape[1] for name in names)
        return [units_of_frames(batch.targets[name][:, :shortest], frames, rate) for name in names]
