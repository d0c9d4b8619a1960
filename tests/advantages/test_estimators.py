"""What holds for every registered estimator."""

import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_policies import groups_of

from forage import algorithm
from forage.batch import collate, minibatches, select
from forage.configure import load
from forage.errors import ConfigError
from forage.registry import PARTS, find
from forage.types import Group, Scores

NAMES = sorted(PARTS["algorithm.advantage"])
RELATIVE = {"dr_grpo", "grpo", "rloo", "tree_grpo"}
SEEDS = st.integers(0, 10**6)


def alone(total):
    """The sum over all processes, of one."""
    return total


def made(name, **options):
    return find("algorithm.advantage", name)(**options)


def with_turns(groups, seed):
    """Half of the rewards again, on turns."""
    rng = random.Random(seed)

    def scores(group):
        for row, score in zip(group.trajectories, group.scores, strict=True):
            turns = {turn for turn, acted in zip(row.turn, row.acted, strict=True) if acted and rng.random() < 0.5}
            yield Scores(score.total, turns={turn: rng.choice([-0.5, 0.25, 1.0]) for turn in turns})

    return [Group(group.trajectories, list(scores(group)), baseline=rng.random()) for group in groups]


def filled(groups, seed=0):
    """Their batch, with a critic's values and gains everywhere."""
    batch, generator = collate(groups), torch.Generator().manual_seed(seed)
    values_BT = torch.randn(batch.acted_BT.shape, generator=generator)
    return replace(batch, values_BT=values_BT, gains_BT=torch.randn(batch.acted_BT.shape, generator=generator))


def batch_of(seed, samples=3, rewards=None):
    return filled(with_turns(groups_of(seed, samples=samples, rewards=rewards), seed), seed)


def close(ours, theirs, tolerance=1e-5):
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance, check_dtype=False)


@pytest.mark.parametrize("name", NAMES)
def test_advantages_stand_on_acted_tokens_only(name):
    batch = batch_of(1)
    done = made(name)(batch, alone)
    assert done.advantages_BT.shape == batch.tokens_BT.shape
    assert done.advantages_BT.dtype is torch.float32
    assert done.advantages_BT[batch.acted_BT].any()
    assert not done.advantages_BT[~batch.acted_BT].any()


def spoilt(batch, seed):
    """The batch with other numbers at observed tokens. Their ids are others too, but equal where they were equal."""
    random_BT = torch.randn(batch.acted_BT.shape, generator=torch.Generator().manual_seed(seed)) * 100
    return replace(
        batch,
        tokens_BT=torch.where(batch.acted_BT, (random_BT * 7).long(), batch.tokens_BT * 3 + 11),
        sampled_logprobs_BT=torch.where(batch.acted_BT, batch.sampled_logprobs_BT, random_BT),
        values_BT=torch.where(batch.acted_BT, batch.values_BT, random_BT),
        gains_BT=torch.where(batch.acted_BT, batch.gains_BT, random_BT),
        rewards_BT=torch.where(batch.acted_BT, batch.rewards_BT, random_BT),
    )


@pytest.mark.parametrize("name", sorted({*NAMES} - {"gae_all_tokens"}))
@given(seed=SEEDS)
def test_what_stands_at_observed_tokens_changes_nothing(name, seed):
    batch = batch_of(seed % 50)
    assert torch.equal(made(name)(spoilt(batch, seed), alone).advantages_BT, made(name)(batch, alone).advantages_BT)


def test_but_for_the_one_that_is_kept_for_its_fault():
    batch, estimator = batch_of(3), made("gae_all_tokens", lam=0.9)
    assert not torch.allclose(estimator(spoilt(batch, 3), alone).advantages_BT, estimator(batch, alone).advantages_BT)


@pytest.mark.parametrize("name", NAMES)
@given(seed=SEEDS)
def test_rows_may_stand_in_any_order(name, seed):
    batch = batch_of(seed % 50)
    order_B = torch.randperm(len(batch.group_B), generator=torch.Generator().manual_seed(seed))
    shuffled = made(name)(select(batch, order_B), alone).advantages_BT
    close(shuffled, made(name)(batch, alone).advantages_BT[order_B])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("grpo", {}),
        ("dr_grpo", {}),
        ("rloo", {}),
        ("reinforce", {"baseline": "batch_mean"}),
        ("reinforce_pp", {}),
        ("reinforce_pp_baseline", {}),
        ("gigpo", {"gamma": 1.0}),
        ("tree_grpo", {}),
    ],
)
@given(seed=SEEDS, more=st.sampled_from([-3.0, 0.5, 100.0]))
def test_a_constant_added_to_all_rewards_changes_nothing(name, options, seed, more):
    groups = with_turns(groups_of(seed), seed)
    raised = [
        replace(group, scores=[replace(score, total=score.total + more) for score in group.scores]) for group in groups
    ]
    estimator = made(name, **options)
    close(estimator(filled(raised), alone).advantages_BT, estimator(filled(groups), alone).advantages_BT, 1e-3)


