"""What can go wrong with a run, one rule each: when it counts as seen, and what to try.

A rule looks at rolling means of `diagnosis.window` steps; thresholds are those of `forage.config.Diagnosis`. It is
silent where a metric that it needs is not there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from forage.config import Diagnosis
from forage.diagnosis.history import CUT_OFF, Column, History

STANDS_OUT = 6.0  # standard errors that a change must have: it is looked for at every step, against the best of all
KL_FLOOR = 1e-3  # nats a token: below it a KL is rounding, however fast it grows
MADE_BEFORE, WRITTEN_BEFORE = 0.5, 4.0  # searches an episode and thought tokens a turn that can be given up
AT_LIMIT = 0.95  # of the searches allowed
NEARLY_ALL = 0.9  # of the groups


@dataclass(frozen=True, slots=True)
class Seen:
    """What a rule saw: a sentence with its numbers, and the step that it began with."""

    says: str
    since: int


Check = Callable[[History, Diagnosis], Seen | None]


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule. `collapse` says that the run is lost from there on; others only ask for a look."""

    name: str
    collapse: bool
    check: Check
    advice: str


def reward_falls(run: History, limits: Diagnosis) -> Seen | None:
    """The reward has lost a share of its best, and the update grew wild meanwhile; or it has lost twice that share."""
    reward = run.column("reward/mean")
    if reward is None or reward.high <= 0:
        return None
    lost, enough = reward.high - reward.now, limits.reward_drop * reward.high
    if lost < enough or lost < STANDS_OUT * reward.noise(reward.highest):
        return None
    best = reward.steps[reward.highest]
    grown = [said for name in _WILD if (said := _grown(run, name, best, limits.rise))]
    if not (grown or lost >= 2 * enough):
        return None
    says = f"the mean reward fell from {reward.high:.3f} (step {best}) to {reward.now:.3f}"
    since = reward.left(reward.high - enough / 2)
    return Seen(f"{says}, while {' and '.join(grown)}" if grown else says, since)


_WILD = ("policy/kl_old", "policy/kl_ref", "loss/kl", "policy/grad_norm")


def _grown(run: History, name: str, since: int, factor: float) -> str:
    column = run.column(name)
    before = column.at(since) if column else None
    if column is None or before is None:
        return ""
    floor = KL_FLOOR if "kl" in name else 0.0
    grown = column.now > factor * before and column.now > floor
    return f"{name} rose from {before:.3g} to {column.now:.3g}" if grown else ""


def right_answers_fade(run: History, limits: Diagnosis) -> Seen | None:
    """Right answers become unlikely (a sign that comes before a collapse: arXiv 2512.04220)."""
    right = run.column("episode/right_logprob")
    if right is None or right.high - right.now < limits.logprob_drop:
        return None
    if right.high - right.now < STANDS_OUT * right.noise(right.highest):
        return None
    return Seen(
        f"right answers became unlikely: from {right.high:.2f} to {right.now:.2f} nats a token",
        right.left(right.high - limits.logprob_drop / 2),
    )


def signal_lost(run: History, limits: Diagnosis) -> Seen | None:
    """No group is rewarded any more, where some were."""
    reward = run.column("reward/mean")
    if reward is None or _failed(run, limits) < NEARLY_ALL:
        return None
    if reward.high <= STANDS_OUT / 2 * reward.noise(reward.highest) or reward.now > limits.reward_drop * reward.high:
        return None
    return Seen(
        f"hardly any episode is rewarded (mean {reward.now:.3f}), where {reward.high:.3f} was reached "
        f"(step {reward.steps[reward.highest]})",
        reward.left(reward.high / 2),
    )


def too_hard(run: History, limits: Diagnosis) -> Seen | None:
    """All groups fail, as they did from the start."""
    if _failed(run, limits) < NEARLY_ALL or signal_lost(run, limits):
        return None
    return _quiet(run, f"in {_failed(run, limits):.0%} of the groups no episode is rewarded: nothing can be learned")


def solved(run: History, limits: Diagnosis) -> Seen | None:
    """All groups are rewarded throughout."""
    share = run.now("groups/solved", 0.0)
    if run.now("groups/signal", 1.0) >= limits.signal or share < NEARLY_ALL:
        return None
    reward = run.now("reward/mean", 0.0)
    return _quiet(run, f"in {share:.0%} of the groups every episode earns the same (mean reward {reward:.2f})")


