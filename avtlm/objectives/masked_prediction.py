"""Masked prediction of discrete units (HuBERT section II-C, AV-HuBERT section 3.1).

Every frame's vector is projected and compared by cosine with a learned embedding of each unit; the similarities over a temperature are the
logits. The comparison is one matrix product of normed vectors, not the broadcast of the official code, and only frames in the loss are
projected.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avtlm.objectives.loss import Loss


class UnitPredictor(nn.Module):
    """Logits over units for chosen frames.

    Args:
        dim: width of the encoder.
        units: classes (for official checkpoints: clusters + 4, the dictionary's specials first).
        final_dim: width in which frames and units are compared.
        temperature: divides the cosine.
        similarity: ``cosine`` or ``dot``.
    """

    def __init__(self, dim: int, units: int, final_dim: int = 256, temperature: float = 0.1, similarity: str = "cosine") -> None:
        super().__init__()
        if similarity not in ("cosine", "dot"):
            raise ValueError(f"similarity: {similarity!r} is unknown; choose cosine or dot.")
        self.project = nn.Linear(dim, final_dim)
        nn.init.normal_(self.project.weight, 0.0, 0.02)
        nn.init.zeros_(self.project.bias)
        self.units = nn.Parameter(torch.rand(units, final_dim))
        self.temperature = temperature
        self.similarity = similarity

    def forward(self, frames: Tensor) -> Tensor:
        """(n, dim) -> logits (n, units), float32."""
        x, units = self.project(frames).float(), self.units.float()
        if self.similarity == "cosine":
            # The official form puts the floor under the product of the norms; with learned vectors neither is near it.
            x, units = F.normalize(x, dim=-1, eps=1e-6), F.normalize(units, dim=-1, eps=1e-6)
        return x.float() @ units.float().t() / self.temperature


def units_of_frames(units: Tensor, frames: int, rate: float = 1.0) -> Tensor:
    """The unit of every frame, when there are ``rate`` of them per frame: the first of each frame's; frames without units are left out.

    Args:
        units: (batch, units) int.
        frames: of the features.

    Returns:
        (batch, frames or fewer).
    """
    if rate * frames > units.shape[1]:
        frames = int(units.shape[1] / rate)
    if rate == 1.0:
        return units[:, :frames]
    return units[:, (torch.arange(frames, device=units.device).float() * rate).long()]


def masked_prediction_loss(
    predictor: UnitPredictor,
    encoded: Tensor,
    units: Tensor,
    hidden: Tensor,
    padding: Tensor,
    masked_weight: float = 1.0,
    visible_weight: float = 0.0,
) -> Loss:
    """``masked_weight`` times the cross-entropy summed over hidden frames, plus ``visible_weight`` times that over the others.

    Args:
        encoded: (batch, frames, dim).
        units: (batch, frames) int; -1 where a frame has no unit.
        hidden: bool (batch, frames), True where the input was masked.
        padding: bool (batch, frames).

    Returns:
        Loss whose count is the number of hidden frames (plus the visible ones); those without a weight do not count.
    """
    scored = ~padding & (units >= 0)
    masked, visible = hidden & scored, ~hidden & scored
    logits = predictor(encoded[masked])
    target = units[masked]
    loss = masked_weight * F.cross_entropy(logits, target, reduction="sum")
    count = masked.sum()
    correct = (logits.argmax(-1) == target).sum()
    logs = {"masked_loss": (loss.detach(), count), "masked_accuracy": (correct, count)}
    if masked_weight == 0:
        count = torch.zeros_like(count)
    if visible_weight > 0:
        loss = loss + visible_weight * F.cross_entropy(predictor(encoded[visible]), units[visible], reduction="sum")
        count = count + visible.sum()
    return Loss(loss, count, logs)
