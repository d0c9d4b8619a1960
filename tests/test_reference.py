"""Forage against numbers computed with the code of its peers.

Every vector file of a topic below is read from tests/data/reference, or from the folder that the environment variable
FORAGE_REFERENCE names. One function a topic says what of it Forage does, and where it differs on purpose, as a rule.
"""

import json
import os
from pathlib import Path

import pytest
import torch
from loss_vectors import kl_estimators, logprob_entropy, loss_aggregation, policy_loss
from vectors import close, numbers

from forage.advantages.grpo import GRPO
from forage.learners.schedule import Schedule
from forage.text import exact_match, normalize_answer, token_f1

FOLDER = Path(os.environ.get("FORAGE_REFERENCE") or Path(__file__).parent / "data" / "reference")


def answer_normalization(case):
    assert normalize_answer(case["inputs"]["text"]) == case["expected"]["normalized"]


def exact_match_topic(case):
    """A gold answer that normalises to nothing never matches."""
    prediction, golds = case["inputs"]["prediction"], case["inputs"]["golds"]
    assert exact_match(prediction, golds) is (bool(case["expected"]["em"]) and normalize_answer(prediction) != "")


def token_f1_topic(case):
    """That of SQuAD v1; without any gold, where its script raises, nothing matches."""
    assert token_f1(**case["inputs"]) == pytest.approx(case["expected"]["squad_v1_f1"] or 0.0, abs=1e-12)


def grpo_advantage(case):
    """Exactly 0 where all rewards of a group are equal or a group has one member, whatever the peers' rounding."""
    inputs, expected = case["inputs"], case["expected"]
    rewards_B = torch.tensor(numbers(inputs["token_level_rewards"]), dtype=torch.float64).sum(1)
    acted_BT = torch.tensor(numbers(inputs["mask"]), dtype=torch.float64)
    names = list(dict.fromkeys(inputs["group"]))
    group_B = torch.tensor([names.index(name) for name in inputs["group"]])
    equal_B = torch.tensor([bool((rewards_B[group_B == g] == rewards_B[group_B == g][0]).all()) for g in group_B])
    tolerance = 1e-5 if inputs.get("dtype") == "float32" else 1e-7
    estimators = {
        "std_normalised": GRPO(epsilon=inputs["epsilon"]),
        "mean_only": GRPO(normalize=False),
        "trl_group_B": GRPO(epsilon=1e-4),
    }
    for name, estimator in estimators.items():
        if expected.get(name) is None:
            continue
        ours_B = estimator.of_rewards(rewards_B, group_B)
        assert (ours_B[equal_B] == 0).all()
        ours = ours_B if name.endswith("_B") else ours_B[:, None] * acted_BT
        theirs = torch.tensor(numbers(expected[name]), dtype=torch.float64)
        close(ours[~equal_B], theirs[~equal_B], case, tolerance)


def hyperparameters(case):
    """The schedule, one rollout earlier: the peer's first rollout is trained with a learning rate of 0, ours is not."""
    inputs, expected = case["inputs"], case["expected"]
    if inputs["kind"] != "schedule":
        pytest.skip("settings of a script, not a function")
    schedule = Schedule("constant", warmup_steps=expected["warmup_rollouts"])
    for rollout, rate in expected["lr"].items():
        if int(rollout) > 0:
            close(inputs["lr"] * schedule.factor(int(rollout) - 1), rate, case)


TOPICS = {
    "answer_normalization": answer_normalization,
    "exact_match": exact_match_topic,
    "token_f1": token_f1_topic,
    "grpo_advantage": grpo_advantage,
    "policy_loss": policy_loss,
    "policy_loss_more": policy_loss,
    "loss_aggregation": loss_aggregation,
    "kl_estimators": kl_estimators,
    "logprob_entropy": logprob_entropy,
    "hyperparameters": hyperparameters,
}


def vectors():
    for path in sorted(FOLDER.glob("*.json")):
        document = json.loads(path.read_text("utf-8"))
        check = TOPICS.get(document["topic"])
        for case in document["cases"] if check else ():
            yield pytest.param(check, case, id=f"{document['topic']}-{case['name']}")


@pytest.mark.parametrize(("check", "case"), list(vectors()))
def test_against_the_peers(check, case):
    check(case)


def test_vectors_of_every_topic_are_there():
    found = {json.loads(path.read_text("utf-8"))["topic"] for path in FOLDER.glob("*.json")}
    assert found & set(TOPICS), f"{FOLDER} holds no vectors of a topic that Forage implements"
