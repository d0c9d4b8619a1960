"""What an update minimises: a policy loss, corrected for how tokens were sampled, and a KL and an entropy beside it."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from forage.correction import Correction
from forage.errors import ConfigError
from forage.interfaces import PolicyLoss
from forage.kl import ESTIMATORS, Coefficient, mean_of_rows
from forage.learners.denominator import denominator
from forage.types import Batch, Metrics


class KLTerm:
    """What holds the policy near its reference: a term of the loss, or a penalty in the rewards.

    Args:
        coefficient: its weight.
        estimator: a name of `forage.kl.ESTIMATORS`.
        in_reward: the penalty is taken from each acted token's reward, and advantages know of it.
    """

    def __init__(self, coefficient: Coefficient, estimator: str, *, in_reward: bool) -> None:
        self.coefficient = coefficient
        self.in_reward = in_reward
        self._estimator = ESTIMATORS[estimator]

    def reads_denominator(self, batch: Batch) -> bool:
        """Whether it takes the whole batch's denominators of the ratio before the update: a penalty does, and a measure
        where tokens are learned that were never sampled."""
        return self.in_reward or batch.sampled_BT is not None

    def penalise(self, batch: Batch) -> Batch:
        """Fill in `penalty_BT`, where it is the rewards that are lowered."""
        if not self.in_reward:
            return batch
        return replace(batch, penalty_BT=self.coefficient.value * self._estimate(denominator(batch), batch))

    def add_to(self, loss_BT: Tensor, logprobs_BT: Tensor, batch: Batch) -> tuple[Tensor, Metrics]:
        """The loss of each token [B,T] with the KL added, where it is the loss that is raised."""
        if self.in_reward or batch.ref_logprobs_BT is None:
            return loss_BT, {}
        kl_BT = self._estimate(logprobs_BT, batch)
        metrics = {"loss/kl": (float(kl_BT.detach().sum()), float(batch.acted_BT.sum()))}
        return loss_BT + self.coefficient.value * kl_BT, metrics

    def follow(self, batch: Batch) -> Metrics:
        """Measure the KL of the policy that sampled, and let the coefficient follow its target."""
        if batch.ref_logprobs_BT is None:
            return {}
        kl = mean_of_rows(self._estimate(denominator(batch), batch), batch.acted_BT)
        metrics = {"policy/kl_ref": (kl, 1.0), "policy/kl_coef": (self.coefficient.value, 1.0)}
        self.coefficient.follow(kl, len(batch.acted_BT))
        return metrics

    def _estimate(self, logprobs_BT: Tensor, batch: Batch) -> Tensor:
        """[B,T], 0 where observed."""
        assert batch.ref_logprobs_BT is not None
        return self._estimator(logprobs_BT, batch.ref_logprobs_BT).masked_fill(~batch.acted_BT, 0)


class Objective:
    """The loss of each token, before tokens are weighed.

    Args:
        loss: the policy loss.
        correction: what it is multiplied by, if anything.
        kl: a term beside it, if there is one.
        entropy_coef: weight of the entropy that is taken from it.
    """

    def __init__(self, loss: PolicyLoss, correction: Correction | None, kl: KLTerm | None, entropy_coef: float) -> None:
        self._loss, self._correction, self._kl, self._entropy_coef = loss, correction, kl, entropy_coef

    def __call__(self, logprobs_BT: Tensor, entropy_BT: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Metrics]:
        """The (corrected) policy loss, and the same with all that stands beside it, both [B,T]."""
        policy_BT, metrics = self._loss(logprobs_BT, batch)
        if self._correction:
            policy_BT, more = _corrected(policy_BT, batch, self._correction)
            metrics |= more
        loss_BT, more = self._kl.add_to(policy_BT, logprobs_BT, batch) if self._kl else (policy_BT, {})
        if self._entropy_coef:
            loss_BT = loss_BT - self._entropy_coef * entropy_BT
        return policy_BT, loss_BT, metrics | more


def _corrected(policy_BT: Tensor, batch: Batch, correction: Correction) -> tuple[Tensor, Metrics]:
    """The policy loss times the weights of a correction, [B,T]."""
    weights_BT, cut_BT = correction(denominator(batch), batch.sampled_logprobs_BT, batch.acted_BT)
    tokens = float(batch.acted_BT.sum())
    return policy_BT * weights_BT, {
        "correction/weight": (float(weights_BT.sum()), tokens),
        "correction/capped": (float(cut_BT.sum()), tokens),
    }


def corrected_by(kind: str, cap: float, floor: float) -> Correction | None:
    """The correction of a learner's options; None without one."""
    return None if kind == "none" else Correction(kind, cap, floor)


def kl_term(coef: float, estimator: str, place: str, target: float, horizon: int) -> KLTerm | None:
    """The KL term of a learner's options; None without one.

    Raises:
        ConfigError: a place or a target for a KL that weighs nothing.
    """
    if coef:
        return KLTerm(Coefficient(coef, target, horizon), estimator, in_reward=place == "reward")
    if place == "reward":
        raise ConfigError("learner.kl_in = 'reward' takes nothing from the rewards: set learner.kl_coef above 0")
    if target:
        raise ConfigError(f"learner.kl_target = {target} has nothing to begin with: set learner.kl_coef above 0")
    return None
