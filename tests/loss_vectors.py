"""Adapters of tests/test_reference.py: losses, their aggregation, logprobs, entropy and KL against the peers' numbers.

Where Forage differs on purpose, the adapter's docstring says the rule.
"""

import math

import pytest
import torch
from vectors import close, numbers, rows_of, tensor

from forage.aggregation import AGGREGATIONS, aggregation
from forage.kl import ESTIMATORS, k3
from forage.logprobs import logprobs_and_entropy
from forage.losses.cispo import CISPOLoss
from forage.losses.clip import ClipLoss
from forage.losses.dual_clip import DualClipLoss
from forage.losses.gspo import GSPOLoss
from forage.losses.nll import NegativeLogLikelihood


def loss_of(inputs):
    """The loss of a peer as one of ours. TRL's cap of `cispo` is the largest ratio itself, and it has no lower one."""
    low = inputs.get("clip_ratio_low", inputs.get("epsilon_low", inputs.get("clip_ratio")))
    high = inputs.get("clip_ratio_high", inputs.get("epsilon_high", inputs.get("clip_ratio")))
    clips = {"clip_low": low, "clip_high": high}
    match inputs["peer"], inputs["loss"]:
        case "verl", "vanilla":
            return DualClipLoss(**clips, bound=inputs["clip_ratio_c"])
        case "verl", "gpg":
            return NegativeLogLikelihood()
        case "verl", "cispo":
            return CISPOLoss(**clips)
        case "trl", "cispo":
            return CISPOLoss(clip_high=high - 1)
        case _, "gspo":
            return GSPOLoss(**clips)
        case "trl", _ if inputs["level"] == "sequence":
            return GSPOLoss(**clips)
        case "trl", _ if "delta" in inputs:
            return DualClipLoss(**clips, bound=inputs["delta"])
        case ("search_r1", "ppo") | ("trl", _):
            return ClipLoss(**clips)
    return None


def weigh(inputs, acted_BT):
    """The aggregation of a peer as weights of ours. verl leaves rows without tokens out of its count of rows, and takes
    the mean of row means for GSPO, whatever is chosen; TRL counts such rows. `dapo` has a count of tokens of its own,
    and that of TRL's `cispo` is of the same kind."""
    rows, width = acted_BT.shape
    tokens, filled = int(acted_BT.sum()), int(acted_BT.any(1).sum())
    mode = inputs["loss"] if inputs["peer"] == "trl" else inputs.get("aggregation", "token-mean")
    mode = "seq-mean-token-mean" if inputs["loss"] == "gspo" else mode
    weights = {
        "token-mean": lambda: AGGREGATIONS["token_mean"](acted_BT, tokens, filled),
        "token-sum": lambda: AGGREGATIONS["token_mean"](acted_BT, 1, filled),
        "seq-mean-token-mean": lambda: AGGREGATIONS["sequence_mean"](acted_BT, tokens, filled),
        "seq-mean-token-sum": lambda: AGGREGATIONS["sequence_sum"](acted_BT, tokens, filled),
        "seq-mean-token-sum-norm": lambda: aggregation("constant", width)(acted_BT, tokens, filled),
        "grpo": lambda: AGGREGATIONS["sequence_mean"](acted_BT, tokens, rows),
        "bnpo": lambda: AGGREGATIONS["token_mean"](acted_BT, tokens, rows),
        "dr_grpo": lambda: aggregation("constant", inputs["max_completion_length"])(acted_BT, tokens, rows),
        "dapo": lambda: AGGREGATIONS["token_mean"](acted_BT, inputs.get("num_items_in_batch") or tokens, rows),
        "cispo": lambda: AGGREGATIONS["token_mean"](acted_BT, inputs.get("num_items_in_batch") or tokens, rows),
    }
    return weights[mode]()


def policy_loss(case):
    """Value, gradient and share of clipped tokens. Nothing acted is a loss of 0, not 0/0. Weights of a rollout's
    correction multiply the loss of their token; a KL is added to it."""
    inputs, expected = case["inputs"], case["expected"]
    loss = loss_of(inputs)
    if loss is None:
        pytest.skip("a loss that Forage does not have")
    logprobs_BT, old_BT = tensor(inputs["logprob"]).requires_grad_(), tensor(inputs["old_logprob"])
    advantages_BT = tensor(inputs["advantages"])
    if advantages_BT.ndim == 1:
        advantages_BT = advantages_BT[:, None].expand_as(old_BT)
    acted_BT = torch.tensor(inputs["mask"]).bool()
    batch = rows_of(acted_BT, sampled_logprobs_BT=old_BT, advantages_BT=advantages_BT)
    loss_BT, metrics = loss(logprobs_BT, batch)
    if "rollout_is_weights" in inputs:
        loss_BT = loss_BT * tensor(inputs["rollout_is_weights"])
    if inputs.get("beta"):
        loss_BT = loss_BT + inputs["beta"] * k3(logprobs_BT, tensor(inputs["ref_logprob"]))
    total = (loss_BT * weigh(inputs, acted_BT)).sum()
    if not acted_BT.any():
        assert total == 0
        return
    total.backward()
    close(total.detach(), expected["loss"], case)
    close(logprobs_BT.grad, expected["grad"], case)
    if "pg_clipfrac" in expected["metrics"]:
        theirs = expected["metrics"]["pg_clipfrac"] + expected["metrics"].get("pg_clipfrac_lower", 0.0)
        clipped, tokens = metrics["policy/clip_fraction"]
        close(clipped / tokens, theirs, case)


