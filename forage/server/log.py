"""One line of JSON an event."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from typing import IO, Any


class Log:
    """Writes events, such as `{"at": "2026-01-01T12:00:00Z", "pid": 7, "event": "ready", "seconds": 0.2}`.

    Queries are never written: they may be anybody's.

    Args:
        out: where to; standard error without it.
    """

    def __init__(self, out: IO[str] | None = None) -> None:
        self._out = out

    def __call__(self, event: str, **facts: Any) -> None:
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        line = json.dumps({"at": at, "pid": os.getpid(), "event": event, **facts}, ensure_ascii=False)
        out = self._out or sys.stderr
        out.write(line.encode(errors="replace").decode() + "\n")  # one write, so that workers' lines don't mix
        out.flush()


class LogHandler(logging.Handler):
    """What a library logs, as events."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        cause = {"error": f"{type(error).__name__}: {error}"} if error else {}
        self._log("log", level=record.levelname.lower(), message=record.getMessage(), **cause)
