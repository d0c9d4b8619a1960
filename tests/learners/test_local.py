import asyncio
import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_policies import FAMILIES, VOCAB, groups_of, tiny_policy

from forage.advantages.grpo import GRPO
from forage.batch import collate, minibatches, select
from forage.errors import CheckpointError, TrainingError
from forage.kl import k3
from forage.learners.local import LocalLearner
from forage.losses.clip import ClipLoss
from forage.losses.nll import NegativeLogLikelihood
from forage.models.causal_lm import checkpoint_gradients


def scored(groups, drop_equal=False):
    """A batch with advantages."""
    return GRPO()(collate(groups, drop_equal=drop_equal), lambda total: total)


def learner_of(policy, loss=None, **options):
    options = {"lr": 0.0, "weight_decay": 0.0, "max_grad_norm": 1e9} | options
    return LocalLearner(policy, loss or ClipLoss(), **options)


def gradients(learner, batch):
    """What `update` accumulates before its (single) optimizer step."""
    seen = {}
    hooks = [
        weight.register_post_accumulate_grad_hook(lambda w, name=name: seen.update({name: w.grad.clone()}))
        for name, weight in learner.policy.model.named_parameters()
    ]
    asyncio.run(learner.update(batch))
    for hook in hooks:
        hook.remove()
    return seen


def plain_gradients(policy, batch, loss, kl_coef=0.0, ref_BT=None, entropy_coef=0.0):
    """The same from full logits of each row alone: no packing, no chunks, no shared prompts."""
    model, total = policy.model, 0.0
    for row in range(len(batch.lengths_B)):
        one = select(batch, torch.tensor([row]))
        log_softmax = model(input_ids=one.tokens_BT).logits.log_softmax(-1)[:, :-1]
        logprobs_BT = torch.nn.functional.pad(log_softmax.gather(-1, one.tokens_BT[:, 1:, None])[..., 0], (1, 0))
        entropy_BT = torch.nn.functional.pad(-(log_softmax.exp() * log_softmax).sum(-1), (1, 0))
        loss_BT, _ = loss(logprobs_BT, one)
        if kl_coef:
            loss_BT = loss_BT + kl_coef * k3(logprobs_BT, one.ref_logprobs_BT)
        loss_BT = loss_BT - entropy_coef * entropy_BT
        total = total + (loss_BT * one.acted_BT).sum() / batch.acted_tokens
    names, weights = zip(*model.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(total, weights), strict=True))


def assert_same(ours, theirs, tolerance=1e-6):
    """Equal up to the norms, which transformers computes in float32 whatever the weights are."""
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(
            ours[name], theirs[name], rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_packed_gradients_equal_those_of_full_logits(family, tied):
    policy = tiny_policy(family, torch.float64, tie_word_embeddings=tied)
    batch = scored(groups_of(seed=5))
    assert_same(gradients(learner_of(policy), batch), plain_gradients(policy, batch, ClipLoss()))


POLICY = tiny_policy(dtype=torch.float64)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), micro_tokens=st.integers(1, 90), share=st.booleans())
def test_neither_packing_nor_accumulation_changes_the_gradient(seed: int, micro_tokens: int, share: bool):
    batch = scored(groups_of(seed))
    whole = gradients(learner_of(POLICY), batch)
    parts = gradients(learner_of(POLICY, micro_tokens=micro_tokens, share_prompts=share), batch)
    assert_same(parts, whole)


def test_minibatches_gradients_add_up_in_proportion_to_their_tokens():
    batch = scored(groups_of(seed=2, groups=5))
    whole = gradients(learner_of(POLICY), batch)
    parts = [(gradients(learner_of(POLICY), part), part.acted_tokens) for part in minibatches(batch, 2)]
    added = {name: sum(part[name] * tokens for part, tokens in parts) / batch.acted_tokens for name in whole}
    assert_same(added, whole)


@pytest.mark.parametrize("aggregation", ["token_mean", "sequence_mean", "sequence_sum"])
@pytest.mark.parametrize("minibatch_questions", [0, 1, 2])
def test_groups_without_signal_left_out_change_nothing(aggregation, minibatch_questions):
    groups = groups_of(seed=4, groups=4, rewards=[[1, 0, 1], [1, 1, 1], [0, 0, 0], [0, 1, 0]])
    options = {"lr": 1e-2, "aggregation": aggregation, "minibatch_questions": minibatch_questions}
    after = []
    for drop in (False, True):
        policy = tiny_policy(dtype=torch.float64)
        learner = learner_of(policy, **options)
        for _ in range(2):
            asyncio.run(learner.update(scored(groups, drop)))
        after.append(dict(learner.weights()))
    assert_same(*after)


