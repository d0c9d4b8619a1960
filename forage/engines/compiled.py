"""Kernels compiled by numba for one new token a row: each row is read as far as its own context goes, and no further.

Everything that happens to a row's heads happens while they lie in the nearest cache: norm, rotary turn, storing of
its keys and values, scores, softmax, weighted values. Decoding waits for memory most of all. So what a row has in
common with others is read where one of them holds it (`forage.engines.prefixes`), the same bits from a nearer cache;
and what the next row needs is on its way meanwhile. Queries that share keys go in pairs, an odd one with an idle
partner. Rows don't depend on one another, and a row's sums are taken in the same order wherever it is cut: so the bits
depend neither on the number of threads nor on what is shared.

Axes: R rows, H key/value heads, D head width, C positions of a slot; a group is the query heads of one key/value head.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from forage.engines.compiled_sampler import advance
from forage.engines.kernels import TorchKernels
from forage.engines.lanes import LANES, add_weighted, score, top
from forage.engines.vectors import FLOAT, VECTORS, compiled, exp, fetch, inlined

if TYPE_CHECKING:
    from torch import Tensor

    from forage.engines.kernels import Attend
    from forage.engines.kv import KVCache
    from forage.engines.rows import State
    from forage.engines.weights import Layer, Shape

NONE = np.empty(0, FLOAT)
TOUCHED = 128
"""Floats asked for of each block of keys or values before they are needed: the processor sees the rest coming."""


@inlined
def _weigh(scores: np.ndarray, n: int) -> np.float32:
    """The first `n` scores become e^(score - largest score), in place; their sum. The last vector is filled up."""
    filled, total = (n + VECTORS - 1) // VECTORS * VECTORS, FLOAT(0)
    for j in range(n, filled):
        scores[j] = -np.inf
    most = top(scores, filled)
    for j in range(filled):
        scores[j] = exp(scores[j] - most)
    for j in range(filled):
        total += scores[j]
    return total


@inlined
def _norm(x: np.ndarray, weight: np.ndarray, eps: float, out: np.ndarray) -> None:
    """RMS norm of one row."""
    total = FLOAT(0)
    for i in range(len(x)):
        total += x[i] * x[i]
    scale = FLOAT(1) / np.sqrt(total / FLOAT(len(x)) + eps)
    for i in range(len(x)):
        out[i] = x[i] * scale * weight[i]


@inlined
def _turn(head: np.ndarray, rotation: np.ndarray, scale: float, out: np.ndarray) -> None:
    """Rotary turn of the pairs that lie side by side in a head [D], by cosines and sines [D], times `scale`."""
    for i in range(0, len(head), 2):
        x, y = head[i] * scale, head[i + 1] * scale
        out[i] = x * rotation[i] - y * rotation[i + 1]
        out[i + 1] = x * rotation[i + 1] + y * rotation[i]


@cache
def attention(D: int) -> Any:
    """Attention of one new token a row, compiled for heads of width `D`."""
    scale = FLOAT(1 / math.sqrt(D))

    @compiled
    def attend(
        rows: tuple[int, int],
        products: np.ndarray,
        q_norm: np.ndarray,
        k_norm: np.ndarray,
        keys: np.ndarray,
        values: np.ndarray,
        eps: float,
        rotations: np.ndarray,
        positions: np.ndarray,
        holders: np.ndarray,
        lengths: np.ndarray,
        attended: np.ndarray,
    ) -> None:
        """Attended [R, queries * D] of products [R, (queries + 2 H) * D], which are overwritten; a row's KV is stored.

        `rows` are the first one and the end. `q_norm` and `k_norm` are [D], or empty where heads are not normed;
        `rotations` [max_tokens, D]. A row's first `lengths` positions are read from the slot of its holder.
        """
        (first, end), (R, width), (_, H, C, _) = rows, attended.shape, keys.shape
        Q = width // D
        heads, out = products.reshape(R, Q + 2 * H, D), attended.reshape(R, Q, D)
        group, stride = Q // H, C + VECTORS
        q, means, weights = np.zeros((group + 1, D), FLOAT), np.zeros((2, D), FLOAT), np.zeros((2, stride), FLOAT)
        for r in range(first, end):
            position, holder, shared, following = positions[r], holders[r], lengths[r], min(r + 1, end - 1)
            row, rotation, n = heads[r], rotations[position], position + 1
            if len(q_norm):
                for i in range(Q + H):
                    _norm(row[i], q_norm if i < Q else k_norm, eps, row[i])
            for h in range(H):
                _turn(row[Q + h], rotation, FLOAT(1), keys[r, h, position])
                values[r, h, position] = row[Q + H + h]
                for g in range(group):
                    _turn(row[h * group + g], rotation, scale, q[g])
                for g in range(0, group, 2):
                    for j in range(0, shared, LANES):
                        score(q[g:], keys[holder, h], j, weights, stride, D)
                    for j in range(shared, n, LANES):
                        fetch(keys[following, h], j * D, j * D + TOUCHED)
                        score(q[g:], keys[r, h], j, weights, stride, D)
                    totals = _weigh(weights[0], n), _weigh(weights[1], n)
                    means[:] = 0
                    add_weighted(weights, stride, values[holder, h], 0, shared, means, D)
                    for j in range(shared, n, LANES):
                        fetch(values[following, h], j * D, j * D + TOUCHED)
                        add_weighted(weights, stride, values[r, h], j, min(j + LANES, n), means, D)
                    for i in range(min(2, group - g)):
                        for d in range(D):
                            out[r, h * group + g + i, d] = means[i, d] / totals[i]

    return attend


@compiled
def _norms(x: np.ndarray, weight: np.ndarray, eps: float, out: np.ndarray) -> None:
    """RMS norm of rows."""
    for r in range(len(x)):
        _norm(x[r], weight, eps, out[r])


@compiled
def _gates(gate: np.ndarray, up: np.ndarray) -> None:
    """silu(gate) * up, in place of `gate`."""
    for r in range(len(gate)):
        for i in range(gate.shape[1]):
            x = gate[r, i]
            gate[r, i] = x / (FLOAT(1) + exp(-x)) * up[r, i]


class CompiledKernels(TorchKernels):
    """See `TorchKernels`; the first use on a machine compiles for some seconds.

    Norms and gates of bfloat16 are torch's. Rows are shared out over as many threads as torch has.
    """

    keys_by_position = True

    def __init__(self, shape: Shape, kv: KVCache, rotations: Tensor) -> None:
        super().__init__(shape, kv, rotations)
        self._attend = attention(shape.head_dim)
        self._eps = FLOAT(shape.eps)
        self._turns = torch.view_as_real(rotations).flatten(1).numpy()
        self._caches = [(keys.mT.numpy(), values.numpy()) for keys, values in kv.layers()]
        self._threads = torch.get_num_threads()
        self._pool = ThreadPoolExecutor(self._threads)

    def norm(self, x: Tensor, weight: Tensor) -> Tensor:
        """See `TorchKernels`."""
        if x.dtype != torch.float32:
            return super().norm(x, weight)
        out = torch.empty_like(x)
        _norms(x.numpy(), weight.numpy(), self._eps, out.numpy())
        return out

    def gate(self, gate: Tensor, up: Tensor) -> Tensor:
        """See `TorchKernels`."""
        if gate.dtype != torch.float32:
            return super().gate(gate, up)
        _gates(gate.numpy(), up.numpy())
        return gate

    def step(self, state: State, logits_RV: Tensor, temperature: float | Tensor, watched: Tensor) -> Tensor:
        """See `TorchKernels`."""
        R = len(logits_RV)
        logits, over, table = logits_RV.numpy(), np.empty(R, np.bool_), watched.numpy()
        arrays = [part.numpy() for part in state]
        temperatures = np.empty(R, FLOAT)
        temperatures[:] = temperature
        self._share(R, lambda p: advance(logits[p], temperatures[p], *(part[p] for part in arrays), table, over[p]))
        return torch.from_numpy(over)

    def attention(self, positions_R: Tensor, length: int) -> Attend:  # noqa: ARG002 (each row has its own)
        """See `TorchKernels`; rows are read as far as each of them goes. The next layer overwrites a layer's result."""
        positions = positions_R.contiguous().numpy()  # else compiled once more
        R = len(positions)
        out = torch.empty(R, self._shape.heads * self._shape.head_dim)
        always = (self._eps, self._turns, positions, self._kv.prefixes.holders, self._kv.prefixes.lengths, out.numpy())

        def attention(number: int, layer: Layer, products: Tensor) -> Tensor:
            arrays = (products.float().numpy(), _numpy(layer.q_norm), _numpy(layer.k_norm), *self._caches[number])
            self._share(R, lambda rows: self._attend((rows.start, rows.stop), *arrays, *always))
            return out.to(products.dtype)

        return attention

    def _share(self, rows: int, work: Callable[[slice], None]) -> None:
        """Have the rows done by all threads, each a part of them."""
        borders = [rows * i // self._threads for i in range(self._threads + 1)]
        first, *others = map(slice, borders, borders[1:])
        submitted = [self._pool.submit(work, part) for part in others]
        work(first)
        for part in submitted:
            part.result()


def _numpy(weight: Tensor | None) -> np.ndarray:
    """A head's norm in float32; empty where there is none."""
    return NONE if weight is None else weight.float().numpy()
