"""GiGPO and credit by turn, on episodes that are written out."""

from itertools import product

import pytest
import torch

from forage.advantages.gigpo import GiGPO
from forage.advantages.turn_credit import TurnCredit
from forage.advantages.turns import states
from forage.batch import collate
from forage.types import Answer, Completion, Finish, Group, Question, Scores, Search, StopReason, Trajectory, Turn

PROMPT = [1, 2]
QUESTION = Question("q", "", ("a",))


def episode(*observations):
    """A turn of one sampled token, then for each observation: it, and another turn."""
    row = Trajectory(QUESTION, "g", 0)
    row.observe(PROMPT)
    for shown in (*observations, None):
        row.act(Completion([9], [-1.0], [0], Finish.STOP))
        row.turns.append(Turn(Search(("q",)) if shown else Answer("a")))
        if shown is not None:
            row.observe(shown)
    row.stop = StopReason.ANSWERED
    return row


def by_turn(estimator, rows, scores):
    """The advantages of each row's turns."""
    batch = estimator(collate([Group(rows, scores)]), lambda total: total)
    return [
        advantages_T[acted_T].tolist()
        for advantages_T, acted_T in zip(batch.advantages_BT, batch.acted_BT, strict=True)
    ]


def test_a_state_is_what_was_shown_and_how_often():
    rows = [episode([5], [6]), episode([5], [7]), episode([5, 6]), episode()]
    state_BK = states(collate([Group(rows, [Scores(0.0)] * 4), Group([episode()], [Scores(0.0)])]))
    (a, b, c), (a2, b2, d), (a3, e, _), (a4, *_), (other, *_) = state_BK.tolist()
    assert a == a2 == a3 == a4
    assert b == b2
    assert len({a, b, c, d, e, other}) == 6


def test_gigpo_adds_what_turns_of_one_state_differ_by():
    rows = [episode([5]), episode([5]), episode([7]), episode()]
    scores = [Scores(1.0), Scores(0.0), Scores(1.0), Scores(0.0)]
    first = [0.5 - 0.25, 0 - 0.25, 0.5 - 0.25, 0 - 0.25]  # returns at gamma 0.5, less their mean
    ours = by_turn(GiGPO(weight=2.0, gamma=0.5, normalize=False), rows, scores)
    assert ours == [
        [0.5 + 2 * first[0], 0.5 + 2 * 0.5],
        [-0.5 + 2 * first[1], -0.5 - 2 * 0.5],
        [0.5 + 2 * first[2], 0.5],  # its second turn is alone in its state
        [-0.5 + 2 * first[3]],
    ]


def test_gigpo_without_weight_is_grpo():
    rows = [episode([5]), episode()]
    (first, second), (only,) = by_turn(GiGPO(weight=0.0), rows, [Scores(1.0), Scores(0.0)])
    assert first == second == -only == pytest.approx(0.5**0.5, rel=1e-5)


def test_credit_by_turn_counts_those_who_stopped_as_0():
    rows = [episode([5], [6]), episode([5]), episode()]
    scores = [Scores(1.0, turns={0: 0.25}), Scores(0.5), Scores(0.75)]
    ours = by_turn(TurnCredit(), rows, scores)
    assert ours == [[1 - 0.625, 0.75 - 0.25, 0.75], [0.5 - 0.875, 0.5 - 0.375], [0.75 - 0.75]]


def stopping(logits):
    """Every episode of a policy that goes on or stops, twice at most: (log-probability of each turn, Scores, row)."""
    go, stop = torch.nn.functional.logsigmoid(logits), torch.nn.functional.logsigmoid(-logits)
    return [
        ([stop[0]], Scores(0.3), episode()),
        ([go[0], stop[1]], Scores(0.7, turns={0: -0.2}), episode([5])),
        ([go[0], go[1], logits[0] * 0], Scores(0.1, turns={0: -0.2, 1: 0.9}), episode([5], [6])),
    ]


def test_credit_by_turn_is_unbiased_where_the_policy_decides_when_to_stop():
    logits = torch.tensor([0.4, -0.7], dtype=torch.float64, requires_grad=True)
    episodes = stopping(logits)
    worth = sum(sum(logprobs).exp() * score.total for logprobs, score, _ in episodes)
    (true,) = torch.autograd.grad(worth, logits)
    estimate = 0
    for pair in product(stopping(logits), repeat=2):
        chance = torch.exp(sum(sum(logprobs) for logprobs, _, _ in pair)).detach()
        advantages = by_turn(TurnCredit(), [row for *_, row in pair], [score for _, score, _ in pair])
        for (logprobs, *_), turns in zip(pair, advantages, strict=True):
            estimate += chance * sum(a * logprob for a, logprob in zip(turns, logprobs, strict=True)) / len(pair)
    (mean,) = torch.autograd.grad(estimate, logits)
    torch.testing.assert_close(mean, true, rtol=1e-6, atol=1e-6)
