"""`forage fuse`: how the two parts of a hybrid index are fused best, by training questions."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec

from forage.errors import ConfigError, DataError
from forage.indexing.folder import read_info, write_info
from forage.indexing.hybrid import LEXICAL_WEIGHT, Fusion
from forage.indexing.store import PassageStore
from forage.intervals import normal_interval
from forage.options import undotted
from forage.recall import Judged, duplicates_of, judge, read_judged
from forage.retrievers.fusion import Ranking
from forage.retrievers.hybrid import HybridIndex, fuse
from forage.retrievers.indexed import open_index

NOTHING: Mapping[str, Any] = MappingProxyType({})
FUSION = ("fusion", "depth", "lexical_weight")
"""Options of an opening that are chosen here."""
Progress = Callable[[int, int], None]
WEIGHTS = (*(n / 100 for n in range(10)), *(n / 20 for n in range(2, 21)))
"""That are tried; finer near 0, because the cosines of some encoders lie close together."""
_AT_ONCE = 64
_LISTED = 10  # passages that the first gold one is looked for in


def fit_fusion(
    folder: Path,
    questions: Path,
    *,
    k: int = 3,
    options: Mapping[str, Any] = NOTHING,
    keep: bool = True,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure recall@k of reciprocal ranks and of each weight, and write the best into the index.

    Args:
        folder: a hybrid index.
        questions: of training, with `positive_ids` or `supporting_titles`; others are left out. What is chosen on them
            must not be reported on them.
        k: how many passages count.
        options: of opening the index, such as `encoder.path`; none of the fusion.
        keep: write the choice, with the questions' name and SHA-256, into index.json.
        progress: is told how many questions are done.

    Returns:
        n; `tried`: fusion, lexical_weight, recall@k with its 95% interval and mrr (of the first 10) of each; `best`:
        the one with the highest recall, of equal ones that with the highest mrr, then ranks, then the weight that is
        nearest to the default; `written`.

    Raises:
        ConfigError: the index is not hybrid, k is less than 1, or an option is unknown or one of the fusion.
        DataError: no question names gold passages.
    """
    if k < 1:
        raise ConfigError(f"k = {k}, but it must be at least 1")
    opening = undotted(options)
    if idle := [name for name in FUSION if name in opening]:
        raise ConfigError(f"{idle[0]} does nothing here: forage fuse tries them all, and chooses")
    index = open_index(folder, **opening)
    if not isinstance(index, HybridIndex):
        raise ConfigError(f"{folder} is no hybrid index; make one with: forage index CORPUS --kind hybrid --out DIR")
    asked = [replace(each, answers=()) for each in read_judged(questions) if each.golds]
    if not asked:
        raise DataError(f"{questions}: no question has `positive_ids` or `supporting_titles`")
    grid = [Fusion.of("rrf"), *(Fusion.of("weighted", None, weight) for weight in WEIGHTS)]
    tried = [
        _row(fusion, measures)
        for fusion, measures in zip(grid, _measures(index, folder, asked, k, grid, progress), strict=True)
    ]
    best = max(range(len(grid)), key=lambda place: goodness(tried[place]))
    if keep:
        fitted = {"questions": questions.name, "sha256": _sha256(questions), "n": len(asked), "k": k}
        _write(folder, msgspec.structs.replace(grid[best], fitted=fitted | {"recall": tried[best]["recall"]}))
    return {"n": len(asked), "k": k, "tried": tried, "best": tried[best], "written": keep}


def fuse_text(found: Mapping[str, Any]) -> str:
    """The result in words."""
    lines = [_line(row, "  best" if row is found["best"] else "") for row in found["tried"]]
    written = "written into index.json" if found["written"] else "not written"
    return "\n".join([f"recall@{found['k']} of {found['n']:,} questions", *lines, f"{_name(found['best'])}: {written}"])


def _line(row: Mapping[str, Any], more: str) -> str:
    low, high = row["recall_ci"]
    return f"{_name(row):22} {row['recall']:.3f}  (95%: {low:.3f} to {high:.3f})  MRR {row['mrr']:.3f}{more}"


def _measures(
    index: HybridIndex,
    folder: Path,
    asked: Sequence[Judged],
    k: int,
    grid: Sequence[Fusion],
    progress: Progress | None,
) -> list[list[tuple[float, float]]]:
    """For each fusion of the grid, recall@k and 1 / rank of each question. The parts are asked once a question."""
    k, listed = min(k, len(index)), min(max(k, _LISTED), len(index))
    deepest = min(max(k, *(fusion.depth for fusion in grid)), len(index))
    store, same = PassageStore(folder), duplicates_of(folder)
    found: list[list[tuple[float, float]]] = [[] for _ in grid]
    for start in range(0, len(asked), _AT_ONCE):
        some = asked[start : start + _AT_ONCE]
        both = index.rankings([question.text for question in some], deepest)
        for question, (lexical, dense) in zip(some, both, strict=True):
            held = {row: store[row] for row in {*lexical[0].tolist(), *dense[0].tolist()}}
            for fusion, measures in zip(grid, found, strict=True):
                depth = min(max(fusion.depth, k), deepest)
                best = fuse(fusion, _cut(lexical, depth), _cut(dense, depth), listed, depth)
                judged = judge(question, [held[row] for row, _ in best], [k], same)
                measures.append((judged["recall"][str(k)], judged["rr"]))
        if progress:
            progress(min(start + _AT_ONCE, len(asked)), len(asked))
    return found


def _cut(ranking: Ranking, depth: int) -> Ranking:
    rows, scores = ranking
    return rows[:depth], scores[:depth]


def _row(fusion: Fusion, measures: Sequence[tuple[float, float]]) -> dict[str, Any]:
    recalls, ranks = zip(*measures, strict=True)
    return {
        "fusion": fusion.method,
        "lexical_weight": fusion.lexical_weight,
        "recall": math.fsum(recalls) / len(recalls),
        "recall_ci": normal_interval(recalls),
        "mrr": math.fsum(ranks) / len(ranks),
    }


def goodness(row: Mapping[str, Any]) -> tuple[float, float, float]:
    """What makes a row of `tried` better than another: the larger, the better."""
    weight = row["lexical_weight"]
    return row["recall"], row["mrr"], 0.0 if weight is None else -abs(weight - LEXICAL_WEIGHT)


def _name(row: Mapping[str, Any]) -> str:
    return "rrf" if row["lexical_weight"] is None else f"lexical_weight={row['lexical_weight']:g}"


def _write(folder: Path, fusion: Fusion) -> None:
    """The same index with another fusion. No other file changes."""
    info = read_info(folder)
    write_info(folder, msgspec.structs.replace(info, options=info.options | {"fusion": msgspec.to_builtins(fusion)}))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
