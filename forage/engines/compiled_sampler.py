"""`forage.engines.rows.step`, compiled by numba: a row's logits are read while they lie in the nearest cache.

Axes: R rows, V tokens of the vocabulary, and blocks of it, `BLOCK` tokens each.
"""

from __future__ import annotations

import numpy as np

from forage.engines.rows import LAST_STEP, POSITION, RULE, STEP, TOKEN
from forage.engines.sampler import BLOCK
from forage.engines.vectors import FLOAT, VECTORS, compiled, exp, inlined, largest

SMALLEST = FLOAT(-69)
"""Below, `exp` no longer falls; what is e^-69 times as likely as the best token is never drawn."""


@compiled
def advance(
    logits: np.ndarray,
    temperatures: np.ndarray,
    numbers: np.ndarray,
    uniforms: np.ndarray,
    tokens: np.ndarray,
    logprobs: np.ndarray,
    watched: np.ndarray,
    over: np.ndarray,
) -> None:
    """`forage.engines.rows.step` of logits [R, V] at temperatures [R], on the parts of a `State` for these rows; fills
    `over` [R].
    """
    R, V = logits.shape
    blocks = (V + BLOCK - 1) // BLOCK
    weights, ends, lanes = np.zeros((blocks, BLOCK), FLOAT), np.empty(blocks, FLOAT), np.empty(VECTORS, FLOAT)
    for r in range(R):
        row, temperature, last = logits[r], temperatures[r], numbers[r, STEP]
        most, greedy = largest(row, lanes), temperature == 0
        scale = FLOAT(1) if greedy else FLOAT(1) / temperature
        _weigh(row, most, scale, weights, ends)
        token = _first(row, most) if greedy else min(_invert(weights, ends, uniforms[r, last]), V - 1)
        tokens[r, last], logprobs[r, last] = token, (row[token] - most) * scale - np.log(ends[-1])
        over[r] = watched[numbers[r, RULE], token] or last >= numbers[r, LAST_STEP]
        numbers[r, TOKEN] = token
        numbers[r, POSITION] += 1
        numbers[r, STEP] += 1


@inlined
def _weigh(row: np.ndarray, most: float, scale: float, weights: np.ndarray, ends: np.ndarray) -> None:
    """e^((logit - most) scale) into `weights` [blocks, BLOCK]; the cumulative sums at the blocks' ends into `ends`."""
    flat, total = weights.reshape(-1), FLOAT(0)
    for i in range(len(row)):
        x = (row[i] - most) * scale
        flat[i] = FLOAT(0) if x < SMALLEST else exp(x)
    for b in range(len(ends)):
        block, part = weights[b], FLOAT(0)
        for i in range(BLOCK):
            part += block[i]
        total += part
        ends[b] = total


@inlined
def _first(row: np.ndarray, most: float) -> int:
    """The first index of the largest logit."""
    for i in range(len(row)):
        if row[i] == most:
            return i
    return 0


@inlined
def _invert(weights: np.ndarray, ends: np.ndarray, uniform: float) -> int:
    """The first index whose cumulative weight exceeds `uniform` times the sum. Weights that are not finite: any."""
    target, b = uniform * ends[-1], 0
    while b < len(ends) - 1 and target >= ends[b]:
        b += 1
    if b:
        target -= ends[b - 1]
    block, cumulative, index = weights[b], FLOAT(0), 0
    for i in range(BLOCK):
        if block[i] > 0:  # the last such one, where rounding keeps the sum below the target
            index = i
        cumulative += block[i]
        if cumulative > target:
            break
    return b * BLOCK + index
