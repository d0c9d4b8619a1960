"""The two protocols: bodies to queries, passages to bytes.

`POST /retrieve` is Search-R1's (github.com/PeterGriffinJin/Search-R1, search_r1/search/retrieval_server.py), which
verl, SkyRL and others ask too; `POST /v1/search` is Forage's own.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from forage.errors import RetrieverError
from forage.server.limits import Limits
from forage.server.refusal import Refusal
from forage.types import Passage

Api = Literal["search", "retrieve", "retrieve_bare"]

NO_HIT = -3.4e38
"""FAISS gives this score to places of its answer that hold no hit."""
_AT = re.compile(r" - at `\$(.*)`$")
_STEP = re.compile(r"\.(\w+)|\[(\d+|\.\.\.)\]")


class SearchBody(msgspec.Struct, forbid_unknown_fields=True):
    """What `POST /v1/search` takes: queries, and how many passages each (the service's default without it)."""

    queries: list[str]
    k: int | None = None


class RetrieveBody(msgspec.Struct):
    """What `POST /retrieve` takes. `topk` null, 0 or absent is the service's default; other fields are ignored.

    SkyRL's client (skyrl_gym/tools/search.py) sends one `query` in the place of `queries`.
    """

    queries: list[str] | None = None
    query: str | None = None
    topk: int | None = None
    return_scores: bool | None = False


class Hit(msgspec.Struct):
    """A passage, best first; a higher score is better."""

    id: str
    title: str
    text: str
    score: float


class QueryError(msgspec.Struct):
    """Why the query at `index` has no result."""

    index: int
    message: str


class SearchAnswer(msgspec.Struct, omit_defaults=True):
    """One list of passages a query, in the order asked; null where `errors` says why there is none."""

    results: list[list[Hit] | None]
    errors: list[QueryError] = []


class Document(msgspec.Struct):
    """A passage as Search-R1 writes it: the first line of `contents` is the title in quotes, the rest the text."""

    id: str
    contents: str
    title: str
    text: str


class ScoredDocument(msgspec.Struct, omit_defaults=True):
    """A hit of `POST /retrieve`; without `return_scores` there is no score."""

    document: Document
    score: float | None = None


class RetrieveAnswer(msgspec.Struct):
    """One list of hits a query."""

    result: list[list[ScoredDocument]]


class Fault(msgspec.Struct):
    """What is wrong: a word for programs, a sentence for people; of a limit also its value."""

    code: str
    message: str
    limit: float | None = None


class ErrorAnswer(msgspec.Struct):
    """Every answer that is not 200."""

    error: Fault


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks, checked; `api` says how it is to be answered."""

    api: Api
    queries: list[str]
    k: int


_SEARCH = msgspec.json.Decoder(SearchBody)
_RETRIEVE = msgspec.json.Decoder(RetrieveBody, strict=False)  # "3" is a number there
_HITS = msgspec.json.Encoder()


def read_search(body: bytes, limits: Limits) -> Asked:
    """A body of `POST /v1/search`.

    Raises:
        Refusal: it is no JSON (400), not as it should be, or above a limit (422).
    """
    asked: SearchBody = _decoded(_SEARCH, body)
    return _checked("search", asked.queries, asked.k, "k", limits)


def read_retrieve(body: bytes, limits: Limits) -> Asked:
    """A body of `POST /retrieve`.

    Raises:
        Refusal: it is no JSON (400), not as it should be, or above a limit (422).
    """
    asked: RetrieveBody = _decoded(_RETRIEVE, body)
    api: Api = "retrieve" if asked.return_scores else "retrieve_bare"
    queries = [asked.query] if asked.queries is None and asked.query is not None else asked.queries
    if queries is None:
        raise Refusal(422, "invalid", "the field `queries` is missing", at=["queries"])
    return _checked(api, queries, asked.topk or None, "topk", limits)


def _decoded(decoder: Any, body: bytes) -> Any:
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise Refusal(422, "invalid", str(error), at=_place(str(error))) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refusal(400, "no_json", f"the body is no JSON: {error}") from None
    except RecursionError:
        raise Refusal(400, "no_json", "the body is nested too deeply") from None


def _place(message: str) -> list[str | int]:
    """The place in the body that a message of msgspec's names."""
    found = _AT.search(message)
    steps = _STEP.findall(found[1]) if found else []
    place: list[str | int] = [name or (int(number) if number.isdigit() else number) for name, number in steps]
    if missing := re.search(r"(?:missing required|unknown) field `(\w+)`", message):
        place.append(missing[1])
    return place


def _checked(api: Api, queries: list[str], k: int | None, name: str, limits: Limits) -> Asked:
    k = limits.k if k is None else k
    if k < 1:
        raise Refusal(422, "invalid", f"{name} = {k}: it must be 1 or more", at=[name])
    if k > limits.max_k:
        raise _above("max_k", f"{name} = {k}", limits, [name])
    if len(queries) > limits.max_queries:
        raise _above("max_queries", f"{len(queries)} queries", limits, ["queries"])
    for place, query in enumerate(queries):
        if len(query) > limits.max_query_chars:
            raise _above("max_query_chars", f"a query of {len(query)} characters", limits, ["queries", place])
    return Asked(api, queries, k)


def _above(code: str, what: str, limits: Limits, at: list[str | int]) -> Refusal:
    limit = getattr(limits, code)
    return Refusal(422, code, f"{what}; this service takes at most {limit} ({code})", limit=limit, at=at)


def encoded(api: Api, found: Sequence[Passage]) -> bytes:
    """The passages of one query as they stand in an answer.

    Raises:
        RetrieverError: they can't be written: an id, title or text is no text, or a score no number.
    """
    try:
        hits = [_hit(passage) for passage in found if not passage.score <= NO_HIT]
        return _HITS.encode(hits if api == "search" else [_document(hit, bare=api == "retrieve_bare") for hit in hits])
    except (TypeError, ValueError) as error:
        raise RetrieverError(f"the index gave something that is no passage: {error}") from error


def _hit(passage: Passage) -> Hit:
    score = float(passage.score)
    if not math.isfinite(score):
        raise ValueError(f"the score of {passage.id!r} is {score}")
    texts = (passage.id, passage.title, passage.text)
    if not all(isinstance(text, str) for text in texts):
        raise TypeError(f"id, title and text must be strings, not {texts!r:.200}")
    return Hit(_writable(passage.id), _writable(passage.title), _writable(passage.text), score)


def _writable(text: str) -> str:
    """The text without halves of surrogate pairs, which no UTF-8 can hold."""
    return text if text.isascii() else text.encode(errors="replace").decode()


def _document(hit: Hit, *, bare: bool) -> ScoredDocument:
    heading = " ".join(hit.title.split("\n"))
    document = Document(hit.id, f'"{heading}"\n{hit.text}', hit.title, hit.text)
    return ScoredDocument(document, None if bare else hit.score)


def answer(api: Api, found: Sequence[bytes | RetrieverError]) -> bytes:
    """The whole body, from the bytes of each query.

    Raises:
        Refusal: every search failed, or, where the protocol has no place for errors, one did (500).
    """
    if all(isinstance(one, bytes) for one in found):
        head = b'{"results":[' if api == "search" else b'{"result":['
        return head + b",".join(found) + b"]}"  # type: ignore[arg-type]
    failed = [(place, one) for place, one in enumerate(found) if isinstance(one, RetrieverError)]
    if api != "search" or len(failed) == len(found):
        place, error = failed[0]
        raise Refusal(500, "search_failed", f"{len(failed)} of {len(found)} searches failed; query {place}: {error}")
    parts = [one if isinstance(one, bytes) else b"null" for one in found]
    errors = _HITS.encode([QueryError(place, str(error)) for place, error in failed])
    return b'{"results":[' + b",".join(parts) + b'],"errors":' + errors + b"}"
