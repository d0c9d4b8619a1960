"""What algorithms cost beside plain GRPO: scoring, advantages and update of the recorded demo step.

    python benchmarks/algorithms.py [--json] [--rounds 5] [--threads 1] [--dtype float32|bfloat16]

Counted is all that the learner does with a step's episodes: what it computes before the update (values, logprobs), the
advantages, and the update of the policy and of the critic, optimizers included. Rollouts are not. Every side learns
from the same rows: groups without signal are kept, since PPO learns from them too. The policy's learning rate is 0, so
that every round computes the same; the critic learns, since one that stays near 0 has gradients so small (denormal
numbers) that a CPU slows down. A ratio is how many times the cost of the side named `times`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import torch
from common import Cost, compare, describe_step, interleave, machine, median, options, recorded_step, show, timed

from forage import build
from forage.batch import collate
from forage.configure import load
from forage.models.causal_lm import load_policy
from forage.types import Batch

STILL = ["learner.lr=0.0", "learner.schedule=constant", "learner.weight_decay=0.0"]
MINIBATCHES = "learner.minibatch_questions=8"
PPO = "algorithm.advantage=gae"
SIDES: dict[str, list[str]] = {
    "grpo": ["learner.old_logprobs=sampled"],
    "grpo_correction": ["learner.correction=token"],
    "minibatches": ["learner.old_logprobs=sampled", MINIBATCHES],
    "minibatches_correction": ["learner.correction=token", MINIBATCHES],
    "ppo_own": ["learner.old_logprobs=sampled", PPO, "critic=own"],
    "ppo_own_half_its_layers": ["learner.old_logprobs=sampled", PPO, "critic=own", "critic.layers=2"],
    "ppo_own_keeping_nothing": ["learner.old_logprobs=sampled", PPO, "critic=own", "critic.keep_tokens=0"],
    "ppo_shared": ["learner.old_logprobs=sampled", PPO, "critic=shared"],
}
"""The settings of each side, over the demo's."""


def side(arguments: Any, overrides: list[str], batch: Batch) -> Callable[[], Cost]:
    """One step's scoring, advantages and update."""
    config = load("demo", [*STILL, *overrides])
    learner = build.learner(config, load_policy(arguments.model, dtype=arguments.dtype), updates=1)
    estimator = build.advantage(config)

    async def step() -> None:
        scored = await learner.score(batch)
        await learner.update(estimator(scored, reduce=lambda total: total))

    return lambda: timed(lambda: asyncio.run(step()))


def measure(arguments: Any) -> dict[str, Any]:
    groups = recorded_step(arguments.step)
    batch = collate(groups)
    costs = interleave({name: side(arguments, words, batch) for name, words in SIDES.items()}, arguments.rounds)

    def against(name: str, other: str = "grpo") -> dict[str, Any]:
        return {"times": other, **compare(costs[other], costs[name], arguments.threads)}

    return {
        "benchmark": "algorithms",
        "ppo_own": against("ppo_own"),
        "ppo_own_half_its_layers": against("ppo_own_half_its_layers"),
        "ppo_own_keeping_nothing": against("ppo_own_keeping_nothing"),
        "ppo_shared": against("ppo_shared"),
        "correction": against("grpo_correction"),
        "correction_with_minibatches": against("minibatches_correction", "minibatches"),
        "seconds": {name: median(values) for name, values in costs.items()},
        "step": describe_step(groups),
        "dtype": arguments.dtype,
        "rounds": arguments.rounds,
        "machine": machine(arguments.threads),
    }


def main() -> None:
    arguments = options(__doc__, rounds=5).parse_args()
    torch.set_num_threads(arguments.threads)
    show(measure(arguments), as_json=arguments.json)


if __name__ == "__main__":
    main()
