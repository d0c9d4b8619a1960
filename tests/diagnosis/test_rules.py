"""What the rules see: in real runs, well and ill, and in rows made to show one thing each."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forage.config import Diagnosis
from forage.diagnosis.history import Column, History
from forage.diagnosis.rules import RULES
from forage.diagnosis.watch import Watch, diagnose

RUNS = Path(__file__).parents[1] / "data" / "metrics"
WINDOW = Diagnosis().window


def real(name):
    """Metrics of a real run of the recipe `demo` (tests/data/README.md)."""
    return [json.loads(line) for line in (RUNS / f"{name}.jsonl").read_text().splitlines()]


def run(steps=40, **columns):
    """Rows of a healthy run, with columns (a value, or one a step) in their place."""
    rows = []
    for i in range(steps):
        given = {
            name.replace("__", "/"): value[i] if isinstance(value, list) else value for name, value in columns.items()
        }
        healthy = {"reward/mean": 0.5, "groups/signal": 0.5, "groups/solved": 0.2}
        rows.append({"step": i + 1, **healthy, **{name: value for name, value in given.items() if value is not None}})
    return rows


def seen(rows, max_searches=4, **limits):
    return {finding.rule: finding for finding in diagnose(rows, Diagnosis(**limits), max_searches)}


def falling(high, low, steps=40):
    """High for half of the steps, low for the rest."""
    return [high] * (steps // 2) + [low] * (steps - steps // 2)


@pytest.mark.parametrize("name", ["healthy-seed-0", "healthy-seed-1"])
def test_a_real_healthy_run_has_no_finding(name):
    assert diagnose(real(name), Diagnosis(), 4) == []


@pytest.mark.parametrize(
    ("name", "rule", "by"),
    [
        ("rate-too-high", "cut_off", 8),
        ("rate-too-high", "signal_lost", 9),
        ("rate-too-high", "reward_falls", 9),
        ("rate-far-too-high", "reward_falls", 9),
        ("rate-far-too-high", "searches_given_up", 9),
        ("search-not-worth-it", "searches_given_up", 20),
    ],
)
def test_a_real_collapse_is_seen_soon(name, rule, by):
    found = seen(real(name))[rule]
    assert found.collapse
    assert found.step <= by
    assert found.since < found.step


def test_the_reward_that_falls_while_the_update_grows_wild():
    found = seen(run(reward__mean=falling(0.9, 0.6), policy__grad_norm=falling(0.1, 2.0)))
    assert list(found) == ["reward_falls"]
    assert "from 0.900 (step" in found["reward_falls"].says
    assert "policy/grad_norm rose from 0.1 to" in found["reward_falls"].says
    assert 20 < found["reward_falls"].step <= 20 + WINDOW
    assert found["reward_falls"].since <= 21


def test_a_reward_that_falls_alone_must_fall_further():
    assert not seen(run(reward__mean=falling(0.9, 0.6), policy__grad_norm=0.1))
    assert "reward_falls" in seen(run(reward__mean=falling(0.9, 0.2), policy__grad_norm=0.1))


def test_noise_is_no_fall():
    noisy = [0.5 + (0.45 if i % 3 else -0.45) for i in range(10)] + [0.1, 0.6, 0.2, 0.9, 0.1, 0.5, 0.1, 0.3] * 2
    assert "reward_falls" not in seen(run(26, reward__mean=noisy))


def test_right_answers_that_become_unlikely():
    found = seen(run(episode__right_logprob=falling(-0.1, -1.5)))
    assert found["right_answers_fade"].collapse
    assert "from -0.10" in found["right_answers_fade"].says


def test_what_was_never_done_is_not_given_up():
    assert not seen(run(episode__searches=0.0, episode__thought_tokens=1.0))


def test_searches_and_thoughts_that_are_given_up():
    found = seen(run(episode__searches=falling(2.0, 0.0), episode__thought_tokens=falling(40.0, 1.0)))
    assert found["searches_given_up"].collapse
    assert not found["thoughts_emptied"].collapse


def test_searches_at_their_limit():
    assert "searches_at_limit" in seen(run(episode__searches=3.95))
    assert not seen(run(episode__searches=3.95), max_searches=0)


def test_episodes_that_are_cut_off_where_they_were_not():
    assert "cut_off" in seen(run(stop__no_answer=falling(0.0, 0.4), stop__context_full=falling(0.05, 0.4)))
    assert not seen(run(stop__no_answer=0.9))


def test_longer_episodes_are_fine_while_the_reward_rises():
    longer = [100.0 + 10 * i for i in range(40)]
    assert not seen(run(episode__acted_tokens=longer, reward__mean=[0.1 + i / 50 for i in range(40)]))
    assert "length_grows" in seen(run(episode__acted_tokens=longer))


@pytest.mark.parametrize(
    ("signal", "solved", "reward", "rule"),
    [
        (0.0, 1.0, 1.0, "solved"),
        (0.0, 0.0, 0.0, "too_hard"),
        (0.02, 0.5, 0.5, "no_signal"),
    ],
)
def test_groups_without_signal_are_told_apart(signal, solved, reward, rule):
    found = seen(run(groups__signal=signal, groups__solved=solved, reward__mean=reward))
    assert list(found) == [rule]
    assert not found[rule].collapse
    assert found[rule].step == WINDOW


def test_a_reward_that_was_there_and_is_gone_is_a_collapse():
    found = seen(run(groups__signal=falling(0.5, 0.0), groups__solved=0.0, reward__mean=falling(0.4, 0.0)))
    assert found["signal_lost"].collapse
    assert "too_hard" not in found


def test_a_stroke_of_luck_is_no_collapse():
    lucky = [0.0] * 5 + [0.04] + [0.0] * 34
    assert list(seen(run(groups__signal=0.0, groups__solved=0.0, reward__mean=lucky))) == ["too_hard"]


def test_entropy_may_vanish_where_questions_are_solved():
    falls = [0.5 * 0.8**i for i in range(40)]
    assert list(seen(run(policy__entropy=falls, groups__signal=0.02, groups__solved=0.95))) == ["solved"]
    assert "entropy_gone" in seen(run(policy__entropy=falls, groups__signal=0.02, groups__solved=0.1))


def test_entropy_that_explodes():
    assert "entropy_explodes" in seen(run(policy__entropy=falling(0.3, 4.0)))


@pytest.mark.parametrize(
    ("metric", "value", "rule"),
    [
        ("policy__clip_fraction", 0.5, "clipped"),
        ("policy__ratio_max", 50.0, "ratio"),
        ("policy__mismatch", 0.3, "mismatch"),
        ("policy__skipped_steps", 0.5, "skipped_steps"),
        ("value__explained_variance", -0.5, "critic_misleads"),
    ],
)
def test_figures_that_are_too_high(metric, value, rule):
    assert list(seen(run(**{metric: value}))) == [rule]
    assert not seen(run(**{metric: 0.01}))


def test_a_finding_is_told_once_and_needs_a_whole_window():
    watch = Watch(Diagnosis(window=3))
    told = [[finding.rule for finding in watch.look(row)] for row in run(6, policy__clip_fraction=1.0)]
    assert told == [[], [], ["clipped"], [], [], []]


def test_what_is_old_is_not_judged():
    rows = run(policy__clip_fraction=[0.9] * (WINDOW - 1) + [None] * WINDOW + [0.9] + [None] * (40 - 2 * WINDOW))
    history = History(WINDOW)
    for row in rows:
        history.add(row)
    assert history.column("policy/clip_fraction") is None


def test_supervised_rows_are_passed():
    assert diagnose([{"step": i, "policy/entropy": 9.0 * (i > 20)} for i in range(40)], Diagnosis()) == []


@given(st.lists(st.one_of(st.none(), st.floats(), st.booleans(), st.text(max_size=3)), max_size=30))
def test_gaps_and_odd_values_harm_nothing(values):
    rows = [{"step": i, "reward/mean": value, "policy/ratio_max": value} for i, value in enumerate(values)]
    diagnose(rows, Diagnosis(window=2))


@given(st.lists(st.floats(-10, 10), min_size=3, max_size=30), st.integers(2, 8))
def test_a_column_knows_its_means(values, window):
    column = Column(window)
    for step, value in enumerate(values):
        column.add(step, value)
    last = values[-window:]
    assert column.now == pytest.approx(sum(last) / len(last))
    assert column.high == max(column.means[2:])
    assert column.low == min(column.means[2:])


def test_every_rule_says_what_to_try():
    assert all(rule.advice.endswith(".") and rule.name == rule.name.lower() for rule in RULES)
    assert len({rule.name for rule in RULES}) == len(RULES)


@pytest.mark.parametrize("seed", range(8))
def test_the_noise_of_small_steps_is_no_collapse(seed):
    rng = np.random.Generator(np.random.Philox(seed))
    rewards, norms = rng.binomial(16, 0.15, 300) / 16, rng.lognormal(0, 1, 300)
    logprobs = rng.normal(-0.5, 0.15, 300)
    assert not seen(
        run(300, reward__mean=list(rewards), policy__grad_norm=list(norms), episode__right_logprob=list(logprobs))
    )


def test_a_crash_does_not_hide_in_its_own_noise():
    assert seen(run(reward__mean=[0.9] * 3 + [0.0] * 37))["reward_falls"].step == WINDOW
