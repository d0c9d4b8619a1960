"""The index that `soak.py` asks: `python soak_index.py FOLDER` makes it, `... FOLDER WORKERS` serves it."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

WORDS = ("river", "castle", "poem", "engine", "garden", "island", "bridge", "comet", "violin", "harbour", "glacier")
NUMBERS = 400


def make(folder: Path) -> None:
    """A BM25 index of a passage for each word and number."""
    from forage.indexing.build import build_index

    with tempfile.TemporaryDirectory() as place:
        corpus = Path(place) / "corpus.jsonl"
        with corpus.open("w", encoding="utf-8") as out:
            for word in WORDS:
                for number in range(NUMBERS):
                    text = f"This passage is about the {word} number {number} and about nothing else at all."
                    out.write(json.dumps({"id": f"{word}-{number}", "title": f"{word} {number}", "text": text}) + "\n")
        build_index(corpus, "bm25", folder)


def serve(folder: Path, workers: int) -> None:
    """`forage serve FOLDER --port 0`, with less patience for slow clients than it has by default."""
    from dataclasses import replace
    from functools import partial

    from forage.server.limits import LIMITS
    from forage.server.serve import open_folder
    from forage.server.serve import serve as run_service
    from forage.server.worker import Work

    run_service(Work(partial(open_folder, folder), replace(LIMITS, read_s=5.0), workers=workers), port=0)


if __name__ == "__main__":
    if len(sys.argv) == 2:
        make(Path(sys.argv[1]))
    else:
        serve(Path(sys.argv[1]), int(sys.argv[2]))
