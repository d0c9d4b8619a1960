"""Right samples are learned, others are not."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor

from forage.batch import row_rewards, with_advantages
from forage.config import Count
from forage.interfaces import Reduce
from forage.types import Batch


class Rejection:
    """A = 1 where the reward is at least `threshold`, else 0 (rejection sampling, as in arXiv 2308.01825).

    With the loss `nll` this is fine-tuning on the policy's own right samples, again in each step. Samples that are not
    learned are left out of the batch and of its counts, so that the loss is a mean over learned tokens.

    Args:
        threshold: least reward of a sample that is learned; by default any reward above 0. 1 keeps exact matches.
        per_question: at most this many samples of a question, the first ones; 0: all.
    """

    needs: frozenset[str] = frozenset()
    group_relative = False
    chooses = True

    def __init__(self, *, threshold: float = 1e-6, per_question: Count = 0) -> None:
        self.threshold = threshold
        self.per_question = per_question

    def __call__(self, batch: Batch, reduce: Reduce) -> Batch:  # noqa: ARG002 (nothing of the whole batch is used)
        """Fill in `advantages_BT`: 1 on the acted tokens of samples that are learned."""
        kept_B = row_rewards(batch) >= self.threshold
        if self.per_question:
            kept_B = kept_B & self._first(kept_B, batch.group_B)
        return with_advantages(batch, kept_B.double()[:, None])

    def _first(self, kept_B: Tensor, group_B: Tensor) -> Tensor:
        """Whether a row is among the first `per_question` of its group that are kept, bool [B]."""
        seen: Counter[int] = Counter()
        first = []
        for kept, group in zip(kept_B.tolist(), group_B.tolist(), strict=True):
            seen[group] += kept
            first.append(seen[group] <= self.per_question)
        return torch.tensor(first, dtype=torch.bool, device=kept_B.device)
