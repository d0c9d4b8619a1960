"""Groups of a step: which questions, in which order, and what a failed search does to them."""

import asyncio

import pytest

from forage.errors import RetrieverError, RewardError, TrainingError
from forage.renderers.tags import TagRenderer
from forage.rewards.em import ExactMatch
from forage.rollout import Limits, Rollout
from forage.source import FreshSource
from forage.testing import ByteTokenizer, DictionaryRetriever, ScriptedEngine
from forage.types import Passage, Question, StopReason

TOKENIZER = ByteTokenizer()
QUESTIONS = [Question(f"q{i}", f"Question {i}?", ("yes",), "set") for i in range(5)]


def source(found, seed=0, reward=None, rate=1.0, questions=QUESTIONS, script=None):
    engine = ScriptedEngine(script or ["<search> it</search>", "<answer> yes</answer>"], TOKENIZER)
    rollout = Rollout(engine, TagRenderer(TOKENIZER, template="short"), DictionaryRetriever({"it": found}), 1, Limits())
    settings = {"batch_questions": 2, "samples": 3, "seed": seed, "max_failure_rate": rate}
    return FreshSource(questions, rollout, reward or ExactMatch(), **settings), engine


FOUND = [Passage("1", "It", "It is.")]


def test_a_step_plays_whole_groups_in_order():
    fresh, engine = source(FOUND)
    harvest = asyncio.run(fresh.take(1))
    assert [len(group.trajectories) for group in harvest.groups] == [3, 3]
    assert [t.sample for t in harvest.trajectories] == [0, 1, 2, 0, 1, 2]
    assert engine.sessions == [t.group for t in harvest.trajectories]
    assert [score.total for group in harvest.groups for score in group.scores] == [1.0] * 6


def test_each_epoch_asks_every_question_once_in_its_own_order():
    fresh, _ = source(FOUND)
    asked = [question.id for step in range(1, 11) for question in fresh.questions(step)]
    epochs = [asked[i : i + 5] for i in range(0, 20, 5)]
    assert all(sorted(epoch) == [q.id for q in QUESTIONS] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_the_questions_of_a_step_depend_on_the_seed_alone():
    one, other = source(FOUND)[0], source(FOUND)[0]
    one.questions(1)
    assert one.questions(7) == other.questions(7)
    assert any(source(FOUND, seed=1)[0].questions(step) != one.questions(step) for step in range(1, 6))


def test_one_question_twice_in_a_step_makes_two_groups():
    fresh, _ = source(FOUND, questions=QUESTIONS[:1])
    harvest = asyncio.run(fresh.take(1))
    assert len(harvest.groups) == 2
    assert len({group.trajectories[0].group for group in harvest.groups}) == 2


def test_an_episode_whose_search_failed_is_left_out_and_kept_apart():
    answers = iter(["<search> it</search>", *["<answer> yes</answer>"] * 5])
    fresh, _ = source(RetrieverError("down"), script=lambda context, turn: next(answers))
    harvest = asyncio.run(fresh.take(1))
    assert [t.stop for t in harvest.failed] == [StopReason.RETRIEVER_ERROR]
    assert sorted(len(group.trajectories) for group in harvest.groups) == [2, 3]


def test_too_many_failed_searches_stop_the_run_and_say_why():
    fresh, _ = source(RetrieverError("the index is gone"), rate=0.5)
    with pytest.raises(TrainingError, match=r"6 of 6 searches failed .*the index is gone"):
        asyncio.run(fresh.take(1))


def test_a_reward_must_score_every_trajectory():
    class Short:
        async def __call__(self, group):
            return []

    fresh, _ = source(FOUND, reward=Short())
    with pytest.raises(RewardError, match="0 scores for 3"):
        asyncio.run(fresh.take(1))
