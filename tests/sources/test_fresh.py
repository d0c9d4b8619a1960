"""Groups of a step: which questions, in which order, what is left of them, what is played in their place."""

import asyncio
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forage.batch import collate, minibatches
from forage.errors import CheckpointError, RetrieverError, RewardError, TrainingError
from forage.renderers.tags import TagRenderer
from forage.rewards.em import ExactMatch
from forage.rollout import Limits, Rollout
from forage.sources.fresh import FreshSource
from forage.sources.player import Player
from forage.testing import ByteTokenizer, DictionaryRetriever, ScriptedEngine
from forage.types import Passage, Question, Scores, StopReason

TOKENIZER = ByteTokenizer()
QUESTIONS = [Question(f"q{i}", f"Question {i}?", ("yes",), "set") for i in range(5)]
FOUND = [Passage("1", "It", "It is.")]
SEARCH, YES, NO = "<search> it</search>", "<answer> yes</answer>", "<answer> no</answer>"


def source(found=FOUND, *, script=(SEARCH, YES), seed=0, reward=None, rate=1.0, questions=QUESTIONS, **more):
    """Two groups of three a step, from a script."""
    engine = ScriptedEngine(script, TOKENIZER)
    play = {name: more.pop(name) for name in ("leave_out", "min_samples") if name in more}
    rollout = Rollout(engine, TagRenderer(TOKENIZER, template="short"), DictionaryRetriever({"it": found}), 1, Limits())
    greedy = rollout if more.pop("greedy", False) else None
    player = Player(rollout, reward or ExactMatch(), samples=3, seed=seed, greedy=greedy, **play)
    return FreshSource(questions, player, batch_questions=2, seed=seed, max_failure_rate=rate, **more), engine


def take(fresh, *steps):
    return [asyncio.run(fresh.take(step)) for step in steps]


def asked(harvest):
    return [group.trajectories[0].question.id for group in harvest.groups + harvest.replaced]


def told(*turns):
    """A script that says these turns in the order in which they are asked for."""
    following = iter(turns)
    return lambda context, turn: next(following)


class Guess:
    """A reward with signal in the groups of some questions."""

    def __init__(self, with_signal):
        self.with_signal = with_signal

    async def __call__(self, group):
        return [Scores(float(t.sample == 0 and t.question.id in self.with_signal)) for t in group]


def test_a_step_plays_whole_groups_in_order():
    fresh, engine = source()
    (harvest,) = take(fresh, 1)
    assert [len(group.trajectories) for group in harvest.groups] == [3, 3]
    assert [t.sample for t in harvest.trajectories] == [0, 1, 2, 0, 1, 2]
    assert engine.sessions == [t.group for t in harvest.trajectories]
    assert [score.total for group in harvest.groups for score in group.scores] == [1.0] * 6
    assert (harvest.played, harvest.missing, harvest.searches) == (2, 0, 6)


