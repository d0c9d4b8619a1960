"""What is measured of a step's episodes and groups."""

import pytest

from forage.metrics import episode_metrics, harvest_metrics
from forage.types import (
    Answer,
    Completion,
    Finish,
    Group,
    Harvest,
    Invalid,
    Question,
    Scores,
    StopReason,
    Trajectory,
    Turn,
)


def episode(logprobs, thoughts=()):
    """An episode of one turn for each of `thoughts`, with these logprobs."""
    trajectory = Trajectory(Question("q", "?", ("a",)), "g", 0, stop=StopReason.ANSWERED)
    trajectory.observe([1, 2])
    trajectory.act(Completion([3] * len(logprobs), list(logprobs), [0] * len(logprobs), Finish.STOP))
    trajectory.turns = [Turn(Invalid("x") if told is None else Answer("a"), thought_tokens=told) for told in thoughts]
    return trajectory


def measured(*groups):
    made = [Group([episode(row) for row, _ in group], [Scores(reward) for _, reward in group]) for group in groups]
    return harvest_metrics(Harvest(made))


def test_the_logprob_of_right_answers_is_a_mean_over_tokens_of_the_best_episodes():
    learnable = [([-1.0, -3.0], 1.0), ([-9.0], 0.0), ([-0.5], 1.0)]
    assert measured(learnable, [([-7.0], 0.0), ([-8.0], 0.0)])["episode/right_logprob"] == pytest.approx(-1.5)


def test_without_a_right_answer_there_is_no_logprob_of_one():
    assert "episode/right_logprob" not in measured([([-1.0], 0.0), ([-1.0], -1.0)])


def test_thoughts_are_a_mean_over_turns_that_acted():
    episodes = [episode([-1.0], [4, None]), episode([-1.0], [0])]
    assert episode_metrics(episodes)["episode/thought_tokens"] == 2
    assert "episode/thought_tokens" not in episode_metrics([episode([-1.0], [None])])
