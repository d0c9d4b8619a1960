"""What algorithms cost beside plain GRPO: scoring, advantages and update of the recorded demo step.

    python benchmarks/algorithms.py [--json] [--about all|critic|correction] [--rounds 5] [--threads 1]

Counted is all that the learner does with a step's episodes: what it computes before the update (values, logprobs), the
advantages, and the update of the policy and of the critic, optimizers included. Rollouts are not. Every side learns
from the same rows: groups without signal are kept, since PPO learns from them too. The policy's learning rate is 0, so
that every round computes the same; the critic learns. A ratio is how many times the cost of the side named `times`.

Tokens are fresh: sampled by the very weights that learn, by an engine that agrees with the learner (the recorded
logprobs are replaced by the learner's own). On the sides named `older` they are of weights before, so that what the
learner gives them is not known without a forward pass, as with an engine that disagrees.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from common import Cost, compare, describe_step, interleave, machine, median, options, recorded_step, show, timed
from torch import Tensor

from forage import algorithm, build
from forage.batch import collate
from forage.configure import load
from forage.models.causal_lm import load_policy
from forage.types import Batch

STILL = ["learner.lr=0.0", "learner.schedule=constant", "learner.weight_decay=0.0"]
SAMPLED = "learner.old_logprobs=sampled"
MINIBATCHES = "learner.minibatch_questions=8"
PPO = [SAMPLED, "algorithm.advantage=gae"]
SIDES: dict[str, list[str]] = {
    "grpo": [SAMPLED],
    "correction": ["learner.correction=token"],
    "correction_older": ["learner.correction=token"],
    "minibatches": [SAMPLED, MINIBATCHES],
    "minibatches_recomputed": ["learner.old_logprobs=recomputed", MINIBATCHES],
    "minibatches_correction": ["learner.correction=token", MINIBATCHES],
    "minibatches_correction_older": ["learner.correction=token", MINIBATCHES],
    "ppo_own": [*PPO, "critic=own"],
    "ppo_own_half_its_layers": [*PPO, "critic=own", "critic.layers=2"],
    "ppo_own_keeping_nothing": [*PPO, "critic=own", "critic.keep_tokens=0"],
    "ppo_shared": [*PPO, "critic=shared"],
}
"""The settings of each side, over the demo's."""

COMPARED: dict[str, list[tuple[str, str]]] = {
    "critic": [
        *(("ppo_own", "grpo"), ("ppo_own_half_its_layers", "grpo"), ("ppo_own_keeping_nothing", "grpo")),
        ("ppo_shared", "grpo"),
    ],
    "correction": [
        *(("correction", "grpo"), ("correction_older", "grpo")),
        *(("minibatches_correction", "minibatches"), ("minibatches_correction_older", "minibatches")),
        ("minibatches_recomputed", "minibatches"),
        ("minibatches_correction_older", "minibatches_recomputed"),
    ],
}
"""A side, and the one whose cost is 1."""


def own_logprobs(arguments: Any, batch: Batch) -> Tensor:
    """What the learner gives the acted tokens, [B,T]."""
    learner = build.learner(load("demo"), load_policy(arguments.model, dtype=arguments.dtype), updates=1)
    own_BT: Tensor = asyncio.run(learner.logprobs(batch))
    return own_BT


def side(arguments: Any, name: str, batch: Batch) -> Callable[[], Cost]:
    """One step's scoring, advantages and update."""
    config = load("demo", [*STILL, *SIDES[name]])
    learner = build.learner(config, load_policy(arguments.model, dtype=arguments.dtype), updates=1)
    estimator = algorithm.advantage(config)
    asyncio.run(learner.score(batch))  # tells whether engine and learner agree, once a run
    age = int(name.endswith("_older"))

    async def step() -> None:
        scored = await learner.score(batch)
        await learner.update(estimator(scored, reduce=lambda total: total))

    def one() -> Cost:
        learner.step = age
        return timed(lambda: asyncio.run(step()))

    return one


def measure(arguments: Any) -> dict[str, Any]:
    groups = recorded_step(arguments.step)
    batch = collate(groups)
    batch = replace(batch, sampled_logprobs_BT=own_logprobs(arguments, batch))
    about = list(COMPARED) if arguments.about == "all" else [arguments.about]
    pairs = [pair for topic in about for pair in COMPARED[topic]]
    names = [name for name in SIDES if any(name in pair for pair in pairs)]
    costs = interleave({name: side(arguments, name, batch) for name in names}, arguments.rounds)
    return {
        "benchmark": "algorithms",
        **{
            f"{ours} / {theirs}": {"times": theirs, **compare(costs[theirs], costs[ours], arguments.threads)}
            for ours, theirs in pairs
        },
        "seconds": {name: median(values) for name, values in costs.items()},
        "step": describe_step(groups),
        "dtype": arguments.dtype,
        "rounds": arguments.rounds,
        "machine": machine(arguments.threads),
    }


def main() -> None:
    parser = options(__doc__, rounds=5)
    parser.add_argument("--about", choices=["all", *COMPARED], default="all", help="what is compared")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    show(measure(arguments), as_json=arguments.json)


if __name__ == "__main__":
    main()
