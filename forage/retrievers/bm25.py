"""BM25 in process: bm25s makes the index, the top k are taken from its arrays directly."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from forage.errors import ConfigError, DataError
from forage.retrievers.corpus import Corpus
from forage.types import Passage

_WORD = re.compile(r"\w+")
_MANY = 50  # from here on, sorting the hits is cheaper than one pass over all scores for each of the k


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
        if k1 < 0 or not 0 <= b <= 1:
            raise ConfigError(f"BM25 needs k1 >= 0 and 0 <= b <= 1, not k1 = {k1}, b = {b}")
        self._corpus = Corpus(passages)
        self._analyser = _Analyser(stemmer, stopwords)
        self._starts, self._postings, self._weights = self._index(k1, b)

    def __len__(self) -> int:
        return len(self._corpus)

    def lookup(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        """The best k passages of each query, best first.

        Raises:
            ConfigError: k is less than 1 or more than there are passages.
        """
        self._corpus.check(k)
        return [self._best(query, k) for query in queries]

    def _best(self, query: str, k: int) -> list[Passage]:
        scores = np.zeros(len(self._corpus), np.float32)
        for word in self._analyser.known(query):
            span = slice(self._starts[word], self._starts[word + 1])
            np.add.at(scores, self._postings[span], self._weights[span])
        return [self._corpus.scored(row, score) for row, score in top_k(scores, k)]

    def _index(self, k1: float, b: float) -> tuple[list[int], NDArray[np.int32], NDArray[np.float32]]:
        """CSC arrays: passages with word w are postings[starts[w]:starts[w + 1]], with what it adds to their scores."""
        import bm25s

        rows = [self._analyser.learn(f"{passage.title} {passage.text}") for passage in self._corpus]
        if not any(rows):
            raise DataError("no passage of the corpus holds a word that is not a stopword")
        index = bm25s.BM25(k1=k1, b=b, method="lucene")
        index.index((rows, dict(self._analyser.words)), create_empty_token=False, show_progress=False)
        arrays = index.scores
        return arrays["indptr"].tolist(), arrays["indices"], arrays["data"]


def top_k(scores: NDArray[np.float32], k: int) -> list[tuple[int, float]]:
    """(row, score) of the k best scores above 0, best first, ties by row. Changes `scores`."""
    if k > _MANY:
        hits = np.flatnonzero(scores > 0)
        hits = hits[np.argsort(-scores[hits], kind="stable")[:k]]
        return list(zip(hits.tolist(), scores[hits].tolist(), strict=True))
    best = []
    for _ in range(k):
        row = int(scores.argmax())
        score = float(scores[row])
        if score <= 0:
            break
        best.append((row, score))
        scores[row] = 0
    return best


class _Analyser:
    """Text to word numbers. Index and queries go through the same one, so that they can't disagree."""

    def __init__(self, stemmer: str, stopwords: str) -> None:
        self.words: dict[str, int] = {}  # stem -> number
        self._stem = _stemmer(stemmer)
        # Word -> number, None for what is left out, so that each word is stemmed once.
        self._numbers: dict[str, int | None] = dict.fromkeys(_stopwords(stopwords))

    def learn(self, text: str) -> list[int]:
        """The words of a passage; new ones are numbered."""
        numbers, words = self._numbers, self.words
        found = []
        for word in _WORD.findall(text.lower()):
            if word not in numbers:
                numbers[word] = words.setdefault(self._stem(word), len(words))
            found.append(numbers[word])
        return [number for number in found if number is not None]

    def known(self, query: str) -> list[int]:
        """The words of a query that the corpus holds, in order, repetitions included."""
        numbers = (self._number(word) for word in _WORD.findall(query.lower()))
        return [number for number in numbers if number is not None]

    def _number(self, word: str) -> int | None:
        return self._numbers[word] if word in self._numbers else self.words.get(self._stem(word))


def _stemmer(language: str) -> Callable[[str], str]:
    if language == "none":
        return str
    import Stemmer

    try:
        stem: Callable[[str], str] = Stemmer.Stemmer(language).stemWord
    except KeyError as error:
        known = ", ".join(Stemmer.algorithms())
        raise ConfigError(f"search.stemmer = {language!r} is unknown; known: none, {known}") from error
    return stem


def _stopwords(language: str) -> Iterable[str]:
    if language == "none":
        return ()
    from bm25s.tokenization import _infer_stopwords

    try:
        return tuple(_infer_stopwords(language))
    except ValueError as error:
        raise ConfigError(f"search.stopwords = {language!r} is unknown; a language such as english, or none") from error
