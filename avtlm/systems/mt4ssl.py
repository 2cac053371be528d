"""MT4SSL: regress an online teacher and classify offline units with one encoder (Ma et al., arXiv 2211.07321).

What is unusual here:
- It is data2vec (data2vec.py) with a second head on the same hidden frames. The online head regresses the moving teacher (On-TE), the
  offline head classifies cluster units (Off-TE).
- The offline head is one linear layer and an ordinary softmax, not HuBERT's cosines.
- Both losses are summed over hidden frames with equal weights; at the start the regression is several times larger.

Everything here follows the released code; where it differs from the paper is not known.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avtlm.data.batching import Batch
from avtlm.frontends.multimodal import InputMask
from avtlm.nn.transformer import initialise_like_bert
from avtlm.objectives.loss import Loss
from avtlm.objectives.masked_prediction import units_of_frames
from avtlm.systems.data2vec import Data2Vec, Data2VecConfig


@dataclass(frozen=True)
class MT4SSLConfig(Data2VecConfig):
    """The defaults are MT4SSL base with 500 clusters (94,142,456 parameters without the teacher).

    Attributes:
        units: classes (for official checkpoints: clusters + 4, the dictionary's special symbols first).
        label_rate: units per second in a batch.
        regression_weight, classification_weight: of the two losses; 0 leaves one out, its head and the teacher too.
    """

    units: int = 504
    label_rate: float = 50.0
    regression_weight: float = 1.0
    classification_weight: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.units < 2:
            raise ValueError(f"units: {self.units}; classification needs at least 2 units.")
        if self.label_rate <= 0:
            raise ValueError(f"label_rate: {self.label_rate} units per second; give a positive number.")
        if min(self.regression_weight, self.classification_weight) < 0 or self.regression_weight + self.classification_weight == 0:
            raise ValueError("regression_weight, classification_weight: give 0 or more, and at least one above 0.")


class MT4SSL(Data2Vec):
    """data2vec with a second head, over units."""

    config: MT4SSLConfig

    def __init__(self, config: MT4SSLConfig) -> None:
        super().__init__(config)
        self.classify: nn.Linear | None = None
        if config.classification_weight:
            self.classify = nn.Linear(config.encoder.dim, config.units)
            initialise_like_bert(self.classify)
        if config.regression_weight:
            self.make_teacher()  # a whole one has both heads
        else:
            self.regress = self.teacher = None

    @property
    def inventory(self) -> dict[str, int]:
        """Units that are predicted; there are no phones."""
        return {"units": self.config.units, "phones": 0}

    @property
    def label_rate(self) -> float:
        """Units per second in a batch."""
        return self.config.label_rate

    def drop_heads(self) -> None:
        """Remove teacher and both heads."""
        super().drop_heads()
        self.classify = None

    def masked_losses(self, batch: Batch, mask: InputMask) -> dict[str, Loss]:
        """Regression and classification of hidden frames with given masks. Only frames that have a unit are classified."""
        config = self.config
        heard, hidden, encoded = self.see(batch, mask)
        count = torch.tensor(len(encoded), device=encoded.device)
        total, losses = encoded.new_zeros(()), {}
        if config.regression_weight:
            online = self.regression(batch, heard, hidden, encoded)
            losses["regression"] = Loss(config.regression_weight * online.value, torch.zeros_like(count), online.logs)
            total = total + losses["regression"].value.detach()
        if config.classification_weight:
            logits, units = self.classified(encoded, hidden, batch.targets["units"])
            value = F.cross_entropy(logits, units, reduction="sum", ignore_index=-1)
            logs = {
                "classification_loss": (value.detach(), count),
                "masked_accuracy": ((logits.argmax(-1) == units).sum(), (units >= 0).sum()),
            }
            losses["classification"] = Loss(config.classification_weight * value, torch.zeros_like(count), logs)
            total = total + losses["classification"].value.detach()
        # The frames count once for both losses.
        first = next(iter(losses.values()))
        first.count = count
        first.logs["masked_loss"] = (total, count)
        return losses

    def classified(self, encoded: Tensor, hidden: Tensor, units: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of hidden frames (n, dim) over units, and the units (n,), -1 where there is none."""
        assert self.classify is not None, "a model without its head cannot be trained further"
        found = units_of_frames(units, hidden.shape[1], self.config.label_rate / self.config.waveform.frame_rate)
        found = F.pad(found, (0, hidden.shape[1] - found.shape[1]), value=-1)
        return self.classify(encoded).float(), found[hidden]
