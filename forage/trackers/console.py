"""A run on the terminal: how far, how well, and where the time goes. On standard error, so that output stays clean."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

LEARNING = {
    "reward": ("reward/mean", "{:.3f}"),
    "EM": ("reward/em", "{:.3f}"),
    "eval EM": ("eval/em", "{:.3f}"),
    "loss": ("loss/policy", "{:.4f}"),
    "searches an episode": ("episode/searches", "{:.2f}"),
}
SPEED = {
    "tokens/s": ("time/tokens_per_s", "{:,.0f}"),
    "searches/s": ("time/searches_per_s", "{:,.1f}"),
    "waiting for retrieval": ("time/retrieval_share", "{:.1%}"),
    "tokens thrown away": ("engine/wasted", "{:.1%}"),
    "KV reused": ("engine/reuse", "{:.1%}"),
    "groups with signal": ("groups/signal", "{:.0%}"),
}
PHASES = ("prefill", "decode", "retrieval", "wait", "score", "update", "sync", "save", "eval")


class ConsoleTracker:
    """A live view on a terminal; elsewhere one plain line a step.

    Args:
        name: what the run is called.
        steps: how many steps there will be.
        console: where to write; standard error without one.
        clock: seconds, for the time left.
    """

    def __init__(
        self, name: str, steps: int, console: Console | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._name, self._steps, self._clock = name, steps, clock
        self._console = console or Console(stderr=True)
        self._shown: dict[str, Any] = {}
        self._note = ""
        self._step = 0
        self._pace = Pace(clock)
        self._live: Live | None = None
        if self._console.is_terminal:
            # Redrawn when there is news, not by a thread: the run's threads are counted.
            self._live = Live(self._view(), console=self._console, auto_refresh=False, transient=False)
            self._live.start(refresh=True)

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        self._shown |= metrics
        self._note, self._step = "", step
        self._pace.reach(step)
        if self._live:
            self._live.update(self._view(), refresh=True)
        else:
            self._console.print(self._line(metrics), highlight=False, markup=False, soft_wrap=True)

    def progress(self, title: str) -> Callable[[int, int], None]:
        """Show how far something inside a step has come; without a terminal nothing is shown."""
        last = 0.0

        def advance(done: int, total: int) -> None:
            nonlocal last
            if self._live and (done == total or self._clock() - last > 0.25):
                last = self._clock()
                self._note = f"{title}: {done:,} of {total:,}"
                self._live.update(self._view(), refresh=True)

        return advance

    def close(self) -> None:
        if self._live:
            self._note = ""
            self._live.update(self._view(), refresh=True)
            self._live.stop()
            self._live = None

    def _view(self) -> RenderableType:
        bar = Table.grid(padding=(0, 1), expand=True)
        bar.add_column(no_wrap=True)
        bar.add_column(ratio=1)
        bar.add_column(no_wrap=True)
        bar.add_row(
            Text(self._name, "bold"),
            ProgressBar(total=max(self._steps, 1), completed=self._step),
            f"{self._step}/{self._steps}  {self._left()}",
        )
        rows: list[RenderableType] = [bar]
        figures = {**figures_of(self._shown, LEARNING), **figures_of(self._shown, SPEED)}
        if figures:
            rows.append(_columns(figures))
        rows += [Text(line, "dim") for line in (stops_of(self._shown), phases_of(self._shown), self._note) if line]
        return Group(*rows)

    def _left(self) -> str:
        seconds = self._pace.left(self._steps)
        return f"{duration(seconds)} left" if seconds is not None and self._step < self._steps else ""

    def _line(self, metrics: Mapping[str, Any]) -> str:
        figures = {**figures_of(metrics, LEARNING), **figures_of(metrics, SPEED)}
        parts = [f"{label} {text}" for label, text in figures.items()]
        parts += [text for text in (stops_of(metrics), self._left()) if text]
        return f"{self._name} {self._step}/{self._steps}  " + "  ".join(parts)


class Pace:
    """Seconds a step, evaluations included, over the steps since the run was opened."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._first: tuple[int, float] | None = None
        self._last = (0, 0.0)

    def reach(self, step: int) -> None:
        """A step is done."""
        self._last = step, self._clock()
        self._first = self._first or self._last

    def left(self, steps: int) -> float | None:
        """Seconds until `steps` are done; None while nothing can be said."""
        if self._first is None or self._last[0] <= self._first[0]:
            return None
        pace = (self._last[1] - self._first[1]) / (self._last[0] - self._first[0])
        return pace * max(steps - self._last[0], 0)


def figures_of(metrics: Mapping[str, Any], wanted: Mapping[str, tuple[str, str]]) -> dict[str, str]:
    """Label to text, of those metrics that there are."""
    return {
        label: form.format(metrics[key])
        for label, (key, form) in wanted.items()
        if isinstance(metrics.get(key), int | float)
    }


def stops_of(metrics: Mapping[str, Any]) -> str:
    """How episodes ended, most frequent first."""
    shares = {key.removeprefix("stop/"): value for key, value in metrics.items() if key.startswith("stop/") and value}
    ordered = sorted(shares.items(), key=lambda item: -item[1])
    return "  ".join(f"{name} {share:.0%}" for name, share in ordered)


def phases_of(metrics: Mapping[str, Any]) -> str:
    """Where the time of the last step went."""
    spent = {phase: metrics.get(f"time/{phase}") or 0.0 for phase in PHASES}
    return "  ".join(f"{phase} {duration(seconds)}" for phase, seconds in spent.items() if seconds >= 0.005)


def duration(seconds: float) -> str:
    """Seconds in a form of two figures: `0.31s`, `42s`, `3m05s`, `2h10m`."""
    if seconds < 10:
        return f"{seconds:.2f}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes:02}m"
    return f"{minutes}m{rest:02}s" if minutes else f"{rest}s"


def _columns(figures: Mapping[str, str]) -> Columns:
    """Label and value, as many beside each other as fit."""
    items = (Text.assemble((f"{label} ", "dim"), (value, "bold")) for label, value in figures.items())
    return Columns(items, padding=(0, 3), equal=True)
