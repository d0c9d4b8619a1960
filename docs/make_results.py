"""Writes docs/results.md and docs/results/*.svg from results/ablations.json and docs/results.in.md:

    python docs/make_results.py

The words stand in docs/results.in.md and are written by hand. In it

    <!-- table: GROUP -->                  becomes the table of a group of rows
    <!-- plot: GROUP -->                   a drawing of it: exact match with intervals, and the rewards on the way
    <!-- lines: GROUP | NAME | PATTERN --> exact match over the number that PATTERN's first group finds in a row's name;
                                           what its second group finds, if it has one, names the line
    {{row.em}}                             a figure in a sentence: em, em_start, samples, samples_to_90, steps_to_90,
                                           steps_to_95, seconds, stability, seeds, difference (to its group's first)
    {{commit}} {{cpu}} {{torch}}           what all rows ran on
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from draw_results import forest, lines

DOCS = Path(__file__).resolve().parent
SOURCE, PAGE, PLOTS = DOCS / "results.in.md", DOCS / "results.md", DOCS / "results"
RESULTS = DOCS.parent / "results" / "ablations.json"
HEAD = "<!-- Made by `python docs/make_results.py` from results.in.md and results/ablations.json: edit those. -->\n"
NONE = "*Not run yet.*"

Result = dict[str, Any]


def pages(source: str, rows: Sequence[Result]) -> dict[str, str]:
    """The page and its drawings: path below docs/ -> text.

    Raises:
        ValueError: a sentence names a row or a figure that there is not.
    """
    made: dict[str, str] = {}

    def directive(found: re.Match[str]) -> str:
        kind, (title, *more) = found[1], [word.strip() for word in found[2].split("|")]
        members = [row for row in rows if row["group"] == title]
        if kind == "lines":
            members = [row for row in members if re.search(more[1], row["name"])]
        if not members:
            return NONE if kind == "table" else ""
        if kind == "table":
            return table(members)
        name = more[0] if more else slug(title)
        made[f"results/{name}.svg"] = forest(title, members) if kind == "plot" else lines(title, members, more[1])
        return f"![{title}: exact match](results/{name}.svg)"

    text = re.sub(r"<!-- (table|plot|lines): (.*?) -->", directive, source)
    text = re.sub(r"\{\{([\w.]+)\}\}", lambda found: figure(found[1], rows), text)
    return {"results.md": HEAD + re.sub(r"\n{3,}", "\n\n", text), **made}


def slug(title: str) -> str:
    """A group's title as a file name."""
    return re.sub(r"\W+", "-", title.lower()).strip("-")


# Figures --------------------------------------------------------------------------------------------------------------


def share(value: float) -> str:
    """.953, and 1.000"""
    return f"{value:.3f}".removeprefix("0")


def exact(row: Result) -> str:
    """Exact match with its interval."""
    low, high = row["em_ci"]
    return f"{share(row['em_mean'])} [{share(low)}, {share(high)}]"


def count(value: float | None) -> str:
    """12,345; or never."""
    return "never" if value is None else f"{value:,.0f}"


def difference(row: Result) -> str:
    """A difference to the first row of a group in points, with its widest interval."""
    found = row.get("versus")
    if not found:
        return "–"
    low, high = found["ci_seeds"] or found["ci"]
    return f"{_points(found['difference'])} [{_points(low)}, {_points(high)}]"


def _points(value: float) -> str:
    return f"{100 * value:+.1f}".replace("-", "−")


FIGURES: dict[str, Callable[[Result], str]] = {
    "em": exact,
    "em_start": lambda row: share(row["em_start"]),
    "samples": lambda row: count(row["samples"]),
    "samples_to_90": lambda row: count(row["samples_to_90"]),
    "steps_to_90": lambda row: count(row["steps_to_90"]),
    "steps_to_95": lambda row: count(row["steps_to_95"]),
    "seconds": lambda row: f"{row['seconds']:.0f}",
    "stability": lambda row: share(row["stability"]),
    "seeds": lambda row: str(len(row["seeds"])),
    "difference": difference,
}


def figure(word: str, rows: Sequence[Result]) -> str:
    """What stands for {{word}}."""
    everywhere = {"commit": "commit", "cpu": "cpu"}
    if word in everywhere or word == "torch":
        values = [row["versions"]["torch"] if word == "torch" else row[everywhere[word]] for row in rows]
        found = dict.fromkeys(part for value in values for part in str(value).split(", "))
        return ", ".join(f"`{value}`" if word == "commit" else value for value in found) or "–"
    name, _, field = word.rpartition(".")
    row = next((row for row in rows if row["name"] == name), None)
    if row is None or field not in FIGURES:
        raise ValueError(f"{{{{{word}}}}}: there is no such {'row' if row is None else 'figure'}")
    return FIGURES[field](row)


# The table ------------------------------------------------------------------------------------------------------------


def table(rows: Sequence[Result]) -> str:
    """A group's rows."""
    heads = ["", "settings", "exact match", "each seed", f"less `{rows[0]['name']}`, points", "episodes", "to .90"]
    heads += ["s", "unrest"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|", *(_line(row) for row in rows)]
    notes = [f"`{row['name']}`: {row['note']}." for row in rows if row["note"]]
    fallen = [f"`{row['name']}` (seed {', '.join(map(str, row['collapsed']))})" for row in rows if row["collapsed"]]
    notes += [f"Collapsed on the way: {', '.join(fallen)}."] if fallen else []
    return "\n".join(lines) + (f"\n\n{' '.join(notes)}" if notes else "")


def _line(row: Result) -> str:
    settings = "<br>".join(f"`{word}`".replace("|", "\\|") for word in row["overrides"]) or "the recipe's"
    seeds = " ".join(share(em) for em in row["em"])
    cells = [f"**{row['name']}**", settings, exact(row), seeds, _starred(row), count(row["samples"])]
    cells += [count(row["samples_to_90"]), f"{row['seconds']:.0f}", share(row["stability"])]
    return f"| {' | '.join(cells)} |"


def _starred(row: Result) -> str:
    """A difference, in bold where it is beyond chance: of the questions, corrected, and of the seeds."""
    found = row.get("versus")
    if not found:
        return "–"
    low, high = found["ci_seeds"] or found["ci"]
    sure = found["p_holm"] < 0.05 and not low <= 0 <= high
    return f"**{difference(row)}**" if sure else difference(row)


def main() -> None:
    """Write the page and its drawings; drawings of no group any more go."""
    rows = json.loads(RESULTS.read_text("utf-8")) if RESULTS.is_file() else []
    made = pages(SOURCE.read_text("utf-8"), rows)
    for file in PLOTS.glob("*.svg"):
        file.unlink()
    for path, text in made.items():
        (DOCS / path).parent.mkdir(exist_ok=True)
        (DOCS / path).write_text(text, "utf-8")


if __name__ == "__main__":
    main()