def test_each_epoch_asks_every_question_once_in_its_own_order():
    fresh, _ = source()
    ids = [name for harvest in take(fresh, *range(1, 11)) for name in asked(harvest)]
    epochs = [ids[i : i + 5] for i in range(0, 20, 5)]
    assert all(sorted(epoch) == [q.id for q in QUESTIONS] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_the_order_depends_on_the_seed():
    def order(seed):
        return [asked(harvest) for harvest in take(source(seed=seed)[0], 1, 2, 3)]

    assert order(0) == order(0)
    assert order(0) != order(1)


def test_one_question_twice_in_a_step_makes_two_groups():
    (harvest,) = take(source(questions=QUESTIONS[:1])[0], 1)
    assert len(harvest.groups) == 2
    assert len({group.trajectories[0].group for group in harvest.groups}) == 2


def test_steps_come_in_order_and_the_last_may_be_asked_for_again():
    fresh, _ = source()
    first, again, second = take(fresh, 1, 1, 2)
    assert asked(first) == asked(again) != asked(second)
    with pytest.raises(ValueError, match="step 7"):
        take(fresh, 7)


def test_an_episode_whose_search_failed_is_left_out_and_kept_apart():
    (harvest,) = take(source(RetrieverError("down"), script=told(SEARCH, *[YES] * 5))[0], 1)
    assert [t.stop for t in harvest.failed] == [StopReason.RETRIEVER_ERROR]
    assert sorted(len(group.trajectories) for group in harvest.groups) == [2, 3]


def test_too_many_failed_searches_stop_the_run_and_say_why():
    fresh, _ = source(RetrieverError("the index is gone"), rate=0.5)
    with pytest.raises(TrainingError, match=r"6 of 6 searches failed .*the index is gone"):
        take(fresh, 1)


def test_a_reward_must_score_every_trajectory():
    class Short:
        async def __call__(self, group):
            return []

    with pytest.raises(RewardError, match="0 scores for 3"):
        take(source(reward=Short())[0], 1)


# Greedy baseline ------------------------------------------------------------------------------------------------------


def test_a_greedy_episode_more_a_question_is_the_baseline_and_not_learned_from():
    said = [*[YES, NO, NO, YES], *[NO, YES, NO, NO]]
    fresh, engine = source(script=told(*said), greedy=True)
    (harvest,) = take(fresh, 1)
    assert [group.baseline for group in harvest.groups] == [1.0, 0.0]
    assert [[score.total for score in group.scores] for group in harvest.groups] == [[1, 0, 0], [0, 1, 0]]
    assert len(engine.sessions) == 8
    assert len(set(engine.sessions)) == 2


def test_a_group_whose_greedy_episode_failed_is_not_learned_from():
    fresh, _ = source(RetrieverError("down"), script=told(*[YES, NO, NO, SEARCH], *[NO, YES, NO, NO]), greedy=True)
    (harvest,) = take(fresh, 1)
    assert [group.baseline for group in harvest.groups] == [0.0]
    assert [len(group.trajectories) for group in harvest.left_out] == [3]
    assert (len(harvest.failed), harvest.gone, harvest.missing, harvest.played) == (1, 1, 1, 2)


# Groups without signal ------------------------------------------------------------------------------------------------


def test_groups_without_signal_are_replaced_by_the_next_questions():
    fresh, _ = source(reward=Guess({"q1", "q3"}), max_refills=9)
    first, second = take(fresh, 1, 2)
    assert sorted(asked(first)[:2]) == ["q1", "q3"]
    assert all(group.has_signal for group in first.groups)
    assert (first.missing, len(first.replaced)) == (0, first.played - 2)
    order = [name for harvest in take(source()[0], *range(1, 9)) for name in asked(harvest)]
    assert sorted(asked(first) + asked(second)) == sorted(order[: first.played + second.played])


def test_what_no_refill_finds_is_missing():
    fresh, _ = source(reward=Guess({}), max_refills=2)
    (harvest,) = take(fresh, 1)
    assert (harvest.groups, harvest.missing, harvest.refills, harvest.played) == ([], 2, 2, 6)
    assert len({group.trajectories[0].group for group in harvest.replaced}) == 6


@given(st.sets(st.sampled_from([q.id for q in QUESTIONS])), st.integers(0, 3), st.integers(1, 4))
def test_a_refill_never_hands_out_more_than_asked_and_positions_only_grow(tmp_path_factory, signal, rounds, steps):
    folder = tmp_path_factory.mktemp("source")
    fresh, _ = source(reward=Guess(signal), max_refills=rounds)
    position, whole = 0, []
    for step in range(1, steps + 1):
        (harvest,) = take(fresh, step)
        assert len(harvest.groups) <= 2
        assert harvest.missing == 2 - len(harvest.groups)
        assert harvest.refills <= rounds
        assert 2 <= harvest.played <= 2 * (rounds + 1)
        fresh.save(folder, step)
        resumed, _ = source(reward=Guess(signal), max_refills=rounds)
        resumed.load(folder)
        position += harvest.played
        whole.append(asked(harvest))
        fresh = resumed
    uninterrupted, _ = source(reward=Guess(signal), max_refills=rounds)
    assert [asked(harvest) for harvest in take(uninterrupted, *range(1, steps + 1))] == whole


def test_what_is_saved_of_a_step_does_not_know_of_the_next(tmp_path):
    fresh, _ = source()
    _, second = take(fresh, 1, 2)
    fresh.save(tmp_path, 1)
    resumed, _ = source()
    resumed.load(tmp_path)
    assert asked(take(resumed, 2)[0]) == asked(second)


def test_a_damaged_position_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"source\.json"):
        source()[0].load(tmp_path)


