"""Run the ablations of ablations.toml, and write results/ablations.json.

    python benchmarks/ablations.py --dry-run              what is done, and what is to do
    python benchmarks/ablations.py --jobs 2               all of it, two runs at a time, one thread each
    python benchmarks/ablations.py --only 'stale_*' --seeds 0

Each (row, seed) is one `forage train` in a folder of its own below --out. Run again, it goes on: what is finished is
left as it is, what was interrupted is resumed, and what was run with other settings is run anew. The results are
written after every run. Ctrl-C lets the runs end their step and save; a second one stops them at once.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]  # this checkout, whichever one is installed

from ablation_jobs import Job, job, last_words, run_all, say, start, stop  # noqa: E402
from ablation_measure import measure, versus  # noqa: E402
from ablation_rows import Base, Table, read_table  # noqa: E402

from forage.errors import ForageError  # noqa: E402


def prepare(base: Base, out: Path) -> None:
    """Make a base where it is not there, or was made by other commands.

    Raises:
        ForageError: a command failed, or the base is still not there.
    """
    mark, commands = out / "bases" / f"{base.name}.json", list(base.make)
    if (ROOT / base.path).exists() and (not commands or (mark.is_file() and json.loads(mark.read_text()) == commands)):
        return
    for number, command in enumerate(commands):
        say(f"base {base.name}: {command}")
        child = start(base_command(command), out / "logs" / f"base-{base.name}-{number}.log")
        try:
            code = child.process.wait()
        except KeyboardInterrupt:
            stop([child])
            raise
        if code:
            raise ForageError(f"base {base.name}: {command}\n{last_words(child.log)}")
    if not (ROOT / base.path).exists():
        raise ForageError(f"base {base.name}: there is no {base.path}" + ("" if commands else ", and no `make` for it"))
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.write_text(json.dumps(commands))


def base_command(command: str) -> list[str]:
    """The words of a base's command, run by this Python; a run that was begun is resumed."""
    words = shlex.split(command)
    if words[0] == "forage":
        words[:1] = [sys.executable, "-m", "forage"]
    folders = [word.partition("=")[2] for word in words if word.startswith("run.dir=")]
    begun = any((ROOT / folder / "config.toml").is_file() for folder in folders)
    return [*words, *(["--resume"] if begun else [])]


# Results --------------------------------------------------------------------------------------------------------------


def write_results(table: Table, out: Path, path: Path) -> list[dict[str, Any]]:
    """Write the figures of every finished run. Rows of the file whose runs are not in `out` (any more) stay, as long
    as their settings are the table's and no more seeds are found here."""
    before = {row["name"]: row for row in json.loads(path.read_text("utf-8"))} if path.is_file() else {}
    rows, folders = [], {}
    for row in table.rows:
        jobs = [job(table, row, seed, out) for seed in table.seeds]
        runs = {one.seed: one.folder for one in jobs if one.state == "done"}
        kept = before.get(row.name)
        if kept and (kept["overrides"], kept["common"]) != (row.words, list(table.common)):
            kept = None
        if kept and len(kept["seeds"]) > len(runs):
            rows.append(kept)
        elif runs:
            rows.append(measure(table, row, runs))
            folders[row.name] = list(runs.values())
    add_versus(rows, folders)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    beside.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n", "utf-8")
    beside.replace(path)
    return rows


def add_versus(rows: Sequence[dict[str, Any]], folders: dict[str, list[Path]]) -> None:
    """Put into every measured row how it stands against the first one of its group."""
    for title in dict.fromkeys(row["group"] for row in rows):
        first, *others = (row for row in rows if row["group"] == title)
        if first["name"] in folders:
            first["versus"] = None
        measured = [row for row in others if row["name"] in folders]
        found = versus(folders.get(first["name"], []), [folders[row["name"]] for row in measured])
        for row, one in zip(measured, found, strict=True):
            row["versus"] = one and {"row": first["name"], **one}


# The command ----------------------------------------------------------------------------------------------------------


def plan(table: Table, only: str, seeds: Sequence[int], out: Path) -> list[Job]:
    """The jobs asked for, all rows of a seed before the next seed; rows that share runs have one."""
    rows = {row.runs: row for row in reversed(table.chosen(only))}
    ordered = [row for row in table.rows if rows.get(row.runs) is row]
    return [job(table, row, seed, out) for seed in seeds for row in ordered]


def show(jobs: Sequence[Job]) -> None:
    """Every job and its state; what is wrong with settings is said once a row."""
    said: set[str] = set()
    for one in jobs:
        message = one.message if one.message not in said else "as above"
        said.add(one.message)
        say(f"{one.state:<10}  {one.row.group:<40}  {one.name:<32}" + (f"  {message}" if one.message else ""))
    states = [one.state for one in jobs]
    say(", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states)))


def main() -> int:
    arguments = read_arguments()
    table, out = read_table(arguments.table), arguments.out
    seeds = arguments.seeds or list(table.seeds)
    jobs = plan(table, arguments.only, seeds, out)
    if arguments.dry_run:
        show(jobs)
        return 0
    unknown = [one for one in jobs if one.state == "unknown"]
    if unknown and not arguments.skip_unknown:
        show(unknown)
        say("nothing is run; correct these, choose others with --only, or leave them out with --skip-unknown")
        return 2
    pending = [one for one in jobs if one.state not in ("done", "unknown")]
    say(f"{len(pending)} runs to do, {len(jobs) - len(pending) - len(unknown)} done, {arguments.jobs} at a time")
    failed = work(table, pending, arguments)
    for words in failed:
        say(f"failed: {words}")
    return 1 if failed else 0


def work(table: Table, pending: list[Job], arguments: argparse.Namespace) -> list[str]:
    """Make the bases, run what is to do, and write the results after each; what failed, in words."""
    bases = {one.row.base.name: one.row.base for one in pending if one.row.base}
    failed = []
    for base in bases.values():
        try:
            prepare(base, arguments.out)
        except ForageError as error:
            failed.append(str(error))
            pending = [one for one in pending if one.row.base != base]

    def finished(one: Job) -> None:
        if not arguments.keep_checkpoints:
            shutil.rmtree(one.folder / "checkpoints", ignore_errors=True)
        write_results(table, arguments.out, arguments.results)

    failed += run_all(pending, arguments.jobs, arguments.out / "logs", finished)
    write_results(table, arguments.out, arguments.results)
    return failed


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one thread each (2)")
    parser.add_argument("--only", metavar="GLOB", default="*", help="rows whose name or group fits")
    parser.add_argument("--seeds", type=numbers, metavar="0,1,2", help="these seeds; without: the table's")
    parser.add_argument("--out", type=Path, default=Path("runs/ablations"), help="folder of the runs")
    parser.add_argument("--table", type=Path, default=ROOT / "benchmarks" / "ablations.toml", help="what to run")
    parser.add_argument("--results", type=Path, default=ROOT / "results" / "ablations.json", help="what to write")
    parser.add_argument("--dry-run", action="store_true", help="list rows, seeds and their state, then stop")
    parser.add_argument("--skip-unknown", action="store_true", help="leave out rows whose settings don't exist")
    parser.add_argument("--keep-checkpoints", action="store_true", help="else those of finished runs are deleted")
    arguments = parser.parse_args()
    arguments.out = arguments.out.resolve()
    return arguments


def numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, interrupt)
    try:
        sys.exit(main())
    except ForageError as error:
        say(f"error: {error}")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        say("interrupted; the same command goes on")
        sys.exit(130)
