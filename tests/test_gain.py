"""What a search is worth: measured against other passages in the same place, and never learned from."""

import asyncio
from dataclasses import fields

import pytest
import torch
from tiny_policies import tiny_policy

from forage.batch import collate
from forage.gain import Gain
from forage.learners.local import LocalLearner
from forage.losses.nll import NegativeLogLikelihood
from forage.metrics import harvest_metrics
from forage.renderers.tags import TagRenderer
from forage.rollout import Limits, play
from forage.testing import ByteTokenizer, DictionaryRetriever, ScriptedEngine
from forage.types import Group, Harvest, Passage, Question, Sampling, Scores, Trajectory

TOKENIZER = ByteTokenizer()
RENDERER = TagRenderer(TOKENIZER, template="short")
LIMITS = Limits(max_searches=2, max_turn_tokens=200, max_observation_tokens=200, max_tokens=600)
PASSAGES = {
    "oslo": [Passage("1", "Oslo", "Oslo lies in Norway.")],
    "rome": [Passage("2", "Rome", "Rome lies in Italy.")],
    "bonn": [Passage("3", "Bonn", "Bonn lies on the Rhine.")],
    "nothing": [],
}
OSLO, ROME, BONN = (
    Question(city, f"Where is {city}?", (answer,))
    for city, answer in [("oslo", "Norway"), ("rome", "Italy"), ("bonn", "the Rhine")]
)


def episode(question, *queries, limits=LIMITS):
    """Searches as they are told, then an answer."""
    script = [*(f"<think> hm</think><search> {query}</search>" for query in queries), "<answer> x</answer>"]
    row, engine = Trajectory(question, question.id, 0), ScriptedEngine(script, TOKENIZER)

    async def told():
        async with engine.session("") as session:

            async def turn(so_far, max_tokens):
                return await session.generate(so_far.tokens, Sampling(max_tokens, stop=RENDERER.stop))

            await play(row, turn, RENDERER, DictionaryRetriever(PASSAGES), 3, limits)

    asyncio.run(told())
    return row


def groups_of(*groups):
    return [Group(list(rows), [Scores(0.0)] * len(rows)) for rows in groups]


class Reader:
    """A policy that says what it read: a gold token is worth -1 where the answer was shown, else -5."""

    def __init__(self):
        self.texts = []

    async def __call__(self, batch):
        values = []
        for tokens_T, acted_T, length in zip(batch.tokens_BT, batch.acted_BT, batch.lengths_B, strict=True):
            text = TOKENIZER.decode(tokens_T[:length].tolist())
            gold = TOKENIZER.decode(tokens_T[acted_T].tolist())
            self.texts.append(text)
            values.append(-1.0 if text.count(gold) > 1 else -5.0)
        return torch.tensor(values)[:, None] * batch.acted_BT


def gains(groups, policy=None, *, step=1, limits=LIMITS, **options):
    measure = Gain(RENDERER, limits, policy or Reader(), seed=0, **options)
    asyncio.run(measure(groups, step))
    return [[turn.gain for turn in row.turns] for group in groups for row in group.trajectories]


def test_a_search_gains_what_its_passages_make_the_answer_likelier():
    groups = groups_of([episode(OSLO, "oslo"), episode(OSLO, "nothing")], [episode(ROME, "rome")])
    assert gains(groups) == [[4.0, None], [0.0, None], [4.0, None]]
    figures = harvest_metrics(Harvest(groups))
    assert (figures["gain/mean"], figures["gain/positive"]) == pytest.approx((8 / 3, 2 / 3))
    assert figures["reward/mean"] == 0.0


def test_the_answer_stands_in_the_place_of_the_turn_after_the_search():
    reader = Reader()
    gains(groups_of([episode(OSLO, "bonn", "oslo")], [episode(ROME, "rome")]), reader, others=1)
    start = "Question: Where is oslo?\n<think> hm</think><search> bonn</search>"
    bonn, rome = (
        "<information> Bonn lies on the Rhine.</information>",
        "<information> Rome lies in Italy.</information>",
    )
    second = "<think> hm</think><search> oslo</search>"
    assert reader.texts[:4] == [
        f"{start}{bonn}<answer> Norway",
        f"{start}{rome}<answer> Norway",
        f"{start}{bonn}{second}<information> Oslo lies in Norway.</information> answer now<answer> Norway",
        f"{start}{bonn}{second}<information> Rome lies in Italy.</information> answer now<answer> Norway",
    ]


