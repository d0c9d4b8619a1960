"""Supervised fine-tuning: the warm start from scripted episodes, or from a file of trajectories."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from forage import build, checkpoint
from forage.batch import collate
from forage.concurrency import together
from forage.config import Config
from forage.datasets.fictional import Fictional
from forage.demonstrations import behaviour, demonstrate, mixture, recital
from forage.errors import ConfigError, DataError
from forage.interfaces import Learner, Renderer, Retriever
from forage.interrupt import Interrupt
from forage.losses.nll import NegativeLogLikelihood
from forage.metrics import Clock, episode_metrics, flatten
from forage.records import from_record, read_records
from forage.resume import cut_back
from forage.runfolder import RunFolder
from forage.trackers.fanout import Fanout
from forage.types import Group, Question, Scores, Trajectory

if TYPE_CHECKING:
    from forage.models.causal_lm import Policy


class Episodes(Protocol):
    """What is learned from."""

    async def take(self, step: int) -> list[Trajectory]:
        """The episodes of a step (counted from 1), the same in every run of the seed."""
        ...


@dataclass(slots=True)
class Fit:
    """All that a supervised run works with. `step` is the last one done."""

    config: Config
    folder: Path
    episodes: Episodes
    learner: Learner
    tracker: Fanout
    interrupt: Interrupt
    step: int = 0
    clock: Clock = field(default_factory=Clock)

    def remaining_steps(self) -> Iterator[int]:
        """The steps still to do; ends early, after a whole step, when the user interrupts."""
        while self.step < self.config.sft.steps and not self.interrupt.asked:
            yield self.step + 1


async def fit(run: Fit) -> None:
    """Learn the acted tokens of each step's episodes; saves on the way, and always at the end."""
    for step in run.remaining_steps():
        with run.clock("step"):
            with run.clock("episodes"):
                trajectories = await run.episodes.take(step)
            with run.clock("update"):
                groups = [Group([trajectory], [Scores(1.0)]) for trajectory in trajectories]
                metrics = await run.learner.update(collate(groups))
        run.step = step
        seconds = {f"time/{name}": value for name, value in run.clock.take().items()}
        run.tracker.log(step, flatten(metrics) | episode_metrics(trajectories) | seconds)
        every = run.config.train.save_every
        if step == run.config.sft.steps or run.interrupt.asked or (every and step % every == 0):
            checkpoint.save(run.folder / "checkpoints", step, run.learner.save)
            checkpoint.prune(run.folder / "checkpoints", run.config.train.keep)


class Recorded:
    """Episodes of a file, reshuffled each epoch."""

    def __init__(self, path: Path, batch: int, seed: int) -> None:
        self._all = [from_record(record) for record in read_records(path)]
        if not self._all:
            raise DataError(f"{path} holds no trajectories")
        self._batch, self._seed = batch, seed

    async def take(self, step: int) -> list[Trajectory]:
        """The next `batch` episodes in the order of their epoch."""
        return [self._at(position) for position in range((step - 1) * self._batch, step * self._batch)]

    def _at(self, position: int) -> Trajectory:
        epoch, index = divmod(position, len(self._all))
        order = _rng(self._seed, 0, epoch).permutation(len(self._all))
        return self._all[int(order[index])]


