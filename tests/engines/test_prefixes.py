"""What slots are said to have in common is the same bit by bit, and reading it in either place changes no bit."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forage.engines.decoder import Decoder
from forage.engines.kv import KVCache
from forage.engines.prefixes import Prefixes
from forage.engines.schedule import Seat, Slots, Turn, plan
from forage.types import Sampling

SLOTS, TOKENS = 5, 40


def shared(prefixes):
    """{slot: (holder, length)} of those that share."""
    pairs = enumerate(zip(prefixes.holders.tolist(), prefixes.lengths.tolist(), strict=True))
    return {slot: (holder, length) for slot, (holder, length) in pairs if length}


def test_copies_share_with_the_first_of_them():
    prefixes = Prefixes(5)
    prefixes.copied(0, 1, 20)
    prefixes.copied(1, 2, 15)
    prefixes.copied(1, 3, 30)
    assert shared(prefixes) == {1: (0, 20), 2: (0, 15), 3: (1, 30)}


def test_who_shares_with_a_slot_that_is_written_to_shares_with_the_longest_of_them():
    prefixes = Prefixes(5)
    for target, length in ((1, 20), (2, 15), (3, 30), (4, 3)):
        prefixes.copied(0, target, length)
    prefixes.changing(0, 5)
    assert shared(prefixes) == {1: (3, 20), 2: (3, 15), 4: (0, 3)}


def test_a_branch_inherits_what_its_stem_shared():
    prefixes = Prefixes(3)
    prefixes.copied(0, 1, 10)
    prefixes.copied(1, 2, 25)
    prefixes.changing(1, 0)
    assert shared(prefixes) == {2: (0, 10)}


def test_what_is_shared_moves_with_its_slots():
    prefixes = Prefixes(4)
    prefixes.copied(0, 1, 10)
    prefixes.copied(0, 2, 10)
    prefixes.swapped(0, 3, 20)
    assert shared(prefixes) == {1: (3, 10), 2: (3, 10)}
    prefixes.swapped(3, 1, 8)
    assert shared(prefixes) == {3: (1, 8), 2: (1, 8)}


slot, length = st.integers(0, SLOTS - 1), st.integers(1, TOKENS)
OPERATION = st.one_of(
    st.tuples(
        st.sampled_from(["copy", "move", "swap"]), st.tuples(slot, slot).filter(lambda pair: pair[0] != pair[1]), length
    ),
    st.tuples(st.just("write"), slot, st.integers(0, TOKENS - 1)),
)


@given(st.lists(OPERATION, max_size=30))
def test_what_is_shared_is_the_same_bit_by_bit(operations):
    kv = KVCache(2, SLOTS, 1, 2, TOKENS, torch.float32, torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)

    def write(number, first):
        kv.prefixes.changing(number, first)
        for keys, values in kv.layers():
            keys[number, ..., first:] = torch.randn(keys[number, ..., first:].shape, generator=generator)
            values[number, :, first:] = torch.randn(values[number, :, first:].shape, generator=generator)

    for number in range(SLOTS):
        write(number, 0)
    for what, where, n in operations:
        if what == "write":
            write(where, n)
        else:
            getattr(kv, what)(*where, n)
        for one, (other, common) in shared(kv.prefixes).items():
            assert one != other
            for keys, values in kv.layers():
                assert torch.equal(keys[one, ..., :common], keys[other, ..., :common])
                assert torch.equal(values[one, :, :common], values[other, :, :common])


class Played:
    """A decoder whose seats come, go on and go; all logits are kept. Optionally without what is shared."""

    def __init__(self, model, sharing):
        self.decoder = Decoder(model, SLOTS, 96, torch.float32, "numba")
        self.slots = Slots(SLOTS, self.decoder.kv)
        self.seats = {}
        self.sharing = sharing
        self.shared = 0
        self.logits = []

    @torch.inference_mode()
    def round(self, actions, ticks):
        """Each seat leaves, pauses, or goes on after some of its tokens and new ones; then all that go on decode."""
        for number, (kept, new) in enumerate(actions):
            if new is None:
                if number in self.seats:
                    self.slots.leave(self.seats.pop(number))
                continue
            seat = self.seats.setdefault(number, Seat("g"))
            tokens = (seat.cached or list(range(50, 73)))[: 60 - kept] + new
            seat.turn = Turn(seat, tokens, Sampling(ticks), None, None, None) if new else None
        turns = [seat.turn for seat in self.seats.values() if seat.turn]
        if turns:
            self._start(turns)
            self._decode(sorted(turns, key=lambda turn: turn.seat.slot), ticks)

    def _start(self, turns):
        self.slots.settle([turn.seat for turn in turns])
        for wave in plan(turns, self.seats.values())[0]:
            for copy in wave.copies:
                self.decoder.kv.copy(*copy)
            if wave.pieces:
                self.decoder.prefill(wave.pieces)

    def _decode(self, turns, ticks):
        prefixes = self.decoder.kv.prefixes
        for turn in turns:
            prefixes.changing(turn.seat.slot, len(turn.context) - 1)
        for _ in range(0 if self.sharing else SLOTS):  # what one forgets, another one inherits
            for number in range(SLOTS):
                prefixes.changing(number, 0)
        self.shared += prefixes.lengths[: len(turns)].sum()
        for tick in range(ticks):
            tokens = torch.tensor([turn.context[-1] for turn in turns])
            positions = torch.tensor([len(turn.context) - 1 for turn in turns])
            self.logits.append(self.decoder.decode(tokens, positions, int(positions.max()) + 1))
            for turn in turns:
                turn.seat.cached = turn.context
                turn.sampled.append(tick)


ACTION = st.tuples(
    st.sampled_from([0, 0, 0, 25, 40]),  # tokens that are cut off, beyond 60
    st.one_of(st.none(), st.lists(st.integers(0, 9), max_size=4)),  # leaves; pauses, where there are none; goes on
)
ROUND = st.tuples(st.lists(ACTION, min_size=SLOTS, max_size=SLOTS), st.integers(1, 3))


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rounds=st.lists(ROUND, min_size=1, max_size=5), kind=st.sampled_from(["qwen2", "qwen3"]))
def test_sharing_changes_no_bit(model, rounds, kind):
    pytest.importorskip("numba", reason="numba (the extra `fast`) is not installed")
    shares, does_not = Played(model(kind), True), Played(model(kind), False)
    for actions, ticks in rounds:
        shares.round(actions, ticks)
        does_not.round(actions, ticks)
    assert does_not.shared == 0
    assert all(map(torch.equal, shares.logits, does_not.logits))


def test_a_group_shares_its_prompt_until_the_last_of_them(model):
    pytest.importorskip("numba", reason="numba (the extra `fast`) is not installed")
    group = Played(model("qwen3"), True)
    group.round([(0, [1])] * SLOTS, 2)
    assert group.shared == 4 * 23  # of 24 tokens, the last of which is decoded
    group.round([(0, None), *[(0, [2])] * (SLOTS - 1)], 2)
    group.round([(0, None)] * 2 + [(0, [2])] * 3, 2)
    assert group.shared == (4 + 3 + 2) * 23
