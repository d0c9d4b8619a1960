"""A run's checkpoints: complete or absent, checked when read, the last few and the best kept.

checkpoints/step-000100/manifest.json, model/, optimizer.pt, ...      checkpoints/best.json
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from forage.errors import CheckpointError

MANIFEST = "manifest.json"
PARTIAL = ".partial-"
log = logging.getLogger(__name__)


def step_folder(root: Path, step: int) -> Path:
    """Where the checkpoint of `step` is, or would be."""
    return root / f"step-{step:06d}"


def save(root: Path, step: int, write: Callable[[Path], None]) -> Path:
    """Make a checkpoint: `write` fills an empty folder beside, which is synced to disk, then renamed.

    A process killed at any moment leaves either the whole checkpoint or none; an older one of the same step is
    replaced.

    Raises:
        CheckpointError: the disk is full or not writable; nothing half-written stays.
    """
    from safetensors import SafetensorError

    target = step_folder(root, step)
    beside, aside = root / f"{PARTIAL}{target.name}", root / f"{PARTIAL}old-{target.name}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        _remove_partial(root)
        beside.mkdir()
        write(beside)
        _seal(beside)
        if target.exists():
            target.rename(aside)
        beside.rename(target)
        _sync(root)
    except (OSError, RuntimeError, SafetensorError) as error:  # the latter two: torch's and safetensors' disk full
        raise CheckpointError(
            f"checkpoint {target} could not be written ({error}). Free some space, or lower train.keep, and resume: "
            "earlier checkpoints are untouched"
        ) from error
    finally:
        _remove_partial(root)
    return target


def steps(root: Path) -> list[int]:
    """Steps of which there is a checkpoint, ascending."""
    return sorted(int(folder.name.removeprefix("step-")) for folder in root.glob("step-[0-9]*") if folder.is_dir())


def latest(root: Path) -> Path | None:
    """The newest checkpoint that is whole; a damaged one is passed over with a warning. None if there is none."""
    return _newest(root, steps(root))


def verify(folder: Path) -> None:
    """Hold every file against the manifest.

    Raises:
        CheckpointError: there is no manifest, or a file is missing, truncated or changed.
    """
    try:
        files = json.loads((folder / MANIFEST).read_text())["files"]
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{folder} is no whole checkpoint: its {MANIFEST} can't be read") from error
    for name, recorded in files.items():
        path = folder / name
        size = path.stat().st_size if path.is_file() else -1
        if size != recorded["bytes"]:
            found = "missing" if size < 0 else f"truncated: {size} bytes instead of {recorded['bytes']}"
            raise CheckpointError(f"{path} is {found}")
        if _digest(path) != recorded["sha256"]:
            raise CheckpointError(f"{path} is damaged: its checksum differs")


def mark_best(root: Path, step: int, score: float) -> bool:
    """Point to `step` as the best, if its score is above the best one's so far; whether it was."""
    pointer = _read_best(root)
    if pointer is not None and pointer["score"] >= score:
        return False
    beside = root / f"{PARTIAL}best.json"
    beside.write_text(json.dumps({"step": step, "score": score}))
    _sync(beside)
    beside.replace(root / "best.json")
    _sync(root)
    return True


def best_of(root: Path) -> Path | None:
    """The checkpoint with the best score; None if there is none."""
    pointer = _read_best(root)
    folder = None if pointer is None else step_folder(root, pointer["step"])
    return folder if folder is not None and folder.is_dir() else None


def step_of(folder: Path) -> int:
    """The step that a checkpoint's folder is of."""
    return int(folder.name.removeprefix("step-"))


def choose(root: Path, *, step: int | None = None, best: bool = False) -> Path:
    """The checkpoint of a step, or the best, or else the last.

    Raises:
        CheckpointError: there is none such, or it is damaged.
    """
    if step is None:
        found = best_of(root) if best else latest(root)
        if found is None:
            raise CheckpointError(f"{root} holds no {'best ' if best else ''}checkpoint; has the run saved one yet?")
        return found
    folder = step_folder(root, step)
    if not folder.is_dir():
        raise CheckpointError(f"{root} holds no checkpoint of step {step}; there are {steps(root) or 'none'}")
    verify(folder)
    return folder


def prune(root: Path, keep: int) -> list[int]:
    """Delete all but the newest `keep` and the best; 0 keeps all. The steps that went."""
    best_folder = best_of(root)
    gone = [step for step in steps(root)[: -keep or None] if keep and step_folder(root, step) != best_folder]
    for step in gone:
        _delete(root, step)
    return gone


def before(root: Path, step: int) -> Path | None:
    """The newest whole checkpoint of an earlier step, or else the best; None if there is neither."""
    return _newest(root, [earlier for earlier in steps(root) if earlier < step]) or best_of(root)


def _newest(root: Path, among: Sequence[int]) -> Path | None:
    for step in reversed(among):
        folder = step_folder(root, step)
        try:
            verify(folder)
        except CheckpointError as error:
            log.warning("%s; going back to the one before", error)
        else:
            return folder
    return None


def drop_after(root: Path, step: int) -> None:
    """Delete the checkpoints of later steps, the last one first, and forget a best one among them."""
    pointer = _read_best(root)
    if pointer is not None and pointer["step"] > step:
        (root / "best.json").unlink()
    for later in reversed([other for other in steps(root) if other > step]):
        _delete(root, later)


def _delete(root: Path, step: int) -> None:
    doomed = root / f"{PARTIAL}{step_folder(root, step).name}"
    step_folder(root, step).rename(doomed)  # so that a kill while deleting leaves nothing that looks whole
    shutil.rmtree(doomed)


def _read_best(root: Path) -> dict[str, Any] | None:
    path = root / "best.json"
    return json.loads(path.read_text()) if path.is_file() else None


def _seal(folder: Path) -> None:
    """Write the manifest, and everything to disk."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    entries = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": _digest(path)} for path in files
    }
    (folder / MANIFEST).write_text(json.dumps({"files": entries}, indent=1))
    for path in [*folder.rglob("*"), folder]:
        _sync(path)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_partial(root: Path) -> None:
    for leftover in root.glob(f"{PARTIAL}*"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)
