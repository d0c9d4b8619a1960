"""What a service replied, kept in a file, so that nothing is asked twice and a run can be repeated without it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from forage.errors import DataError


class Replies:
    """Replies by what was asked, in memory, and in a file of JSON lines where there is one.

    Each line is appended in one write, so that runs may share the file; one that was cut off is passed over.

    Args:
        file: read at once, added to later; None: memory alone.
        asked_of: what replies depend on besides the prompt, such as the name of the model.

    Raises:
        DataError: the file can't be read.
    """

    def __init__(self, file: Path | None, asked_of: str) -> None:
        self._file, self._asked_of = file, asked_of
        self._replies = dict(_read(file)) if file and file.exists() else {}

    def get(self, prompt: str) -> str | None:
        """What was replied to a prompt; None where it is not known."""
        return self._replies.get(self._key(prompt))

    def add(self, prompt: str, reply: str) -> None:
        """Keep a reply."""
        key = self._key(prompt)
        self._replies[key] = reply
        if self._file:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._file.open("ab") as out:
                # The newline comes first, too: the line before may have been cut off.
                out.write(b"\n" + json.dumps({"key": key, "prompt": prompt, "reply": reply}).encode() + b"\n")

    def _key(self, prompt: str) -> str:
        return hashlib.sha256(json.dumps([self._asked_of, prompt]).encode()).hexdigest()


def _read(file: Path) -> Iterator[tuple[str, str]]:
    try:
        lines = file.read_bytes().splitlines()
    except OSError as error:
        raise DataError(f"{file} can't be read: {error.strerror}") from error
    for line in lines:
        try:
            entry = json.loads(line)
            yield entry["key"], entry["reply"]
        except (ValueError, LookupError, TypeError):
            continue
