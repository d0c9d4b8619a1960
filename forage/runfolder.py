"""A run's folder: one run, one process at a time."""

from __future__ import annotations

import fcntl
import json
import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from forage.config import Config
from forage.configure import dump, load
from forage.environment import describe_environment
from forage.errors import RunFolderError
from forage.toml import flatten

CONFIG, ENVIRONMENT, LOCK = "config.toml", "environment.json", ".lock"
OF_A_RUN = (CONFIG, "metrics.jsonl", "checkpoints")

MAY_CHANGE = (
    *("run.dir", "run.device", "run.threads", "tracking.", "diagnosis.", "search.timeout_s", "search.cache_size"),
    *("search.max_failure_rate", "train.", "sft.steps", "model.gradient_checkpointing"),
    *("search.url", "search.token_env", "search.attempt_s", "search.deadline_s", "search.retries", "search.hedge"),
    *("search.connections", "search.breaker_"),
)
"""Settings (or beginnings of them) that a resumed run may have otherwise: they don't change what is learned from."""


@dataclass(slots=True)
class RunFolder:
    """The folder of a run in which this process works, locked until it is left. Use `RunFolder.open`."""

    path: Path
    _lock: TextIO
    _resumed: bool = False

    @classmethod
    def open(cls, path: Path, config: Config, *, resume: bool = False) -> RunFolder:
        """Lock `path`, check that it is free for this run, and write config.toml and environment.json into it.

        The lock goes with the process, however that ends.

        Raises:
            RunFolderError: another process works there; it holds another run; or there is nothing to resume.
        """
        if resume and not (path / CONFIG).exists():
            raise RunFolderError(f"there is no run in {path} to resume; leave out --resume to start one there")
        path.mkdir(parents=True, exist_ok=True)
        folder = cls(path, _locked(path), resume)
        try:
            _check_same(path, config) if resume else _check_free(path)
            _write(path / CONFIG, dump(config))
            _write(path / ENVIRONMENT, json.dumps(describe_environment(config.run.seed), indent=2) + "\n")
        except BaseException:
            folder.close()
            raise
        return folder

    def rewrite(self, config: Config) -> None:
        """Say that the run goes on with another configuration."""
        _write(self.path / CONFIG, dump(config))

    @staticmethod
    def refuse_if_in_use(path: Path) -> None:
        """Check that no process works in a folder.

        Raises:
            RunFolderError: one does.
        """
        if (path / LOCK).exists():
            _locked(path).close()

    def close(self) -> None:
        """Give the folder free."""
        self._lock.close()

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Give the folder free; a new run that failed before it did anything leaves nothing behind."""
        if error and not self._resumed:
            self._clear_if_unused()
        self.close()

    def _clear_if_unused(self) -> None:
        made = [self.path / name for name in (CONFIG, ENVIRONMENT, LOCK)]
        if set(self.path.iterdir()) <= set(made):
            for file in made:
                file.unlink(missing_ok=True)
            self.path.rmdir()


def _locked(path: Path) -> TextIO:
    lock = (path / LOCK).open("a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        process = lock.read().strip() or "unknown"
        lock.close()
        raise RunFolderError(
            f"process {process} is working in {path}. Wait for it, stop it, or choose another folder: run.dir=OTHER"
        ) from None
    lock.truncate(0)
    lock.write(f"{os.getpid()}\n")
    lock.flush()
    return lock


def _check_free(path: Path) -> None:
    if found := [name for name in OF_A_RUN if (path / name).exists()]:
        raise RunFolderError(
            f"{path} holds a run already ({', '.join(found)}). Go on with it: --resume. "
            "Or choose another folder: run.dir=OTHER. Or remove it."
        )


def _check_same(path: Path, config: Config) -> None:
    before, now = _leaves(load(path / CONFIG)), _leaves(config)
    differing = [
        f"{key} was {before.get(key, 'not set')!r} and is now {now.get(key, 'not set')!r}"
        for key in {**before, **now}
        if before.get(key) != now.get(key) and not key.startswith(MAY_CHANGE)
    ]
    if differing:
        raise RunFolderError(
            f"the run in {path} can't go on with other settings: {'; '.join(differing)}. "
            f"Resume it with its own, or start another from its weights: model.init_from={path} run.dir=OTHER"
        )


def _leaves(config: Config) -> dict[str, Any]:
    return dict(flatten(tomllib.loads(dump(config))))


def _write(path: Path, text: str) -> None:
    """Whole or not at all."""
    beside = path.with_name(f".{path.name}.part")
    beside.write_text(text, "utf-8")
    beside.replace(path)
