"""Long documents to passages of so many words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from forage.errors import ConfigError
from forage.types import Passage

_WORD = re.compile(r"\S+")
_END = re.compile(r"[.!?。！？][\"'”’)\]]*$")
Span = tuple[int, int]


def chunk(
    documents: Iterable[Passage], *, words: int = 100, stride: int = 0, sentences: bool = False
) -> Iterator[Passage]:
    """Cut documents into passages, each with its document's title and, as its id, the document's with `#0`, `#1`, ...

    Args:
        documents: read one by one.
        words: of a passage, at most; the last one of a document may be shorter.
        stride: words from the beginning of a passage to that of the next; 0: as many as `words`, so that none overlap.
        sentences: passages begin and end with sentences; one that is longer than `words` is cut.

    Raises:
        ConfigError: `words` is less than 1, or `stride` not between 0 and `words`.
    """
    if words < 1 or not 0 <= stride <= words:
        raise ConfigError(f"a chunk needs words >= 1 and 0 <= stride <= words, not words = {words}, stride = {stride}")
    for document in documents:
        spans = [match.span() for match in _WORD.finditer(document.text)]
        bounds = _sentence_bounds(document.text, spans, words) if sentences else list(range(len(spans) + 1))
        for number, (first, end) in enumerate(_windows(bounds, words, stride or words)):
            text = document.text[spans[first][0] : spans[end - 1][1]]
            yield Passage(f"{document.id}#{number}", document.title, text)


def _windows(bounds: list[int], words: int, stride: int) -> Iterator[Span]:
    """First and one past the last word of each passage; both are among `bounds`, which are at most `words` apart."""
    i, last = 0, len(bounds) - 1
    while i < last:
        end = i + 1
        while end < last and bounds[end + 1] - bounds[i] <= words:
            end += 1
        yield bounds[i], bounds[end]
        if end == last:
            return
        following = i + 1
        while following < end and bounds[following] - bounds[i] < stride:
            following += 1
        i = following


def _sentence_bounds(text: str, spans: list[Span], words: int) -> list[int]:
    """Words that sentences begin with, and the end; a sentence that is too long has bounds inside."""
    bounds = [0]
    for word, (start, end) in enumerate(spans, start=1):
        if word - bounds[-1] == words or word == len(spans) or _END.search(text[start:end]):
            bounds.append(word)
    return bounds
