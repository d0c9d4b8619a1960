"""Cutting a run's folder back to the checkpoint that it goes on from."""

from __future__ import annotations

import shutil
from pathlib import Path

from forage.trackers.jsonl import cut

HEALTH = "health.jsonl"
"""What was found to be wrong with the run, and what was done about it."""


def cut_back(folder: Path, step: int) -> None:
    """Drop what was written after `step`: it will be written again, the same."""
    for name in ("metrics.jsonl", HEALTH):
        cut(folder / name, step)
    for entry in [*folder.glob("trajectories/step-*"), *folder.glob("eval/step-*")]:
        if int(entry.name.removeprefix("step-")[:6]) > step:
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
