"""Forage trains language models to reason and search, by reinforcement learning.

    import forage

    forage.train("smoke", ["run.dir=runs/a"])
    forage.evaluate("runs/a", ["data.seed=7"])["em"]

Imports nothing heavy: torch comes with the first call.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

__version__ = "0.1.0"


def train(name_or_path: str | Path, overrides: Iterable[str] = (), *, resume: bool = False) -> dict[str, Any]:
    """Train a recipe, a TOML file or a run's folder, as `forage train` does.

    Args:
        name_or_path: name of a recipe, path of a .toml file, or a run's folder.
        overrides: `key=value` settings, as on the command line.
        resume: go on from the run folder's last checkpoint.

    Returns:
        `dir`, `step`, and `eval`, the summary of the last evaluation.

    Raises:
        ForageError: see `forage.errors`.
    """
    from forage.configure import load
    from forage.training import train_from_config

    return train_from_config(load(name_or_path, overrides), resume=resume)


def evaluate(
    run: str | Path, overrides: Sequence[str] = (), *, step: int | None = None, best: bool = False
) -> dict[str, Any]:
    """Evaluate a run's checkpoint (the last; or of a step, or the best) greedily, as `forage eval` does.

    Returns:
        em, em_ci, f1, f1_ci, n, by_hop, hit_rate, searches_mean, stop_reasons, and `dir`, where predictions are.

    Raises:
        ForageError: see `forage.errors`.
    """
    from forage.evaluation import evaluate_run

    return evaluate_run(Path(run), overrides, step=step, best=best)
