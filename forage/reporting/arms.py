"""Runs grouped into arms: those that differ only in their seed stand together."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from forage.configure import dump, load
from forage.errors import ForageError
from forage.metrics import mean
from forage.records import read_records
from forage.reporting.figures import Estimate, question_key
from forage.reporting.folder import Evaluation, RunData
from forage.reporting.inference import over_seeds
from forage.reporting.timing import training_rows
from forage.toml import flatten

OF_A_RUN = ("run.", "tracking.")
"""Settings (beginnings of them) in which the runs of an arm may differ."""
PLAYED = "groups/played"
_SEED = re.compile(r"((^|[-_. ]+)(seed|run|s))?[-_. ]*\d*$")


@dataclass(slots=True)
class Entry:
    """One run as it was given. `missing` says what keeps it from being compared; empty where nothing does."""

    path: str
    data: RunData
    missing: str = ""
    answers: dict[str, float] = field(default_factory=dict)  # exact match of each question of the final evaluation

    @property
    def final(self) -> Evaluation:
        """The evaluation of the last step."""
        return self.data.evals[-1]

    @property
    def seed(self) -> int | None:
        """The run's seed."""
        seed = self.data.config.get("run", {}).get("seed", self.data.environment.get("seed"))
        return seed if isinstance(seed, int) else None

    @property
    def samples(self) -> int | None:
        """Episodes played to learn from."""
        played = episodes(self.data)
        return played[-1][1] if played else None

    @property
    def seconds(self) -> float | None:
        """Seconds of training, without evaluations."""
        times = self.data.column("time/step")
        return sum(value for _, value in times) if times else None


@dataclass(slots=True)
class Arm:
    """Runs of the same settings; `style` is one of the page's colours."""

    name: str
    style: str
    entries: list[Entry]

    @property
    def em(self) -> Estimate:
        """Exact match, mean over seeds, with its interval over seeds and questions."""
        return over_seeds(self.column("em"), min(entry.final.summary["n"] for entry in self.entries))

    def column(self, name: str) -> list[float]:
        """A figure of each run's final evaluation."""
        return [entry.final.summary[name] for entry in self.entries]


def whats_missing(data: RunData) -> str:
    """What keeps a run from being compared, in a sentence; empty where nothing does."""
    if data.supervised:
        return "is a supervised run, which has no evaluation"
    if not data.evals:
        return "has no evaluation; set train.eval_every, or run: forage eval RUN"
    last = data.evals[-1]
    if "em" not in last.summary:
        return f"has no exact match in the summary of step {last.step:,}"
    end = data.planned or data.steps
    if last.step < end:
        stands = f"stands at step {data.steps:,} of {end:,}" if data.steps < end else f"ended at step {end:,}"
        return f"{stands} and was last evaluated at step {last.step:,}"
    return ""


def episodes(data: RunData) -> list[tuple[int, int]]:
    """(step, episodes played to learn from up to and with it); empty where the settings don't say."""
    shape = data.config.get("rollout", {})
    if not {"questions", "samples"} <= shape.keys():
        return []
    total, found = 0, []
    for row in training_rows(data):
        total += round(row.get(PLAYED, shape["questions"]) * shape["samples"])
        found.append((int(row["step"]), total))
    return found


def answers(predictions: Path) -> dict[str, float]:
    """Exact match by question. The question's text belongs to the key: worlds number theirs alike.

    Raises:
        DataError: the file can't be read.
    """
    return {f"{question_key(r)}\n{r['question']['text']}": float(r["em"]) for r in read_records(predictions)}


def settings(entry: Entry) -> dict[str, Any]:
    """What an arm's runs have in common: every setting but seed, folder, device and trackers.

    Settings that a run of an older version did not know have their defaults, as they would on resuming it.
    """
    try:
        written = tomllib.loads(dump(load(entry.path)))
    except ForageError:  # of another version altogether, or with parts that are not here
        written = entry.data.config
    return {key: value for key, value in flatten(written) if not key.startswith(OF_A_RUN)}


def group(entries: Sequence[Entry]) -> list[Arm]:
    """Arms in the order of their first run. Runs without a configuration stand alone."""
    by_settings: dict[str, list[Entry]] = {}
    for entry in entries:
        key = repr(sorted(settings(entry).items())) if entry.data.config else entry.path
        by_settings.setdefault(key, []).append(entry)
    members = list(by_settings.values())
    return [Arm(name, style_of(i), runs) for i, (name, runs) in enumerate(zip(names(members), members, strict=True))]


def style_of(place: int) -> str:
    """One of eight colours; the ninth to sixteenth are dashed."""
    return f"arm{place % 8}" + (" dashed" if place % 16 >= 8 else "")


def names(members: Sequence[Sequence[Entry]]) -> list[str]:
    """A name for each arm: what its folders' names have in common, without a seed, or else the folder they lie in.
    Where two would have the same, the paths as they were given."""
    short = [_common(runs) for runs in members]
    return [
        name if name and short.count(name) == 1 else ", ".join(entry.path for entry in runs)
        for name, runs in zip(short, members, strict=True)
    ]


def _common(runs: Sequence[Entry]) -> str:
    folders = [entry.data.name for entry in runs]
    if len(folders) == 1:
        return folders[0]
    first, last = min(folders), max(folders)
    same = next((i for i, (x, y) in enumerate(zip(first, last, strict=False)) if x != y), len(first))
    above = {Path(entry.path).resolve().parent.name for entry in runs}
    return _SEED.sub("", first[:same]) or (above.pop() if len(above) == 1 else "")


def differences(arms: Sequence[Arm]) -> dict[str, list[Any]]:
    """The settings in which arms differ, with the value of each arm; None where an arm's kind has no such setting."""
    tables = [settings(arm.entries[0]) for arm in arms]
    keys = dict.fromkeys(key for table in tables for key in table)
    columns = {key: [table.get(key) for table in tables] for key in keys}
    return {key: values for key, values in columns.items() if any(value != values[0] for value in values)}


def average(values: Sequence[float | None]) -> float | None:
    """The mean of those that are known; None if none is."""
    known = [value for value in values if value is not None]
    return mean(known) if known else None
