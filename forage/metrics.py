"""What is measured of a step: its episodes, its groups, its searches, and where the time went."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from forage.types import Group, Harvest, Invalid, Metrics, StopReason, Trajectory


class Clock:
    """Seconds by name; `with clock("rollout"): ...` adds to them."""

    def __init__(self) -> None:
        self._seconds: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Time what stands inside."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[name] += time.perf_counter() - started

    def take(self) -> dict[str, float]:
        """The seconds since the last call, and start anew."""
        taken = dict(self._seconds)
        self._seconds.clear()
        return taken


def mean(values: Sequence[float]) -> float:
    """The mean; 0 of nothing."""
    return sum(values) / len(values) if values else 0.0


def flatten(metrics: Metrics) -> dict[str, float]:
    """(sum, count) to the mean; names without a count are left out."""
    return {name: total / count for name, (total, count) in metrics.items() if count}


def episode_metrics(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """Lengths, searches, invalid turns and endings of episodes."""
    stops = Counter(trajectory.stop for trajectory in trajectories)
    acted, taken = [sum(t.acted) for t in trajectories], [t.taken_tokens for t in trajectories]
    metrics = {
        "episode/searches": mean([t.searches for t in trajectories]),
        "episode/turns": mean([len(t.turns) for t in trajectories]),
        "episode/tokens": mean([len(t.tokens) for t in trajectories]),
        "episode/acted_tokens": mean(acted),
        **({"episode/reused_tokens": mean(taken)} if any(t.tree is not None for t in trajectories) else {}),
        **_thoughts(trajectories),
        "episode/invalid": mean([sum(isinstance(turn.action, Invalid) for turn in t.turns) for t in trajectories]),
        "engine/wasted": sum(t.wasted for t in trajectories) / max(sum(acted) - sum(taken), 1),
    }
    return metrics | {f"stop/{reason.value}": stops[reason] / max(len(trajectories), 1) for reason in StopReason}


def _thoughts(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """Mean tokens of a turn beside its action; nothing where no turn tells."""
    told = [turn.thought_tokens for t in trajectories for turn in t.turns if turn.thought_tokens is not None]
    return {"episode/thought_tokens": mean(told)} if told else {}


def _gains(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """What searches were worth; nothing where none was measured."""
    gains = [turn.gain for t in trajectories for turn in t.turns if turn.gain is not None]
    return {"gain/mean": mean(gains), "gain/positive": mean([gain > 0 for gain in gains])} if gains else {}


def _right_logprob(groups: Sequence[Group]) -> dict[str, float]:
    """Mean sampled logprob of a token over the episodes with their group's best reward, where that is above 0."""
    right = [
        trajectory
        for group in groups
        for trajectory, score in zip(group.trajectories, group.scores, strict=True)
        if score.total == max(other.total for other in group.scores) > 0
    ]
    acted = sum(sum(t.acted) for t in right)
    return {"episode/right_logprob": sum(sum(t.logprobs) for t in right) / acted} if acted else {}


def harvest_metrics(harvest: Harvest, *, version: int = 0) -> dict[str, float]:
    """Rewards with their parts, what became of the groups, and the episodes themselves.

    `version` is that of the weights that learn from it.
    """
    scores = [score for group in harvest.rewarded for score in group.scores]
    names = sorted({name for score in scores for name in score.parts})
    metrics = {"reward/mean": mean([score.total for score in scores])}
    metrics |= {f"reward/{name}": mean([score.parts.get(name, 0.0) for score in scores]) for name in names}
    baselines = [group.baseline for group in harvest.groups + harvest.replaced if group.baseline is not None]
    metrics |= {"reward/greedy": mean(baselines)} if baselines else {}
    metrics |= _group_metrics(harvest, version) | _right_logprob(harvest.groups + harvest.replaced)
    metrics |= _gains(harvest.trajectories)
    episodes = [trajectory for group in harvest.rewarded for trajectory in group.trajectories]
    return metrics | episode_metrics(episodes + harvest.failed)


def _group_metrics(harvest: Harvest, version: int) -> dict[str, float]:
    """Shares of the questions played, of the episodes rewarded, and counts; and how old the weights were."""
    groups, played = harvest.groups + harvest.replaced, max(harvest.played, 1)
    equal = [group for group in groups if not group.has_signal]
    solved = sum(group.scores[0].total > 0 for group in equal)
    rewarded = sum(len(group.scores) for group in harvest.rewarded)
    sampled_at = [v for t in harvest.trajectories for v, acted in zip(t.versions, t.acted, strict=True) if acted]
    return {
        "groups/signal": (len(groups) - len(equal)) / played,
        "groups/solved": solved / played,
        "groups/failed": (len(equal) - solved) / played,
        "groups/played": harvest.played,
        "groups/refills": harvest.refills,
        "groups/missing": harvest.missing,
        "groups/left_out": sum(len(group.scores) for group in harvest.left_out) / max(rewarded, 1),
        "groups/staleness": version - mean(sampled_at) if sampled_at else 0.0,
    }


def engine_metrics(stats: Mapping[str, float]) -> dict[str, float]:
    """An engine's counters: how much context was reused, and its seconds under time/."""
    context = stats["reused_tokens"] + stats["prefill_tokens"]
    return {
        "engine/reuse": stats["reused_tokens"] / max(context, 1),
        "engine/prefill_tokens": stats["prefill_tokens"],
        "engine/decode_tokens": stats["decode_tokens"],
        "time/prefill": stats["prefill_seconds"],
        "time/decode": stats["decode_seconds"],
    }


def search_metrics(stats: Mapping[str, float]) -> dict[str, float]:
    """A gathering retriever's counters."""
    return {
        "search/queries": stats["queries"],
        "search/failures": stats["failures"],
        "cache/hits": stats["cache_hits"] / max(stats["queries"], 1),
        "cache/calls": stats["calls"],
        "cache/sent": stats["unique"],
        "time/retrieval": stats["seconds"],
    }


def rates(metrics: Mapping[str, float]) -> dict[str, float]:
    """Figures per second, from the seconds and counts of the same step."""
    rollout = max(metrics["time/rollout"], 1e-9)
    return {
        "time/searches_per_s": metrics["search/queries"] / rollout,
        "time/tokens_per_s": metrics["engine/decode_tokens"] / rollout,
        "time/retrieval_share": metrics["time/retrieval"] / max(metrics["time/step"], 1e-9),
    }
