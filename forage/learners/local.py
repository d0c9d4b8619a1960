"""The learner of one process and one device."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from forage.aggregation import aggregation as aggregation_of
from forage.batch import counts, minibatches, to_device
from forage.config import Amount, Count, Positive
from forage.errors import CheckpointError
from forage.interfaces import PolicyLoss
from forage.learners.aside import Aside
from forage.learners.critic import NoCritic, Weigh
from forage.learners.denominator import Denominator
from forage.learners.forward import Forward
from forage.learners.measures import add, describe, mismatch
from forage.learners.optimizer import build_optimizers
from forage.learners.packing import MicroBatch
from forage.learners.precision import compute_twin, frozen_copy, refresh
from forage.learners.schedule import Schedule
from forage.learners.terms import Objective, corrected_by, kl_term
from forage.learners.values import as_judged, describe_values
from forage.learners.watch import Watch
from forage.models.causal_lm import Policy, load_weights
from forage.models.packed import attend_packed, check_packable
from forage.types import Batch, Metrics

STATE = ("step", "recompute_old", "bad_steps", "kl_coef")


class LocalLearner:
    """Updates a policy, and its critic if there is one, on one device.

    The loss of an optimizer step is a sum over acted tokens with the weights of `aggregation`, by default 1 / acted
    tokens of the step; micro-batches only add up. One optimizer step is made for each `minibatch_questions`.
    Logits are divided by `temperature`, as in sampling; "linear" and "cosine" schedules reach 0 after `total_steps`.

    Args:
        lr: learning rate of AdamW.
        optimizer: "adamw", or "muon" for the hidden matrices with AdamW for all else.
        muon_lr: learning rate of Muon.
        betas: of AdamW.
        weight_decay: of the matrices; norms and biases are not decayed.
        max_grad_norm: gradients are scaled down to this norm.
        schedule: "constant", "linear" or "cosine"; moves once an update, from the one in which the policy first learns.
        warmup_steps: updates over which the learning rate rises.
        micro_tokens: packed tokens that are computed at a time.
        minibatch_questions: questions of one optimizer step; 0 takes the whole batch.
        share_prompts: compute what the samples of a question begin with once.
        old_logprobs: denominator of the ratio: what a token was "sampled" at, the learner's own ("recomputed"), or
            "auto", which takes the learner's own where the engine's differ by 1e-3 or more on the first batch. With a
            correction the learner's own stand there always, and "auto" trusts an engine that agrees with it: what it
            sampled with these very weights is not computed again.
        correction: weigh tokens by p_learner / p_engine, cut at the cap: by "token", or by "sequence" (the product over
            a row); "token_mask" and "sequence_mask" leave out what is not between floor and cap.
        correction_cap: the largest weight.
        correction_floor: the smallest weight that a mask keeps.
        kl_coef: weight of the KL to the policy that the learner was built with; 0 keeps no copy of it.
        kl_estimator: "k1", "k2", "k3" or "abs".
        kl_in: where the KL stands: in the "loss", or in the "reward" of each token.
        kl_target: KL that the weight is moved to keep (mean over rows of a row's mean); 0 leaves the weight as it is.
        kl_horizon: rows after which a KL off by 20% or more has moved the weight by about 20%.
        entropy_coef: weight of the entropy that is added to what is maximised.
        aggregation: "token_mean", "sequence_mean", "sequence_sum" or "constant".
        aggregation_constant: what "constant" divides a row's sum by.
    """

    def __init__(
        self,
        policy: Policy,
        loss: PolicyLoss,
        temperature: float = 1.0,
        total_steps: int = 0,
        critic: NoCritic | None = None,
        *,
        lr: Amount = 1e-6,
        optimizer: Literal["adamw", "muon"] = "adamw",
        muon_lr: Amount = 0.02,
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: Amount = 0.01,
        max_grad_norm: Amount = 1.0,
        schedule: Literal["constant", "linear", "cosine"] = "constant",
        warmup_steps: Count = 0,
        micro_tokens: Positive = 8192,
        minibatch_questions: Count = 0,
        share_prompts: bool = True,
        old_logprobs: Literal["auto", "sampled", "recomputed"] = "auto",
        correction: Literal["none", "token", "sequence", "token_mask", "sequence_mask"] = "none",
        correction_cap: Amount = 2.0,
        correction_floor: Amount = 0.0,
        kl_coef: Amount = 0.0,
        kl_estimator: Literal["k1", "k2", "k3", "abs"] = "k3",
        kl_in: Literal["loss", "reward"] = "loss",
        kl_target: Amount = 0.0,
        kl_horizon: Positive = 10_000,
        entropy_coef: float = 0.0,
        aggregation: Literal["token_mean", "sequence_mean", "sequence_sum", "constant"] = "token_mean",
        aggregation_constant: Amount = 0.0,
    ) -> None:
        self.policy = policy
        self.loss = loss
        self.critic = critic or NoCritic()
        self.step = 0  # updates made
        self.old = Denominator(old_logprobs, correction)
        self.max_grad_norm = max_grad_norm
        self.minibatch_questions = minibatch_questions
        self.kl = kl_term(kl_coef, kl_estimator, kl_in, kl_target, kl_horizon)
        self._forward = Forward(temperature, micro_tokens, share_prompts)
        correct = corrected_by(correction, correction_cap, correction_floor)
        self._objective = Objective(loss, correct, self.kl, entropy_coef)
        self._aggregation = aggregation_of(aggregation, aggregation_constant)
        self._schedule = Schedule(schedule, warmup_steps, total_steps - self.critic.warmup_steps)
        self._optimizers = build_optimizers(
            policy.model, optimizer, lr=lr, muon_lr=muon_lr, betas=betas, weight_decay=weight_decay
        )
        check_packable(policy.model)
        self._compute = compute_twin(policy.model, policy.dtype)
        self._reference = frozen_copy(policy.model, policy.dtype) if self.kl else None
        self._watch = Watch()
        self._learned = False  # whether the weights are others than those at the beginning, as far as is known
        self._whole = True  # whether the weights are those after a whole update
        self._aside = Aside("learner")

    async def score(self, batch: Batch) -> Batch:
        """Fill in what advantages need: `ref_logprobs_BT` if there is a KL term, `values_BT` if there is a critic, and
        `old_logprobs_BT` if a KL in the reward reads the learner's own. (Else the update computes what it needs of
        them.)

        With old_logprobs = "auto" the first call with tokens of these weights looks whether they are wanted (see
        `check_logprobs`).
        """
        return await self._aside(lambda: self._score(to_device(batch, self.policy.device)))

    async def update(self, batch: Batch) -> Metrics:
        """One pass over the batch.

        Raises:
            TrainingError: no token's loss is finite, or the loss was not finite in three optimizer steps in a row.
        """
        return await self._aside(lambda: self._update(to_device(batch, self.policy.device)))

    async def logprobs(self, batch: Batch) -> Tensor:
        """The learner's own logprobs of acted tokens [B,T], 0 elsewhere, with the weights as they are."""
        return await self._aside(lambda: self._forward.logprobs(self._compute, to_device(batch, self.policy.device)))

    async def check_logprobs(self, batch: Batch) -> float:
        """Mean |difference| between the engine's logprobs and the learner's, on a batch that was just sampled.

        From 1e-3 on, the ratio's denominator is the learner's from now on; below, it is the engine's.
        """
        return await self._aside(lambda: self._check_logprobs(to_device(batch, self.policy.device)))

    def weights(self) -> Iterable[tuple[str, Tensor]]:
        """The float32 weights by Hugging Face name."""
        for name, weight in self.policy.model.named_parameters():
            yield name, weight.detach()

    def save(self, folder: Path) -> None:
        """Write weights (`model/`, a Hugging Face folder), optimizer, counters and critic into an existing folder.

        Raises:
            CheckpointError: the last update failed after some of its optimizer steps.
        """
        if not self._whole:
            raise CheckpointError("the last update failed after some of its optimizer steps")
        (folder / "model").mkdir()
        self.policy.write(folder / "model")
        torch.save(self._optimizers.state_dict(), folder / "optimizer.pt")
        kl_coef = self.kl.coefficient.value if self.kl else 0.0
        state = (self.step, self.old.recompute, self._watch.bad_steps, kl_coef)
        (folder / "learner.json").write_text(json.dumps(dict(zip(STATE, state, strict=True))))
        self.critic.save(folder / "critic")

    def load(self, folder: Path) -> None:
        """Go on from what `save` wrote, to the bit.

        Raises:
            CheckpointError: a file is missing, damaged or of another model, optimizer or critic.
        """
        load_weights(self.policy.model, folder / "model")
        try:
            self._optimizers.load_state_dict(
                torch.load(folder / "optimizer.pt", map_location=self.policy.device, weights_only=True)
            )
            state = json.loads((folder / "learner.json").read_text())
            self.step, self.old.recompute, self._watch.bad_steps, kl_coef = (state[name] for name in STATE)
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            raise CheckpointError(f"{folder}: the optimizer's state can't be used here ({error})") from error
        if self.kl:
            self.kl.coefficient.value = kl_coef
        self.critic.load(folder / "critic")
        refresh(self._compute, self.policy.model)

    def _check_logprobs(self, batch: Batch) -> float:
        return self.old.compare(batch, self._forward.logprobs(self._compute, batch))

    def _score(self, batch: Batch) -> Batch:
        fresh_BT = batch.acted_BT & (batch.version_BT == self.step if self._learned else True)
        if self.old.recompute is None and fresh_BT.any():  # older tokens differ for another reason
            self._check_logprobs(batch)
        if self.kl:
            if self.kl.reads_denominator(batch) and self.old.unknown(batch, self.step).any():
                batch = self.old.settle(batch, self._forward.logprobs(self._compute, batch))
            batch = self.kl.penalise(replace(batch, ref_logprobs_BT=self._forward.logprobs(self._reference, batch)))
        return replace(batch, values_BT=self._judged(as_judged(batch)).values_BT)

    def _judged(self, batch: Batch) -> Batch:
        """With the critic's values."""
        if not self.critic.judges:
            return batch
        first, *others = [self._forward.packed(part) for part in minibatches(batch, self.minibatch_questions)] or [[]]
        with attend_packed(self._compute), self.critic.attending():
            return self.critic.judge(batch, [*first, *chain(*others)], self._compute, first=len(first))

    def _update(self, batch: Batch) -> Metrics:
        metrics = describe_values(as_judged(batch))
        with attend_packed(self._compute), self.critic.attending():
            for number, (part, micros) in enumerate(self._parts(batch)):
                add(metrics, self._optimizer_step(part, micros, first=number == 0))
        add(metrics, {"policy/lr": (self._optimizers.rates[0] * self._factor, 1.0), "learner/tokens": (0.0, 1.0)})
        if self.kl:
            add(metrics, self.kl.follow(batch))
        self.step += 1
        self._whole = True
        return metrics

    @property
    def _factor(self) -> float:
        return self._schedule.factor(max(self.step - self.critic.warmup_steps, 0))

    def _parts(self, batch: Batch) -> list[tuple[Batch, list[MicroBatch]]]:
        """What each optimizer step learns from. All but the first will meet other weights: they are given the
        denominator of the ratio beforehand, which the first takes from its own forward pass."""
        parts = [(part, self._forward.packed(part)) for part in minibatches(batch, self.minibatch_questions)]
        if batch.advantages_BT is None or self._starts_alone(batch):
            return parts
        return [*parts[:1], *((part, [self._settled(micro) for micro in micros]) for part, micros in parts[1:])]

    @torch.no_grad()
    def _settled(self, micro: MicroBatch) -> MicroBatch:
        """With the denominator of the ratio, which is computed only where it isn't known."""
        own_BT = micro.batch.sampled_logprobs_BT
        if self.old.unknown(micro.batch, self.step).any():
            own_BT = micro.spread(self._forward(self._compute, micro)[1])
        return replace(micro, batch=self.old.settle(micro.batch, own_BT))

    def _starts_alone(self, batch: Batch) -> bool:
        """Whether a critic learns from the batch while the policy waits for it."""
        return batch.returns_BT is not None and self.step < self.critic.warmup_steps

    def _optimizer_step(self, part: Batch, micros: list[MicroBatch], *, first: bool) -> Metrics:
        """All micro-batches' gradients, then one step of the policy and one of the critic, which starts alone."""
        alone = self._starts_alone(part)
        metrics: Metrics = {} if alone else self._policy_step(micros, self._weigh(part), first=first)
        if part.returns_BT is not None:
            self._whole = False
            seen = as_judged(part)
            micros = micros if seen is part else self._forward.packed(seen)
            add(metrics, self.critic.learn(micros, self._weigh(seen), self._compute, alone=alone))
        return metrics

    def _weigh(self, part: Batch) -> Weigh:
        """The weights of the tokens of an optimizer step, for each of its micro-batches."""
        tokens, rows = part.acted_tokens, int(counts(part)[1].sum())
        return lambda batch: self._aggregation(batch.acted_BT, tokens, rows)

    def _policy_step(self, micros: Sequence[MicroBatch], weigh: Weigh, *, first: bool) -> Metrics:
        """A gradient that is not finite is thrown away and counted."""
        metrics: Metrics = {}
        self._watch([self._accumulate(micro, weigh, metrics, first=first) for micro in micros])
        self._learned |= bool(micros)
        self._whole = False
        norm, finite = self._optimizers.clip_and_step(self.max_grad_norm, self._factor)
        if finite:
            refresh(self._compute, self.policy.model)
            add(metrics, {"policy/grad_norm": (norm, 1.0)})
        return add(metrics, {"policy/skipped_steps": (float(not finite), 1.0)})

    def _accumulate(self, micro: MicroBatch, weigh: Weigh, metrics: Metrics, *, first: bool) -> Tensor:
        """Add one micro-batch's gradient; returns the policy loss of its acted tokens [M]."""
        hidden_MD, logprobs_M, entropy_M = self._forward(self._compute, micro)
        logprobs_BT, batch = micro.spread(logprobs_M), micro.batch
        if first:  # nothing was learned from the batch yet
            own_BT = logprobs_BT.detach()
            batch = self.old.settle(batch, own_BT)
            if batch.advantages_BT is not None:  # in supervised learning nothing was sampled
                add(metrics, mismatch(batch, own_BT, self.step))
        policy_BT, loss_BT, more = self._objective(logprobs_BT, micro.spread(entropy_M), batch)
        beside, of_values = self.critic.term(micro, hidden_MD, weigh)
        (beside + (loss_BT * weigh(batch).to(loss_BT.dtype)).sum()).backward()  # type: ignore[no-untyped-call]
        add(metrics, more | of_values)
        add(metrics, describe(micro, batch, logprobs_M.detach(), entropy_M.detach(), policy_BT.detach()))
        return policy_BT.detach()[batch.acted_BT]
