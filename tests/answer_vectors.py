"""What tests/test_reference.py checks of answers, and of rewards that are made of them."""

import asyncio
import re

import pytest

from forage.renderers.tags import TagRenderer
from forage.rewards.em_format import FormattedMatch
from forage.rewards.format import Format
from forage.rewards.retrieval import Retrieval
from forage.testing import ByteTokenizer
from forage.text import contains_answer, exact_match, normalize_answer, token_f1
from forage.types import Answer, Completion, Finish, Passage, Question, Search, Trajectory, Turn

TOKENIZER = ByteTokenizer()
RENDERER = TagRenderer(TOKENIZER)


def answer_normalization(case):
    assert normalize_answer(case["inputs"]["text"]) == case["expected"]["normalized"]


def exact_match_topic(case):
    """A gold answer that normalises to nothing never matches."""
    prediction, golds = case["inputs"]["prediction"], case["inputs"]["golds"]
    assert exact_match(prediction, golds) is (bool(case["expected"]["em"]) and normalize_answer(prediction) != "")


def substring_match(case):
    """By characters; a gold answer that normalises to nothing is in no text. By words is never more."""
    prediction, golds = case["inputs"]["prediction"], case["inputs"]["golds"]
    something = any(map(normalize_answer, [golds] if isinstance(golds, str) else golds))
    ours = contains_answer(prediction, golds, match="characters")
    assert ours is (bool(case["expected"]["cover_em"]) and something)
    assert contains_answer(prediction, golds) <= ours


def token_f1_topic(case):
    """That of SQuAD v1; without any gold, where its script raises, nothing matches."""
    assert token_f1(**case["inputs"]) == pytest.approx(case["expected"]["squad_v1_f1"] or 0.0, abs=1e-12)


OTHERWISE = {
    "no_assistant_marker": 1.0,
    "no_example_in_prompt_correct": 1.0,
    "text_after_answer": 1.0,
    "eos_token_after_answer": 1.0,
    "answer_twice_last_wins": 0.2,
    "nested_answer": 0.8,
    "missing_closing_information": 1.0,
    "search_without_information": 1.0,
    "gold_empties_everything": 0.2,
}
"""Case -> our reward where it is another one, by the rules below."""


def format_reward(case):
    """The table of Search-R1 v0.3, over actions instead of text. Hence these rules:

    - The prompt is not read: it needs no chat marker, and no example of an answer.
    - The first closing tag ends a turn: what follows it means nothing, and the first answer is the answer.
    - A block begins at the last opening tag of its kind.
    - What stands around passages is the environment's: it neither keeps nor breaks a format.
    - A gold answer that normalises to nothing is in no passage, and what the policy calls information is none.
    """
    inputs, expected = case["inputs"], case["expected"]
    played = episode(inputs["text"], inputs["golds"])
    reward = FormattedMatch(
        format=inputs["structure_format_score"],
        answered=inputs["final_format_score"],
        retrieval=inputs["retrieval_score"],
        match="characters",
    )
    assert score(reward, played) == pytest.approx(OTHERWISE.get(case["name"], expected["reward"]) * inputs["score"])
    if case["name"] in OTHERWISE or case["name"] == "information_without_search":
        return
    assert score(Format(), played) == expected["valid"]
    assert score(Retrieval(match="characters"), played) == expected["retrieval_hit"]


def score(reward, played):
    return asyncio.run(reward([played]))[0].total


def episode(text, golds):
    """The episode that a whole text tells of: turns of the policy, and what the searches found."""
    question = Question("q", "?", tuple(golds))
    _, marker, rest = text.rpartition("<|im_start|>assistant\n")
    turns, rest = [], rest if marker else text.partition("\n")[2]
    while rest.strip() and not (turns and isinstance(turns[-1].action, Answer)):
        closing = re.search(r"</(?:search|answer)>", rest)
        said, rest = (rest[: closing.end()], rest[closing.end() :]) if closing else (rest, "")
        tokens = TOKENIZER.encode(said)
        turns.append(Turn(RENDERER.parse(Completion(tokens, [0.0] * len(tokens), [0] * len(tokens), Finish.STOP))))
        if isinstance(turns[-1].action, Search):
            shown = re.match(r"\s*<information>(.*?)(?:</information>|(?=<think>))|", rest, re.DOTALL)
            turns[-1].results, rest = [[Passage("1", "", shown[1])] if shown[1] else []], rest[shown.end() :]
    return Trajectory(question, "q", 0, turns=turns)
