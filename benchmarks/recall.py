"""What is found: BM25, vectors and both fused, and bm25s and tantivy, on questions whose passages are known.

    python benchmarks/recall.py --data DATA --encoder MODEL [--peers PYTHON] [--limit 300] [--passages 5000] [--json]

DATA holds multihop/hotpotqa/{corpus,questions}.jsonl.gz, and singlehop/ with corpus.jsonl.gz, squad_dev.jsonl.gz,
squad_train.jsonl.gz and popqa_gold_1k.jsonl. MODEL is an encoder's folder. PYTHON has the libraries
(`python -m venv peers && peers/bin/pip install bm25s PyStemmer numba tantivy`); without it Forage runs alone.

Measured on HotpotQA's dev questions, SQuAD's dev questions and PopQA's, and on all together. The weight of a corpus is
fitted on its training questions (HotpotQA's train, SQuAD's train) as `forage fuse` does it; PopQA has none, and gets
SQuAD's. `tuned` are BM25s with the settings that find most for the same training questions (`--tune` tells how much
each does); the hybrid's is one of them. Together, each question counts once. Differences have 95% intervals of a paired
bootstrap over questions. Indexes are kept in --work.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, product
from pathlib import Path
from typing import Any

import numpy as np
from bm25 import Side, build
from common import machine, show

from forage.datasets.lines import read_lines, write_lines
from forage.fuse import fit_fusion, goodness
from forage.indexing.build import build_index
from forage.indexing.corpus import read_passages
from forage.indexing.folder import read_info
from forage.indexing.hybrid import Fusion
from forage.indexing.store import PassageStore
from forage.retrievers.bm25 import BM25Retriever
from forage.retrievers.fusion import Ranking
from forage.retrievers.hybrid import HybridIndex, fuse
from forage.retrievers.indexed import open_index

OURS = ("bm25", "bm25_tuned", "dense", "rrf", "weighted")
PEERS = ("bm25s", "bm25s_tuned", "tantivy")
TUNED = {"stopwords": "english_plus", "k1": 0.9, "b": 0.75}
MEASURES = ("recall@3", "recall@10", "mrr")
K, DEPTH, TRAIN, RESAMPLES = 10, 30, 1000, 10_000
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Place:
    """A corpus, the sets of questions that are measured on it, and those that its weight is fitted on."""

    name: str
    corpus: Path
    sets: dict[str, list[Row]]
    train: list[Row]


def rows(path: Path) -> list[Row]:
    return [row for _, row in read_lines(path)]


def spread(questions: Sequence[Row], limit: int) -> list[Row]:
    """At most `limit` of them, evenly spread: neighbours are of one article."""
    if not limit or limit >= len(questions):
        return list(questions)
    return [questions[place * len(questions) // limit] for place in range(limit)]


def places(data: Path, limit: int) -> list[Place]:
    hotpot, single = data / "multihop" / "hotpotqa", data / "singlehop"
    questions = rows(hotpot / "questions.jsonl.gz")
    by_split = {split: [row for row in questions if row["split"] == split] for split in ("dev", "train")}
    popqa = rows(single / "popqa_gold_1k.jsonl")
    asked = {"squad": rows(single / "squad_dev.jsonl.gz"), "popqa": popqa}
    train = limit or TRAIN
    return [
        Place(
            "hotpotqa",
            hotpot / "corpus.jsonl.gz",
            {"hotpotqa": spread(by_split["dev"], limit)},
            spread(by_split["train"], train),
        ),
        Place(
            "singlehop",
            single / "corpus.jsonl.gz",
            {name: spread(found, limit) for name, found in asked.items()},
            spread(rows(single / "squad_train.jsonl.gz"), train),
        ),
    ]


def write_corpus(place: Place, passages: int, work: Path) -> Path:
    """The corpus as plain lines, cut to the questions' passages and as many others as `passages` leaves room for."""
    path = work / f"{place.name}.jsonl"
    if not path.exists():
        held = rows(place.corpus)
        if passages:
            asked = chain(place.train, *place.sets.values())
            golds = {each for row in asked for each in row["positive_ids"]}
            others = [row["id"] for row in held if row["id"] not in golds][: max(0, passages - len(golds))]
            kept = golds | set(others)
            held = [row for row in held if row["id"] in kept]
        write_lines(path, held)
    return path


