"""Weighted sums of rewards."""

import asyncio

import pytest

from forage import build
from forage.configure import dump, load
from forage.errors import ConfigError, RewardError
from forage.rewards.sum import WeightedSum
from forage.types import Answer, Passage, Question, Scores, Search, Trajectory, Turn

QUESTION = Question("q7", "Who wrote Hamlet?", ("Shakespeare",))
FOUND = [[Passage("1", "Hamlet", "A play.")]]


def episode(answer="Shakespeare", searches=2, formed=True):
    looks = [Turn(Search((f"q{i}",)), FOUND) for i in range(searches)]
    return Trajectory(QUESTION, "q7", 0, turns=[*looks, Turn(Answer(answer, formed))])


def scored(reward, *episodes):
    return asyncio.run(reward(list(episodes)))


class Doubled:
    """A reward with parts of its own, one of them named like another reward."""

    async def __call__(self, group):
        return [Scores(2.0, {"em": 0.5, "Doubled": 2.0}, {0: 1.0}) for _ in group]


def em(trajectory):
    return 7.0


def broken(trajectory):
    raise KeyError("no such thing")


def test_members_are_weighted_and_charted_as_they_are():
    reward = WeightedSum(
        weights={"em": 1.0, "format": 0.2, "search_cost": 2.0}, options={"search_cost": {"price": 0.1}}
    )
    right, wrong = scored(reward, episode(), episode("Marlowe", searches=0, formed=False))
    assert right.total == pytest.approx(1 + 0.2 - 2 * 0.2)
    assert right.parts == {"em": 1.0, "format": 1.0, "search_cost": -0.2}
    assert right.turns == {0: -0.2, 1: -0.2}
    assert wrong == Scores(0.0, {"em": 0.0, "format": 0.0, "search_cost": 0.0})


def test_search_r1_pp_is_such_a_sum():
    reward = WeightedSum(weights={"f1": 1, "no_search": 0.1, "no_answer": 0.1})
    scores = scored(reward, episode(), episode(searches=0), Trajectory(QUESTION, "q7", 0))
    assert [score.total for score in scores] == pytest.approx([1.0, 0.9, -0.2])


def test_parts_of_one_name_are_kept_apart():
    weights = {"em": 1.0, "test_sum:Doubled": 0.5, "test_sum:em": 0.0, "em_format": 1.0}
    score = scored(WeightedSum(weights=weights), episode())[0]
    assert score.total == pytest.approx(1 + 1 + 0 + 1)
    assert score.turns == {0: 0.5}
    assert score.parts == {
        "em": 1.0,
        "Doubled": 2.0,
        "Doubled.em": 0.5,
        "test_sum:em": 7.0,
        "test_sum:em.em": 7.0,
        "em_format": 1.0,
        "em_format.em": 1.0,
        "em_format.format": 1.0,
        "em_format.retrieval": 0.0,
    }


def test_a_member_that_fails_is_named():
    with pytest.raises(RewardError, match="'test_sum:broken' failed on question 'q7': KeyError"):
        scored(WeightedSum(weights={"em": 1, "test_sum:broken": 1}), episode())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["reward.weights={em=0, f1=0}"], "some weight must be other than 0"),
        (["reward.weights={em=inf}"], "each a number"),
        ([], "reward.weights is missing"),
        (["reward.weights={}"], "reward.weights is missing"),
        (["reward.weights={emm=1}"], "did you mean 'em'?"),
        (["reward.weights={em=much}"], "a number"),
        (["reward.weights={search_cost=1}", "reward.options={search_cost={prise=1}}"], "did you mean 'reward.price'?"),
        (["reward.weights={search_cost=1}", "reward.options={serch_cost={price=1}}"], "did you mean 'search_cost'?"),
        (["reward.weights={search_cost=1}", "reward.options={search_cost={price=-1}}"], ">= 0"),
        (["reward.weights={length=1}"], "max_tokens is missing"),
    ],
)
def test_what_can_not_be_added_is_refused_before_a_run(words, message):
    with pytest.raises(ConfigError) as caught:
        load("demo", ["reward=sum", *words])
    assert message in str(caught.value)


def test_a_command_line_and_a_file_say_it_alike(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text("""
extends = "demo"
[reward]
kind = "sum"
weights = {em = 1.0, format = 0.2, search_cost = 1.0, "test_sum:Doubled" = -0.5}
[reward.options.search_cost]
price = 0.02
""")
    weights = 'reward.weights={em=1,format=.2,search_cost=1,"test_sum:Doubled"=-.5}'
    words = [weights, "reward.options.search_cost.price=.02"]
    said, written = load("demo", ["reward=sum", *words]), load(file)
    assert said.reward == written.reward
    assert said.reward.options["options"] == {"search_cost": {"price": 0.02, "free": 0}}
    dumped = tmp_path / "dumped.toml"
    dumped.write_text(dump(said))
    assert load(dumped).reward == said.reward
    assert scored(build.reward(said), episode())[0].total == pytest.approx(1 + 0.2 - 0.04 - 1)


def test_a_module_in_a_package_is_one_name():
    config = load("demo", ["reward=sum", 'reward.weights={"pkg.parts:Frugal"=.5}'], check_parts=False)
    assert config.reward.options == {"weights": {"pkg.parts:Frugal": 0.5}}
    config = load("demo", ["reward=sum", 'reward.weights."pkg.parts:Frugal"=.5'], check_parts=False)
    assert config.reward.options == {"weights": {"pkg.parts:Frugal": 0.5}}
