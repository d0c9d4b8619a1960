import asyncio
import logging
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_policies import groups_of, tiny_policy

from forage import algorithm, build
from forage.advantages.gae_all_tokens import GAEAllTokens
from forage.batch import collate, minibatches, select
from forage.configure import load
from forage.errors import CheckpointError, ConfigError
from forage.learners.critic import NoCritic, OwnCritic, SharedCritic
from forage.learners.local import LocalLearner
from forage.learners.values import explained_variance, value_loss
from forage.losses.clip import ClipLoss
from forage.models.causal_lm import checkpoint_gradients

KINDS = {"own": OwnCritic, "shared": SharedCritic}


class NoTokenizer:
    def save_pretrained(self, folder):
        (folder / "tokenizer.json").write_text("{}")


def with_critic(kind, dtype=torch.float64, learner=None, policy=None, **critic):
    """A learner that stays where it is, whose critic has a random head (a zero one gives the trunk no gradient)."""
    policy = policy or tiny_policy(dtype=dtype)
    policy.tokenizer = NoTokenizer()
    options = {"lr": 0.0, "warmup_steps": 0, "value_clip": 0.5, "max_grad_norm": 1e9} | critic
    judge = KINDS[kind](policy, **options)
    generator = torch.Generator().manual_seed(3)
    for weight in judge.module["head"].parameters():
        weight.data.copy_(torch.randn(weight.shape, generator=generator))
    settings = {"lr": 0.0, "weight_decay": 0.0, "max_grad_norm": 1e9, "old_logprobs": "sampled"} | (learner or {})
    return LocalLearner(policy, ClipLoss(), critic=judge, **settings)


def taught(learner, groups):
    """The batch as an estimator leaves it: advantages and returns that depend on values and rewards."""
    batch = asyncio.run(learner.score(collate(groups)))
    returns_BT = (batch.rewards_B[:, None] + 0.1 * batch.tokens_BT).to(batch.values_BT.dtype) * batch.acted_BT
    return replace(batch, returns_BT=returns_BT, advantages_BT=(returns_BT - batch.values_BT) * batch.acted_BT)


