"""A request that gets no passages, and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec


class Refusal(Exception):
    """An answer other than 200: a status, a word for programs, a sentence for people.

    Args:
        status: of HTTP.
        code: one word for what is wrong; that of a limit is the limit's name in `Limits`.
        message: what is wrong, and what would be right.
        limit: the limit's value, where it is one.
        at: where in the body, such as `("queries", 3)`.
        retry_after_s: when it may be tried again.
        close: the connection can't be used any more.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        limit: float | None = None,
        at: Sequence[str | int] = (),
        retry_after_s: int | None = None,
        close: bool = False,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.limit = status, code, message, limit
        self.at, self.retry_after_s, self.close = tuple(at), retry_after_s, close

    def body(self) -> bytes:
        """`error`, and for a body that is not as it should be also `detail` in FastAPI's form, which clients of
        Search-R1's server know."""
        error: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.limit is not None:
            error["limit"] = self.limit
        answer: dict[str, Any] = {"error": error}
        if self.status == 422:
            answer["detail"] = [{"loc": ["body", *self.at], "msg": self.message, "type": self.code}]
        return msgspec.json.encode(answer)
