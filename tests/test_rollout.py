"""Episodes: what is appended, what is acted, and how they end."""

import asyncio

import pytest

from forage.errors import RetrieverError
from forage.renderers.tags import TagRenderer
from forage.rollout import Limits, Rollout, turn_seed
from forage.testing import ByteTokenizer, DictionaryRetriever, ScriptedEngine
from forage.types import Answer, Invalid, Passage, Question, Search, StopReason

TOKENIZER = ByteTokenizer()
QUESTION = Question("q1", "Where is Rome?", ("Italy",))
ROME = Passage("1", "Rome", "Rome lies in Italy.")


def play(script, found=None, **limits):
    engine = ScriptedEngine(script, TOKENIZER)
    retriever = DictionaryRetriever({"Rome": [ROME]} if found is None else found)
    renderer = TagRenderer(TOKENIZER, template="short")
    rollout = Rollout(engine, renderer, retriever, 1, Limits(**limits))
    return asyncio.run(rollout.episode(QUESTION)), retriever


def spans(trajectory):
    """Runs of equal tags as (acted, turn, text)."""
    runs = []
    for token, acted, turn in zip(trajectory.tokens, trajectory.acted, trajectory.turn, strict=True):
        if not runs or runs[-1][:2] != [acted, turn]:
            runs.append([acted, turn, []])
        runs[-1][2].append(token)
    return [(acted, turn, TOKENIZER.decode(tokens)) for acted, turn, tokens in runs]


def test_a_trajectory_is_written_once_in_the_tokens_that_were_sampled():
    """
    observed  turn 0   Question: Where is Rome?
    acted     turn 0   <think> hm</think><search> Rome</search>
    observed  turn 1   <information> Rome lies in Italy.</information>
    acted     turn 1   <think> yes</think><answer> Italy</answer>
    """
    trajectory, _ = play(["<think> hm</think><search> Rome</search>", "<think> yes</think><answer> Italy</answer>"])
    assert spans(trajectory) == [
        (0, 0, "Question: Where is Rome?\n"),
        (1, 0, "<think> hm</think><search> Rome</search>"),
        (0, 1, "<information> Rome lies in Italy.</information>"),
        (1, 1, "<think> yes</think><answer> Italy</answer>"),
    ]
    assert [turn.action for turn in trajectory.turns] == [Search(("Rome",)), Answer("Italy")]
    assert trajectory.turns[0].results == [[ROME]]
    assert (trajectory.stop, trajectory.answer, trajectory.searches) == (StopReason.ANSWERED, "Italy", 1)
    for acted, logprob, version in zip(trajectory.acted, trajectory.logprobs, trajectory.versions, strict=True):
        assert (logprob, version) == ((-0.5, 0) if acted else (0.0, -1))


def test_a_turn_without_an_action_is_kept_answered_with_the_retry_text_and_spent():
    trajectory, _ = play(["no tags", "<answer> Italy</answer>"])
    assert trajectory.turns[0].action == Invalid("no_action")
    assert spans(trajectory)[2][2].startswith("<information> no action")
    assert trajectory.stop is StopReason.ANSWERED
    assert trajectory.wasted == len(TOKENIZER.encode("no tags")) + 1  # its EOS


def test_a_search_past_the_budget_is_not_run():
    searching = "<search> Rome</search>"
    trajectory, retriever = play(lambda context, turn: searching, max_searches=2)
    assert len(retriever.calls) == 2
    assert trajectory.searches == 2
    assert len(trajectory.turns) == 3
    assert trajectory.stop is StopReason.NO_ANSWER
    assert trajectory.wasted == len(searching)


def test_the_last_observation_says_that_no_search_is_left():
    trajectory, _ = play(lambda context, turn: "<search> Rome</search>", max_searches=1)
    assert "answer now" in TOKENIZER.decode(trajectory.tokens)


def test_without_searches_there_is_one_turn():
    trajectory, _ = play(["<answer> Italy</answer>"], max_searches=0)
    assert trajectory.stop is StopReason.ANSWERED
    assert len(trajectory.turns) == 1


@pytest.mark.parametrize("max_tokens", [10, 30, 60, 75, 80, 200])
def test_an_episode_never_outgrows_its_tokens_and_always_has_an_end(max_tokens):
    trajectory, _ = play(lambda context, turn: "<search> Rome</search>", max_tokens=max_tokens, max_turn_tokens=40)
    assert len(trajectory.tokens) <= max(max_tokens, len(TOKENIZER.encode("Question: Where is Rome?\n")))
    assert trajectory.stop in (StopReason.CONTEXT_FULL, StopReason.NO_ANSWER)
    assert TOKENIZER.decode(trajectory.tokens).count("<information>") == TOKENIZER.decode(trajectory.tokens).count(
        "</information>"
    )


def test_a_failed_search_ends_the_episode_with_its_message():
    trajectory, _ = play(["<search> Rome</search>"], {"Rome": RetrieverError("bm25 fell over")})
    assert trajectory.stop is StopReason.RETRIEVER_ERROR
    assert trajectory.failure == "bm25 fell over"
    assert trajectory.answer is None


def test_seeds_differ_by_every_part_of_the_stream_and_never_change():
    streams = [(0, 1, 2, 3), (0, 1, 2, 4), (0, 1, 3, 3), (1, 1, 2, 3), (0, 1, 2)]
    assert len({turn_seed(*stream) for stream in streams}) == len(streams)
    assert turn_seed(0, 1, 2, 3) == 12927410244083705794


def test_a_turn_knows_how_much_of_it_stood_beside_its_action():
    trajectory, _ = play(["<think> hm</think><search> Rome</search>", "no tags", "<answer> Italy</answer>"])
    assert [turn.thought_tokens for turn in trajectory.turns] == [len("<think> hm</think>"), None, 0]


@pytest.mark.parametrize("says", ["<search> Rome</search>", "<think> hm</think><answer> Italy</answer>"])
def test_reasoning_alone_never_searches(says):
    retriever = DictionaryRetriever({"Rome": [ROME]})
    renderer = TagRenderer(TOKENIZER, template="reason")
    rollout = Rollout(ScriptedEngine([says], TOKENIZER), renderer, retriever, 1, Limits(max_searches=0))
    trajectory = asyncio.run(rollout.episode(QUESTION))
    assert retriever.calls == []
    assert (trajectory.searches, len(trajectory.turns)) == (0, 1)
    assert trajectory.stop is (StopReason.NO_ANSWER if "search" in says else StopReason.ANSWERED)
    assert spans(trajectory)[-1] == (1, 0, says)
