"""Ctrl-C during training: the first finishes the step and saves, the second stops at once."""

from __future__ import annotations

import signal
import sys
from types import FrameType, TracebackType


class Interrupt:
    """While entered, the first SIGINT (or SIGTERM) sets `asked`; a second one raises KeyboardInterrupt.

    Outside the main thread, where no handler can be set, it does nothing.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> Interrupt:
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._before[number] = signal.signal(number, self._handle)
            except ValueError:
                break
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        print("\nfinishing this step, then saving; once more to stop at once", file=sys.stderr)  # noqa: T201
