"""Kernels compiled by numba for one new token a row: each row is read as far as its own context goes, and no further.

Everything that happens to a row's heads happens while they lie in the nearest cache: norm, rotary turn, storing of
its keys and values, scores, softmax, weighted values. Loops are such that the compiler makes vectors of the innermost
one; queries that share keys go in pairs, an odd one with an idle partner. Rows don't depend on one another, so the
bits don't depend on the number of threads.

Axes: R rows, H key/value heads, D head width, C positions of a slot; a group is the query heads of one key/value head,
and `even` their number, rounded up to an even one.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numba
import numpy as np
import torch

from forage.engines.kernels import TorchKernels

if TYPE_CHECKING:
    from torch import Tensor

    from forage.engines.kernels import Attend
    from forage.engines.kv import KVCache
    from forage.engines.weights import Layer, Shape

FLOAT = np.float32
SUMS = {"reassoc", "contract", "nsz", "arcp"}
"""Sums may be taken in another order, the same one each time; not-a-number stays what it is."""
LOG2_E = FLOAT(1 / math.log(2))
P0, P1, P2, P3, P4, P5, P6 = (FLOAT(math.log(2) ** n / math.factorial(n)) for n in range(7))
"""Taylor's coefficients of 2^x, for |x| <= 1/2."""
VECTORS = 32
"""Floats that a vectorised loop takes at once, where the compiler unrolls it most; what is left over is slow."""
NONE = np.empty(0, FLOAT)
LEAST, MOST = FLOAT(-100), FLOAT(126)
"""Exponents beyond which nothing changes; products with numbers below 2^-126 would be slow."""

compiled = numba.njit(fastmath=SUMS, error_model="numpy", nogil=True, cache=True)
"""As numpy, without a check of each division."""


@compiled
def _exp(x: np.float32) -> np.float32:
    """e^x, between 2^-100 and 2^126, without a call, so that loops over it become vectors.

    Relative error below 1e-7 |x| + 2e-7.
    """
    power = x * LOG2_E
    if power < LEAST:
        power = LEAST
    if power > MOST:
        power = MOST
    exponent = np.int32(power + FLOAT(127.5))  # 127 more than the nearest whole number, as a float32 stores it
    rest = power - (FLOAT(exponent) - FLOAT(127))
    fraction = P0 + rest * (P1 + rest * (P2 + rest * (P3 + rest * (P4 + rest * (P5 + rest * P6)))))
    return fraction * np.int32(exponent << np.int32(23)).view(FLOAT)


