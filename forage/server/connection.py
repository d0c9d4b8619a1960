"""uvicorn's connection, without its patience: who sends or reads nothing for a while is hung up on."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class Connection(HttpToolsProtocol):
    """Ends where a request's headers don't arrive in `patience_s` seconds (from the connection's first moment, or from
    the first byte of a later request), and where the client takes nothing of an answer for as long."""

    patience_s = 20.0
    _headers: asyncio.TimerHandle | None = None
    _reading: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._await_headers()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._headers is None:
            self._await_headers()

    def on_headers_complete(self) -> None:
        _cancel(self._headers)
        self._headers = None
        super().on_headers_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._await_reader(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        _cancel(self._reading)
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        """What an idle client has not taken by now it never will."""
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        _cancel(self._headers)
        _cancel(self._reading)
        super().connection_lost(exc)

    def _await_headers(self) -> None:
        self._headers = self.loop.call_later(self.patience_s, self.transport.abort)

    def _await_reader(self, waiting: int) -> None:
        self._reading = self.loop.call_later(self.patience_s, self._check_reader, waiting)

    def _check_reader(self, before: int) -> None:
        """Go on waiting as long as what waits gets less."""
        waiting = self.transport.get_write_buffer_size()
        if waiting < before:
            self._await_reader(waiting)
        else:
            self.transport.abort()


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()


def patient(seconds: float) -> type[Connection]:
    """A `Connection` with so much patience."""
    return type("PatientConnection", (Connection,), {"patience_s": seconds})
