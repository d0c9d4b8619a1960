"""Makes a run's folder as a real run would have left it: scripted episodes of the fictional world, plausible metrics.

python tests/run_folder.py DIR        writes one, to look at its report
"""

import asyncio
import json
import math
import sys
from pathlib import Path

import numpy as np

from forage.configure import dump, load
from forage.datasets.fictional import Fictional
from forage.demonstrations import behaviour, demonstrate
from forage.evaluation import score, summarise
from forage.models.tiny import syllable_tokenizer
from forage.records import to_record, write_records
from forage.renderers.tags import TagRenderer
from forage.retrievers.bm25 import BM25Retriever
from forage.retrievers.gather import Gather
from forage.rollout import Limits
from forage.types import Scores

ENVIRONMENT = {
    "time": "2026-03-01T09:30:00+00:00",
    "command": ["forage", "train", "demo"],
    "seed": 0,
    "commit": "0123456789abcdef0123456789abcdef01234567",
    "python": "3.11.7",
    "versions": {"forage-rl": "0.1.0", "torch": "2.13.0+cpu"},
    "cpu": "Example Processor 9000",
    "cores": 2,
    "memory_gb": 16.0,
    "torch": {"version": "2.13.0+cpu", "cuda": None, "gpu": None, "threads": 2},
}


def rng_of(*stream):
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(stream)))


class Stage:
    """A fictional world to play scripted episodes in."""

    def __init__(self, entities=120):
        self.world = Fictional("eval", seed=7, entities=entities, questions=10_000)
        self.tokenizer = syllable_tokenizer()
        self.renderer = TagRenderer(self.tokenizer, template="short")
        self.searcher = Gather(BM25Retriever(self.world.passages()))

    async def play(self, i, name, seed):
        """Question i, played by a behaviour, with log-probabilities that look sampled."""
        question, path = self.world.pair(i)
        rng = rng_of(seed, i)
        script = behaviour(name, path, rng)
        limits = Limits(max_searches=4, max_turn_tokens=64, max_observation_tokens=120, max_tokens=600)
        t = await demonstrate(question, script, self.tokenizer, self.renderer, self.searcher, 2, limits)
        t.logprobs = [-float(rng.gamma(0.25, 0.6)) if acted else 0.0 for acted in t.acted]
        return t

    async def evaluation(self, questions, skill, seed):
        """Predictions of a policy that is purposeful with the chance `skill`, and hasty otherwise."""
        names = ["purposeful" if rng_of(seed, 1, i).random() < skill else "hasty" for i in range(questions)]
        return [score(await self.play(i, name, seed)) for i, name in enumerate(names)]

    async def training_step(self, step, skill, groups, samples):
        """Groups of episodes with rewards and advantages."""
        records = []
        for g in range(groups):
            names = ["purposeful" if rng_of(step, g, s).random() < skill else "aimless" for s in range(samples)]
            played = [await self.play(1000 * step + g, name, 50 + s) for s, name in enumerate(names)]
            rewards = [float(t.answer in t.question.answers) for t in played]
            spread = float(np.std(rewards, ddof=1))
            for s, (t, reward) in enumerate(zip(played, rewards, strict=True)):
                t.group, t.sample = f"fictional/{t.question.id}/{g}", s
                advantage = (reward - float(np.mean(rewards))) / (spread + 1e-6)
                records.append(to_record(t, Scores(reward, {"em": reward}), step=step, advantage=advantage))
        return records


def metrics_row(step, steps, rng):
    """What a step of reinforcement learning logs."""
    done = 1 / (1 + math.exp(-10 * (step / steps - 0.35)))
    noise = rng.normal(0, 0.03, 8)
    reward = min(1.0, max(0.0, 0.2 + 0.76 * done + noise[0]))
    rollout, update = 0.9 + 0.3 * done + abs(noise[1]), 0.45 + abs(noise[2])
    answered = 0.9 + 0.09 * done
    return {
        "step": step,
        "reward/mean": reward,
        "reward/em": reward,
        "groups/signal": max(0.02, 0.9 - 0.85 * done + noise[3]),
        "groups/solved": max(0.0, 0.05 + 0.85 * done + noise[3]),
        "episode/searches": 1.1 + 0.95 * done + noise[4],
        "episode/turns": 2.1 + 0.95 * done + noise[4],
        "episode/tokens": 90 + 70 * done + 60 * noise[5],
        "episode/acted_tokens": 40 + 30 * done + 20 * noise[5],
        "episode/invalid": max(0.0, 0.2 - 0.2 * done),
        "engine/wasted": max(0.0, 0.05 - 0.045 * done),
        "engine/reuse": 0.71 + noise[6] / 5,
        "engine/prefill_tokens": 15_000,
        "engine/decode_tokens": 9_000,
        "stop/answered": answered,
        "stop/no_answer": (1 - answered) * 0.8,
        "stop/context_full": (1 - answered) * 0.2,
        "stop/retriever_error": 0.0,
        "loss/policy": float(noise[7]),
        "policy/entropy": 0.55 - 0.4 * done + abs(noise[6]) / 2,
        "policy/grad_norm": 0.4 + 2 * abs(noise[7]),
        "policy/clip_fraction": 0.0,
        "policy/ratio_max": 1.4,
        "policy/lr": 5e-4 * (1 - step / steps),
        "search/queries": 400,
        "search/failures": 0,
        "cache/hits": 0.4,
        "time/step": rollout + update + 0.06,
        "time/rollout": rollout,
        "time/prefill": 0.22 * rollout,
        "time/decode": 0.61 * rollout,
        "time/retrieval": 0.07 * rollout,
        "time/wait": 0.2 * rollout,
        "time/score": 0.012,
        "time/update": update,
        "time/sync": 0.004,
        "time/save": 0.0 if step % 20 else 0.3,
    }


