"""TRL's GRPOTrainer, one step at a time. Runs in TRL's own environment; `trl_step.py` starts it.

    python trl_worker.py FOLDER

FOLDER holds `model/` (weights and tokenizer) and `work.json` (see `trl_step.py`). Each line on standard input starts an
optimizer step, rollouts included; what it took is printed as `@@{...}`.

Fixed work is plain generation. In ragged work the recorded episodes are played: `tools=` with a tool that answers at
once, and one forced token after another; every turn ends with a closing tag (or an EOS), at which `generate` ends the
row. TRL is spared parsing: the tokenizer's `parse_response` looks up what the record says (its own parser costs more).
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict, deque
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import torch
from datasets import Dataset
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LogitsProcessor,
    LogitsProcessorList,
    TrainerCallback,
)
from trl import GRPOConfig, GRPOTrainer

TEMPLATE = (
    "{% for m in messages %}{{ m.content }}"
    "{% for c in m.tool_calls or [] %}{{ c.function.name }}{{ c.function.arguments | tojson }}{% endfor %}"
    "{% endfor %}"
)
"""Only what the record holds, so that TRL's contexts are the recorded tokens."""


class Clock:
    """CPU and wall seconds, in all and in `generate`."""

    def __init__(self) -> None:
        self.generate_s = 0.0
        self._began = (0.0, 0.0)

    def begin(self) -> None:
        self.generate_s, self._began = 0.0, (process_time(), perf_counter())

    def end(self) -> dict[str, float]:
        cpu, wall = self._began
        return {
            "cpu_s": process_time() - cpu,
            "wall_s": perf_counter() - wall,
            "rollout_cpu_s": self.generate_s,
        }


