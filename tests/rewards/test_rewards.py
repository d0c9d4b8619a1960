import asyncio
import functools
import math

import numpy as np
import pytest

from forage.errors import RewardError
from forage.rewards.adapt import as_reward
from forage.rewards.em import ExactMatch
from forage.rewards.f1 import TokenF1
from forage.types import Answer, Invalid, Question, Scores, Search, Trajectory, Turn

QUESTION = Question("q7", "Who wrote Hamlet?", ("William Shakespeare", "Shakespeare"))


def episode(*actions, question=QUESTION):
    return Trajectory(question, question.id, 0, turns=[Turn(action) for action in actions])


def scored(reward, *episodes):
    return asyncio.run(reward(list(episodes)))


def length(trajectory):
    return len(trajectory.answer or "")


@pytest.mark.parametrize(
    ("actions", "em", "f1"),
    [
        ((Search(("hamlet",)), Answer("the Shakespeare.")), 1.0, 1.0),
        ((Answer("William  shakespeare"),), 1.0, 1.0),
        ((Answer("William Marlowe"),), 0.0, 0.5),
        ((Answer("Marlowe"),), 0.0, 0.0),
        ((Answer(""),), 0.0, 0.0),
        ((Search(("Shakespeare",)),), 0.0, 0.0),
        ((Invalid("no_action"),), 0.0, 0.0),
        ((), 0.0, 0.0),
    ],
)
def test_only_the_answer_that_ended_the_episode_counts(actions, em, f1):
    assert scored(ExactMatch(), episode(*actions)) == [Scores(em, {"em": em})]
    assert scored(TokenF1(), episode(*actions)) == [Scores(f1, {"f1": f1})]


def test_an_answer_in_the_tokens_alone_is_no_answer():
    trajectory = episode(Search(("Shakespeare",)))
    trajectory.observe(list(b"<answer> Shakespeare </answer>"))
    assert scored(ExactMatch(), trajectory)[0].total == 0.0


@pytest.mark.parametrize("gold", ["The", "", "..."])
def test_a_gold_answer_of_nothing_is_never_matched(gold):
    question = Question("q", "?", (gold,))
    for answer in ("", "The", gold):
        assert scored(ExactMatch(), episode(Answer(answer), question=question))[0].total == 0.0


async def slow_length(trajectory):
    await asyncio.sleep(0)
    return length(trajectory)


@pytest.mark.parametrize("function", [length, slow_length])
def test_a_plain_function_scores_one_episode_at_a_time(function):
    scores = scored(as_reward(function), episode(Answer("four")), episode())
    assert scores == [Scores(4.0, {function.__name__: 4.0}), Scores(0.0, {function.__name__: 0.0})]


def test_a_function_may_return_scores_a_bool_or_a_numpy_number():
    assert scored(as_reward(lambda _: Scores(1.0, {"a": 2.0})), episode()) == [Scores(1.0, {"a": 2.0})]
    for value in (True, np.float32(1), 1):
        assert scored(as_reward(lambda _, value=value: value), episode())[0].total == 1.0


def test_a_partial_is_a_function():
    def capped(trajectory, limit):
        return min(length(trajectory), limit)

    assert scored(as_reward(functools.partial(capped, limit=3)), episode(Answer("four"))) == [
        Scores(3.0, {"capped": 3.0})
    ]


def test_any_other_object_scores_a_group():
    class Rank:
        async def __call__(self, group):
            return [Scores(float(rank)) for rank, _ in enumerate(group)]

    assert [score.total for score in scored(as_reward(Rank()), episode(), episode())] == [0.0, 1.0]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda _: math.nan, "'mine' is not a finite number on question 'q7': {'total': nan"),
        (lambda _: -math.inf, "is not a finite number on question 'q7'"),
        (lambda _: Scores(0.0, {"part": math.nan}), "is not a finite number on question 'q7': {'part': nan}"),
        (lambda _: None, "'mine' failed on question 'q7': TypeError"),
        (lambda _: 1 / 0, "'mine' failed on question 'q7': ZeroDivisionError"),
    ],
)
def test_a_reward_that_is_no_number_stops_with_the_question(function, message):
    with pytest.raises(RewardError) as caught:
        scored(as_reward(function, "mine"), episode())
    assert message in str(caught.value)


@pytest.mark.parametrize(("given", "said"), [([0.5], "gave 0.5, not Scores, on"), (None, "failed on")])
def test_a_reward_of_groups_must_give_scores(given, said):
    class Plain:
        async def __call__(self, group):
            return given

    with pytest.raises(RewardError, match=f"'Plain' {said} question 'q7'"):
        scored(as_reward(Plain()), episode())


def test_too_few_scores_are_refused():
    class Forgetful:
        async def __call__(self, group):
            return []

    with pytest.raises(RewardError, match="'Forgetful' gave 0 scores, not 2, on question 'q7'"):
        scored(as_reward(Forgetful()), episode(), episode())
