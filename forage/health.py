"""A training run's health: looked at after each step, told once, kept in health.jsonl.

The file has a line for each finding and for each time that the run was taken back:

    {"step": 34, "kind": "finding", "rule": "cut_off", "since": 27, "says": ..., "advice": ..., "collapse": true}
    {"step": 20, "kind": "rollback", "from": 34, "says": ..., "settings": ["learner.lr=1e-4"]}
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from forage import checkpoint
from forage.config import Config
from forage.configure import changed
from forage.diagnosis.watch import Finding, Watch
from forage.errors import CollapseError
from forage.resume import HEALTH, cut_back
from forage.runfolder import RunFolder
from forage.trackers.jsonl import append, read

log = logging.getLogger(__name__)


class Health:
    """Watches a run. Opened on a resumed run's folder, it knows what was found before.

    Args:
        folder: the run's.
        config: its [diagnosis], and the limit on searches.

    Raises:
        ConfigError: a setting of diagnosis.retry is not usable.
    """

    def __init__(self, folder: Path, config: Config) -> None:
        self._path, self._action = folder / HEALTH, config.diagnosis.on_collapse
        changed(config, config.diagnosis.retry)  # so that a mistake is said at once, not after hours
        self._watch = Watch(config.diagnosis, config.rollout.max_searches)
        for row in read(folder / "metrics.jsonl"):
            self._watch.look(row)

    def look(self, step: int, metrics: Mapping[str, Any]) -> CollapseError | None:
        """Look at a step's metrics; warns of what is new. The collapse for which the run is not to go on, if any."""
        found = self._watch.look({**metrics, "step": step})
        for finding in found:
            append(self._path, _line(finding))
            log.warning("step %d: %s (diagnosis: %s)", step, finding, finding.rule)
        collapses = [finding for finding in found if finding.collapse]
        if not collapses or self._action == "warn":
            return None
        first = min(collapses, key=lambda finding: finding.since)
        return CollapseError(f"the policy collapsed (step {step}, {first.rule}): {first}", first.since)


def _line(finding: Finding) -> dict[str, Any]:
    return {"step": finding.step, "kind": "finding", **dataclasses.asdict(finding)}


def rollbacks(folder: Path) -> list[dict[str, Any]]:
    """The times that a run was taken back, in their order: `step`, `from`, `says`, `settings`."""
    return [row for row in read(folder / HEALTH) if row.get("kind") == "rollback"]


def with_retries(folder: Path, config: Config) -> Config:
    """The configuration with the settings that the run in `folder` was taken back for."""
    words = [word for row in rollbacks(folder) for word in row["settings"]]
    return changed(config, words) if words else config


def take_back(folder: RunFolder, config: Config, step: int, collapse: CollapseError) -> Config:
    """Take a run that collapsed at `step` back to before it, as its [diagnosis] says; what it is to go on with.

    That is the newest checkpoint from before the collapse began, else the best one, else the run's beginning. What came
    after it goes.

    Raises:
        CollapseError: the run is to stop, or was taken back as often as it may.
    """
    rules, done = config.diagnosis, rollbacks(folder.path)
    if rules.on_collapse != "rollback" or len(done) >= rules.max_rollbacks:
        raise collapse
    root = folder.path / "checkpoints"
    good = checkpoint.before(root, collapse.since)
    back_to = checkpoint.step_of(good) if good else 0
    config = changed(config, rules.retry)
    checkpoint.drop_after(root, back_to)
    cut_back(folder.path, back_to)
    folder.rewrite(config)
    says = f"{collapse} Gone back to step {back_to}, with {', '.join(rules.retry) or 'nothing changed'}"
    append(
        folder.path / HEALTH,
        {"step": back_to, "kind": "rollback", "from": step, "says": str(collapse), "settings": rules.retry},
    )
    log.warning("%s", says)
    return config
