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
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import torch

from forage.engines.compiled_sampler import draw
from forage.engines.kernels import TorchKernels
from forage.engines.vectors import FLOAT, VECTORS, compiled, exp, fetch, inlined

if TYPE_CHECKING:
    from torch import Tensor

    from forage.engines.kernels import Attend
    from forage.engines.kv import KVCache
    from forage.engines.weights import Layer, Shape

NONE = np.empty(0, FLOAT)


@inlined
def _weights(q: np.ndarray, keys: np.ndarray, weights: np.ndarray, n: int, values: np.ndarray) -> None:
    """e^(score - largest score) of queries [even, D] and the first `n` keys [C, D], into `weights` [even, C + VECTORS].

    What stands behind them is any number: it fills the last vector. `values` [C, D] are on their way meanwhile.
    """
    D = q.shape[1]
    for g in range(0, len(q), 2):
        w, u = weights[g], weights[g + 1]
        w_largest, u_largest = FLOAT(-np.inf), FLOAT(-np.inf)
        for j in range(n):
            fetch(values, j * D, (j + 1) * D)
            key, w_score, u_score = keys[j], FLOAT(0), FLOAT(0)
            for d in range(D):
                w_score += q[g, d] * key[d]
                u_score += q[g + 1, d] * key[d]
            w[j], u[j] = w_score, u_score
            w_largest, u_largest = max(w_largest, w_score), max(u_largest, u_score)
        for j in range((n + VECTORS - 1) // VECTORS * VECTORS):
            w[j] = exp(w[j] - w_largest)
            u[j] = exp(u[j] - u_largest)


@inlined
def _means(weights: np.ndarray, values: np.ndarray, means: np.ndarray, n: int, following: np.ndarray) -> None:
    """Means of the first `n` values [C, D] by `weights` [even, C], into `means` [even, D]; four values at a time.

    The keys that are `following` [C, D] are on their way meanwhile.
    """
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
            fetch(following, j * D, (j + 4) * D)
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
            last = h + 1 == H
            following = keys[min(r + last, R - 1), 0 if last else h + 1]
            _weights(q, keys[r, h], weights, position + 1, values[r, h])
            _means(weights, values[r, h], means, position + 1, following)
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
            gate[r, i] = x / (FLOAT(1) + exp(-x)) * up[r, i]


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

    def sample(self, logits_RV: Tensor, temperature: float | Tensor, uniform_R: Tensor) -> tuple[Tensor, Tensor]:
        """See `TorchKernels`."""
        R = len(logits_RV)
        logits, uniforms = logits_RV.numpy(), uniform_R.numpy()
        temperatures = torch.as_tensor(temperature, dtype=torch.float32).expand(R).contiguous().numpy()
        tokens, logprobs = np.empty(R, np.int64), np.empty(R, FLOAT)
        self._share(R, lambda p: draw(logits[p], temperatures[p], uniforms[p], tokens[p], logprobs[p]))
        return torch.from_numpy(tokens), torch.from_numpy(logprobs)

    def attention(self, positions_R: Tensor, length: int) -> Attend:  # noqa: ARG002 (each row has its own)
        """See `TorchKernels`; rows are read as far as each of them goes."""
        positions = positions_R.contiguous().numpy()  # else compiled once more
        R, D = len(positions), self._shape.head_dim

        def attention(number: int, layer: Layer, products: Tensor) -> Tensor:
            heads = products.float().view(R, -1, D).numpy()
            out = torch.empty(R, self._shape.heads, D)
            attended, (keys, values) = out.numpy(), self._caches[number]
            norms = _numpy(layer.q_norm), _numpy(layer.k_norm)

            def attend(p: slice) -> None:
                _attend(
                    heads[p], *norms, self._eps, self._turns, positions[p], keys[p], values[p], attended[p]
                )  # fmt: skip

            self._share(R, attend)
            return out.flatten(1).to(products.dtype)

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
