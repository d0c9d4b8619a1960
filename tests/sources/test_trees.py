"""Episodes that begin as others did: what is taken over, what is played, and what is counted."""

import asyncio
import random
from collections import Counter
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forage.errors import RetrieverError
from forage.metrics import harvest_metrics
from forage.renderers.tags import TagRenderer
from forage.rewards.em import ExactMatch
from forage.rollout import Limits, Rollout
from forage.sources.buffered import BufferedSource
from forage.sources.fresh import FreshSource
from forage.sources.player import Player
from forage.testing import ByteTokenizer, DictionaryRetriever
from forage.types import Completion, Finish, Invalid, Passage, Question, Search, StopReason, Trajectory, Turn

TOKENIZER = ByteTokenizer()
QUESTIONS = [Question(f"q{i}", f"Question {i}?", ("yes",), "set") for i in range(5)]
SAID = ("<search> it</search>", "<search> that</search>", "no tags", "<answer> yes</answer>", "<answer> no</answer>")
FOUND = {"it": [Passage("1", "It", "It is.")], "that": [Passage("2", "That", "That is.")]}
COLUMNS = ("tokens", "acted", "logprobs", "versions", "turn")
SEEDS = st.integers(0, 10**6)


class Dice:
    """An engine whose every turn hangs on the turn's seed alone."""

    version = 0

    def __init__(self, said=SAID):
        self.said = said
        self.decoded = 0

    @asynccontextmanager
    async def session(self, group):
        yield self

    async def generate(self, tokens, sampling, on_token=None):
        rng = random.Random(sampling.seed)
        said = TOKENIZER.encode(rng.choice(self.said))[: sampling.max_tokens]
        self.decoded += len(said)
        return Completion(said, [-rng.random() for _ in said], [self.version] * len(said), Finish.STOP)


class Flaky:
    """A retriever that answers so many searches and no more."""

    def __init__(self, answered):
        self.left = answered

    async def search(self, queries, k):
        self.left -= 1
        return [FOUND[query][:k] if self.left >= 0 else RetrieverError("down") for query in queries]


def player(trees, *, samples=6, seed=0, engine=None, retriever=None, **limits):
    renderer = TagRenderer(TOKENIZER, template="short")
    rollout = Rollout(engine or Dice(), renderer, retriever or DictionaryRetriever(FOUND), 1, Limits(**limits))
    return Player(rollout, ExactMatch(), samples=samples, trees=trees, seed=seed)


def harvested(trees, step=1, **options):
    return asyncio.run(player(trees, **options).play(QUESTIONS[:2], step=step))


def source(trees, **options):
    return FreshSource(QUESTIONS, player(trees, **options), batch_questions=2, seed=0, max_failure_rate=1.0)


def test_a_branch_takes_over_what_stands_before_a_turn_and_nothing_behind_it():
    """
    tokens   1 2 | 3 4 | 5 | 6 | 7
    acted    0 0 | 1 1 | 0 | 1 | 0
    branch at turn 1   1 2 3 4 5, at turn 0   1 2
    """
    root = Trajectory(QUESTIONS[0], "g", 0, tree=0)
    root.observe([1, 2])
    root.act(Completion([3, 4], [-0.5, -0.25], [7, 7], Finish.STOP))
    root.turns.append(Turn(Search(("it",)), [FOUND["it"]]))
    root.observe([5])
    root.act(Completion([6], [-1.0], [8], Finish.STOP))
    root.turns.append(Turn(Invalid("no_action")))
    root.observe([7])
    root.stop, root.wasted = StopReason.NO_ANSWER, 1

    branch = root.branch(1, sample=4)
    assert [getattr(branch, name) for name in COLUMNS] == [
        [1, 2, 3, 4, 5],
        [0, 0, 1, 1, 0],
        [0.0, 0.0, -0.5, -0.25, 0.0],
        [-1, -1, 7, 7, -1],
        [0, 0, 0, 0, 1],
    ]
    assert (branch.turns, branch.sample, branch.tree, branch.stop, branch.wasted) == (root.turns[:1], 4, 0, None, 0)
    assert (branch.taken_turns, branch.taken_tokens, branch.searches, branch.own_searches) == (1, 2, 1, 0)
    assert (root.branch(0, sample=4).tokens, root.branch(0, sample=4).taken_tokens) == ([1, 2], 0)

    branch.turns[0].gain = 1.0
    branch.act(Completion([9], [-2.0], [9], Finish.EOS))
    assert (root.turns[0].gain, root.tokens) == (None, [1, 2, 3, 4, 5, 6, 7])


