"""One whole GRPO step, rollouts and update: Forage, against TRL's GRPOTrainer in its own environment.

    benchmarks/trl_env.sh                       (once: makes that environment)
    python benchmarks/trl_step.py [--work fixed|ragged] [--json] [--rounds 5] [--dtype float32|bfloat16] [--trl PYTHON]

fixed    Llama of 4 layers, width 128, random weights; 24 prompts of 190-210 tokens x 8 samples x 96 tokens, none stops
ragged   the recorded demo step: its episodes, token by token, on both sides; searches are answered at once

TRL is set up well: micro-batches of 24 rows (16 and 48 cost the same), no gradient checkpointing, no logging, beta 0,
one optimizer step a rollout, weights in `--dtype`. The sides take turns, and the first round of each is dropped.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import process_time
from typing import Any

import torch
from common import HERE, Cost, compare, describe_step, interleave, machine, median, options, recorded_step, show, timed
from replay import Part, Replay, parts, rows

from forage import algorithm, build
from forage.batch import collate
from forage.config import Config
from forage.configure import load
from forage.datasets.fictional import Fictional
from forage.models.causal_lm import as_policy, load_policy
from forage.models.tiny import trained_tokenizer
from forage.registry import part
from forage.rollout import Limits, Rollout
from forage.sources.fresh import FreshSource
from forage.sources.player import Player
from forage.types import Answer, Completion, Found, Group, Question, Retry, Scores, Stop, Trajectory
from forage.weights.shared import SharedWeights

QUESTIONS, SAMPLES, NEW_TOKENS, PROMPT_TOKENS, VOCABULARY = 24, 8, 96, (190, 210), 1024
"""Of the fixed work."""
ENDS = ("</search>", "</answer>")


@dataclass
class Step:
    """Forage's step, as `forage train` makes it."""

    config: Config
    learner: Any
    engine: Any
    take: Callable[[int], Awaitable[Sequence[Group]]]
    drop_equal: bool = True
    number: int = 0
    parts: list[dict[str, float]] = field(default_factory=list)

    async def run(self) -> None:
        self.number += 1
        began = process_time()
        groups = await self.take(self.number)
        played = process_time()
        batch = collate(groups, drop_equal=self.drop_equal)
        advantage = algorithm.advantage(self.config)
        await self.learner.update(advantage(await self.learner.score(batch), reduce=lambda total: total))
        await SharedWeights(self.learner, self.engine).push(version=self.number)
        self.parts.append({"rollout_cpu_s": played - began, "update_cpu_s": process_time() - played})


class Trl:
    """The worker process that runs TRL; one step a call."""

    def __init__(self, python: Path, folder: Path, threads: int) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
        self._log = (folder / "log").open("w+")
        self._process = subprocess.Popen(
            [str(python), str(HERE / "peers" / "trl_worker.py"), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=environment,
        )
        self.parts: list[dict[str, float]] = []
        self._hear()

    def step(self) -> Cost:
        assert self._process.stdin is not None
        self._process.stdin.write("step\n")
        self._process.stdin.flush()
        took = self._hear()
        self._hear()
        self.parts.append({name: took[name] for name in ("rollout_cpu_s",)})
        self.parts[-1]["update_cpu_s"] = took["cpu_s"] - took["rollout_cpu_s"]
        return Cost(took["cpu_s"], took["wall_s"])

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)

    def _hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("@@"):
                said: dict[str, Any] = json.loads(line[2:])
                return said
        self._log.seek(0)
        raise SystemExit(f"TRL's process has ended:\n{self._log.read()[-3000:]}")


class PlainRenderer:
    """Prompts of given tokens; one turn, which is the answer."""

    stop = Stop()

    def __init__(self, prompts: dict[str, list[int]]) -> None:
        self._prompts = prompts

    def prompt(self, question: str) -> list[int]:
        return self._prompts[question]

    def parse(self, completion: Completion) -> Answer:
        return Answer(str(len(completion.tokens)))

    def observation(self, seen: Found | Retry, searches_left: int, max_tokens: int) -> list[int]:  # noqa: ARG002
        return []


async def even_share(group: Sequence[Trajectory]) -> list[Scores]:
    """Share of even tokens: differs within every group."""
    return [
        Scores(statistics.mean(token % 2 == 0 for token, acted in zip(t.tokens, t.acted, strict=True) if acted))
        for t in group
    ]


def fixed_work(arguments: Any, folder: Path) -> tuple[dict[str, Step], dict[str, Any]]:
    """Forage's step, and what TRL is told."""
    from transformers import LlamaConfig, LlamaForCausalLM

    texts = [passage.text for passage in Fictional("train", entities=400).passages()]
    tokenizer = trained_tokenizer(texts, VOCABULARY)
    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=128,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    policy = as_policy(LlamaForCausalLM(shape), tokenizer, dtype=arguments.dtype)
    policy.export(folder / "model")
    prompts = make_prompts(tokenizer, texts)
    config = load(
        "demo",
        [f"engine.dtype={arguments.dtype}", f"model.dtype={arguments.dtype}", "engine.slots=192", "learner.lr=1e-6"],
    )
    engine = part(config, "engine", policy.model, tokenizer, PROMPT_TOKENS[1] + NEW_TOKENS, True)
    rollout = Rollout(engine, PlainRenderer(prompts), None, 1, Limits(0, NEW_TOKENS, 0, 1024))  # type: ignore[arg-type]
    questions = [Question(str(i), text, ("",)) for i, text in enumerate(prompts)]
    source = FreshSource(
        questions,
        Player(rollout, even_share, samples=SAMPLES, seed=0),
        batch_questions=QUESTIONS,
        seed=0,
        max_failure_rate=0.0,
    )

    async def take(number: int) -> Sequence[Group]:
        return (await source.take(number)).groups

    step = Step(config, build.learner(config, policy, updates=1000), engine, take)
    return {"forage": step}, {"kind": "fixed", "prompts": list(prompts), "samples": SAMPLES, "max_tokens": NEW_TOKENS}


