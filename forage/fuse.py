"""`forage fuse`: how the two parts of a hybrid index are fused best, by training questions."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from forage.errors import ConfigError, DataError
from forage.indexing.folder import read_info, write_info
from forage.indexing.hybrid import Fusion
from forage.indexing.store import PassageStore
from forage.intervals import normal_interval
from forage.recall import Judged, judge, read_judged
from forage.retrievers.fusion import Ranking
from forage.retrievers.hybrid import HybridIndex, fuse
from forage.retrievers.indexed import open_index
from forage.types import Passage

Progress = Callable[[int, int], None]
_AT_ONCE = 64


def fit_fusion(
    folder: Path,
    questions: Path,
    *,
    k: int = 3,
    steps: int = 20,
    keep: bool = True,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure recall@k of reciprocal ranks and of each weight, and write the best into the index.

    Args:
        folder: a hybrid index.
        questions: of training, with `positive_ids` or `supporting_titles`; others are left out. What is chosen on them
            must not be reported on them.
        k: how many passages count.
        steps: weights between 0 and 1 are multiples of 1 / steps.
        keep: write the choice, with the questions' name and SHA-256, into index.json.
        progress: is told how many questions are done.

    Returns:
        n; `tried`: fusion, lexical_weight, recall and its 95% interval of each; `best`: the one with the highest
        recall, of equal ones the first (reciprocal ranks, then the smaller weight); `written`.

    Raises:
        ConfigError: the index is not hybrid, or k or steps is less than 1.
        DataError: no question names gold passages.
    """
    if k < 1 or steps < 1:
        raise ConfigError(f"k = {k} and steps = {steps} must be at least 1")
    index = open_index(folder)
    if not isinstance(index, HybridIndex):
        raise ConfigError(f"{folder} is no hybrid index; make one with: forage index CORPUS --kind hybrid --out DIR")
    asked = [replace(each, answers=()) for each in read_judged(questions) if each.golds]
    if not asked:
        raise DataError(f"{questions}: no question has `positive_ids` or `supporting_titles`")
    grid = [Fusion.of("rrf"), *(Fusion.of("weighted", None, step / steps) for step in range(steps + 1))]
    tried = [
        _row(fusion, values)
        for fusion, values in zip(grid, _recalls(index, folder, asked, k, grid, progress), strict=True)
    ]
    best = max(range(len(grid)), key=lambda place: float(tried[place]["recall"]))
    if keep:
        fitted = {"questions": questions.name, "sha256": _sha256(questions), "n": len(asked), "k": k}
        _write(folder, msgspec.structs.replace(grid[best], fitted=fitted | {"recall": tried[best]["recall"]}))
    return {"n": len(asked), "k": k, "tried": tried, "best": tried[best], "written": keep}


def fuse_text(found: Mapping[str, Any]) -> str:
    """The result in words."""
    lines = [
        f"{_name(row):22} {row['recall']:.3f}  (95%: {row['recall_ci'][0]:.3f} to {row['recall_ci'][1]:.3f})"
        + ("  best" if row is found["best"] else "")
        for row in found["tried"]
    ]
    written = "written into index.json" if found["written"] else "not written"
    return "\n".join([f"recall@{found['k']} of {found['n']:,} questions", *lines, f"{_name(found['best'])}: {written}"])


def _recalls(
    index: HybridIndex,
    folder: Path,
    asked: Sequence[Judged],
    k: int,
    grid: Sequence[Fusion],
    progress: Progress | None,
) -> list[list[float]]:
    """For each fusion of the grid, the recall of each question. The parts are asked once a question."""
    k = min(k, len(index))
    deepest = min(max(k, *(fusion.depth for fusion in grid)), len(index))
    store = PassageStore(folder)
    values: list[list[float]] = [[] for _ in grid]
    for start in range(0, len(asked), _AT_ONCE):
        some = asked[start : start + _AT_ONCE]
        both = index.rankings([question.text for question in some], deepest)
        for question, (lexical, dense) in zip(some, both, strict=True):
            held = {row: store[row] for row in {*lexical[0].tolist(), *dense[0].tolist()}}
            for fusion, recalls in zip(grid, values, strict=True):
                depth = min(max(fusion.depth, k), deepest)
                best = fuse(fusion, _cut(lexical, depth), _cut(dense, depth), k, depth)
                recalls.append(_recall(question, [held[row] for row, _ in best], k))
        if progress:
            progress(min(start + _AT_ONCE, len(asked)), len(asked))
    return values


def _recall(question: Judged, found: Sequence[Passage], k: int) -> float:
    value: float = judge(question, found, [k])["recall"][str(k)]
    return value


def _cut(ranking: Ranking, depth: int) -> Ranking:
    rows, scores = ranking
    return rows[:depth], scores[:depth]


def _row(fusion: Fusion, values: Sequence[float]) -> dict[str, Any]:
    return {
        "fusion": fusion.method,
        "lexical_weight": fusion.lexical_weight,
        "recall": math.fsum(values) / len(values),
        "recall_ci": normal_interval(values),
    }


def _name(row: Mapping[str, Any]) -> str:
    return "rrf" if row["lexical_weight"] is None else f"lexical_weight={row['lexical_weight']:g}"


def _write(folder: Path, fusion: Fusion) -> None:
    """The same index with another fusion. No other file changes."""
    info = read_info(folder)
    write_info(folder, msgspec.structs.replace(info, options=info.options | {"fusion": msgspec.to_builtins(fusion)}))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
