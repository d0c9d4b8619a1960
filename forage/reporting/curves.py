"""Which curves a report shows, and one sentence each on what they mean."""

from __future__ import annotations

from dataclasses import dataclass

from forage.reporting.charts import POINTS, Chart, Format, Series, line_chart, number, percent, stack_chart
from forage.reporting.folder import RunData
from forage.types import StopReason

STYLES = ("after", "before", "third", "fourth")
STOPS = {
    StopReason.ANSWERED: ("answered", "after"),
    StopReason.NO_ANSWER: ("no answer", "before"),
    StopReason.CONTEXT_FULL: ("context full", "third"),
    StopReason.RETRIEVER_ERROR: ("search failed", "fourth"),
}


@dataclass(frozen=True, slots=True)
class Curve:
    """Metrics that share a chart: (metric, what it is called there)."""

    title: str
    says: str
    metrics: tuple[tuple[str, str], ...]
    share: bool = False
    show: Format = number


@dataclass(frozen=True, slots=True)
class Panel:
    """A chart with its words."""

    title: str
    says: str
    chart: Chart


CURVES = (
    Curve(
        "Reward",
        "Mean reward of the step's sampled episodes. It should rise with noise; flat from the start means that no "
        "group has anything to compare.",
        (("reward/mean", "reward"),),
    ),
    Curve(
        "Groups with signal",
        "Questions whose samples got different rewards: only these teach. The share falls as questions are solved "
        "every time.",
        (("groups/signal", "with signal"), ("groups/solved", "always right")),
        share=True,
        show=percent,
    ),
    Curve(
        "Searches an episode",
        "How often the policy looks something up before it answers; it should settle near what the questions need.",
        (("episode/searches", "sampled"), ("eval/searches_mean", "greedy, held out")),
    ),
    Curve(
        "Tokens an episode",
        "Length with passages, and what of it the policy wrote itself. A steep rise without reward is rambling.",
        (("episode/tokens", "all"), ("episode/acted_tokens", "written by the policy")),
    ),
    Curve(
        "Entropy",
        "Nats a token: how open the policy still is. A slow fall is learning, a sudden one to zero is collapse.",
        (("policy/entropy", "entropy"),),
    ),
    Curve(
        "Gradient norm",
        "Before clipping. Spikes that coincide with drops in reward ask for a lower learning rate.",
        (("policy/grad_norm", "norm"),),
    ),
    Curve(
        "KL to the start",
        "How far the policy has moved from the model that it began as, in nats a token.",
        (("loss/kl", "KL"),),
    ),
    Curve(
        "Clipped tokens",
        "Tokens whose probability moved so far within one step that they teach nothing more in it.",
        (("policy/clip_fraction", "clipped"),),
        show=percent,
    ),
    Curve(
        "Turns without an action",
        "Turns an episode that were neither a search nor an answer. They should fade early.",
        (("episode/invalid", "invalid turns"),),
    ),
)
SUPERVISED = (
    Curve(
        "Loss",
        "Negative log-likelihood of a token that is learned from, in nats. It should fall and level out.",
        (("loss/policy", "loss"),),
    ),
    Curve("Entropy", "Nats a token: how undecided the model is where it acts.", (("policy/entropy", "entropy"),)),
    Curve(
        "Gradient norm",
        "Before clipping. Spikes ask for a lower learning rate, or for more warmup.",
        (("policy/grad_norm", "norm"),),
    ),
    Curve("Learning rate", "The schedule as it was run.", (("policy/lr", "learning rate"),)),
    Curve(
        "Searches an episode",
        "Of the episodes that are learned from.",
        (("episode/searches", "searches"),),
    ),
    Curve(
        "Tokens an episode",
        "Of the episodes that are learned from: all, and those the loss is taken over.",
        (("episode/tokens", "all"), ("episode/acted_tokens", "learned from")),
    ),
)


def panels(data: RunData) -> tuple[list[Panel], list[str]]:
    """The run's charts, and the titles of those left out because they are zero throughout."""
    curves = SUPERVISED if data.supervised else CURVES
    made, flat = [], []
    for curve in curves:
        lines = [(name, data.column(metric)) for metric, name in curve.metrics]
        lines = [(name, points) for name, points in lines if points]
        if lines and not any(y for _, points in lines for _, y in points):
            flat.append(curve.title)
        elif lines:
            made.append(_panel(curve, lines))
    exact, stops = _exact_match(data), _stops(data)
    return [*exact, *made[:3], *stops, *made[3:]], flat


def _panel(curve: Curve, lines: list[tuple[str, list[tuple[int, float]]]]) -> Panel:
    series = [
        Series(name, style, points, dots=name.startswith("greedy"))
        for (name, points), style in zip(lines, STYLES, strict=False)
    ]
    return Panel(curve.title, curve.says, line_chart(curve.title, series, curve.show, share=curve.share))


def _exact_match(data: RunData) -> list[Panel]:
    """Evaluations with their intervals; by hop where the metrics have it."""
    if not data.evals:
        return []
    points = [(e.step, e.summary["em"]) for e in data.evals]
    bounds = [tuple(e.summary["em_ci"]) for e in data.evals if "em_ci" in e.summary]
    whole = len(bounds) == len(points) <= POINTS  # else points are joined, and have no interval of their own
    series = [Series("exact match", "after", points, bounds if whole else (), dots=True)]
    says = "Greedy, on questions held out from training; the bars are 95% intervals."
    return [Panel("Exact match, held out", says, line_chart("Exact match, held out", series, percent, share=True))]


def _stops(data: RunData) -> list[Panel]:
    layers = []
    for reason, (name, style) in STOPS.items():
        points = data.column(f"stop/{reason.value}")
        if any(y for _, y in points):
            layers.append(Series(name, style, points))
    steps = {tuple(x for x, _ in layer.points) for layer in layers}
    if len(steps) != 1 or data.supervised:
        return []
    says = "Every episode ends in one of these ways; only an answer can earn a reward."
    return [Panel("How episodes end", says, stack_chart("How episodes end", layers))]
