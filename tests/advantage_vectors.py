"""Adapters for the vector files about advantages, a function a topic (see tests/test_reference.py)."""

from dataclasses import replace

import torch
from vectors import close, rows_of, tensor

from forage.advantages.compare import centred
from forage.advantages.dr_grpo import DrGRPO
from forage.advantages.gae import GAE
from forage.advantages.gae_all_tokens import GAEAllTokens
from forage.advantages.grpo import GRPO
from forage.advantages.reinforce import Reinforce
from forage.advantages.reinforce_pp import ReinforcePP
from forage.advantages.reinforce_pp_baseline import ReinforcePPBaseline
from forage.advantages.remax import ReMax
from forage.advantages.rloo import RLOO
from forage.advantages.timesteps import whiten


def alone(total):
    """The sum over all processes, of one."""
    return total


def rewarded(case, **columns):
    """The batch of a case; a row's reward is the sum over all its tokens."""
    rewards_BT = tensor(case["inputs"]["token_level_rewards"])
    if names := list(dict.fromkeys(case["inputs"].get("group", []))):
        columns["group_B"] = torch.tensor([names.index(name) for name in case["inputs"]["group"]])
    batch = rows_of(tensor(case["inputs"]["mask"]).bool(), sampled_logprobs_BT=torch.zeros_like(rewards_BT))
    lengths_B = torch.full((len(rewards_BT),), rewards_BT.shape[1])
    return replace(batch, rewards_BT=rewards_BT, rewards_B=rewards_BT.sum(1), lengths_B=lengths_B, **columns)


def advantages(estimator, batch):
    return estimator(batch, alone).advantages_BT


def compare_acted(ours_BT, theirs, batch, case, tolerance=1e-7):
    """Where the mask is 1; elsewhere ours are 0."""
    assert (ours_BT[~batch.acted_BT] == 0).all()
    close(ours_BT[batch.acted_BT], tensor(theirs)[batch.acted_BT], case, tolerance)


def compare_groups(estimators, case):
    """Exactly 0 where all rewards of a group are equal or it has one member; there the peers leave a rounding error
    that they divided by epsilon, or keep a lone sample's reward."""
    batch = rewarded(case)
    tolerance = 1e-5 if case["inputs"].get("dtype") == "float32" else 1e-7
    rewards_G = [batch.rewards_B[batch.group_B == group] for group in batch.group_B]
    equal_B = torch.tensor([bool((rewards == rewards[0]).all()) for rewards in rewards_G])
    for name, estimator in estimators.items():
        if case["expected"].get(name) is None:
            continue
        ours_BT, theirs_BT = advantages(estimator, batch), tensor(case["expected"][name])
        if name.endswith("_B"):
            theirs_BT = theirs_BT[:, None] * batch.acted_BT
        assert (ours_BT[equal_B] == 0).all()
        close(ours_BT[~equal_B], theirs_BT[~equal_B], case, tolerance)


def grpo_advantage(case):
    """Groups of equal rewards and of one: see `compare_groups`."""
    theirs, trl = GRPO(epsilon=case["inputs"]["epsilon"]), GRPO(epsilon=1e-4)
    compare_groups({"std_normalised": theirs, "mean_only": DrGRPO(), "trl_group_B": trl, "trl_none_B": DrGRPO()}, case)


def rloo(case):
    """Groups of equal rewards and of one: see `compare_groups`."""
    compare_groups({"rloo": RLOO(), "rloo_vectorized": RLOO(), "trl_B": RLOO()}, case)


def reinforce_plus_plus(case):
    """verl as of the newer date; of the older one `returns_cut_at_observed` says what it did instead. Fewer than two
    acted tokens give 0, where verl raises. With a baseline a lone sample counts as 0, where verl keeps its reward."""
    expected, gamma, batch = case["expected"], case["inputs"]["gamma"], rewarded(case)
    whitened, plain = advantages(ReinforcePP(gamma=gamma), batch), advantages(Reinforce(gamma=gamma), batch)
    if expected["baseline_advantages"] == {"error": "ValueError"}:
        assert not whitened.any()
        assert not advantages(ReinforcePPBaseline(), batch).any()
        return
    newer, older = expected["reinforce_plus_plus"], expected["reinforce_plus_plus_verl_2026_01"]
    compare_acted(plain, newer["returns"], batch, case)
    compare_acted(whitened, newer["advantages"], batch, case, verl_tolerance(plain, batch.acted_BT))
    close(returns_cut_at_observed(batch, gamma)[batch.acted_BT], tensor(older["returns"])[batch.acted_BT], case)
    lone_B = torch.bincount(batch.group_B)[batch.group_B] == 1
    kept_B = centred(batch.rewards_B, batch.group_B) + batch.rewards_B * lone_B
    kept_BT = kept_B[:, None].expand(batch.acted_BT.shape)
    ours_BT, tolerance = whiten(kept_BT, batch.acted_BT, alone), verl_tolerance(kept_BT, batch.acted_BT)
    compare_acted(ours_BT, expected["baseline_advantages"], batch, case, tolerance)
    if not lone_B.any():
        torch.testing.assert_close(advantages(ReinforcePPBaseline(), batch), ours_BT)


