"""Decoded tokens a second of the local engine, as a share of what the machine could do.

    python benchmarks/decode_limit.py [--json] [--threads 1] [--dtype float32|bfloat16] [--rounds 7]

The load is a demo-like rollout: 128 episodes of three turns, about 15 sampled tokens a turn and 36 observed ones
between, on a model of 4 layers and width 128. Prefill and search time are left out on both sides. The limit is the time
of the matrix products with the weights, at each step's batch, plus one read of the KV in use (no padding) at the
bandwidth of a plain sum over as many contiguous bytes. Both are measured in this process, in turns with the engine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
from dataclasses import dataclass
from time import perf_counter

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from forage.engines.local import LocalEngine
from forage.testing import ByteTokenizer
from forage.types import Sampling

EPISODES, GROUP, PROMPT, TURNS, SAMPLED, OBSERVED = 128, 8, 24, 3, (10, 20), (30, 42)
CONFIG = LlamaConfig(
    vocab_size=1024,
    hidden_size=128,
    intermediate_size=512,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=32,
    tie_word_embeddings=True,
    max_position_embeddings=512,
    eos_token_id=None,
)


@dataclass(frozen=True)
class Episode:
    """One episode's tokens: the prompt, and for each turn how many are sampled and which are then observed."""

    group: int
    prompt: list[int]
    turns: list[tuple[int, list[int]]]

    def contexts(self) -> list[int]:
        """KV tokens in use at each of the episode's decoding steps."""
        lengths, length = [], len(self.prompt)
        for sampled, observed in self.turns:
            lengths += range(length, length + sampled)
            length += sampled + len(observed)
        return lengths


def make_load(seed: int = 0) -> list[Episode]:
    rng = random.Random(seed)
    prompts = [rng.choices(range(1024), k=PROMPT) for _ in range(EPISODES // GROUP)]
    return [
        Episode(
            group,
            prompts[group],
            [(rng.randint(*SAMPLED), rng.choices(range(1024), k=rng.randint(*OBSERVED))) for _ in range(TURNS)],
        )
        for group in range(EPISODES // GROUP)
        for _ in range(GROUP)
    ]


async def play(engine: LocalEngine, load: list[Episode]) -> None:
    async def one(number: int, episode: Episode) -> None:
        context = episode.prompt
        async with engine.session(str(episode.group)) as session:
            for turn, (sampled, observed) in enumerate(episode.turns):
                completion = await session.generate(context, Sampling(sampled, seed=TURNS * number + turn))
                context = context + completion.tokens + observed

    await asyncio.gather(*(one(number, episode) for number, episode in enumerate(load)))


def steps(load: list[Episode]) -> list[tuple[int, int]]:
    """Rows and KV tokens in use of each decoding step: in lockstep an episode decodes in every one until it ends."""
    contexts = [episode.contexts() for episode in load]
    return [
        (sum(len(c) > step for c in contexts), sum(c[step] for c in contexts if len(c) > step))
        for step in range(max(map(len, contexts)))
    ]


class Products:
    """The matrix products of decoding steps, and nothing else; matrices are [in, out], with which they are fastest."""

    def __init__(self, dtype: torch.dtype) -> None:
        c = CONFIG
        head_rows = (c.num_attention_heads + 2 * c.num_key_value_heads) * c.head_dim
        shapes = [
            (c.hidden_size, head_rows),
            (c.num_attention_heads * c.head_dim, c.hidden_size),
            (c.hidden_size, c.intermediate_size),
            (c.hidden_size, c.intermediate_size),
            (c.intermediate_size, c.hidden_size),
        ] * c.num_hidden_layers + [(c.hidden_size, c.vocab_size)]
        self._weights = [torch.randn(shape, dtype=dtype) for shape in shapes]
        self._inputs = {n: torch.randn(EPISODES, n, dtype=dtype) for n, _ in shapes}

    def seconds(self, load: list[Episode]) -> float:
        started = perf_counter()
        for rows, _ in steps(load):
            for weight in self._weights:
                torch.mm(self._inputs[weight.shape[0]][:rows], weight)
        return perf_counter() - started


def read_seconds(load: list[Episode], token_bytes: int, memory: torch.Tensor) -> float:
    """Seconds to read the KV in use once a step, had it lain in one contiguous piece."""
    started = perf_counter()
    for _, tokens in steps(load):
        memory[: tokens * token_bytes // 4].sum()
    return perf_counter() - started


@torch.inference_mode()
def measure(dtype: str, rounds: int) -> dict[str, object]:
    load = make_load()
    engine = LocalEngine(
        LlamaForCausalLM(CONFIG), ByteTokenizer(), slots=EPISODES, max_tokens=256, dtype=dtype, lockstep=True
    )
    products = Products(getattr(torch, dtype))
    token_bytes = 2 * CONFIG.num_hidden_layers * CONFIG.num_key_value_heads * CONFIG.head_dim * engine.kv_dtype.itemsize
    memory = torch.ones(max(tokens for _, tokens in steps(load)) * token_bytes // 4)
    engine_s, prefill_s, products_s, read_s = [], [], [], []
    for _ in range(rounds + 1):  # the first one warms up
        asyncio.run(play(engine, load))
        stats = engine.take_stats()
        engine_s.append(stats["decode_seconds"])
        prefill_s.append(stats["prefill_seconds"])
        products_s.append(products.seconds(load))
        read_s.append(read_seconds(load, token_bytes, memory))
    shares = [(p + r) / e for e, p, r in zip(engine_s[1:], products_s[1:], read_s[1:], strict=True)]
    tokens = stats["decode_tokens"]
    engine_median, products_median, read_median = (statistics.median(s[1:]) for s in (engine_s, products_s, read_s))
    return {
        "share": statistics.median(shares),
        "shares": [round(share, 3) for share in shares],
        "tokens_per_s": tokens / engine_median,
        "limit_tokens_per_s": tokens / (products_median + read_median),
        "decode_s": engine_median,
        "products_s": products_median,
        "kv_read_s": read_median,
        "kv_gigabytes": sum(n for _, n in steps(load)) * token_bytes / 1e9,
        "prefill_s": statistics.median(prefill_s[1:]),
        "prefill_tokens": stats["prefill_tokens"],
        "decode_tokens": tokens,
        "ticks": stats["ticks"],
        "dtype": dtype,
        "threads": torch.get_num_threads(),
        "rounds": rounds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    result = measure(arguments.dtype, arguments.rounds)
    if arguments.json:
        json.dump(result, sys.stdout)
        print()
        return
    print(f"{result['tokens_per_s']:,.0f} tokens/s decoded, {result['share']:.0%} of the machine's limit")
    for name, value in result.items():
        print(f"  {name:20} {value}")


if __name__ == "__main__":
    main()
