"""What search servers answer, checked: nothing that is wrong becomes a passage."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any

import msgspec

from forage.types import Passage

NO_HIT = -3.4e38
"""Search-R1's server puts its last document with this score where FAISS found nothing."""


class WrongAnswer(Exception):
    """The server's answer can't be one to what it was asked."""


class _Hit(msgspec.Struct):
    id: str
    title: str
    text: str
    score: float


class _Error(msgspec.Struct):
    index: int
    message: str


class _Results(msgspec.Struct):
    results: list[list[_Hit] | None]
    errors: list[_Error] = []


class _Found(msgspec.Struct):
    document: dict[str, Any] | str
    score: float | None = None


class _Result(msgspec.Struct):
    result: list[list[_Found]]


_RESULTS, _RESULT = msgspec.json.Decoder(_Results), msgspec.json.Decoder(_Result)


def read_results(body: bytes, asked: int, k: int) -> list[list[Passage] | str]:
    """An answer of Forage's `POST /v1/search`: passages a query, or the server's words why there are none.

    Raises:
        WrongAnswer: not one result a query, more than k passages, a passage without text, a score that is none.
    """
    answer: _Results = _decoded(_RESULTS, body)
    _check_count(answer.results, asked)
    reasons = {error.index: error.message for error in answer.errors}
    outcomes: list[list[Passage] | str] = []
    for place, hits in enumerate(answer.results):
        if hits is None and place not in reasons:
            raise WrongAnswer(f"no result for query {place}, and no error either")
        if hits is not None and len(hits) > k:
            raise WrongAnswer(f"{len(hits)} passages for a query, where at most {k} were asked for")
        found = [_passage(hit.id, hit.title, hit.text, hit.score) for hit in hits or ()]
        outcomes.append(found if hits is not None else reasons[place])
    return outcomes


def read_result(body: bytes, asked: int, k: int) -> list[list[Passage] | str]:
    """An answer of Search-R1's `POST /retrieve`: the first k passages a query, what stands for no hit left out.

    A document is an object with `contents` (the title in quotes on the first line) or `title` and `text`, or the
    contents themselves. Web search servers give no scores, and more than k documents.

    Raises:
        WrongAnswer: not one result a query, a document without text, a score that is none.
    """
    answer: _Result = _decoded(_RESULT, body)
    _check_count(answer.result, asked)
    hits = ([one for one in found if one.score is None or one.score > NO_HIT] for found in answer.result)
    return [[_document(one) for one in found[:k]] for found in hits]


def _decoded(decoder: Any, body: bytes) -> Any:
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WrongAnswer(f"not the JSON that was expected: {error}") from None


def _check_count(results: Sequence[object], asked: int) -> None:
    if len(results) != asked:
        raise WrongAnswer(f"{len(results)} results for {asked} queries")


def _document(found: _Found) -> Passage:
    fields = {"contents": found.document} if isinstance(found.document, str) else found.document
    contents = fields.get("contents")
    heading, newline, rest = contents.partition("\n") if isinstance(contents, str) else ("", "", "")
    title, text = fields.get("title"), fields.get("text")
    if not isinstance(title, str):
        title = heading.strip('"') if newline else ""
    if not isinstance(text, str) or not text.strip():
        text = rest if newline else heading
    name = fields.get("id")
    name = str(name) if isinstance(name, str | int) and name != "" else _named_by(title, text)
    return _passage(name, title, text, 0.0 if found.score is None else found.score)


def _named_by(title: str, text: str) -> str:
    """An id for a document that the server gives none: the same for the same words."""
    return hashlib.sha256(f"{title}\n{text}".encode()).hexdigest()[:16]


def _passage(name: str, title: str, text: str, score: float) -> Passage:
    if not text.strip():
        raise WrongAnswer(f"the passage {name[:80]!r} has no text")
    if not math.isfinite(score):
        raise WrongAnswer(f"the score of {name[:80]!r} is {score}")
    return Passage(name, title, text, score)
