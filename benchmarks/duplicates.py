"""Near duplicates of a corpus: Forage against datasketch's MinHash and LSH, on the same shingles and passages.

    python benchmarks/duplicates.py CORPUS [--passages 20000] [--near 0.8] [--peer FOLDER] [--json]

Each side is a process of its own: CPU seconds, peak memory, and what was found. What datasketch proposes is verified
by the exact similarity, too. FOLDER holds datasketch and scipy (`pip install --target FOLDER --no-deps ...`);
without one Forage runs alone.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from common import machine, show, timed

from forage.indexing.corpus import read_passages
from forage.indexing.duplicates import Deduplication, find_duplicates
from forage.indexing.shingles import jaccard, shingles
from forage.indexing.store import PassageStore, StoreWriter


def forage(store: PassageStore, near: float) -> Iterator[int]:
    """Rows that are near duplicates of an earlier one."""
    return (match.row for match in find_duplicates(store, Deduplication("near", near), lambda *_: None))


def datasketch(store: PassageStore, near: float) -> Iterator[int]:
    """The same, of pairs that 128 hashes in bands propose."""
    from datasketch import MinHash, MinHashLSH

    kept = MinHashLSH(threshold=near, num_perm=128)
    for row, passage in enumerate(store):
        here, sketch = shingles(passage), MinHash(num_perm=128)
        sketch.update_batch([" ".join(words).encode() for words in here])
        if any(jaccard(here, shingles(store[other])) >= near for other in kept.query(sketch)):
            yield row
        else:
            kept.insert(row, sketch, check_duplication=False)


def side(name: str, folder: Path, near: float, peer: str) -> None:
    """Run one side, and print what it took."""
    if peer:
        sys.path.append(peer)
    store, rows = PassageStore(folder), []
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    cost = timed(lambda: rows.extend({"forage": forage, "datasketch": datasketch}[name](store, near)))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"cpu_s": round(cost.cpu_s, 2), "more_mb": round((peak - before) / 1024), "rows": rows}))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--passages", type=int, default=20_000, help="the first so many")
    parser.add_argument("--near", type=float, default=0.8, help="least similarity")
    parser.add_argument("--peer", default="", help="folder with datasketch")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--side", default="", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        side(given.side, given.corpus, given.near, given.peer)
        return
    result: dict[str, Any] = {"near": given.near}
    found: dict[str, set[int]] = {}
    with tempfile.TemporaryDirectory() as folder:
        with StoreWriter(Path(folder)) as writer:
            for passage in islice(read_passages(given.corpus), given.passages):
                writer.add(passage)
        result["passages"] = len(writer)
        for name in ("forage", "datasketch") if given.peer else ("forage",):
            command = [
                sys.executable,
                __file__,
                folder,
                "--side",
                name,
                "--near",
                str(given.near),
                "--peer",
                given.peer,
            ]
            answer = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
            found[name] = set(answer.pop("rows"))
            speed = round(len(writer) / answer["cpu_s"])
            result[name] = answer | {"passages_per_cpu_s": speed, "duplicates": len(found[name])}
    show(result | {"machine": machine(1)}, as_json=given.json)


if __name__ == "__main__":
    main()
