"""The ratio's denominator, the correction for how tokens were sampled, and the KL, as a learner uses them."""

import asyncio
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_policies import groups_of, tiny_policy

from forage import algorithm, build
from forage.advantages.grpo import GRPO
from forage.batch import collate, row_rewards
from forage.configure import load
from forage.correction import Correction
from forage.errors import ConfigError
from forage.kl import k1, k3
from forage.learners.local import LocalLearner
from forage.losses.clip import ClipLoss
from forage.losses.nll import NegativeLogLikelihood


def learner_of(loss=None, policy=None, **options):
    options = {"lr": 0.0, "weight_decay": 0.0, "max_grad_norm": 1e9} | options
    return LocalLearner(policy or tiny_policy(dtype=torch.float64), loss or ClipLoss(), **options)


def scored(learner, groups, **collated):
    batch = asyncio.run(learner.score(collate(groups, **collated)))
    return GRPO()(batch, lambda total: total)


def gradients(learner, batch):
    seen = {}
    hooks = [
        weight.register_post_accumulate_grad_hook(lambda w, name=name: seen.update({name: w.grad.clone()}))
        for name, weight in learner.policy.model.named_parameters()
    ]
    metrics = asyncio.run(learner.update(batch))
    for hook in hooks:
        hook.remove()
    return seen, metrics


def assert_same(ours, theirs, tolerance=1e-6):
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(
            ours[name], theirs[name], rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )


def nearly_sampled(learner, groups, spread=0.3):
    """Logprobs near the learner's own, as another kernel would have given them."""
    batch = scored(learner, groups)
    own_BT = asyncio.run(learner.logprobs(batch))
    noise_BT = spread * torch.randn(own_BT.shape, generator=torch.Generator().manual_seed(1), dtype=own_BT.dtype)
    return replace(batch, sampled_logprobs_BT=(own_BT + noise_BT) * batch.acted_BT)


@pytest.mark.parametrize("options", [{"old_logprobs": "recomputed"}, {"correction": "token"}])
def test_with_one_optimizer_step_the_denominator_costs_nothing_and_is_the_same(options):
    learner = learner_of(**options)
    batch = nearly_sampled(learner, groups_of(seed=1))
    assert asyncio.run(learner.score(batch)).old_logprobs_BT is None
    explicit = replace(batch, old_logprobs_BT=asyncio.run(learner.logprobs(batch)))
    ours, metrics = gradients(learner, batch)
    theirs, _ = gradients(learner, explicit)
    assert_same(ours, theirs)
    assert metrics["policy/ratio"] == pytest.approx((batch.acted_tokens, batch.acted_tokens))


@settings(max_examples=15)
@given(
    seed=st.integers(0, 10**6),
    kind=st.sampled_from(["token", "sequence", "token_mask", "sequence_mask"]),
    micro_tokens=st.integers(1, 90),
    minibatch_questions=st.integers(0, 2),
)
def test_a_correction_weighs_each_token_s_loss(seed: int, kind: str, micro_tokens: int, minibatch_questions: int):
    options = {"minibatch_questions": minibatch_questions, "entropy_coef": 0.1}
    plain = learner_of(NegativeLogLikelihood(), **options, old_logprobs="recomputed")
    corrected = learner_of(
        NegativeLogLikelihood(), **options, correction=kind, correction_cap=1.2, micro_tokens=micro_tokens
    )
    batch = nearly_sampled(plain, groups_of(seed))
    own_BT = asyncio.run(plain.logprobs(batch))
    weights_BT, cut_BT = Correction(kind, 1.2)(own_BT, batch.sampled_logprobs_BT, batch.acted_BT)
    by_hand = replace(batch, advantages_BT=batch.advantages_BT * weights_BT)  # the loss is linear in them
    ours, metrics = gradients(corrected, asyncio.run(corrected.score(replace(batch, old_logprobs_BT=None))))
    theirs, _ = gradients(plain, by_hand)
    assert_same(ours, theirs)
    assert metrics["correction/weight"] == pytest.approx((float(weights_BT.sum()), batch.acted_tokens))
    assert metrics["correction/capped"] == pytest.approx((float(cut_BT.sum()), batch.acted_tokens))


def test_a_mask_leaves_out_what_is_outside_and_a_cap_cuts_it():
    old_BT = torch.tensor([[0.0, 1.0, -1.0, 0.1]])
    acted_BT = torch.tensor([[True, True, True, False]])
    nothing_BT = torch.zeros(1, 4)
    cut, outside = Correction("token", 2.0)(old_BT, nothing_BT, acted_BT)
    torch.testing.assert_close(cut, torch.tensor([[1.0, 2.0, 0.3678794, 0.0]]))
    assert outside.tolist() == [[False, True, False, False]]
    masked, outside = Correction("token_mask", 2.0, 0.5)(old_BT, nothing_BT, acted_BT)
    assert masked.tolist() == [[1.0, 0.0, 0.0, 0.0]]
    assert outside.tolist() == [[False, True, True, False]]
    row, _ = Correction("sequence", 2.0)(old_BT, nothing_BT, acted_BT)
    assert row.tolist() == [[1.0, 1.0, 1.0, 0.0]]


