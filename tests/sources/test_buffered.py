"""A queue of harvests: how old what is handed out is, and that it survives a checkpoint."""

import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forage.errors import TrainingError
from forage.sources.buffered import BufferedSource
from forage.types import Completion, Finish, Group, Harvest, Question, Scores, StopReason, Trajectory


class Weights:
    """Counts updates, as a learner would."""

    version = 0


class Fresh:
    """A source whose harvests tell their number and the version they were played with."""

    def __init__(self, weights, broken=0):
        self.weights, self.broken, self.played, self.after = weights, broken, [], 0

    async def take(self, step):
        if step == self.broken:
            raise TrainingError("no search engine")
        self.played.append(step)
        row = Trajectory(Question(f"q{step}", "?", ("a",)), "g", 0, stop=StopReason.ANSWERED)
        row.observe([1])
        row.act(Completion([2], [-0.1 * step], [self.weights.version], Finish.EOS))
        return Harvest([Group([row], [Scores(1 / step)])], seconds=1.0, tail_seconds=0.5)

    def save(self, folder, step):
        (folder / "fresh").write_text(str(step))

    def load(self, folder):
        self.after = int((folder / "fresh").read_text())


def train(source, weights, *steps):
    """What each step learns from: number of the harvest, and how old its weights were."""
    seen = []
    for step in steps:
        (row,) = asyncio.run(source.take(step)).trajectories
        seen.append((int(row.question.id[1:]), weights.version - row.versions[1], row.logprobs[1]))
        weights.version += 1
    return seen


@given(staleness=st.integers(1, 4), steps=st.integers(1, 9))
def test_each_step_learns_from_its_own_harvest_played_so_many_updates_ago(staleness, steps):
    weights = Weights()
    fresh = Fresh(weights)
    seen = train(BufferedSource(fresh, staleness), weights, *range(1, steps + 1))
    assert [number for number, _, _ in seen] == list(range(1, steps + 1))
    assert [age for _, age, _ in seen] == [min(step, staleness) for step in range(steps)]
    assert fresh.played == list(range(1, steps + staleness + 1))


@given(staleness=st.integers(1, 3), before=st.integers(1, 4), after=st.integers(1, 4))
def test_a_resumed_queue_hands_out_the_same(tmp_path_factory, staleness, before, after):
    folder = tmp_path_factory.mktemp("queue")
    first, last = range(1, before + 1), range(before + 1, before + after + 1)
    weights = Weights()
    source = BufferedSource(Fresh(weights), staleness)
    train(source, weights, *first)
    source.save(folder, before)
    going_on = train(source, weights, *last)
    again = Weights()
    again.version = before
    fresh = Fresh(again)
    resumed = BufferedSource(fresh, staleness)
    resumed.load(folder)
    assert fresh.after == before + staleness
    assert train(resumed, again, *last) == going_on
    assert fresh.played == list(range(before + staleness + 1, before + after + staleness + 1))


def test_what_is_saved_after_a_failure_is_the_step_before(tmp_path):
    weights = Weights()
    source = BufferedSource(Fresh(weights, broken=5), 2)
    train(source, weights, 1, 2)
    with pytest.raises(TrainingError):
        train(source, weights, 3)
    source.save(tmp_path, 2)
    assert sorted(path.name for path in tmp_path.glob("harvest-*")) == [
        "harvest-000003.json.zst",
        "harvest-000004.json.zst",
    ]
    assert json.loads((tmp_path / "fresh").read_text()) == 4


def test_seconds_are_those_of_what_was_played_now():
    source = BufferedSource(Fresh(Weights()), 2)
    first, second = asyncio.run(source.take(1)), asyncio.run(source.take(2))
    assert (first.seconds, first.tail_seconds) == (3.0, 1.5)
    assert (second.seconds, second.tail_seconds) == (1.0, 0.5)
