"""The two products of attention for a pair of queries, and the largest score, written with vectors.

Loops over the width of a head, as a compiler makes vectors of them, take three times as long, and it makes none of a
search for the largest. What is here are intrinsics for compiled functions (`forage.engines.vectors`). The width D of a
head is a constant of the function that calls them, so that sums stay in registers. The order of sums is written here:
a position's score is the same wherever a block of positions begins, and values are added one after another. So it
changes no bit where a row's positions are cut in two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 16
"""Floats of a vector, and positions whose scores are taken at once."""
PAIR = range(2)
FLOAT, INDEX, LANE = ir.FloatType(), ir.IntType(64), ir.IntType(32)
VECTOR = ir.VectorType(FLOAT, LANES)
FUSED = ("contract",)
"""A product and a sum may be one instruction."""


@intrinsic(prefer_literal=True)
def score(typing: Any, queries: Any, keys: Any, first: Any, scores: Any, stride: Any, D: Any) -> Any:  # noqa: ARG001 (numba's signature)
    """Products of two queries [2, D] and the `LANES` keys [C, D] from `first` on.

    They are stored in `scores` [2, C] at the same places; its rows lie `stride` floats apart.
    """

    def emit(code: Code, queries: Any, keys: Any, first: Any, scores: Any, stride: Any, D: int) -> None:
        asked = [[code.load(queries, g * D + d, D - d) for d in range(0, D, LANES)] for g in PAIR]
        block = code.element(keys, code.times(first, D))

        def sums(number: int, count: int) -> list[Any]:
            """For each query, the products of `count` keys from `number` on, in as many lanes, repeated."""
            if count == 1:
                key = [code.load(block, number * D + d, D - d) for d in range(0, D, LANES)]
                return [code.dot(query, key) for query in asked]
            half = count // 2
            halves = zip(sums(number, half), sums(number + half, half), strict=True)
            return [code.fold(one, other, half) for one, other in halves]

        for g, found in zip(PAIR, sums(0, LANES), strict=True):
            code.store(found, code.element(scores, code.plus(first, code.times(stride, g))), 0, LANES)

    return _intrinsic(emit, queries, keys, first, scores, stride, constants=[D])


@intrinsic(prefer_literal=True)
def add_weighted(typing: Any, weights: Any, stride: Any, values: Any, first: Any, end: Any, sums: Any, D: Any) -> Any:  # noqa: ARG001 (numba's signature)
    """Add the values [C, D] from `first` to `end`, times two rows of weights, to `sums` [2, D].

    The rows of weights lie `stride` floats apart.
    """

    def emit(code: Code, weights: Any, stride: Any, values: Any, first: Any, end: Any, sums: Any, D: int) -> None:
        places = [(g, d) for g in PAIR for d in range(0, D, LANES)]
        held = {(g, d): code.variable(code.load(sums, g * D + d, D - d)) for g, d in places}
        with code.steps(first, end, 1) as (position, _):
            row = code.element(values, code.times(position, D))
            value = {d: code.load(row, d, D - d) for d in range(0, D, LANES)}
            weight = [code.repeat(code.element(weights, code.plus(position, code.times(stride, g)))) for g in PAIR]
            for g, d in places:
                code.assign(held[g, d], code.add_product(weight[g], value[d], code.read(held[g, d])))
        for g, d in places:
            code.store(code.read(held[g, d]), sums, g * D + d, D - d)

    return _intrinsic(emit, weights, stride, values, first, end, sums, constants=[D])


@intrinsic
def top(typing: Any, scores: Any, end: Any) -> Any:  # noqa: ARG001 (numba's signature)
    """The largest score before `end`, a multiple of `LANES`; any of them where some are not a number."""

    def emit(code: Code, scores: Any, end: Any) -> Any:
        most = code.variable(code.load(scores, 0, LANES))
        with code.steps(INDEX(0), end, LANES) as (place, _):
            code.assign(most, code.larger(code.load(code.element(scores, place), 0, LANES), code.read(most)))
        return code.largest(code.read(most))

    return _intrinsic(emit, scores, end, returns=types.float32)


class Code:
    """Emits instructions on vectors of `LANES` floats."""

    def __init__(self, builder: Any) -> None:
        self._builder = builder

    def plus(self, one: Any, other: Any) -> Any:
        return self._builder.add(one, other)

    def times(self, number: Any, factor: int) -> Any:
        return self._builder.mul(number, INDEX(factor))

    def element(self, pointer: Any, place: Any) -> Any:
        return self._builder.gep(pointer, [place])

    def load(self, pointer: Any, place: int, count: int) -> Any:
        """A vector from `place` on; where fewer than `LANES` floats are left, the rest is 0."""
        kind = ir.VectorType(FLOAT, min(count, LANES))
        found = self._builder.load(self._at(pointer, place, kind), align=4)
        return (
            found if kind == VECTOR else self._pick(found, kind([0.0] * count), [min(i, count) for i in range(LANES)])
        )

    def store(self, vector: Any, pointer: Any, place: int, count: int) -> None:
        """The first `count` lanes, or all."""
        kind = ir.VectorType(FLOAT, min(count, LANES))
        lanes = vector if kind == VECTOR else self._pick(vector, vector, range(count))
        self._builder.store(lanes, self._at(pointer, place, kind), align=4)

    def repeat(self, pointer: Any) -> Any:
        """One float in all lanes."""
        alone = self._builder.insert_element(VECTOR(ir.Undefined), self._builder.load(pointer), LANE(0))
        return self._pick(alone, alone, [0] * LANES)

    def add_product(self, one: Any, other: Any, total: Any) -> Any:
        return self._builder.fadd(self._builder.fmul(one, other, flags=FUSED), total, flags=FUSED)

    def dot(self, one: Sequence[Any], other: Sequence[Any]) -> Any:
        """Sums of products, lane by lane."""
        total = self._builder.fmul(one[0], other[0])
        for x, y in zip(one[1:], other[1:], strict=True):
            total = self.add_product(x, y, total)
        return total

    def fold(self, one: Any, other: Any, width: int) -> Any:
        """Sums of neighbouring runs of `width` lanes: of one vector in even runs, of the other in odd ones."""
        kept = [lane + LANES * (lane // width % 2) for lane in range(LANES)]  # stay in their lanes, which costs least
        moved = [place ^ width for place in kept]
        return self._builder.fadd(self._pick(one, other, kept), self._pick(one, other, moved))

    def larger(self, one: Any, other: Any) -> Any:
        """Of each lane."""
        return self._builder.select(self._builder.fcmp_ordered(">", one, other), one, other)

    def largest(self, vector: Any) -> Any:
        """Of all lanes."""
        for width in (8, 4, 2, 1):
            vector = self.larger(vector, self._pick(vector, vector, [lane ^ width for lane in range(LANES)]))
        return self._builder.extract_element(vector, LANE(0))

    def steps(self, first: Any, end: Any, step: int) -> Any:
        """A loop, to be entered by `with`."""
        return cgutils.for_range_slice(self._builder, first, end, INDEX(step))

    def variable(self, value: Any) -> Any:
        return cgutils.alloca_once_value(self._builder, value)

    def assign(self, variable: Any, value: Any) -> None:
        self._builder.store(value, variable)

    def read(self, variable: Any) -> Any:
        return self._builder.load(variable)

    def _at(self, pointer: Any, place: int, kind: Any) -> Any:
        return self._builder.bitcast(self.element(pointer, INDEX(place)), kind.as_pointer())

    def _pick(self, one: Any, other: Any, lanes: Sequence[int]) -> Any:
        """Lanes of two vectors, numbered through."""
        mask = ir.Constant(ir.VectorType(LANE, len(lanes)), list(lanes))
        return self._builder.shuffle_vector(one, other, mask)


def _intrinsic(
    emit: Callable[..., Any], *given: Any, constants: Sequence[Any] = (), returns: Any = types.void
) -> tuple[Any, Callable[..., Any]]:
    """Signature and generator: arrays become pointers to their first element; constants, given last, become numbers."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ARG001 (numba's signature)
        plain = [
            context.make_array(kind)(context, builder, argument).data if isinstance(kind, types.Array) else argument
            for kind, argument in zip(given, arguments, strict=False)
        ]
        result = emit(Code(builder), *plain, *(constant.literal_value for constant in constants))
        return context.get_dummy_value() if result is None else result

    return returns(*given, *constants), generate
