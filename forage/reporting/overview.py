"""The top of a report: what run it was, what came of it, and the tables behind that."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from forage.errors import DataError
from forage.records import read_records
from forage.reporting.charts import Format, number, percent
from forage.reporting.figures import CHANGES, Estimate, Line, Outcome, by_hop, change, gain, hop_name, outcomes, paired
from forage.reporting.folder import Evaluation, RunData
from forage.reporting.timing import duration, seconds_of_run


@dataclass(frozen=True, slots=True)
class Side:
    """One evaluation with its figures. Without predictions there are no `outcomes`, and no `lines`."""

    evaluation: Evaluation
    outcomes: list[Outcome]
    lines: dict[str, Line]

    @property
    def em(self) -> Estimate:
        """Exact match over all questions, as the evaluation itself wrote it."""
        summary = self.evaluation.summary
        return Estimate(summary["em"], *summary.get("em_ci", (summary["em"],) * 2))


def sides(data: RunData) -> tuple[list[Side], list[str]]:
    """The first and the last evaluation (or the only one), and what could not be read, in sentences."""
    chosen = [data.evals[0], data.evals[-1]] if len(data.evals) > 1 else data.evals
    read, complaints = [], []
    for evaluation in chosen:
        found: list[Outcome] = []
        if evaluation.predictions:
            try:
                found = outcomes(read_records(evaluation.predictions))
            except DataError as error:
                complaints.append(f"Predictions are left out: {error}.")
        read.append(Side(evaluation, found, by_hop(found) if found else {}))
    return read, complaints


def headline(data: RunData, compared: Sequence[Side]) -> str:
    """The run in one sentence."""
    name = escape(data.name)
    if len(compared) == 2:
        before, after = compared
        verb, last = _verb(before, after), f"<strong>{percent(after.em.value)}</strong>"
        if not verb:
            return f"{name}: exact match did not clearly change ({percent(before.em.value)} → {last})"
        return f"{name}: exact match {verb} from {percent(before.em.value)} to {last}"
    if compared:
        return f"{name}: exact match <strong>{percent(compared[0].em.value)}</strong>"
    losses = data.column("loss/policy") if data.supervised else []
    if losses:
        return f"{name}: loss from {number(losses[0][1])} to <strong>{number(losses[-1][1])}</strong>"
    rewards = data.column("reward/mean")
    if rewards:
        return f"{name}: reward from {number(rewards[0][1])} to <strong>{number(rewards[-1][1])}</strong>"
    return f"{name}: nothing measured yet"


def _verb(before: Side, after: Side) -> str:
    """Empty where the interval of the difference holds zero."""
    pairs = paired(before.outcomes, after.outcomes)
    low, high = gain(pairs)[1:] if pairs else (after.em.low - before.em.high, after.em.high - before.em.low)
    if low > 0:
        return "rose"
    return "fell" if high < 0 else ""


def lead(data: RunData, compared: Sequence[Side]) -> str:
    """The numbers behind the headline, in prose."""
    said = []
    if len(compared) == 2:
        before, after = (f"{_bounds(side.em, percent)}" for side in compared)
        said.append(
            f"Measured greedily on {compared[1].evaluation.summary['n']:,} questions held out from training; "
            f"95% intervals {before} before and {after} after."
        )
    elif compared:
        only = compared[0]
        said.append(
            f"Measured greedily at step {only.evaluation.step:,} on {only.evaluation.summary['n']:,} held-out "
            f"questions; 95% interval {_bounds(only.em, percent)}."
        )
    elif data.supervised:
        said.append("A supervised run: it learns from episodes that are given, and is not evaluated on the way.")
    if data.rows:
        steps, rollout = f"{data.steps:,} step{'s' * (data.steps != 1)}", data.config.get("rollout", {})
        if not data.supervised and "questions" in rollout and "samples" in rollout:
            steps += f" of {rollout['questions']:,} questions × {rollout['samples']} samples"
        said.append(f"{steps} took {duration(seconds_of_run(data)[0])}.")
    return escape(" ".join(said))


def _bounds(estimate: Estimate, show: Format) -> str:
    return f"{show(estimate.low).removesuffix('%')}–{show(estimate.high)}"


def facts(data: RunData) -> str:
    """A definition list of what the result depends on."""
    environment, config = data.environment, data.config
    training, evaluating = seconds_of_run(data)
    commit = str(environment.get("commit") or "")
    pairs = [
        ("Model", _model(data)),
        ("Data", _joined(_table(config, "data", "kind"), "seed", _table(config, "data", "seed"))),
        ("Search", _joined(_table(config, "search", "kind"), "k =", _table(config, "search", "k"))),
        ("Steps", f"{data.steps:,}" + (f" of {data.planned:,}" if data.planned != data.steps else "")),
        ("Training", duration(training) if training else ""),
        ("Evaluation", duration(evaluating) if evaluating else ""),
        ("All in all", duration(data.result["total_seconds"]) if data.result.get("total_seconds") else ""),
        ("Hardware", _hardware(environment)),
        ("Commit", commit[:10] + (" with changes" if commit.endswith("+changes") else "")),
        ("Seed", _table(config, "run", "seed") or str(environment.get("seed", ""))),
        ("Started", str(environment.get("time", "")).replace("T", " ")[:16]),
    ]
    return (
        "<dl class=facts>"
        + "".join(f"<div><dt>{name}</dt><dd>{escape(value)}</dd></div>" for name, value in pairs if value)
        + "</dl>"
    )


def _model(data: RunData) -> str:
    fresh = data.config.get("sft", {}).get("fresh", {})
    if data.supervised and fresh.get("tokenizer"):
        return f"made new: {fresh.get('layers')} layers of {fresh.get('hidden')}"
    return _table(data.config, "model", "path")


def _table(config: dict[str, Any], table: str, key: str) -> str:
    value = config.get(table, {}).get(key, "")
    return str(value)


def _joined(first: str, word: str, second: str) -> str:
    return f"{first}, {word} {second}" if first and second else first


def _hardware(environment: dict[str, Any]) -> str:
    torch = environment.get("torch") or {}
    cores, memory = environment.get("cores"), environment.get("memory_gb")
    parts = [
        torch.get("gpu"),
        environment.get("cpu"),
        f"{cores} cores" if cores else "",
        f"{memory} GB" if memory else "",
    ]
    return ", ".join(str(part) for part in parts if part)


def dumbbells(compared: Sequence[Side]) -> str:
    """Exact match by hop as dots with whiskers, before and after on one track."""
    if not compared or not compared[-1].lines:
        return ""
    names = [name for name in compared[-1].lines if all(name in side.lines for side in compared)]
    styles = ("before", "after")[-len(compared) :]
    rows = ""
    for name in names:
        ranges, points, values = "", "", []
        for style, side in zip(styles, compared, strict=True):
            em = side.lines[name].em
            wide = 100 * (em.high - em.low)
            ranges += f'<i class="range {style}" style="left:{100 * em.low:.2f}%;width:{wide:.2f}%"></i>'
            points += f'<b class="point {style}" style="left:{100 * em.value:.2f}%"></b>'
            values.append(f'<span class="{style}">{percent(em.value)}</span>')
        label = "all" if name == "all" else name
        track = f"<div class=track>{ranges}{points}</div>"
        rows += f"<div class=bell><span>{label}</span>{track}<span>{' '.join(values)}</span></div>"
    key = "".join(
        f'<span><i class="swatch {s}"></i>step {side.evaluation.step:,}</span>'
        for s, side in zip(styles, compared, strict=True)
    )
    scale = "<div class=scale><span>0%</span><span>50%</span><span>100%</span></div>"
    axis = f"<div class='bell axis'><span></span>{scale}<span></span></div>"
    caption = f"<figcaption>Exact match by hops <span class=legend>{key}</span></figcaption>"
    return f"<figure class=bells>{caption}{rows}{axis}</figure>"


COLUMNS = (
    ("Exact match", "em", percent),
    ("F1", "f1", percent),
    ("Answer found", "hit", percent),
    ("Searches", "searches", lambda v: f"{v:.2f}"),
    ("Answered", "answered", percent),
)


def comparison(compared: Sequence[Side]) -> str:
    """The table by hop: each figure with its interval, before and after."""
    if not compared or not compared[-1].lines:
        return _bare_table(compared)
    head = "".join(f"<th scope=col>{name}</th>" for name, _, _ in COLUMNS)
    rows = ""
    for name, last in compared[-1].lines.items():
        cells = ""
        for title, attribute, show in COLUMNS:
            estimates = [getattr(side.lines[name], attribute) for side in compared if name in side.lines]
            cells += f'<td data-label="{title}">{_cell(estimates, show)}</td>'
        label = "All" if name == "all" else name
        rows += f"<tr><th scope=row>{label} <small>{last.n:,}</small></th>{cells}</tr>"
    return (
        f"<table class=figures><thead><tr><th scope=col>Questions</th>{head}</tr></thead><tbody>{rows}</tbody></table>"
    )


def _cell(estimates: Sequence[Estimate], show: Format) -> str:
    styles = ("before", "after")[-len(estimates) :]
    parts = [
        f'<span class="value {style}"><b>{show(e.value)}</b><small>{_bounds(e, show)}</small></span>'
        for style, e in zip(styles, estimates, strict=True)
    ]
    return "<span class=pairing>" + '<i class=arrow aria-label="to">→</i>'.join(parts) + "</span>"


def _bare_table(compared: Sequence[Side]) -> str:
    """What summaries alone say, where predictions are missing."""
    rows = "".join(
        f"<tr><th scope=row>step {side.evaluation.step:,} <small>{side.evaluation.summary['n']:,}</small></th>"
        f'<td data-label="Exact match">{_cell([side.em], percent)}</td>'
        + "".join(
            f'<td data-label="{hop_name(int(hop))}">{percent(em)}</td>'
            for hop, em in side.evaluation.summary.get("by_hop", {}).items()
        )
        + "</tr>"
        for side in compared
    )
    return f"<table class=figures><tbody>{rows}</tbody></table>" if rows else ""


def changes(compared: Sequence[Side]) -> str:
    """What became of the questions, in a sentence."""
    pairs = paired(compared[0].outcomes, compared[1].outcomes) if len(compared) == 2 else []
    if not pairs:
        return ""
    counts, by = Counter(change(before, after) for before, after in pairs), gain(pairs)
    listed = ", ".join(f"{counts[kind]:,} {kind}" for kind in CHANGES)
    return (
        f"<p>Of {len(pairs):,} questions {listed}. Question by question that is a change of "
        f"<strong>{_signed(by.value)} points</strong> in exact match (95% interval {_signed(by.low)} to "
        f"{_signed(by.high)}).</p>"
    )


def _signed(share: float) -> str:
    return f"{100 * share:+.1f}".replace("-", "−")


def probes(data: RunData) -> str:
    """Evaluations with other settings than the run's own."""
    if not data.probes:
        return ""
    rows = "".join(
        f"<tr><th scope=row>{escape(e.name)}</th><td data-label='Exact match'>{percent(e.summary['em'])}</td>"
        f"<td data-label='Answer found'>{percent(e.summary.get('hit_rate', 0.0))}</td>"
        f"<td data-label='Questions'>{e.summary['n']:,}</td></tr>"
        for e in data.probes
    )
    head = "<tr><th>Evaluated with other settings</th><th>Exact match</th><th>Answer found</th><th>Questions</th></tr>"
    return f"<table class='figures probes'><thead>{head}</thead><tbody>{rows}</tbody></table>"
