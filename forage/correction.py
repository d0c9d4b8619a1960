"""How much a token weighs that was sampled at another probability than the learner gives it, with the same weights.

Engine and learner compute the same model with other kernels, perhaps in another dtype, or of another version. What was
sampled is then slightly off the policy that learns. With w = p_learner / p_engine of a token, or its product over the
acted tokens of a row:

    token, sequence              min(w, cap)                            truncated importance sampling (Ionides, 2008)
    token_mask, sequence_mask    w where floor <= w <= cap, else 0      IcePop; a whole row is left out by the latter
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from forage.errors import ConfigError

LIMIT = 20.0  # of a log-ratio: exp stays finite


@dataclass(frozen=True, slots=True)
class Correction:
    """Weights of one kind.

    Raises:
        ConfigError: `cap` is not above `floor`, or there is a `floor` where nothing is masked.
    """

    kind: str
    cap: float = 2.0
    floor: float = 0.0

    def __post_init__(self) -> None:
        if not self.cap > max(self.floor, 0):
            raise ConfigError(f"learner.correction_cap = {self.cap}: it has to be above 0 and above correction_floor")
        if self.floor and not self.masks:
            raise ConfigError(
                f"learner.correction_floor = {self.floor} does nothing with learner.correction = {self.kind!r}: only "
                "token_mask and sequence_mask leave out small weights"
            )

    @property
    def masks(self) -> bool:
        """Whether what lies outside is left out, not cut."""
        return self.kind.endswith("_mask")

    def __call__(self, old_BT: Tensor, sampled_BT: Tensor, acted_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Weights and whether they were cut (or masked), both [B,T] and 0 where observed.

        Args:
            old_BT: the learner's log-probabilities, before it learned from the batch.
            sampled_BT: the engine's.
            acted_BT: bool.
        """
        ratio_BT = self._ratio(old_BT, sampled_BT, acted_BT)
        outside_BT = ((ratio_BT > self.cap) | (ratio_BT < self.floor)) & acted_BT
        kept_BT = ratio_BT.masked_fill(outside_BT, 0) if self.masks else ratio_BT.clamp(max=self.cap)
        return kept_BT * acted_BT, outside_BT

    def _ratio(self, old_BT: Tensor, sampled_BT: Tensor, acted_BT: Tensor) -> Tensor:
        log_ratio_BT = (old_BT - sampled_BT).masked_fill(~acted_BT, 0).detach()
        if self.kind.startswith("sequence"):
            log_ratio_BT = log_ratio_BT.sum(1, keepdim=True).expand(log_ratio_BT.shape)
        return log_ratio_BT.clamp(-LIMIT, LIMIT).exp()
