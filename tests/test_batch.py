from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_policies import groups_of

from forage.batch import collate, minibatches, row_rewards, select, token_rewards
from forage.types import Batch, Completion, Finish, Group, Invalid, Question, Scores, StopReason, Trajectory, Turn


def trajectory(stop=StopReason.ANSWERED):
    row = Trajectory(Question("q", "?", ("a",)), "q/0", 0, stop=stop)
    row.observe([5, 6])
    row.act(Completion([7, 8], [-0.5, -0.25], [3, 3], Finish.STOP))
    row.observe([9])
    return row


def test_columns_are_the_trajectory_padded_on_the_right():
    longer = trajectory()
    longer.turns.append(Turn(Invalid("none")))
    longer.act(Completion([4], [-1.0], [4], Finish.EOS))
    batch = collate([Group([trajectory(), longer], [Scores(0.0), Scores(1.0)])])
    assert batch.tokens_BT.tolist() == [[5, 6, 7, 8, 9, 0], [5, 6, 7, 8, 9, 4]]
    assert batch.acted_BT.tolist() == [
        [False, False, True, True, False, False],
        [False, False, True, True, False, True],
    ]
    assert batch.sampled_logprobs_BT.tolist() == [[0, 0, -0.5, -0.25, 0, 0], [0, 0, -0.5, -0.25, 0, -1]]
    assert batch.version_BT[1].tolist() == [-1, -1, 3, 3, -1, 4]
    assert batch.lengths_B.tolist() == [5, 6]
    assert batch.rewards_B.tolist() == [0, 1]
    assert batch.group_B.tolist() == [0, 0]
    assert batch.acted_tokens == 5


def two_turns():
    row = trajectory()
    row.turns.append(Turn(Invalid("none")))
    row.act(Completion([4, 5], [-1.0, -1.0], [4, 4], Finish.EOS))
    return row


def test_a_reward_stands_on_the_last_acted_token_but_for_what_turns_earned():
    batch = collate([Group([trajectory(), two_turns()], [Scores(1.0), Scores(1.0, turns={0: 0.25})], baseline=0.5)])
    assert batch.rewards_BT.tolist() == [[0, 0, 0, 1, 0, 0, 0], [0, 0, 0, 0.25, 0, 0, 0.75]]
    assert batch.baselines_B.tolist() == [0.5, 0.5]
    batch.penalty_BT = torch.full((2, 7), 0.125)
    assert token_rewards(batch).tolist() == [[0, 0, -0.125, 0.875, 0, 0, 0], [0, 0, -0.125, 0.125, 0, -0.125, 0.625]]
    assert row_rewards(batch).tolist() == [0.75, 0.5]


def test_a_reward_for_a_turn_without_tokens_is_refused():
    with pytest.raises(ValueError, match="q/0, sample 0: a reward for turn 3"):
        collate([Group([trajectory()], [Scores(1.0, turns={3: 0.5})])])


def test_everything_counts_from_the_first_sampled_token_on():
    batch = collate([Group([two_turns()], [Scores(1.0)])], everything=True)
    assert batch.acted_BT.tolist() == [[False, False, True, True, True, True, True]]
    assert batch.sampled_BT.tolist() == [[False, False, True, True, False, True, True]]
    assert batch.acted_tokens == 5


def test_groups_left_out_keep_their_number_and_their_tokens():
    groups = groups_of(rewards=[[1, 0, 0], [1, 1, 1], [0, 1, 1]])
    everything, kept = collate(groups), collate(groups, drop_equal=True)
    assert kept.group_B.tolist() == [0, 0, 0, 2, 2, 2]
    assert kept.acted_tokens == everything.acted_tokens == int(everything.acted_BT.sum())
    assert kept.tokens_G.tolist() == everything.tokens_G.tolist()
    assert kept.rows_G.tolist() == [3, 3, 3]


def test_a_step_without_any_signal_is_an_empty_batch():
    batch = collate(groups_of(rewards=[[1, 1, 1]] * 3), drop_equal=True)
    assert batch.tokens_BT.shape == (0, 0)
    assert batch.acted_tokens > 0
    assert [len(part.lengths_B) for part in minibatches(batch, 1)] == [0, 0, 0]


@pytest.mark.parametrize("stop", [None, StopReason.RETRIEVER_ERROR])
def test_an_episode_that_did_not_end_well_never_gets_into_a_batch(stop):
    with pytest.raises(ValueError, match="can't be learned from"):
        collate([Group([trajectory(stop)], [Scores(0.0)])])


def test_columns_of_different_lengths_are_refused():
    row = trajectory()
    row.logprobs.pop()
    with pytest.raises(ValueError, match="different lengths"):
        collate([Group([row], [Scores(0.0)])])
    with pytest.raises(ValueError, match="1 trajectories with 2 scores"):
        collate([Group([trajectory()], [Scores(0.0), Scores(1.0)])])


def test_an_acted_first_token_is_refused():
    row = Trajectory(Question("q", "?", ("a",)), "q/0", 0, stop=StopReason.ANSWERED)
    row.act(Completion([7], [-0.5], [3], Finish.STOP))
    with pytest.raises(ValueError, match="first token"):
        collate([Group([row], [Scores(0.0)])])


def test_select_trims_to_the_longest_and_takes_every_column_along():
    batch = collate(groups_of(seed=1))
    batch = replace(batch, advantages_BT=batch.acted_BT.float(), extra={"mine_B": batch.lengths_B * 2, "note": "kept"})
    part = select(batch, torch.tensor([4, 0]))
    width = int(part.lengths_B.max())
    assert part.tokens_BT.shape == part.advantages_BT.shape == (2, width)
    assert part.lengths_B.tolist() == [batch.lengths_B[4], batch.lengths_B[0]]
    assert part.extra["mine_B"].tolist() == (part.lengths_B * 2).tolist()
    assert part.extra["note"] == "kept"
    assert part.acted_tokens == batch.acted_tokens


@given(seed=st.integers(0, 10**6), questions=st.integers(0, 6), drop=st.booleans())
def test_minibatches_partition_the_rows_and_the_counts(seed: int, questions: int, drop: bool):
    batch = collate(groups_of(seed, groups=5), drop_equal=drop)
    parts = minibatches(batch, questions)
    assert len(parts) == (-(-5 // questions) if questions else 1)
    assert sum(part.acted_tokens for part in parts) == batch.acted_tokens
    assert torch.cat([part.lengths_B for part in parts]).tolist() == batch.lengths_B.tolist()
    assert all(part.group_B.max() < (questions or 5) for part in parts if len(part.group_B))


def test_counts_come_from_the_rows_of_a_batch_made_by_hand():
    batch = collate(groups_of())
    by_hand = Batch(**{name: getattr(batch, name) for name in Batch.__slots__ if name not in ("tokens_G", "rows_G")})
    for part, other in zip(minibatches(batch, 2), minibatches(by_hand, 2), strict=True):
        assert part.acted_tokens == other.acted_tokens
        assert part.rows_G.tolist() == other.rows_G.tolist()
