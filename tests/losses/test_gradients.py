"""The gradient of every registered loss, against loops over tokens in float64 that were written apart from it."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from vectors import rows_of

from forage.registry import PARTS, find

NEAR, FAR = st.floats(-2, 2), st.sampled_from([-90.0, -25.0, 25.0, 90.0])
ADVANTAGES = st.one_of(st.floats(-3, 3), st.sampled_from([-1.0, 0.0, 1.0]))


@st.composite
def batches(draw, log_ratios=NEAR | FAR):
    """Logprobs [B,T] and a batch: a few rows of a few tokens, each observed or acted, of the turns 0, 1, ..."""
    rows, width = draw(st.integers(1, 3)), draw(st.integers(1, 7))

    def column(values):
        return torch.tensor([[draw(values) for _ in range(width)] for _ in range(rows)])

    acted_BT, turn_BT = column(st.booleans()), column(st.integers(0, 1)).cumsum(1)
    old_BT, log_ratio_BT = column(st.floats(-3, -0.01)).double(), column(log_ratios).double()
    advantages_BT = column(ADVANTAGES).double()
    batch = rows_of(acted_BT, sampled_logprobs_BT=old_BT, advantages_BT=advantages_BT)
    return old_BT + log_ratio_BT, replace(batch, turn_BT=turn_BT)


def exp(x):
    """A ratio that stays at e^20."""
    return x.exp() if x <= 20 else torch.tensor(math.exp(20), dtype=torch.float64)


def clipped(ratio, advantage, low, high):
    inside = 1 - low if ratio < 1 - low else 1 + high if ratio > 1 + high else ratio
    return -min(ratio * advantage, inside * advantage)


def clip(new, old, advantage, row):
    return clipped(exp(new - old), advantage, 0.2, 0.2)


def dual_clip(new, old, advantage, row):
    loss = clip(new, old, advantage, row)
    return min(loss, -3 * advantage) if advantage < 0 else loss


def gspo(new, old, advantage, row):
    mean = sum(other.detach() - its_old for other, its_old, _, _ in row) / len(row)
    own = new - new.detach()
    return clipped(exp(own + mean), advantage, 3e-4, 4e-4)


def cispo(new, old, advantage, row):
    return -min(exp(new.detach() - old), 5.0) * advantage * new


def pg(new, old, advantage, row):
    return -exp(new - old) * advantage


def nll(new, old, advantage, row):
    return -advantage * new


def llds(new, old, advantage, row, turn):
    loss = clip(new, old, advantage, row)
    drops = [its_old - other.detach() - 1e-4 for other, its_old, its, there in row if there == turn and its >= 0]
    acts = advantage >= 0 and sum(drops) > 0 and new < old
    return loss + 0.2 * (old - new) if acts else loss


NAIVE = {"cispo": cispo, "clip": clip, "dual_clip": dual_clip, "gspo": gspo, "llds": llds, "nll": nll, "pg": pg}


def naive_losses(name, logprobs_BT, batch):
    """The losses of all acted tokens, one after another."""
    losses = [logprobs_BT.sum() * 0]
    for b, acted_T in enumerate(batch.acted_BT.tolist()):
        at = [t for t, acted in enumerate(acted_T) if acted]
        columns = (batch.sampled_logprobs_BT, batch.advantages_BT, batch.turn_BT)
        row = [(logprobs_BT[b, t], *(float(column[b, t]) for column in columns)) for t in at]
        for new, old, advantage, turn in row:
            more = (turn,) if name == "llds" else ()
            losses.append(NAIVE[name](new, old, advantage, row, *more) + 0 * new)
    return torch.stack(losses)[1:]


def test_every_loss_is_checked():
    assert NAIVE.keys() == PARTS["algorithm.loss"].keys()


@pytest.mark.parametrize("name", NAIVE)
@given(given=batches())
def test_value_and_gradient_are_those_of_the_formula(name, given):
    logprobs_BT, batch = given
    ours_BT, theirs_BT = logprobs_BT.clone().requires_grad_(), logprobs_BT.clone().requires_grad_()
    loss_BT, _ = find("algorithm.loss", name)()(ours_BT, batch)
    loss_BT.sum().backward()
    expected_M = naive_losses(name, theirs_BT, batch)
    expected_M.sum().backward()
    torch.testing.assert_close(loss_BT[batch.acted_BT], expected_M, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(ours_BT.grad, theirs_BT.grad, rtol=1e-9, atol=1e-12)
    assert (loss_BT[~batch.acted_BT] == 0).all()


@pytest.mark.parametrize("name", NAIVE)
@given(given=batches(log_ratios=FAR))
def test_nothing_overflows_in_float32(name, given):
    logprobs_BT, batch = given[0].float().requires_grad_(), given[1]
    batch = replace(
        batch, sampled_logprobs_BT=batch.sampled_logprobs_BT.float(), advantages_BT=batch.advantages_BT.float()
    )
    loss_BT, metrics = find("algorithm.loss", name)()(logprobs_BT, batch)
    loss_BT.sum().backward()
    assert loss_BT.isfinite().all()
    assert logprobs_BT.grad.isfinite().all()
    assert all(math.isfinite(value) for pair in metrics.values() for value in pair)
