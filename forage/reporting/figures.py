"""What evaluations say: estimates with 95% intervals, by hop, and what became of each question."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from forage.intervals import normal_interval, wilson
from forage.metrics import mean
from forage.records import Record

CHANGES = ("newly right", "newly wrong", "still wrong", "still right")
ALONE = ("right", "wrong")


class Outcome(NamedTuple):
    """One prediction, without its tokens."""

    question: str
    hops: int | None
    em: float
    f1: float
    hit: float
    searches: int
    stop: str


class Estimate(NamedTuple):
    """A mean with its 95% interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Line:
    """The figures of one set of questions."""

    n: int
    em: Estimate
    f1: Estimate
    hit: Estimate
    searches: Estimate
    answered: Estimate


def outcomes(records: Iterable[Record]) -> list[Outcome]:
    """The outcomes of predictions, in order."""
    return [
        Outcome(
            question_key(r),
            r["question"]["hops"],
            float(r["em"]),
            float(r["f1"]),
            float(r["hit"]),
            sum(turn["action"] == "search" and bool(turn["results"]) for turn in r["turns"]),
            r["stop"] or "",
        )
        for r in records
    ]


def question_key(record: Record) -> str:
    """What a question is known by in every evaluation."""
    return f"{record['question']['dataset']}/{record['question']['id']}"


def line(of: Sequence[Outcome]) -> Line:
    """The figures of outcomes (at least one)."""
    return Line(
        len(of),
        em=_share([o.em for o in of]),
        f1=Estimate(mean([o.f1 for o in of]), *normal_interval([o.f1 for o in of])),
        hit=_share([o.hit for o in of]),
        searches=_count([o.searches for o in of]),
        answered=_share([float(o.stop == "answered") for o in of]),
    )


def _share(values: Sequence[float]) -> Estimate:
    return Estimate(mean(values), *wilson(sum(values), len(values)))


def _count(values: Sequence[int]) -> Estimate:
    """`normal_interval` is of values in [0, 1]: scaled there and back."""
    most = max(*values, 1)
    return Estimate(mean(values), *(most * bound for bound in normal_interval([v / most for v in values])))


def by_hop(of: Sequence[Outcome]) -> dict[str, Line]:
    """`all`, and each number of hops where questions have one."""
    hops = sorted({o.hops for o in of if o.hops is not None})
    return {"all": line(of)} | {hop_name(hop): line([o for o in of if o.hops == hop]) for hop in hops}


def hop_name(hops: int) -> str:
    """`1 hop`, `2 hops`, ..."""
    return f"{hops} hop{'s' * (hops != 1)}"


def paired(before: Sequence[Outcome], after: Sequence[Outcome]) -> list[tuple[Outcome, Outcome]]:
    """The questions that both evaluations asked, in the order of the second."""
    earlier = {o.question: o for o in before}
    return [(earlier[o.question], o) for o in after if o.question in earlier]


def gain(pairs: Sequence[tuple[Outcome, Outcome]]) -> Estimate:
    """Mean change in exact match, question by question, with its interval (narrower than two separate ones)."""
    halves = [(after.em - before.em + 1) / 2 for before, after in pairs]
    low, high = normal_interval(halves)
    return Estimate(2 * mean(halves) - 1, 2 * low - 1, 2 * high - 1)


def change(before: Outcome | None, after: Outcome) -> str:
    """One of CHANGES, or of ALONE where there is no before."""
    if before is None:
        return ALONE[0] if after.em else ALONE[1]
    if after.em:
        return "still right" if before.em else "newly right"
    return "newly wrong" if before.em else "still wrong"
