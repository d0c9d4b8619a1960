"""`forage search`: put one query to an index, to a corpus file, or to a run's search engine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from forage.datasets.jsonl import read_passages
from forage.errors import ConfigError, DataError, RetrieverError
from forage.indexing.analyser import Analyser, analysis
from forage.indexing.folder import INDEX
from forage.retrievers.bm25 import BM25Retriever
from forage.retrievers.rerank import NOTHING, open_searcher
from forage.types import Passage


def search_corpus(target: Path, query: str, *, k: int = 3, options: Mapping[str, Any] = NOTHING) -> dict[str, Any]:
    """The best passages for a query.

    Args:
        target: an index folder, a run's folder (its own search engine over its evaluation corpus), or a corpus (BM25).
        k: how many passages.
        options: of opening an index (see `open_searcher`).

    Returns:
        `query`, and `results`: id, title, text, score, best first.

    Raises:
        DataError: the corpus is missing or not usable, or the query is empty.
        IndexFolderError: the index can't be opened.
        RetrieverError: the search failed.
        ConfigError: an option is unknown or of another type, or the target is no index.
    """
    if not query.strip():
        raise DataError("the query is empty")
    if options and not (target / INDEX).exists():
        raise ConfigError(f"{', '.join(options)}: such options are for an index folder, which {target} is not")
    if (target / "config.toml").exists():
        found = _search_run(target, query, k)
    elif (target / INDEX).exists():
        found = open_searcher(target, options).lookup([query], k)[0]
    else:
        found = BM25Retriever(read_passages(target)).lookup([query], k)[0]
    return {"query": query, "results": [asdict(passage) for passage in found]}


def marked(text: str, query: str, mark: Callable[[str], str], *, language: str = "english") -> str:
    """The text with every word marked that the query has too, in whatever form; stop words are not.

    Args:
        text: of a passage.
        query: what was asked.
        mark: makes a word stand out.
        language: of stems and stop words.
    """
    analyser = Analyser(analysis(language, language))
    parts, last = [], 0
    for start, end in analyser.spans(text, frozenset(analyser.words(query))):
        parts += [text[last:start], mark(text[start:end])]
        last = end
    return "".join([*parts, text[last:]])


def _search_run(run: Path, query: str, k: int) -> list[Passage]:
    from forage import build
    from forage.configure import load

    config = load(run)
    retriever = build.retriever(config, build.dataset(config, "eval"))
    outcome = asyncio.run(retriever.search([query], k))[0]
    if isinstance(outcome, RetrieverError):
        raise outcome
    return outcome