def hybrid(corpus: Path, train: Sequence[Row], encoder: str, vectors: Path | None, k: int) -> tuple[Path, Any]:
    """A hybrid index, and what fitting its weight on training questions found."""
    folder = corpus.with_name(f"{corpus.stem}-hybrid")
    if not (folder / "index.json").exists():
        brought = {"vectors": vectors} if vectors else {}
        build_index(corpus, "hybrid", folder, options={"encoder.path": encoder, **TUNED, **brought}, resume=True)
    questions = corpus.with_name(f"{corpus.stem}-train.jsonl")
    write_lines(questions, train)
    return folder, fit_fusion(folder, questions, k=k)


def ours(folder: Path, plain: Path, questions: Sequence[str], weight: float) -> dict[str, list[list[str]]]:
    """The ids that each of ours finds; both parts are asked once."""
    index, store = open_index(folder), PassageStore(folder)
    assert isinstance(index, HybridIndex)
    found: dict[str, list[list[str]]] = {name: [] for name in OURS[1:]}
    for start in range(0, len(questions), 64):
        for both in index.rankings(questions[start : start + 64], min(DEPTH, len(index))):
            for name, best in fused(*both, weight).items():
                found[name].append([store[row].id for row in best[:K]])
    found["bm25"] = [[p.id for p in each] for each in open_index(plain).lookup(questions, K)]
    return found


def fused(lexical: Ranking, dense: Ranking, weight: float) -> dict[str, list[int]]:
    """The rows of both parts, and those of both fused."""
    rows = {"bm25_tuned": lexical[0].tolist(), "dense": dense[0].tolist()}
    for fusion in (Fusion.of("rrf"), Fusion.of("weighted", None, weight)):
        cut = [(ranking[0][: fusion.depth], ranking[1][: fusion.depth]) for ranking in (lexical, dense)]
        rows[fusion.method] = [row for row, _ in fuse(fusion, *cut, K, min(fusion.depth, max(map(len, rows.values()))))]
    return rows


def peers(python: str, corpus: Path, questions: Sequence[str]) -> dict[str, list[list[str]]]:
    """The ids that the libraries find."""
    found = {}
    for name in PEERS if python else ():
        folder = corpus.with_name(f"{corpus.stem}-{name}")
        build(python, name, corpus, folder)
        side = Side(python, name, folder)
        side.tell(list(questions))
        found[name] = side.ask(K, 0, len(questions))["found"]
        side.close()
    return found


def measured(found: Sequence[Sequence[str]], asked: Sequence[Row]) -> np.ndarray:
    """[questions, measures]"""
    table = np.zeros((len(asked), len(MEASURES)))
    for place, (ids, row) in enumerate(zip(found, asked, strict=True)):
        golds = set(row["positive_ids"])
        rank = next((rank for rank, each in enumerate(ids, start=1) if each in golds), None)
        table[place] = (*(len(golds & set(ids[:k])) / len(golds) for k in (3, 10)), 1 / rank if rank else 0.0)
    return table


def difference(first: np.ndarray, second: np.ndarray, seed: int = 0) -> list[float]:
    """Mean of first - second over questions, and its 95% interval by the paired bootstrap."""
    less = first - second
    generator = np.random.default_rng(seed)
    means = [less[generator.integers(0, len(less), len(less))].mean() for _ in range(RESAMPLES)]
    return [round(float(value), 4) for value in (less.mean(), *np.percentile(means, [2.5, 97.5]))]


