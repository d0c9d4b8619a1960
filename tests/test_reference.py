"""Forage against numbers computed with the code of its peers.

Every vector file of a topic below is read from tests/data/reference, or from the folder that the environment variable
FORAGE_REFERENCE names. One function a topic says what of it Forage does, and where it differs on purpose, as a rule.
"""

import json
import math
import os
from pathlib import Path

import pytest
import torch

from forage.advantages.grpo import GRPO
from forage.aggregation import AGGREGATIONS
from forage.kl import ESTIMATORS, k3
from forage.learners.schedule import Schedule
from forage.logprobs import logprobs_and_entropy
from forage.losses.clip import ClipLoss
from forage.text import exact_match, normalize_answer, token_f1
from forage.types import Batch

FOLDER = Path(os.environ.get("FORAGE_REFERENCE") or Path(__file__).parent / "data" / "reference")


def numbers(values):
    if isinstance(values, list):
        return [numbers(value) for value in values]
    return float(values)


def close(ours, theirs, case, tolerance=1e-7):
    if not isinstance(theirs, torch.Tensor):
        theirs = torch.tensor(numbers(theirs), dtype=torch.float64)
    tolerance = max(tolerance, 3 * case.get("float32_error", 0.0) if case["inputs"].get("dtype") == "float32" else 0.0)
    torch.testing.assert_close(torch.as_tensor(ours, dtype=torch.float64), theirs, rtol=tolerance, atol=tolerance)


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


def weigh(inputs, acted_BT):
    """The aggregation of a peer as weights of ours."""
    rows, width = acted_BT.shape
    tokens, filled = int(acted_BT.sum()), int(acted_BT.any(1).sum())
    peer = inputs["loss"] if inputs["peer"] == "trl" else inputs.get("aggregation", "token-mean")
    name, tokens, rows, scale = {
        "token-mean": ("token_mean", tokens, filled, 1),
        "token-sum": ("token_mean", 1, filled, 1),
        "seq-mean-token-mean": ("sequence_mean", tokens, filled, 1),
        "seq-mean-token-sum": ("sequence_sum", tokens, filled, 1),
        "seq-mean-token-sum-norm": ("sequence_sum", tokens, filled, width),
        "grpo": ("sequence_mean", tokens, rows, 1),
        "bnpo": ("token_mean", tokens, rows, 1),
        "dr_grpo": ("sequence_sum", tokens, rows, inputs.get("max_completion_length")),
        "dapo": ("token_mean", inputs.get("num_items_in_batch"), rows, 1),
    }[peer]
    return AGGREGATIONS[name](acted_BT, tokens, rows).double() / scale


def policy_loss(case):
    """The clipped loss of Search-R1, TRL and verl, with one rule: where A < 0 and the ratio is above its clip_ratio_c,
    verl holds the loss at c |A|, and here it goes on. Nothing acted is a loss of 0, not 0/0."""
    inputs, expected = case["inputs"], case["expected"]
    clipped = (inputs["peer"], inputs["loss"]) in [("verl", "vanilla"), ("search_r1", "ppo")] or (
        inputs["peer"] == "trl" and inputs["loss"] != "cispo" and inputs["level"] == "token"
    )
    if not clipped or "delta" in inputs or "rollout_is_weights" in inputs:
        pytest.skip("another loss")
    logprobs_BT = torch.tensor(numbers(inputs["logprob"]), dtype=torch.float64, requires_grad=True)
    old_BT = torch.tensor(numbers(inputs["old_logprob"]), dtype=torch.float64)
    advantages_BT = torch.tensor(numbers(inputs["advantages"]), dtype=torch.float64)
    if advantages_BT.ndim == 1:
        advantages_BT = advantages_BT[:, None].expand_as(old_BT)
    acted_BT = torch.tensor(inputs["mask"]).bool()
    low = inputs.get("clip_ratio_low", inputs.get("epsilon_low", inputs.get("clip_ratio")))
    high = inputs.get("clip_ratio_high", inputs.get("epsilon_high", inputs.get("clip_ratio")))
    batch = rows_of(acted_BT, sampled_logprobs_BT=old_BT, advantages_BT=advantages_BT)
    loss_BT, metrics = ClipLoss(clip_low=low, clip_high=high)(logprobs_BT, batch)
    if inputs["peer"] == "verl":
        held_BT = (advantages_BT < 0) & ((logprobs_BT - old_BT).exp() > inputs["clip_ratio_c"]) & acted_BT
        loss_BT = torch.where(held_BT, -advantages_BT * inputs["clip_ratio_c"], loss_BT)
    if inputs.get("beta"):
        ref_BT = torch.tensor(numbers(inputs["ref_logprob"]), dtype=torch.float64)
        loss_BT = loss_BT + inputs["beta"] * k3(logprobs_BT, ref_BT)
    loss = (loss_BT * weigh(inputs, acted_BT)).sum()
    if not acted_BT.any():
        assert loss == 0
        return
    loss.backward()
    close(loss.detach(), expected["loss"], case)
    close(logprobs_BT.grad, expected["grad"], case)
    if "pg_clipfrac" in expected["metrics"]:
        clipped_tokens, count = metrics["policy/clip_fraction"]
        close(clipped_tokens / count, expected["metrics"]["pg_clipfrac"], case)


