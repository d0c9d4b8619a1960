"""Arms against each other, on the same questions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from forage.metrics import mean
from forage.reporting.arms import Arm, Entry
from forage.reporting.inference import bootstrap, holm, mcnemar, welch_halfwidth

SURE = 0.05


@dataclass(frozen=True, slots=True)
class Pair:
    """Two runs question by question: how many only one of them got right, and McNemar's exact p."""

    a: str
    b: str
    only_a: int
    only_b: int
    p: float


@dataclass(frozen=True, slots=True)
class Contest:
    """Exact match of arm b less that of arm a. `refused` says why there is no test; then the rest is empty.

    `low`, `high`: 95% interval of the difference for other questions, of these very runs. `seeds_low`, `seeds_high`:
    for other seeds too; None where an arm has one run only. `p` is of these runs, `p_holm` corrected for there being
    several contests.
    """

    a: str
    b: str
    refused: str = ""
    method: str = ""  # mcnemar (one run against one) or bootstrap (means over seeds)
    n: int = 0
    difference: float = 0.0
    low: float = 0.0
    high: float = 0.0
    seeds_low: float | None = None
    seeds_high: float | None = None
    p: float = 1.0
    p_holm: float = 1.0
    pairs: tuple[Pair, ...] = ()

    @property
    def verdict(self) -> int:
        """1 or -1 where b is higher or lower beyond chance: of the questions, and of the seeds where there are
        several; else 0."""
        sure = not self.refused and self.p_holm < SURE
        if self.seeds_low is not None and self.seeds_high is not None:
            sure = sure and not self.seeds_low <= 0 <= self.seeds_high
        return (1 if self.difference > 0 else -1) if sure else 0


def contests(arms: Sequence[Arm]) -> list[Contest]:
    """Every arm against every other, in their order."""
    found = [contest(a, b) for a, b in combinations(arms, 2)]
    tested = [i for i, one in enumerate(found) if not one.refused]
    for i, p in zip(tested, holm([found[i].p for i in tested]), strict=True):
        found[i] = replace(found[i], p_holm=p)
    return found


def contest(a: Arm, b: Arm) -> Contest:
    """Two arms on the questions that all their runs answered; refused where these are not the same."""
    if reason := _incomparable([*a.entries, *b.entries]):
        return Contest(a.name, b.name, refused=reason)
    questions = list(a.entries[0].answers)
    gains = [_mean_of(b, question) - _mean_of(a, question) for question in questions]
    p, low, high = bootstrap(gains)
    pairs = _pairs(a, b)
    single = len(a.entries) == len(b.entries) == 1
    found = Contest(
        a.name,
        b.name,
        method="mcnemar" if single else "bootstrap",
        n=len(questions),
        difference=mean(gains),
        low=low,
        high=high,
        p=pairs[0].p if single else p,
        pairs=pairs,
    )
    if min(len(a.entries), len(b.entries)) < 2:
        return found
    spread, middle = welch_halfwidth(a.column("em"), b.column("em")), found.difference
    return replace(
        found,
        seeds_low=middle - math.hypot(middle - low, spread),
        seeds_high=middle + math.hypot(high - middle, spread),
    )


def _incomparable(entries: Sequence[Entry]) -> str:
    for entry in entries:
        if not entry.answers:
            return f"the predictions of {entry.path} are missing"
    first = entries[0]
    for entry in entries[1:]:
        if entry.answers.keys() != first.answers.keys():
            same = len(entry.answers.keys() & first.answers.keys())
            return (
                f"{first.path} and {entry.path} were asked different questions: {len(first.answers):,} and "
                f"{len(entry.answers):,}, {same:,} of them the same"
            )
    return ""


def _mean_of(arm: Arm, question: str) -> float:
    return mean([entry.answers[question] for entry in arm.entries])


def _pairs(a: Arm, b: Arm) -> tuple[Pair, ...]:
    """Runs of the same seed; or the only two there are."""
    if len(a.entries) == len(b.entries) == 1:
        return (_pair(a.entries[0], b.entries[0]),)
    of_b = {entry.seed: entry for entry in b.entries if entry.seed is not None}
    return tuple(_pair(entry, of_b[entry.seed]) for entry in a.entries if entry.seed in of_b)


def _pair(a: Entry, b: Entry) -> Pair:
    only_a = sum(a.answers[question] > b.answers[question] for question in a.answers)
    only_b = sum(a.answers[question] < b.answers[question] for question in a.answers)
    return Pair(a.path, b.path, only_a, only_b, mcnemar(only_a, only_b))