def test_an_observed_token_is_context_but_never_a_target():
    """Whatever logprobs, advantages or references stand on observed tokens, the gradient is the same; a row of which
    nothing was acted has none."""
    policy = tiny_policy(dtype=torch.float64)
    batch = scored(groups_of(seed=6))
    batch = replace(batch, ref_logprobs_BT=batch.sampled_logprobs_BT)
    observed_BT = ~batch.acted_BT
    noisy = replace(
        batch,
        sampled_logprobs_BT=batch.sampled_logprobs_BT.masked_fill(observed_BT, -50.0),
        advantages_BT=batch.advantages_BT.masked_fill(observed_BT, 1e6),
        ref_logprobs_BT=batch.ref_logprobs_BT.masked_fill(observed_BT, float("nan")),
    )
    options = {"kl_coef": 0.1, "entropy_coef": 0.1}
    assert_same(gradients(learner_of(policy, **options), noisy), gradients(learner_of(policy, **options), batch))
    nothing = replace(batch, acted_BT=torch.zeros_like(batch.acted_BT))
    assert gradients(learner_of(policy), nothing) == {}


def test_tokens_behind_the_last_acted_one_change_no_gradient():
    policy = tiny_policy(dtype=torch.float64)
    batch = scored(groups_of(seed=6))
    last_B = (batch.acted_BT * torch.arange(batch.acted_BT.shape[1])).argmax(1)
    behind_BT = torch.arange(batch.acted_BT.shape[1]) > last_B[:, None]
    other = replace(batch, tokens_BT=torch.where(behind_BT, (batch.tokens_BT + 1) % VOCAB, batch.tokens_BT))
    assert_same(gradients(learner_of(policy), other), gradients(learner_of(policy), batch))


def test_kl_and_entropy_are_added_as_stated():
    policy = tiny_policy(dtype=torch.float64)
    learner = learner_of(policy, kl_coef=0.3, entropy_coef=0.2, lr=1e-2)
    batch = scored(groups_of(seed=7))
    asyncio.run(learner.update(batch))  # away from the reference
    batch = asyncio.run(learner.score(batch))
    batch = replace(batch, old_logprobs_BT=asyncio.run(learner.logprobs(batch)))
    expected = plain_gradients(policy, batch, ClipLoss(), 0.3, batch.ref_logprobs_BT, 0.2)
    assert_same(gradients(learner, batch), expected)


def test_gradient_checkpointing_changes_nothing_but_memory():
    plain, frugal = tiny_policy(dtype=torch.float64), tiny_policy(dtype=torch.float64)
    checkpoint_gradients(frugal.model)
    batch = scored(groups_of(seed=8))
    assert_same(gradients(learner_of(frugal), batch), gradients(learner_of(plain), batch))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_learns_what_it_is_shown(family, optimizer, dtype):
    learner = LocalLearner(tiny_policy(family, dtype), NegativeLogLikelihood(), lr=1e-2, optimizer=optimizer)
    batch = collate(groups_of(seed=1))
    losses = []
    for _ in range(12):
        metrics = asyncio.run(learner.update(batch))
        losses.append(metrics["loss/policy"][0] / metrics["loss/policy"][1])
    assert losses[-1] < 0.7 * losses[0]


def test_an_update_of_a_millionth_is_not_lost_in_bfloat16():
    policy = tiny_policy(dtype=torch.bfloat16)
    before = {name: weight.clone() for name, weight in policy.model.named_parameters()}
    learner = LocalLearner(policy, NegativeLogLikelihood(), lr=1e-6, weight_decay=0.0)
    metrics = asyncio.run(learner.update(collate(groups_of())))
    assert metrics["policy/grad_norm"][0] > 0
    norm = before["model.norm.weight"]
    moved = (dict(learner.weights())["model.norm.weight"] - norm).abs()
    assert norm.dtype is torch.float32
    assert ((moved > 0.8e-6) & (moved < 1.2e-6)).all()  # Adam's first step is lr
    assert (norm.bfloat16() == (norm + moved).bfloat16()).all()  # bfloat16 alone would have lost it


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_saved_learner_goes_on_to_the_last_bit(tmp_path, optimizer, dtype):
    options = {"lr": 1e-2, "optimizer": optimizer, "schedule": "cosine", "warmup_steps": 1, "kl_coef": 0.01}
    batches = [scored(groups_of(seed)) for seed in range(4)]

    def fresh():
        policy = tiny_policy("Qwen3", dtype)
        policy.tokenizer = NoTokenizer()
        return LocalLearner(policy, ClipLoss(), 1.0, 4, **options)

    def run(learner, some):
        return [asyncio.run(learner.update(asyncio.run(learner.score(batch)))) for batch in some]

    through, stopped = fresh(), fresh()
    expected = run(through, batches)
    run(stopped, batches[:2])
    stopped.save(tmp_path)
    resumed = fresh()
    resumed.load(tmp_path)
    assert run(resumed, batches[2:]) == expected[2:]
    for (name, weight), (_, other) in zip(through.weights(), resumed.weights(), strict=True):
        assert torch.equal(weight, other), name