def no_signal(run: History, limits: Diagnosis) -> Seen | None:
    """No group teaches anything, some failed and some solved."""
    signal, share = run.now("groups/signal", 1.0), run.now("groups/solved", 0.0)
    if signal >= limits.signal or share >= NEARLY_ALL or 1 - signal - share >= NEARLY_ALL:
        return None
    return _quiet(run, f"{share:.0%} of the groups are solved and the others fail: only {signal:.1%} teach anything")


def _failed(run: History, limits: Diagnosis) -> float:
    """Share of groups in which nothing is rewarded; 0 while there is signal."""
    signal = run.now("groups/signal", 1.0)
    return 0.0 if signal >= limits.signal else 1 - signal - run.now("groups/solved", 0.0)


def _quiet(run: History, says: str) -> Seen | None:
    column = run.column("groups/signal")
    return Seen(says, column.steps[-column.window]) if column else None


def searches_given_up(run: History, limits: Diagnosis) -> Seen | None:
    """Searches were made, and are no longer."""
    searches = run.column("episode/searches")
    if searches is None or searches.high < MADE_BEFORE or searches.now > limits.searches_left * searches.high:
        return None
    return _given_up(searches, "searches an episode")


def thoughts_emptied(run: History, limits: Diagnosis) -> Seen | None:
    """Thoughts were written, and are no longer."""
    thoughts = run.column("episode/thought_tokens")
    if thoughts is None or thoughts.high < WRITTEN_BEFORE or thoughts.now > limits.thoughts_left * thoughts.high:
        return None
    return _given_up(thoughts, "tokens of thought a turn")


def _given_up(column: Column, what: str) -> Seen:
    step = column.steps[column.highest]
    return Seen(f"{what} fell from {column.high:.2f} (step {step}) to {column.now:.2f}", column.left(column.high / 2))


def searches_at_limit(run: History, limits: Diagnosis) -> Seen | None:  # noqa: ARG001 (one signature for all)
    """Every episode uses up its searches."""
    searches = run.column("episode/searches")
    if searches is None or run.max_searches < 2 or searches.now < AT_LIMIT * run.max_searches:
        return None
    return Seen(
        f"episodes search {searches.now:.2f} times of {run.max_searches} allowed", searches.steps[-searches.window]
    )


def cut_off(run: History, limits: Diagnosis) -> Seen | None:
    """Episodes no longer come to an answer, where they did."""
    column = run.column(CUT_OFF)
    if column is None or column.now < limits.unanswered or column.low > limits.unanswered / 2:
        return None
    return Seen(
        f"{column.now:.0%} of the episodes end without an answer, where it was {column.low:.0%} "
        f"(step {column.steps[column.lowest]})",
        column.left(limits.unanswered / 2, above=False),
    )


def length_grows(run: History, limits: Diagnosis) -> Seen | None:
    """Episodes grew longer than they were when the reward was best."""
    acted, reward = run.column("episode/acted_tokens"), run.column("reward/mean")
    before = acted.at(reward.steps[reward.highest]) if acted and reward else None
    if acted is None or reward is None or before is None or acted.now < limits.longer * before:
        return None
    return Seen(
        f"the policy writes {acted.now:.0f} tokens an episode instead of {before:.0f}, and earns no more for it "
        f"({reward.now:.3f} after {reward.high:.3f})",
        acted.left(limits.longer * before, above=False),
    )


def entropy_gone(run: History, limits: Diagnosis) -> Seen | None:
    """The policy has settled on one behaviour, and it is a wrong one."""
    entropy = run.column("policy/entropy")
    if entropy is None or entropy.now > min(limits.entropy_low, entropy.high / 5):
        return None
    signal, share = run.now("groups/signal", 1.0), run.now("groups/solved", 1.0)
    if signal > 2 * limits.signal or share > 0.5:
        return None
    return Seen(
        f"entropy fell from {entropy.high:.2f} to {entropy.now:.3f} nats a token, with {share:.0%} of the groups "
        f"solved and {signal:.0%} that teach anything",
        entropy.left(2 * limits.entropy_low),
    )