def rows_of(acted_BT, **columns):
    empty_BT = torch.zeros(acted_BT.shape, dtype=torch.int64)
    row_B = torch.arange(len(acted_BT))
    return Batch(
        tokens_BT=empty_BT,
        turn_BT=empty_BT,
        version_BT=empty_BT,
        acted_BT=acted_BT,
        lengths_B=acted_BT.sum(1),
        rewards_B=row_B.float(),
        rewards_BT=torch.zeros(acted_BT.shape),
        group_B=row_B,
        **columns,
    )


def loss_aggregation(case):
    """verl's modes and TRL's; what stands outside the mask never counts, even a NaN; nothing acted is 0, not 0/0."""
    inputs = case["inputs"]
    acted_BT = torch.tensor(inputs["mask"]).bool()
    loss_BT = torch.tensor(numbers(inputs["loss_mat"]), dtype=torch.float64).masked_fill(~acted_BT, 0)
    tokens = inputs["batch_num_tokens"] or int(acted_BT.sum())
    rows = inputs["global_batch_size"] or int(acted_BT.any(1).sum())
    width = inputs["loss_scale_factor"] or acted_BT.shape[1]
    ours = {
        "token-mean": ("token_mean", 1),
        "seq-mean-token-mean": ("sequence_mean", 1),
        "seq-mean-token-sum": ("sequence_sum", 1),
        "seq-mean-token-sum-norm": ("sequence_sum", width),
    }
    for peer, (name, scale) in ours.items():
        theirs = case["expected"]["verl"][peer]
        if isinstance(theirs, dict):
            continue
        total = (loss_BT * AGGREGATIONS[name](acted_BT, tokens, rows)).sum() * inputs["dp_size"] / scale
        if math.isnan(float(theirs)):
            assert total.isfinite()
        else:
            close(total, theirs, case)


def kl_estimators(case):
    inputs = case["inputs"]
    dtype = getattr(torch, inputs.get("dtype", case.get("dtype", "float64")))
    for name, estimator in ESTIMATORS.items():
        theirs = case["expected"].get(name)
        if theirs is None:
            continue
        logprob = torch.tensor(numbers(inputs["logprob"]), dtype=dtype, requires_grad=True)
        value = estimator(logprob, torch.tensor(numbers(inputs["ref_logprob"]), dtype=dtype))
        (grad,) = torch.autograd.grad(value.sum(), logprob)
        tolerance = 1e-7 if dtype is torch.float64 else 1e-5
        close(value.detach(), theirs["value"], case, tolerance)
        close(grad, theirs["grad"], case, tolerance)


def logprob_entropy(case):
    """Excluded tokens (-inf) add nothing to the entropy, where the peers give NaN."""
    inputs, expected = case["inputs"], case["expected"]
    logits = torch.tensor(numbers(inputs["logits"]), dtype=torch.float64) / inputs["temperature"]
    labels = torch.tensor(inputs["labels"])
    acted = torch.tensor(inputs["mask"]).bool()
    logprobs, entropy = (
        part.view(labels.shape) for part in logprobs_and_entropy(logits.flatten(0, 1), labels.flatten())
    )
    close(logprobs, expected["logprob"], case)
    theirs = torch.tensor(numbers(expected["entropy"]), dtype=torch.float64)
    assert entropy.isfinite().all()
    close(entropy[theirs.isfinite()], theirs[theirs.isfinite()], case)
    if not math.isnan(float(expected["entropy_mean"])):
        close(entropy[acted].mean(), expected["entropy_mean"], case)


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