class OneAtATime(TrainerCallback):
    """Lets a step begin when a line comes in, and says what it took."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002 (the trainer's names)
        say({"ready": state.global_step})
        if not sys.stdin.readline():
            sys.exit(0)
        self._clock.begin()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002 (the trainer's names)
        say(self._clock.end())


def say(message: dict[str, Any]) -> None:
    print("@@" + json.dumps(message), flush=True)


class Force(LogitsProcessor):
    """Leaves only the given token of each row possible."""

    def __init__(self, given: torch.Tensor, width: int) -> None:
        self._given, self._width = given, width

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        token = self._given[:, input_ids.shape[1] - self._width]
        return torch.full_like(scores, -torch.inf).scatter_(1, token[:, None], 0.0)


class Recorded:
    """The recorded episodes: from a context, the tokens of the turn that follows and what is shown after it."""

    def __init__(self, episodes: list[list[list[list[int]]]]) -> None:
        self._episodes = episodes
        self.rewind()

    def rewind(self) -> None:
        """Back to the start of the step."""
        self._next: dict[tuple[int, ...], deque[list[int]]] = defaultdict(deque)
        self._after: dict[tuple[int, ...], deque[list[int]]] = defaultdict(deque)
        for episode in self._episodes:
            context: list[int] = []
            for turn, (observed, acted) in enumerate(episode):
                context = context + observed
                self._next[tuple(context)].append(acted)
                context = context + acted
                follows = episode[turn + 1][0] if turn + 1 < len(episode) else []
                self._after[tuple(context)].append(follows)

    @property
    def unplayed(self) -> int:
        """Turns that were not asked for yet."""
        return sum(map(len, self._next.values())) + sum(map(len, self._after.values()))

    def turn(self, context: list[int]) -> list[int]:
        return self._next[tuple(context)].popleft()

    def shown(self, context: list[int]) -> list[int]:
        """What follows the turn that ends this context; empty where the episode ends with it."""
        return self._after[tuple(context)].popleft()


def force(model: Any, recorded: Recorded, clock: Clock, eos: int) -> None:
    """Make `model.generate` produce the recorded turns."""
    plain = model.generate

    def generate(input_ids: torch.Tensor, attention_mask: torch.Tensor, **options: Any) -> torch.Tensor:
        started = process_time()
        width = input_ids.shape[1]
        given = [recorded.turn(row[real.bool()].tolist()) for row, real in zip(input_ids, attention_mask, strict=True)]
        forced = torch.full((len(given), max(map(len, given)) + 1), eos)
        for i, row in enumerate(given):
            forced[i, : len(row)] = torch.tensor(row)
        made = plain(
            input_ids=input_ids,
            attention_mask=attention_mask,
            logits_processor=LogitsProcessorList([Force(forced, width)]),
            **options,
        )
        clock.generate_s += process_time() - started
        return made

    model.generate = generate


def time_generate(model: Any, clock: Clock) -> None:
    plain = model.generate

    def generate(*given: Any, **options: Any) -> torch.Tensor:
        started = process_time()
        made = plain(*given, **options)
        clock.generate_s += process_time() - started
        return made

    model.generate = generate


def ragged(work: dict[str, Any], model: Any, tokenizer: Any, clock: Clock) -> dict[str, Any]:
    """What the trainer gets for recorded episodes."""
    recorded = Recorded(work["episodes"])
    force(model, recorded, clock, tokenizer.eos_token_id)
    tokenizer.chat_template = TEMPLATE
    tokenizer.response_template = {"defaults": {"role": "assistant"}, "fields": {"content": {"content": "text"}}}
    texts: dict[tuple[int, ...], str] = {}

    def parse_response(ids: list[int], prefix: list[int] | None = None, **_: Any) -> dict[str, Any]:
        shown = tuple(recorded.shown([*(prefix or []), *ids]))
        message: dict[str, Any] = {"role": "assistant", "content": ""}
        if shown:
            texts.setdefault(shown, tokenizer.decode(shown))
            call = {"name": "search", "arguments": {"query": texts[shown]}}
            message["tool_calls"] = [{"type": "function", "function": call}]
        return message

    def search(query: str) -> str:
        """Search for passages.

        Args:
            query: what to look for.
        """
        return query  # the record's observation travels as the query: the tool is instant

    def reward(completions: list[Any], **_: Any) -> list[float]:
        if recorded.unplayed:
            raise RuntimeError(f"{recorded.unplayed} recorded turns were not played")
        recorded.rewind()
        return [float(i % 2) for i in range(len(completions))]

    tokenizer.parse_response = parse_response
    return {"tools": [search], "reward_funcs": reward}


def even_share(completion_ids: list[list[int]], **_: Any) -> list[float]:
    """Share of even tokens: differs within every group."""
    return [sum(token % 2 == 0 for token in ids) / len(ids) for ids in completion_ids]


def main() -> None:
    folder = Path(sys.argv[1])
    work = json.loads((folder / "work.json").read_text())
    torch.set_num_threads(work["threads"])
    torch.manual_seed(0)
    clock = Clock()
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=getattr(torch, work["dtype"]))
    if work["kind"] == "ragged":
        parts = ragged(work, model, tokenizer, clock)
        prompts: list[Any] = [[{"role": "user", "content": text}] for text in work["prompts"]]
        model.generation_config.eos_token_id = [tokenizer.eos_token_id, *work["ends"]]
        generation: dict[str, Any] = {}
    else:
        time_generate(model, clock)
        parts, prompts = {"reward_funcs": even_share}, work["prompts"]
        generation = {"min_new_tokens": work["max_tokens"]}
    rows = len(prompts) * work["samples"]
    settings = GRPOConfig(
        output_dir=str(folder / "out"),
        per_device_train_batch_size=work["micro_rows"],
        gradient_accumulation_steps=rows // work["micro_rows"],
        num_generations=work["samples"],
        max_completion_length=work["max_tokens"],
        generation_kwargs=generation,
        temperature=1.0,
        top_k=0,
        beta=0.0,
        learning_rate=1e-6,
        lr_scheduler_type="constant",
        max_steps=1000,
        bf16=False,
        gradient_checkpointing=False,
        use_cpu=True,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        seed=0,
    )
    trainer = GRPOTrainer(
        model=model,
        args=settings,
        train_dataset=Dataset.from_dict({"prompt": prompts}),
        processing_class=tokenizer,
        callbacks=[OneAtATime(clock)],
        **parts,
    )
    trainer.train()


if __name__ == "__main__":
    main()
