"""Metrics to Weights & Biases."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from forage.errors import MissingExtra


class WandbTracker:
    """Logs to one W&B run a run folder; a resumed run goes on in the same one (its id lies in the folder).

    Raises:
        MissingExtra: wandb is not installed.
    """

    def __init__(self, folder: Path, project: str, run: Any = None) -> None:
        self._run = run or _run(folder, project)

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        self._run.log(dict(metrics), step=step)

    def close(self) -> None:
        self._run.finish()


def _run(folder: Path, project: str) -> Any:
    try:
        import wandb
    except ImportError as error:
        raise MissingExtra("wandb", "wandb") from error
    identity = folder / ".wandb-id"
    if not identity.exists():
        identity.write_text(uuid.uuid4().hex)
    return wandb.init(project=project, name=folder.name, dir=str(folder), id=identity.read_text(), resume="allow")
