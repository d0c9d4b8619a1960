"""Text to words. What an index was built with is stored in it, and queries are read with exactly that."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import compress

import msgspec

from forage.errors import ConfigError

WORD = r"\w+"


class Analysis(msgspec.Struct, frozen=True, kw_only=True):
    """How text becomes words: lower case, then the pattern, without stop words, then stems."""

    stemmer: str
    """a Snowball language, or none"""
    stopwords: list[str]
    """the words themselves, so that another version's list changes nothing"""
    title: bool = True
    """passages are read with their title before the text"""
    pattern: str = WORD
    """a regular expression of a word, in lower-cased text"""


def analysis(stemmer: str, stopwords: str, *, title: bool = True) -> Analysis:
    """An analysis by names.

    Args:
        stemmer: a Snowball language, or "none".
        stopwords: a language as bm25s names them ("english" are Lucene's 33), or "none".
        title: whether passages are read with their title.

    Raises:
        ConfigError: an unknown language.
    """
    return Analysis(stemmer=stemmer, stopwords=_stopwords(stopwords), title=title)


class Analyser:
    """Reads text as one `Analysis` says.

    Raises:
        ConfigError: the stemmer is unknown.
    """

    def __init__(self, chosen: Analysis) -> None:
        self.chosen = chosen
        self.stem = _stemmer(chosen.stemmer)
        self.left_out = frozenset(chosen.stopwords)
        self._find = re.compile(chosen.pattern).findall

    def raw(self, text: str) -> list[str]:
        """Words before stop words are left out and stems taken."""
        return self._find(text.lower())

    def text(self, title: str, text: str) -> str:
        """What of a passage is read."""
        return f"{title} {text}" if self.chosen.title else text

    def words(self, text: str) -> list[str]:
        """The words of a query or passage in order, repetitions included."""
        return [self.stem(word) for word in self.raw(text) if word not in self.left_out]

    def spans(self, text: str, words: frozenset[str]) -> list[tuple[int, int]]:
        """Where in `text` (as written) words stand whose stem is one of `words`."""
        places = [match.span() for match in re.finditer(self.chosen.pattern, text)]
        inside = [not words.isdisjoint(self.words(text[start:end])) for start, end in places]
        return list(compress(places, inside))


def _stemmer(language: str) -> Callable[[str], str]:
    if language == "none":
        return str
    import Stemmer

    try:
        stem: Callable[[str], str] = Stemmer.Stemmer(language).stemWord
    except KeyError as error:
        known = ", ".join(Stemmer.algorithms())
        raise ConfigError(f"stemmer = {language!r} is unknown; known: none, {known}") from error
    return stem


def _stopwords(language: str) -> list[str]:
    if language == "none":
        return []
    from bm25s.tokenization import _infer_stopwords

    try:
        return sorted(_infer_stopwords(language))
    except ValueError as error:
        raise ConfigError(f"stopwords = {language!r} is unknown; a language such as english, or none") from error
