"""The parts of an algorithm, which are built only where they go together with each other and the rest of a run."""

from __future__ import annotations

from forage.config import Config
from forage.errors import ConfigError
from forage.interfaces import AdvantageEstimator, PolicyLoss
from forage.registry import find, part

COLUMNS = frozenset({"advantages_BT", "baselines_B", "gains_BT", "ref_logprobs_BT", "tree_B"})
"""Optional batch columns that a run without a critic can fill in before its update."""


def advantage(config: Config) -> AdvantageEstimator:
    """The advantage estimator, its needs checked.

    Raises:
        ConfigError: it reads columns or values that this run does not have, or compares more samples than are played.
    """
    built: AdvantageEstimator = part(config, "algorithm.advantage")
    _check_needs(config, "algorithm.advantage", built.needs)
    smallest, samples = getattr(built, "min_samples", 1), config.rollout.samples
    if samples < smallest:
        raise ConfigError(
            f"rollout.samples = {samples}, but algorithm.advantage = {config.algorithm.advantage.kind!r} compares "
            f"samples of a question and needs {smallest}; raise it, or set algorithm.advantage=reinforce_pp"
        )
    if getattr(built, "chooses", False) and config.learner.options.get("kl_in") == "reward":
        raise ConfigError(
            f"algorithm.advantage = {config.algorithm.advantage.kind!r} chooses episodes by their rewards, and "
            "learner.kl_in = 'reward' would change which are right: set learner.kl_in=loss"
        )
    if getattr(built, "judges_shown", False) and config.critic.kind == "shared":
        raise ConfigError(
            f"algorithm.advantage = {config.algorithm.advantage.kind!r} reads values of retrieved tokens, where a "
            "shared critic has none: set critic=own"
        )
    return built


def policy_loss(config: Config) -> PolicyLoss:
    """The policy loss, its needs checked.

    Raises:
        ConfigError: it lacks what it reads, or does nothing.
    """
    built: PolicyLoss = part(config, "algorithm.loss")
    kind, estimator = config.algorithm.loss.kind, config.algorithm.advantage.kind
    _check_needs(config, "algorithm.loss", built.needs - {"old_logprobs_BT"})  # the update fills it in for its loss
    given = part(config, "algorithm.advantage").needs
    if missing := built.needs & {"baselines_B", "gains_BT"} - given:
        raise ConfigError(
            f"algorithm.loss = {kind!r} needs {', '.join(sorted(missing))}, which are filled in for an advantage "
            f"estimator that reads them, and algorithm.advantage = {estimator!r} does not"
        )
    size, questions = config.learner.options.get("minibatch_questions", 1), config.rollout.questions
    if getattr(built, "needs_several_steps", False) and not (0 < size < questions or config.rollout.staleness):
        raise ConfigError(
            f"algorithm.loss = {kind!r} acts on what moved within a batch, but each batch is one optimizer step: set "
            f"learner.minibatch_questions below rollout.questions = {questions}"
        )
    return built


def check(config: Config) -> None:
    """Build estimator and loss, to see that they go together with the rest before a model is loaded.

    Raises:
        ConfigError: they do not.
    """
    advantage(config)
    policy_loss(config)


def drops_equal(config: Config, estimator: AdvantageEstimator) -> bool:
    """Whether groups of equal rewards are left out of the computation: where that is not forbidden and changes nothing.

    With a KL or an entropy term their tokens teach all the same, and a loss may read them.
    """
    if config.algorithm.equal_groups == "keep" or not estimator.group_relative:
        return False
    beside = config.learner.options.get("kl_coef") or config.learner.options.get("entropy_coef")
    return not (beside or getattr(find("algorithm.loss", config.algorithm.loss.kind), "reads_equal_groups", False))


def _check_needs(config: Config, name: str, needs: frozenset[str]) -> None:
    kind = config.part(name).kind
    if "values_BT" in needs and config.critic.kind == "none":
        raise ConfigError(f"{name} = {kind!r} reads a critic's values, and there is none: set critic=own (or shared)")
    if "ref_logprobs_BT" in needs and not config.learner.options.get("kl_coef"):
        raise ConfigError(f"{name} = {kind!r} needs a reference model, which is held only with learner.kl_coef above 0")
    if "tree_B" in needs and not config.rollout.trees:
        raise ConfigError(f"{name} = {kind!r} compares the episodes of a tree, and none is grown: set rollout.trees=2")
    if missing := needs - COLUMNS - {"values_BT"}:
        raise ConfigError(f"{name} = {kind!r} needs {', '.join(sorted(missing))}, which nothing in this run computes")
