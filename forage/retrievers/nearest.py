"""The passages whose vectors have the largest inner products with a query's: exactly, or from what a structure finds.

Whatever finds candidates, the order of what is returned is that of inner products in float64 over the stored float16
vectors, rounded to float32, with ties to the earlier passage. So it follows from the query's vector alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from forage.indexing.structures import Structure, faiss, open_structure, view
from forage.indexing.vectors import Half

Rows = NDArray[np.int64]
Query = NDArray[np.float32]
Ranking = tuple[Rows, NDArray[np.float32]]
_MORE = 16  # candidates beyond k that are asked for, because of ties and rounding
_BATCH = 8  # queries from which on one pass of matrix products is cheaper than a search for each
_BLOCK = 2048  # vectors that are multiplied at once; a float32 copy of them stays in the cache


class Nearest:
    """Nearest vectors of an index.

    Args:
        vectors: [P, D], mapped.
        structure: that of the folder, as it is to be searched.
        folder: of the index.
        longest: the largest length of a vector.

    Raises:
        IndexFolderError: the structure's file is missing or broken.
        MissingExtra: faiss-cpu is not installed.
    """

    def __init__(self, vectors: Half, structure: Structure, folder: Any, longest: float) -> None:
        import torch

        self._vectors, self._structure = vectors, structure
        self._halves = torch.from_numpy(vectors)
        self._every = view(vectors)
        self._index = None if structure.kind == "flat" else open_structure(structure, self._every, folder)
        # A float32 sum of D products is off by D roundings at most (Higham 2002, section 3.1), here and in the k-th.
        self._rounding = 4 * vectors.shape[1] * 2.0**-24 * longest

    def best(self, queries: Query, k: int) -> list[Ranking]:
        """The k best passages (all, where there are fewer) of each query [N, D], best first, ties by row."""
        k = min(k, len(self._vectors))
        queries = np.ascontiguousarray(queries, np.float32)
        if self._index:
            return [self._found(self._index, query, k) for query in queries]
        if len(queries) >= _BATCH:
            return [self._settle(*each, k) for each in zip(queries, self._all_near(queries, k), strict=True)]
        return [self._settle(query, self._near(query, k), k) for query in queries]

    def _found(self, index: Any, query: Query, k: int) -> Ranking:
        """By the structure; where it finds fewer than k, by comparing with all."""
        rows = index.search(query[None], self._width(k), params=self._parameters(k))[1][0]
        rows = rows[rows >= 0]  # FAISS fills up with -1
        return self._settle(query, rows if len(rows) >= k else self._near(query, k), k)

    def _width(self, k: int) -> int:
        return min(k + _MORE, len(self._vectors))

    def _parameters(self, k: int) -> Any:
        chosen, library, width = self._structure, faiss(), self._width(k)
        if chosen.kind == "hnsw":
            return library.SearchParametersHNSW(efSearch=max(chosen.ef_search, width))
        read = library.SearchParametersIVF(nprobe=min(chosen.nprobe, chosen.nlist))
        return library.IndexRefineSearchParameters(k_factor=max(1.0, chosen.candidates / width), base_index_params=read)

    def _near(self, query: Query, k: int) -> Rows:
        """All rows that may be among the k best, by one pass over all vectors."""
        slack, width = self._slack(query), self._width(k)
        while True:
            scores, rows = (each[0] for each in self._every.search(query[None], width))
            if width == len(self._vectors) or scores[-1] < scores[k - 1] - slack:
                near: Rows = rows[scores >= scores[k - 1] - slack]
                return near
            width = min(4 * width, len(self._vectors))

    def _all_near(self, queries: Query, k: int) -> list[Rows]:
        """The same for many queries, by one pass for all."""
        import torch

        asked, count = torch.from_numpy(queries), len(queries)
        slack = torch.tensor([self._slack(query) for query in queries])[:, None]
        best, room = torch.full((count, k), -torch.inf), torch.empty(_BLOCK, queries.shape[1])
        found = []
        for start in range(0, len(self._vectors), _BLOCK):
            halves = self._halves[start : start + _BLOCK]
            scores = asked @ room[: len(halves)].copy_(halves).T
            best = torch.cat([best, scores.topk(min(k, len(halves))).values], 1).topk(k).values
            which, row = (scores >= best[:, -1:] - slack).nonzero(as_tuple=True)
            found.append((which, row + start, scores[which, row]))
        which, rows, values = (torch.cat(parts) for parts in zip(*found, strict=True))
        near = values >= (best[:, -1:] - slack)[which, 0]
        return [rows[near & (which == number)].numpy() for number in range(count)]

    def _slack(self, query: Query) -> float:
        return float(self._rounding * np.linalg.norm(query))

    def _settle(self, query: Query, rows: Rows, k: int) -> Ranking:
        """The k best of these rows, compared exactly."""
        exact = (self._vectors[rows].astype(np.float64) * query.astype(np.float64)).sum(1).astype(np.float32)
        order = np.lexsort((rows, -exact))[:k]
        return rows[order], exact[order]
