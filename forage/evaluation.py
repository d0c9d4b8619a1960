"""Evaluation: greedy, every question, with intervals, every prediction kept."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from forage import build, checkpoint
from forage.concurrency import together
from forage.config import Config
from forage.configure import load
from forage.datasets.coverage import Covered, read_coverage
from forage.errors import DataError, RetrieverError
from forage.interfaces import Engine, Renderer
from forage.intervals import normal_interval, wilson
from forage.metrics import mean
from forage.records import Record, to_record, write_records
from forage.retrievers.gather import Gather
from forage.rollout import Rollout
from forage.text import contains_answer, exact_match, token_f1
from forage.types import Question, StopReason, Trajectory

if TYPE_CHECKING:
    from forage.models.causal_lm import Policy

PREDICTIONS, SUMMARY, PARTIAL = "predictions.jsonl.zst", "summary.json", "partial.jsonl"
Summary = dict[str, Any]
Progress = Callable[[int, int], None]
"""(questions done, of how many)"""


async def evaluate(
    questions: Sequence[Question],
    rollout: Rollout,
    folder: Path,
    progress: Progress | None = None,
    *,
    coverage: Mapping[str, Covered] | None = None,
) -> Summary:
    """Answer every question greedily; write `summary.json` and `predictions.jsonl.zst` into `folder`.

    Predictions are kept as they come, so that an evaluation that was interrupted goes on where it stopped.

    Returns:
        em, em_ci, f1, f1_ci, n, by_hop, hit_rate, searches_mean, stop_reasons. With `coverage` also `covered`: the same
        of the questions that the corpus can answer (None where there is none; those that it does not know count).

    Raises:
        RetrieverError: a search failed after its retries. Nothing is scored as wrong for it; run it again to go on.
        DataError: there are no questions.
    """
    if not questions:
        raise DataError("there are no questions to evaluate on")
    folder.mkdir(parents=True, exist_ok=True)
    done = _read_partial(folder / PARTIAL, questions)
    with (folder / PARTIAL).open("a", encoding="utf-8") as partial:

        async def one(i: int, question: Question) -> None:
            trajectory = await rollout.episode(question, group=f"{i}")
            if trajectory.stop is StopReason.RETRIEVER_ERROR:
                raise RetrieverError(
                    f"evaluation stopped at question {question.id!r}: {trajectory.failure}. "
                    f"{len(done)} of {len(questions)} answers are kept in {folder}; run the same command to go on"
                )
            done[i] = score(trajectory)
            _append(partial, {"i": i, **done[i]})
            if progress:
                progress(len(done), len(questions))

        await together(one(i, question) for i, question in enumerate(questions) if i not in done)
    records = [done[i] for i in range(len(questions))]
    summary = summarise(records)
    if coverage is not None:
        able = [r for r in records if (found := coverage.get(r["question"]["id"])) is None or found.covered]
        summary["covered"] = summarise(able) if able else None
    write_records(folder / PREDICTIONS, records)
    beside = folder / f".{SUMMARY}.part"
    beside.write_text(json.dumps(summary, indent=2) + "\n")
    beside.replace(folder / SUMMARY)
    (folder / PARTIAL).unlink()
    return summary


def score(trajectory: Trajectory) -> Record:
    """The trajectory's record with em, f1 and hit (a gold answer stood in a passage that was found)."""
    golds, answer = trajectory.question.answers, trajectory.answer or ""
    passages = [passage for turn in trajectory.turns for found in turn.results for passage in found]
    return to_record(
        trajectory,
        em=float(exact_match(answer, golds)),
        f1=token_f1(answer, golds),
        hit=any(contains_answer(f"{passage.title} {passage.text}", golds) for passage in passages),
    )


