"""A judge: a stand-in that follows a script, and once a real one behind HTTP."""

import asyncio
import json

import pytest
from chat_server import said, serving

from forage.configure import dump, load
from forage.errors import ConfigError, RewardError, ServiceError
from forage.rewards.adapt import as_reward
from forage.rewards.judge import Judge, read_verdict
from forage.types import Answer, Question, Scores, Search, Trajectory, Turn

QUESTION = Question("q7", "Who wrote Hamlet?", ("William Shakespeare", "Shakespeare"))


class Scripted:
    """Says yes to what names the bard."""

    url = "http://judge/v1"

    def __init__(self, reply=None):
        self.asked, self._reply = [], reply

    async def ask(self, prompt):
        self.asked.append(prompt)
        if isinstance(self._reply, Exception):
            raise self._reply
        return self._reply or ("Yes." if "bard" in prompt else "No.")


def judge(client, **options):
    return Judge(client, url="http://judge/v1", model="judge-1", **options)


def episode(answer, question=QUESTION):
    last = Turn(Answer(answer)) if answer is not None else Turn(Search(("q",)))
    return Trajectory(question, question.id, 0, turns=[last])


def scored(reward, *answers):
    return [score.total for score in asyncio.run(as_reward(reward, "judge")([episode(a) for a in answers]))]


def test_the_judge_decides_what_is_not_an_exact_match():
    client = Scripted()
    reward = judge(client)
    assert scored(reward, "the bard of Avon", "Marlowe", "shakespeare", None, "  ") == [1, 0, 1, 0, 0]
    assert len(client.asked) == 2
    assert all("Who wrote Hamlet?" in p and "William Shakespeare; Shakespeare" in p for p in client.asked)
    assert asyncio.run(reward([episode("Marlowe")])) == [Scores(0.0, {"judge": 0.0})]


def test_an_exact_match_is_judged_too_where_asked_for():
    client = Scripted()
    assert scored(judge(client, exact=False), "Shakespeare") == [0]
    assert len(client.asked) == 1


def test_nothing_is_asked_twice_and_a_run_is_repeated_without_the_endpoint(tmp_path):
    file = tmp_path / "verdicts.jsonl"
    client = Scripted()
    reward = judge(client, cache_file=str(file))
    assert scored(reward, "the bard", "Marlowe", "the  bard") == [1, 0, 1]
    assert scored(reward, "Marlowe", "the bard") == [0, 1]
    assert len(client.asked) == 2
    gone = Scripted(ServiceError("nobody is there"))
    assert scored(judge(gone, cache_file=str(file)), "the bard", "Marlowe") == [1, 0]
    assert gone.asked == []
    with pytest.raises(RewardError):
        scored(judge(gone, cache_file=str(file), request={"temperature": 1}), "the bard")


def test_words_of_ones_own_are_filled_in_once():
    client = Scripted("yes")
    scored(judge(client, prompt="{question}|{answers}|{answer}|{other}"), "see {question}\nand more")
    assert client.asked == ["Who wrote Hamlet?|William Shakespeare; Shakespeare|see {question} and more|{other}"]


@pytest.mark.parametrize(("prompt", "missing"), [("Is {answer} right?", "question"), ("{question}", "answer")])
def test_a_prompt_that_does_not_ask_is_refused(prompt, missing):
    with pytest.raises(ConfigError, match=f"{{{missing}}}"):
        judge(Scripted(), prompt=prompt)


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ("yes", True),
        ("No.", False),
        ("**YES**", True),
        ("The verdict is: no", False),
        ("Yes, there is no doubt about it.", True),
        ("<think> no, wait </think>\n\nyes", True),
        ("No, I would not say yes", None),
        ("I have no idea", None),
        ("maybe", None),
        ("", None),
        ("yes </think>", None),
    ],
)
def test_a_verdict_is_the_first_or_the_last_word(reply, verdict):
    assert read_verdict(reply) is verdict


@pytest.mark.parametrize(
    ("reply", "cause"),
    [
        ("maybe", "http://judge/v1 said neither yes nor no, but 'maybe'"),
        (ServiceError("http://judge/v1 is down"), "down"),
    ],
)
def test_no_verdict_is_an_error_and_never_nothing(reply, cause, tmp_path):
    file = tmp_path / "verdicts.jsonl"
    with pytest.raises(RewardError) as caught:
        scored(judge(Scripted(reply), cache_file=str(file)), "the bard")
    assert "'judge' failed on question 'q7'" in str(caught.value)
    assert cause in str(caught.value)
    assert not file.exists()


def test_over_http_with_a_busy_server():
    busy = (429, {"Retry-After": "0.01"}, "slow down")
    with serving(lambda number, body: busy if number == 0 else said("yes")) as endpoint:
        assert scored(Judge(url=endpoint.url, model="judge-1"), "the bard") == [1]
    assert len(endpoint.asked) == 2
    assert endpoint.asked[1][2]["temperature"] == 0


def test_a_configuration_holds_the_name_of_the_key_alone(tmp_path):
    with pytest.raises(ConfigError, match=r"reward\.url is missing"):
        load("demo", ["reward=judge", "reward.model=judge-1"])
    words = [
        "reward=judge",
        "reward.model=judge-1",
        "reward.url=http://judge/v1",
        "reward.api_key_env=NO_SUCH_KEY_HERE",
    ]
    config = load("demo", words)
    (tmp_path / "dumped.toml").write_text(dump(config))
    assert load(tmp_path / "dumped.toml").reward == config.reward
    assert json.loads(json.dumps(dict(config.reward.options["request"]))) == {"temperature": 0}
    with pytest.raises(ConfigError, match="NO_SUCH_KEY_HERE"):
        Judge(**config.reward.options)
