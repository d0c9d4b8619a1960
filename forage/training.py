"""Training by reinforcement, top down: questions, episodes, rewards, advantages, update, new weights."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from forage import checkpoint
from forage.batch import chosen, collate
from forage.config import Config
from forage.errors import CheckpointError, CollapseError
from forage.evaluation import SUMMARY, Summary, evaluate
from forage.health import take_back, with_retries
from forage.interrupt import Interrupt
from forage.metrics import engine_metrics, flatten, harvest_metrics, rates, search_metrics
from forage.records import to_record, write_records
from forage.run import Run, open_run
from forage.runfolder import RunFolder
from forage.types import Batch, Harvest


async def train(run: Run) -> None:
    """Train to the last step (or to an interrupt); evaluates and saves on the way, and always at the end."""
    await begin(run)
    for step in run.remaining_steps():
        with run.clock("step"):
            with saved_at_failure(run):
                with run.clock("rollout"):
                    harvest = await run.source.take(step)
                await gauge(run, harvest, step)
                batch = to_batch(run, harvest)
                with run.clock("score"):
                    batch = run.advantage(await run.learner.score(batch), reduce=lambda total: total)
                with run.clock("update"):
                    metrics = await run.learner.update(chosen(batch) if run.chooses else batch)
            with run.clock("sync"):
                await run.weights.push(version=step)
        run.step = step
        keep_trajectories(run, harvest, batch)
        figures = measure(run, harvest) | flatten(metrics)
        run.tracker.log(step, figures)
        heed(run, figures)
        await evaluate_and_save(run)


def to_batch(run: Run, harvest: Harvest) -> Batch:
    """The step's groups as tensors, as the algorithm looks at them."""
    return collate(
        harvest.groups,
        drop_equal=run.drops_equal,
        everything=run.config.algorithm.train_on_everything,
        judge_shown=getattr(run.advantage, "judges_shown", False),
    )


async def gauge(run: Run, harvest: Harvest, step: int) -> None:
    """Measure what each search was worth, where the advantage reads it."""
    if run.gain:
        with run.clock("gain"):
            await run.gain(harvest.groups, step)


def heed(run: Run, figures: Mapping[str, Any]) -> None:
    """Look at a step's health.

    Raises:
        CollapseError: the policy collapsed, and the run is not to go on; where it is to stop, it is saved.
    """
    if collapse := run.health.look(run.step, figures):
        if run.config.diagnosis.on_collapse == "stop":
            save(run, None)
        raise collapse


async def begin(run: Run) -> None:
    """Bring the weights to the engine; a new run is evaluated before its first step."""
    await run.weights.push(version=run.step)
    if run.step == 0 and run.config.train.eval_every:
        await evaluate_now(run)


@contextmanager
def saved_at_failure(run: Run) -> Iterator[None]:
    """Where a step fails before its end (a reward, a search, the loss), save the step before it, then go on failing."""
    try:
        yield
    except Exception as error:
        if run.step:
            error.add_note(saved_before(run))
        raise


def saved_before(run: Run) -> str:
    """See that the last whole step is saved; what to tell of it."""
    try:
        if checkpoint.steps(run.folder / "checkpoints")[-1:] != [run.step]:
            save(run, None)
    except CheckpointError as reason:
        return f"Step {run.step} could not be saved: {reason}"
    return f"Step {run.step} is saved: mend the cause, then go on with --resume"


async def evaluate_and_save(run: Run) -> None:
    """What is due after a step: an evaluation, a checkpoint, both at the end; after an interrupt a checkpoint only."""
    every, last = run.config.train, run.step == run.config.train.steps
    evaluated: Summary | None = None
    if every.eval_every and (last or run.step % every.eval_every == 0) and not run.interrupt.asked:
        evaluated = await evaluate_now(run)
    if last or run.interrupt.asked or (every.save_every and run.step % every.save_every == 0):
        save(run, evaluated)


