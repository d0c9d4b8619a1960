"""Leaves beside those of their tree, and beside all of their question."""

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_policies import groups_of

from forage import algorithm
from forage.advantages.grpo import GRPO
from forage.advantages.tree_grpo import TreeGRPO
from forage.batch import collate, select
from forage.configure import load
from forage.errors import ConfigError

REWARDS = [0.0, 0.25, 1.0]


def batch_of(groups):
    """Rows of these (tree, reward) pairs, group by group."""
    size = len(groups[0])
    made = groups_of(groups=len(groups), samples=size, rewards=[[reward for _, reward in group] for group in groups])
    for group, pairs in zip(made, groups, strict=True):
        for row, (tree, _) in zip(group.trajectories, pairs, strict=True):
            row.tree = tree
    return collate(made)


def by_row(estimator, batch):
    done = estimator(batch, lambda total: total)
    return [row[acted].unique().item() for row, acted in zip(done.advantages_BT, batch.acted_BT, strict=True)]


def beside(reward, others):
    """(r - mean) / (unbiased std + 1e-6); 0 where all are equal."""
    if len(set(others)) == 1:
        return 0.0
    return (reward - statistics.mean(others)) / (statistics.stdev(others) + 1e-6)


leaves = st.tuples(st.integers(0, 3), st.sampled_from(REWARDS))
forests = st.integers(2, 7).flatmap(
    lambda size: st.lists(st.lists(leaves, min_size=size, max_size=size), min_size=1, max_size=3)
)


@given(groups=forests)
def test_a_leaf_is_compared_in_its_tree_and_in_its_group(groups):
    expected = []
    for group in groups:
        for tree, reward in group:
            of_tree = [other for number, other in group if number == tree]
            expected.append(beside(reward, of_tree) + beside(reward, [other for _, other in group]))
    assert by_row(TreeGRPO(), batch_of(groups)) == pytest.approx(expected, abs=1e-5)


@given(groups=forests)
def test_one_tree_counts_twice_and_a_tree_for_each_leaf_not_at_all(groups):
    one = batch_of([[(0, reward) for _, reward in group] for group in groups])
    assert by_row(TreeGRPO(), one) == pytest.approx([2 * value for value in by_row(GRPO(), one)], abs=1e-5)
    alone = batch_of([[(tree, reward) for tree, (_, reward) in enumerate(group)] for group in groups])
    assert by_row(TreeGRPO(), alone) == by_row(GRPO(), alone)


@given(groups=forests, epsilon=st.floats(1e-6, 1.0))
def test_equal_rewards_give_exactly_nothing(groups, epsilon):
    equal = batch_of([[(tree, 0.3) for tree, _ in group] for group in groups])
    assert by_row(TreeGRPO(epsilon=epsilon), equal) == [0.0] * len(equal.group_B)


def test_trees_of_different_questions_are_different_trees():
    batch = batch_of([[(0, 1.0), (1, 0.0), (0, 0.0)], [(0, 1.0), (1, 0.0), (0, 1.0)]])
    assert batch.tree_B.tolist() == [0, 1, 0, 2, 3, 2]
    assert select(batch, batch.group_B.nonzero().flatten()).tree_B.tolist() == [2, 3, 2]


def test_rows_without_a_tree_have_no_column():
    groups = groups_of()
    groups[0].trajectories[0].tree = None
    assert collate(groups).tree_B is None


def test_it_is_refused_where_no_tree_is_grown():
    with pytest.raises(ConfigError, match=r"'tree_grpo' compares the episodes of a tree.*rollout\.trees"):
        algorithm.advantage(load("smoke", ["algorithm.advantage=tree_grpo"]))
    assert algorithm.advantage(load("smoke", ["algorithm.advantage=tree_grpo", "rollout.trees=2"]))
