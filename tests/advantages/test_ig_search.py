"""The outcome compared as GRPO does, and on the tokens of searches what they gained."""

from dataclasses import replace

import pytest
import torch
from tiny_policies import groups_of

from forage.advantages.grpo import GRPO
from forage.advantages.ig_search import IGSearch
from forage.batch import collate
from forage.types import Search


def alone(total):
    return total


def measured(rewards, gains, samples=3):
    """Groups of which the searches of each sample gained so much, turn by turn."""
    groups = groups_of(1, groups=len(rewards), samples=samples, rewards=rewards)
    for group, of_rows in zip(groups, gains, strict=True):
        for row, of_turns in zip(group.trajectories, of_rows, strict=True):
            row.turns = [replace(turn, action=Search(("q",))) for turn in row.turns]
            for turn, gain in zip(row.turns, of_turns, strict=False):
                turn.gain = gain
    return collate(groups)


def tokens_of(batch, row, turn):
    return batch.acted_BT[row] & (batch.turn_BT[row] == turn)


@pytest.mark.parametrize("rewards", [[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
def test_searches_are_compared_beside_the_outcome(rewards):
    batch = measured([rewards], [[[1.0], [2.0], [3.0]]])
    outcome_BT = GRPO()(batch, alone).advantages_BT
    ours_BT = IGSearch(weight=0.5, noise=0.0)(batch, alone).advantages_BT
    for row, compared in enumerate([-1.0, 0.0, 1.0]):
        extra_T = (ours_BT - outcome_BT)[row]
        first = tokens_of(batch, row, 0)
        torch.testing.assert_close(extra_T[first], torch.full_like(extra_T[first], 0.5 * compared))
        assert not extra_T[~first].any()


def test_a_search_is_compared_with_those_of_its_turn_alone():
    groups = groups_of(3, groups=1, samples=3, rewards=[[0.0] * 3])
    two = [row for row in groups[0].trajectories if len(row.turns) > 1]
    assert len(two) == 2
    for row, later in zip(two, [9.0, 5.0], strict=True):
        row.turns[0].gain, row.turns[1].gain = 0.25, later
    batch = collate(groups)
    ours_BT = IGSearch(noise=0.0)(batch, alone).advantages_BT
    rows = [groups[0].trajectories.index(row) for row in two]
    assert not any(ours_BT[row][tokens_of(batch, row, 0)].any() for row in rows)
    assert all(sign * ours_BT[row][tokens_of(batch, row, 1)].sum() > 0 for row, sign in zip(rows, [1, -1], strict=True))


def test_a_search_that_is_alone_in_its_turn_gets_nothing():
    batch = measured([[0.0] * 3], [[[5.0], [], []]])
    assert not IGSearch()(batch, alone).advantages_BT.any()


def test_differences_of_rounding_are_no_signal():
    batch = measured([[0.0] * 3], [[[1.0], [1.0 + 1e-6], [1.0]]])
    assert IGSearch()(batch, alone).advantages_BT.abs().max() < 1e-4


def test_without_a_measured_search_or_a_weight_it_is_grpo():
    outcome = [[1.0, 0.0, 0.0]]
    for batch, estimator in [
        (measured(outcome, [[[], [], []]]), IGSearch()),
        (measured(outcome, [[[1.0], [2.0], [4.0]]]), IGSearch(weight=0.0)),
    ]:
        assert torch.equal(estimator(batch, alone).advantages_BT, GRPO()(batch, alone).advantages_BT)


def test_at_weight_0_nothing_is_measured():
    assert (IGSearch(weight=0.0).needs, IGSearch(weight=0.0).group_relative) == (frozenset(), True)
    assert (IGSearch().needs, IGSearch().group_relative) == ({"gains_BT"}, False)