def gradients(learner, batch):
    """What `update` accumulates, of the policy and of the critic."""
    seen = {}
    named = [*learner.policy.model.named_parameters(), *learner.critic.module.named_parameters(prefix="critic")]
    hooks = [
        weight.register_post_accumulate_grad_hook(lambda w, name=name: seen.update({name: w.grad.clone()}))
        for name, weight in named
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


def assert_same_metrics(ours, theirs):
    for name in ("value/loss", "value/clip_fraction", "value/mean", "value/explained_variance"):
        assert ours[name] == pytest.approx(theirs[name], rel=1e-6, abs=1e-9), name


def plain_values(model, head, batch):
    """From each row alone, [B,T]: the state before a token is that of the position before."""
    values_BT = torch.zeros(batch.acted_BT.shape, dtype=torch.float64)
    for row, tokens_T in enumerate(batch.tokens_BT):
        hidden_TD = model(input_ids=tokens_T[None]).last_hidden_state[0]
        values_BT[row, 1:] = head(hidden_TD)[:-1, 0]
    return values_BT * batch.acted_BT


@pytest.mark.parametrize("kind", KINDS)
def test_a_value_is_read_before_the_token_that_it_judges(kind):
    learner = with_critic(kind)
    batch = asyncio.run(learner.score(collate(groups_of(seed=3))))
    trunk = learner.critic.module["trunk"] if kind == "own" else learner.policy.model.base_model
    with torch.no_grad():
        expected_BT = plain_values(trunk, learner.critic.module["head"], batch)
    torch.testing.assert_close(batch.values_BT, expected_BT, rtol=1e-6, atol=1e-6)
    other = replace(batch, tokens_BT=batch.tokens_BT.clone())
    other.tokens_BT[0, batch.lengths_B[0] - 1] += 1  # the last token is judged, but seen by no value
    torch.testing.assert_close(asyncio.run(learner.score(other)).values_BT, batch.values_BT)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_values_begin_at_zero_and_are_float32(kind, dtype):
    policy = tiny_policy(dtype=dtype)
    learner = LocalLearner(policy, ClipLoss(), critic=KINDS[kind](policy))
    values_BT = asyncio.run(learner.score(collate(groups_of()))).values_BT
    assert values_BT.dtype is torch.float32
    assert not values_BT.any()
    assert not values_BT.requires_grad


def test_without_a_critic_nothing_is_judged():
    learner = LocalLearner(tiny_policy(), ClipLoss())
    assert isinstance(learner.critic, NoCritic)
    assert asyncio.run(learner.score(collate(groups_of()))).values_BT is None


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=10)
@given(seed=st.integers(0, 10**6), micro_tokens=st.integers(1, 90), share=st.booleans())
def test_neither_packing_nor_accumulation_changes_a_gradient(kind, seed: int, micro_tokens: int, share: bool):
    plain = with_critic(kind)
    parts = with_critic(kind, learner={"micro_tokens": micro_tokens, "share_prompts": share})
    batch = taught(plain, groups_of(seed))
    torch.testing.assert_close(taught(parts, groups_of(seed)).values_BT, batch.values_BT, rtol=1e-6, atol=1e-6)
    ours, metrics = gradients(parts, batch)
    theirs, expected = gradients(plain, batch)
    assert_same(ours, theirs)
    assert_same_metrics(metrics, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_equal_those_of_plain_rows(kind):
    learner = with_critic(kind, coef=0.3) if kind == "shared" else with_critic(kind)
    batch = taught(learner, groups_of(seed=5))
    batch = replace(batch, values_BT=batch.values_BT - 0.3 * batch.acted_BT)  # so that the clip matters
    seen, metrics = gradients(learner, batch)
    module = learner.critic.module
    trunk = module["trunk"] if kind == "own" else learner.policy.model.base_model
    values_BT = plain_values(trunk, module["head"], batch)
    loss_BT, clipped_BT = value_loss(values_BT, batch.values_BT, batch.returns_BT, 0.5)
    scale = 0.3 if kind == "shared" else 1.0
    loss = scale * (loss_BT * batch.acted_BT).sum() / batch.acted_tokens
    names, weights = zip(*module.named_parameters(prefix="critic"), strict=True)
    expected = dict(zip(names, torch.autograd.grad(loss, weights), strict=True))
    assert_same({name: seen[name] for name in names}, expected)
    assert metrics["value/loss"][0] == pytest.approx(float((loss_BT * batch.acted_BT).sum().detach()), rel=1e-6)
    assert metrics["value/clip_fraction"] == (float((clipped_BT & batch.acted_BT).sum()), batch.acted_tokens)


def test_an_own_critic_leaves_the_policy_s_gradient_alone_and_a_shared_one_does_not():
    alone = LocalLearner(tiny_policy(dtype=torch.float64), ClipLoss(), lr=0.0, weight_decay=0.0, max_grad_norm=1e9)
    alone.critic.module = torch.nn.Module()  # for `gradients`
    own, shared = with_critic("own"), with_critic("shared")
    batch = taught(own, groups_of(seed=5))
    expected, _ = gradients(alone, batch)
    ours, _ = gradients(own, batch)
    theirs, _ = gradients(shared, batch)
    assert_same({name: ours[name] for name in expected}, expected)
    assert not torch.allclose(theirs["model.norm.weight"], expected["model.norm.weight"])


@pytest.mark.parametrize("kind", KINDS)
def test_minibatches_add_up_in_proportion_to_their_tokens(kind):
    learner = with_critic(kind)
    batch = taught(learner, groups_of(seed=2, groups=5))
    whole, _ = gradients(learner, batch)
    parts = [(gradients(with_critic(kind), part)[0], part.acted_tokens) for part in minibatches(batch, 2)]
    assert_same({name: sum(p[name] * n for p, n in parts) / batch.acted_tokens for name in whole}, whole)


@pytest.mark.parametrize("kind", KINDS)
def test_observed_tokens_have_no_value_and_teach_nothing(kind):
    learner = with_critic(kind)
    batch = taught(learner, groups_of(seed=6))
    assert not batch.values_BT[~batch.acted_BT].any()
    noisy = replace(
        batch,
        values_BT=batch.values_BT.masked_fill(~batch.acted_BT, 1e6),
        returns_BT=batch.returns_BT.masked_fill(~batch.acted_BT, float("nan")),
    )
    ours, metrics = gradients(learner, noisy)
    theirs, expected = gradients(learner, batch)
    assert_same(ours, theirs)
    assert_same_metrics(metrics, expected)


def test_what_was_shown_is_judged_and_learned_where_an_estimator_asks_for_it():
    """As in the reference: only the policy's own loss is masked."""
    learner, masked = with_critic("own"), with_critic("own")
    groups = groups_of(seed=6)
    scored = asyncio.run(learner.score(collate(groups, judge_shown=True)))
    batch = GAEAllTokens(lam=0.9)(scored, lambda total: total)
    every_BT = batch.acted_BT.cumsum(1).bool() & (torch.arange(batch.acted_BT.shape[1]) < batch.lengths_B[:, None])
    trunk, head = learner.critic.module["trunk"], learner.critic.module["head"]
    values_BT = plain_values(trunk, head, replace(batch, acted_BT=every_BT))
    torch.testing.assert_close(batch.values_BT, values_BT.detach(), rtol=1e-6, atol=1e-6)
    assert batch.values_BT[every_BT & ~batch.acted_BT].all()
    seen, metrics = gradients(learner, batch)
    loss_BT, _ = value_loss(values_BT, batch.values_BT, batch.returns_BT, 0.5)
    (expected,) = torch.autograd.grad((loss_BT * every_BT).sum() / every_BT.sum(), [head.weight])
    torch.testing.assert_close(seen["critic.head.weight"], expected)
    assert metrics["value/loss"][1] == every_BT.sum() > metrics["loss/policy"][1] == batch.acted_BT.sum()
    theirs, _ = gradients(masked, replace(batch, judged_BT=None))
    policy = [name for name in seen if not name.startswith("critic")]
    assert_same({name: seen[name] for name in policy}, {name: theirs[name] for name in policy})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_while_it_warms_up_the_critic_learns_and_the_policy_stays(kind, dtype):
    learner = with_critic(kind, dtype, learner={"lr": 1e-2}, lr=1e-2, warmup_steps=2)
    before = {name: weight.clone() for name, weight in learner.weights()}
    losses = []
    for step in range(3):
        metrics = asyncio.run(learner.update(taught(learner, groups_of(seed=1))))
        losses.append(metrics["value/loss"][0])
        stayed = all(torch.equal(weight, before[name]) for name, weight in learner.weights())
        assert stayed is (step < 2)
        assert ("loss/policy" in metrics) is (step == 2)
    assert losses[0] > losses[1] > losses[2]


def test_the_policy_s_schedule_begins_when_it_learns():
    """Else the warm-up of its learning rate would be over before its first step."""
    settings = {"lr": 1e-2, "schedule": "linear", "warmup_steps": 2, "total_steps": 6}
    learner = with_critic("own", learner=settings, warmup_steps=2)
    rates = [asyncio.run(learner.update(taught(learner, groups_of(seed=1))))["policy/lr"][0] for _ in range(6)]
    assert rates == pytest.approx([0.5e-2, 0.5e-2, 0.5e-2, 1e-2, 1e-2, 0.5e-2])


def test_a_critic_that_nobody_reads_holds_nothing_up():
    learner = with_critic("own", learner={"lr": 1e-2}, warmup_steps=5)
    before = {name: weight.clone() for name, weight in learner.critic.module.named_parameters()}
    batch = replace(taught(learner, groups_of()), returns_BT=None)
    metrics = asyncio.run(learner.update(batch))
    assert "loss/policy" in metrics
    assert not any(name.startswith("value/") for name in metrics)
    assert all(torch.equal(weight, before[name]) for name, weight in learner.critic.module.named_parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_clipped_and_what_is_not_finite_is_thrown_away(kind):
    learner = with_critic(kind, lr=1e-2, max_grad_norm=1e-3)
    batch = taught(learner, groups_of())
    assert asyncio.run(learner.update(batch))["value/grad_norm"][0] > 1e-3  # what is reported is the norm before
    before = {name: weight.clone() for name, weight in learner.critic.module.named_parameters()}
    metrics = asyncio.run(learner.update(replace(batch, returns_BT=batch.returns_BT * float("inf"))))
    assert metrics["value/skipped_steps"] == (1.0, 1.0)
    assert "value/grad_norm" not in metrics
    assert all(torch.equal(weight, before[name]) for name, weight in learner.critic.module.named_parameters())


@pytest.mark.parametrize(("minibatch_questions", "again"), [(0, 0), (1, 2), (2, 1)])
def test_what_the_first_optimizer_step_learns_from_is_computed_once(minibatch_questions, again):
    """Between judging and learning nothing has moved; in later minibatches the critic is another one."""
    learner = with_critic("own", learner={"minibatch_questions": minibatch_questions})
    groups = groups_of(seed=1)
    learner.critic.module["trunk"].register_forward_pre_hook(
        lambda module, given, options: groups_seen.append(options["input_ids"].numel()), with_kwargs=True
    )
    groups_seen = []
    batch = taught(learner, groups)
    judged = len(groups_seen)
    seen, _ = gradients(learner, batch)
    assert len(groups_seen) - judged == again
    if not again:
        expected, _ = gradients(with_critic("own"), batch)
        assert_same(seen, expected)


def test_gradient_checkpointing_changes_nothing_but_memory():
    frugal = tiny_policy(dtype=torch.float64)
    checkpoint_gradients(frugal.model)
    one, other = with_critic("own", policy=frugal), with_critic("own")
    batch = taught(other, groups_of(seed=8))
    assert_same(gradients(one, batch)[0], gradients(other, batch)[0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_saved_critic_goes_on_to_the_last_bit(tmp_path, kind, dtype):
    def fresh():
        return with_critic(kind, dtype, learner={"lr": 1e-2}, lr=1e-2, warmup_steps=1)

    def run(learner, seeds):
        return [asyncio.run(learner.update(taught(learner, groups_of(seed)))) for seed in seeds]

    through, stopped, resumed = fresh(), fresh(), fresh()
    expected = run(through, range(4))
    run(stopped, range(2))
    stopped.save(tmp_path)
    resumed.load(tmp_path)
    assert run(resumed, range(2, 4)) == expected[2:]
    for weight, other in zip(through.critic.module.parameters(), resumed.critic.module.parameters(), strict=True):
        assert torch.equal(weight, other)


def test_a_checkpoint_without_a_critic_is_refused_with_what_to_do(tmp_path):
    policy = tiny_policy()
    policy.tokenizer = NoTokenizer()
    LocalLearner(policy, ClipLoss()).save(tmp_path)
    with pytest.raises(CheckpointError, match=r"holds no critic.*model\.init_from="):
        with_critic("own", torch.float32).load(tmp_path)
    (tmp_path / "model").rename(tmp_path / "elsewhere")
    other = tmp_path / "other"
    other.mkdir()
    with_critic("own", torch.float32).save(other)
    with pytest.raises(CheckpointError, match="another model"):
        with_critic("own", policy=tiny_policy(intermediate_size=32)).critic.load(other / "critic")
    (other / "critic" / "optimizer.pt").unlink()
    with pytest.raises(CheckpointError, match="optimizer"):
        with_critic("own", torch.float32).critic.load(other / "critic")


def test_another_run_s_critic_is_taken_over_where_it_is_of_the_same_kind(tmp_path, caplog):
    first = with_critic("own", torch.float32)
    with torch.no_grad():
        first.critic.module["trunk"].embed_tokens.weight += 1
    first.save(tmp_path)
    own, shared = OwnCritic(tiny_policy()), SharedCritic(tiny_policy())
    own.adopt(tmp_path / "critic")
    for weight, other in zip(own.module.parameters(), first.critic.module.parameters(), strict=True):
        assert torch.equal(weight, other)
    with caplog.at_level(logging.WARNING):
        shared.adopt(tmp_path / "critic")
    assert "begins anew" in caplog.text
    assert not shared.module["head"].weight.any()
    own.adopt(tmp_path / "nowhere")  # a run without a critic: nothing to take


def test_its_trunk_may_come_from_another_model():
    policy = build.policy(load("smoke", ["run.device=cpu"]))
    with pytest.raises(CheckpointError, match="another vocabulary"):
        OwnCritic(tiny_policy(), path="forage:tiny")
    trunk = OwnCritic(policy, path="forage:tiny").module["trunk"]
    assert torch.equal(trunk.embed_tokens.weight, policy.model.get_input_embeddings().weight)


def test_its_trunk_may_have_fewer_layers_than_the_policy():
    policy = tiny_policy(dtype=torch.float64)
    whole = len(policy.model.base_model.layers)
    short = with_critic("own", policy=policy, layers=1)
    trunk, head = short.critic.module["trunk"], short.critic.module["head"]
    assert (len(trunk.layers), len(policy.model.base_model.layers)) == (1, whole)
    batch = asyncio.run(short.score(collate(groups_of())))
    expected_BT = plain_values(trunk, head.double(), batch)
    torch.testing.assert_close(batch.values_BT.double(), expected_BT, rtol=1e-5, atol=1e-5)
    with pytest.raises(ConfigError, match=f"critic.layers = {whole + 1}, but its trunk has {whole}"):
        OwnCritic(policy, layers=whole + 1)


@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5)), min_size=2, max_size=20))
def test_explained_variance(pairs):
    values, returns = torch.tensor(pairs, dtype=torch.float64).unbind(1)
    explained = explained_variance(values, returns)
    assert explained <= 1
    if returns.var() > 1e-6:
        expected = 1 - float((returns - values).var() / returns.var())
        assert explained == pytest.approx(expected, rel=1e-6, abs=1e-9)
        assert explained_variance(returns, returns) == 1
        assert explained_variance(torch.zeros_like(returns), returns) == pytest.approx(0, abs=1e-9)


