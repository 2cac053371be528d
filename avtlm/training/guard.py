"""What stops bad updates: losses that are not finite or jump, and words about the utterances they come from."""

import logging
import math
from collections.abc import Sequence

from avtlm.training.state import TrainState

log = logging.getLogger(__name__)

FIRST_JUDGED, SHARE = 10, 0.02  # good steps before a loss is compared with their mean; what a later one adds to it


class Guard:
    """Decides whether an update is made; what it remembers stands in the trainer's state.

    Args:
        spike: a loss above so many times the running mean is bad; None compares nothing.
        most: raise after so many bad steps in a row.
        run: what the run is called in the error.
    """

    def __init__(self, state: TrainState, spike: float | None, most: int, run: str) -> None:
        self.state, self.spike, self.most, self.run = state, spike, most, run

    def fault(self, norm: float, loss: float | None) -> str | None:
        """What is wrong with a step, given the norm of its gradient and, if spikes are looked for, its loss; None if nothing is."""
        state = self.state
        if not math.isfinite(norm):
            return "the loss or its gradient is not finite"
        if self.spike is None or loss is None:
            return None
        if state.good_steps >= FIRST_JUDGED and loss > self.spike * state.mean_loss:
            return f"the loss is {loss:.3g}, more than {self.spike:g} times its running mean of {state.mean_loss:.3g}"
        state.good_steps += 1
        state.mean_loss += max(SHARE, 1.0 / state.good_steps) * (loss - state.mean_loss)
        return None

    def pass_(self) -> None:
        """The step was good."""
        self.state.bad_steps = 0

    def refuse(self, step: int, fault: str, ids: Sequence[str]) -> None:
        """Note a bad step and name its utterances.

        Raises:
            FloatingPointError: too many in a row.
        """
        self.state.bad_steps += 1
        log.warning("step %d: %s; nothing was changed. Utterances: %s", step, fault, ", ".join(ids))
        if self.state.bad_steps >= self.most:
            what = "loss not finite" if "finite" in fault else "loss far above its mean"
            raise FloatingPointError(
                f"{self.run}: {what} in {self.state.bad_steps} steps in a row, last at step {step} with utterance {ids[0]}; "
                "lower optim.lr or look at these utterances."
            )
