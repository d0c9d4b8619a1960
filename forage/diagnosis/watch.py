"""Rules over the rows of a run, each told once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from forage.config import Diagnosis
from forage.diagnosis.history import History
from forage.diagnosis.rules import RULES


@dataclass(frozen=True, slots=True)
class Finding:
    """What was seen of a run, at which step; `since` is the step that it began with."""

    rule: str
    step: int
    since: int
    says: str
    advice: str
    collapse: bool

    def __str__(self) -> str:
        return f"{self.says}. {self.advice}"


class Watch:
    """Looks at a run row by row. What it finds depends on the rows alone, so a resumed run finds the same."""

    def __init__(self, limits: Diagnosis, max_searches: int = 0) -> None:
        self._limits = limits
        self._history = History(limits.window, max_searches)
        self._told: set[str] = set()

    def look(self, row: Mapping[str, Any]) -> list[Finding]:
        """Take up a step's row (with its `step`); what is seen for the first time. Rows without reward are passed."""
        if "reward/mean" not in row:
            return []
        self._history.add(row)
        found = []
        for rule in RULES:
            if rule.name not in self._told and (seen := rule.check(self._history, self._limits)):
                self._told.add(rule.name)
                found.append(Finding(rule.name, row["step"], seen.since, seen.says, rule.advice, rule.collapse))
        return found


def diagnose(rows: Iterable[Mapping[str, Any]], limits: Diagnosis, max_searches: int = 0) -> list[Finding]:
    """All findings of a run's rows, in the order of their steps.

    Args:
        rows: metrics, one row a step, ascending.
        limits: thresholds.
        max_searches: searches that an episode may run; 0 where that is not known.
    """
    watch = Watch(limits, max_searches)
    return [finding for row in rows for finding in watch.look(row)]
