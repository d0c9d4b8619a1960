"""A training run's parts, put together: from a configuration, or where a checkpoint left off."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from forage import algorithm, build, checkpoint
from forage.config import Config
from forage.configure import changed
from forage.gain import Gain
from forage.health import Health
from forage.interfaces import AdvantageEstimator, Engine, Learner, Source, WeightSync
from forage.interrupt import Interrupt
from forage.metrics import Clock
from forage.resume import cut_back
from forage.retrievers.gather import Gather
from forage.rollout import Rollout
from forage.trackers.fanout import Fanout
from forage.weights.shared import SharedWeights


@dataclass(slots=True)
class Run:
    """All that a training run works with. `step` is the last one done."""

    config: Config
    folder: Path
    source: Source
    learner: Learner
    engine: Engine
    weights: WeightSync
    advantage: AdvantageEstimator
    gain: Gain | None
    greedy: Rollout
    held_out: build.Place
    searcher: Gather
    tracker: Fanout
    health: Health
    interrupt: Interrupt
    step: int = 0
    clock: Clock = field(default_factory=Clock)

    @property
    def drops_equal(self) -> bool:
        """Whether groups with equal rewards are left out: only where they would teach nothing."""
        return algorithm.drops_equal(self.config, self.advantage)

    @property
    def chooses(self) -> bool:
        """Whether rows without an advantage are left out of what is learned, and of its counts."""
        return bool(getattr(self.advantage, "chooses", False))

    def remaining_steps(self) -> Iterator[int]:
        """The steps still to do; ends early, after a whole step, when the user interrupts."""
        while self.step < self.config.train.steps and not self.interrupt.asked:
            yield self.step + 1


def open_run(config: Config, folder: Path, interrupt: Interrupt, *, resume: bool) -> Run:
    """Build every part of a run; before the model those that may lack something (a judge or a search engine its key,
    the data a file). A resumed one is cut back to its last checkpoint.

    Raises:
        ConfigError: parts do not go together, in the run or in what it would go on with after a collapse.
    """
    for planned in (config, *([changed(config, config.diagnosis.retry)] if config.diagnosis.retry else [])):
        algorithm.check(planned)
    build.use_threads(config)
    build.check_model(config)
    reward = build.reward(config)
    here, held_out = build.places(config)
    at = checkpoint.latest(folder / "checkpoints") if resume else None
    step = checkpoint.step_of(at) if at else 0
    if resume:
        cut_back(folder, step)
    model = build.policy(config)
    writer = build.renderer(config, model.tokenizer)
    decoder = build.engine(config, model, lockstep=here.retriever.in_process)
    learner = build.learner(config, model, updates=config.train.steps)
    advantage = algorithm.advantage(config)
    source = build.source(config, here, decoder, writer, reward, advantage)
    if at:
        learner.load(at)
        source.load(at)
    return Run(
        config=config,
        folder=folder,
        source=source,
        learner=learner,
        engine=decoder,
        weights=SharedWeights(learner, decoder),
        advantage=advantage,
        gain=build.gain(config, writer, learner, advantage),
        greedy=build.rollout(config, decoder, writer, held_out.retriever, 0.0),
        held_out=held_out,
        searcher=here.retriever,
        tracker=Fanout(build.trackers(config, folder, config.train.steps)),
        health=Health(folder, config),
        interrupt=interrupt,
        step=step,
    )
