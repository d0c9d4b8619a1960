"""Record one step of the demo for the replays, into benchmarks/data/step.jsonl.zst.

    python benchmarks/record.py [--at 10] [--model forage:tiny] [--step FILE]

Trains the recipe `demo` (seed 0, its own learning rate and schedule) for the steps before, without evaluations, then
plays the episodes of step `--at` as training would, sampled at temperature 1, and writes them with their rewards.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from pathlib import Path

from common import STEP, describe_step, recorded_step, show

from forage.configure import load
from forage.interrupt import Interrupt
from forage.records import to_record, write_records
from forage.run import open_run
from forage.training import train


class After:
    """Asks to stop once the tracker of a run has seen so many steps; stands in for Ctrl-C and the trackers."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self.interrupt = Interrupt()
        self.interrupt.asked = steps == 0

    def log(self, step: int, metrics: object) -> None:  # noqa: ARG002
        self.interrupt.asked = step >= self._steps

    def close(self) -> None:
        """Nothing is open."""


def record(model: str, at: int, path: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        overrides = [f"model.path={model}", f"run.dir={folder}", "run.threads=1", "run.device=cpu"]
        config = load(
            "demo", [*overrides, "train.eval_every=0", "train.save_every=0", "train.save_trajectories_every=0"]
        )
        stop = After(at - 1)
        run = open_run(config, Path(folder), stop.interrupt, resume=False)
        run.tracker.close()
        run.tracker = stop  # type: ignore[assignment]
        asyncio.run(train(run))
        harvest = asyncio.run(run.source.take(at))
    write_records(
        path,
        (
            to_record(trajectory, score, step=at, advantage=None)
            for group in harvest.groups
            for trajectory, score in zip(group.trajectories, group.scores, strict=True)
        ),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--at", type=int, default=10, help="which step of the demo")
    parser.add_argument("--model", default="forage:tiny", help="what the demo starts from")
    parser.add_argument("--step", type=Path, default=STEP, help="where to write")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    record(arguments.model, arguments.at, arguments.step)
    size = {"file": str(arguments.step), "bytes": arguments.step.stat().st_size}
    show(size | describe_step(recorded_step(arguments.step)), as_json=arguments.json)


if __name__ == "__main__":
    main()