def summarise(records: Sequence[Record]) -> Summary:
    """The figures of an evaluation from its predictions."""
    em, f1 = [r["em"] for r in records], [r["f1"] for r in records]
    hops = sorted({r["question"]["hops"] for r in records if r["question"]["hops"] is not None})
    stops = Counter(r["stop"] for r in records)
    searches = [sum(turn["action"] == "search" and bool(turn["results"]) for turn in r["turns"]) for r in records]
    return {
        "em": mean(em),
        "em_ci": wilson(sum(em), len(em)),
        "f1": mean(f1),
        "f1_ci": normal_interval(f1),
        "n": len(records),
        "by_hop": {str(hop): mean([r["em"] for r in records if r["question"]["hops"] == hop]) for hop in hops},
        "hit_rate": mean([float(r["hit"]) for r in records]),
        "searches_mean": mean(searches),
        "stop_reasons": {reason: stops[reason] / len(records) for reason in sorted(stops)},
    }


def _append(partial: TextIO, record: Record) -> None:
    partial.write(json.dumps(record, ensure_ascii=False) + "\n")
    partial.flush()


def _read_partial(path: Path, questions: Sequence[Question]) -> dict[int, Record]:
    """Answers of an interrupted evaluation of the same questions; a torn last line is dropped."""
    done: dict[int, Record] = {}
    if path.exists():
        for line in path.read_text("utf-8").splitlines():
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                break
            i = record.pop("i")
            if i >= len(questions) or record["question"]["id"] != questions[i].id:
                return {}
            done[i] = record
        path.write_text(
            "".join(json.dumps({"i": i, **record}, ensure_ascii=False) + "\n" for i, record in done.items())
        )
    return done


@dataclass(frozen=True, slots=True)
class Agent:
    """A checkpoint of a run, ready to answer."""

    config: Config
    policy: Policy
    renderer: Renderer
    engine: Engine
    questions: Sequence[Question]
    retriever: Gather
    step: int


def trained_agent(run: Path, overrides: Sequence[str] = (), *, step: int | None = None, best: bool = False) -> Agent:
    """A run's checkpoint (the last; or of a step, or the best) with the run's own settings and `overrides`.

    Raises:
        CheckpointError: the run has no such checkpoint.
        ConfigError: an override is wrong.
    """
    config = load(run, _held_out(overrides))
    build.use_threads(config)
    at = checkpoint.choose(run / "checkpoints", step=step, best=best)
    place = build.evaluation_place(config)  # before the model: it may lack a key, or a file
    model = build.policy(config, weights=at)
    engine = build.engine(config, model, lockstep=place.retriever.in_process)
    return Agent(
        config,
        model,
        build.renderer(config, model.tokenizer),
        engine,
        place.questions,
        place.retriever,
        checkpoint.step_of(at),
    )


def _held_out(overrides: Sequence[str]) -> list[str]:
    """Questions named for an evaluation are what is evaluated on, whatever the run holds out itself."""
    named = any(word.startswith("data.questions=") for word in overrides)
    chosen = any(word.startswith("data.eval_questions=") for word in overrides)
    more = [f"data.eval_questions={w.partition('=')[2]}" for w in overrides if w.startswith("data.questions=")]
    return [*overrides, *(more if named and not chosen else [])]


def evaluate_run(
    run: Path,
    overrides: Sequence[str] = (),
    *,
    step: int | None = None,
    best: bool = False,
    out: Path | None = None,
    progress: Progress | None = None,
) -> Summary:
    """Evaluate a run's checkpoint on its held-out questions, or on what the overrides name.

    Predictions go to `out`, or to a folder below the run's `eval/` that is named after step and overrides.

    Returns:
        The summary of `evaluate`, with `step` and `dir`, where the predictions are.
    """
    agent = trained_agent(run, overrides, step=step, best=best)
    rollout = build.rollout(agent.config, agent.engine, agent.renderer, agent.retriever, 0.0)
    folder = out or run / "eval" / _name(agent.step, overrides)
    file = agent.config.data.options.get("coverage")
    coverage = read_coverage(file) if file else None
    summary = asyncio.run(evaluate(agent.questions, rollout, folder, progress, coverage=coverage))
    return summary | {"step": agent.step, "dir": str(folder)}


def _name(step: int, overrides: Sequence[str]) -> str:
    mark = hashlib.sha256("\n".join(sorted(overrides)).encode()).hexdigest()[:8]
    return f"step-{step:06d}" + (f"-{mark}" if overrides else "")