def loss_aggregation(case):
    """What stands outside the mask never counts, even a NaN; nothing acted is 0, not 0/0. verl averages
    over ranks, and so multiplies by their number; its sum over a constant of January 2026 did neither that nor divide
    by rows. Search-R1's mean of means over micro-batches of one row is `sequence_mean` where every row acted, and one
    batch of it `token_mean`."""
    inputs, expected = case["inputs"], case["expected"]
    acted_BT = torch.tensor(inputs["mask"]).bool()
    loss_BT = tensor(inputs["loss_mat"]).masked_fill(~acted_BT, 0)
    rows, filled, acted = len(acted_BT), int(acted_BT.any(1).sum()), int(acted_BT.sum())
    tokens, global_rows = inputs["batch_num_tokens"] or acted, inputs["global_batch_size"] or filled
    width = inputs["loss_scale_factor"] or acted_BT.shape[1]

    def ours(name, tokens, rows, divisor=0):
        return (loss_BT * aggregation(name, divisor)(acted_BT, tokens, rows)).sum()

    averaged = {
        "token-mean": ours("token_mean", tokens, global_rows),
        "seq-mean-token-mean": ours("sequence_mean", tokens, global_rows),
        "seq-mean-token-sum": ours("sequence_sum", tokens, global_rows),
    }
    verl = {
        "token-sum": ours("token_mean", 1, global_rows),
        "seq-mean-token-sum-norm": ours("constant", tokens, global_rows, width),
    }
    trl = {
        "grpo": ours("sequence_mean", acted, rows),
        "bnpo": ours("token_mean", acted, rows),
        "dr_grpo": ours("constant", acted, rows, inputs["max_completion_length"]),
        "dapo": ours("token_mean", tokens, rows),
    }
    search_r1 = {"search_r1_one_batch": ours("token_mean", acted, rows)}
    if rows == filled:
        search_r1["search_r1_micro_batches_of_1"] = ours("sequence_mean", acted, rows)
    for mine, theirs, scale in (
        (averaged | verl, expected["verl"], inputs["dp_size"]),
        (averaged, expected["verl_2026_01"], inputs["dp_size"]),
        ({"seq-mean-token-sum-norm": ours("constant", tokens, 1, width)}, expected["verl_2026_01"], 1),
        (trl, expected["trl"], 1),
        (search_r1, expected, 1),
    ):
        for name, total in mine.items():
            same(total * scale, theirs[name], case)


def same(ours, theirs, case):
    """Equal; finite where the peer has NaN; anything where it raised."""
    if isinstance(theirs, dict):
        return
    if math.isnan(float(theirs)):
        assert ours.isfinite()
    else:
        close(ours, theirs, case)


def kl_estimators(case):
    """k1, k2, k3 and abs of verl. Search-R1's k3 is the same, but where its exp overflows: its gradient is NaN there,
    ours 0. The variants with the value of one and the gradient of another (`k1+`, `k3+`) are not offered."""
    inputs, expected = case["inputs"], case["expected"]
    dtype = getattr(torch, inputs.get("dtype", case.get("dtype", "float64")))
    assert expected.keys() - ESTIMATORS.keys() <= {"k1+", "k3+", "search_r1_low_var_kl"}
    for name, theirs in expected.items():
        estimator = ESTIMATORS.get("k3" if name == "search_r1_low_var_kl" else name)
        if estimator is None:
            continue
        logprob = tensor(inputs["logprob"], dtype).requires_grad_()
        value = estimator(logprob, tensor(inputs["ref_logprob"], dtype))
        (grad,) = torch.autograd.grad(value.sum(), logprob)
        tolerance = 1e-7 if dtype is torch.float64 else 1e-5
        known = ~tensor(theirs["grad"]).isnan()
        close(value.detach(), theirs["value"], case, tolerance)
        close(grad[known], tensor(theirs["grad"])[known], case, tolerance)
        assert (grad[~known] == 0).all()


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
    theirs = tensor(expected["entropy"])
    assert entropy.isfinite().all()
    close(entropy[theirs.isfinite()], theirs[theirs.isfinite()], case)
    if not math.isnan(float(expected["entropy_mean"])):
        close(entropy[acted].mean(), expected["entropy_mean"], case)
