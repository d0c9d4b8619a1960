"""Scripted episodes: each behaviour does what it is called, in tokens like any other episode."""

import asyncio

import numpy as np
import pytest

from forage.configure import load
from forage.datasets.fictional import Fictional
from forage.demonstrations import behaviour, demonstrate, mixture, names_in, recital
from forage.errors import ConfigError
from forage.models.tiny import syllable_tokenizer
from forage.renderers.tags import TagRenderer
from forage.retrievers.bm25 import BM25Retriever
from forage.retrievers.gather import Gather
from forage.rollout import Limits
from forage.sft import phase
from forage.types import Search, StopReason

WORLD = Fictional("train", seed=3, entities=120)
TOKENIZER = syllable_tokenizer()


def play(name, i, seed=0):
    question, path = WORLD.pair(i)
    rng = np.random.default_rng(seed)
    if name == "recital":
        question, script = recital(question, [WORLD.questions()[j] for j in range(6)], rng)
    else:
        script = behaviour(name, path, rng)
    renderer = TagRenderer(TOKENIZER, template="short")
    index = Gather(BM25Retriever(WORLD.passages()))
    return asyncio.run(demonstrate(question, script, TOKENIZER, renderer, index, 1, Limits())), path


@pytest.mark.parametrize("i", range(9))
def test_purposeful_episodes_follow_the_path_and_are_right(i):
    trajectory, path = play("purposeful", i)
    asked = [turn.action.queries[0] for turn in trajectory.turns if isinstance(turn.action, Search)]
    assert asked == list(path.entities[:-1])
    assert [turn.results[0][0].title for turn in trajectory.turns[:-1]] == asked
    assert trajectory.answer == path.entities[-1]
    assert trajectory.stop is StopReason.ANSWERED


def test_the_plan_stands_in_the_first_thought_alone_and_shrinks():
    trajectory, path = play("purposeful", 2)
    text = TOKENIZER.decode([t for t, acted in zip(trajectory.tokens, trajectory.acted, strict=True) if acted])
    assert f"First {', then '.join(path.relations)}." in text
    assert f"Next {', then '.join(path.relations[1:])}." in text
    assert f"{path.relations[-1]}: {path.entities[-1]}." in text


def test_haste_takes_one_look_and_aimlessness_several():
    for seed in range(5):
        hasty, _ = play("hasty", 5, seed)
        assert hasty.searches == 1
        assert hasty.answer in hasty.turns[0].results[0][0].text
    assert max(play("aimless", 5, seed)[0].searches for seed in range(8)) > 1


def test_wavering_starts_with_a_plan_and_loses_it():
    trajectory, path = play("wavering", 2)
    assert trajectory.turns[0].action == Search((path.entities[0],))
    text = TOKENIZER.decode(trajectory.tokens)
    assert "First" in text
    assert "Good enough" in text or trajectory.stop is StopReason.NO_ANSWER


def test_a_recital_says_names_of_its_question_again():
    trajectory, _ = play("recital", 0)
    assert trajectory.answer in trajectory.question.text.split(", ")
    assert trajectory.searches == 0


def test_unknown_behaviours_and_missing_paths_are_refused():
    with pytest.raises(ConfigError, match="lazy"):
        behaviour("lazy", None, np.random.default_rng(0))
    with pytest.raises(ConfigError, match="needs the path"):
        behaviour("purposeful", None, np.random.default_rng(0))


def test_names_are_runs_of_capitalised_words():
    assert names_in("Kane Bilo works for Zuka Mills, and so does Kane Bilo.") == ["Kane Bilo", "Zuka Mills"]


def test_a_mixture_draws_by_weight():
    drawn = [mixture({"a": 3.0, "b": 1.0, "c": 0.0}, np.random.default_rng(i)) for i in range(400)]
    assert 260 < drawn.count("a") < 340
    assert drawn.count("c") == 0


def test_phases_divide_the_steps_by_their_shares():
    config = load("warm-start", ["sft.steps=100"])
    names = [max(phase(config, step), key=phase(config, step).get) for step in (1, 15, 16, 90, 91, 100)]
    assert names[1:] == ["recital", "purposeful", "purposeful", "hasty", "hasty"]
    assert "share" not in phase(config, 1)