def entropy_explodes(run: History, limits: Diagnosis) -> Seen | None:
    """The policy drifts towards noise."""
    entropy = run.column("policy/entropy")
    if entropy is None or entropy.now - entropy.low < limits.entropy_rise:
        return None
    return Seen(
        f"entropy rose from {entropy.low:.2f} (step {entropy.steps[entropy.lowest]}) to {entropy.now:.2f} nats a token",
        entropy.left(entropy.low + limits.entropy_rise / 2, above=False),
    )


def _above(metric: str, limit: str, says: str) -> Check:
    """A rule that sees a metric above a limit."""

    def check(run: History, limits: Diagnosis) -> Seen | None:
        column, most = run.column(metric), getattr(limits, limit)
        if column is None or column.now <= most:
            return None
        return Seen(says.format(column.now, most), column.steps[-column.window])

    return check


def critic_misleads(run: History, limits: Diagnosis) -> Seen | None:
    """The critic's values are worse than none, for two windows."""
    column = run.column("value/explained_variance")
    if column is None or len(column.values) < 2 * column.window:
        return None
    if max(column.now, column.means[-1 - column.window]) >= limits.unexplained:
        return None
    since = column.steps[-2 * column.window]
    return Seen(f"the critic's explained variance is {column.now:.2f}: its values are worse than their mean", since)


SLOWER = "Lower learner.lr"
RULES = (
    Rule(
        "reward_falls", True, reward_falls, f"{SLOWER}, add learner.kl_coef, or take larger steps of rollout.questions."
    ),
    Rule("right_answers_fade", True, right_answers_fade, f"{SLOWER}, or take algorithm.loss=llds."),
    Rule("signal_lost", True, signal_lost, f"{SLOWER}, and look at the episodes: forage report."),
    Rule("searches_given_up", True, searches_given_up, "Look for answers from memory; lower learner.lr."),
    Rule("cut_off", True, cut_off, f"{SLOWER}; if turns are cut short, raise rollout.max_turn_tokens or max_tokens."),
    Rule("entropy_gone", True, entropy_gone, f"{SLOWER}, add learner.entropy_coef, or raise algorithm.loss.clip_high."),
    Rule("entropy_explodes", True, entropy_explodes, f"{SLOWER}, and drop learner.entropy_coef."),
    Rule("thoughts_emptied", False, thoughts_emptied, "Reward the format besides the answer, or add learner.kl_coef."),
    Rule("length_grows", False, length_grows, "Lower rollout.max_turn_tokens, or weigh length in the reward."),
    Rule(
        "searches_at_limit", False, searches_at_limit, "Raise rollout.max_searches, or let the reward price searches."
    ),
    Rule("solved", False, solved, "Stop, or take harder questions."),
    Rule(
        "too_hard", False, too_hard, "Take easier questions, a graded reward (reward=f1), or a warm start (forage sft)."
    ),
    Rule("no_signal", False, no_signal, "Take more rollout.samples, or questions of middling difficulty."),
    Rule(
        "clipped",
        False,
        _above("policy/clip_fraction", "clip_fraction", "{:.0%} of the tokens are clipped (at most {:.0%})"),
        f"{SLOWER}, or raise learner.minibatch_questions.",
    ),
    Rule(
        "ratio",
        False,
        _above("policy/ratio_max", "ratio_max", "the largest ratio of a step is {:.1f} on average (at most {:.0f})"),
        f"{SLOWER}, or raise learner.minibatch_questions.",
    ),
    Rule(
        "mismatch",
        False,
        _above("policy/mismatch", "mismatch", "logprobs of engine and learner differ by {:.3f} nats (at most {:.2f})"),
        "Give engine and learner one dtype: engine.dtype, model.dtype.",
    ),
    Rule(
        "skipped_steps",
        False,
        _above(
            "policy/skipped_steps", "skipped_steps", "{:.0%} of the optimizer steps are thrown away (at most {:.0%})"
        ),
        f"{SLOWER}, or set model.dtype=float32.",
    ),
    Rule("critic_misleads", False, critic_misleads, "Give the critic a higher learning rate, or time to warm up."),
)