@pytest.mark.parametrize("name", NAMES)
@given(seed=SEEDS)
def test_float32_and_float64_agree(name, seed):
    batch = batch_of(seed)
    names = ("rewards_B", "rewards_BT", "values_BT", "baselines_B")
    wide = replace(batch, **{column: getattr(batch, column).double() for column in names})
    close(made(name)(batch, alone).advantages_BT, made(name)(wide, alone).advantages_BT)


def in_processes(estimator, parts):
    """The advantages of parts that are in a process each; `reduce` sums over all of them, as torch.distributed does."""
    barrier, given = Barrier(len(parts)), [None] * len(parts)

    def work(place):
        def reduce(total):
            given[place] = total
            barrier.wait(timeout=10)
            summed = torch.stack(given).sum(0)
            barrier.wait(timeout=10)
            return summed

        return estimator(parts[place], reduce).advantages_BT

    with ThreadPoolExecutor(len(parts)) as pool:
        return list(pool.map(work, range(len(parts))))


@pytest.mark.parametrize("name", NAMES)
def test_groups_in_a_process_each_give_what_one_process_gives(name):
    batch, options = batch_of(5), {"baseline": "batch_mean"} if name == "reinforce" else {}
    together = made(name, **options)(batch, alone)
    parts = in_processes(made(name, **options), minibatches(batch, 1))
    for ours_BT, theirs in zip(parts, minibatches(together, 1), strict=True):
        close(ours_BT, theirs.advantages_BT)


@pytest.mark.parametrize("name", NAMES)
def test_it_knows_whether_groups_of_equal_rewards_teach_nothing(name):
    estimator, rewards = made(name), [[0.8] * 3, [0.1] * 3, [1.0, 0.0, 0.3]]
    left = [estimator(batch_of(seed, rewards=rewards), alone).advantages_BT[:6].any() for seed in range(5)]
    assert any(left) != estimator.group_relative
    assert estimator.group_relative == (name in RELATIVE)


@pytest.mark.parametrize("name", sorted(RELATIVE))
def test_leaving_them_out_changes_no_other_group(name):
    groups = groups_of(2, rewards=[[1.0, 0.0, 0.3], [0.7] * 3, [0.0, 0.0, 1.0]])
    kept = made(name)(collate(groups, drop_equal=True), alone)
    everything = select(made(name)(collate(groups), alone), torch.tensor([0, 1, 2, 6, 7, 8]))
    assert torch.equal(kept.advantages_BT, everything.advantages_BT)


@pytest.mark.parametrize("name", [name for name in NAMES if getattr(made(name), "min_samples", 1) > 1])
def test_a_lone_sample_is_compared_with_nothing(name):
    batch = batch_of(4, samples=1, rewards=[[1.0], [1.0], [1.0]])
    assert not made(name)(batch, alone).advantages_BT.any()


@pytest.mark.parametrize("name", NAMES)
def test_no_rows_are_no_trouble(name):
    batch = collate(groups_of(rewards=[[1, 1, 1]] * 3), drop_equal=True)
    batch = replace(batch, values_BT=torch.zeros(batch.acted_BT.shape), baselines_B=torch.zeros(0))
    assert made(name)(batch, alone).advantages_BT.shape == batch.tokens_BT.shape


@pytest.mark.parametrize("name", NAMES)
def test_a_penalty_is_taken_off_the_rewards(name):
    batch = batch_of(6)
    penalty_BT = torch.rand(batch.acted_BT.shape, generator=torch.Generator().manual_seed(1)) * batch.acted_BT
    taken_off = replace(batch, rewards_BT=batch.rewards_BT - penalty_BT, rewards_B=batch.rewards_B - penalty_BT.sum(1))
    penalised = made(name)(replace(batch, penalty_BT=penalty_BT), alone).advantages_BT
    close(penalised, made(name)(taken_off, alone).advantages_BT)


def test_too_few_samples_are_refused():
    with pytest.raises(ConfigError, match=r"rollout\.samples = 1, but algorithm\.advantage = 'grpo'.*needs 2"):
        algorithm.advantage(load("smoke", ["rollout.samples=1"]))
    assert algorithm.advantage(load("smoke", ["rollout.samples=1", "algorithm.advantage=reinforce_pp"]))


def test_a_critic_is_asked_for_where_there_is_none():
    with pytest.raises(ConfigError, match=r"algorithm\.advantage = 'gae'"):
        algorithm.advantage(load("smoke", ["algorithm.advantage=gae"]))
    assert algorithm.advantage(load("smoke", ["algorithm.advantage=gae", "critic=own"]))
