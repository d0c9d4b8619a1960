"""What finished runs of a row came to: one object of results/ablations.json.

seeds, em       the seeds that are done, and the final exact match of each
em_mean, em_ci  their mean, with its 95% interval over seeds and questions (`over_seeds`: Wilson's interval of the
                questions and the t interval of the seeds, added in quadrature; of one seed Wilson's alone)
em_start        exact match before the first step, mean over seeds
questions       questions of an evaluation
searches        searches a question in the final evaluation, mean over seeds
samples         episodes played to learn from, in one run
steps_to_90, samples_to_90    the first step at which exact match of the sampled episodes, as a mean of the last five
                steps, reaches .90, and the episodes played until then; median over seeds, null where half never do
steps_to_95     the same for .95
curve           for each seed the mean reward of every step
seconds         of training, without evaluations, mean over seeds
collapsed       seeds whose reward, as a mean of five steps, fell by more than .3 below its maximum so far
stability       standard deviation of the change of reward from step to step in the last third, mean over seeds:
                smaller is steadier
versus          against the first row of the group, on the same questions: `difference` in exact match, `ci` for other
                questions, `ci_seeds` for other seeds too (null with one seed), `p` and `p_holm`, which is corrected for
                the rows of the group (docs/evaluation.md says how); null for the first row itself
commit, versions, cpu    what they ran on; several commits are joined by commas
"""

from __future__ import annotations

import functools
import itertools
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ablation_rows import Row, Table

from forage.metrics import mean
from forage.reporting.arms import Arm, Entry, answers, episodes
from forage.reporting.folder import RunData, read_run
from forage.reporting.inference import holm, over_seeds
from forage.reporting.versus import contest

WINDOW, FALL = 5, 0.3


def measure(table: Table, row: Row, runs: dict[int, Path]) -> dict[str, Any]:
    """The figures of a row from the folders of its finished runs, by seed (at least one)."""
    found = {seed: read_run(folder) for seed, folder in sorted(runs.items())}
    data = list(found.values())
    ems = [run.evals[-1].summary["em"] for run in data]
    questions = data[0].evals[-1].summary["n"]
    interval = over_seeds(ems, questions)
    return {
        "name": row.name,
        "group": row.group,
        "note": row.note,
        "recipe": row.recipe,
        "overrides": row.words,
        "common": list(table.common),
        "seeds": list(found),
        "em": [round(em, 4) for em in ems],
        "em_mean": round(interval.value, 4),
        "em_ci": [round(interval.low, 4), round(interval.high, 4)],
        "em_start": _rounded(mean([run.evals[0].summary["em"] for run in data if run.evals[0].step == 0])),
        "questions": questions,
        "searches": round(mean([run.evals[-1].summary["searches_mean"] for run in data]), 2),
        "samples": round(mean([episodes(run)[-1][1] for run in data])),
        "steps_to_90": _median([first_above(run, 0.90)[0] for run in data]),
        "samples_to_90": _median([first_above(run, 0.90)[1] for run in data]),
        "steps_to_95": _median([first_above(run, 0.95)[0] for run in data]),
        "curve": [[_rounded(value) for _, value in run.column("reward/mean")] for run in data],
        "seconds": round(mean([sum(seconds for _, seconds in run.column("time/step")) for run in data]), 1),
        "collapsed": [seed for seed, run in found.items() if collapsed(rewards(run))],
        "stability": _rounded(mean([jitter(rewards(run)) for run in data])),
        "commit": ", ".join(dict.fromkeys(str(run.environment.get("commit"))[:10] for run in data)),
        "versions": {"torch": (data[-1].environment.get("versions") or {}).get("torch")},
        "cpu": data[-1].environment.get("cpu"),
    }


def versus(first: Sequence[Path], others: Sequence[Sequence[Path]]) -> list[dict[str, Any] | None]:
    """Each of a group's other rows against its first, from the folders of their runs; None where nothing is tested."""
    found = [contest(_arm("first", first), _arm("other", folders)) if first and folders else None for folders in others]
    tested = [one for one in found if one and not one.refused]
    corrected = iter(holm([one.p for one in tested]))
    return [
        {
            "difference": _rounded(one.difference),
            "ci": [_rounded(one.low), _rounded(one.high)],
            "ci_seeds": None
            if one.seeds_low is None or one.seeds_high is None
            else [_rounded(one.seeds_low), _rounded(one.seeds_high)],
            "p": _rounded(one.p),
            "p_holm": _rounded(next(corrected)),
        }
        if one and not one.refused
        else None
        for one in found
    ]


def _arm(name: str, folders: Sequence[Path]) -> Arm:
    return Arm(name, "", [_entry(folder) for folder in folders])


@functools.cache
def _entry(folder: Path) -> Entry:
    data = read_run(folder)
    predictions = data.evals[-1].predictions
    return Entry(str(folder), data, "", answers(predictions) if predictions else {})


def rewards(run: RunData) -> list[float]:
    """Mean reward of each step."""
    return [value for _, value in run.column("reward/mean")]


def first_above(run: RunData, level: float) -> tuple[float, float]:
    """The first step whose last five steps' mean share of right answers reaches `level`, and the episodes until then;
    infinite where none does."""
    right = run.column("reward/em") or run.column("reward/mean")
    played = dict(episodes(run))
    for i, value in enumerate(trailing([share for _, share in right])):
        if value >= level:
            step = right[i + WINDOW - 1][0]
            return step, played[step]
    return math.inf, math.inf


def trailing(values: Sequence[float]) -> list[float]:
    """Means of `WINDOW` values in a row; nothing of fewer."""
    return [mean(values[i : i + WINDOW]) for i in range(len(values) - WINDOW + 1)]


def collapsed(values: Sequence[float]) -> bool:
    """Whether the smoothed values fall by more than `FALL` below their maximum so far."""
    highest = -math.inf
    for value in trailing(values):
        highest = max(highest, value)
        if value < highest - FALL:
            return True
    return False


def jitter(values: Sequence[float]) -> float:
    """Standard deviation of the changes from one value to the next, in the last third; 0 of fewer than three."""
    last = values[-(len(values) // 3) - 1 :] if len(values) >= 3 else values
    changes = [after - before for before, after in itertools.pairwise(last)]
    return statistics.stdev(changes) if len(changes) > 2 else 0.0


def _median(values: Sequence[float]) -> float | None:
    found = statistics.median_high(values)
    return None if math.isinf(found) else found


def _rounded(value: float) -> float:
    return round(value, 4)
