"""Adapters of tests/test_reference.py: what a critic learns, and the correction for how tokens were sampled.

Where Forage differs from the peers on purpose, the adapter's docstring says the rule.
"""

import math
from dataclasses import replace

import pytest
import torch
from vectors import close, rows_of, tensor

from forage.aggregation import AGGREGATIONS
from forage.batch import row_rewards, token_rewards
from forage.correction import Correction
from forage.errors import ConfigError
from forage.kl import Coefficient
from forage.learners.measures import mismatch
from forage.learners.terms import KLTerm
from forage.learners.values import value_loss as loss_of_values


def value_loss(case):
    """That of verl and Search-R1; nothing acted is a loss of 0, not 0/0."""
    inputs = case["inputs"]
    acted_BT = tensor(inputs["mask"]).bool()
    values_BT = tensor(inputs["vpreds"]).requires_grad_()
    old_BT, returns_BT = tensor(inputs["values"]), tensor(inputs["returns"])
    loss_BT, clipped_BT = loss_of_values(values_BT, old_BT, returns_BT, inputs["cliprange_value"])
    modes = {"verl_token_mean": "token_mean", "verl_seq_mean_token_mean": "sequence_mean", "search_r1": "token_mean"}
    for peer, mode in modes.items():
        theirs, tokens = case["expected"][peer], int(acted_BT.sum())
        weights_BT = AGGREGATIONS[mode](acted_BT, tokens, int(acted_BT.any(1).sum()))
        loss = (loss_BT.masked_fill(~acted_BT, 0) * weights_BT).sum()
        if not tokens:
            assert loss == 0
            continue
        (grad,) = torch.autograd.grad(loss, values_BT, retain_graph=True)
        close(loss.detach(), theirs["loss"], case)
        close(grad, theirs["grad"], case)
        close((clipped_BT & acted_BT).sum() / tokens, theirs["clipfrac"], case)


def rollout_correction(case):
    """Weights are 0 where observed, as in verl (1 in TRL), and are never divided by their mean (`batch_normalize`).
    Where nothing is acted they are 0, and verl raises. Rejection is by k1; verl's other tests are not offered."""
    inputs = case["inputs"]
    if inputs.get("batch_normalize") or inputs.get("rejection", "token_k1") not in ("token_k1", "seq_sum_k1"):
        pytest.skip("not offered")
    old_BT, sampled_BT = tensor(inputs["train_logprob"]), tensor(inputs["rollout_logprob"])
    acted_BT = tensor(inputs["mask"]).bool()
    if "diagnostics" in inputs:
        batch = rows_of(acted_BT, sampled_logprobs_BT=sampled_BT)
        kl, tokens = mismatch(batch, old_BT)["policy/mismatch_kl"]
        close(kl / tokens, case["expected"]["diagnostics"]["k3_kl"], case)
        return
    if inputs.get("threshold") == 0:
        with pytest.raises(ConfigError):
            correction_of(inputs)
        return
    weights_BT, cut_BT = correction_of(inputs)(old_BT, sampled_BT, acted_BT)
    if not acted_BT.any():
        assert not weights_BT.any()
    elif "rejection" in inputs:
        close((weights_BT != 0).double(), case["expected"]["mask_after"], case)
    else:
        theirs_BT = tensor(case["expected"]["weights"]).expand(acted_BT.shape)
        close(weights_BT, theirs_BT * acted_BT, case)
        assert (cut_BT <= acted_BT).all()


def kl_controller(case):
    """That of verl and Search-R1, but never below 0: where their formula turns negative, ours stays at 0."""
    inputs = case["inputs"]
    target = inputs["target_kl"] if inputs["type"] == "adaptive" else 0.0
    coefficient = Coefficient(inputs["kl_coef"], target, inputs["horizon"] or 1)
    for (kl, rows), theirs in zip(inputs["updates"], case["expected"]["coef_after_each_update"], strict=True):
        coefficient.follow(kl, rows)
        close(coefficient.value, max(theirs, 0.0), case)


def kl_in_reward(case):
    """Rewards less the penalty, and the coefficient after. A row of which nothing is acted has a KL of 0, as in verl;
    in Search-R1 it makes the mean, and with it the coefficient, NaN."""
    inputs = case["inputs"]
    adaptive = inputs["type"] == "adaptive"
    coefficient = Coefficient(inputs["kl_coef"], inputs["target_kl"] if adaptive else 0.0, inputs["horizon"] or 1)
    name = {"kl": "k1", "mse": "k2", "low_var_kl": "k3", "abs": "abs"}[inputs["kl_penalty"]]
    term = KLTerm(coefficient, name, in_reward=True)
    batch = rows_of(
        tensor(inputs["mask"]).bool(),
        sampled_logprobs_BT=tensor(inputs["old_logprob"]),
        ref_logprobs_BT=tensor(inputs["ref_logprob"]),
    )
    scores_BT = tensor(inputs["token_level_scores"])
    batch = term.penalise(replace(batch, rewards_BT=scores_BT, rewards_B=scores_BT.sum(1)))
    metrics = term.follow(batch)
    for theirs in case["expected"].values():
        theirs_BT = tensor(theirs["token_level_rewards"])
        close(token_rewards(batch), theirs_BT * batch.acted_BT, case)
        if not math.isnan(float(theirs["mean_kl"])):
            close(metrics["policy/kl_ref"][0], theirs["mean_kl"], case)
            close(metrics["policy/kl_coef"][0], theirs["coef_used"], case)
            close(coefficient.value, theirs["coef_after"], case)
    if batch.acted_BT.any(1).all():
        close(row_rewards(batch), tensor(case["expected"]["verl"]["token_level_rewards"]).sum(1), case)


def correction_of(inputs):
    """The correction of a peer as one of ours."""
    if inputs["peer"] == "trl":
        kind = inputs["mode"].removesuffix("_truncate")
        return Correction(kind, inputs["clip_max"], inputs.get("clip_min", 0.0))
    bounds = inputs.get("threshold", inputs.get("rejection_threshold"))
    low, _, high = bounds.rpartition("_") if isinstance(bounds, str) else ("", "", bounds)
    if "rejection" in inputs:  # verl tests p_engine / p_learner there
        kind = "token_mask" if inputs["rejection"] == "token_k1" else "sequence_mask"
        return Correction(kind, 1 / float(low), 1 / float(high))
    return Correction(f"{inputs['level']}{'_mask' if low else ''}", float(high), float(low or 0))
