"""Who sits in which slot, and what is prefilled: plain bookkeeping, a function of admission order and tokens alone."""

from __future__ import annotations

from asyncio import Future
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from forage.engines.decoder import Piece
from forage.types import Completion, Sampling

if TYPE_CHECKING:
    from forage.engines.kv import KVCache
    from forage.engines.stopping import Rule


@dataclass(eq=False, slots=True)
class Seat:
    """An admitted session's hold on the engine. The KV of `cached` lies in `slot` (and more while a turn runs)."""

    group: str
    slot: int = -1  # none yet
    cached: list[int] = field(default_factory=list)
    turn: Turn | None = None


@dataclass(eq=False, slots=True)
class Turn:
    """One `generate` call under way. What a running turn's row has sampled may not yet be in the lists."""

    seat: Seat
    tokens: list[int]
    sampling: Sampling
    rule: Rule
    on_token: Callable[[int], None] | None
    done: Future[Completion]
    sampled: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)
    running: bool = False
    began: int = 0  # ticks before the turn's first token, had it run without a break

    @property
    def context(self) -> list[int]:
        """All tokens before the next one."""
        return self.tokens + self.sampled


class Slots:
    """Which seat holds which slot of a `KVCache`, whose contents move with the seats."""

    def __init__(self, slots: int, kv: KVCache) -> None:
        self.holders: list[Seat | None] = [None] * slots
        self._kv = kv

    def settle(self, active: Sequence[Seat]) -> None:
        """Bring the active seats into the first slots, so that their KV is read as one view.

        Nothing moves while the same seats stay active. Those that have a slot move first, after which the slots
        behind hold idle seats alone, and there is room for whoever makes way.
        """
        rows = len(active)
        strangers = sorted((seat for seat in active if not 0 <= seat.slot < rows), key=lambda seat: seat.slot < 0)
        holes = [slot for slot in range(rows) if (seat := self.holders[slot]) is None or seat.turn is None]
        for hole, seat in zip(holes, strangers, strict=True):
            if seat.slot >= 0:
                self._exchange(hole, seat.slot)
                continue
            if self.holders[hole] is not None:
                self._exchange(hole, self.holders.index(None, rows))
            self.holders[hole], seat.slot = seat, hole

    def leave(self, seat: Seat) -> None:
        """Free the seat's slot."""
        if seat.slot >= 0:
            self.holders[seat.slot] = None
            seat.slot = -1

    def _exchange(self, one: int, other: int) -> None:
        first, second = self.holders[one], self.holders[other]
        lengths = [len(seat.cached) if seat else 0 for seat in (first, second)]
        if all(lengths):
            self._kv.swap(one, other, max(lengths))
        elif any(lengths):
            source, target = (one, other) if lengths[0] else (other, one)
            self._kv.move(source, target, max(lengths))
        for slot, seat in ((one, second), (other, first)):
            self.holders[slot] = seat
            if seat is not None:
                seat.slot = slot


@dataclass(slots=True)
class Wave:
    """Prefill that can be done together: first copies (source slot, target slot, length), then new pieces."""

    copies: list[tuple[int, int, int]] = field(default_factory=list)
    pieces: list[Piece] = field(default_factory=list)


def plan(starting: Sequence[Turn], seats: Iterable[Seat]) -> tuple[list[Wave], int]:
    """Waves after which the KV of all but the last token of each context is there; and tokens whose KV was reused.

    A seat without KV takes what it shares with one of its group, which may itself be prefilled the wave before. Each
    seat's `cached` becomes what its slot will hold.
    """
    donors: dict[str, list[Seat]] = defaultdict(list)
    for seat in seats:
        if seat.cached:
            donors[seat.group].append(seat)
    waves: dict[int, Wave] = defaultdict(Wave)
    filled_in: dict[Seat, int] = {}
    reused = 0
    for turn in starting:
        seat, wanted, wave = turn.seat, turn.context[:-1], 0
        known = common(seat.cached, wanted)
        candidates = donors[seat.group]
        if not seat.cached and candidates:
            donor = max(candidates, key=lambda other: common(other.cached, wanted))
            known = common(donor.cached, wanted)
            wave = filled_in.get(donor, -1) + 1 if known else 0
            waves[wave].copies.append((donor.slot, seat.slot, known))
        if known < len(wanted):
            waves[wave].pieces.append(Piece(seat.slot, known, wanted[known:]))
        if seat not in candidates:
            candidates.append(seat)
        seat.cached, filled_in[seat] = wanted, wave
        reused += 0 if turn.sampled else known
    return [waves[wave] for wave in sorted(waves)], reused


def common(one: Sequence[int], other: Sequence[int]) -> int:
    """Length of the common prefix."""
    n = min(len(one), len(other))
    if one[:n] == other[:n]:
        return n
    return next(i for i in range(n) if one[i] != other[i])


def portions(pieces: Iterable[Piece], limit: int) -> Iterator[list[Piece]]:
    """The pieces in portions of at most `limit` tokens; one that crosses a border is cut there."""
    portion: list[Piece] = []
    room = limit
    for piece in pieces:
        first = 0
        while first < len(piece.tokens):
            tokens = piece.tokens[first : first + room]
            portion.append(Piece(piece.slot, piece.start + first, tokens))
            first, room = first + len(tokens), room - len(tokens)
            if not room:
                yield portion
                portion, room = [], limit
    if portion:
        yield portion
