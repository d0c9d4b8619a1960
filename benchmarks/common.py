"""What the benchmarks share: options, fair timing, the recorded step, and one way to print.

Two sides take turns (A B, then B A, ...), the first round warms up and is dropped, and what is reported is the median
over rounds of the ratio within a round: what else the machine does then strikes both sides alike.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

from forage.records import from_record, read_records
from forage.types import Group, Scores

HERE = Path(__file__).resolve().parent
STEP = HERE / "data" / "step.jsonl.zst"
"""The recorded demo step that all replays use (`record.py` writes it)."""


@dataclass(frozen=True)
class Cost:
    """What a piece of work took: CPU seconds of this process (all threads), and seconds on the wall."""

    cpu_s: float
    wall_s: float


def timed(work: Callable[[], object]) -> Cost:
    cpu, wall = process_time(), perf_counter()
    work()
    return Cost(process_time() - cpu, perf_counter() - wall)


def interleave(sides: Mapping[str, Callable[[], Cost]], rounds: int) -> dict[str, list[Cost]]:
    """The costs of each side in `rounds` rounds, after one that warms up; every other round goes backwards."""
    costs: dict[str, list[Cost]] = {name: [] for name in sides}
    for turn in range(rounds + 1):
        names = list(sides) if turn % 2 == 0 else list(sides)[::-1]
        for name in names:
            cost = sides[name]()
            if turn:
                costs[name].append(cost)
    return costs


def compare(ours: Sequence[Cost], peers: Sequence[Cost], threads: int) -> dict[str, Any]:
    """How many times our cost the peer's is: the median of the rounds' ratios, in CPU seconds and on the wall.

    `ratio` is the one in CPU seconds where there is one thread (other processes hardly move it), else that of the wall.
    """
    pairs = list(zip(ours, peers, strict=True))
    cpu = [peer.cpu_s / our.cpu_s for our, peer in pairs]
    wall = [peer.wall_s / our.wall_s for our, peer in pairs]
    return {
        "ratio": round(statistics.median(cpu if threads == 1 else wall), 2),
        "ratio_cpu": round(statistics.median(cpu), 2),
        "ratio_wall": round(statistics.median(wall), 2),
        "ratio_range": [round(min(cpu), 2), round(max(cpu), 2)],
    }


def median(costs: Sequence[Cost]) -> dict[str, float]:
    return {name: round(statistics.median(getattr(cost, name) for cost in costs), 3) for name in asdict(Cost(0.0, 0.0))}


def recorded_step(path: Path = STEP) -> list[Group]:
    """The groups of the recorded step, in the order they were admitted."""
    if not path.is_file():
        raise SystemExit(f"there is no {path}; write it with: python benchmarks/record.py")
    groups: dict[str, Group] = {}
    for record in read_records(path):
        trajectory = from_record(record)
        group = groups.setdefault(trajectory.group, Group([], []))
        group.trajectories.append(trajectory)
        group.scores.append(Scores(record["reward"]))
    return list(groups.values())


def describe_step(groups: Sequence[Group]) -> dict[str, Any]:
    """The shape of a step: without it a ratio says little."""
    rows = [trajectory for group in groups for trajectory in group.trajectories]
    lengths = [len(row.tokens) for row in rows]
    turns = [len(row.turns) for row in rows]
    return {
        "episodes": len(rows),
        "groups": len(groups),
        "groups_with_signal": sum(group.has_signal for group in groups),
        "tokens": sum(lengths),
        "acted_tokens": sum(sum(row.acted) for row in rows),
        "length_max_over_mean": round(max(lengths) / statistics.mean(lengths), 2),
        "length_max": max(lengths),
        "turns_mean": round(statistics.mean(turns), 2),
        "turns_max": max(turns),
    }


def machine(threads: int) -> dict[str, Any]:
    """Where the figures were measured."""
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": threads,
        "load": [round(value, 1) for value in os.getloadavg()],
        "commit": _commit(),
        "python": platform.python_version(),
    }


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        fields = dict(line.split(":", 1) for line in info.read_text().split("\n\n")[0].splitlines() if ":" in line)
        named = {key.strip(): value.strip() for key, value in fields.items()}
        numbers = "/".join(named.get(key, "?") for key in ("cpu family", "model", "stepping"))
        return f"{named.get('model name', '?')} ({numbers})"
    return platform.processor() or platform.machine()


def _commit() -> str:
    asked = subprocess.run(
        ["git", "-C", str(HERE), "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    return asked.stdout.strip() or "unknown"


def options(doc: str | None, *, rounds: int) -> argparse.ArgumentParser:
    """A parser with the options that every benchmark has."""
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--rounds", type=int, default=rounds, help="timed rounds, after one that warms up")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of torch, on both sides")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="on both sides")
    parser.add_argument("--model", default="forage:tiny", help="whose weights: folder or forage:tiny")
    parser.add_argument("--step", type=Path, default=STEP, help="the recorded step")
    return parser


def show(result: Mapping[str, Any], *, as_json: bool) -> None:
    """One JSON object, or the same as lines."""
    if as_json:
        json.dump(result, sys.stdout)
        print()
        return
    for name, value in result.items():
        print(f"{name:22} {value}" if not isinstance(value, dict) else name)
        for key, part in value.items() if isinstance(value, dict) else ():
            print(f"  {key:20} {part}")
