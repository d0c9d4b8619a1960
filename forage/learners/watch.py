"""When a training has to end because its loss is broken."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from forage.errors import TrainingError

PATIENCE = 3  # optimizer steps in a row whose loss is not finite

_DIVERGED = (
    "the loss is not a finite number {}. Resume from the last checkpoint with a lower learner.lr, and look at "
    "policy/grad_norm and policy/ratio_max of the steps before"
)


class Watch:
    """Counts optimizer steps whose loss is not finite; `bad_steps` is how many were so, one after another."""

    def __init__(self) -> None:
        self.bad_steps = 0

    def __call__(self, losses: Sequence[Tensor]) -> None:
        """Look at the losses of an optimizer step's tokens, micro-batch by micro-batch.

        Raises:
            TrainingError: none of them is finite, or not all were in `PATIENCE` steps in a row.
        """
        if all(bool(loss.isfinite().all()) for loss in losses):
            self.bad_steps = 0
            return
        self.bad_steps += 1
        if not any(bool(loss.isfinite().any()) for loss in losses):
            raise TrainingError(_DIVERGED.format("of every token of the batch"))
        if self.bad_steps >= PATIENCE:
            raise TrainingError(_DIVERGED.format(f"in {PATIENCE} optimizer steps in a row"))
