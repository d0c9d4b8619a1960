"""Rollouts of the recorded demo step: Forage, against a turn barrier, a new prefill every turn, and `generate`.

    python benchmarks/rollout.py [--json] [--rounds 5] [--threads 1] [--dtype float32|bfloat16]

Both sides sample as they do in training (temperature 1, whole vocabulary), and then the recorded token takes the place
of the sampled one. Forage plays the episodes with its own loop: engine, stop strings, parsing, rendering, gathering of
searches (answered from the record). The peer is handed all observed tokens; it only has to generate: all episodes that
are still going on, left-padded, in one `generate` a turn, each row over at its recorded length.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from common import Cost, compare, describe_step, interleave, machine, median, options, recorded_step, show, timed
from replay import Part, Replay, parts, rows
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from forage.configure import load
from forage.models.causal_lm import load_policy


class Force(LogitsProcessor):
    """Leaves only the given token of each row possible."""

    def __init__(self, given_RT: Tensor, width: int) -> None:
        self._given_RT, self._width = given_RT, width

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        token_R = self._given_RT[:, input_ids.shape[1] - self._width]
        return torch.full_like(scores, -torch.inf).scatter_(1, token_R[:, None], 0.0)


class Lengths(StoppingCriteria):
    """Ends each row at its length."""

    def __init__(self, total_R: Tensor) -> None:
        self._total_R = total_R

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:  # noqa: ARG002
        return input_ids.shape[1] >= self._total_R


def padded(rows: Sequence[Sequence[int]], *, left: bool) -> tuple[Tensor, Tensor]:
    """Rows to one tensor, and which of it is real."""
    width = max(map(len, rows))
    tokens = torch.zeros(len(rows), width, dtype=torch.int64)
    real = torch.zeros_like(tokens)
    for i, row in enumerate(rows):
        where = slice(width - len(row), None) if left else slice(len(row))
        tokens[i, where] = torch.tensor(row)
        real[i, where] = 1
    return tokens, real


@dataclass
class Barrier:
    """What most trainers do: every turn waits for all, and starts with its whole context."""

    model: Any
    episodes: Sequence[list[Part]]
    sampled: bool = True
    prefill_tokens: int = 0
    padded_tokens: int = 0
    decoded_rows: int = 0

    def play(self) -> None:
        self.prefill_tokens = self.padded_tokens = self.decoded_rows = 0
        contexts: list[list[int]] = [[] for _ in self.episodes]
        for turn in range(max(map(len, self.episodes))):
            going = [i for i, episode in enumerate(self.episodes) if len(episode) > turn]
            for i in going:
                contexts[i] += self.episodes[i][turn].observed
            given = [self.episodes[i][turn].acted for i in going]
            for i, tokens in zip(going, self._generate([contexts[i] for i in going], given), strict=True):
                contexts[i] += tokens

    def _generate(self, contexts: list[list[int]], given: list[list[int]]) -> list[list[int]]:
        tokens_RT, real_RT = padded(contexts, left=True)
        given_RT, _ = padded(given, left=False)
        lengths_R = torch.tensor([len(row) for row in given])
        width = tokens_RT.shape[1]
        made = self.model.generate(
            tokens_RT,
            attention_mask=real_RT,
            generation_config=GenerationConfig(
                do_sample=self.sampled,
                top_k=0 if self.sampled else None,
                max_new_tokens=given_RT.shape[1],
                pad_token_id=0,
            ),
            logits_processor=LogitsProcessorList([Force(given_RT, width)]),
            stopping_criteria=StoppingCriteriaList([Lengths(width + lengths_R)]),
        )[:, width:]
        self.prefill_tokens += int(real_RT.sum())
        self.padded_tokens += real_RT.numel()
        self.decoded_rows += made.numel()
        out = [row[: len(wanted)].tolist() for row, wanted in zip(made, given, strict=True)]
        assert out == given, "the tokens that came out are not the recorded ones"
        return out


def measure(arguments: Any) -> dict[str, Any]:
    groups = recorded_step(arguments.step)
    overrides = [f"engine.dtype={arguments.dtype}", f"rollout.questions={len(groups)}"]
    policy = load_policy(arguments.model)
    replay = Replay(groups, load("demo", overrides), policy)
    model = load_policy(arguments.model).model.to(getattr(torch, arguments.dtype)).eval()
    model.generation_config = GenerationConfig(pad_token_id=0)
    episodes = [parts(trajectory) for trajectory in rows(groups)]
    barrier, greedy = Barrier(model, episodes), Barrier(model, episodes, sampled=False)
    replay.check(asyncio.run(replay.play()))
    replay.engine.take_stats()
    stats: list[dict[str, float]] = []

    def forage() -> Cost:
        replay.engine.load_weights(policy.model.named_parameters(), 0)  # no KV outlives a step
        cost = timed(lambda: asyncio.run(replay.play()))
        stats.append(replay.engine.take_stats())
        return cost

    def peer(side: Barrier) -> Callable[[], Cost]:
        return lambda: timed(torch.inference_mode()(side.play))

    costs = interleave({"forage": forage, "peer": peer(barrier), "peer_argmax": peer(greedy)}, arguments.rounds)
    acted = stats[-1]["decode_tokens"]
    ours, theirs = median(costs["forage"]), median(costs["peer"])
    return {
        "benchmark": "rollout",
        **compare(costs["forage"], costs["peer"], arguments.threads),
        "peer": "turn barrier + whole context prefilled each turn + generate (transformers), left-padded",
        "without_sampling": compare(costs["forage"], costs["peer_argmax"], arguments.threads),
        "forage": ours
        | {
            "tokens_per_cpu_s": round(acted / ours["cpu_s"]),
            "prefill_tokens": int(stats[-1]["prefill_tokens"]),
            "reused_tokens": int(stats[-1]["reused_tokens"]),
            "decoded_tokens": int(acted),
            "prefill_s": round(stats[-1]["prefill_seconds"], 3),
            "decode_s": round(stats[-1]["decode_seconds"], 3),
            "ticks": int(stats[-1]["ticks"]),
        },
        "peer_parts": theirs
        | {
            "argmax_cpu_s": median(costs["peer_argmax"])["cpu_s"],
            "tokens_per_cpu_s": round(acted / theirs["cpu_s"]),
            "prefill_tokens": barrier.prefill_tokens,
            "prefill_tokens_padded": barrier.padded_tokens,
            "decoded_tokens_padded": barrier.decoded_rows,
        },
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
