"""How the learning rate moves over a run, one move an update (not an optimizer step)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from forage.errors import ConfigError

SHAPES: dict[str, Callable[[float], float]] = {
    "constant": lambda _: 1.0,
    "linear": lambda progress: 1 - progress,
    "cosine": lambda progress: (1 + math.cos(math.pi * progress)) / 2,
}


@dataclass(frozen=True, slots=True)
class Schedule:
    """What the learning rate is multiplied by at each update.

    Warm-up rises linearly and reaches 1 at update `warmup_steps` - 1, so that the first update is not lost; then
    "constant", or "linear" or "cosine" down to 0 at `total_steps`.

    Raises:
        ConfigError: it decays, but `total_steps` leaves it no step to do so.
    """

    kind: str = "constant"
    warmup_steps: int = 0
    total_steps: int = 0

    def __post_init__(self) -> None:
        if self.kind != "constant" and self.total_steps <= self.warmup_steps:
            given = f"got {self.total_steps} and {self.warmup_steps}"
            raise ConfigError(f"a {self.kind} schedule needs total_steps above warmup_steps; {given}")

    def factor(self, step: int) -> float:
        """The factor of update `step` (0, 1, ...), in [0, 1]."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        decay_steps = max(self.total_steps - self.warmup_steps, 1)
        return SHAPES[self.kind](min((step - self.warmup_steps) / decay_steps, 1.0))
