"""A corpus from files, passage by passage, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from forage.datasets.jsonl import passage_of
from forage.datasets.lines import MAX_BYTES, read_lines
from forage.errors import DataError, MissingExtra
from forage.indexing.folder import INDEX, Source, read_info
from forage.indexing.ids import Marks, mark
from forage.indexing.store import PassageStore, StoreWriter
from forage.types import Passage

ENDINGS = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet")
_BATCH = 1024  # rows of a parquet file that are in memory at once


def corpus_files(path: Path) -> list[Path]:
    """The files of a corpus: itself, or those of a folder in the order of their names.

    Raises:
        DataError: there is none.
    """
    if not path.is_dir():
        if not path.exists():
            raise DataError(f"{path}: there is no such file")
        return [path]
    files = sorted(file for file in path.iterdir() if file.name.endswith(ENDINGS) and not file.name.startswith("."))
    if not files:
        raise DataError(f"{path}: no file in this folder ends in {', '.join(ENDINGS)}")
    return files


def corpus_sources(path: Path) -> list[Source]:
    """The files of a corpus as they are now."""
    found = [(file, file.stat()) for file in corpus_files(path)]
    return [Source(str(file), stat.st_size, stat.st_mtime_ns) for file, stat in found]


def read_passages(path: Path, *, max_bytes: int = MAX_BYTES) -> Iterator[Passage]:
    """The passages of a file or folder in order: JSON lines (plain, `.gz`, `.zst`), or parquet (extra `parquet`).

    Fields are those of `forage.datasets.jsonl.read_passages`. Memory does not grow with the texts: of each id 8 bytes
    are kept. A doubled id is noticed up to 65,536 passages late, at the latest behind the last one, and then looked for
    in the files again.

    Args:
        path: a file, or a folder of files.
        max_bytes: longer lines are refused.

    Raises:
        DataError: a file is missing or broken, or a passage is not usable; names file and line.
        MissingExtra: pyarrow is needed.
    """
    marks, empty = Marks(), True
    for where, row in _rows(path, max_bytes):
        passage = passage_of(row, where)
        if not passage.text.strip():
            raise DataError(f"{where}: the passage {passage.id!r} has no text; leave it out of the corpus")
        empty = False
        if doubled := marks.add(passage.id):
            _refuse_doubled(path, doubled, max_bytes)
        yield passage
    if empty:
        raise DataError(f"{path}: the corpus is empty")
    if doubled := marks.doubled():
        _refuse_doubled(path, doubled, max_bytes)


def passages_of(target: Path) -> Iterable[Passage]:
    """The passages of an index folder, or of a corpus file or folder."""
    if (target / INDEX).exists():
        read_info(target)
        return PassageStore(target)
    return read_passages(target)


def store_corpus(
    corpus: Path, folder: Path, progress: Callable[[str, int, int], None], *, max_bytes: int = MAX_BYTES
) -> str:
    """Read every passage into a folder, for a `PassageStore`; their digest."""
    with StoreWriter(folder) as writer:
        for passage in read_passages(corpus, max_bytes=max_bytes):
            writer.add(passage)
            if len(writer) % 1000 == 0:
                progress("passages read", len(writer), 0)
    progress("passages read", len(writer), len(writer))
    return writer.digest


def _refuse_doubled(path: Path, marks: set[int], max_bytes: int) -> None:
    """Read again to say where; ids that only share a mark are let through."""
    first: dict[str, str] = {}
    for where, row in _rows(path, max_bytes):
        identity = passage_of(row, where).id
        if mark(identity) not in marks:
            continue
        if identity in first:
            raise DataError(f"{where}: the id {identity!r} occurs before, at {first[identity]}; ids must differ")
        first[identity] = where


def _rows(path: Path, max_bytes: int) -> Iterator[tuple[str, dict[str, Any]]]:
    for file in corpus_files(path):
        yield from _parquet_rows(file) if file.suffix == ".parquet" else read_lines(file, max_bytes=max_bytes)


def _parquet_rows(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ModuleNotFoundError as error:
        raise MissingExtra("pyarrow", "parquet") from error
    number = 0
    try:
        for batch in parquet.ParquetFile(file).iter_batches(batch_size=_BATCH):
            for row in batch.to_pylist():
                number += 1
                yield f"{file}: row {number}", row
    except (arrow.ArrowException, UnicodeDecodeError) as error:
        raise DataError(f"{file}: the parquet file is broken after row {number}: {error}") from error
