"""Curves of several arms in one chart: means over seeds, with a band from the lowest to the highest seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from forage.metrics import mean
from forage.reporting.arms import Arm, Entry, episodes
from forage.reporting.charts import Point, Series, line_chart, number, percent, smoothed, thin
from forage.reporting.curves import Curve, Panel

Line = Callable[[Entry], Sequence[Point]]
CURVES = (
    Curve("Searches an episode", "How often the policy looks something up.", (("episode/searches", ""),)),
    Curve("Tokens an episode", "With the passages it was shown.", (("episode/tokens", ""),)),
    Curve("Gradient norm", "Before clipping.", (("policy/grad_norm", ""),)),
    Curve("KL to the start", "Nats a token from the model that a run began as.", (("loss/kl", ""),)),
    Curve("Entropy", "Nats a token: how open the policy still is.", (("policy/entropy", ""),)),
    Curve(
        "Groups with signal",
        "Questions whose samples got different rewards: only these teach.",
        (("groups/signal", ""),),
        share=True,
        show=percent,
    ),
)


def panels(arms: Sequence[Arm]) -> list[Panel]:
    """The charts that there is something to draw for."""
    reward = "Mean reward of the sampled episodes."
    exact = "Greedy, on the questions that each run holds out."
    made = [
        _exact_match(arms, exact),
        _panel("Reward", reward, arms, _column("reward/mean")),
        _by_samples(arms, reward),
        *(_panel(c.title, c.says, arms, _column(c.metrics[0][0]), share=c.share) for c in CURVES),
    ]
    return [panel for panel in made if panel]


def _column(metric: str) -> Line:
    return lambda entry: entry.data.column(metric)


def _exact_match(arms: Sequence[Arm], says: str) -> Panel | None:
    def points(entry: Entry) -> list[Point]:
        return [(e.step, e.summary["em"]) for e in entry.data.evals if "em" in e.summary]

    return _panel("Exact match, held out", says, arms, points, share=True, dots=True)


def _by_samples(arms: Sequence[Arm], says: str) -> Panel | None:
    """Reward over the episodes played; only where arms play different numbers of them a step."""
    sizes = {played[0][1] for arm in arms for entry in arm.entries[:1] if (played := episodes(entry.data))}
    if len(sizes) < 2:
        return None

    def points(entry: Entry) -> list[Point]:
        by_step = dict(episodes(entry.data))
        return [(by_step[step], value) for step, value in entry.data.column("reward/mean") if step in by_step]

    panel = _panel("Reward by episodes", f"{says} Arms play different numbers of them a step.", arms, points)
    if panel:
        panel.chart.hover["unit"] = "episode"
    return panel


def _panel(
    title: str, says: str, arms: Sequence[Arm], line: Line, *, share: bool = False, dots: bool = False
) -> Panel | None:
    series = [drawn for arm in arms if (drawn := _series(arm, line, dots))]
    if not any(y for one in series for _, y in one.points):
        return None
    return Panel(title, says, line_chart(title, series, percent if share else number, share=share))


def _series(arm: Arm, line: Line, dots: bool) -> Series | None:
    """An arm's mean over the steps that all its runs have, smoothed run by run unless they are dots."""
    lines = [line(entry) for entry in arm.entries]
    lines = [points if dots else smoothed(thin(points)) for points in lines if points]
    if not lines:
        return None
    tables = [dict(points) for points in lines]
    steps = sorted(set.intersection(*(set(table) for table in tables)))
    values = [[table[x] for table in tables] for x in steps]
    points = [(x, mean(at)) for x, at in zip(steps, values, strict=True)]
    band = [(min(at), max(at)) for at in values] if len(lines) > 1 else []
    return Series(arm.name, arm.style, points, band=band, dots=dots, smooth=False) if points else None
