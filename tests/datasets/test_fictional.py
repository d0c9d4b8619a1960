"""The fictional world: the same for a seed, disjoint between splits, and answerable from its passages."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forage.datasets.fictional import Fictional, World, split_of
from forage.datasets.lexicon import KINDS, RELATIONS
from forage.errors import ConfigError


def names(world):
    return {entity.name for entity in world.entities}


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**40), st.integers(0, 2**40))
def test_no_name_of_any_evaluation_world_is_in_any_training_world(one, other):
    train, held_out = World(one, "train", 80), World(other, "eval", 80)
    assert not names(train) & names(held_out)
    assert {split_of(name) for name in names(train)} == {"train"}
    assert {split_of(name) for name in names(held_out)} == {"eval"}


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**40), st.integers(0, 10_000))
def test_a_seed_names_a_world_and_its_questions(seed, i):
    one, other = Fictional("eval", seed=seed, entities=80), Fictional("eval", seed=seed, entities=80)
    assert list(one.passages()) == list(other.passages())
    assert one.questions()[i] == other.questions()[i]
    assert one.questions()[i] != Fictional("train", seed=seed, entities=80).questions()[i]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 100_000), st.sampled_from([1, 2, 3]))
def test_following_the_passages_leads_from_the_question_to_its_answer(i, hops):
    data = Fictional("train", seed=5, entities=200)
    question, path = data.world.question(i, hops)
    passages = {passage.title: passage.text for passage in data.passages()}
    assert path.entities[0] in question.text
    assert question.answers == (path.entities[-1],)
    assert question.supporting_titles == path.entities[:-1]
    assert len(set(path.entities)) == hops + 1
    for here, relation, there in zip(path.entities, path.relations, path.entities[1:], strict=False):
        said = [f"{phrase} {there}" in passages[here] for phrase in RELATIONS[relation].stated]
        assert any(said)


def test_the_world_has_the_promised_variety():
    assert len(KINDS) >= 4
    assert len(RELATIONS) >= 8
    assert all(len(r.asked) == 3 and len(set(r.asked)) == 3 for r in RELATIONS.values())
    world = World(0, "train", 1000)
    firms = [entity.name.split()[0] for entity in world.entities if entity.kind == "firm"]
    assert len(set(firms)) < len(firms)  # look-alikes: one stem, another suffix
    first = [entity.name.split()[0] for entity in world.entities if entity.kind == "person"]
    assert len(set(first)) < len(first) / 5  # people share first names
    assert len({entity.name for entity in world.entities}) == len(world.entities)


def test_passages_state_more_than_is_asked():
    world = World(0, "train", 100)
    for i, entity in enumerate(world.entities):
        assert all(world.entities[target].name in world.passage(i).text for target in entity.facts.values())


def test_hops_cycle_over_the_questions():
    questions = Fictional("eval", entities=80, questions=7, hops=(1, 3)).questions()
    assert [question.hops for question in questions] == [1, 3, 1, 3, 1, 3, 1]
    assert questions[-1] == questions[6]
    assert questions[1:3] == [questions[1], questions[2]]
    with pytest.raises(IndexError):
        questions[7]


@pytest.mark.parametrize("options", [{"hops": ()}, {"hops": (4,)}, {"entities": 10}, {"questions": 0}])
def test_impossible_worlds_are_refused(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        Fictional("train", **options)


def test_both_splits_put_names_together_from_the_same_pairs_of_syllables():
    """A model that learned which syllables follow which in one split would otherwise miscopy names of the other."""

    def pairs(split):
        stems = {word for seed in range(40) for name in names(World(seed, split, 300)) for word in name.split()}
        return {(stem[:2], stem[2:4]) for stem in stems if len(stem) in (4, 6)}

    train, held_out = pairs("train"), pairs("eval")
    assert len(train & held_out) > 0.6 * len(held_out)
