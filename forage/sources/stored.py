"""A harvest on disk, exactly: every float, version and score as it was (`forage.records` rounds them for reading)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import zstandard

from forage.errors import CheckpointError
from forage.types import (
    Action,
    Answer,
    Group,
    Harvest,
    Invalid,
    Passage,
    Question,
    Scores,
    Search,
    StopReason,
    Trajectory,
    Turn,
)

Stored = dict[str, Any]
ACTIONS: dict[str, Callable[..., Action]] = {"Search": Search, "Answer": Answer, "Invalid": Invalid}


def write_harvest(path: Path, harvest: Harvest) -> None:
    """Write a harvest as zstd-compressed JSON."""
    path.write_bytes(zstandard.ZstdCompressor(level=3).compress(json.dumps(harvest, default=_plain).encode()))


def read_harvest(path: Path) -> Harvest:
    """The harvest that `write_harvest` wrote, equal to it.

    Raises:
        CheckpointError: the file is missing, damaged, or of another version of Forage.
    """
    try:
        return _harvest(json.loads(zstandard.ZstdDecompressor().decompress(path.read_bytes())))
    except (OSError, zstandard.ZstdError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: the groups in it can't be read ({error})") from error


def _plain(value: Any) -> Stored:
    """A dataclass as its fields, for JSON; actions are told apart by their kind."""
    if is_dataclass(value) and not isinstance(value, type):
        stored = {field.name: getattr(value, field.name) for field in fields(value)}
        return stored | ({"kind": type(value).__name__} if isinstance(value, Action) else {})
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} can't be stored")


def _harvest(stored: Stored) -> Harvest:
    groups = {name: [_group(group) for group in stored[name]] for name in ("groups", "replaced", "left_out")}
    return Harvest(**stored | groups | {"failed": [_trajectory(t) for t in stored["failed"]]})


def _group(stored: Stored) -> Group:
    trajectories = [_trajectory(trajectory) for trajectory in stored["trajectories"]]
    return Group(**stored | {"trajectories": trajectories, "scores": [_scores(score) for score in stored["scores"]]})


def _scores(stored: Stored) -> Scores:
    return Scores(**stored | {"turns": {int(turn): share for turn, share in stored["turns"].items()}})


def _trajectory(stored: Stored) -> Trajectory:
    asked, stop = stored["question"], stored["stop"]
    lists = {name: tuple(asked[name]) for name in ("answers", "supporting_titles")}
    return Trajectory(
        **stored
        | {
            "question": Question(**asked | lists),
            "turns": [_turn(turn) for turn in stored["turns"]],
            "stop": None if stop is None else StopReason(stop),
        }
    )


def _turn(stored: Stored) -> Turn:
    results = [[Passage(**passage) for passage in found] for found in stored["results"]] or ()
    return Turn(**stored | {"action": _action(stored["action"]), "results": results})


def _action(stored: Stored) -> Action:
    kind = ACTIONS[stored["kind"]]
    values = {name: value for name, value in stored.items() if name != "kind"}
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})
