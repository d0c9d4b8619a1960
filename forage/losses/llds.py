"""A regulariser that keeps good episodes from losing likelihood."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from forage.config import Amount
from forage.interfaces import PolicyLoss
from forage.losses.cispo import CISPOLoss
from forage.losses.clip import ClipLoss
from forage.losses.dual_clip import DualClipLoss
from forage.losses.gspo import GSPOLoss
from forage.losses.ratio import advantages, log_ratio
from forage.types import Batch, Metrics

BASES = {"clip": ClipLoss, "dual_clip": DualClipLoss, "gspo": GSPOLoss, "cispo": CISPOLoss}


class LLDSLoss:
    """The loss `base`, + coef * max(0, log p_old - log p) a token, where the likelihood of a good action fell.

    Policy gradients can lower the likelihood of right answers along with wrong ones that resemble them ("lazy
    likelihood displacement"), until training collapses. The term acts on tokens with A >= 0 in actions (the tokens of
    one turn) whose log-probability fell in sum (LLDS, arXiv 2512.04220; the details are those of its authors' code).

    Samples of groups with equal rewards have A = 0 and belong to it, so such groups are not left out.

    Ours: `tolerance`, since the logprobs of engine and learner differ by rounding, which counts as a fall half the
    time; and the term is weighed like the loss of its token (`learner.aggregation`), where theirs is a token mean. In
    a batch's first optimizer step old and new are the same, and the term is 0: it needs several a batch
    (`learner.minibatch_questions`).

    Args:
        coef: weight of the term; the default is that of the authors' training script.
        base: the policy loss that it is added to.
        clip_low: that of the base; its own default if not given.
        clip_high: likewise.
        gate: what has to fall in sum: the tokens of an "action", or of the whole "response".
        answer_turn: whether the last turn counts. Without it, as in the "MA" (masked answer) variant, giving answers
            is not held fast and searching more stays cheap. (The authors leave out just what stands between the tags.)
        tolerance: nats a token that the sum may fall before the term acts. 0 is the authors' value.
    """

    needs: frozenset[str] = frozenset({"advantages_BT"})
    reads_equal_groups = True
    needs_several_steps = True

    def __init__(
        self,
        *,
        coef: Amount = 0.2,
        base: Literal["clip", "dual_clip", "gspo", "cispo"] = "clip",
        clip_low: Amount | None = None,
        clip_high: Amount | None = None,
        gate: Literal["action", "response"] = "action",
        answer_turn: bool = True,
        tolerance: Amount = 1e-4,
    ) -> None:
        given = {name: value for name, value in (("clip_low", clip_low), ("clip_high", clip_high)) if value is not None}
        self.base: PolicyLoss = BASES[base](**given)
        self.coef = coef
        self.gate = gate
        self.answer_turn = answer_turn
        self.tolerance = tolerance

    def __call__(self, logprobs_BT: Tensor, batch: Batch) -> tuple[Tensor, Metrics]:
        """Loss of each token [B,T], 0 where observed."""
        loss_BT, metrics = self.base(logprobs_BT, batch)
        drop_BT = -log_ratio(logprobs_BT, batch)
        penalty_BT = drop_BT.relu().masked_fill(~self._acts_on(drop_BT.detach(), batch), 0)
        return loss_BT + self.coef * penalty_BT, metrics | _metrics(penalty_BT.detach(), batch)

    def _acts_on(self, drop_BT: Tensor, batch: Batch) -> Tensor:
        """The tokens with A >= 0 of what fell in sum, bool [B,T]."""
        good_BT = batch.acted_BT & (advantages(batch) >= 0)
        unit_BT = batch.turn_BT if self.gate == "action" else torch.zeros_like(batch.turn_BT)
        fallen_BT = (drop_BT - self.tolerance).masked_fill(~good_BT, 0)
        fallen_BK = drop_BT.new_zeros(len(drop_BT), int(unit_BT.max()) + 1).scatter_add_(1, unit_BT, fallen_BT)
        acts_BT = good_BT & (fallen_BK.gather(1, unit_BT) > 0)
        return acts_BT if self.answer_turn else acts_BT & (batch.turn_BT < _last_turn(batch))


def _last_turn(batch: Batch) -> Tensor:
    """The last turn in which each row acted, [B,1]."""
    return (batch.turn_BT * batch.acted_BT).amax(1, keepdim=True)


def _metrics(penalty_BT: Tensor, batch: Batch) -> Metrics:
    tokens, rows = float(batch.acted_BT.sum()), float(batch.acted_BT.any(1).sum())
    acted_on = float((penalty_BT > 0).any(1).sum())
    return {"loss/llds": (float(penalty_BT.sum()), tokens), "policy/llds_episodes": (acted_on, rows)}
