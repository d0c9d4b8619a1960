"""`forage recall`: how often an index finds what a question needs, measured before any training."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from forage.datasets.jsonl import answers_of, ids_of, strings_of
from forage.datasets.lines import read_lines, write_lines
from forage.errors import ConfigError, DataError
from forage.indexing.duplicates import REMOVED, Removed, read_removed
from forage.interfaces import Index
from forage.intervals import normal_interval, wilson
from forage.text import contains_answer
from forage.types import Passage

Progress = Callable[[int, int], None]
StandsFor = tuple[frozenset[str], frozenset[str]]
"""Ids and titles of passages that were left out."""
NOTHING: Mapping[str, StandsFor] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Judged:
    """A question, and what should be found for it."""

    id: str
    text: str
    golds: frozenset[str]
    """ids of passages, or titles; empty where neither is known"""
    by_id: bool
    answers: tuple[str, ...]


def read_judged(path: Path) -> Iterator[Judged]:
    """Questions with `positive_ids` (taken where there are any) or `supporting_titles`, and answers where there are.

    Raises:
        DataError: a line is not usable; names file and line.
    """
    for where, row in read_lines(path):
        text = row.get("question")
        if not isinstance(text, str) or not text.strip():
            raise DataError(f"{where}: `question` must be a string that is not empty, not {text!r:.80}")
        ids = ids_of(row.get("positive_ids") or [], "positive_ids", where)
        titles = strings_of(row.get("supporting_titles") or [], "supporting_titles", where)
        answers = answers_of(row, where, optional=True)
        yield Judged(str(row.get("id", where)), text, frozenset(ids or titles), bool(ids), answers)


def measure_recall(
    index: Index,
    questions: Sequence[Judged],
    ks: Sequence[int] = (3, 10),
    *,
    stands_for: Mapping[str, StandsFor] = NOTHING,
    out: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Ask every question alone, and judge what is found.

    Args:
        index: what is asked.
        questions: at least one.
        ks: depths, ascending or not.
        stands_for: by id, the duplicates that a passage stands for in the index: whoever finds it has found them.
        out: a file of JSON lines to write: the measures of each question, to compare two retrievers on the same ones.
        progress: is told how many questions are done.

    Returns:
        n; recall by k: the mean share of a question's gold passages among the first k; mrr: the mean of 1 / rank of the
        first gold passage among the first max(ks), 0 where there is none; hit_rate by k: the share of questions with
        a gold answer, normalised, in one of the first k passages; latency_ms: p50 and p95 of a single question;
        their 95% intervals under recall_ci, mrr_ci and hit_rate_ci; judged and answered: how many questions name gold
        passages and answers. A measure that no question allows is None.

    Raises:
        DataError: there is no question.
        ConfigError: a depth is less than 1, or more than the passages of the index.
    """
    if not questions:
        raise DataError("there are no questions to measure recall with")
    if not ks or min(ks) < 1:
        raise ConfigError(f"k = {', '.join(map(str, ks))}: each must be at least 1")
    index.lookup([questions[0].text], max(ks))  # opens what is opened once
    rows, seconds = [], []
    for done, question in enumerate(questions, start=1):
        started = time.perf_counter()
        (found,) = index.lookup([question.text], max(ks))
        seconds.append(time.perf_counter() - started)
        rows.append({"id": question.id, **judge(question, found, ks, stands_for)})
        if progress:
            progress(done, len(questions))
    if out:
        write_lines(out, rows)
    p50, p95 = (np.percentile(seconds, [50, 95]) * 1e3).round(3).tolist()
    return summarise(rows, ks) | {"latency_ms": {"p50": p50, "p95": p95}}


def judge(
    question: Judged, found: Sequence[Passage], ks: Sequence[int], stands_for: Mapping[str, StandsFor] = NOTHING
) -> dict[str, Any]:
    """The measures of one question: recall and hit by k, and rr; None where the question does not allow it."""
    golds = question.golds
    names = [_names(passage, question.by_id, stands_for) for passage in found]
    rank = next((rank for rank, here in enumerate(names, start=1) if here & golds), None)
    hits = [contains_answer(f"{p.title} {p.text}", question.answers) for p in found] if question.answers else []
    return {
        "recall": {str(k): len(golds & set().union(*names[:k])) / len(golds) if golds else None for k in ks},
        "rr": (1 / rank if rank else 0.0) if golds else None,
        "hit": {str(k): any(hits[:k]) if question.answers else None for k in ks},
    }


def duplicates_of(folder: Path, removed: Path | None = None) -> dict[str, StandsFor]:
    """What the passages of an index stand for, by id.

    Args:
        folder: of the index, which may have left duplicates out.
        removed: what `forage dedupe` wrote besides, where the index is of what it left.

    Raises:
        DataError: a file is missing or none of these.
    """
    if removed and not removed.exists():
        raise DataError(f"{removed}: there is no such file")
    found: dict[str, list[Removed]] = defaultdict(list)
    for path in (removed, folder / REMOVED):
        for each in read_removed(path) if path else ():
            found[each.kept] += [each, *found.pop(each.removed, ())]
    return {
        kept: (frozenset(r.removed for r in each), frozenset(r.title for r in each)) for kept, each in found.items()
    }


def _names(passage: Passage, by_id: bool, stands_for: Mapping[str, StandsFor]) -> frozenset[str]:
    """What a question may call a passage, or one that it stands for."""
    ids, titles = stands_for.get(passage.id, (frozenset(), frozenset()))
    return ids | {passage.id} if by_id else titles | {passage.title}


def summarise(rows: Sequence[Mapping[str, Any]], ks: Sequence[int]) -> dict[str, Any]:
    """Means and 95% intervals over questions."""
    recall = {str(k): _values(row["recall"][str(k)] for row in rows) for k in ks}
    hits = {str(k): _values(row["hit"][str(k)] for row in rows) for k in ks}
    ranks = _values(row["rr"] for row in rows)
    return {
        "n": len(rows),
        "recall": {k: _mean(values) for k, values in recall.items()},
        "mrr": _mean(ranks),
        "hit_rate": {k: _mean(values) for k, values in hits.items()},
        "recall_ci": {k: normal_interval(values) if values else None for k, values in recall.items()},
        "mrr_ci": normal_interval(ranks) if ranks else None,
        "hit_rate_ci": {k: wilson(sum(values), len(values)) if values else None for k, values in hits.items()},
        "judged": len(ranks),
        "answered": len(next(iter(hits.values()))),
    }


def recall_text(result: Mapping[str, Any]) -> str:
    """The result in words."""
    lines = [f"{result['n']:,} questions, {result['judged']:,} with gold passages, {result['answered']:,} with answers"]
    for name, key in (("recall", "recall"), ("answer in", "hit_rate")):
        lines += [
            f"{name + '@' + k:14} {value:.3f}  (95%: {low:.3f} to {high:.3f})"
            for k, value in result[key].items()
            if value is not None
            for low, high in [result[f"{key}_ci"][k]]
        ]
    if result["mrr"] is not None:
        lines.append(f"{'MRR':14} {result['mrr']:.3f}")
    latency = result["latency_ms"]
    return "\n".join([*lines, f"{'a question':14} {latency['p50']:g} ms, 95% within {latency['p95']:g} ms"])


def _values(values: Iterator[float | None]) -> list[float]:
    return [float(value) for value in values if value is not None]


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
