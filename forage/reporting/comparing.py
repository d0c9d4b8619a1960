"""The page of `forage compare`: arms beside each other, tested, drawn, and their settings where they differ."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from forage.reporting.arms import Arm, Entry
from forage.reporting.charts import percent
from forage.reporting.curves import Panel
from forage.reporting.episodes import script_json
from forage.reporting.page import POLICY, asset, card
from forage.reporting.tables import arms_table, contests_table, differences_table, runs_table
from forage.reporting.versus import Contest


def page(
    arms: Sequence[Arm],
    incomplete: Sequence[Entry],
    contests: Sequence[Contest],
    differing: dict[str, list[Any]],
    panels: Sequence[Panel],
) -> str:
    """The whole page, which needs nothing else."""
    charts = {f"c{i}": panel.chart.hover for i, panel in enumerate(panels)}
    data = {"charts": charts, "pieces": [], "passages": [], "pairs": {"items": []}, "train": []}
    sections = [
        ("arms", "Arms", arms_table(arms)),
        ("tests", "Tests", contests_table(contests)),
        ("curves", "Curves", curves(panels, arms)),
        ("settings", "Differences", differences_table(arms, differing)),
        ("runs", "Runs", runs_table(arms, incomplete)),
    ]
    shown = [section for section in sections if section[2]]
    links = "".join(f'<a href="#{ident}">{name}</a>' for ident, name, _ in shown)
    body = "".join(f'<section id="{ident}">{inside}</section>' for ident, _, inside in shown)
    words = f"<h1>{headline(arms, contests)}</h1><p class=lead>{lead(arms)}</p>{_missing(incomplete)}"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f'<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(_title(arms))} · Forage</title>"
        f"<style>{asset('report.css')}{asset('compare.css')}</style></head><body>"
        f"<header><div class=eyebrow><span>Forage</span> comparison</div>"
        f"<div class=hero><div>{words}</div>{forest(arms)}</div></header>"
        f"<nav><div>{links}</div></nav><main>{body}</main><div id=tip role=status hidden></div>"
        f'<script type="application/json" id="data">{script_json(data)}</script>'
        f"<script>{asset('report.js')}</script></body></html>\n"
    )


def _title(arms: Sequence[Arm]) -> str:
    names = [arm.name for arm in arms]
    return ", ".join(names) if len(names) < 4 else f"{', '.join(names[:3])} and {len(names) - 3} more"


def headline(arms: Sequence[Arm], contests: Sequence[Contest]) -> str:
    """What came of it, in one sentence."""
    if len(arms) == 1:
        return f"{escape(arms[0].name)}: exact match <strong>{percent(arms[0].em.value)}</strong>"
    best = max(arms, key=lambda arm: arm.em.value)
    first = f"{escape(best.name)} is highest, <strong>{percent(best.em.value)}</strong>"
    refused = any(one.refused for one in contests if best.name in (one.a, one.b))
    equal = _not_below(best, arms, contests)
    others = len(arms) - 1
    if refused:
        return f"{first}; not all arms were asked the same questions"
    if not equal:
        return f"{first}, above {'the other' if others == 1 else f'all {others} others'} beyond chance"
    if len(equal) == others:
        return f"{first}, but {'not clearly so' if others == 1 else 'no other is clearly below it'}"
    return f"{first}; {_listed(equal)} cannot be told apart from it"


def _not_below(best: Arm, arms: Sequence[Arm], contests: Sequence[Contest]) -> list[str]:
    """Arms that no test puts below the best, nearest first."""
    below = {one.b for one in contests if one.a == best.name and one.verdict == -1}
    below |= {one.a for one in contests if one.b == best.name and one.verdict == 1}
    others = sorted((arm for arm in arms if arm is not best), key=lambda arm: -arm.em.value)
    return [arm.name for arm in others if arm.name not in below]


def _listed(names: Sequence[str]) -> str:
    shown = [escape(name) for name in names[:3]]
    more = len(names) - len(shown)
    if more:
        return f"{', '.join(shown)} and {more} more"
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)


def lead(arms: Sequence[Arm]) -> str:
    """What was compared, in prose."""
    total = sum(len(arm.entries) for arm in arms)
    asked = sorted({entry.final.summary["n"] for arm in arms for entry in arm.entries})
    questions = f"{asked[0]:,}" if len(asked) == 1 else f"{asked[0]:,} to {asked[-1]:,}"
    said = f"{total} run{'s' * (total != 1)} in {len(arms)} arm{'s' * (len(arms) != 1)}"
    seeded = " Runs that differ in their seed only form an arm." if total > len(arms) else ""
    return f"{said}, each measured greedily after its last step, on {questions} held-out questions.{seeded}"


def _missing(incomplete: Sequence[Entry]) -> str:
    items = "".join(f"<li>Left out: <code>{escape(e.path)}</code> {escape(e.missing)}.</li>" for e in incomplete)
    return f"<ul class=missing>{items}</ul>" if items else ""


def forest(arms: Sequence[Arm]) -> str:
    """Exact match of each arm as a dot with its interval, and a stroke for each seed."""
    low = min([arm.em.low for arm in arms] + [min(arm.column("em")) for arm in arms])
    start = 0.0 if low < 0.4 else 0.1 * int(10 * low)

    def left(value: float) -> str:
        return f"{100 * (value - start) / (1 - start):.2f}%"

    rows = ""
    for arm in sorted(arms, key=lambda arm: -arm.em.value):
        em = arm.em
        wide = 100 * (em.high - em.low) / (1 - start)
        strokes = "".join(f'<u style="left:{left(one)}"></u>' for one in arm.column("em") if len(arm.entries) > 1)
        track = (
            f'<div class=track><i class="range {arm.style}" style="left:{left(em.low)};width:{wide:.2f}%"></i>'
            f'<span class="seeds {arm.style}">{strokes}</span>'
            f'<b class="point {arm.style}" style="left:{left(em.value)}"></b></div>'
        )
        rows += f"<div class=bell><span>{escape(arm.name)}</span>{track}<span>{percent(em.value)}</span></div>"
    marks = "".join(f"<span>{100 * (start + (1 - start) * part):.0f}%</span>" for part in (0, 0.5, 1))
    axis = f"<div class='bell axis'><span></span><div class=scale>{marks}</div><span></span></div>"
    key = "<span class=legend>95% intervals" + (
        "; a stroke for each seed</span>" if any(len(arm.entries) > 1 for arm in arms) else "</span>"
    )
    return f"<figure class='bells forest'><figcaption>Exact match {key}</figcaption>{rows}{axis}</figure>"


def curves(panels: Sequence[Panel], arms: Sequence[Arm]) -> str:
    """All charts below one legend."""
    if not panels:
        return ""
    cards = "".join(card(f"c{i}", p.title, p.says, p.chart, legend=False) for i, p in enumerate(panels))
    key = "".join(f'<span><i class="swatch {arm.style}"></i>{escape(arm.name)}</span>' for arm in arms)
    seeds = " Bands reach from the lowest to the highest seed." if any(len(a.entries) > 1 for a in arms) else ""
    note = f"Each run is smoothed over a twelfth of its length (exact match is not).{seeds}"
    return (
        f"<h2>Curves</h2><p class='legend key-of-arms'>{key}</p><div class=grid>{cards}</div><p class=note>{note}</p>"
    )