class Scripted:
    """Episodes played by scripts, in the shares of the phase that a step lies in.

    On the fictional world each step gets a small world of its own, so that names can only be copied, never learned.
    """

    def __init__(self, config: Config, tokenizer: Any, renderer: Renderer) -> None:
        self._config, self._tokenizer, self._renderer = config, tokenizer, renderer
        self._fictional = config.data.kind == "fictional"
        if not config.sft.phases:
            raise ConfigError("sft.phases is empty: say which behaviours to learn, or name a file in sft.data")
        self._place: tuple[Fictional | None, Sequence[Question], Retriever] | None = None

    async def take(self, step: int) -> list[Trajectory]:
        """The episodes of a step, the same in every run of the seed."""
        rng = _rng(self._config.run.seed, 1, step)
        place = self._place_of(rng)
        shares = phase(self._config, step)
        return await together(self._play(place, shares, rng) for _ in range(self._config.sft.episodes))

    def _place_of(self, rng: np.random.Generator) -> tuple[Fictional | None, Sequence[Question], Retriever]:
        if self._fictional:
            options = self._config.data.options | {"seed": int(rng.integers(1 << 62)), "entities": 300}
            world = Fictional("train", **options)
            return world, world.questions(), build.retriever(self._config, world)
        if self._place is None:
            data = build.dataset(self._config, "train")
            self._place = None, build.first_questions(data, 0), build.retriever(self._config, data)
        return self._place

    async def _play(
        self,
        place: tuple[Fictional | None, Sequence[Question], Retriever],
        shares: Mapping[str, float],
        rng: np.random.Generator,
    ) -> Trajectory:
        world, questions, retriever = place
        i = int(rng.integers(len(questions)))
        question, path = world.pair(i) if world else (questions[i], None)
        name = mixture(shares, rng)
        if name == "recital":
            asked = [questions[int(rng.integers(len(questions)))] for _ in range(6)]
            question, script = recital(question, asked, rng)
        else:
            script = behaviour(name, path, rng)
        k, limits = self._passages(rng), build.limits(self._config)
        return await demonstrate(question, script, self._tokenizer, self._renderer, retriever, k, limits)

    def _passages(self, rng: np.random.Generator) -> int:
        choices = self._config.sft.passages
        return int(rng.choice(choices)) if choices else self._config.search.k


def phase(config: Config, step: int) -> dict[str, float]:
    """Behaviours and their weights at a step (counted from 1); the phases' shares divide the steps."""
    shares = [phase.get("share", 1.0) for phase in config.sft.phases]
    ends = np.cumsum(shares) / sum(shares) * config.sft.steps
    current = config.sft.phases[int(np.searchsorted(ends, step - 0.5))]
    return {name: weight for name, weight in current.items() if name != "share"}


def _rng(*stream: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(stream)))


def run_sft(config: Config, *, resume: bool = False) -> dict[str, Any]:
    """Fine-tune as a configuration says, in its run folder.

    Args:
        config: a loaded configuration; [sft] says what to learn, [learner] how.
        resume: go on from the folder's last checkpoint.

    Raises:
        KeyboardInterrupt: the user asked to stop; a checkpoint of the last whole step is saved.
    """
    with RunFolder.open(Path(config.run.dir), config, resume=resume) as folder, Interrupt() as interrupt:
        run = open_fit(config, folder.path, interrupt, resume=resume)
        try:
            asyncio.run(fit(run))
        finally:
            run.tracker.close()
        if interrupt.asked:
            raise KeyboardInterrupt
    return {"dir": config.run.dir, "step": run.step}


def fresh_policy(config: Config) -> Policy:
    """A small, untrained model with a tokenizer of its own."""
    from forage.models.causal_lm import as_policy
    from forage.models.tiny import small_model, syllable_tokenizer, trained_tokenizer

    new = config.sft.fresh
    if new.tokenizer == "syllables":
        tokenizer = syllable_tokenizer()
    else:
        passages = build.dataset(config, "train").passages()
        tokenizer = trained_tokenizer((f" {passage.title} {passage.text}" for passage in passages), new.vocabulary)
    model = small_model(tokenizer, hidden=new.hidden, layers=new.layers, heads=new.heads, seed=config.run.seed)
    return as_policy(model.to(build.device(config)), tokenizer, dtype=config.model.dtype)


def open_fit(config: Config, folder: Path, interrupt: Interrupt, *, resume: bool) -> Fit:
    """Build every part of a supervised run."""
    build.use_threads(config)
    at = checkpoint.latest(folder / "checkpoints") if resume else None
    step = checkpoint.step_of(at) if at else 0
    if resume:
        cut_back(folder, step)
    model = fresh_policy(config) if config.sft.fresh.tokenizer else build.policy(config)
    learner = build.learner(config, model, loss=NegativeLogLikelihood(), updates=config.sft.steps)
    if at:
        learner.load(at)
    episodes: Episodes
    if config.sft.data:
        episodes = Recorded(Path(config.sft.data), config.sft.episodes, config.run.seed)
    else:
        episodes = Scripted(config, model.tokenizer, build.renderer(config, model.tokenizer))
    tracker = Fanout(build.trackers(config, folder, config.sft.steps))
    return Fit(config, folder, episodes, learner, tracker, interrupt, step)
