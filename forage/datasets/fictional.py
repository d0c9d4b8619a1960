"""A procedural world of invented people, cities, firms, schools and countries.

Nothing in it can be known beforehand, only searched: names are built from syllables, and every name belongs to
either the training or the evaluation split by its hash, so that no evaluation world shares a name with any
training world. One passage an entity; a question follows 1 to 3 relations from a named entity:

    What is the country of the city where the founder of Zuka Mills was born?
        Zuka Mills --founder--> Kane Bilo --birthplace--> Tavero --country--> Beloria
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, overload

import numpy as np

from forage.datasets.lexicon import (
    EXTRAS,
    FRAMES,
    GOODS,
    KINDS,
    PERSON_FRAMES,
    RELATIONS,
    SHARES,
    SUFFIXES,
    SYLLABLES,
)
from forage.errors import ConfigError
from forage.types import Passage, Question

Split = Literal["train", "eval"]


@dataclass(frozen=True)
class Entity:
    """An entity of the world; `facts` maps a relation's name to the index of its target."""

    name: str
    kind: str
    facts: dict[str, int]


@dataclass(frozen=True)
class Path:
    """A question's way through the world: `entities` is one longer than `relations`; the last is the answer."""

    entities: tuple[str, ...]
    relations: tuple[str, ...]


def split_of(name: str) -> Split:
    """The split a whole name belongs to, by its hash alone.

    Names are so many (half a million of the fewest kind) that a model can't learn from one split which syllables
    follow which in it, and be misled by that in the other.
    """
    return "eval" if hashlib.sha256(name.encode()).digest()[0] % 2 else "train"


def _stem(rng: np.random.Generator, syllables: int, start: str = "") -> str:
    """A capitalised stem; `start` makes it a look-alike of another."""
    stem = start + "".join(SYLLABLES[i] for i in rng.integers(len(SYLLABLES), size=syllables))
    return stem[0].upper() + stem[1:]


class World:
    """All entities of one seed and split, their passages, and any number of questions about them."""

    def __init__(self, seed: int, split: Split, entities: int) -> None:
        self._seed, self._split = seed, split
        rng = self._rng(0)
        names = self._names(rng, entities)
        self._by_kind = {kind: [i for i, (_, owner) in enumerate(names) if owner == kind] for kind in KINDS}
        self.entities = [
            Entity(name, kind, {r.name: self._target(rng, r.target, i) for r in KINDS[kind]})
            for i, (name, kind) in enumerate(names)
        ]
        self.index = {entity.name: i for i, entity in enumerate(self.entities)}

    def _rng(self, *stream: int) -> np.random.Generator:
        key = np.random.SeedSequence([self._seed, int(self._split == "eval"), *stream])
        return np.random.Generator(np.random.Philox(key))

    def _names(self, rng: np.random.Generator, total: int) -> list[tuple[str, str]]:
        """(name, kind) of every entity. People share first and last names, others come in look-alikes."""
        people = max(8, int((2 * total) ** 0.5))  # squared and halved by the split, twice as many as are wanted
        first, last = ([_stem(rng, 2) for _ in range(people)] for _ in range(2))
        taken: dict[str, str] = {}
        for kind, share in SHARES.items():
            wanted, earlier = max(6, round(total * share)) + len(taken), ""
            while len(taken) < wanted:
                alike = bool(earlier) and rng.random() < 0.3
                if kind == "person":
                    name = f"{first[rng.integers(people)]} {last[rng.integers(people)]}"
                elif kind in SUFFIXES:
                    stem = earlier if alike else _stem(rng, 3)
                    name, earlier = f"{stem} {SUFFIXES[kind][rng.integers(4)]}", stem
                else:
                    name = earlier = _stem(rng, 1, earlier[:4]) if alike else _stem(rng, 3)
                if split_of(name) == self._split:
                    taken.setdefault(name, kind)
        return list(taken.items())

    def _target(self, rng: np.random.Generator, kind: str, source: int) -> int:
        while True:
            target = self._by_kind[kind][rng.integers(len(self._by_kind[kind]))]
            if target != source:
                return target

    def passage(self, i: int) -> Passage:
        """The passage of entity `i`: all its facts and one more, in an order of its own."""
        entity, rng = self.entities[i], self._rng(1, i)
        facts = [
            f"{relation.stated[rng.integers(2)]} {self.entities[entity.facts[relation.name]].name}"
            for relation in KINDS[entity.kind]
        ]
        facts.append(EXTRAS[entity.kind][rng.integers(2)].format(GOODS[rng.integers(len(GOODS))]))
        order = [facts[j] for j in rng.permutation(len(facts))]
        text = f"{entity.name} {', '.join(order[:-1])} and {order[-1]}."
        return Passage(id=f"{self._split}-{self._seed}-{i}", title=entity.name, text=text)

    def path(self, rng: np.random.Generator, hops: int) -> Path:
        """A random walk of `hops` relations that never visits an entity twice."""
        while True:
            kind = tuple(KINDS)[rng.integers(len(KINDS))]
            at = self._by_kind[kind][rng.integers(len(self._by_kind[kind]))]
            visited, relations = [at], []
            for _ in range(hops):
                options = KINDS[self.entities[at].kind]
                relation = options[rng.integers(len(options))].name
                at = self.entities[at].facts[relation]
                visited.append(at)
                relations.append(relation)
            if len(set(visited)) == len(visited):
                return Path(tuple(self.entities[v].name for v in visited), tuple(relations))

    def question(self, i: int, hops: int) -> tuple[Question, Path]:
        """Question `i` of this world, always the same, and the path it asks for."""
        rng = self._rng(2, i, hops)
        path = self.path(rng, hops)
        return Question(
            id=f"{self._split}-{self._seed}-{i}-{hops}",
            text=ask(path, rng),
            answers=(path.entities[-1],),
            dataset="fictional",
            hops=hops,
            supporting_titles=path.entities[:-1],
        ), path


