"""What a token's probability is compared to, and what it costs to know it."""

import asyncio
from dataclasses import replace

import pytest
import torch
from tiny_policies import groups_of, tiny_policy

from forage import algorithm
from forage.advantages.grpo import GRPO
from forage.advantages.rejection import Rejection
from forage.batch import chosen, collate, minibatches
from forage.configure import load
from forage.errors import ConfigError
from forage.learners.local import LocalLearner
from forage.losses.clip import ClipLoss
from forage.losses.nll import NegativeLogLikelihood

STILL = {"lr": 0.0, "weight_decay": 0.0, "max_grad_norm": 1e9}


class Listening(ClipLoss):
    """Keeps what it is given."""

    def __init__(self):
        super().__init__()
        self.batches, self.logprobs = [], []

    def __call__(self, logprobs_BT, batch):
        self.batches.append(batch)
        self.logprobs.append(logprobs_BT.detach())
        return super().__call__(logprobs_BT, batch)


def learner_of(loss=None, **options):
    return LocalLearner(tiny_policy(dtype=torch.float64), loss or Listening(), **(STILL | options))


def as_sampled(learner, batch, noise=0.0):
    """The batch, sampled by an engine that is so far from the learner, at the learner's version."""
    own_BT = asyncio.run(learner.logprobs(batch))
    drawn_BT = torch.randn(own_BT.shape, generator=torch.Generator().manual_seed(1), dtype=own_BT.dtype)
    version_BT = torch.where(batch.acted_BT, learner.step, -1)
    return replace(batch, sampled_logprobs_BT=(own_BT + noise * drawn_BT) * batch.acted_BT, version_BT=version_BT)


def advantaged(batch):
    return GRPO()(batch, lambda total: total)


def computed(learner, batch):
    """Scores a batch and learns from it; how many packed tokens went through the model (forward passes)."""
    tokens = []
    hook = learner.policy.model.base_model.register_forward_pre_hook(
        lambda module, given, options: tokens.append(options["input_ids"].numel()), with_kwargs=True
    )
    asyncio.run(learner.update(advantaged(asyncio.run(learner.score(batch)))))
    hook.remove()
    return sum(tokens)


def packed(batch):
    """Packed tokens of each of three minibatches, every prompt once a group."""
    learner = learner_of(old_logprobs="sampled")
    return [computed(learner, part) for part in minibatches(batch, 1)]


GROUPS = groups_of(seed=1)


@pytest.mark.parametrize(("noise", "recomputes"), [(0.3, True), (0.0, False), (5e-4, False)])
def test_a_first_batch_tells_whether_engine_and_learner_agree(noise, recomputes):
    learner = learner_of()
    batch = as_sampled(learner, collate(GROUPS), noise)
    gap = asyncio.run(learner.check_logprobs(batch))
    assert (gap >= 1e-3) is recomputes
    asyncio.run(learner.score(batch))
    assert learner.old.recompute is recomputes


def test_sampled_logprobs_are_the_denominator_where_that_is_asked_for():
    learner = learner_of(old_logprobs="sampled", minibatch_questions=1)
    batch = as_sampled(learner, collate(GROUPS), 0.3)
    assert computed(learner, batch) == sum(packed(batch))
    parts = minibatches(batch, 1)
    for seen, part in zip(learner.loss.batches, parts, strict=True):
        assert torch.equal(seen.old_logprobs_BT, part.sampled_logprobs_BT)


@pytest.mark.parametrize("options", [{"old_logprobs": "recomputed"}, {"correction": "token"}])
def test_the_first_minibatch_s_own_forward_gives_its_denominator(options):
    """Only those after it are learned from with other weights than the denominator's."""
    learner = learner_of(**options, minibatch_questions=1)
    batch = as_sampled(learner, collate(GROUPS), 0.3)
    asyncio.run(learner.score(batch))
    first, second, third = packed(batch)
    assert computed(learner, batch) == first + 2 * (second + third)
    assert asyncio.run(learner.score(batch)).old_logprobs_BT is None


@pytest.mark.parametrize("options", [{"old_logprobs": "recomputed"}, {"correction": "token"}])
def test_the_denominator_is_of_the_weights_before_the_first_optimizer_step(options):
    learner = learner_of(**options, minibatch_questions=1, lr=1e-2)
    batch = as_sampled(learner, collate(GROUPS), 0.3)
    parts = minibatches(replace(batch, old_logprobs_BT=asyncio.run(learner.logprobs(batch))), 1)
    asyncio.run(learner.update(advantaged(asyncio.run(learner.score(batch)))))
    assert len(learner.loss.batches) == 3
    for seen, part in zip(learner.loss.batches, parts, strict=True):
        torch.testing.assert_close(seen.old_logprobs_BT, part.old_logprobs_BT, rtol=1e-6, atol=1e-6)
    assert torch.equal(learner.loss.logprobs[0], learner.loss.batches[0].old_logprobs_BT)  # ratios of exactly 1
    assert (learner.loss.logprobs[2] - learner.loss.batches[2].old_logprobs_BT).abs().max() > 1e-2


