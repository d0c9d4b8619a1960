"""Small charts as inline SVG, coloured by the page's style sheet, with what a pointer over them shows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

Point = tuple[float, float]
Format = Callable[[float], str]
WIDTH, HEIGHT = 384, 196
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 12, 24
POINTS = 240  # at most, of one line


def percent(value: float) -> str:
    """0.123 as 12.3%."""
    return f"{100 * value:.1f}%"


def number(value: float) -> str:
    """A few significant digits: 0.0123, 1.23, 123, 12,345."""
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if size >= 1e-4 else f"{value:.1e}"


@dataclass(frozen=True, slots=True)
class Series:
    """One line (or dots) of a chart; `style` is one of the page's colours.

    `bounds` are an interval of each point, drawn as whiskers; `band` is one that is drawn as an area behind the line
    (its points are taken as they are: at most `POINTS`).
    """

    name: str
    style: str
    points: Sequence[Point]
    bounds: Sequence[Point] = ()
    band: Sequence[Point] = ()
    dots: bool = False
    smooth: bool = True


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawing, and for each step the rows that a pointer over it shows."""

    svg: str
    hover: dict[str, Any] = field(default_factory=dict)
    legend: tuple[tuple[str, str], ...] = ()
    binned: int = 1  # steps that were joined into one point


def thin(points: Sequence[Point], most: int = POINTS) -> list[Point]:
    """At most `most` points: means of neighbours, each at the last one's step."""
    size = bin_size(len(points), most)
    bins = [points[i : i + size] for i in range(0, len(points), size)]
    return [(part[-1][0], sum(y for _, y in part) / len(part)) for part in bins]


def bin_size(points: int, most: int = POINTS) -> int:
    """How many points `thin` joins into one."""
    return max(1, math.ceil(points / most))


def smoothed(points: Sequence[Point]) -> list[Point]:
    """A centred rolling mean over about a twelfth of the line."""
    half = len(points) // 24
    windows = [points[max(0, i - half) : i + half + 1] for i in range(len(points))]
    return [(x, sum(y for _, y in w) / len(w)) for (x, _), w in zip(points, windows, strict=True)]


def ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Round numbers from at or below `low` to at or above `high`."""
    if high <= low:
        high = low + (abs(low) or 1)
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 10) for i in range(first, last + 1)]


@dataclass(frozen=True, slots=True)
class _Scale:
    """Values to pixels of the plot."""

    x0: float
    x1: float
    y0: float
    y1: float

    def x(self, value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (value - self.x0) / ((self.x1 - self.x0) or 1)

    def y(self, value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - (value - self.y0) / ((self.y1 - self.y0) or 1))

    def path(self, points: Sequence[Point]) -> str:
        return "M" + "L".join(f"{self.x(x):.1f} {self.y(y):.1f}" for x, y in points)


def line_chart(title: str, series: Sequence[Series], show: Format = number, *, share: bool = False) -> Chart:
    """Lines over steps from zero (or below, where values are); `share` fixes the axis to 0..1."""
    thinned = [thin(s.points) for s in series]
    everything = [y for points in thinned for _, y in points] + [
        y for s in series for pair in (*s.bounds, *s.band) for y in pair
    ]
    marks = [0, 0.25, 0.5, 0.75, 1.0] if share else ticks(min(0.0, *everything), max(everything))
    xs = [x for points in thinned for x, _ in points]
    scale = _Scale(min(xs), max(xs), marks[0], marks[-1])
    axis_show: Format = (lambda v: f"{100 * v:.0f}%") if share else number
    drawn = [_band(s, scale) for s in series if s.band]
    drawn += [_draw(s, points, scale) for s, points in zip(series, thinned, strict=True)]
    hover = _hover([(s.name, s.style, p) for s, p in zip(series, thinned, strict=True)], scale, show)
    _add_bounds(hover, series, show)
    legend = tuple((s.style, s.name) for s in series)
    return Chart(
        _svg(title, _axes(scale, marks, axis_show) + "".join(drawn)),
        hover,
        legend,
        max(bin_size(len(s.points)) for s in series),
    )


def stack_chart(title: str, layers: Sequence[Series]) -> Chart:
    """Shares over steps, stacked to 100%; the layers have the same steps."""
    thinned = [thin(layer.points) for layer in layers]
    xs = [x for x, _ in thinned[0]]
    scale = _Scale(xs[0], xs[-1], 0, 1)
    floor, drawn = [0.0] * len(xs), ""
    for layer, points in zip(layers, thinned, strict=True):
        roof = [below + y for below, (_, y) in zip(floor, points, strict=True)]
        edge = [*zip(xs, roof, strict=True), *reversed(list(zip(xs, floor, strict=True)))]
        drawn += f'<path class="area {layer.style}" d="{scale.path(edge)}Z"/>'
        floor = roof
    hover = _hover([(s.name, s.style, p) for s, p in zip(layers, thinned, strict=True)], scale, percent)
    axes = _axes(scale, [0, 0.25, 0.5, 0.75, 1.0], lambda v: f"{100 * v:.0f}%")
    legend = tuple((layer.style, layer.name) for layer in layers)
    return Chart(_svg(title, drawn + axes), hover, legend, bin_size(len(layers[0].points)))


def _band(series: Series, scale: _Scale) -> str:
    xs = [x for x, _ in series.points]
    roof = list(zip(xs, (high for _, high in series.band), strict=True))
    floor = list(zip(xs, (low for low, _ in series.band), strict=True))
    return f'<path class="band {series.style}" d="{scale.path([*roof, *reversed(floor)])}Z"/>'


def _draw(series: Series, points: list[Point], scale: _Scale) -> str:
    whiskers = "".join(
        f'<path class="whisker {series.style}" d="{_whisker(scale.x(x), scale.y(low), scale.y(high))}"/>'
        for (x, _), (low, high) in zip(series.points, series.bounds, strict=bool(series.bounds))
    )
    if series.dots:
        line = f'<path class="line thin {series.style}" d="{scale.path(points)}"/>' if len(points) > 1 else ""
        dots = "".join(
            f'<circle class="dot {series.style}" cx="{scale.x(x):.1f}" cy="{scale.y(y):.1f}" r="3.2"/>'
            for x, y in points
        )
        return line + whiskers + dots
    if len(points) == 1:
        (x, y) = points[0]
        return f'<circle class="dot {series.style}" cx="{scale.x(x):.1f}" cy="{scale.y(y):.1f}" r="3.2"/>'
    if not series.smooth or len(points) < 24:
        return f'<path class="line {series.style}" d="{scale.path(points)}"/>'
    return (
        f'<path class="line faint {series.style}" d="{scale.path(points)}"/>'
        f'<path class="line {series.style}" d="{scale.path(smoothed(points))}"/>'
    )


def _whisker(x: float, low: float, high: float) -> str:
    return f"M{x - 4:.1f} {low:.1f}h8m-4 0V{high:.1f}m-4 0h8"


def _axes(scale: _Scale, marks: Sequence[float], show: Format) -> str:
    right = WIDTH - RIGHT
    out = ""
    for mark in marks:
        y = scale.y(mark)
        out += f'<path class="grid" d="M{LEFT} {y:.1f}H{right}"/>'
        out += f'<text class="tick" x="{LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">{escape(show(mark))}</text>'
    inside = [x for x in ticks(scale.x0, scale.x1, 5) if scale.x0 <= x <= scale.x1 and x == int(x)]
    for x in inside:
        anchor = "end" if scale.x(x) > right - 12 else "middle"
        out += f'<text class="tick" x="{scale.x(x):.1f}" y="{HEIGHT - 6}" text-anchor="{anchor}">{x:,.0f}</text>'
    return out


def _hover(lines: Sequence[tuple[str, str, list[Point]]], scale: _Scale, show: Format) -> dict[str, Any]:
    steps = sorted({x for _, _, points in lines for x, _ in points})
    rows = []
    for name, style, points in lines:
        at = dict(points)
        rows.append({"n": name, "c": style, "v": [show(at[x]) if x in at else "" for x in steps]})
    return {"x": steps, "px": [round(scale.x(x), 1) for x in steps], "rows": rows}


def _add_bounds(hover: dict[str, Any], series: Sequence[Series], show: Format) -> None:
    for row, one in zip(hover["rows"], series, strict=True):
        given = one.bounds or one.band
        for (x, _), (low, high) in zip(one.points, given, strict=bool(given)):
            row["v"][hover["x"].index(x)] += f" ({show(low)}–{show(high)})"


def _svg(title: str, inside: str) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title, quote=True)}">{inside}'
        f'<path class="cross" d="M0 {TOP}V{HEIGHT - BOTTOM}" visibility="hidden"/></svg>'
    )
