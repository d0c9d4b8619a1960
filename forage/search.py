"""`forage search`: put one query to a corpus file, or to a run's search engine."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import Any

from forage.datasets.jsonl import read_passages
from forage.errors import DataError, RetrieverError
from forage.retrievers.bm25 import BM25Retriever
from forage.types import Passage


def search_corpus(target: Path, query: str, *, k: int = 3) -> dict[str, Any]:
    """The best passages for a query.

    Args:
        target: a run's folder (its own search engine over its evaluation corpus), or a corpus (BM25).
        k: how many passages.

    Returns:
        `query`, and `results`: id, title, text, score, best first.

    Raises:
        DataError: the corpus is missing or not usable, or the query is empty.
        RetrieverError: the search failed.
    """
    if not query.strip():
        raise DataError("the query is empty")
    if (target / "config.toml").exists():
        found = _search_run(target, query, k)
    else:
        found = BM25Retriever(read_passages(target)).lookup([query], k)[0]
    return {"query": query, "results": [asdict(passage) for passage in found]}


def _search_run(run: Path, query: str, k: int) -> list[Passage]:
    from forage import build
    from forage.configure import load

    config = load(run)
    retriever = build.retriever(config, build.dataset(config, "eval"))
    outcome = asyncio.run(retriever.search([query], k))[0]
    if isinstance(outcome, RetrieverError):
        raise outcome
    return outcome
