"""What every objective returns. The training loop alone sums, scales and reduces over workers."""

from dataclasses import dataclass, field

from torch import Tensor


@dataclass
class Loss:
    """A sum over ``count`` elements (frames, tokens, sentences), and what is worth logging.

    Attributes:
        value: scalar sum, differentiable.
        count: what the loop divides by, after adding it up over workers and accumulated batches.
        logs: name -> (numerator, denominator), both scalars; the loop shows their ratio over a logging interval.
    """

    value: Tensor
    count: Tensor
    logs: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def named(self, prefix: str) -> dict[str, tuple[Tensor, Tensor]]:
        """What is logged, under names of its own."""
        return {f"{prefix}{name}": value for name, value in self.logs.items()}