def ask(path: Path, rng: np.random.Generator) -> str:
    """The path as a question, in one of several phrasings."""
    phrase = path.entities[0]
    for name in path.relations:
        phrase = RELATIONS[name].asked[rng.integers(3)].format(x=phrase)
    frames = PERSON_FRAMES if RELATIONS[path.relations[-1]].target == "person" else FRAMES
    return frames[rng.integers(len(frames))].format(np=phrase)


class _Questions(Sequence[Question]):
    """Questions made when they are asked for; question i has hops[i % len(hops)] hops."""

    def __init__(self, world: World, count: int, hops: Sequence[int]) -> None:
        self._world, self._count, self._hops = world, count, tuple(hops)

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, i: int) -> Question: ...
    @overload
    def __getitem__(self, i: slice) -> list[Question]: ...
    def __getitem__(self, i: int | slice) -> Question | list[Question]:
        if isinstance(i, slice):
            return [self[j] for j in range(*i.indices(self._count))]
        if not -self._count <= i < self._count:
            raise IndexError(i)
        i %= self._count
        return self._world.question(i, self._hops[i % len(self._hops)])[0]


class Fictional:
    """The fictional world as a data set.

    Args:
        seed: names the world; training and evaluation worlds of one seed have no name in common.
        entities: people, cities, firms, schools and countries in all, one passage each.
        questions: how many questions to offer.
        hops: relations to follow; question i has hops[i % len(hops)].
    """

    def __init__(
        self,
        split: Split,
        *,
        seed: int = 0,
        entities: int = 1000,
        questions: int = 100_000,
        hops: tuple[int, ...] = (1, 2, 3),
    ) -> None:
        if not hops or not set(hops) <= {1, 2, 3}:
            raise ConfigError(f"data.hops = {list(hops)}: choose from 1, 2 and 3")
        if entities < 60:
            raise ConfigError(f"data.entities = {entities}: a world needs at least 60")
        if questions < 1:
            raise ConfigError(f"data.questions = {questions}: at least 1 is needed")
        self._split, self._seed, self._entities = split, seed, entities
        self._questions, self._hops = questions, hops

    @cached_property
    def world(self) -> World:
        """The world itself, for whoever needs its paths (demonstrations do)."""
        return World(self._seed, self._split, self._entities)

    @property
    def corpus(self) -> str:
        return f"fictional {self._split} world {self._seed} of {self._entities}"

    def pair(self, i: int) -> tuple[Question, Path]:
        """Question `i` with its path."""
        return self.world.question(i, self._hops[i % len(self._hops)])

    def questions(self) -> Sequence[Question]:
        return _Questions(self.world, self._questions, self._hops)

    def passages(self) -> Iterator[Passage]:
        return (self.world.passage(i) for i in range(len(self.world.entities)))