def test_where_returns_do_not_differ_there_is_nothing_to_explain():
    assert explained_variance(torch.tensor([1.0, 2.0]), torch.ones(2)) == 0
    assert explained_variance(torch.ones(0), torch.ones(0)) == 0


def test_a_batch_of_one_row_is_as_good_as_any():
    learner = with_critic("own")
    batch = select(taught(learner, groups_of(seed=4)), torch.tensor([0]))
    assert asyncio.run(learner.update(batch))["value/loss"][1] > 0


class Reads:
    needs = frozenset({"values_BT"})
    group_relative = False


def test_an_estimator_that_reads_values_needs_a_critic(caplog):
    reads = "algorithm.advantage=test_critic:Reads"
    with pytest.raises(ConfigError, match="set critic=own"):
        algorithm.advantage(load("smoke", [reads]))
    assert algorithm.advantage(load("smoke", [reads, "critic=shared"])).needs
    model = build.policy(load("smoke", ["run.device=cpu"]))
    with caplog.at_level(logging.WARNING):
        build.critic(load("smoke", ["critic=own"]), model)
    assert "reads no values" in caplog.text


def test_options_of_a_critic_are_those_of_the_run():
    config = load("smoke", ["critic=shared", "critic.coef=0.5", "critic.lr=1e-3", "critic.warmup_steps=7"])
    critic = build.critic(config, build.policy(config))
    assert critic.warmup_steps == 7
    assert config.critic.options == {"coef": 0.5}
    with pytest.raises(ConfigError, match="no such option"):
        load("smoke", ["critic=own", "critic.coef=0.5"])
