"""Which episodes a page shows, when it can't show all: some of every kind, within a budget of bytes."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from forage.errors import DataError
from forage.records import Record, read_records
from forage.reporting.episodes import Album, Packed
from forage.reporting.figures import ALONE, CHANGES, Outcome, change, question_key

PAIRS, PAIR_BYTES = 240, 2_200_000
STEPS, GROUPS, SAMPLES, TRAIN_BYTES = 8, 4, 8, 1_200_000


def choose_pairs(
    sides: Sequence[tuple[Path, Sequence[Outcome]]], album: Album, *, most: int = PAIRS, budget: int = PAIR_BYTES
) -> Packed:
    """Questions of the last evaluation, each with its episode in every one of `sides` (one or two).

    Returns:
        `items` in an order that mixes kinds, `totals` of each kind over all questions, `kinds` in order.
    """
    _, last = sides[-1]
    earlier = {o.question: o for o in sides[0][1]} if len(sides) > 1 else {}
    kinds = {o.question: change(earlier.get(o.question), o) for o in last if not earlier or o.question in earlier}
    wanted = _mixed(kinds, last)[:most]
    found = [_pick(path, set(wanted)) for path, _ in sides]
    items: list[Packed] = []
    start = album.bytes
    for key in wanted:
        if album.bytes - start > budget:
            break
        records = [side[key] for side in found]
        items.append(_question(records[-1]) | {"kind": kinds[key], "sides": [album.pack(r) for r in records]})
    return {
        "items": items,
        "kinds": list(CHANGES if earlier else ALONE),
        "totals": dict(sorted(Counter(kinds.values()).items())),
    }


def _mixed(kinds: dict[str, str], last: Sequence[Outcome]) -> list[str]:
    """Questions in turn from each kind and number of hops, the hardest newly right ones first."""
    boxes: dict[tuple[int, int], list[str]] = defaultdict(list)
    order = {kind: i for i, kind in enumerate((*CHANGES, *ALONE))}
    for outcome in last:
        if outcome.question in kinds:
            boxes[order[kinds[outcome.question]], -(outcome.hops or 0)].append(outcome.question)
    mixed: list[str] = []
    for depth in range(max(map(len, boxes.values()), default=0)):
        mixed += [boxes[box][depth] for box in sorted(boxes) if depth < len(boxes[box])]
    return mixed


def _pick(path: Path, keys: set[str]) -> dict[str, Record]:
    return {key: record for record in read_records(path) if (key := question_key(record)) in keys}


def _question(record: Record) -> Packed:
    asked = record["question"]
    return {name: asked[name] for name in ("id", "text", "answers", "dataset", "hops")}


def choose_training(
    files: Sequence[Path], album: Album, *, budget: int = TRAIN_BYTES
) -> tuple[list[Packed], list[str]]:
    """Some groups of some steps, and what could not be read, in sentences.

    Returns:
        for each step `step` and its `groups`: a question with `samples`.
    """
    steps: list[Packed] = []
    complaints: list[str] = []
    chosen = _spread(files, STEPS)
    for i, path in enumerate(chosen):
        try:
            groups = _groups(path)
        except DataError as error:
            complaints.append(f"Training episodes are left out: {error}.")
            continue
        # What earlier steps did not use is there for later ones.
        limit = album.bytes + (budget - sum(step["bytes"] for step in steps)) / (len(chosen) - i)
        before = album.bytes
        packed = list(_pack_groups(groups, album, limit))
        if packed:
            steps.append({"step": groups[0][0]["step"], "groups": packed, "bytes": album.bytes - before})
    return [{"step": step["step"], "groups": step["groups"]} for step in steps], complaints


def _spread(files: Sequence[Path], most: int) -> list[Path]:
    """The first, the last, and some evenly between."""
    if len(files) <= most:
        return list(files)
    return [files[round(i * (len(files) - 1) / (most - 1))] for i in range(most)]


def _groups(path: Path) -> list[list[Record]]:
    """Some groups of a step, those with signal first but for the last place."""
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in read_records(path):
        groups[record["group"]].append(record)
    live = [group for group in groups.values() if len({r["reward"] for r in group}) > 1]
    equal = [group for group in groups.values() if len({r["reward"] for r in group}) == 1]
    chosen = live[: GROUPS - bool(equal)]
    return chosen + equal[: GROUPS - len(chosen)]


def _pack_groups(groups: Sequence[Sequence[Record]], album: Album, limit: float) -> Iterator[dict[str, Any]]:
    for i, group in enumerate(groups):
        samples: list[Packed] = []
        for record in group[:SAMPLES]:
            if album.bytes < limit or not (i or samples):  # one at least
                samples.append(album.pack(record))
        if samples:
            yield _question(group[0]) | {"samples": samples}
