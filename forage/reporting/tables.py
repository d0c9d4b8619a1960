"""The tables of `forage compare`: arms, tests between them, settings that differ, runs."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from forage.reporting import timing
from forage.reporting.arms import Arm, Entry, average
from forage.reporting.charts import percent
from forage.reporting.figures import Estimate
from forage.reporting.versus import Contest

SHOWN = 12  # contests that stand open; the rest can be unfolded


def arms_table(arms: Sequence[Arm]) -> str:
    """Every arm's figures."""
    heads = ("Exact match", "F1", "Searches", "Steps", "Episodes", "Training")
    head = "".join(f"<th scope=col>{name}</th>" for name in ("Arm", *heads))
    rows = "".join(_row(arm, heads) for arm in arms)
    note = (
        "Means over seeds. The interval of exact match is for other seeds and other questions: Wilson's over the "
        "questions and the t interval over the seeds, added in quadrature (with one seed, Wilson's alone). "
        "<em>Episodes</em>: played to learn from. <em>Training</em>: of one run, without evaluations."
    )
    return (
        f"<h2>Arms</h2><table class='figures arms'><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
        f"<p class=note>{note}</p>"
    )


def _row(arm: Arm, heads: Sequence[str]) -> str:
    runs, em = len(arm.entries), arm.em
    samples, seconds = average([e.samples for e in arm.entries]), average([e.seconds for e in arm.entries])
    cells = (
        f"<span class=value><b>{percent(em.value)}</b><small>{interval(em)}</small></span>",
        percent(average(arm.column("f1")) or 0.0) if _has(arm, "f1") else "",
        f"{average(arm.column('searches_mean')):.2f}" if _has(arm, "searches_mean") else "",
        f"{max(entry.final.step for entry in arm.entries):,}",
        f"{samples:,.0f}" if samples is not None else "",
        timing.duration(seconds) if seconds is not None else "",
    )
    tds = "".join(f'<td data-label="{name}">{cell}</td>' for name, cell in zip(heads, cells, strict=True))
    seeds = [str(entry.seed) for entry in arm.entries if entry.seed is not None]
    under = f"seed{'s' * (len(seeds) != 1)} {', '.join(seeds)}" if seeds else f"{runs} run{'s' * (runs != 1)}"
    name = f'<span><i class="swatch {arm.style}"></i>{escape(arm.name)}</span>'
    return f"<tr><th scope=row>{name} <small>{under}</small></th>{tds}</tr>"


def _has(arm: Arm, name: str) -> bool:
    return all(name in entry.final.summary for entry in arm.entries)


def interval(estimate: Estimate) -> str:
    """An interval of shares: 94.1–97.3%."""
    return f"{percent(estimate.low).removesuffix('%')}–{percent(estimate.high)}"


def contests_table(contests: Sequence[Contest]) -> str:
    """Every pair of arms on the same questions."""
    if not contests:
        return ""
    ordered = sorted(contests, key=lambda one: (bool(one.refused), one.p_holm, -abs(one.difference)))
    open_, folded = ordered[:SHOWN], ordered[SHOWN:]
    more = f"<details><summary>{len(folded)} more</summary>{_tests(folded)}</details>" if folded else ""
    return f"<h2>The same questions, answered by both</h2>{_tests(open_)}{more}<p class=note>{_how(contests)}</p>"


def _tests(contests: Sequence[Contest]) -> str:
    head = "".join(
        f"<th scope=col>{name}</th>" for name in ("Arms", "Difference", "With other seeds", "p", "Corrected", "")
    )
    rows = "".join(_test(one) for one in contests)
    return f"<table class='figures tests'><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _test(one: Contest) -> str:
    name = f"<th scope=row>{escape(one.b)} <small class=against>against {escape(one.a)}</small></th>"
    if one.refused:
        return f"<tr>{name}<td colspan=5 class=refused>No test: {escape(one.refused)}.</td></tr>"
    seeds = "" if one.seeds_low is None else _points(one.seeds_low, one.seeds_high)
    word = {1: "higher", -1: "lower", 0: "not clear"}[one.verdict]
    style = {1: "good", -1: "bad", 0: "unclear"}[one.verdict]
    difference = f"<b>{signed(one.difference)}</b><small>{_points(one.low, one.high)}</small>"
    return (
        f'<tr>{name}<td data-label="Difference"><span class=value>{difference}</span></td>'
        f'<td data-label="With other seeds">{seeds or "one seed only"}</td><td data-label="p">{chance(one.p)}</td>'
        f'<td data-label="Corrected">{chance(one.p_holm)}</td><td class="verdict {style}">{word}</td></tr>'
    )


