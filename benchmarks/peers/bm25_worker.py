"""One side of bm25.py in a process of its own: `build` makes an index and ends, `serve` answers blocks of queries.

    python bm25_worker.py SIDE build CORPUS.jsonl FOLDER
    python bm25_worker.py SIDE serve FOLDER < queries and blocks as lines of JSON

Prints a line of JSON an answer. CPU seconds are of this process, all threads. Nothing of the project is needed but
for the sides of that name, so that peers may live in an environment of their own.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path

K1, B = 0.9, 0.4


def rows(corpus: str) -> Iterator[dict]:
    with open(corpus, encoding="utf-8") as file:
        yield from map(json.loads, file)


class Forage:
    """Our index, asked one query at a time; `dense` without numba's kernel."""

    def __init__(self, folder: Path, *, dense: bool = False) -> None:
        from forage.retrievers.indexed import open_index
        from forage.retrievers.scoring import Scorer

        self.index = open_index(folder)
        old = self.index._scorer
        if dense:
            held = (old._postings, self.index.analyser, len(self.index))
            self.index._scorer = Scorer(*held, prune_from=len(self.index) + 1)

    @staticmethod
    def build(corpus: str, folder: Path) -> None:
        from forage.indexing.build import build_index

        build_index(Path(corpus), "bm25", folder, options={"k1": K1, "b": B})

    def ask(self, query: str, k: int) -> list[str]:
        return [passage.id for passage in self.index.lookup([query], k)[0]]


class Dense(Forage):
    """Our index without skipping."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, dense=True)


class Bm25s:
    """bm25s as its documentation shows it, with a stemmer, Lucene's formula and its numba backend."""

    stopwords, b = "en", B  # Lucene's 33

    def __init__(self, folder: Path) -> None:
        import bm25s
        import Stemmer

        self.bm25s, self.stemmer = bm25s, Stemmer.Stemmer("english")
        self.index = bm25s.BM25.load(str(folder / "index"), mmap=True)
        self.index.backend = "numba"
        self.index.activate_numba_scorer()
        self.ids = json.loads((folder / "ids.json").read_text())

    @classmethod
    def build(cls, corpus: str, folder: Path) -> None:
        import bm25s
        import Stemmer

        folder.mkdir(parents=True)
        held = [(row["id"], f"{row['title']} {row['text']}") for row in rows(corpus)]
        tokens = bm25s.tokenize(
            [text for _, text in held], stopwords=cls.stopwords, stemmer=Stemmer.Stemmer("english"), show_progress=False
        )
        index = bm25s.BM25(k1=K1, b=cls.b, method="lucene")
        index.index(tokens, show_progress=False)
        index.save(str(folder / "index"))
        (folder / "ids.json").write_text(json.dumps([identity for identity, _ in held]))

    def ask(self, query: str, k: int) -> list[str]:
        tokens = self.bm25s.tokenize(
            [query], stopwords=self.stopwords, stemmer=self.stemmer, show_progress=False, return_ids=False
        )
        found = self.index.retrieve(tokens, k=k, show_progress=False, n_threads=1, backend_selection="numba")
        return [self.ids[row] for row in found.documents[0].tolist()]


class Bm25sTuned(Bm25s):
    """The same with what finds most by recall.py: its longer list of stop words, question words among them, and b."""

    stopwords, b = "en_plus", 0.75


class Tantivy:
    """tantivy with its English analyser, one thread; a query is the OR of its analysed words."""

    def __init__(self, folder: Path) -> None:
        import tantivy

        self.tantivy = tantivy
        self.index = tantivy.Index.open(str(folder))
        self.index.register_tokenizer("english", self._analyser())
        self.analyser = self._analyser()
        self.searcher = self.index.searcher()

    @staticmethod
    def _analyser():
        from tantivy import Filter, TextAnalyzerBuilder, Tokenizer

        builder = TextAnalyzerBuilder(Tokenizer.simple()).filter(Filter.lowercase())
        return builder.filter(Filter.stopword("english")).filter(Filter.stemmer("english")).build()

    @classmethod
    def build(cls, corpus: str, folder: Path) -> None:
        import tantivy

        folder.mkdir(parents=True)
        schema = tantivy.SchemaBuilder()
        schema.add_text_field("id", stored=True, tokenizer_name="raw")
        schema.add_text_field("body", stored=False, tokenizer_name="english")
        index = tantivy.Index(schema.build(), path=str(folder))
        index.register_tokenizer("english", cls._analyser())
        writer = index.writer(heap_size=128_000_000, num_threads=1)
        for row in rows(corpus):
            writer.add_document(tantivy.Document(id=row["id"], body=f"{row['title']} {row['text']}"))
        writer.commit()
        writer.wait_merging_threads()

    def ask(self, query: str, k: int) -> list[str]:
        Query, Occur, schema = self.tantivy.Query, self.tantivy.Occur, self.index.schema
        terms = [(Occur.Should, Query.term_query(schema, "body", word)) for word in self.analyser.analyze(query)]
        found = self.searcher.search(Query.boolean_query(terms), k, count=False)
        return [self.searcher.doc(address)["id"][0] for _, address in found.hits]


SIDES = {"forage": Forage, "forage_dense": Dense, "bm25s": Bm25s, "bm25s_tuned": Bm25sTuned, "tantivy": Tantivy}


def peak_mb() -> float:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def serve(side: type, folder: Path) -> None:
    """A list of queries is kept; `{"k": k, "from": a, "to": b}` asks those of them and tells what it took."""
    index, queries = side(folder), []
    for line in sys.stdin:
        asked = json.loads(line)
        if isinstance(asked, list):
            queries = asked
            continue
        cpu, wall = time.process_time(), time.perf_counter()
        found = [index.ask(query, asked["k"]) for query in queries[asked["from"] : asked["to"]]]
        took = {"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall}
        print(json.dumps(took | {"found": found, "peak_mb": peak_mb()}), flush=True)


def main() -> None:
    side, work, *rest = sys.argv[1:]
    if work == "serve":
        serve(SIDES[side], Path(rest[0]))
        return
    cpu, wall = time.process_time(), time.perf_counter()
    SIDES[side].build(rest[0], Path(rest[1]))
    size = sum(path.stat().st_size for path in Path(rest[1]).rglob("*") if path.is_file())
    took = {"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall}
    print(json.dumps(took | {"peak_mb": peak_mb(), "disk_mb": round(size / 1e6, 1)}), flush=True)


if __name__ == "__main__":
    main()
