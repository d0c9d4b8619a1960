"""BM25: in process over the passages of a data set, or over an index folder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from forage.errors import IndexFolderError
from forage.indexing.analyser import Analyser, Analysis, analysis
from forage.indexing.bm25 import check_formula
from forage.indexing.folder import IndexInfo
from forage.indexing.postings import in_memory, open_postings
from forage.indexing.runs import runs
from forage.indexing.store import PassageStore
from forage.retrievers.corpus import Corpus, check_k
from forage.retrievers.fusion import Ranking, as_ranking
from forage.retrievers.scoring import Scorer
from forage.types import Passage


class BM25Retriever:
    """Exact BM25 with Lucene's formula over title and text. Scores are equal to bm25s'; ties go to the earlier passage.

    Passages without any word of the query are never returned, so there can be fewer than k, or none.

    Args:
        stemmer: a Snowball language, or "none".
        stopwords: words that are left out, by language as bm25s names them ("english" are Lucene's 33), or "none".
        k1: how slowly repetitions of a word stop counting.
        b: how far long passages are held back, from 0 (not at all) to 1.

    Raises:
        DataError: the corpus is empty, holds no word, or two passages share an id.
        ConfigError: an unknown stemmer or stopword language, or k1 or b out of range.
    """

    def __init__(
        self,
        passages: Iterable[Passage],
        *,
        stemmer: str = "english",
        stopwords: str = "english",
        k1: float = 0.9,
        b: float = 0.4,
    ) -> None:
        check_formula(k1, b)
        self._corpus = Corpus(passages)
        self.analyser = Analyser(analysis(stemmer, stopwords))
        postings = in_memory(list(runs(self._corpus, self.analyser)), k1=k1, b=b)
        self._scorer = Scorer(postings, self.analyser, len(self._corpus))

    def __len__(self) -> int:
        return len(self._corpus)

    def lookup(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        """The best k passages of each query, best first.

        Raises:
            ConfigError: k is less than 1 or more than there are passages.
        """
        self._corpus.check(k)
        return [[self._corpus.scored(row, score) for row, score in self._scorer.best(query, k)] for query in queries]


class BM25Index:
    """BM25 over an index folder, whose arrays and texts are mapped; the same results as `BM25Retriever`.

    Use `forage.retrievers.indexed.open_index`.

    Raises:
        IndexFolderError: the arrays are missing or broken, or index.json does not say how words are read.
    """

    def __init__(self, folder: Path, info: IndexInfo, store: PassageStore) -> None:
        self._store = store
        try:
            self.analyser = Analyser(msgspec.convert(info.options["analysis"], Analysis))
        except (KeyError, TypeError, msgspec.ValidationError) as error:
            raise IndexFolderError(
                f"{folder} does not say how its words were read ({error}): build it again"
            ) from error
        self._scorer = Scorer(open_postings(folder), self.analyser, len(store))

    def __len__(self) -> int:
        return len(self._store)

    def lookup(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        """The best k passages of each query, best first.

        Raises:
            ConfigError: k is less than 1 or more than there are passages.
        """
        check_k(k, len(self))
        return [[self._store.scored(row, score) for row, score in self._scorer.best(query, k)] for query in queries]

    def rank(self, queries: Sequence[str], k: int) -> list[Ranking]:
        """The rows of these passages and their scores, without the passages."""
        return [as_ranking(self._scorer.best(query, k)) for query in queries]
