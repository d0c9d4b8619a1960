"""The parts of examples/my_parts.py do what docs/extending.md says, in a real run, without a change to Forage."""

import asyncio
import json
import sys
from pathlib import Path

import pytest

from forage.configure import load
from forage.errors import ConfigError
from forage.retrievers.gather import Gather
from forage.rewards.adapt import as_reward
from forage.training import train_from_config
from forage.types import Answer, Passage, Question, Search, Trajectory, Turn

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "examples"))

from my_parts import Frugal, TitleSearch, brevity  # noqa: E402

SMALL = [
    "data.entities=60",
    "rollout.questions=2",
    "rollout.samples=2",
    "train.steps=1",
    "train.save_every=0",
    "run.threads=1",
    "tracking.console=false",
]
OWN = ["reward=my_parts:Frugal", "reward.price=0.1", "search=my_parts:TitleSearch", "search.min_words=1"]
FOUND = [Passage("p", "Tavero", "Tavero is a city.")]


def episode(answer: str, searches: int, tokens: int) -> Trajectory:
    turns = [Turn(Search(("Tavero",)), [FOUND])] * searches
    return Trajectory(
        Question("q", "Where?", ("Beloria",)), "q", 0, acted=[1] * tokens, turns=[*turns, Turn(Answer(answer))]
    )


def test_a_run_with_parts_of_ones_own(tmp_path):
    config = load("smoke", [*SMALL, *OWN, f"run.dir={tmp_path / 'run'}"])
    assert train_from_config(config)["step"] == 1
    row = json.loads((tmp_path / "run" / "metrics.jsonl").read_text())
    assert {"reward/em", "reward/spent"} <= row.keys()
    assert load(tmp_path / "run") == config


def test_a_function_is_a_reward_and_needs_no_options():
    assert load("smoke", ["reward=my_parts:brevity"]).reward.options == {}
    with pytest.raises(ConfigError, match=r"reward\.price .* is unknown"):
        load("smoke", ["reward=my_parts:brevity", "reward.price=1"])


async def scores(reward, *episodes):
    return [score.total for score in await as_reward(reward)(episodes)]


def test_what_the_rewards_say():
    assert asyncio.run(scores(brevity, episode("Beloria", 1, 100), episode("Zuka", 1, 10))) == [0.5, 0.0]
    assert asyncio.run(scores(Frugal(price=0.1), episode("beloria", 2, 9))) == [0.8]


def test_what_the_search_engine_finds():
    engine = Gather(TitleSearch([*FOUND, Passage("z", "Zuka Mills", ""), Passage("y", "Zuka Hall", "")], min_words=1))
    assert engine.in_process
    found = asyncio.run(engine.search(["zuka hall", "Beloria"], 2))
    assert [[passage.id for passage in passages] for passages in found] == [["y", "z"], []]


def test_the_page_shows_the_code_as_it_is():
    code = (ROOT / "examples" / "my_parts.py").read_text("utf-8")
    assert f"```python\n{code}```" in (ROOT / "docs" / "extending.md").read_text("utf-8")