async def evaluate_now(run: Run) -> Summary:
    """Evaluate the weights as they are, and log the figures."""
    with run.clock("eval"):
        folder = run.folder / "eval" / f"step-{run.step:06d}"
        progress = run.tracker.progress(f"evaluating step {run.step}")
        summary = await evaluate(run.held_out.questions, run.greedy, folder, progress)
    run.engine.take_stats()
    run.held_out.retriever.take_stats()
    figures = {f"eval/{name}": summary[name] for name in ("em", "f1", "hit_rate", "searches_mean")}
    figures |= {f"eval/em_{hop}_hop": em for hop, em in summary["by_hop"].items()}
    run.tracker.log(run.step, figures | {"time/eval": run.clock.take()["eval"]})
    return summary


def save(run: Run, evaluated: Summary | None) -> None:
    """Write a checkpoint of the step just done."""
    with run.clock("save"):
        root = run.folder / "checkpoints"

        def write(folder: Path) -> None:
            run.learner.save(folder)
            run.source.save(folder, run.step)

        checkpoint.save(root, run.step, write)
        if evaluated:
            checkpoint.mark_best(root, run.step, evaluated["em"])
        checkpoint.prune(root, run.config.train.keep)
    run.tracker.log(run.step, {"time/save": run.clock.take()["save"]})


def keep_trajectories(run: Run, harvest: Harvest, batch: Batch) -> None:
    """Write the step's episodes, where they are due, with the mean advantage of each (0 where left out)."""
    every = run.config.train.save_trajectories_every
    if not every or (run.step % every and run.step != 1):
        return
    learned = {id(group) for group in harvest.groups if group.has_signal or not run.drops_equal}
    given = iter(mean_advantages(batch))
    write_records(
        run.folder / "trajectories" / f"step-{run.step:06d}.jsonl.zst",
        (
            to_record(t, score, step=run.step, advantage=next(given) if id(group) in learned else 0.0)
            for group in harvest.rewarded
            for t, score in zip(group.trajectories, group.scores, strict=True)
        ),
    )


def mean_advantages(batch: Batch) -> list[float]:
    """The mean over each row's acted tokens."""
    assert batch.advantages_BT is not None
    acted_B = batch.acted_BT.sum(1).clamp(min=1)
    means: list[float] = ((batch.advantages_BT * batch.acted_BT).sum(1) / acted_B).tolist()
    return means


def measure(run: Run, harvest: Harvest) -> dict[str, Any]:
    """The step's figures; those that a clock or a cache decides stand under time/ and cache/."""
    seconds = {f"time/{name}": value for name, value in run.clock.take().items()}
    figures = harvest_metrics(harvest, version=run.step - 1) | engine_metrics(run.engine.take_stats())
    figures |= search_metrics(run.searcher.take_stats()) | seconds
    return figures | rates(figures) | {"time/wait": harvest.tail_seconds}


def train_from_config(config: Config, *, resume: bool = False) -> dict[str, Any]:
    """Train as a configuration says, in its run folder.

    Args:
        config: a loaded configuration.
        resume: go on from the folder's last checkpoint.

    Returns:
        `dir`, `step`, and `eval`, the summary of the last step's evaluation (empty without one).

    Raises:
        KeyboardInterrupt: the user asked to stop; a checkpoint of the last whole step is saved.
        CollapseError: the policy collapsed, and diagnosis.on_collapse says to stop, or it was taken back before.
    """
    path = Path(config.run.dir)
    config = with_retries(path, config) if resume else config
    with RunFolder.open(path, config, resume=resume) as folder, Interrupt() as interrupt:
        step, again = attempt(config, folder, interrupt, resume=resume)
        while again:
            step, again = attempt(again, folder, interrupt, resume=True)
        if interrupt.asked:
            raise KeyboardInterrupt
    return {"dir": config.run.dir, "step": step, "eval": read_summary(path, step)}


def attempt(config: Config, folder: RunFolder, interrupt: Interrupt, *, resume: bool) -> tuple[int, Config | None]:
    """Train to the end, an interrupt or a collapse: the last step, and what to go on with where it was taken back."""
    run = open_run(config, folder.path, interrupt, resume=resume)
    try:
        asyncio.run(train(run))
    except CollapseError as collapse:
        return run.step, take_back(folder, config, run.step, collapse)
    finally:
        run.tracker.close()
    return run.step, None


def read_summary(folder: Path, step: int) -> Summary:
    """The evaluation of a step, as it was written; empty where there is none."""
    path = folder / "eval" / f"step-{step:06d}" / SUMMARY
    return json.loads(path.read_text()) if path.exists() else {}