def write_run(
    folder,
    *,
    steps=80,
    questions=48,
    trajectory_steps=(1, 20, 40),
    groups=3,
    stage=None,
    settings=(),
    skill=0.96,
    seed=0,
):
    """Write a whole run of reinforcement learning, of other settings or another seed; returns the folder."""
    stage = stage or Stage()
    folder.mkdir(parents=True, exist_ok=True)
    config = load("demo", [f"run.dir={json.dumps(str(folder))}", f"train.steps={steps}", f"run.seed={seed}", *settings])
    (folder / "config.toml").write_text(dump(config))
    (folder / "environment.json").write_text(json.dumps(ENVIRONMENT | {"seed": seed}))
    stage.tokenizer.backend_tokenizer.save(str(tokenizer_path(folder, steps)))
    rng = rng_of(1 + seed)
    rows = {step: metrics_row(step, steps, rng) for step in range(1, steps + 1)}
    for step, share in ((0, 0.12), (steps, skill)):
        records = asyncio.run(stage.evaluation(questions, share, seed=step + 1000 * seed))
        summary = write_evaluation(folder, step, records)
        rows.setdefault(step, {"step": step})["time/eval"] = 4.2
        rows[step] |= {f"eval/{name}": summary[name] for name in ("em", "f1", "hit_rate", "searches_mean")}
    for step in trajectory_steps:
        records = asyncio.run(stage.training_step(step, 0.1 + 0.8 * step / steps, groups, 4))
        write_records(folder / "trajectories" / f"step-{step:06d}.jsonl.zst", records)
    write_metrics(folder, rows.values())
    return folder


def write_evaluation(folder, step, records, name=""):
    """One evaluation's files; returns its summary."""
    at = folder / "eval" / f"step-{step:06d}{name}"
    write_records(at / "predictions.jsonl.zst", records)
    summary = summarise(records)
    (at / "summary.json").write_text(json.dumps(summary))
    return summary


def write_metrics(folder, rows):
    """metrics.jsonl of rows, by step."""
    ordered = sorted(rows, key=lambda row: row["step"])
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ordered))


def write_sft(folder, steps=60):
    """Write a supervised run: losses only."""
    folder.mkdir(parents=True, exist_ok=True)
    config = load("warm-start", [f"run.dir={json.dumps(str(folder))}", f"sft.steps={steps}"])
    (folder / "config.toml").write_text(dump(config))
    (folder / "environment.json").write_text(json.dumps(ENVIRONMENT))
    rows = [
        {
            "step": step,
            "loss/policy": 6 * math.exp(-step / 15) + 0.4,
            "policy/grad_norm": 1.2,
            "policy/lr": 3e-3 * (1 - step / steps),
            "episode/tokens": 150.0,
            "episode/acted_tokens": 60.0,
            "stop/answered": 1.0,
            "time/step": 0.5,
            "time/episodes": 0.1,
            "time/update": 0.38,
        }
        for step in range(1, steps + 1)
    ]
    write_metrics(folder, rows)
    return folder


def tokenizer_path(folder, step):
    """Where a checkpoint has its tokenizer."""
    path = folder / "checkpoints" / f"step-{step:06d}" / "model" / "tokenizer.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


if __name__ == "__main__":
    from forage.report import write_report

    root = Path(sys.argv[1])
    write_run(root, questions=600, trajectory_steps=(1, 10, 20, 30, 40, 50, 60, 70, 80), groups=12, stage=Stage(600))
    sys.stdout.write(f"{write_report(root)}\n")
