"""Masked prediction of discrete units (HuBERT section II-C, AV-HuBERT section 3.1).

Every frame's vector is projected and compared by cosine with a learned embedding of each unit; the similarities over a temperature are the
logits. The comparison is one matrix product of normed vectors, not the broadcast of the official code, and only frames in the loss are
projected.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avtlm.objectives.loss import Loss


class UnitPredictor(nn.Module):
    """Logits over units for chosen frames.

    Args:
        dim: width of the encoder.
        units: classes (for official checkpoints: clusters + 4, the dictionary's specials first), of one inventory or of each of several.
        final_dim: width in which frames and units are compared.
        temperature: divides the cosine.
        similarity: ``cosine`` or ``dot``.
        separate: every inventory has a projection of its own (HuBERT's ``untie_final_proj``).
        glu: units pass a gated linear layer before they are compared (``target_glu``).
        floor: of the norms that vectors are divided by.
    """

    def __init__(
        self,
        dim: int,
        units: int | Sequence[int],
        final_dim: int = 256,
        temperature: float = 0.1,
        similarity: str = "cosine",
        separate: bool = False,
        glu: bool = False,
        floor: float = 1e-6,
    ) -> None:
        super().__init__()
        if similarity not in ("cosine", "dot"):
            raise ValueError(f"similarity: {similarity!r} is unknown; choose cosine or dot.")
        self.sizes = (units,) if isinstance(units, int) else tuple(units)
        self.parts = len(self.sizes) if separate else 1
        self.project = nn.Linear(dim, final_dim * self.parts)
        nn.init.normal_(self.project.weight, 0.0, 0.02)
        nn.init.zeros_(self.project.bias)
        self.units = nn.Parameter(torch.rand(sum(self.sizes), final_dim))
        self.glu = nn.Linear(final_dim, 2 * final_dim) if glu else None
        self.temperature = temperature
        self.similarity = similarity
        self.floor = floor

    def forward(self, frames: Tensor, inventory: int = 0) -> Tensor:
        """(n, dim) -> logits (n, units) over one of the inventories, float32."""
        x, units = self.project(frames).float(), self.units.float()
        if self.parts > 1:
            x = x.chunk(self.parts, -1)[inventory]
        if len(self.sizes) > 1:
            units = units.split(self.sizes)[inventory]
        if self.glu is not None:
            units = F.glu(self.glu(units)).float()
        if self.similarity == "cosine":
            # The official form puts the floor under the product of the norms; with learned vectors neither is near it.
            x, units = F.normalize(x, dim=-1, eps=self.floor), F.normalize(units, dim=-1, eps=self.floor)
        return x.float() @ units.float().t() / self.temperature


def inventories(targets: Mapping[str, Tensor], count: int, name: str) -> list[Tensor]:
    """Units of each of ``count`` inventories, ``units``, ``units_1``, ..., all cut to the length of the shortest, (batch, units).

    Args:
        targets: of a batch, by name.
        name: of its first row, for errors.

    Raises:
        ValueError: an inventory without labels.
    """
    names = ["units", *(f"units_{number}" for number in range(1, count))]
    absent = [each for each in names if each not in targets]
    if absent:
        raise ValueError(f"{name}: no labels {absent[0]!r}; a model of {count} inventories learns from {', '.join(names)}.")
    shortest = min(targets[each].shape[1] for each in names)
    return [targets[each][:, :shortest] for each in names]


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
    predictor: Callable[[Tensor, int], Tensor],
    encoded: Tensor,
    units: Tensor | Sequence[Tensor],
    hidden: Tensor,
    padding: Tensor,
    masked_weight: float = 1.0,
    visible_weight: float = 0.0,
) -> Loss:
    """``masked_weight`` times the cross-entropy summed over hidden frames, plus ``visible_weight`` times that over the others.

    Args:
        predictor: gives logits (n, units) of frames (n, dim), over the inventory of this number: a UnitPredictor.
        encoded: (batch, frames, dim).
        units: (batch, frames) int; -1 where a frame has no unit. Of several inventories, whose losses are added, one such tensor each.
        hidden: bool (batch, frames), True where the input was masked.
        padding: bool (batch, frames).

    Returns:
        Loss whose count is the number of hidden frames (plus the visible ones); those without a weight do not count.
    """
    labels = [units] if isinstance(units, Tensor) else list(units)
    scored = ~padding
    for each in labels:
        scored = scored & (each >= 0)
    masked, visible = hidden & scored, ~hidden & scored
    logits = [predictor(encoded[masked], index) for index in range(len(labels))]
    loss = masked_weight * _cross_entropy(logits, [each[masked] for each in labels])
    count = masked.sum()
    correct = torch.stack([(each.argmax(-1) == label[masked]).sum() for each, label in zip(logits, labels, strict=True)]).sum()
    logs = {"masked_loss": (loss.detach(), count), "masked_accuracy": (correct, count * len(labels))}
    if masked_weight == 0:
        count = torch.zeros_like(count)
    if visible_weight > 0:
        others = [predictor(encoded[visible], index) for index in range(len(labels))]
        loss = loss + visible_weight * _cross_entropy(others, [each[visible] for each in labels])
        count = count + visible.sum()
    return Loss(loss, count, logs)


def _cross_entropy(logits: Sequence[Tensor], labels: Sequence[Tensor]) -> Tensor:
    """Summed over frames and inventories."""
    return torch.stack([F.cross_entropy(each, label, reduction="sum") for each, label in zip(logits, labels, strict=True)]).sum()