def compared(tables: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Means by side, and the differences that matter, at 3 passages and 10."""
    result: dict[str, Any] = {"n": len(next(iter(tables.values())))}
    for name, table in tables.items():
        result[name] = dict(zip(MEASURES, table.mean(0).round(4).tolist(), strict=True))
    for place, measure in enumerate(MEASURES[:2]):
        at = {name: table[:, place] for name, table in tables.items()}
        better = max(("bm25_tuned", "dense"), key=lambda name: at[name].mean())
        for name in ("rrf", "weighted"):
            result[f"{name}_less_{better} {measure}"] = difference(at[name], at[better])
        result[f"weighted_less_rrf {measure}"] = difference(at["weighted"], at["rrf"])
        if theirs := [name for name in PEERS if name in at]:
            best = max(theirs, key=lambda name: at[name].mean())
            for own in ("bm25", "bm25_tuned"):
                result[f"{own}_less_{best} {measure}"] = difference(at[own], at[best])
    return result


def together(tables: Iterable[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """All questions of all sets, one after another."""
    listed = list(tables)
    return {name: np.concatenate([table[name] for table in listed]) for name in listed[0]}


def searched(place: Place, given: argparse.Namespace) -> tuple[dict[str, Any], dict[str, dict[str, np.ndarray]]]:
    """What the corpus is and how its weight was fitted; and by set and side, what each question found."""
    corpus = write_corpus(place, given.passages, given.work)
    vectors = given.vectors / f"{place.name}.npy" if given.vectors else None
    folder, fitted = hybrid(corpus, place.train, given.encoder, vectors, given.fit_k)
    plain = corpus.with_name(f"{corpus.stem}-bm25")
    if not plain.exists():
        build_index(corpus, "bm25", plain)
    tried = [row for row in fitted["tried"] if row["fusion"] == "weighted"]
    weight = max(tried, key=goodness)["lexical_weight"]
    told = {
        "passages": read_info(folder).passages,
        "fitted_on": fitted["n"],
        "lexical_weight": weight,
        "train_recall": {f"{row['lexical_weight']:g}": round(row["recall"], 4) for row in tried},
        "train_recall_rrf": round(fitted["tried"][0]["recall"], 4),
    }
    found = {}
    for name, asked in place.sets.items():
        questions = [row["question"] for row in asked]
        sides = ours(folder, plain, questions, weight) | peers(given.peers, corpus, questions)
        found[name] = {side: measured(ids, asked) for side, ids in sides.items()}
    return told, found


def tuned(place: Place, corpus: Path) -> dict[str, float]:
    """Recall@3 on the training questions by setting of BM25."""
    found = {}
    for stopwords, (k1, b) in product(("english", "english_plus"), ((0.9, 0.4), (0.9, 0.6), (0.9, 0.75), (1.2, 0.75))):
        index = BM25Retriever(read_passages(corpus), stopwords=stopwords, k1=k1, b=b)
        ids = [[p.id for p in each] for each in index.lookup([row["question"] for row in place.train], K)]
        found[f"{stopwords} k1={k1} b={b}"] = round(float(measured(ids, place.train)[:, 0].mean()), 4)
    return found


def settings() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of corpora and questions")
    parser.add_argument("--encoder", default="", help="folder of an encoder")
    parser.add_argument("--vectors", type=Path, help="folder of NAME.npy, a row for each passage of NAME's corpus")
    parser.add_argument("--peers", default="", help="Python of the libraries' environment")
    parser.add_argument("--work", type=Path, default=Path("runs/bench-recall"), help="folder for corpora and indexes")
    parser.add_argument("--limit", type=int, default=0, help="questions a set; 0: all (and 1,000 to fit on)")
    parser.add_argument("--passages", type=int, default=0, help="passages of a corpus, golds first; 0: all")
    parser.add_argument("--fit-k", type=int, default=3, help="weights are fitted to recall at so many passages")
    parser.add_argument(
        "--tune", action="store_true", help="only tell what settings of BM25 find for training questions"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args()
    if not given.encoder and not given.tune:
        parser.error("--encoder: an encoder's folder is needed")
    return given


def main() -> None:
    given = settings()
    given.work.mkdir(parents=True, exist_ok=True)
    chosen = places(given.data, given.limit)
    if given.tune:
        result: dict[str, Any] = {
            each.name: tuned(each, write_corpus(each, given.passages, given.work)) for each in chosen
        }
    else:
        result = {"encoder": Path(given.encoder).name, "bm25_tuned": TUNED}
        by_set = {}
        for place in chosen:
            result[f"{place.name} corpus"], found = searched(place, given)
            by_set |= found
        result |= {name: compared(tables) for name, tables in by_set.items()}
        result["together"] = compared(together(by_set.values()))
    show(result | {"machine": machine(1)}, as_json=given.json)


if __name__ == "__main__":
    main()
