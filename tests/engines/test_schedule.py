from hypothesis import given
from hypothesis import strategies as st

from forage.engines.decoder import Piece
from forage.engines.schedule import Seat, Slots, Turn, common, plan, portions
from forage.types import Sampling


class Contents:
    """A KV cache that remembers whose KV lies where."""

    def __init__(self, slots):
        self.slots = [None] * slots

    def move(self, source, target, length):
        assert length
        self.slots[target] = self.slots[source]

    def swap(self, one, other, length):
        assert length
        self.slots[one], self.slots[other] = self.slots[other], self.slots[one]


def turn(seat, tokens):
    seat.turn = Turn(seat, tokens, Sampling(1), None, None, None)
    return seat.turn


@given(st.lists(st.lists(st.sampled_from(["absent", "idle", "active"]), min_size=6, max_size=6), max_size=12))
def test_active_seats_are_dense_and_keep_their_kv(rounds):
    contents = Contents(6)
    slots = Slots(6, contents)
    seats = {}
    for states in rounds:
        for number, state in enumerate(states):
            if state == "absent" and number in seats:
                slots.leave(seats.pop(number))
            if state != "absent":
                seat = seats.setdefault(number, Seat("g"))
                seat.turn = None
                if state == "active":
                    turn(seat, [number])
        active = [seat for seat in seats.values() if seat.turn]
        slots.settle(active)
        assert sorted(seat.slot for seat in active) == list(range(len(active)))
        for number, seat in seats.items():
            if seat.slot >= 0:
                assert slots.holders[seat.slot] is seat
            if seat.cached:
                assert contents.slots[seat.slot] == number
            if seat.turn:
                seat.cached, contents.slots[seat.slot] = [number], number
        assert sum(holder is not None for holder in slots.holders) == sum(seat.slot >= 0 for seat in seats.values())


def test_a_group_is_prefilled_in_waves():
    seats = [Seat("g", slot) for slot in range(4)] + [Seat("other", 4)]
    contexts = [[1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 9, 9, 9], [1, 2, 9, 9, 5], [1, 2, 3, 4]]
    waves, reused = plan([turn(seat, context) for seat, context in zip(seats, contexts, strict=True)], seats)
    assert [wave.copies for wave in waves] == [[], [(0, 1, 3), (0, 2, 2)], [(2, 3, 4)]]
    assert [[(p.slot, p.start, p.tokens) for p in wave.pieces] for wave in waves] == [
        [(0, 0, [1, 2, 3]), (4, 0, [1, 2, 3])],
        [(2, 2, [9, 9])],
        [],
    ]
    assert reused == 3 + 2 + 4


def test_portions_cut_at_the_limit():
    pieces = [Piece(0, 0, [1, 2, 3]), Piece(1, 5, [4, 5, 6, 7, 8])]
    cut = [[(p.slot, p.start, p.tokens) for p in portion] for portion in portions(pieces, 4)]
    assert cut == [[(0, 0, [1, 2, 3]), (1, 5, [4])], [(1, 6, [5, 6, 7, 8])]]
    assert list(portions([], 4)) == []


@given(st.lists(st.integers(0, 1)), st.lists(st.integers(0, 1)))
def test_common(one, other):
    n = common(one, other)
    assert one[:n] == other[:n]
    assert n in (len(one), len(other)) or one[n] != other[n]
