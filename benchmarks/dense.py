"""Dense search: what encoding costs, and HNSW and IVF-PQ against comparing with every vector, one query at a time.

    python benchmarks/dense.py CORPUS.jsonl QUESTIONS.jsonl --encoder FOLDER [--vectors FILE.npy] [--json]

Indexes are made in --work, and kept there; with --vectors (rows are passages; `dense.vectors.npy` of an index is such a
file) nothing but the questions is encoded. `encode` are passages a CPU second in both dtypes, and the lowest cosine
between them. Of each structure: CPU seconds to build, bytes a passage beside the vectors, and for each setting of the
search CPU microseconds a query without its encoding, recall@k of what comparing with every vector finds, and how many
times faster it is.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from time import process_time
from typing import Any

import msgspec
import numpy as np
import torch
from common import Cost, compare, interleave, machine, show, timed

from forage.datasets.lines import read_lines
from forage.encoders.transformer import TransformerEncoder
from forage.indexing.build import build_index
from forage.indexing.corpus import read_passages
from forage.indexing.folder import IndexInfo, read_info
from forage.indexing.structures import FILES, Structure
from forage.indexing.vectors import VECTORS, open_vectors
from forage.retrievers.nearest import Nearest

SEARCHES: dict[str, dict[str, int]] = {
    "flat": {},
    **{f"hnsw ef_search={width}": {"ef_search": width} for width in (32, 64, 128)},
    **{
        f"ivfpq nprobe={probes} candidates={count}": {"nprobe": probes, "candidates": count}
        for probes, count in ((32, 100), (64, 200), (128, 200), (256, 200))
    },
}


def encoding(path: str, texts: list[str], queries: list[str], rounds: int) -> dict[str, Any]:
    """Passages a CPU second and CPU milliseconds a query by dtype, and the lowest cosine between the two."""
    encoders = {name: TransformerEncoder(path=path, dtype=name) for name in ("float32", "bfloat16")}
    vectors = {name: encoder.encode_passages(texts) for name, encoder in encoders.items()}
    lengths = np.prod([np.linalg.norm(each, axis=1) for each in vectors.values()], axis=0)
    costs = interleave(
        {name: lambda e=encoder: timed(lambda: e.encode_passages(texts)) for name, encoder in encoders.items()}, rounds
    )
    alone = interleave(
        {
            name: lambda e=encoder: timed(lambda: [e.encode_queries([query]) for query in queries])
            for name, encoder in encoders.items()
        },
        rounds,
    )
    return {
        "passages": len(texts),
        **{f"{name}_per_cpu_s": round(len(texts) / middle(each), 1) for name, each in costs.items()},
        "bfloat16_over_float32": compare(costs["bfloat16"], costs["float32"], 1)["ratio"],
        "lowest_cosine": round(float((np.prod(list(vectors.values()), axis=0).sum(1) / lengths).min()), 6),
        **{f"{name}_query_ms": round(middle(each) / len(queries) * 1e3, 2) for name, each in alone.items()},
    }


def middle(costs: list[Cost]) -> float:
    return statistics.median(cost.cpu_s for cost in costs)


def built(given: argparse.Namespace, kind: str, vectors: Path | None) -> tuple[Path, float | None]:
    """The folder of an index, and what building it took; None where it was there."""
    folder = given.work / f"{given.corpus.name.partition('.')[0]}-{kind}"
    if folder.exists():
        return folder, None
    options: dict[str, Any] = {"encoder_path": given.encoder, "structure": kind}
    cpu = process_time()
    build_index(given.corpus, "dense", folder, options=options | ({"vectors": vectors} if vectors else {}))
    return folder, process_time() - cpu


def opened(folder: Path, **settings: int) -> Nearest:
    info: IndexInfo = read_info(folder)
    structure = msgspec.structs.replace(msgspec.convert(info.options["structure"], Structure), **settings)
    vectors = open_vectors(folder, info.passages, info.options["encoder"]["dimensions"])
    return Nearest(vectors, structure, folder, info.options["longest"])


def asked(sides: dict[str, Nearest], queries: np.ndarray, k: int, rounds: int) -> dict[str, dict[str, Any]]:
    """CPU microseconds a query of each side, its recall of what `flat` finds, and how many times faster it is."""
    found = {name: [set(rows.tolist()) for rows, _ in side.best(queries, k)] for name, side in sides.items()}

    def block(side: Nearest) -> Callable[[], Cost]:
        return lambda: timed(lambda: [side.best(query[None], k) for query in queries])

    costs = interleave({name: block(side) for name, side in sides.items()}, rounds)
    return {
        name: {
            "us": round(middle(costs[name]) / len(queries) * 1e6, 1),
            "recall": round(statistics.mean(len(a & b) / len(b) for a, b in zip(each, found["flat"], strict=True)), 4),
            "times_flat": compare(costs[name], costs["flat"], 1)["ratio"],
        }
        for name, each in found.items()
    }


def texts(corpus: Path, count: int) -> Iterator[str]:
    return (f"{passage.title} {passage.text}" for passage in islice(read_passages(corpus), count))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("corpus", type=Path)
    parser.add_argument("questions", type=Path)
    parser.add_argument("--encoder", required=True, help="folder of a text encoder, or its name on the hub")
    parser.add_argument("--vectors", type=Path, help="a .npy file with the passages' vectors")
    parser.add_argument("--work", type=Path, default=Path("runs/bench-dense"), help="folder for the indexes")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds, after one that warms up")
    parser.add_argument("--count", type=int, default=200, help="questions that are asked")
    parser.add_argument("--encode", type=int, default=300, help="passages that are encoded for the clock; 0: none")
    parser.add_argument("--k", type=int, default=10, help="passages a question")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.work.mkdir(parents=True, exist_ok=True)
    questions = [row["question"] for _, row in islice(read_lines(given.questions), given.count)]
    result: dict[str, Any] = {"corpus": given.corpus.name, "k": given.k, "queries": len(questions)}
    if given.encode:
        sample = list(texts(given.corpus, given.encode))
        result["encode"] = encoding(given.encoder, sample, questions[:50], min(given.rounds, 3))
    folders, vectors = {}, given.vectors
    for kind, file in FILES.items():
        folders[kind], took = built(given, kind, vectors)
        vectors = vectors or folders["flat"] / VECTORS
        info = read_info(folders[kind])
        result |= {"passages": info.passages}
        result[f"{kind}_index"] = {
            "build_cpu_s": took and round(took, 1),
            "bytes_a_passage": round(info.files.get(file, 0) / info.passages, 1),
        }
    sides = {name: opened(folders[name.partition(" ")[0]], **settings) for name, settings in SEARCHES.items()}
    queries = TransformerEncoder(path=given.encoder).encode_queries(questions)
    result |= asked(sides, queries, given.k, given.rounds)
    show(result | {"machine": machine(1)}, as_json=given.json)


if __name__ == "__main__":
    main()
