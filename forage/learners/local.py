"""The learner of one process and one device."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from forage.aggregation import AGGREGATIONS
from forage.batch import counts, minibatches, to_device
from forage.errors import CheckpointError, TrainingError
from forage.interfaces import PolicyLoss
from forage.kl import ESTIMATORS
from forage.learners.measures import add, describe
from forage.learners.optimizer import build_optimizers
from forage.learners.packing import MicroBatch, micro_batches
from forage.learners.precision import compute_twin, frozen_copy, refresh
from forage.learners.schedule import Schedule
from forage.logprobs import head_logprobs
from forage.models.causal_lm import Policy, load_weights
from forage.models.packed import attend_packed, check_packable, hidden_states
from forage.types import Batch, Metrics

T = TypeVar("T")
log = logging.getLogger(__name__)
SAME_LOGPROBS = 1e-3  # mean |difference| up to which engine and learner count as one
STATE = ("step", "recompute_old", "bad_steps")
PATIENCE = 3  # optimizer steps in a row whose loss is not finite


class LocalLearner:
    """Updates a policy on one device.

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
        schedule: "constant", "linear" or "cosine"; moves once an update.
        warmup_steps: updates over which the learning rate rises.
        micro_tokens: packed tokens that are computed at a time.
        minibatch_questions: questions of one optimizer step; 0 takes the whole batch.
        share_prompts: compute what the samples of a question begin with once.
        kl_coef: weight of the KL to the policy that the learner was built with; 0 keeps no copy of it.
        kl_estimator: "k1", "k2", "k3" or "abs".
        entropy_coef: weight of the entropy that is added to what is maximised.
        aggregation: "token_mean", "sequence_mean" or "sequence_sum".
    """

    def __init__(
        self,
        policy: Policy,
        loss: PolicyLoss,
        temperature: float = 1.0,
        total_steps: int = 0,
        *,
        lr: float = 1e-6,
        optimizer: Literal["adamw", "muon"] = "adamw",
        muon_lr: float = 0.02,
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 0.01,
        max_grad_norm: float = 1.0,
        schedule: Literal["constant", "linear", "cosine"] = "constant",
        warmup_steps: int = 0,
        micro_tokens: int = 8192,
        minibatch_questions: int = 0,
        share_prompts: bool = True,
        kl_coef: float = 0.0,
        kl_estimator: Literal["k1", "k2", "k3", "abs"] = "k3",
        entropy_coef: float = 0.0,
        aggregation: Literal["token_mean", "sequence_mean", "sequence_sum"] = "token_mean",
    ) -> None:
        self.policy = policy
        self.loss = loss
        self.step = 0  # updates made
        self.recompute_old: bool | None = None  # whether the engine's logprobs differ from ours; None: not looked yet
        self.max_grad_norm = max_grad_norm
        self.micro_tokens = micro_tokens
        self.minibatch_questions = minibatch_questions
        self.share_prompts = share_prompts
        self.kl_coef = kl_coef
        self.entropy_coef = entropy_coef
        self.temperature = temperature
        self._kl = ESTIMATORS[kl_estimator]
        self._aggregation = AGGREGATIONS[aggregation]
        self._schedule = Schedule(schedule, warmup_steps, total_steps)
        self._optimizers = build_optimizers(
            policy.model, optimizer, lr=lr, muon_lr=muon_lr, betas=betas, weight_decay=weight_decay
        )
        check_packable(policy.model)
        self._compute = compute_twin(policy.model, policy.dtype)
        self._reference = frozen_copy(policy.model, policy.dtype) if kl_coef else None
        self._bad_steps = 0
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="learner")

    async def score(self, batch: Batch) -> Batch:
        """Fill in `ref_logprobs_BT` if there is a KL term, and `old_logprobs_BT` if the engine's own are not ours.

        The first call looks whether they are (see `check_logprobs`).
        """
        return await self._aside(lambda: self._score(to_device(batch, self.policy.device)))

    async def update(self, batch: Batch) -> Metrics:
        """One pass over the batch.

        Raises:
            TrainingError: no token's loss is finite, or the loss was not finite in three optimizer steps in a row.
        """
        return await self._aside(lambda: self._update(to_device(batch, self.policy.device)))

    async def check_logprobs(self, batch: Batch) -> float:
        """Mean |difference| between the engine's logprobs and the learner's, on a batch that was just sampled.

        From SAME_LOGPROBS on, `score` computes the ratio's denominator again from now on; below, it does no longer.
        """
        return await self._aside(lambda: self._check_logprobs(to_device(batch, self.policy.device)))

    def weights(self) -> Iterable[tuple[str, Tensor]]:
        """The float32 weights by Hugging Face name."""
        for name, weight in self.policy.model.named_parameters():
            yield name, weight.detach()

    def save(self, folder: Path) -> None:
        """Write weights (`model/`, a Hugging Face folder), optimizer and counters into an existing folder."""
        (folder / "model").mkdir()
        self.policy.write(folder / "model")
        torch.save(self._optimizers.state_dict(), folder / "optimizer.pt")
        state = (self.step, self.recompute_old, self._bad_steps)
        (folder / "learner.json").write_text(json.dumps(dict(zip(STATE, state, strict=True))))

    def load(self, folder: Path) -> None:
        """Go on from what `save` wrote, to the bit.

        Raises:
            CheckpointError: a file is missing, damaged or of another model or optimizer.
        """
        load_weights(self.policy.model, folder / "model")
        try:
            self._optimizers.load_state_dict(
                torch.load(folder / "optimizer.pt", map_location=self.policy.device, weights_only=True)
            )
            state = json.loads((folder / "learner.json").read_text())
            self.step, self.recompute_old, self._bad_steps = (state[name] for name in STATE)
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            raise CheckpointError(f"{folder}: the optimizer's state can't be used here ({error})") from error
        refresh(self._compute, self.policy.model)

    async def _aside(self, work: Callable[[], T]) -> T:
        """Run `work` in the learner's thread. A cancelled caller still waits for its end: weights are never left half
        updated while someone saves them."""
        running = asyncio.get_running_loop().run_in_executor(self._thread, work)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            await asyncio.wait([running])
            raise

    def _check_logprobs(self, batch: Batch) -> float:
        gaps_BT = (self._logprobs(self._compute, batch) - batch.sampled_logprobs_BT).abs() * batch.acted_BT
        gap = float(gaps_BT.sum() / batch.acted_BT.sum())
        self.recompute_old = not gap < SAME_LOGPROBS
        log.info("logprobs of engine and learner differ by %.2g on average, recompute: %s", gap, self.recompute_old)
        return gap

    def _score(self, batch: Batch) -> Batch:
        if self.recompute_old is None and batch.acted_BT.any():
            self._check_logprobs(batch)
        if self.recompute_old:
            batch = replace(batch, old_logprobs_BT=self._logprobs(self._compute, batch))
        if self._reference is not None:
            batch = replace(batch, ref_logprobs_BT=self._logprobs(self._reference, batch))
        return batch

    @torch.no_grad()
    def _logprobs(self, model: Any, batch: Batch) -> Tensor:
        """[B,T], 0 where observed."""
        with attend_packed(model):
            pieces = [self._forward(model, micro)[0] for micro in self._micro_batches(batch)]
        logprobs_M = torch.cat([batch.sampled_logprobs_BT.new_zeros(0), *pieces])
        return logprobs_M.new_zeros(batch.acted_BT.shape).masked_scatter(batch.acted_BT, logprobs_M)

    def _micro_batches(self, batch: Batch) -> Iterable[MicroBatch]:
        return micro_batches(batch, self.micro_tokens, share_prompts=self.share_prompts)

    def _forward(self, model: Any, micro: MicroBatch) -> tuple[Tensor, Tensor]:
        """Logprobs and entropies of the acted tokens, [M]."""
        hidden_ND = hidden_states(model, micro.tokens_N, micro.positions_N, micro.where)
        head = model.get_output_embeddings()
        bias_V = getattr(head, "bias", None)
        return head_logprobs(hidden_ND[micro.before_M], head.weight, bias_V, micro.labels_M, self.temperature)

    def _update(self, batch: Batch) -> Metrics:
        metrics: Metrics = {}
        with attend_packed(self._compute):
            for part in minibatches(batch, self.minibatch_questions):
                add(metrics, self._optimizer_step(part))
        add(metrics, {"policy/lr": (self._optimizers.rates[0] * self._factor, 1.0), "learner/tokens": (0.0, 1.0)})
        self.step += 1
        return metrics

    @property
    def _factor(self) -> float:
        return self._schedule.factor(self.step)

    def _optimizer_step(self, part: Batch) -> Metrics:
        """All micro-batches' gradients, then one step; a gradient that is not finite is thrown away and counted."""
        metrics: Metrics = {}
        rows = int(counts(part)[1].sum())
        losses = [self._accumulate(micro, part.acted_tokens, rows, metrics) for micro in self._micro_batches(part)]
        self._watch(losses)
        weights = [weight for weight in self.policy.model.parameters() if weight.requires_grad]
        for weight in weights:
            if weight.grad is None:  # nothing in the batch: momentum still moves, as if zeros had been computed
                weight.grad = torch.zeros_like(weight)
        norm = float(torch.nn.utils.clip_grad_norm_(weights, self.max_grad_norm))
        finite = norm < float("inf")
        if finite:
            self._optimizers.step(self._factor)
            refresh(self._compute, self.policy.model)
            add(metrics, {"policy/grad_norm": (norm, 1.0)})
        self._optimizers.zero_grad()
        return add(metrics, {"policy/skipped_steps": (float(not finite), 1.0)})

    def _accumulate(self, micro: MicroBatch, tokens: int, rows: int, metrics: Metrics) -> Tensor:
        """Add one micro-batch's gradient; returns the policy loss of its acted tokens [M]."""
        logprobs_M, entropy_M = self._forward(self._compute, micro)
        logprobs_BT, batch = micro.spread(logprobs_M), micro.batch
        policy_BT, extra = self.loss(logprobs_BT, batch)
        weights_BT = self._aggregation(batch.acted_BT, tokens, rows).to(logprobs_BT.dtype)
        loss_BT = policy_BT
        if batch.ref_logprobs_BT is not None and self.kl_coef:
            kl_BT = self._kl(logprobs_BT, batch.ref_logprobs_BT).masked_fill(~batch.acted_BT, 0)
            loss_BT = loss_BT + self.kl_coef * kl_BT
            extra = extra | {"loss/kl": (float(kl_BT.detach().sum()), float(len(logprobs_M)))}
        if self.entropy_coef:
            loss_BT = loss_BT - self.entropy_coef * micro.spread(entropy_M)
        (loss_BT * weights_BT).sum().backward()  # type: ignore[no-untyped-call]
        add(metrics, extra | describe(micro, logprobs_M.detach(), entropy_M.detach(), policy_BT.detach()))
        return policy_BT.detach()[batch.acted_BT]

    def _watch(self, losses: list[Tensor]) -> None:
        finite = [bool(loss.isfinite().all()) for loss in losses]
        if all(finite):
            self._bad_steps = 0
            return
        self._bad_steps += 1
        if not any(bool(loss.isfinite().any()) for loss in losses):
            raise TrainingError(_DIVERGED.format("of every token of the batch"))
        if self._bad_steps >= PATIENCE:
            raise TrainingError(_DIVERGED.format(f"in {PATIENCE} optimizer steps in a row"))


_DIVERGED = (
    "the loss is not a finite number {}. Resume from the last checkpoint with a lower learner.lr, and look at "
    "policy/grad_norm and policy/ratio_max of the steps before"
)
