"""SpeechLM: one encoder for speech whose upper half also reads units of unpaired text (Zhang et al., arXiv 2209.15329).

What is unusual here:
- Speech and text become units of one kind before training: clusters of hidden states (SpeechLM-H), or phones (SpeechLM-P). Both variants
  are one network; only their numbers of units and rates of labels differ.
- The units of hidden frames are predicted at two depths, behind either encoder, by a head of each (UMLM).
- Units of a text, some of them hidden, are read by the upper encoder alone, and CTC writes the letters that they stand for (UCTC).
- In recognition the same CTC head writes what speech says. A translation is written by a decoder that pre-training does not know.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from avtlm.data.batching import Batch
from avtlm.objectives.loss import Loss
from avtlm.objectives.masked_prediction import UnitPredictor
from avtlm.systems.unit_bridge import NORM_FLOOR, BridgeConfig, Crossing, Drawn, UnitBridge


@dataclass(frozen=True)
class SpeechLMConfig(BridgeConfig):
    """The defaults are SpeechLM-H base in pre-training: 500 clusters at 50 Hz, and 28 letters."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.task == "pretrain" and self.decoder is not None:
            raise ValueError("decoder: pre-training of SpeechLM has none; set null, and describe one for translation.")

    name: ClassVar[str] = "speechlm"
    tuned: ClassVar[dict[str, float]] = {"ctc": 1.0, "attention": 1.0}

    @property
    def search(self) -> dict[str, Any]:
        """How the official code searches: settings of avtlm.decoding.settings.DecodingConfig."""
        if self.decoder is None:
            return {"method": "ctc_greedy"}
        return {"method": "attention", "beam": 5, "max_length_ratio": 0.0, "max_length_extra": 512.0}


class SpeechLM(UnitBridge):
    """Both encoders with a head over units behind each, and CTC.

    Initialisation: see UnitBridge and UnitPredictor.
    """

    config: SpeechLMConfig

    def __init__(self, config: SpeechLMConfig) -> None:
        super().__init__(config)
        self.shared_predictor: UnitPredictor | None = None
        if self.predictor is not None:
            classes = (config.units, *config.further_units)[-1]
            shape = (config.encoder.dim, classes, config.width, config.temperature)
            self.shared_predictor = UnitPredictor(*shape, glu=config.unit_glu, floor=NORM_FLOOR)
            self.shared_predictor.glu = self.predictor.glu  # one for both

    def drop_heads(self) -> None:
        """Remove what only pre-training needs."""
        super().drop_heads()
        self.shared_predictor = None

    # Losses --------------------------------------------------------------------------------------------------------------------------

    def losses(self, batch: Batch, generator: torch.Generator) -> dict[str, Loss]:
        """Those of the configuration's task.

        Raises:
            ValueError: the batch lacks what the task learns from.
        """
        if self.config.task == "recognition":
            hides = max(self.config.mask.prob, self.config.channel_mask.prob) > 0 and self.training
            return self.recognition_losses(batch, self.draw_masks(batch, generator) if hides else None)
        if batch.audio is not None:
            return self.speech_losses(self.cross(batch, self.draw(batch, generator)))
        if batch.text_units is None:
            raise ValueError(f"{batch.ids[0]}: neither speech nor units of a text, which pre-training learns from.")
        return self.text_losses(batch, self.draw_hidden_units(batch.text_units, generator))

    def masked_losses(self, batch: Batch, drawn: Drawn) -> dict[str, Loss]:
        """Pre-training on speech with what is given in place of chance, so that a stored case can be replayed."""
        return self.speech_losses(self.cross(batch, drawn))

    def speech_losses(self, crossing: Crossing) -> dict[str, Loss]:
        """Units of hidden frames at both depths (UMLM), which count alike, and the extra losses."""
        assert self.shared_predictor is not None, "a model without its heads cannot be trained further"
        return self.frame_losses(crossing, self.shared_predictor)

    def text_losses(self, batch: Batch, hidden: Tensor | None) -> dict[str, Loss]:
        """The letters that a text's units stand for (UCTC), some of the units hidden: bool like ``batch.text_units``, None for none.

        Its count is that of the letters and their ends; see `combine`.

        Raises:
            ValueError: there are no letters.
        """
        assert batch.text_units is not None
        if batch.text is None or batch.text_lengths is None or self.ctc is None:
            what = "model has no CTC (ctc_head)" if self.ctc is None else "source has no letters (written)"
            raise ValueError(f"{batch.ids[0]}: SpeechLM learns from units of a text by their letters, but its {what}.")
        encoded, lengths = self.read_units(batch.text_units, hidden)
        loss = self.letter_loss(encoded, lengths, batch.text, batch.text_lengths)
        return {"letters": Loss(self.config.losses.ctc * loss.value, loss.count, loss.logs)}