def test_the_mismatch_is_measured_whatever_is_done_about_it():
    learner = learner_of(old_logprobs="sampled", micro_tokens=30)
    batch = nearly_sampled(learner, groups_of(seed=3))
    gap_M = (asyncio.run(learner.logprobs(batch)) - batch.sampled_logprobs_BT)[batch.acted_BT]
    learner.step = 3
    metrics = asyncio.run(learner.update(batch))
    assert metrics["policy/mismatch"] == pytest.approx((float(gap_M.abs().sum()), batch.acted_tokens))
    assert metrics["policy/mismatch_kl"] == pytest.approx((float((gap_M.exp() - gap_M - 1).sum()), batch.acted_tokens))
    assert metrics["policy/staleness"] == (3.0 * batch.acted_tokens, batch.acted_tokens)
    supervised = asyncio.run(learner.update(replace(batch, advantages_BT=torch.ones_like(batch.advantages_BT))))
    assert "policy/mismatch" in supervised
    assert "policy/mismatch" not in asyncio.run(
        learner_of(NegativeLogLikelihood()).update(replace(batch, advantages_BT=None))
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"correction": "token", "old_logprobs": "sampled"}, "take 'recomputed' or 'auto'"),
        ({"correction": "token", "correction_cap": 0.0}, "above 0"),
        ({"correction": "token", "correction_floor": 0.5}, "only token_mask"),
        ({"correction": "token_mask", "correction_floor": 3.0}, "above correction_floor"),
        ({"kl_in": "reward"}, r"set learner\.kl_coef above 0"),
        ({"kl_target": 0.1}, r"set learner\.kl_coef above 0"),
        ({"aggregation": "constant"}, "constant"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        learner_of(**options)


def away_from_the_reference(**options):
    """A learner that has moved, and then stands still."""
    learner = learner_of(kl_coef=0.3, lr=1e-2, **options)
    asyncio.run(learner.update(scored(learner, groups_of(seed=7))))
    learner._optimizers.rates = [0.0]
    return learner


@settings(max_examples=10)
@given(seed=st.integers(0, 10**6), micro_tokens=st.integers(1, 90), share=st.booleans())
def test_packing_changes_neither_a_kl_nor_an_entropy(seed: int, micro_tokens: int, share: bool):
    options = {"kl_coef": 0.2, "entropy_coef": 0.3, "old_logprobs": "sampled"}
    whole = learner_of(**options)
    parts = learner_of(**options, micro_tokens=micro_tokens, share_prompts=share)
    batch = scored(whole, groups_of(seed))
    batch = replace(batch, ref_logprobs_BT=batch.ref_logprobs_BT * 1.1)
    assert_same(gradients(parts, batch)[0], gradients(whole, batch)[0])


@pytest.mark.parametrize("old_logprobs", ["sampled", "recomputed"])
def test_a_kl_in_the_reward_lowers_what_tokens_earn_and_adds_nothing_to_the_loss(old_logprobs):
    learner = away_from_the_reference(kl_in="reward", kl_estimator="k1", old_logprobs=old_logprobs)
    batch = scored(learner, groups_of(seed=7))
    own_BT = asyncio.run(learner.logprobs(batch))
    judged_BT = own_BT if old_logprobs == "recomputed" else batch.sampled_logprobs_BT
    expected_BT = 0.3 * k1(judged_BT, batch.ref_logprobs_BT) * batch.acted_BT
    torch.testing.assert_close(batch.penalty_BT, expected_BT)
    torch.testing.assert_close(row_rewards(batch).double(), batch.rewards_B.double() - expected_BT.sum(1))
    without = replace(batch, ref_logprobs_BT=None, penalty_BT=None)
    ours, metrics = gradients(learner, batch)
    theirs, _ = gradients(learner, without)
    assert_same(ours, theirs)
    assert "loss/kl" not in metrics


def test_the_coefficient_follows_its_target_and_is_saved(tmp_path):
    class NoTokenizer:
        def save_pretrained(self, folder):
            (folder / "tokenizer.json").write_text("{}")

    def fresh():
        policy = tiny_policy(dtype=torch.float64)
        policy.tokenizer = NoTokenizer()
        return learner_of(policy=policy, kl_coef=0.3, kl_target=1e-9, kl_horizon=90, old_logprobs="sampled", lr=1e-2)

    learner = fresh()
    batch = scored(learner, groups_of(seed=7))
    expected = float(
        (k3(batch.sampled_logprobs_BT, batch.ref_logprobs_BT) * batch.acted_BT).sum(1).div(batch.acted_BT.sum(1)).mean()
    )
    metrics = asyncio.run(learner.update(batch))
    assert metrics["policy/kl_ref"] == pytest.approx((expected, 1))
    assert metrics["policy/kl_coef"] == (0.3, 1.0)
    learner.save(tmp_path)
    resumed = fresh()
    resumed.load(tmp_path)
    metrics = asyncio.run(resumed.update(scored(resumed, groups_of(seed=7))))
    assert metrics["policy/kl_coef"][0] == pytest.approx(0.3 * (1 + 0.2 * 9 / 90))


@pytest.mark.parametrize(
    ("drops", "words"),
    [
        (True, []),
        (False, ["algorithm.equal_groups=keep"]),
        (False, ["learner.kl_coef=0.1"]),
        (False, ["learner.kl_coef=0.1", "learner.kl_in=reward"]),
        (False, ["learner.entropy_coef=0.01"]),
        (False, ["algorithm.loss=llds"]),
        (False, ["algorithm.advantage=reinforce"]),
    ],
)
def test_groups_of_equal_rewards_are_left_out_where_they_teach_nothing(drops, words):
    config = load("smoke", words)
    assert algorithm.drops_equal(config, algorithm.advantage(config)) is drops


def test_the_kl_of_shown_tokens_is_that_of_the_policy_too():
    """They were never sampled: what stands in the sampled logprobs for them is no probability."""
    learner = learner_of(kl_coef=0.3, kl_estimator="abs", old_logprobs="recomputed")
    metrics = asyncio.run(learner.update(scored(learner, groups_of(seed=7), everything=True)))
    assert metrics["policy/kl_ref"] == pytest.approx((0.0, 1.0), abs=1e-12)


def test_episodes_are_not_chosen_by_rewards_that_a_kl_has_changed():
    config = load("smoke", ["algorithm.advantage=rejection", "learner.kl_coef=0.1", "learner.kl_in=reward"])
    with pytest.raises(ConfigError, match=r"learner\.kl_in=loss"):
        algorithm.advantage(config)


def test_supervised_learning_has_nothing_to_correct():
    config = load("smoke", ["learner.correction=token"])
    with pytest.raises(ConfigError, match="leave it out"):
        build.learner(config, build.policy(config), loss=NegativeLogLikelihood(), updates=1)


class Listening(ClipLoss):
    """Keeps the gradient that each token's logprob gets."""

    def __call__(self, logprobs_BT, batch):
        self.grads = []
        logprobs_BT.register_hook(self.grads.append)
        self.batch = batch
        return super().__call__(logprobs_BT, batch)


@pytest.mark.parametrize(
    "options", [{"old_logprobs": "sampled"}, {"old_logprobs": "recomputed"}, {"correction": "token"}]
)
def test_observed_tokens_are_learned_only_without_the_mask(options):
    groups = groups_of(seed=2, rewards=[[1, 0, 0]] * 3)
    masked, open_ = learner_of(Listening(), **options), learner_of(Listening(), **options)
    asyncio.run(masked.update(scored(masked, groups)))
    observed_BT = ~masked.loss.batch.acted_BT
    assert not masked.loss.grads[0][observed_BT].any()
    batch = scored(open_, groups, everything=True)
    asyncio.run(open_.update(batch))
    shown_BT = batch.acted_BT & ~batch.sampled_BT
    assert shown_BT.any()
    assert open_.loss.grads[0][shown_BT].all()
    prompt_BT = batch.acted_BT.cumsum(1) == 0
    assert not open_.loss.grads[0][prompt_BT].any()


@pytest.mark.parametrize("minibatch_questions", [0, 1])
def test_what_was_never_sampled_has_the_learner_s_own_logprobs(minibatch_questions):
    learner = learner_of(Listening(), correction="token", minibatch_questions=minibatch_questions)
    groups = groups_of(seed=2)
    batch = scored(learner, groups, everything=True)
    sampled = scored(learner_of(old_logprobs="sampled"), groups)
    metrics = asyncio.run(learner.update(batch))
    seen = learner.loss.batch  # of the last optimizer step
    shown_BT = seen.acted_BT & ~seen.sampled_BT
    assert torch.equal(seen.sampled_logprobs_BT[shown_BT], seen.old_logprobs_BT[shown_BT])
    first = groups if minibatch_questions == 0 else groups[:1]
    assert metrics["policy/mismatch"][1] == sum(sum(t.acted) for group in first for t in group.trajectories)
    assert metrics["correction/weight"][1] == batch.acted_tokens > sampled.acted_tokens
