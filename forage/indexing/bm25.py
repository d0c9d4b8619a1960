"""BM25 on disk: passages are counted in runs, runs are merged, and neither needs the corpus in memory."""

from __future__ import annotations

from functools import partial
from itertools import count, takewhile
from pathlib import Path
from typing import Any

import msgspec

from forage.errors import ConfigError
from forage.indexing.analyser import Analyser, analysis
from forage.indexing.build import Progress
from forage.indexing.postings import BLOCK, on_disk
from forage.indexing.runs import BYTES, TOKENS, Run, runs
from forage.indexing.store import PassageStore

_RUNS = ".bm25.runs"


class BM25Builder:
    """Exact BM25 with Lucene's formula, for corpora of any size.

    Args:
        stemmer: a Snowball language, or "none".
        stopwords: words that are left out, by language as bm25s names them ("english" are Lucene's 33), or "none".
        title: whether passages are read with their title before the text.
        k1: how slowly repetitions of a word stop counting.
        b: how far long passages are held back, from 0 (not at all) to 1.
        run_tokens: words counted at once; the memory that is needed grows with it, and the index is the same.

    Raises:
        ConfigError: an unknown language, or a number out of range.
    """

    packages = ("PyStemmer", "bm25s")

    def __init__(
        self,
        *,
        stemmer: str = "english",
        stopwords: str = "english",
        title: bool = True,
        k1: float = 0.9,
        b: float = 0.4,
        run_tokens: int = TOKENS,
    ) -> None:
        check_formula(k1, b)
        if run_tokens < 1:
            raise ConfigError(f"run_tokens = {run_tokens}, but it must be at least 1")
        self._analyser = Analyser(analysis(stemmer, stopwords, title=title))
        self._k1, self._b, self._tokens = k1, b, run_tokens

    def plan(self) -> str:
        """Half a sentence for a person before it starts: the memory it will take at most."""
        peak = 110e6 + max(BYTES * self._tokens, 60 * BLOCK)
        return f"about {peak / 1e6:,.0f} MB for BM25, 50 bytes a different word"

    def build(self, store: PassageStore, folder: Path, progress: Progress) -> dict[str, Any]:
        """Write `bm25.*.npy`; finished runs of an interrupted call are taken as they are."""
        home = folder / _RUNS
        home.mkdir(exist_ok=True)
        done = list(takewhile(Path.exists, (home / f"{number:05d}" for number in count())))
        passages = sum(len(Run.open(path).lengths) for path in done)
        for run in runs(store.read(passages), self._analyser, self._tokens):
            run.save(home / f"{len(done):05d}")
            done.append(home / f"{len(done):05d}")
            passages += len(run.lengths)
            progress("passages counted", passages, len(store))
        on_disk(
            [partial(Run.open, path) for path in done],
            folder,
            partial(progress, "pairs of word and passage merged"),
            k1=self._k1,
            b=self._b,
        )
        return {"analysis": msgspec.to_builtins(self._analyser.chosen), "k1": self._k1, "b": self._b}


def check_formula(k1: float, b: float) -> None:
    """Refuse what the formula can't take.

    Raises:
        ConfigError: k1 is negative, or b is not between 0 and 1.
    """
    if k1 < 0 or not 0 <= b <= 1:
        raise ConfigError(f"BM25 needs k1 >= 0 and 0 <= b <= 1, not k1 = {k1}, b = {b}")
