"""BM25, built and asked one question at a time: Forage against bm25s (numba backend) and tantivy.

    python benchmarks/bm25.py CORPUS.jsonl QUESTIONS.jsonl --peers PYTHON [--json] [--rounds 5] [--k 3]

PYTHON has tantivy, bm25s, PyStemmer and numba (`pip install tantivy bm25s PyStemmer numba` into an environment of its
own). Indexes are made in --work, in a process each, whose CPU seconds and peak memory are told, and kept there. Sides
answer the same questions in blocks that take turns; `keywords` are the questions without their commonest words, six at
most. Where questions carry `positive_ids`, recall@k is compared on the same questions, with a paired 95% interval.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import HERE, Cost, compare, interleave, machine, show

from forage.datasets.lines import read_lines

WORKER = HERE / "peers" / "bm25_worker.py"
SIDES = ("forage", "forage_dense", "bm25s", "tantivy")
_LEFT_OUT = """a an and are as at be been by did do does for from had has have how in is it its many much of on or
that the their there this to was were what when where which who whom whose why will with would"""
FUNCTION_WORDS = frozenset(_LEFT_OUT.split())


class Side:
    """A process that answers queries."""

    def __init__(self, python: str, name: str, folder: Path) -> None:
        command = [python, str(WORKER), name, "serve", str(folder)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def tell(self, message: Any) -> None:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()

    def ask(self, k: int, start: int, end: int) -> dict[str, Any]:
        self.tell({"k": k, "from": start, "to": end})
        assert self._process.stdout
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate()


def build(python: str, name: str, corpus: Path, folder: Path) -> dict[str, Any] | None:
    """What building took; None where the index was there."""
    if folder.exists():
        return None
    done = subprocess.run(
        [python, str(WORKER), name, "build", str(corpus), str(folder)], stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def keywords(question: str) -> str:
    return " ".join([word for word in re.findall(r"\w+", question) if word.lower() not in FUNCTION_WORDS][:6])


def asked(sides: dict[str, Side], queries: Sequence[str], k: int, rounds: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Costs by side and ratios to ours, and what each side found."""
    found: dict[str, Any] = {}

    def block(name: str) -> Cost:
        answer = sides[name].ask(k, 0, len(queries))
        found[name] = answer
        return Cost(answer["cpu_s"], answer["wall_s"])

    for side in sides.values():
        side.tell(list(queries))
    costs = interleave({name: lambda name=name: block(name) for name in sides}, rounds)
    result: dict[str, Any] = {
        f"{name}_cpu_ms": round(statistics.median(cost.cpu_s for cost in each) / len(queries) * 1e3, 4)
        for name, each in costs.items()
    }
    for name in sides:
        if name != "forage":
            result[f"{name}_over_forage"] = compare(costs["forage"], costs[name], 1)["ratio"]
    return result, found


def recall(found: dict[str, Any], golds: Sequence[set[str]]) -> dict[str, Any]:
    """Mean share of gold passages by side, and ours less theirs."""
    shares = {
        name: [len(gold & set(ids)) / len(gold) for gold, ids in zip(golds, each["found"], strict=True)]
        for name, each in found.items()
    }
    result: dict[str, Any] = {name: round(statistics.mean(values), 4) for name, values in shares.items()}
    for name, values in shares.items():
        if name != "forage":
            less = [a - b for a, b in zip(shares["forage"], values, strict=True)]
            mean, half = statistics.mean(less), 1.96 * statistics.stdev(less) / len(less) ** 0.5
            result[f"forage_less_{name}"] = [round(value, 4) for value in (mean, mean - half, mean + half)]
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("corpus", type=Path)
    parser.add_argument("questions", type=Path)
    parser.add_argument("--peers", default="", help="Python of the peers' environment; without one Forage runs alone")
    parser.add_argument("--work", type=Path, default=Path("runs/bench-bm25"), help="folder for the indexes")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds, after one that warms up")
    parser.add_argument("--count", type=int, default=1000, help="questions that are asked")
    parser.add_argument("--k", type=int, default=3, help="passages a question")
    parser.add_argument("--sides", default=",".join(SIDES), help="with commas between them")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args()
    rows = [row for _, row in read_lines(given.questions)][: given.count]
    questions = [row["question"] for row in rows]
    given.work.mkdir(parents=True, exist_ok=True)
    pythons = {name: sys.executable if name.startswith("forage") else given.peers for name in given.sides.split(",")}
    pythons = {name: python for name, python in pythons.items() if python}
    folders = {name: given.work / f"{given.corpus.stem}-{name.removesuffix('_dense')}" for name in pythons}
    result: dict[str, Any] = {"corpus": given.corpus.name, "k": given.k, "queries": len(questions)}
    for name, python in pythons.items():
        if name != "forage_dense" and (took := build(python, name, given.corpus, folders[name])):
            result[f"build_{name}"] = took
    sides = {name: Side(python, name, folders[name]) for name, python in pythons.items()}
    result["questions"], found = asked(sides, questions, given.k, given.rounds)
    result["serving_peak_mb"] = {name: each["peak_mb"] for name, each in found.items()}
    if all(row.get("positive_ids") for row in rows):
        result["recall"] = recall(found, [set(row["positive_ids"]) for row in rows])
    result["keywords"], _ = asked(sides, [keywords(question) for question in questions], given.k, given.rounds)
    for side in sides.values():
        side.close()
    show(result | {"machine": machine(1)}, as_json=given.json)


if __name__ == "__main__":
    main()
