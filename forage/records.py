"""Trajectories as lines of JSON: what a run's folder keeps of them, and what reports and warm starts read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import zstandard

from forage.errors import DataError
from forage.types import Action, Answer, Invalid, Passage, Question, Scores, Search, StopReason, Trajectory, Turn

Record = dict[str, Any]


def to_record(trajectory: Trajectory, scores: Scores | None = None, **more: Any) -> Record:
    """A trajectory as plain values; `more` is added as it is (step, advantage, em, ...)."""
    question = trajectory.question
    return {
        "question": {
            "id": question.id,
            "text": question.text,
            "answers": list(question.answers),
            "dataset": question.dataset,
            "hops": question.hops,
        },
        "group": trajectory.group,
        "sample": trajectory.sample,
        "tree": trajectory.tree,
        "taken_turns": trajectory.taken_turns,
        "tokens": trajectory.tokens,
        "acted": trajectory.acted,
        "logprobs": [round(value, 4) for value in trajectory.logprobs],
        "turn": trajectory.turn,
        "turns": [
            _action(turn.action) | {"results": [[_passage(p) for p in found] for found in turn.results]}
            for turn in trajectory.turns
        ],
        "stop": trajectory.stop.value if trajectory.stop else None,
        "answer": trajectory.answer,
        "reward": scores.total if scores else None,
        "parts": dict(scores.parts) if scores else {},
        **more,
    }


def from_record(record: Record) -> Trajectory:
    """The trajectory of a record, as far as it can be learned from or scored."""
    asked = record["question"]
    return Trajectory(
        question=Question(asked["id"], asked["text"], tuple(asked["answers"]), asked["dataset"], asked["hops"]),
        group=record.get("group", asked["id"]),
        sample=record["sample"],
        tokens=record["tokens"],
        acted=record["acted"],
        logprobs=record["logprobs"],
        versions=[0 if acted else -1 for acted in record["acted"]],
        turn=record["turn"],
        turns=[
            Turn(_to_action(turn), [[Passage(**p) for p in found] for found in turn["results"]])
            for turn in record["turns"]
        ],
        stop=StopReason(record["stop"]),
        tree=record.get("tree"),
        taken_turns=record.get("taken_turns", 0),
    )


def _action(action: Action) -> Record:
    match action:
        case Search(queries, well_formed):
            return {"action": "search", "queries": list(queries), "well_formed": well_formed}
        case Answer(text, well_formed):
            return {"action": "answer", "text": text, "well_formed": well_formed}
        case Invalid(reason):
            return {"action": "invalid", "reason": reason}


def _to_action(turn: Record) -> Action:
    match turn["action"]:
        case "search":
            return Search(tuple(turn["queries"]), turn.get("well_formed", True))
        case "answer":
            return Answer(turn["text"], turn.get("well_formed", True))
        case _:
            return Invalid(turn["reason"])


def _passage(passage: Passage) -> Record:
    return {"id": passage.id, "title": passage.title, "text": passage.text, "score": round(passage.score, 4)}


def write_records(path: Path, records: Iterable[Record]) -> None:
    """Write lines of JSON, zstd-compressed, complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.part")
    with beside.open("wb") as raw, zstandard.ZstdCompressor(level=6).stream_writer(raw) as out:
        for record in records:
            line = json.dumps(record, ensure_ascii=False, separators=(",", ":"))
            out.write(line.encode("utf-8", "replace") + b"\n")  # a passage may hold half a surrogate pair
    beside.replace(path)


def read_records(path: Path) -> Iterator[Record]:
    """Read what `write_records` wrote (or the same lines uncompressed).

    Raises:
        DataError: the file is missing or truncated, or a line is no JSON object.
    """
    try:
        with path.open("rb") as raw:
            lines = _decompressed(raw, path) if path.suffix == ".zst" else raw
            for number, line in enumerate(lines, start=1):
                try:
                    yield json.loads(line)
                except ValueError as error:
                    raise DataError(f"{path}:{number} is not a line of JSON ({error})") from error
    except FileNotFoundError as error:
        raise DataError(f"there is no file {path}") from error


def _decompressed(raw: BinaryIO, path: Path) -> Iterator[bytes]:
    """Lines of a zstd frame, checked to be whole."""
    frame, rest = zstandard.ZstdDecompressor().decompressobj(), b""
    try:
        while chunk := raw.read(1 << 16):
            *lines, rest = (rest + frame.decompress(chunk)).split(b"\n")
            yield from lines
    except zstandard.ZstdError as error:
        raise DataError(f"{path} is damaged ({error})") from error
    if not frame.eof:
        raise DataError(f"{path} is truncated; write it again")
