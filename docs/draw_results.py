"""The drawings of docs/results.md, in colours that can be read on white and on black. See make_results.py."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

from forage.reporting.arms import style_of
from forage.reporting.charts import Series, line_chart, number, percent, smoothed

Result = dict[str, Any]
COLOURS = ("#1a9c8c", "#c8873a", "#8d7ac9", "#d9606e", "#4a90d9", "#8f9c2a", "#c06aa8", "#8b949e")
GREY = "#7d8590"
STYLE = (
    "text{font:12px ui-sans-serif,system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif;fill:" + GREY + "}"
    "text.tick{font-size:11px}text.title{font-weight:600}"
    "path{fill:none}path.grid{stroke:" + GREY + ";stroke-opacity:.25}path.cross{display:none}"
    "path.line{stroke:currentColor;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}"
    "path.line.thin{stroke-width:1.5}path.dashed{stroke-dasharray:6 4}"
    "path.whisker{stroke:currentColor;stroke-width:1.4}"
    "path.band{fill:currentColor;fill-opacity:.15}circle.dot{fill:currentColor}"
    + "".join(f".arm{i}{{color:{colour}}}" for i, colour in enumerate(COLOURS))
)
WIDE, LABELS, TRACK, LINE = 860, 180, 200, 22


def svg(title: str, height: float, inside: str, width: int = WIDE) -> str:
    """A drawing that stands alone."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height:.0f}" width="{width}" '
        f'height="{height:.0f}" role="img" aria-label="{escape(title, quote=True)}"><style>{STYLE}</style>'
        f"{inside}</svg>\n"
    )


def forest(title: str, rows: Sequence[Result]) -> str:
    """Left: exact match of each row, its interval, its seeds. Right: the rewards on the way."""
    start = 0.0 if (low := min(row["em_ci"][0] for row in rows)) < 0.5 else 0.1 * int(10 * low)
    bottom = 34 + LINE * len(rows)
    height = max(250, bottom + 26)

    def x(value: float) -> float:
        return LABELS + TRACK * (value - start) / (1 - start)

    inside = '<text class="title" x="0" y="14">Exact match, 95% intervals, seeds</text>'
    for mark in (start, (1 + start) / 2, 1):
        inside += f'<path class="grid" d="M{x(mark):.1f} 26V{bottom}"/>'
        inside += f'<text class="tick" x="{x(mark):.1f}" y="{bottom + 14}" text-anchor="middle">{mark:.2f}</text>'
    for i, row in enumerate(rows):
        inside += _mark(row, style_of(i), x, 34 + LINE * (i + 0.5))
    curves = [one for i, row in enumerate(rows) if (one := _curve(row, style_of(i)))]
    if curves:
        drawn = line_chart(f"{title}: rewards", curves, number).svg
        inside += '<text class="title" x="450" y="14">Mean reward of a step, smoothed</text>'
        inside += drawn.replace("<svg ", '<svg x="440" y="22" width="420" height="214" ', 1)
    return svg(title, height, inside)


def _mark(row: Result, style: str, x: Callable[[float], float], y: float) -> str:
    low, high = row["em_ci"]
    seeds = "".join(f'<path class="whisker" stroke-opacity=".6" d="M{x(em):.1f} {y - 6:.1f}v12"/>' for em in row["em"])
    return (
        f'<g class="{style}"><text x="0" y="{y + 4:.1f}" style="fill:currentColor">{escape(row["name"])}</text>'
        f'<path class="line {style}" stroke-opacity=".4" style="stroke-width:6" '
        f'd="M{x(low):.1f} {y:.1f}H{x(high):.1f}"/>'
        f"{seeds}"
        f'<circle class="dot" cx="{x(row["em_mean"]):.1f}" cy="{y:.1f}" r="4.5"/></g>'
    )


def _curve(row: Result, style: str) -> Series | None:
    """Mean reward over seeds, with a band from the lowest to the highest."""
    curves = [smoothed([(float(i + 1), y) for i, y in enumerate(values)]) for values in row["curve"]]
    steps = min(map(len, curves), default=0)
    if not steps:
        return None
    values = [[curve[i][1] for curve in curves] for i in range(steps)]
    points = [(float(i + 1), sum(at) / len(at)) for i, at in enumerate(values)]
    band = [(min(at), max(at)) for at in values] if len(curves) > 1 and steps <= 240 else []
    return Series(row["name"], style, points, band=band, smooth=False)


def lines(title: str, rows: Sequence[Result], pattern: str) -> str:
    """Exact match over a number in the rows' names; a line for each word there. A row without one is on all lines."""
    found = [(match, row) for row in rows if (match := re.search(pattern, row["name"]))]
    words = [match[2] if match.re.groups > 1 else None for match, _ in found]
    names = list(dict.fromkeys(word for word in words if word)) or [""]
    series = []
    for place, name in enumerate(names):
        mine = [pair for pair, word in zip(found, words, strict=True) if word in (name, None)]
        mine.sort(key=lambda pair: float(pair[0][1]))
        points = [(float(m[1]), row["em_mean"]) for m, row in mine]
        bounds = [(row["em_ci"][0], row["em_ci"][1]) for _, row in mine]
        series.append(Series(name, style_of(place), points, bounds, dots=True))
    drawn = line_chart(title, series, percent, share=True).svg
    legend = "".join(
        f'<g class="{one.style}"><path class="line" d="M452 {46 + LINE * i}h22"/>'
        f'<text x="482" y="{50 + LINE * i}" style="fill:currentColor">{escape(one.name)}</text></g>'
        for i, one in enumerate(series)
        if one.name
    )
    inside = drawn.replace("<svg ", '<svg x="0" y="22" width="430" height="220" ', 1)
    return svg(title, 244, f'<text class="title" x="0" y="14">Exact match, 95% intervals</text>{inside}{legend}', 620)