def make_prompts(tokenizer: Any, texts: Sequence[str]) -> dict[str, list[int]]:
    """Text -> tokens: so many prompts of so many tokens, which encode to themselves."""
    tokens = tokenizer.encode(" ".join(texts))
    low, high = PROMPT_TOKENS
    prompts: dict[str, list[int]] = {}
    for i in range(QUESTIONS):
        length = low + (high - low) * i // (QUESTIONS - 1)
        text = tokenizer.decode(tokens[high * i : high * i + length])
        prompts[text] = tokenizer.encode(text)
    assert len(prompts) == QUESTIONS
    assert all(low - 3 <= len(prompt) <= high + 3 for prompt in prompts.values())
    return prompts


def ragged_work(arguments: Any, folder: Path) -> tuple[dict[str, Step], dict[str, Any]]:
    """Forage's step, the same without leaving out groups of equal rewards, and what TRL is told."""
    groups = recorded_step(arguments.step)
    config = load(
        "demo",
        [f"engine.dtype={arguments.dtype}", f"model.dtype={arguments.dtype}", "learner.lr=1e-6"],
    )
    steps = {}
    for name, drop in (("forage", True), ("forage_all_groups", False)):
        policy = load_policy(arguments.model, dtype=arguments.dtype)
        replay = Replay(groups, config, policy)

        async def take(_: int, replay: Replay = replay) -> Sequence[Group]:
            return await replay.play()

        learner = build.learner(config, policy, updates=1000)
        steps[name] = Step(config, learner, replay.engine, take, drop_equal=drop)
    policy.export(folder / "model")
    ends = policy.tokenizer.convert_tokens_to_ids(list(ENDS))
    over = {*ends, policy.tokenizer.eos_token_id}
    episodes = [closed(parts(trajectory), over, policy.tokenizer.eos_token_id) for trajectory in rows(groups)]
    prompts = [policy.tokenizer.decode(group.trajectories[0].tokens[: _prompt(group)]) for group in groups]
    longest = max(sum(len(seen) + len(said) for seen, said in episode) for episode in episodes)
    samples = {len(group.trajectories) for group in groups}
    assert len(samples) == 1, "TRL needs groups of one size"
    work = {"kind": "ragged", "prompts": prompts, "samples": samples.pop(), "max_tokens": longest, "ends": ends}
    return steps, work | {"episodes": episodes}


def _prompt(group: Group) -> int:
    return group.trajectories[0].acted.index(1)


def closed(episode: Sequence[Part], ends: set[int], eos: int) -> list[tuple[list[int], list[int]]]:
    """The turns with an EOS after those that a limit cut: TRL knows no other end."""
    return [(part.observed, part.acted + [eos] * (part.acted[-1] not in ends)) for part in episode]


def measure(arguments: Any) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        steps, work = (fixed_work if arguments.work == "fixed" else ragged_work)(arguments, folder)
        work |= {"threads": arguments.threads, "dtype": arguments.dtype, "micro_rows": arguments.micro_rows}
        (folder / "work.json").write_text(json.dumps(work))
        trl = Trl(arguments.trl, folder, arguments.threads)

        def forage(step: Step) -> Callable[[], Cost]:
            return lambda: timed(lambda: asyncio.run(step.run()))

        sides = {name: forage(step) for name, step in steps.items()} | {"trl": trl.step}
        costs = interleave(sides, arguments.rounds)
        trl.close()
    spent = {name: median(costs[name]) | mean_parts(step.parts) for name, step in (steps | {"trl": trl}).items()}
    others = {name: compare(costs[name], costs["trl"], arguments.threads) for name in list(steps)[1:]}
    mine, theirs = spent["forage"], spent["trl"]
    return {
        "benchmark": f"trl_step {arguments.work}",
        **compare(costs["forage"], costs["trl"], arguments.threads),
        "peer": "trl 1.16.0 GRPOTrainer, transformers 5.23.0",
        **({"with_all_groups": others["forage_all_groups"]} if others else {}),
        **spent,
        "rollout_ratio": round(theirs["rollout_cpu_s"] / mine["rollout_cpu_s"], 2),
        "update_ratio": round(theirs["update_cpu_s"] / mine["update_cpu_s"], 2),
        **({"step": describe_step(recorded_step(arguments.step))} if arguments.work == "ragged" else {}),
        "dtype": arguments.dtype,
        "rounds": arguments.rounds,
        "trl_micro_rows": arguments.micro_rows,
        "machine": machine(arguments.threads),
    }


def mean_parts(taken: Sequence[dict[str, float]]) -> dict[str, float]:
    """Medians, the first step left out."""
    return {name: round(statistics.median(part[name] for part in taken[1:]), 3) for name in taken[0]}


def main() -> None:
    parser = options(__doc__, rounds=5)
    parser.add_argument("--work", choices=["fixed", "ragged"], default="fixed")
    parser.add_argument(
        "--trl", type=Path, default=HERE.parent / ".venv-trl/bin/python", help="the Python of TRL's environment"
    )
    parser.add_argument("--micro-rows", type=int, default=24, help="rows of TRL's micro-batches")
    arguments = parser.parse_args()
    if not arguments.trl.exists():
        raise SystemExit(f"there is no {arguments.trl}; make TRL's environment with benchmarks/trl_env.sh")
    torch.set_num_threads(arguments.threads)
    show(measure(arguments), as_json=arguments.json)


if __name__ == "__main__":
    main()
