"""`forage demo`: the packaged small model learns to search, is measured before and after, and reported."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

from forage.configure import load
from forage.errors import RunFolderError
from forage.evaluation import Summary
from forage.report import write_report
from forage.runfolder import RunFolder
from forage.training import read_summary, train_from_config

RESULT = "result.json"


def run_demo(out: Path = Path("runs/demo"), *, seed: int = 0, overrides: list[str] | None = None) -> dict[str, Any]:
    """Train the recipe `demo` in `out` and write `result.json` and `report.html` there.

    A demo that lies in `out` already is replaced.

    Returns:
        The content of result.json: base, trained (em, n, by_hop), train_seconds, total_seconds, steps, seed.

    Raises:
        RunFolderError: `out` holds something that is not a demo, or another process works in it.
    """
    started = time.perf_counter()
    _clear(out)
    config = load("demo", [f"run.seed={seed}", f"run.dir={json.dumps(str(out))}", *(overrides or [])])
    trained = train_from_config(config)
    result = {
        "base": _figures(read_summary(out, 0)),
        "trained": _figures(trained["eval"]),
        "train_seconds": round(_train_seconds(out), 2),
        "total_seconds": round(time.perf_counter() - started, 2),
        "steps": trained["step"],
        "seed": seed,
    }
    (out / RESULT).write_text(json.dumps(result, indent=2) + "\n")
    write_report(out)
    result["total_seconds"] = round(time.perf_counter() - started, 2)
    (out / RESULT).write_text(json.dumps(result, indent=2) + "\n")
    return result


def _figures(summary: Summary) -> dict[str, Any]:
    return {name: summary[name] for name in ("em", "n", "by_hop")}


def _train_seconds(out: Path) -> float:
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return float(sum(row.get("time/step", 0.0) for row in rows))


def _clear(out: Path) -> None:
    """Remove an earlier demo; refuse to remove anything else."""
    if not out.exists() or not any(out.iterdir()):
        return
    if not (out / "config.toml").exists() or not (out / "metrics.jsonl").exists():
        raise RunFolderError(f"{out} exists and is no demo; name another folder with --out, or remove it yourself")
    RunFolder.refuse_if_in_use(out)
    shutil.rmtree(out)
