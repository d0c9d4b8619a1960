"""A request that gets no passages, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

SOON = {"retry-after": "1"}
CLOSE = {"connection": "close"}


class Refusal(Exception):
    """An answer other than 200: a status, a word for programs, a sentence for people.

    Args:
        status: of HTTP.
        code: one word for what is wrong; that of a limit is the limit's name in `Limits`.
        message: what is wrong, and what would be right.
        limit: the limit's value, where it is one.
        at: where in the body, such as `("queries", 3)`.
        headers: of the answer, besides those that every answer has.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        limit: float | None = None,
        at: Sequence[str | int] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.limit = status, code, message, limit
        self.at, self.headers = tuple(at), dict(headers or {})

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
