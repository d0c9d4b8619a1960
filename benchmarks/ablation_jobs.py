"""The runs behind the ablations: how each stands, and running those that are to do."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablation_rows import Row, Table

from forage.configure import dump, load
from forage.errors import ForageError
from forage.runfolder import RunFolder
from forage.toml import flatten

ROOT = Path(__file__).resolve().parent.parent
INDIFFERENT = ("run.dir", "run.threads", "run.device", "tracking.", "train.save", "train.keep", "search.timeout_s")
"""Settings (or beginnings of them) in which a finished run may differ from its row."""


@dataclass(frozen=True)
class Job:
    """A row with a seed. `state`: done, unfinished (there is something to go on from), changed (was run with other
    settings), to do, or unknown (`message` says which setting is)."""

    row: Row
    seed: int
    folder: Path
    words: tuple[str, ...]
    state: str
    message: str = ""

    @property
    def name(self) -> str:
        return f"{self.row.runs} seed {self.seed}"


Command = Callable[[Job], list[str]]


def train(one: Job) -> list[str]:
    """The command of a job."""
    resume = ["--resume"] if one.state == "unfinished" else []
    return [sys.executable, "-m", "forage", "train", one.row.recipe, *one.words, *resume]


def job(table: Table, row: Row, seed: int, out: Path) -> Job:
    """A row with a seed, and how it stands."""
    folder = out / f"{row.runs}-seed{seed}"
    words = (*table.words(row), f"run.seed={seed}", "run.threads=1", f"run.dir={folder}")
    state, message = state_of(row.recipe, words, folder)
    return Job(row, seed, folder, words, state, message)


def state_of(recipe: str, words: Sequence[str], folder: Path) -> tuple[str, str]:
    """The state of a run, and what is wrong with its settings where something is."""
    try:
        config = load(recipe, words)
    except ForageError as error:
        return "unknown", str(error)
    if not (folder / "config.toml").is_file():
        return "to do", ""
    if differing := differences(settings(dump(config)), settings((folder / "config.toml").read_text("utf-8"))):
        return "changed", "; ".join(differing)
    return ("done" if final_summary(folder, config.train.steps).is_file() else "unfinished"), ""


def settings(text: str) -> dict[str, Any]:
    """The settings of a configuration that matter."""
    leaves = dict(flatten(tomllib.loads(text)))
    return {key: value for key, value in leaves.items() if not key.startswith(INDIFFERENT)}


def differences(now: dict[str, Any], before: dict[str, Any]) -> list[str]:
    """Where two differ, among the settings that both know: one may have been added since, or have gone."""
    return [f"{key} was {before[key]!r}" for key in now if key in before and before[key] != now[key]]


def final_summary(folder: Path, step: int) -> Path:
    """Where a run has its last evaluation."""
    return folder / "eval" / f"step-{step:06d}" / "summary.json"


# Running --------------------------------------------------------------------------------------------------------------


@dataclass
class Child:
    """A running command, the file of what it says, and when it began."""

    process: subprocess.Popen[bytes]
    log: Path
    since: float


def start(command: Sequence[str], log: Path) -> Child:
    """Start a command in a session of its own, so that a Ctrl-C here reaches it only through us."""
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, cwd=ROOT, env=environment, start_new_session=True
        )
    return Child(process, log, time.monotonic())


def run_all(
    pending: Sequence[Job], jobs: int, logs: Path, finished: Callable[[Job], None], command: Command = train
) -> list[str]:
    """Run jobs, at most `jobs` at a time, and call `finished` after each that succeeds; what failed, in words."""
    running: dict[str, tuple[Job, Child]] = {}
    failed: list[str] = []
    waiting = list(pending)
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                one = waiting.pop(0)
                if one.state == "changed":
                    RunFolder.refuse_if_in_use(one.folder)
                    shutil.rmtree(one.folder)
                running[one.name] = (one, start(command(one), logs / f"{one.folder.name}.log"))
            for one, child in [pair for pair in running.values() if pair[1].process.poll() is not None]:
                del running[one.name]
                ended(one, child, len(waiting) + len(running), failed)
                if child.process.returncode == 0:
                    finished(one)
            time.sleep(0.2)
    except KeyboardInterrupt:
        stop([child for _, child in running.values()])
        raise
    return failed


def ended(one: Job, child: Child, left: int, failed: list[str]) -> None:
    """Say how a run ended."""
    seconds = time.monotonic() - child.since
    if child.process.returncode == 0:
        say(f"done    {one.name}  {seconds:.0f} s, {left} to go")
    else:
        failed.append(f"{one.name}: {last_words(child.log)}")
        say(f"FAILED  {one.name} after {seconds:.0f} s, {left} to go\n{indented(last_words(child.log))}")


def last_words(log: Path, lines: int = 6) -> str:
    """The end of what a command said."""
    return "\n".join(log.read_text("utf-8", "replace").strip().splitlines()[-lines:])


def indented(text: str) -> str:
    return "\n".join(f"        {line}" for line in text.splitlines())


def stop(children: Sequence[Child]) -> None:
    """Let commands end their step and save; on a second Ctrl-C, at once."""
    say(f"stopping {len(children)} run{'s' * (len(children) != 1)} after their step; Ctrl-C again stops at once")
    try:
        for child in children:
            child.process.send_signal(signal.SIGINT)
        for child in children:
            child.process.wait()
    except KeyboardInterrupt:
        for child in children:
            child.process.kill()


def say(message: str) -> None:
    print(message, flush=True)
