"""Forage against numbers computed with the code of its peers.

Every vector file of a topic below is read from tests/data/reference, or from the folder that the environment variable
FORAGE_REFERENCE names. One function a topic says what of it Forage does, and where it differs on purpose, as a rule.
"""

import json
import os
from pathlib import Path

import pytest
from advantage_vectors import gae_masked, gae_unmasked, grpo_advantage, reinforce_plus_plus, remax, rloo, whitening
from answer_vectors import answer_normalization, exact_match_topic, format_reward, substring_match, token_f1_topic
from http_vectors import http_contract
from learner_vectors import kl_controller, kl_in_reward, rollout_correction, value_loss
from loss_vectors import kl_estimators, logprob_entropy, loss_aggregation, policy_loss
from retrieval_vectors import retrieval_recall
from vectors import close

from forage.learners.schedule import Schedule

FOLDER = Path(os.environ.get("FORAGE_REFERENCE") or Path(__file__).parent / "data" / "reference")


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
    "substring_match": substring_match,
    "token_f1": token_f1_topic,
    "format_reward": format_reward,
    "grpo_advantage": grpo_advantage,
    "rloo": rloo,
    "reinforce_plus_plus": reinforce_plus_plus,
    "remax": remax,
    "gae_masked": gae_masked,
    "gae_unmasked": gae_unmasked,
    "whitening": whitening,
    "policy_loss": policy_loss,
    "policy_loss_more": policy_loss,
    "loss_aggregation": loss_aggregation,
    "kl_estimators": kl_estimators,
    "logprob_entropy": logprob_entropy,
    "value_loss": value_loss,
    "rollout_correction": rollout_correction,
    "kl_controller": kl_controller,
    "kl_in_reward": kl_in_reward,
    "hyperparameters": hyperparameters,
    "http_contract": http_contract,
    "retrieval_recall": retrieval_recall,
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
