"""The report as one HTML page: what can be shown without a script is, episodes are drawn by one."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib.resources import files
from typing import Any

from forage.reporting import overview, timing
from forage.reporting.charts import Chart, Series, line_chart
from forage.reporting.curves import Panel
from forage.reporting.episodes import script_json
from forage.reporting.folder import RunData
from forage.reporting.health import health_section
from forage.reporting.overview import Side

POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
)


def page(
    data: RunData, compared: Sequence[Side], panels: Sequence[Panel], flat: Sequence[str], episodes: dict[str, Any]
) -> str:
    """The whole page. `episodes` is what the script shows: `pieces`, `passages`, `pairs`, `train`."""
    times = _step_times(data)
    charts = {f"c{i}": panel.chart.hover for i, panel in enumerate(panels)} | {"ct": times.hover if times else {}}
    sections = [
        ("results", "Results", _results(data, compared)),
        ("health", "Health", health_section(data)),
        ("curves", "Curves", _curves(panels, flat)),
        ("time", "Time", _time(data, times)),
        ("episodes", "Episodes", _episodes(compared, episodes)),
        ("training", "Training", _training(episodes)),
        ("settings", "Settings", _settings(data)),
    ]
    shown = [(ident, name, body) for ident, name, body in sections if body]
    links = "".join(f'<a href="#{ident}">{name}</a>' for ident, name, _ in shown)
    body = "".join(f'<section id="{ident}">{body}</section>' for ident, _, body in shown)
    words = f"<h1>{overview.headline(data, compared)}</h1><p class=lead>{overview.lead(data, compared)}</p>"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f'<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(data.name)} · Forage</title><style>{asset('report.css')}</style></head><body>"
        f"<header><div class=eyebrow><span>Forage</span> run report</div>"
        f"<div class=hero><div>{words}{_missing(data.missing)}</div>{overview.dumbbells(compared)}</div>"
        f"{overview.facts(data)}</header><nav><div>{links}</div></nav><main>{body}</main>"
        f"<div id=tip role=status hidden></div>"
        f'<script type="application/json" id="data">{script_json({"charts": charts, **episodes})}</script>'
        f"<script>{asset('report.js')}</script></body></html>\n"
    )


def asset(name: str) -> str:
    """The text of a file that belongs to the pages."""
    return files("forage").joinpath("assets", name).read_text("utf-8")


def _missing(said: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in said)
    return f"<ul class=missing>{items}</ul>" if items else ""


def _results(data: RunData, compared: Sequence[Side]) -> str:
    if not compared:
        return ""
    title = "Before and after" if len(compared) == 2 else f"At step {compared[0].evaluation.step:,}"
    note = (
        "Small figures are 95% intervals: Wilson's for shares, normal for F1 and searches. <em>Answer found</em>: a "
        "gold answer stood in a retrieved passage. <em>Searches</em>: run, a question."
    )
    return (
        f"<h2>{title}</h2>{overview.changes(compared)}{overview.comparison(compared)}"
        f"<p class=note>{note}</p>{overview.probes(data)}"
    )


def _curves(panels: Sequence[Panel], flat: Sequence[str]) -> str:
    if not panels:
        return ""
    cards = "".join(card(f"c{i}", panel.title, panel.says, panel.chart) for i, panel in enumerate(panels))
    binned = max(panel.chart.binned for panel in panels)
    notes = []
    if any("line faint" in panel.chart.svg for panel in panels):
        notes.append("Thin lines are single steps, thick ones their rolling mean.")
    if binned > 1:
        notes = [f"Each point is the mean of {binned} steps, thick lines are rolling means of them."]
    if flat:
        notes.append(f"Zero throughout, and so not drawn: {', '.join(flat).lower()}.")
    return f"<h2>Learning curves</h2><div class=grid>{cards}</div><p class=note>{' '.join(notes)}</p>"


def card(ident: str, title: str, says: str, chart: Chart, *, legend: bool = True) -> str:
    """A chart with its title, legend and words; the page's script finds what a pointer shows by `ident`."""
    key = ""
    if legend and len(chart.legend) > 1:
        key = "".join(f'<span><i class="swatch {style}"></i>{escape(name)}</span>' for style, name in chart.legend)
        key = f"<span class=legend>{key}</span>"
    return (
        f'<figure class=card data-chart="{ident}"><figcaption><h3>{escape(title)}</h3>{key}</figcaption>'
        f"{chart.svg}<p>{escape(says)}</p></figure>"
    )


