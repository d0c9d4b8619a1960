"""What the service takes, and how long it waits."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from forage.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Limits:
    """What one worker takes. What is above a limit is refused with a status and the limit's name.

    Raises:
        ConfigError: a limit is not above 0, or two contradict each other.
    """

    k: int = 3
    """passages a query where the request names no number"""
    max_k: int = 100
    """passages a query at most (422)"""
    max_queries: int = 8192
    """queries a request (422); a whole batch of Search-R1 is 2,560"""
    max_query_chars: int = 10_000
    """characters of a query (422)"""
    max_request_bytes: int = 16 * 2**20
    """bytes of a request's body (413)"""
    max_queue: int = 16_384
    """queries that wait for the index (429)"""
    max_connections: int = 1024
    """open connections (503)"""
    read_s: float = 20.0
    """seconds that a client may take to send its request (408), and to take the answer"""
    answer_s: float = 60.0
    """seconds from a request to its answer (504)"""
    keep_alive_s: float = 75.0
    """seconds that an idle connection is kept"""
    grace_s: float = 20.0
    """seconds that requests in flight have to end when the service is stopped"""
    cache_mb: int = 64
    """MB of answers that each worker remembers; 0: none"""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value < 0 or (value == 0 and field.name != "cache_mb"):
                raise ConfigError(f"{field.name} = {value}: it must be above 0")
        if self.k > self.max_k:
            raise ConfigError(f"k = {self.k} is above max_k = {self.max_k}")
        if self.max_queries > self.max_queue:
            raise ConfigError(f"max_queries = {self.max_queries} would never fit into max_queue = {self.max_queue}")

    def as_json(self) -> dict[str, Any]:
        """What a client has to know."""
        names = ("k", "max_k", "max_queries", "max_query_chars", "max_request_bytes", "answer_s")
        return {name: getattr(self, name) for name in names}


LIMITS = Limits()
"""Those of a service that names none."""
