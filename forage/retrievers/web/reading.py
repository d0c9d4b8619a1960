"""A page to the passage that best matches a query: the text is taken out, cut into chunks, and BM25 chooses."""

from __future__ import annotations

import codecs
import logging
import re
from collections.abc import Iterator

from forage.errors import DataError, MissingExtra
from forage.retrievers.bm25 import BM25Retriever
from forage.retrievers.web.fetch import Page
from forage.types import Passage

log = logging.getLogger(__name__)

MAX_TAGS = 100_000  # of a page's markup; the longest articles have half of that, and more take seconds
MAX_CHARACTERS = 500_000  # of a text that are kept and looked at
CHARACTERS_A_WORD = 20  # that a chunk may have, so that one without blanks has an end, too

_SENTENCE = re.compile(r"(?<=[.!?])\s+")


def check_reader() -> None:
    """Refuse to begin without the extractor.

    Raises:
        MissingExtra: trafilatura is not installed.
    """
    try:
        import trafilatura  # noqa: F401
    except ImportError as error:
        raise MissingExtra("trafilatura", "web") from error


def text_of(page: Page) -> str:
    """What a page says, without menus, adverts and footers; empty where nothing is left, or there are too many
    tags to be a text. Plain text is taken whole."""
    written = _decoded(page)
    if page.kind == "text/plain":
        return written.strip()[:MAX_CHARACTERS]
    if written.count("<") > MAX_TAGS:
        return ""
    import trafilatura

    try:
        return (trafilatura.extract(written, include_comments=False) or "")[:MAX_CHARACTERS]
    except Exception:  # a stranger's page may bring a parser to raise anything
        log.info("the text of %s could not be taken out", page.url[:200], exc_info=True)
        return ""


def best(text: str, query: str, words: int) -> str:
    """The chunk of at most `words` words that matches the query best by BM25 over the page's own chunks (Snowball
    English, as `search.kind=bm25` does it); the first one where none holds a word of the query."""
    chunks = [chunk[: words * CHARACTERS_A_WORD] for chunk in cut(text[:MAX_CHARACTERS], words)]
    if len(chunks) < 2:
        return "".join(chunks)
    try:
        index = BM25Retriever(Passage(str(row), "", chunk) for row, chunk in enumerate(chunks))
    except DataError:  # nothing but stopwords
        return chunks[0]
    found = index.lookup([query], 1)[0]
    return found[0].text if found else chunks[0]


def cut(text: str, words: int) -> Iterator[str]:
    """Chunks of whole sentences, at most `words` words each; a sentence that is longer is cut into pieces."""
    chunk: list[str] = []
    for sentence in _SENTENCE.split(text):
        said = sentence.split()
        if chunk and len(chunk) + len(said) > words:
            yield " ".join(chunk)
            chunk = []
        pieces = [said[start : start + words] for start in range(0, len(said), words)]
        for piece in pieces[:-1]:
            yield " ".join(piece)
        chunk += pieces[-1] if pieces else []
    if chunk:
        yield " ".join(chunk)


def _decoded(page: Page) -> str:
    """The page as text: by its byte order mark, its header, its markup, else UTF-8; what can't be read is replaced."""
    head = b"" if page.kind == "text/plain" else page.body[:2048]
    declared = re.search(rb"<meta[^>]+charset=[\"']?([\w-]+)", head, re.IGNORECASE)
    bom = "utf-8-sig" if page.body.startswith(codecs.BOM_UTF8) else ""
    for name in filter(None, (bom, page.charset, declared[1].decode() if declared else "", "utf-8")):
        try:
            return page.body.decode(name, errors="replace")
        except (LookupError, ValueError):  # no such charset, or no charset of text
            continue
    return ""