def returns_cut_at_observed(batch, gamma):
    """A return begins anew behind each observed token, whose own reward counts; so only the last turn is credited."""
    returns_BT, later_B = torch.zeros_like(batch.rewards_BT), torch.zeros_like(batch.rewards_B)
    for t in reversed(range(returns_BT.shape[1])):
        later_B = batch.rewards_BT[:, t] + gamma * later_B
        returns_BT[:, t] = later_B
        later_B = later_B * batch.acted_BT[:, t]
    return returns_BT


def verl_tolerance(values_BT, counted_BT):
    """verl adds 1e-8 to counts; so its mean is off by 1e-8 / n of itself, which whitening divides by the spread."""
    values_N = values_BT[counted_BT]
    return 1e-7 + 2e-8 / len(values_N) * float(values_N.mean().abs() / (values_N.var() + 1e-8).sqrt())


def remax(case):
    batch = rewarded(case, baselines_B=tensor(case["inputs"]["reward_baselines"]))
    compare_acted(advantages(ReMax(), batch), case["expected"]["advantages"], batch, case)
    compare_acted(advantages(Reinforce(), batch), case["expected"]["returns"], batch, case)


def gae_masked(case):
    """Fewer than two acted tokens are whitened to 0, where verl raises."""
    inputs, expected = case["inputs"], case["expected"]
    batch = rewarded(case, values_BT=tensor(inputs["values"]))
    options = {"gamma": inputs["gamma"], "lam": inputs["lam"]}
    ours = GAE(**options)(batch, alone)
    if "error" in expected:
        assert not ours.advantages_BT.any()
        return
    raw_BT = advantages(GAE(whiten=False, **options), batch)
    compare_acted(raw_BT, expected["raw_advantages"], batch, case)
    compare_acted(ours.returns_BT, expected["returns"], batch, case)
    compare_acted(ours.advantages_BT, expected["advantages"], batch, case, verl_tolerance(raw_BT, batch.acted_BT))


def gae_unmasked(case):
    """Steps begin at the first acted token, and a reward stands on an acted one: where the peer has one elsewhere, all
    tokens are taken as acted. The peer whitens by a mask of its own; that is done by hand here."""
    inputs, expected = case["inputs"], case["expected"]
    batch = rewarded(case, values_BT=tensor(inputs["values"]))
    counted_BT = batch.acted_BT
    if batch.rewards_BT[~counted_BT].any():
        batch = replace(batch, acted_BT=torch.ones_like(counted_BT))
    ours = GAEAllTokens(gamma=inputs["gamma"], lam=inputs["lam"], whiten=False)(batch, alone)
    whitened_BT = whiten(ours.advantages_BT, counted_BT, alone)
    if "error" in expected:
        assert not whitened_BT.any()
        return
    steps_BT = batch.acted_BT.cumsum(1) > 0
    close(ours.returns_BT[steps_BT], tensor(expected["returns"])[steps_BT], case)
    compare_acted(ours.advantages_BT, expected["raw_advantages"], batch, case)
    close(whitened_BT[counted_BT], tensor(expected["advantages"])[counted_BT], case)


def whitening(case):
    """Equal numbers, or fewer than two, give 0, where verl leaves a little and the peers raise or give NaN."""
    values_BT, mask_BT = tensor(case["inputs"]["values"]), tensor(case["inputs"]["mask"]).bool()
    ours_BT = whiten(values_BT, mask_BT, alone)
    assert (ours_BT[~mask_BT] == 0).all()
    if mask_BT.sum() < 2:
        assert not ours_BT.any()
        return
    if not case["inputs"]["shift_mean"]:
        ours_BT = ours_BT + values_BT[mask_BT].mean()
    for peer, theirs in case["expected"].items():
        tolerance = verl_tolerance(values_BT, mask_BT) if peer == "verl" else 1e-7
        close(ours_BT[mask_BT], tensor(theirs)[mask_BT], case, tolerance)