@given(seed=SEEDS, trees=st.integers(1, 5), samples=st.integers(5, 9))
def test_each_leaf_begins_as_the_first_of_its_tree(seed, trees, samples):
    for group in harvested(trees, samples=samples, seed=seed).groups:
        assert [t.sample for t in group.trajectories] == list(range(samples))
        roots = group.trajectories[:trees]
        assert [t.tree for t in roots] == list(range(trees))
        for leaf in group.trajectories[trees:]:
            root = roots[leaf.tree]
            assert leaf.taken_turns < len(root.turns)
            assert leaf.turns[: leaf.taken_turns] == root.turns[: leaf.taken_turns]
            begun = next(t for t, turn in enumerate(leaf.turn) if turn == leaf.taken_turns and leaf.acted[t])
            for name in COLUMNS:
                assert getattr(leaf, name)[:begun] == getattr(root, name)[:begun]
            assert leaf.taken_tokens == sum(leaf.acted[:begun])


@given(seed=SEEDS, trees=st.integers(1, 5))
def test_trees_grow_alike(seed, trees):
    for group in harvested(trees, seed=seed).groups:
        leaves = Counter(t.tree for t in group.trajectories)
        assert len(leaves) == trees
        assert max(leaves.values()) - min(leaves.values()) <= 1


def test_branches_begin_at_any_turn_but_behind_the_last():
    """Episodes of three turns; each is the first new one of about a third of the branches."""
    harvests = [harvested(1, seed=seed, engine=Dice(SAID[:1]), max_searches=2) for seed in range(60)]
    begun = Counter(t.taken_turns for harvest in harvests for t in harvest.trajectories if t.sample)
    assert sorted(begun) == [0, 1, 2]
    assert all(150 < count < 250 for count in begun.values())


@given(seed=SEEDS, searches=st.integers(0, 3), room=st.integers(22, 200))
def test_what_is_taken_over_counts_towards_the_limits(seed, searches, room):
    """A prompt alone has 22 tokens."""
    harvest = harvested(2, seed=seed, max_searches=searches, max_tokens=room)
    for episode in harvest.trajectories:
        assert len(episode.turns) <= searches + 1
        assert episode.searches <= searches
        assert len(episode.tokens) <= room
        assert (episode.stop is StopReason.NO_ANSWER) <= (len(episode.turns) == searches + 1)


@given(seed=SEEDS)
def test_as_many_trees_as_samples_are_independent_episodes(seed):
    def untied(harvest):
        for episode in harvest.trajectories:
            episode.tree = None
        return harvest.groups

    chains = harvested(0, seed=seed).groups
    assert untied(harvested(6, seed=seed)) == chains
    for grown, alone in zip(untied(harvested(2, seed=seed)), chains, strict=True):
        assert grown.trajectories[:2] == alone.trajectories[:2]


@given(seed=SEEDS, trees=st.integers(0, 6))
def test_what_was_decoded_and_searched_is_counted_once(seed, trees):
    engine, retriever = Dice(), DictionaryRetriever(FOUND)
    harvest = harvested(trees, seed=seed, engine=engine, retriever=retriever)
    metrics = harvest_metrics(harvest)
    reused = metrics.get("episode/reused_tokens", 0.0)
    assert ("episode/reused_tokens" in metrics) == (trees > 0)
    assert engine.decoded == pytest.approx(12 * (metrics["episode/acted_tokens"] - reused))
    assert harvest.searches == len(retriever.calls)
    assert metrics["engine/wasted"] <= 1


class Slow(Dice):
    """Takes longer over the first question, and remembers of which question the turns were, as they ended."""

    def __init__(self, said):
        super().__init__(said)
        self.ended, self.slow = "", "0"

    async def generate(self, tokens, sampling, on_token=None):
        number = TOKENIZER.decode(tokens).split()[2][0]
        for _ in range(20 if number == self.slow else 1):
            await asyncio.sleep(0)
        self.ended += number
        return await super().generate(tokens, sampling, on_token)


def test_no_question_branches_before_all_have_begun():
    engine = Slow(SAID[3:])
    harvested(2, samples=5, engine=engine)
    assert engine.ended == "1100" + "111000"


@pytest.mark.parametrize("answered", range(0, 40, 3))
def test_an_episode_whose_search_failed_is_left_out_and_its_tree_goes_on(answered):
    harvest = harvested(2, retriever=Flaky(answered), engine=Dice(SAID[:4]))
    rewarded = [t for group in harvest.rewarded for t in group.trajectories]
    assert len(rewarded) + len(harvest.failed) == 12
    assert all(t.stop is StopReason.RETRIEVER_ERROR and t.failure == "down" for t in harvest.failed)
    assert all(t.stop is not StopReason.RETRIEVER_ERROR for t in rewarded)
    assert harvest.searches == sum(t.own_searches for t in rewarded + harvest.failed) + len(harvest.failed)


@pytest.mark.parametrize("staleness", [0, 2])
def test_a_resumed_source_hands_out_the_same(tmp_path, staleness):
    def made():
        fresh = source(2)
        return BufferedSource(fresh, staleness) if staleness else fresh

    first, second = made(), made()
    asyncio.run(first.take(1))
    first.save(tmp_path, 1)
    second.load(tmp_path)
    for step in (2, 3, 4):
        ours, theirs = asyncio.run(first.take(step)).groups, asyncio.run(second.take(step)).groups
        assert any(t.taken_turns for group in ours for t in group.trajectories)
        assert repr(ours) == repr(theirs)
