"""A configuration to the parts of a run. The only place that knows which part is handed to which."""

from __future__ import annotations

import logging
from collections.abc import Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forage.algorithm import policy_loss
from forage.config import Config
from forage.errors import ConfigError, DataError
from forage.interfaces import AdvantageEstimator, Dataset, Engine, Renderer, Retriever, Reward, Source, Tracker
from forage.registry import find, part
from forage.retrievers.gather import Gather
from forage.rewards.adapt import as_reward
from forage.rollout import Limits, Rollout
from forage.sources.buffered import BufferedSource
from forage.sources.fresh import FreshSource
from forage.sources.player import Player
from forage.types import Question, StopReason

if TYPE_CHECKING:
    from forage.datasets.fictional import Split
    from forage.gain import Gain
    from forage.models.causal_lm import Policy

log = logging.getLogger(__name__)


def dataset(config: Config, split: Split) -> Dataset:
    """The data set of a split."""
    built: Dataset = part(config, "data", split)
    return built


def first_questions(data: Dataset, count: int) -> Sequence[Question]:
    """The first `count` questions, or all where `count` is 0.

    Raises:
        DataError: there are none.
    """
    questions = data.questions()
    if not len(questions):
        raise DataError("the data set holds no questions; look at data.questions (or data.eval_questions)")
    return questions[:count] if count else questions


def device(config: Config) -> str:
    """`cpu` or `cuda`, as run.device says.

    Raises:
        ConfigError: CUDA is asked for and there is none.
    """
    import torch

    if config.run.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("run.device = 'cuda', but PyTorch sees no GPU here; set run.device=cpu or auto")
    if config.run.device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return config.run.device


def use_threads(config: Config) -> None:
    """Set torch's CPU threads; 0 leaves torch's choice."""
    import torch

    if config.run.threads:
        torch.set_num_threads(config.run.threads)


def policy(config: Config, *, weights: str | Path = "") -> Policy:
    """The language model and its tokenizer; `weights` (a checkpoint) take the place of the model's own."""
    from forage.models.causal_lm import load_policy

    return load_policy(
        weights or config.model.path,
        device=device(config),
        dtype=config.model.dtype,
        gradient_checkpointing=config.model.gradient_checkpointing,
        init_from="" if weights else config.model.init_from,
    )


def check_model(config: Config) -> None:
    """See that the model is there, as far as that can be told without loading it.

    Raises:
        CheckpointError: it is not.
    """
    from forage.models.causal_lm import resolve

    for path in filter(None, (config.model.path, config.model.init_from)):
        resolve(path)


def renderer(config: Config, tokenizer: Any) -> Renderer:
    """The protocol between policy and environment.

    Raises:
        ConfigError: its smallest observation is larger than the limit on observations.
    """
    built: Renderer = part(config, "renderer", tokenizer)
    smallest, limit = getattr(built, "min_observation_tokens", 0), config.rollout.max_observation_tokens
    if smallest > limit:
        raise ConfigError(
            f"rollout.max_observation_tokens = {limit} is too small: this template and tokenizer need {smallest} "
            "tokens without a single passage"
        )
    return built


def retriever(config: Config, data: Dataset) -> Gather:
    """The run's search engine over a data set's passages: gathered, cached, its failures values.

    Raises:
        ConfigError: fewer passages than search.k.
    """
    index = part(config, "search", data.passages())
    if isinstance(index, Sized) and len(index) < config.search.k:
        raise ConfigError(
            f"search.k = {config.search.k}, but the corpus holds {len(index)} passages; lower search.k or add passages"
        )
    return Gather(index, cache_size=config.search.cache_size, timeout_s=config.search.timeout_s)


def engine(config: Config, model: Policy, *, lockstep: bool) -> Engine:
    """What decodes; in lockstep where every search is answered in this process, at once."""
    built: Engine = part(config, "engine", model.model, model.tokenizer, config.rollout.max_tokens, lockstep)
    return built


def limits(config: Config) -> Limits:
    """An episode's budgets."""
    chosen = config.rollout
    return Limits(chosen.max_searches, chosen.max_turn_tokens, chosen.max_observation_tokens, chosen.max_tokens)


def rollout(config: Config, decoder: Engine, writer: Renderer, searcher: Retriever, temperature: float) -> Rollout:
    """Episodes at a temperature; 0 is greedy."""
    return Rollout(decoder, writer, searcher, config.search.k, limits(config), temperature)


def reward(config: Config) -> Reward:
    """The reward; a plain function of a trajectory is adapted."""
    return as_reward(part(config, "reward"), name=config.reward.kind)