class NoTokenizer:
    def save_pretrained(self, folder):
        (folder / "tokenizer.json").write_text("{}")


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    policy = tiny_policy()
    policy.tokenizer = NoTokenizer()
    LocalLearner(policy, ClipLoss()).save(tmp_path)
    with pytest.raises(CheckpointError, match="another model"):
        LocalLearner(tiny_policy(intermediate_size=32), ClipLoss()).load(tmp_path)
    with pytest.raises(CheckpointError, match="optimizer"):
        LocalLearner(tiny_policy(), ClipLoss(), optimizer="muon").load(tmp_path)
    (tmp_path / "learner.json").write_text(json.dumps({}))
    with pytest.raises(CheckpointError, match="can't be used"):
        LocalLearner(tiny_policy(), ClipLoss()).load(tmp_path)


class Scaled:
    """The likelihood times something, on chosen tokens."""

    needs = frozenset()

    def __init__(self, factor, first_only=False):
        self.factor, self.first_only = factor, first_only

    def __call__(self, logprobs_BT, batch):
        factor_BT = torch.where(batch.acted_BT, self.factor, 0.0)
        if self.first_only:
            first_BT = batch.acted_BT & (batch.acted_BT.cumsum(1) == 1)
            factor_BT = torch.where(first_BT, self.factor, 1.0)
        return (-logprobs_BT * factor_BT).masked_fill(~batch.acted_BT, 0), {}


def test_a_gradient_that_is_not_finite_is_thrown_away_and_counted():
    learner = LocalLearner(tiny_policy(), Scaled(3e37), lr=1e-2)
    before = [weight.clone() for _, weight in learner.weights()]
    metrics = asyncio.run(learner.update(collate(groups_of())))
    assert metrics["policy/skipped_steps"] == (1.0, 1.0)
    assert all(torch.equal(old, new) for old, (_, new) in zip(before, learner.weights(), strict=True))


def test_a_loss_that_stays_broken_ends_the_training():
    learner = LocalLearner(tiny_policy(), Scaled(float("nan"), first_only=True))
    batch = collate(groups_of(rewards=[[0, 0, 0]] * 3))
    for _ in range(2):
        assert asyncio.run(learner.update(batch))["policy/skipped_steps"] == (1.0, 1.0)
    with pytest.raises(TrainingError, match="3 optimizer steps in a row"):
        asyncio.run(learner.update(batch))


def test_a_loss_that_is_broken_everywhere_ends_it_at_once():
    with pytest.raises(TrainingError, match="every token"):
        asyncio.run(LocalLearner(tiny_policy(), Scaled(float("nan"))).update(collate(groups_of())))


def test_gradients_are_clipped_to_the_norm():
    batch = collate(groups_of())
    policy = tiny_policy()
    clipped = LocalLearner(policy, NegativeLogLikelihood(), lr=0.0, max_grad_norm=1e-3)
    norm, _ = asyncio.run(clipped.update(batch))["policy/grad_norm"]
    assert norm > 1e-3  # what is reported is the norm before


class Denormal(NegativeLogLikelihood):
    """Looks at what is left of a number that float32 can only hold with fewer digits."""

    def __call__(self, logprobs_BT, batch):
        self.left = float(torch.tensor(1e-39) * 1)
        return super().__call__(logprobs_BT, batch)


def test_numbers_too_small_for_all_their_digits_are_0_while_the_learner_computes():
    """A CPU takes many times as long for them, and gradients are full of them where a critic has just begun."""
    if not torch.set_flush_denormal(True):
        pytest.skip("this CPU has no such switch")
    torch.set_flush_denormal(False)
    loss = Denormal()
    asyncio.run(LocalLearner(tiny_policy(), loss).update(collate(groups_of())))
    assert loss.left == 0.0
    assert float(torch.tensor(1e-39) * 1) > 0.0  # elsewhere nothing has changed


def test_a_cancelled_update_ends_whole():
    learner = LocalLearner(tiny_policy(), NegativeLogLikelihood(), lr=1e-2)
    before = [weight.clone() for _, weight in learner.weights()]

    async def cancel():
        task = asyncio.create_task(learner.update(collate(groups_of())))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())
    assert learner.step == 1
    assert not all(torch.equal(old, new) for old, (_, new) in zip(before, learner.weights(), strict=True))


def test_metrics_are_sums_over_tokens_with_their_counts():
    batch = scored(groups_of(seed=9, rewards=[[1, 0, 0]] * 3))
    learner = learner_of(tiny_policy(), lr=1e-3, micro_tokens=20)
    metrics = asyncio.run(learner.update(batch))
    for name in ("loss/policy", "policy/entropy", "policy/kl_old", "policy/clip_fraction", "policy/ratio"):
        assert metrics[name][1] == batch.acted_tokens
    assert metrics["policy/lr"] == (1e-3, 1.0)
    assert metrics["policy/ratio_max"][1] == 1
    assert metrics["policy/skipped_steps"] == (0.0, 1.0)
