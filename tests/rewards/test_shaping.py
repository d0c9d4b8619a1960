"""Rewards beside the right answer: form, retrieval, length, and what an episode did or left out."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forage.errors import ConfigError
from forage.rewards.adapt import as_reward
from forage.rewards.cover_em import CoverMatch
from forage.rewards.em_format import FormattedMatch
from forage.rewards.format import Format
from forage.rewards.length import SoftOverlong
from forage.rewards.omissions import no_answer, no_search
from forage.rewards.repeat import repeat
from forage.rewards.retrieval import Retrieval
from forage.rewards.search_cost import SearchCost
from forage.types import Answer, Invalid, Passage, Question, Scores, Search, Trajectory, Turn

QUESTION = Question("q7", "Who wrote Hamlet?", ("William Shakespeare", "Shakespeare"))
HIT = [[Passage("1", "Hamlet", "A tragedy by William Shakespeare.")]]
MISS = [[Passage("2", "Macbeth", "A Scottish play.")]]
UNRUN = ()


def look(results=MISS, query="author of Hamlet", formed=True):
    return Turn(Search((query,), formed), results)


def say(text, formed=True):
    return Turn(Answer(text, formed))


BROKEN = Turn(Invalid("no_action"))
RIGHT, WRONG = say("Shakespeare"), say("Marlowe")


def scored(reward, *turns, question=QUESTION, written=0):
    trajectory = Trajectory(question, question.id, 0, tokens=[0] * written, acted=[1] * written, turns=list(turns))
    return asyncio.run(as_reward(reward)([trajectory]))[0]


@pytest.mark.parametrize(
    ("answer", "words", "characters"),
    [
        ("It was Shakespeare.", 1, 1),
        ("william shakespeare, of Stratford", 1, 1),
        ("Shakespeare's", 0, 1),
        ("Marlowe", 0, 0),
        ("", 0, 0),
    ],
)
def test_the_gold_answer_stands_in_the_answer(answer, words, characters):
    assert scored(CoverMatch(), say(answer)) == Scores(words, {"cover_em": words})
    assert scored(CoverMatch(match="characters"), say(answer)).total == characters


def test_no_answer_covers_nothing():
    assert scored(CoverMatch(), look(HIT)).total == 0
    assert scored(CoverMatch(match="characters"), say("anything"), question=Question("q", "?", ("The",))).total == 0


@pytest.mark.parametrize(
    ("turns", "kept"),
    [
        ((RIGHT,), 1),
        ((WRONG,), 1),
        ((look(), look(), RIGHT), 1),
        ((look(formed=False), RIGHT), 0),
        ((look(), say("Shakespeare", formed=False)), 0),
        ((BROKEN, RIGHT), 0),
        ((look(),), 0),
        ((), 0),
    ],
)
def test_a_format_is_kept_in_every_turn_or_not(turns, kept):
    assert scored(Format(), *turns) == Scores(kept, {"format": kept})


@pytest.mark.parametrize(
    ("turns", "found"),
    [((look(HIT), WRONG), 1), ((look(), look(HIT)), 1), ((look(), RIGHT), 0), ((look(UNRUN), RIGHT), 0), ((RIGHT,), 0)],
)
def test_retrieval_counts_what_was_found_and_not_what_was_said(turns, found):
    assert scored(Retrieval(), *turns) == Scores(found, {"retrieval": found})


@pytest.mark.parametrize(
    ("turns", "total"),
    [
        ((RIGHT,), 1.0),
        ((say("Shakespeare", formed=False),), 0.8),
        ((look(HIT), WRONG), 0.25),
        ((look(), WRONG), 0.2),
        ((look(HIT), say("Marlowe", formed=False)), 0.1),
        ((look(HIT),), 0.0),
    ],
)
def test_answer_format_and_retrieval_in_one_table(turns, total):
    score = scored(FormattedMatch(retrieval=0.05), *turns)
    assert score.total == pytest.approx(total)
    assert set(score.parts) == {"em", "format", "retrieval"}


def test_searches_cost_where_they_are_run_beyond_the_free_ones():
    turns = (look(), BROKEN, look(), look(UNRUN))
    assert scored(SearchCost(price=0.5), *turns) == Scores(-1.0, {"search_cost": -1.0}, {0: -0.5, 2: -0.5})
    assert scored(SearchCost(price=0.5, free=1), *turns) == Scores(-0.5, {"search_cost": -0.5}, {2: -0.5})
    assert str(scored(SearchCost(free=2), *turns).total) == "0.0"


@pytest.mark.parametrize(("written", "penalty"), [(0, 0), (80, 0), (85, -0.25), (90, -0.5), (100, -1), (1000, -1)])
def test_length_is_punished_softly(written, penalty):
    score = scored(SoftOverlong(max_tokens=100, buffer_tokens=20), RIGHT, written=written)
    assert score == Scores(penalty, {"length": penalty})


@given(st.integers(0, 500), st.integers(1, 200), st.integers(1, 200))
def test_length_never_pays_and_longer_is_never_better(written, one, other):
    reward = SoftOverlong(max_tokens=max(one, other), buffer_tokens=min(one, other))
    now, longer = (scored(reward, written=count).total for count in (written, written + 1))
    assert -1 <= longer <= now <= 0


def test_a_buffer_longer_than_the_whole_is_refused():
    with pytest.raises(ConfigError, match="buffer_tokens = 2"):
        SoftOverlong(max_tokens=1, buffer_tokens=2)


def test_omissions_are_penalties():
    assert [scored(no_answer, *turns).total for turns in [(look(),), (say(""),), ()]] == [-1, 0, -1]
    assert [scored(no_search, *turns).total for turns in [(look(),), (look(UNRUN),), (RIGHT,)]] == [0, -1, -1]


def test_asking_the_same_again_is_charged_to_the_turn_that_did():
    turns = (look(query="Hamlet"), look(query="the hamlet?"), look(query="Macbeth"), look(query="hamlet"), look(UNRUN))
    assert scored(repeat, *turns) == Scores(-2.0, {"repeat": -2.0}, {1: -1.0, 3: -1.0})
    assert scored(repeat, look(), BROKEN, RIGHT) == Scores(0.0, {"repeat": 0.0})