def learner(config: Config, model: Policy, *, loss: Any = None, updates: int) -> Any:
    """What updates the weights, in `updates` updates; a `loss` takes the place of algorithm.loss, and has no critic."""
    if loss is not None:
        if config.learner.options.get("correction", "none") != "none":
            raise ConfigError("learner.correction weighs sampled tokens; supervised learning has none: leave it out")
        return part(config, "learner", model, loss, config.rollout.temperature, updates, None)
    loss = policy_loss(config)
    return part(config, "learner", model, loss, config.rollout.temperature, updates, critic(config, model))


def critic(config: Config, model: Policy) -> Any:
    """Who says what a state is worth; begins with the critic of model.init_from, where there is one."""
    from forage.models.causal_lm import resolve

    chosen = config.critic
    built = part(config, "critic", model, chosen.lr, chosen.warmup_steps, chosen.value_clip, chosen.max_grad_norm)
    if config.model.init_from:
        built.adopt(Path(resolve(config.model.init_from)).parent / "critic")
    estimator = config.algorithm.advantage.kind
    if chosen.kind != "none" and "values_BT" not in find("algorithm.advantage", estimator).needs:
        log.warning("critic.kind = %r learns nothing: algorithm.advantage = %r reads no values", chosen.kind, estimator)
    return built


@dataclass(frozen=True, slots=True)
class Place:
    """Where episodes are played: questions, and the search engine over their passages."""

    questions: Sequence[Question]
    retriever: Gather


def places(config: Config) -> tuple[Place, Place]:
    """Training and evaluation; they share an index where they share a corpus."""
    train, held_out = dataset(config, "train"), dataset(config, "eval")
    searcher = retriever(config, train)
    other = searcher if train.corpus == held_out.corpus else retriever(config, held_out)
    return (
        Place(first_questions(train, 0), searcher),
        Place(first_questions(held_out, config.eval.questions), other),
    )


def evaluation_place(config: Config) -> Place:
    """Evaluation alone."""
    held_out = dataset(config, "eval")
    return Place(first_questions(held_out, config.eval.questions), retriever(config, held_out))


def source(
    config: Config, place: Place, decoder: Engine, writer: Renderer, scorer: Reward, estimator: AdvantageEstimator
) -> Source:
    """What gives each step its groups, as the advantage estimator needs them.

    Raises:
        ConfigError: groups with equal rewards are to be replaced, but are no waste with this estimator; or a group has
            more trees than episodes.
    """
    chosen, algorithm = config.rollout, config.algorithm
    if chosen.trees > chosen.samples:
        raise ConfigError(f"rollout.trees = {chosen.trees}, but a group has only rollout.samples = {chosen.samples}")
    refill = algorithm.equal_groups == "refill"
    if refill and not estimator.group_relative:
        raise ConfigError(
            f"algorithm.equal_groups = 'refill' replaces groups that teach nothing, but with algorithm.advantage = "
            f"{algorithm.advantage.kind!r} groups of equal rewards do teach; take 'keep'"
        )
    greedy = "baselines_B" in estimator.needs
    player = Player(
        rollout(config, decoder, writer, place.retriever, chosen.temperature),
        scorer,
        samples=chosen.samples,
        trees=chosen.trees,
        seed=config.run.seed,
        greedy=rollout(config, decoder, writer, place.retriever, 0.0) if greedy else None,
        leave_out=[StopReason(stop) for stop in algorithm.leave_out],
        min_samples=getattr(estimator, "min_samples", 1),
    )
    fresh = FreshSource(
        place.questions,
        player,
        batch_questions=chosen.questions,
        seed=config.run.seed,
        max_failure_rate=config.search.max_failure_rate,
        max_refills=algorithm.max_refills if refill else None,
    )
    return BufferedSource(fresh, chosen.staleness) if chosen.staleness else fresh


def gain(config: Config, writer: Renderer, trained: Any, estimator: AdvantageEstimator) -> Gain | None:
    """What measures searches with the learner's policy, where the advantage estimator reads it."""
    if "gains_BT" not in estimator.needs:
        return None
    from forage.gain import Gain

    others = getattr(estimator, "others", 3)
    return Gain(writer, limits(config), trained.logprobs, seed=config.run.seed, others=others)


def trackers(config: Config, folder: Path, steps: int) -> list[Tracker]:
    """metrics.jsonl, and whatever else the run asks for."""
    kinds = {"jsonl": True, **{name: getattr(config.tracking, name) for name in ("console", "tensorboard", "wandb")}}
    given: dict[str, tuple[Any, ...]] = {
        "jsonl": (folder / "metrics.jsonl",),
        "console": (folder.name, steps),
        "tensorboard": (folder / "tensorboard",),
        "wandb": (folder, config.tracking.wandb_project),
    }
    return [find("tracker", kind)(*given[kind]) for kind, wanted in kinds.items() if wanted]
