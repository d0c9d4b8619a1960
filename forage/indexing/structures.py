"""What makes nearest vectors quick to find, by FAISS: a graph (HNSW), or lists of compressed vectors (IVF-PQ).

Both are files that are mapped beside the vectors themselves, which they refer to and do not repeat. Malkov and
Yashunin, arXiv 1603.09320; Jégou, Douze and Schmid, TPAMI 2011 (IVFADC).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from forage.errors import ConfigError, IndexFolderError, MissingExtra
from forage.indexing.vectors import Half, blocks_of

Kind = Literal["flat", "hnsw", "ivfpq"]
FILES: dict[Kind, str] = {"flat": "", "hnsw": "dense.hnsw.faiss", "ivfpq": "dense.ivfpq.faiss"}
OPTIONS: dict[Kind, tuple[str, ...]] = {
    "flat": (),
    "hnsw": ("hnsw_m", "ef_construction", "ef_search"),
    "ivfpq": ("nlist", "pq_m", "train_passages", "nprobe", "candidates"),
}
_ADDED = 8192  # rows that are added at once; the graph depends on it
_CODES = 256  # centroids of each piece of a vector; fewer passages are learned from several times
Report = Callable[[int, int], None]


class Structure(msgspec.Struct, frozen=True, kw_only=True):
    """How vectors are found, and what was chosen for it. Names are FAISS'."""

    kind: Kind = "flat"
    hnsw_m: int = 32
    """neighbours of a passage on each level of the graph; on the lowest twice as many"""
    ef_construction: int = 100
    """passages that are looked at for a new one's neighbours"""
    ef_search: int = 64
    """passages of the graph that a search keeps in view"""
    nlist: int = 0
    """lists; 0: four times the root of the number of passages"""
    pq_m: int = 0
    """bytes of a compressed vector; 0: one for every 8 dimensions"""
    train_passages: int = 0
    """passages that lists and codes are learned from; 0: 65,536, or 64 for each list"""
    nprobe: int = 128
    """lists that a search reads"""
    candidates: int = 200
    """passages found by their codes that are compared exactly"""

    @property
    def changed(self) -> list[str]:
        """What is not as it would be without being said, but for the kind."""
        default = Structure()
        return [name for name in self.__struct_fields__[1:] if getattr(self, name) != getattr(default, name)]

    def check_used(self, options: Iterable[str]) -> None:
        """Refuse options that do nothing.

        Raises:
            ConfigError: one of them is for another kind.
        """
        for name in options:
            if name not in OPTIONS[self.kind]:
                kind = next(kind for kind, own in OPTIONS.items() if name in own)
                raise ConfigError(f"{name} does nothing with structure = {self.kind!r}: it is for {kind}")

    def check_dimensions(self, dimensions: int) -> None:
        """Refuse codes that vectors of so many dimensions can't be cut into.

        Raises:
            ConfigError: they can't.
        """
        if self.pq_m and dimensions % self.pq_m:
            raise ConfigError(f"pq_m = {self.pq_m}, but it must divide the {dimensions} dimensions of the vectors")

    def settled(self, passages: int, dimensions: int) -> Structure:
        """With what depends on the vectors chosen.

        Raises:
            ConfigError: it does not fit them.
        """
        if self.kind != "ivfpq":
            return self
        self.check_dimensions(dimensions)
        pq_m = self.pq_m or next(size for size in range(max(1, dimensions // 8), 0, -1) if dimensions % size == 0)
        nlist = min(self.nlist or max(1, min(round(4 * math.sqrt(passages)), passages // 39)), passages)
        train = max(_CODES, min(passages, max(self.train_passages or max(65_536, 64 * nlist), nlist)))
        return msgspec.structs.replace(self, pq_m=pq_m, nlist=nlist, train_passages=train)

    def memory(self, dimensions: int) -> str:
        """What building it takes, in words."""
        if self.kind == "hnsw":
            return f", then {2 * dimensions + 8 * self.hnsw_m + 16} bytes a passage for the graph"
        if self.kind == "ivfpq":
            size = (self.pq_m or dimensions // 8) + 8
            return (
                f", then {size} bytes a passage and {12 * dimensions / 1024:,.0f} KB a training passage for the lists"
            )
        return ""


def faiss() -> Any:
    """The library, with one thread: searches are many and small, and a graph is the same each time.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import faiss as found
    except ModuleNotFoundError as error:
        raise MissingExtra("faiss-cpu", "dense") from error
    found.omp_set_num_threads(1)
    return found


def build_structure(chosen: Structure, vectors: Half, folder: Path, report: Report) -> None:
    """Write the structure's file into the folder, unless it is there; `chosen` is settled."""
    if not FILES[chosen.kind] or (folder / FILES[chosen.kind]).exists():
        return
    library = faiss()
    path = folder / FILES[chosen.kind]
    beside = path.with_name(f".{path.name}.part")
    if chosen.kind == "hnsw":
        library.write_index(_graph(library, chosen, vectors, report), str(beside), library.IO_FLAG_SKIP_STORAGE)
    else:
        library.write_index(_lists(library, chosen, vectors, report), str(beside))
    beside.replace(path)


def open_structure(chosen: Structure, storage: Any, folder: Path) -> Any:
    """FAISS' index of a graph, or of lists whose candidates are compared exactly, mapped.

    The storage, a `view` of the vectors, must live as long.

    Raises:
        IndexFolderError: its file is missing, broken, or of other vectors.
    """
    library = faiss()
    path = folder / FILES[chosen.kind]
    try:
        found = library.read_index(str(path), library.IO_FLAG_MMAP_IFC)
    except RuntimeError as error:
        raise IndexFolderError(f"{path} can't be read ({str(error).splitlines()[0]}): build the index again") from error
    if (found.ntotal, found.d) != (storage.ntotal, storage.d):
        raise IndexFolderError(
            f"{path} is of {found.ntotal} vectors of {found.d} dimensions, not {storage.ntotal} of {storage.d}: "
            "build the index again"
        )
    if chosen.kind == "ivfpq":
        return library.IndexRefine(found, storage)
    found.storage, found.own_fields = storage, False
    return found


def view(vectors: Half) -> Any:
    """Mapped float16 vectors as an index of FAISS that compares with each, not copied; they must live as long."""
    library = faiss()
    passages, dimensions = vectors.shape
    quantizer = library.ScalarQuantizer
    index = library.IndexScalarQuantizer(dimensions, quantizer.QT_fp16, library.METRIC_INNER_PRODUCT)
    codes, data = index.codes, vectors.reshape(-1).view(np.uint8)
    address = library.swig_ptr(data)
    codes.is_owned = False
    codes.view_data = codes.c_ptr = address
    codes.view_size = codes.c_size = data.size
    index.ntotal = passages
    return index


def _graph(library: Any, chosen: Structure, vectors: Half, report: Report) -> Any:
    dimensions = vectors.shape[1]
    index = library.IndexHNSWSQ(
        dimensions, library.ScalarQuantizer.QT_fp16, chosen.hnsw_m, library.METRIC_INNER_PRODUCT
    )
    index.is_trained = True  # halving learns nothing
    index.hnsw.efConstruction = chosen.ef_construction
    return _filled(index, vectors, report)


def _lists(library: Any, chosen: Structure, vectors: Half, report: Report) -> Any:
    dimensions = vectors.shape[1]
    coarse = library.IndexFlatIP(dimensions)
    index = library.IndexIVFPQ(coarse, dimensions, chosen.nlist, chosen.pq_m, 8, library.METRIC_INNER_PRODUCT)
    for clustering in (index.cp, index.pq.cp):
        clustering.min_points_per_centroid = 1  # FAISS writes to the terminal where there are fewer than it likes
    rows = np.linspace(0, len(vectors) - 1, chosen.train_passages).round().astype(np.int64)
    report(0, len(vectors))
    index.train(vectors[rows].astype(np.float32))
    return _filled(index, vectors, report)


def _filled(index: Any, vectors: Half, report: Report) -> Any:
    done = 0
    for block in blocks_of(vectors, _ADDED):
        index.add(block.astype(np.float32))
        done += len(block)
        report(done, len(vectors))
    return index