# Episodes left out ----------------------------------------------------------------------------------------------------


def test_episodes_are_left_out_by_how_they_ended():
    script = lambda context, turn: YES if "Question 1" in context else "<think> hm"  # noqa: E731
    (harvest,) = take(source(script=script, leave_out=[StopReason.NO_ANSWER], questions=QUESTIONS[:2])[0], 1)
    assert asked(harvest) == ["q1"]
    assert [t.question.id for group in harvest.left_out for t in group.trajectories] == ["q0"] * 3
    assert (harvest.gone, harvest.missing, harvest.played) == (1, 1, 2)


@pytest.mark.parametrize(("smallest", "sizes"), [(1, [1, 3]), (2, [3])])
def test_a_group_that_gets_too_small_is_gone(smallest, sizes):
    def script(context, turn):
        return YES if "Question 1" in context or next(lucky) else "<think> hm"

    lucky = iter([True, *[False] * 99])
    fresh, _ = source(
        script=script, leave_out=[StopReason.NO_ANSWER], min_samples=smallest, questions=QUESTIONS[:2], seed=0
    )
    (harvest,) = take(fresh, 1)
    assert sorted(len(group.trajectories) for group in harvest.groups) == sizes
    assert sum(len(group.scores) for group in harvest.rewarded) == 6
    assert harvest.gone == 2 - len(sizes)


def test_minibatches_count_the_questions_that_are_left():
    starts = count()
    script = lambda context, turn: "<think> hm" if turn or next(starts) % 3 == 2 else YES  # noqa: E731
    fresh, _ = source(script=script, leave_out=[StopReason.NO_ANSWER], reward=Guess({"q1", "q3"}), max_refills=3)
    (harvest,) = take(fresh, 1)
    parts = minibatches(collate(harvest.groups), 1)
    assert len(parts) == len(harvest.groups) == 2
    assert harvest.refills > 0
    assert [len(part.lengths_B) for part in parts] == [2, 2]
    assert sum(part.acted_tokens for part in parts) == sum(sum(t.acted) for t in harvest.trajectories)


def test_where_nothing_is_left_the_run_stops_and_says_why():
    fresh, _ = source(script=lambda context, turn: "<think> hm", leave_out=[StopReason.NO_ANSWER])
    with pytest.raises(TrainingError, match=r"6 episodes ended as no_answer.*algorithm\.leave_out"):
        take(fresh, 1)


def test_a_step_whose_searches_all_failed_teaches_nothing_whatever_may_fail():
    fresh, _ = source(RetrieverError("timed out"), rate=1.0)
    with pytest.raises(TrainingError, match=r"nothing is left to learn from: 6 episodes ended by a failed search \("):
        take(fresh, 1)


def test_the_groups_of_a_step_are_rewarded_side_by_side_and_kept_in_order():
    both = asyncio.Barrier(2)

    async def slow(group):
        await asyncio.wait_for(both.wait(), 5)
        return [Scores(float(t.question.id[1:])) for t in group]

    class Slow:
        __call__ = staticmethod(slow)

    fresh, _ = source(reward=Slow())
    (harvest,) = take(fresh, 1)
    assert [group.scores[0].total for group in harvest.groups] == [float(name[1:]) for name in asked(harvest)]