def test_a_correction_computes_nothing_twice_where_engine_and_learner_agree_on_fresh_tokens():
    learner = learner_of(correction="token", minibatch_questions=1)
    batch = as_sampled(learner, collate(GROUPS))
    asyncio.run(learner.score(batch))
    assert learner.old.recompute is False
    assert computed(learner, batch) == sum(packed(batch))
    assert all(torch.equal(seen.old_logprobs_BT, seen.sampled_logprobs_BT) for seen in learner.loss.batches[1:])


def test_a_correction_computes_the_logprobs_of_older_tokens():
    learner = learner_of(correction="token", minibatch_questions=1, lr=1e-2)
    batch = as_sampled(learner, collate(GROUPS))
    asyncio.run(learner.score(batch))
    learner.step = 1
    own_BT = asyncio.run(learner.logprobs(batch))
    older = replace(batch, sampled_logprobs_BT=(batch.sampled_logprobs_BT - 0.1) * batch.acted_BT)
    first, second, third = packed(batch)
    assert computed(learner, older) == first + 2 * (second + third)
    expected = minibatches(replace(batch, old_logprobs_BT=own_BT), 1)[2].old_logprobs_BT
    torch.testing.assert_close(learner.loss.batches[2].old_logprobs_BT, expected, rtol=1e-6, atol=1e-6)


def test_with_recomputed_logprobs_a_correction_takes_nothing_on_trust():
    learner = learner_of(correction="token", old_logprobs="recomputed", minibatch_questions=1)
    batch = as_sampled(learner, collate(GROUPS))
    assert computed(learner, batch) > sum(packed(batch))


def test_rows_that_are_not_learned_from_cost_nothing():
    rewards = [[1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [1.0, 1.0, 0.0]]
    learner = learner_of(old_logprobs="recomputed", minibatch_questions=1)
    batch = as_sampled(learner, collate(groups_of(seed=1, rewards=rewards)))
    tokens = []
    learner.policy.model.base_model.register_forward_pre_hook(
        lambda module, given, options: tokens.append(options["input_ids"].numel()), with_kwargs=True
    )
    part = chosen(Rejection()(asyncio.run(learner.score(batch)), lambda total: total))
    assert tokens == []
    asyncio.run(learner.update(part))
    first, second = (int(one.lengths_B.sum()) for one in minibatches(part, 1))
    shared = sum(tokens) - first - 2 * second
    assert len(tokens) == 3
    assert -2 * int(part.lengths_B.max()) < shared <= 0  # of two rows of one question the prompt is computed once


def test_a_first_batch_without_rows_leaves_the_choice_to_the_next_however_old_its_tokens_are():
    """Nothing was learned, so they are of these very weights, whatever their version says."""
    equal = collate(groups_of(rewards=[[1.0] * 3] * 3), drop_equal=True)
    for noise, recomputes in ((0.3, True), (0.0, False)):
        learner = learner_of(lr=1e-2)
        older = as_sampled(learner, collate(GROUPS), noise)
        asyncio.run(learner.update(advantaged(asyncio.run(learner.score(equal)))))
        assert learner.old.recompute is None
        assert learner.step == 1
        asyncio.run(learner.score(older))
        assert learner.old.recompute is recomputes


def test_once_something_was_learned_older_tokens_differ_for_another_reason():
    learner = learner_of(lr=1e-2)
    batch = as_sampled(learner, collate(GROUPS), 0.3)
    asyncio.run(learner.update(advantaged(batch)))  # without a score
    asyncio.run(learner.score(batch))
    assert learner.old.recompute is None
    asyncio.run(learner.score(as_sampled(learner, batch, 0.3)))
    assert learner.old.recompute


def test_a_loss_may_read_the_denominator_and_an_advantage_may_not():
    loaded = load("smoke", ["algorithm.loss=odd_parts:NeedsOldLogprobs"])
    assert algorithm.policy_loss(loaded).needs == {"old_logprobs_BT"}
    with pytest.raises(ConfigError, match="old_logprobs_BT, which nothing in this run computes"):
        algorithm.advantage(load("smoke", ["algorithm.advantage=odd_parts:NeedsOldLogprobs"]))


def test_what_is_learned_without_advantages_is_compared_to_nothing():
    learner = learner_of(NegativeLogLikelihood(), old_logprobs="recomputed", minibatch_questions=1)
    tokens = []
    learner.policy.model.base_model.register_forward_pre_hook(lambda *_: tokens.append(1))
    asyncio.run(learner.update(collate(GROUPS)))
    assert len(tokens) == 3