def _step_times(data: RunData) -> Chart | None:
    points = data.column("time/step")
    if len(points) < 2:
        return None
    return line_chart("Seconds a step", [Series("step", "after", points)], timing.duration)


def _time(data: RunData, times: Chart | None) -> str:
    spans = timing.spans(data)
    if not spans:
        return ""
    total = sum(span.seconds for span in spans)
    bar = "".join(
        f'<i class="{span.style}" style="flex-grow:{span.seconds / total:.5f}" '
        f'title="{span.name}: {timing.duration(span.seconds)}, {100 * span.seconds / total:.1f}%"></i>'
        for span in spans
    )
    rows = "".join(
        f'<tr><th scope=row><i class="swatch {span.style}"></i>{span.name} <small>{span.says}</small></th>'
        f"<td>{timing.duration(span.seconds)}</td><td>{100 * span.seconds / total:.1f}%</td></tr>"
        for span in spans
    )
    figures = "".join(
        f"<div><b>{value}</b><span>{name}</span><small>{says}</small></div>"
        for name, value, says in timing.five_figures(data)
    )
    trend = card("ct", "Seconds a step", "Over the run; it follows the episodes' length.", times) if times else ""
    return (
        f"<h2>Where the time of a step goes</h2><div class=five>{figures}</div>"
        f"<p>A mean step takes {timing.duration(total)}.{_waiting(data)}</p><div class=bar>{bar}</div>"
        f"<div class=halves><table class=spans><tbody>{rows}</tbody></table>{trend}</div>"
    )


def _waiting(data: RunData) -> str:
    found = timing.waiting(data)
    if not found:
        return ""
    seconds, share = found
    return (
        f" Of its rollout, <strong>{100 * share:.0f}%</strong> ({timing.duration(seconds)}) passes after nine in ten "
        "episodes have ended: waiting for the slowest, while those still decode."
    )


def _episodes(compared: Sequence[Side], episodes: dict[str, Any]) -> str:
    items = episodes["pairs"]["items"]
    if not items:
        return ""
    title = "The same question, before and after" if len(compared) == 2 else "Questions and how they were answered"
    total = sum(episodes["pairs"]["totals"].values())
    which = "all of them" if len(items) == total else f"{len(items):,} of them, some of every kind"
    return (
        f"<h2>{title}</h2><p>The evaluation asked {total:,} questions; here are {which}. Arrow keys page.</p>"
        "<div id=pairs class=viewer><noscript>Episodes are drawn by a script, which is off.</noscript></div>"
    )


def _training(episodes: dict[str, Any]) -> str:
    if not episodes["train"]:
        return ""
    return (
        "<h2>Training episodes</h2><p>Samples of one question form a group, and are compared with each other: what did "
        "better than its group has a positive advantage. Some groups of some steps.</p>"
        "<div id=train class=viewer><noscript>Episodes are drawn by a script, which is off.</noscript></div>"
    )


def _settings(data: RunData) -> str:
    versions = data.environment.get("versions") or {}
    listed = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    command = data.environment.get("command") or []
    words = " ".join(map(str, command)) if isinstance(command, list) else str(command)
    notes = "".join(
        f"<p class=note>{name}: <code>{escape(value)}</code></p>"
        for name, value in (("Command", words), ("Versions", listed))
        if value
    )
    if not data.config_text and not notes:
        return ""
    return (
        f"<h2>Settings</h2>{notes}<details><summary>The resolved configuration</summary>"
        f"<pre>{escape(data.config_text) or 'config.toml is missing'}</pre></details>"
    )
