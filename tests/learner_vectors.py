"""Adapters of tests/test_reference.py: what a critic learns, and the correction for how tokens were sampled.

Where Forage differs from the peers on purpose, the adapter's docstring says the rule.
"""

import pytest
import torch
from vectors import close, rows_of, tensor

from forage.aggregation import AGGREGATIONS
from forage.correction import Correction
from forage.errors import ConfigError
from forage.learners.measures import mismatch
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
