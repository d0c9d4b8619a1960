"""Several runs beside each other: arms over seeds, paired tests, curves, and the settings that differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from forage.errors import DataError, RunFolderError
from forage.reporting.arms import Arm, Entry, answers, average, differences, group, whats_missing
from forage.reporting.bands import panels
from forage.reporting.comparing import page
from forage.reporting.folder import read_run
from forage.reporting.versus import Contest, contests


@dataclass(frozen=True, slots=True)
class Comparison:
    """Runs in arms, each pair of arms tested; `incomplete` are the runs without a final evaluation."""

    arms: list[Arm]
    incomplete: list[Entry]
    contests: list[Contest]
    differing: dict[str, list[Any]]

    def as_json(self) -> dict[str, Any]:
        """`runs`, `arms`, `tests` and `differences`, as plain values."""
        named = [(entry, arm.name) for arm in self.arms for entry in arm.entries]
        return {
            "runs": [_run(entry, name) for entry, name in named] + [_run(entry, None) for entry in self.incomplete],
            "arms": [_arm(arm) for arm in self.arms],
            "tests": [_test(one) for one in self.contests],
            "differences": {
                key: dict(zip([arm.name for arm in self.arms], values, strict=True))
                for key, values in self.differing.items()
            },
        }

    def as_text(self) -> str:
        """A line for each arm, then for each run that is left out."""
        width = max(len(arm.name) for arm in self.arms)
        lines = [
            f"{arm.name:<{width}}  exact match {arm.em.value:.3f} [{arm.em.low:.3f}, {arm.em.high:.3f}]  "
            f"{len(arm.entries)} run{'s' * (len(arm.entries) != 1)}"
            for arm in self.arms
        ]
        return "\n".join([*lines, *(f"left out: {entry.path} {entry.missing}" for entry in self.incomplete)])


def compare(runs: Sequence[Path]) -> Comparison:
    """Read runs, group and test them.

    Raises:
        RunFolderError: a folder is no run, stands twice, or no run has a final evaluation.
    """
    entries = [_entry(run) for run in runs]
    folders = [run.resolve() for run in runs]
    if twice := [str(run) for run, folder in zip(runs, folders, strict=True) if folders.count(folder) > 1]:
        raise RunFolderError(f"{twice[0]} is given more than once")
    complete = [entry for entry in entries if not entry.missing]
    if not complete:
        found = "; ".join(f"{entry.path} {entry.missing}" for entry in entries)
        raise RunFolderError(f"there is nothing to compare: {found}")
    arms = group(complete)
    return Comparison(arms, [entry for entry in entries if entry.missing], contests(arms), differences(arms))


def write_comparison(compared: Comparison, out: Path) -> Path:
    """Write a comparison as one HTML file that needs nothing else; returns the file."""
    text = page(compared.arms, compared.incomplete, compared.contests, compared.differing, panels(compared.arms))
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = out.with_name(f".{out.name}.part")
    beside.write_text(text, "utf-8")
    beside.replace(out)
    return out


def _entry(run: Path) -> Entry:
    data = read_run(run)
    entry = Entry(str(run), data, whats_missing(data))
    if not entry.missing and entry.final.predictions:
        try:
            entry.answers = answers(entry.final.predictions)
        except DataError as error:
            entry.missing = f"has predictions that can't be read ({error})"
    return entry


def _run(entry: Entry, arm: str | None) -> dict[str, Any]:
    summary = {} if entry.missing else entry.final.summary
    return {
        "run": entry.path,
        "arm": arm,
        "seed": entry.seed,
        "em": summary.get("em"),
        "em_ci": summary.get("em_ci"),
        "f1": summary.get("f1"),
        "f1_ci": summary.get("f1_ci"),
        "n": summary.get("n"),
        "searches": summary.get("searches_mean"),
        "steps": entry.data.steps,
        "samples": entry.samples,
        "seconds": entry.seconds,
        "commit": entry.data.environment.get("commit"),
        "missing": entry.missing or None,
    }


def _arm(arm: Arm) -> dict[str, Any]:
    em = arm.em
    return {
        "arm": arm.name,
        "runs": [entry.path for entry in arm.entries],
        "seeds": [entry.seed for entry in arm.entries],
        "em": em.value,
        "em_ci": [em.low, em.high],
        "f1": average([entry.final.summary.get("f1") for entry in arm.entries]),
        "searches": average([entry.final.summary.get("searches_mean") for entry in arm.entries]),
        "samples": average([entry.samples for entry in arm.entries]),
        "seconds": average([entry.seconds for entry in arm.entries]),
    }


def _test(one: Contest) -> dict[str, Any]:
    if one.refused:
        return {"a": one.a, "b": one.b, "refused": one.refused}
    return {
        "a": one.a,
        "b": one.b,
        "method": one.method,
        "n": one.n,
        "difference": one.difference,
        "difference_ci": [one.low, one.high],
        "difference_ci_seeds": None if one.seeds_low is None else [one.seeds_low, one.seeds_high],
        "p": one.p,
        "p_holm": one.p_holm,
        "pairs": [asdict(pair) for pair in one.pairs],
    }
