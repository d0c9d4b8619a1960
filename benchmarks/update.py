"""One optimizer step on the recorded demo step: Forage's learner, against a batch padded to the longest.

    python benchmarks/update.py [--json] [--rounds 7] [--threads 1] [--dtype float32|bfloat16]

The peer computes the same loss with the same model, optimizer and micro-batch tokens (rows x longest row), the batch
padded on the right and logits computed for every position. It is spared what it can do without: an attention mask
(causality suffices to the left of padding) and the entropy. Gradients are compared first. Both then make the step at a
learning rate of 0, so that every round computes the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import torch
from common import Cost, compare, describe_step, interleave, machine, median, options, recorded_step, show, timed
from torch import Tensor

from forage import algorithm, build
from forage.aggregation import token_mean
from forage.batch import collate, select
from forage.configure import load
from forage.learners.optimizer import build_optimizers
from forage.models.causal_lm import load_policy
from forage.registry import part
from forage.types import Batch, Group

SAME = 1e-5
"""Largest difference of a gradient, relative to the largest gradient (float32)."""


class Padded:
    """The textbook update: [rows, longest] at a time, logits everywhere."""

    def __init__(self, model: Any, loss: Any, micro_tokens: int) -> None:
        self.model, self.loss, self._micro_tokens = model, loss, micro_tokens
        self._optimizers = build_optimizers(model, "adamw", lr=0.0, muon_lr=0.0, betas=(0.9, 0.999), weight_decay=0.0)

    def update(self, batch: Batch) -> None:
        rows, width = batch.tokens_BT.shape
        size = max(1, self._micro_tokens // width)
        for first in range(0, rows, size):
            self._accumulate(batch, torch.arange(first, min(first + size, rows)), width)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self._optimizers.step(1.0)

    def _accumulate(self, batch: Batch, rows_R: Tensor, width: int) -> None:
        part = _widened(select(batch, rows_R), width)
        logits_BTV = self.model(input_ids=part.tokens_BT, use_cache=False).logits[:, :-1].float()
        logprobs_BT = logits_BTV.log_softmax(-1).gather(-1, part.tokens_BT[:, 1:, None]).squeeze(-1)
        logprobs_BT = torch.nn.functional.pad(logprobs_BT, (1, 0)) * part.acted_BT
        loss_BT, _ = self.loss(logprobs_BT, part)
        (loss_BT * token_mean(part.acted_BT, batch.acted_tokens, rows=0)).sum().backward()


def _widened(part: Batch, width: int) -> Batch:
    """Padded to the longest of the whole step, as a batch that is padded once is."""
    more = (0, width - part.tokens_BT.shape[1])
    for name in ("tokens_BT", "acted_BT", "sampled_logprobs_BT", "old_logprobs_BT", "advantages_BT"):
        value = getattr(part, name)
        setattr(part, name, None if value is None else torch.nn.functional.pad(value, more))
    return part


def gradients(model: Any, work: Callable[[], object]) -> dict[str, Tensor]:
    """The gradients that `work` accumulates in a model's weights, before they are clipped."""
    found: dict[str, Tensor] = {}
    named = {weight: name for name, weight in model.named_parameters()}

    def keep(weight: Tensor) -> None:
        assert weight.grad is not None
        found[named[weight]] = weight.grad.clone()

    hooks = [weight.register_post_accumulate_grad_hook(keep) for weight in named]
    work()
    for hook in hooks:
        hook.remove()
    return found


def largest_difference(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """Relative to the largest gradient of all."""
    scale = max(float(gradient.abs().max()) for gradient in theirs.values())
    return max(float((ours[name] - theirs[name]).abs().max()) for name in theirs) / scale


def advantaged(config: Any, learner: Any, groups: Sequence[Group], *, drop_equal: bool) -> Batch:
    """The batch with advantages, and with old logprobs of the weights as they are, so that the ratio begins at 1."""
    batch = collate(groups, drop_equal=drop_equal)
    batch.old_logprobs_BT = asyncio.run(learner.logprobs(batch))
    scored: Batch = algorithm.advantage(config)(batch, reduce=lambda total: total)
    return scored


def measure(arguments: Any) -> dict[str, Any]:
    groups = recorded_step(arguments.step)
    overrides = ["learner.lr=0.0", "learner.schedule=constant", "learner.weight_decay=0.0"]
    config = load("demo", overrides)
    learners = {
        share: build.learner(
            load("demo", [*overrides, f"learner.share_prompts={str(share).lower()}"]),
            load_policy(arguments.model, dtype=arguments.dtype),
            updates=1,
        )
        for share in (True, False)
    }
    shared, plain = learners[True], learners[False]
    model = load_policy(arguments.model).model.to(getattr(torch, arguments.dtype))
    peer = Padded(model, part(config, "algorithm.loss"), config.learner.options["micro_tokens"])
    whole = advantaged(config, shared, groups, drop_equal=False)
    signal = advantaged(config, shared, groups, drop_equal=True)

    ours = gradients(shared.policy.model, lambda: asyncio.run(shared.update(whole)))
    difference = largest_difference(ours, gradients(model, lambda: peer.update(whole)))
    if arguments.dtype == "float32" and difference > SAME:
        raise SystemExit(f"the two sides compute different gradients: largest relative difference {difference:.2g}")

    def forage(learner: Any, batch: Batch) -> Callable[[], Cost]:
        return lambda: timed(lambda: asyncio.run(learner.update(batch)))

    costs = interleave(
        {
            "shared_prompts": forage(shared, whole),
            "packed": forage(plain, whole),
            "with_signal_only": forage(shared, signal),
            "peer": lambda: timed(lambda: peer.update(whole)),
            "peer_with_signal_only": lambda: timed(lambda: peer.update(signal)),
        },
        arguments.rounds,
    )

    def against(ours: str, theirs: str = "peer") -> dict[str, Any]:
        return compare(costs[ours], costs[theirs], arguments.threads)

    return {
        "benchmark": "update",
        **against("shared_prompts"),
        "peer": "same loss, optimizer and micro-batch tokens; padded to the longest, logits for every position",
        "packed_only": against("packed"),
        "groups_without_signal_left_out": against("with_signal_only"),
        "both_leave_them_out": against("with_signal_only", "peer_with_signal_only"),
        "gradient_difference": difference,
        "seconds": {name: median(values) for name, values in costs.items()},
        "tokens": {
            "packed": int(whole.lengths_B.sum()),
            "padded": whole.tokens_BT.numel(),
            "acted": int(whole.acted_BT.sum()),
            "micro_batch": config.learner.options["micro_tokens"],
        },
        "step": describe_step(groups),
        "dtype": arguments.dtype,
        "rounds": arguments.rounds,
        "machine": machine(arguments.threads),
    }


def main() -> None:
    arguments = options(__doc__, rounds=7).parse_args()
    torch.set_num_threads(arguments.threads)
    show(measure(arguments), as_json=arguments.json)


if __name__ == "__main__":
    main()