def learner(**options):
    policy = tiny_policy(vocab_size=257, max_position_embeddings=1024)
    return LocalLearner(policy, NegativeLogLikelihood(), **options)


def test_the_same_passages_as_others_gain_nothing():
    groups = groups_of([episode(OSLO, "oslo"), episode(OSLO, "oslo")], [episode(ROME, "oslo")])
    assert [row[0] for row in gains(groups, learner().logprobs)] == pytest.approx([0.0] * 3, abs=1e-5)


def test_a_learner_measures_the_same_however_it_packs():
    groups = groups_of([episode(OSLO, "oslo", "bonn"), episode(OSLO, "bonn")], [episode(ROME, "rome")])
    together = gains(groups, learner().logprobs)
    assert all(abs(row[0]) > 1e-3 for row in together)
    apart = gains(groups, learner(micro_tokens=1, share_prompts=False).logprobs)
    for ours, theirs in zip(together, apart, strict=True):
        assert ours[:-1] == pytest.approx(theirs[:-1], abs=1e-4)


def test_nothing_of_it_is_learned():
    groups = groups_of([episode(OSLO, "oslo")], [episode(ROME, "rome")])
    before = collate(groups)
    gains(groups)
    after = collate(groups)
    assert before.gains_BT is None
    for name in {field.name for field in fields(before)} - {"gains_BT"}:
        ours, theirs = getattr(before, name), getattr(after, name)
        assert torch.equal(ours, theirs) if isinstance(ours, torch.Tensor) else ours == theirs
    for row, gains_T in zip(groups, after.gains_BT, strict=True):
        known = (~gains_T.isnan()).nonzero().flatten()
        city = row.trajectories[0].question.id
        assert TOKENIZER.decode([row.trajectories[0].tokens[t] for t in known]) == f"<search> {city}</search>"


def test_seed_and_step_decide_what_a_search_is_compared_with():
    groups = groups_of([episode(OSLO, "oslo")], [episode(ROME, "rome")], [episode(BONN, "bonn")])

    def asked(step):
        reader = Reader()
        gains(groups, reader, step=step, others=1)
        return reader.texts

    assert asked(1) == asked(1)
    assert len({tuple(asked(step)) for step in range(8)}) > 1


def test_the_samples_of_a_question_are_compared_with_the_same():
    reader = Reader()
    cities = groups_of([episode(OSLO, "oslo")] * 4, [episode(ROME, "rome")], [episode(BONN, "bonn")])
    gains(cities, reader, others=1)
    assert len(set(reader.texts[1:8:2])) == 1


def test_what_can_not_be_measured_is_not():
    nobody = Question("none", "Who?", ())
    alone = groups_of([episode(OSLO, "oslo"), episode(OSLO, "bonn")])
    assert gains(alone) == [[None, None]] * 2
    assert gains(groups_of([episode(OSLO, "oslo")], [episode(ROME)])) == [[None, None], [None]]
    assert gains(groups_of([episode(nobody, "oslo")], [episode(ROME, "rome")])) == [[None, None], [4.0, None]]
    found_nothing = groups_of([episode(OSLO, "nothing")], [episode(ROME, "rome")])
    assert gains(found_nothing) == [[0.0, None], [None, None]]
    assert collate(alone).gains_BT is None


def test_no_answer_is_measured_where_none_would_fit():
    cut = Limits(max_searches=2, max_turn_tokens=200, max_observation_tokens=200, max_tokens=70)
    full = groups_of([episode(OSLO, "oslo", limits=cut)], [episode(ROME, "rome")])
    assert gains(full, limits=cut)[0] == [None]
    tight = Limits(max_searches=2, max_turn_tokens=200, max_observation_tokens=200, max_tokens=115)
    assert gains(groups_of([episode(OSLO, "oslo")], [episode(ROME, "rome")]), limits=tight)[0] == [None, None]