@compiled
def _weights(q: np.ndarray, keys: np.ndarray, weights: np.ndarray, n: int) -> None:
    """e^(score - largest score) of queries [even, D] and the first `n` keys [C, D], into `weights` [even, C + VECTORS].

    What stands behind them is any number: it fills the last vector.
    """
    D = q.shape[1]
    for g in range(0, len(q), 2):
        w, u = weights[g], weights[g + 1]
        w_largest, u_largest = FLOAT(-np.inf), FLOAT(-np.inf)
        for j in range(n):
            key, w_score, u_score = keys[j], FLOAT(0), FLOAT(0)
            for d in range(D):
                w_score += q[g, d] * key[d]
                u_score += q[g + 1, d] * key[d]
            w[j], u[j] = w_score, u_score
            w_largest, u_largest = max(w_largest, w_score), max(u_largest, u_score)
        for j in range((n + VECTORS - 1) // VECTORS * VECTORS):
            w[j] = _exp(w[j] - w_largest)
            u[j] = _exp(u[j] - u_largest)


@compiled
def _means(weights: np.ndarray, values: np.ndarray, means: np.ndarray, n: int) -> None:
    """Means of the first `n` values [C, D] by `weights` [even, C], into `means` [even, D]; four values at a time."""
    D = values.shape[1]
    for g in range(0, len(means), 2):
        w, u, one, other = weights[g], weights[g + 1], means[g], means[g + 1]
        w_total, u_total = FLOAT(0), FLOAT(0)
        for d in range(D):
            one[d], other[d] = FLOAT(0), FLOAT(0)
        for j in range(0, n // 4 * 4, 4):
            w0, w1, w2, w3 = w[j], w[j + 1], w[j + 2], w[j + 3]
            u0, u1, u2, u3 = u[j], u[j + 1], u[j + 2], u[j + 3]
            v0, v1, v2, v3 = values[j], values[j + 1], values[j + 2], values[j + 3]
            for d in range(D):
                one[d] += w0 * v0[d] + w1 * v1[d] + w2 * v2[d] + w3 * v3[d]
                other[d] += u0 * v0[d] + u1 * v1[d] + u2 * v2[d] + u3 * v3[d]
            w_total += w0 + w1 + w2 + w3
            u_total += u0 + u1 + u2 + u3
        for j in range(n // 4 * 4, n):
            for d in range(D):
                one[d] += w[j] * values[j, d]
                other[d] += u[j] * values[j, d]
            w_total += w[j]
            u_total += u[j]
        for d in range(D):
            one[d] /= w_total
            other[d] /= u_total


@compiled
def _norm(x: np.ndarray, weight: np.ndarray, eps: float, out: np.ndarray) -> None:
    """RMS norm of one row."""
    total = FLOAT(0)
    for i in range(len(x)):
        total += x[i] * x[i]
    scale = FLOAT(1) / np.sqrt(total / FLOAT(len(x)) + eps)
    for i in range(len(x)):
        out[i] = x[i] * scale * weight[i]


@compiled
def _turn(head: np.ndarray, rotation: np.ndarray, scale: float, out: np.ndarray) -> None:
    """Rotary turn of the pairs that lie side by side in a head [D], by cosines and sines [D], times `scale`."""
    for i in range(0, len(head), 2):
        x, y = head[i] * scale, head[i + 1] * scale
        out[i] = x * rotation[i] - y * rotation[i + 1]
        out[i + 1] = x * rotation[i + 1] + y * rotation[i]


@compiled
def _attend(
    heads: np.ndarray,
    q_norm: np.ndarray,
    k_norm: np.ndarray,
    eps: float,
    rotations: np.ndarray,
    positions: np.ndarray,
    keys: np.ndarray,
    values: np.ndarray,
    out: np.ndarray,
) -> None:
    """Attended [R, queries, D] of heads [R, queries + 2 H, D], which are overwritten; the KV of each row is stored.

    `q_norm` and `k_norm` are [D], or empty where heads are not normed; `rotations` [max_tokens, D].
    """
    R, Q, D = out.shape
    _, H, C, _ = keys.shape
    group = Q // H
    even = group + group % 2
    scale = FLOAT(1 / math.sqrt(D))
    q, means, weights = np.zeros((even, D), FLOAT), np.zeros((even, D), FLOAT), np.zeros((even, C + VECTORS), FLOAT)
    for r in range(R):
        position = positions[r]
        row, rotation = heads[r], rotations[position]
        if len(q_norm):
            for i in range(Q + H):
                _norm(row[i], q_norm if i < Q else k_norm, eps, row[i])
        for h in range(H):
            _turn(row[Q + h], rotation, FLOAT(1), keys[r, h, position])
            values[r, h, position] = row[Q + H + h]
            for g in range(group):
                _turn(row[h * group + g], rotation, scale, q[g])
            _weights(q, keys[r, h], weights, position + 1)
            _means(weights, values[r, h], means, position + 1)
            for g in range(group):
                for d in range(D):
                    out[r, h * group + g, d] = means[g, d]


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
            gate[r, i] = x / (FLOAT(1) + _exp(-x)) * up[r, i]


class CompiledKernels(TorchKernels):
    """See `TorchKernels`; the first use on a machine compiles for some seconds.

    Norms and gates of bfloat16 are torch's. Rows are shared out over as many threads as torch has.
    """

    keys_by_position = True

    def __init__(self, shape: Shape, kv: KVCache, rotations: Tensor) -> None:
        super().__init__(shape, kv, rotations)
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

    def attention(self, positions_R: Tensor, length: int) -> Attend:  # noqa: ARG002 (each row has its own)
        """See `TorchKernels`; rows are read as far as each of them goes."""
        positions = positions_R.contiguous().numpy()  # else compiled once more
        R, D = len(positions), self._shape.head_dim
        parts = [slice(R * i // self._threads, R * (i + 1) // self._threads) for i in range(self._threads)]

        def attention(number: int, layer: Layer, products: Tensor) -> Tensor:
            heads = products.float().view(R, -1, D).numpy()
            out = torch.empty(R, self._shape.heads, D)
            attended, (keys, values) = out.numpy(), self._caches[number]
            norms = _numpy(layer.q_norm), _numpy(layer.k_norm)

            def attend(p: slice) -> None:
                _attend(
                    heads[p], *norms, self._eps, self._turns, positions[p], keys[p], values[p], attended[p]
                )  # fmt: skip

            others = [self._pool.submit(attend, part) for part in parts[1:]]
            attend(parts[0])
            for other in others:
                other.result()
            return out.flatten(1).to(products.dtype)

        return attention


def _numpy(weight: Tensor | None) -> np.ndarray:
    """A head's norm in float32; empty where there is none."""
    return NONE if weight is None else weight.float().numpy()