def signed(share: float) -> str:
    """A difference of shares in points, with its sign."""
    return f"{100 * share:+.1f}".replace("-", "−")


def _points(low: float, high: float | None) -> str:
    return f"{signed(low)} to {signed(high if high is not None else low)}"


def chance(p: float) -> str:
    """A p value: .034, or <.001."""
    return "&lt;.001" if p < 0.001 else f"{p:.3f}".removeprefix("0")


def _how(contests: Sequence[Contest]) -> str:
    count = sum(not one.refused for one in contests)
    methods = {one.method for one in contests if not one.refused}
    said = ["Differences are in points, with 95% intervals for other questions; the second interval adds other seeds."]
    if "mcnemar" in methods:
        said.append("<em>p</em> of two single runs: McNemar's exact test.")
    if "bootstrap" in methods:
        said.append("<em>p</em> where an arm has several runs: questions drawn anew, 10,000 times, means over seeds.")
    if count > 1:
        said.append(f"<em>Corrected</em>: Holm's correction for {count} tests.")
    said.append("<em>Higher</em> or <em>lower</em>: corrected below .05, and the second interval, if any, without 0.")
    return " ".join(said)


def differences_table(arms: Sequence[Arm], differing: dict[str, list[Any]]) -> str:
    """The settings in which arms differ, and no others."""
    if len(arms) < 2:
        return ""
    if not differing:
        return "<h2>Differences</h2><p>No setting differs.</p>"
    head = "".join(f'<th scope=col><i class="swatch {arm.style}"></i>{escape(arm.name)}</th>' for arm in arms)
    rows = "".join(
        f"<tr><th scope=row><code>{escape(key.removesuffix('.kind'))}</code></th>"
        + "".join(
            f'<td data-label="{escape(arm.name, quote=True)}">{_value(value)}</td>'
            for arm, value in zip(arms, values, strict=True)
        )
        + "</tr>"
        for key, values in differing.items()
    )
    return (
        f"<h2>Settings that differ</h2><div class=wide><table class='figures differing'><thead><tr>"
        f"<th scope=col>Setting</th>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
        "<p class=note>All others are the same. A dash: an arm's part has no such setting.</p>"
    )


def _value(value: Any) -> str:
    if value is None:
        return "–"
    return f"<code>{escape(str(value).lower() if isinstance(value, bool) else str(value))}</code>"


def runs_table(arms: Sequence[Arm], incomplete: Sequence[Entry]) -> str:
    """Every run on its own, with what it ran on."""
    heads = ("Exact match", "Seed", "Training", "Commit", "torch", "Processor")
    head = "".join(f"<th scope=col>{name}</th>" for name in ("Run", *heads))
    rows = "".join(_run(entry, arm.style, heads) for arm in arms for entry in arm.entries)
    rows += "".join(_run(entry, "", heads) for entry in incomplete)
    commits = {str(e.data.environment.get("commit")) for arm in arms for e in arm.entries}
    note = "<p class=note>The runs are of different commits of Forage.</p>" if len(commits) > 1 else ""
    return (
        f"<h2>Runs</h2><div class=wide><table class='figures runs'><thead><tr>{head}</tr></thead>"
        f"<tbody>{rows}</tbody></table></div>{note}"
    )


def _run(entry: Entry, style: str, heads: Sequence[str]) -> str:
    environment = entry.data.environment
    summary = {} if entry.missing else entry.final.summary
    em = Estimate(summary["em"], *summary.get("em_ci", (summary["em"],) * 2)) if summary else None
    exact = f"<span class=value><b>{percent(em.value)}</b><small>{interval(em)}</small></span>" if em else "–"
    cells = (
        exact,
        "" if entry.seed is None else str(entry.seed),
        timing.duration(entry.seconds) if entry.seconds is not None else "",
        escape(_commit(str(environment.get("commit") or ""))),
        escape(str((environment.get("versions") or {}).get("torch") or "")),
        escape(str(environment.get("cpu") or "")),
    )
    tds = "".join(f'<td data-label="{name}">{cell}</td>' for name, cell in zip(heads, cells, strict=True))
    swatch = f'<i class="swatch {style}"></i>' if style else ""
    under = f"<small>{escape(entry.missing)}</small>" if entry.missing else ""
    return f"<tr><th scope=row><span>{swatch}{escape(entry.path)}</span> {under}</th>{tds}</tr>"


def _commit(commit: str) -> str:
    return commit[:10] + ("+changes" if commit.endswith("+changes") else "")
