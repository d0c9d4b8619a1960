"""What a token's probability is compared to: what it was sampled at, or what the learner gave it before it learned."""

from __future__ import annotations

import logging
from dataclasses import replace

import torch
from torch import Tensor

from forage.errors import ConfigError
from forage.learners.measures import mismatch
from forage.types import Batch

log = logging.getLogger(__name__)
SAME_LOGPROBS = 1e-3  # mean |difference| up to which engine and learner count as one


class Denominator:
    """Knows which logprobs are the denominator of the ratio, and of which tokens they have yet to be computed.

    `recompute` says whether they are the learner's own; None until engine and learner were compared.

    Args:
        kind: "sampled", "recomputed", or "auto": the learner's own where `compare` finds that the engine's differ.
        correction: that of `learner.correction`. Any but "none" weighs the learner's own logprobs against the engine's,
            so that they are wanted either way; with "auto", where the two agree and the weights are still those that
            sampled, the engine's count as the learner's own.

    Raises:
        ConfigError: a correction without the learner's own logprobs.
    """

    def __init__(self, kind: str, correction: str = "none") -> None:
        if correction != "none" and kind == "sampled":
            raise ConfigError(
                f"learner.correction = {correction!r} weighs tokens by the learner's own logprobs against the sampled "
                "ones, which learner.old_logprobs = 'sampled' does not compute; take 'recomputed' or 'auto'"
            )
        self.recompute: bool | None = {"auto": None, "sampled": False, "recomputed": True}[kind]
        self._corrects = correction != "none"

    def compare(self, batch: Batch, own_BT: Tensor) -> float:
        """Mean |difference| between engine's and learner's logprobs, of the same weights; settles `recompute`."""
        total, tokens = mismatch(batch, own_BT)["policy/mismatch"]
        gap = total / max(tokens, 1)
        self.recompute = not gap < SAME_LOGPROBS
        log.info("logprobs of engine and learner differ by %.2g on average, recompute: %s", gap, self.recompute)
        return gap

    def unknown(self, batch: Batch, version: int) -> Tensor:
        """The acted tokens [B,T], bool, whose own logprobs are wanted and have to be computed.

        Args:
            batch: as sampled.
            version: of the learner's weights.
        """
        if batch.old_logprobs_BT is not None:
            return torch.zeros_like(batch.acted_BT)
        if self.recompute or (self._corrects and self.recompute is None):
            return batch.acted_BT
        if self._corrects:
            return batch.acted_BT & (batch.version_BT != version)
        return batch.acted_BT & ~(batch.acted_BT if batch.sampled_BT is None else batch.sampled_BT)

    def settle(self, batch: Batch, own_BT: Tensor) -> Batch:
        """The batch with the denominator of the ratio, where it has none.

        Args:
            batch: as sampled.
            own_BT: the learner's logprobs before it learned from the batch. Tokens that are learned but were never
                sampled take them either way, as sampled and as denominator.
        """
        if batch.sampled_BT is not None:
            batch = replace(batch, sampled_logprobs_BT=torch.where(batch.sampled_BT, batch.sampled_logprobs_BT, own_BT))
        if batch.old_logprobs_BT is not None:
            return batch
        return replace(batch, old_logprobs_BT=own_BT if self.recompute or self._corrects else batch.sampled_logprobs_BT)


def denominator(batch: Batch) -> Tensor:
    """What a token's probability is compared to [B,T]: the learner's logprobs where it has computed them."""
    return batch.sampled_logprobs_BT if batch.old_logprobs_BT is None else batch.old_logprobs_BT
