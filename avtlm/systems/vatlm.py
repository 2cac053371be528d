"""VATLM: one model and one masked-prediction loss for lip video, audio and text (Zhu et al., arXiv 2211.11275).

What is unusual here:
- It is AV-HuBERT (avhubert.py) with a third slot for phones: [audio, video, phones] are concatenated, and an absent modality is a block of
  zeros. Four kinds of batches train the same encoder: audio + video, audio alone, audio + text, text alone. Their targets come from one
  inventory of units (section III-C).
- No modality experts: one plain Transformer sees every input. (``encoder.experts`` is an extension of this library, off by default.)
- The released ``input`` masking only works with video and audio present. Here it masks the modalities that are there, their union is in the
  loss, and text alone is masked behind the fusion with zeros. ``feature`` masking (the other released type) always masks behind the fusion,
  with a learned vector.
- The text-only batches of the official code have no padding mask; ours have one. Its penalty on the features of the n-th kind of batch
  counts the hidden frames of kinds 1 to n; ours counts its own (``penalty_running_total`` brings the official way back).

Order below: config, masks (section III-D), losses.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch

from avtlm.data.batching import Batch
from avtlm.frontends.multimodal import FrontEndConfig, InputMask
from avtlm.frontends.text import downsampled
from avtlm.objectives.loss import Loss
from avtlm.objectives.masking import SpanMaskConfig, span_mask
from avtlm.systems.avhubert import AVHubert, AVHubertConfig

# Kinds of batches in the order in which the official criterion adds them up.
KINDS = ("audio_video", "audio_text", "text", "audio")


@dataclass(frozen=True)
class VATLMConfig(AVHubertConfig):
    """The defaults are VATLM base (107,497,448 parameters with 2004 units and 46 phones).

    Attributes:
        text_mask: spans for text alone.
        text_weight, audio_weight: of the losses of batches of text alone and of audio alone (``banlance_loss_weights``, both 1).
        penalty_running_total: multiply the feature penalty of a kind of batch by the frames in the losses of this kind and of those before
            it, in the order of KINDS, as the official criterion does; else by its own.
    """

    frontends: FrontEndConfig = field(default_factory=FrontEndConfig)
    text_mask: SpanMaskConfig = field(default_factory=SpanMaskConfig)
    text_weight: float = 1.0
    audio_weight: float = 1.0
    penalty_running_total: bool = False
    takes_text: ClassVar[bool] = True


class VATLM(AVHubert):
    """Encoder for any mix of audio, lip video and phones, with a head over units."""

    config: VATLMConfig

    def __init__(self, config: VATLMConfig) -> None:
        super().__init__(config)

    # Masks (section III-D; AV-HuBERT section 3.2) ------------------------------------------------------------------------------------

    def draw_masks(self, batch: Batch, generator: torch.Generator) -> InputMask:
        """As AV-HuBERT; text alone is masked behind the fusion."""
        if batch.audio is not None or batch.video is not None:
            return super().draw_masks(batch, generator)
        assert batch.text is not None
        assert batch.text_lengths is not None
        lengths, frames = downsampled(batch.text_lengths.cpu()), -(-batch.text.shape[1] // 4)
        hidden = span_mask(lengths, frames, self.config.text_mask, generator, self.config.same_mask_count)
        return InputMask(fused=hidden, channels=self.draw_channels(len(batch), generator))

    # Losses (section III-D) ----------------------------------------------------------------------------------------------------------

    def combine(self, batches: Sequence[Batch], losses: Sequence[dict[str, Loss]]) -> list[dict[str, Loss]]:
        """Weigh the losses of the batches of one step against each other; counts and logs stay as they are.

        Args:
            batches: of any kinds, in any order.
            losses: what ``losses`` gave for each.
        """
        weights = {"text": self.config.text_weight, "audio": self.config.audio_weight}
        order = sorted(range(len(batches)), key=lambda index: KINDS.index(batches[index].task))
        combined = list(losses)
        total = torch.zeros((), device=self.predictor.units.device)
        for index in order:
            masked, penalty = losses[index]["masked_prediction"], losses[index]["feature_penalty"]
            total = total + masked.count
            value = penalty.value
            if self.config.penalty_running_total:
                value = value / masked.count.clamp(min=1) * total
            weight = weights.get(batches[index].task, 1.0)
            combined[index] = {
                "masked_prediction": Loss(weight * masked.value, masked.count, masked.logs),
                "feature_penalty": Loss(weight * value, penalty.count, penalty.logs),
            }
        return combined
