"""Where the time of a step goes, and the five figures of a search run."""

from __future__ import annotations

from dataclasses import dataclass

from forage.metrics import mean
from forage.reporting.charts import number, percent
from forage.reporting.folder import Row, RunData


@dataclass(frozen=True, slots=True)
class Span:
    """Seconds of a mean step; `style` is one of the page's colours."""

    name: str
    seconds: float
    style: str
    says: str


ROLLOUT = (
    ("prefill", "t1", "reading prompts and passages"),
    ("decode", "t2", "writing, token by token"),
    ("retrieval", "t3", "waiting for the search engine"),
)
LEARNING = (
    ("score", "t5", "log-probabilities of the reference, advantages"),
    ("episodes", "t2", "making the episodes"),
    ("update", "t6", "gradients and the optimizer"),
    ("sync", "t7", "new weights to the engine"),
    ("save", "t8", "checkpoints, spread over the steps"),
)


def training_rows(data: RunData) -> list[Row]:
    """The rows of steps (an evaluation before the first step is none)."""
    return [row for row in data.rows if "time/step" in row]


def spans(data: RunData) -> list[Span]:
    """A mean step in parts that don't overlap; empty where no times are known."""
    rows = training_rows(data)
    if not rows:
        return []
    mean_of = {name: sum(row.get(f"time/{name}", 0.0) for row in rows) / len(rows) for name in _names(rows)}
    inside = [Span(name, mean_of.get(name, 0.0), style, says) for name, style, says in ROLLOUT]
    rest = mean_of.get("rollout", 0.0) - sum(span.seconds for span in inside)
    found = [*inside, Span("other rollout", max(0.0, rest), "t4", "parsing, rendering, rewarding")]
    found += [Span(name, mean_of.get(name, 0.0), style, says) for name, style, says in LEARNING]
    within = sum(span.seconds for span in found if span.name != "save")
    found.append(Span("other", max(0.0, mean_of.get("step", 0.0) - within), "t9", "batching, and what nobody measures"))
    return [span for span in found if span.seconds > 0]


def _names(rows: list[Row]) -> set[str]:
    return {name.removeprefix("time/") for row in rows for name in row if name.startswith("time/")}


def waiting(data: RunData) -> tuple[float, float] | None:
    """Mean seconds of a step after nine in ten episodes had ended, and their share of the rollout."""
    rows = [row for row in training_rows(data) if "time/wait" in row and "time/rollout" in row]
    total = sum(row["time/rollout"] for row in rows)
    wait = sum(row["time/wait"] for row in rows)
    return (wait / len(rows), wait / total) if rows and total else None


def five_figures(data: RunData) -> list[tuple[str, str, str]]:
    """(what, how much, what it means) of what is known."""
    rows = training_rows(data)

    def total(name: str) -> float:
        return sum(row.get(name, 0.0) for row in rows)

    def average(name: str) -> float | None:
        values = [row[name] for row in rows if name in row]
        return mean(values) if values else None

    rollout, step = total("time/rollout"), total("time/step")
    asked = any("search/queries" in row for row in rows)
    timed = any("time/retrieval" in row for row in rows)
    figures = [
        ("searches a second", total("search/queries") / rollout if rollout and asked else None, number, "of rollout"),
        ("waiting for retrieval", total("time/retrieval") / step if step and timed else None, percent, "of the step"),
        ("tokens thrown away", average("engine/wasted"), percent, "of those decoded"),
        ("KV reused", average("engine/reuse"), percent, "of context tokens"),
        ("groups with signal", average("groups/signal"), percent, "of questions sampled"),
    ]
    return [(name, show(value), says) for name, value, show, says in figures if value is not None]


def seconds_of_run(data: RunData) -> tuple[float, float]:
    """Seconds in steps (saving included), and in evaluations."""
    rows = data.rows
    steps = sum(row.get("time/step", 0.0) + row.get("time/save", 0.0) for row in rows)
    return steps, sum(row.get("time/eval", 0.0) for row in rows)


def duration(seconds: float) -> str:
    """0.25 s, 1.7 s, 42 s, 3 min 5 s, 2 h 10 min."""
    whole = round(seconds)
    if seconds < 9.95:
        return f"{seconds:.2g} s"
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole % 60 else f"{whole // 60} min"
    return f"{whole // 3600:,} h {whole % 3600 // 60} min"
