"""What the fictional world is made of: kinds of entities, their relations, and how they are stated and asked for."""

from __future__ import annotations

from dataclasses import dataclass

SYLLABLES = [onset + vowel for onset in "bdfghjklmnprstvz" for vowel in "aeiou"]


@dataclass(frozen=True)
class Relation:
    """A functional relation: how passages state it and how questions ask for it ({x}: what it is asked of)."""

    name: str
    target: str
    stated: tuple[str, ...]
    asked: tuple[str, ...]


KINDS: dict[str, tuple[Relation, ...]] = {
    "person": (
        Relation(
            "birthplace",
            "city",
            ("was born in", "comes from"),
            ("the birthplace of {x}", "the city where {x} was born", "the city that {x} comes from"),
        ),
        Relation(
            "employer",
            "firm",
            ("works for", "is employed by"),
            ("the employer of {x}", "the firm that employs {x}", "the firm where {x} works"),
        ),
        Relation(
            "school",
            "school",
            ("studied at", "has a degree from"),
            ("the school of {x}", "the school where {x} studied", "the school that taught {x}"),
        ),
        Relation(
            "spouse",
            "person",
            ("is married to", "shares a home with"),
            ("the spouse of {x}", "the person married to {x}", "the person who shares a home with {x}"),
        ),
    ),
    "city": (
        Relation(
            "country",
            "country",
            ("lies in", "is a city of"),
            ("the country of {x}", "the country in which {x} lies", "the country that {x} is part of"),
        ),
        Relation(
            "mayor",
            "person",
            ("has as its mayor", "is run by"),
            ("the mayor of {x}", "the person who runs {x}", "the person in charge of {x}"),
        ),
    ),
    "firm": (
        Relation(
            "seat",
            "city",
            ("is based in", "has its offices in"),
            ("the seat of {x}", "the city where {x} is based", "the city with the offices of {x}"),
        ),
        Relation(
            "founder",
            "person",
            ("was founded by", "was started by"),
            ("the founder of {x}", "the person who founded {x}", "the person who started {x}"),
        ),
    ),
    "school": (
        Relation(
            "site",
            "city",
            ("stands in", "is found in"),
            ("the site of {x}", "the city where {x} stands", "the city that is home to {x}"),
        ),
        Relation(
            "head",
            "person",
            ("is led by", "has as its head"),
            ("the head of {x}", "the person who leads {x}", "the person at the head of {x}"),
        ),
    ),
    "country": (
        Relation(
            "capital",
            "city",
            ("is governed from", "has its capital in"),
            ("the capital of {x}", "the capital city of {x}", "the city that {x} is governed from"),
        ),
        Relation(
            "ruler",
            "person",
            ("is ruled by", "has as its ruler"),
            ("the ruler of {x}", "the person who rules {x}", "the person on the throne of {x}"),
        ),
    ),
}
RELATIONS = {relation.name: relation for relations in KINDS.values() for relation in relations}
SHARES = {"person": 0.5, "city": 0.2, "firm": 0.14, "school": 0.1, "country": 0.06}
SUFFIXES = {"firm": ("Mills", "Group", "Works", "Lines"), "school": ("College", "Academy", "Institute", "Hall")}
EXTRAS: dict[str, tuple[str, ...]] = {
    "person": ("collects {}", "writes about {}"),
    "city": ("is known for {}", "has a museum of {}"),
    "firm": ("sells {}", "is a maker of {}"),
    "school": ("teaches the art of {}", "owns a garden of {}"),
    "country": ("exports {}", "taxes {}"),
}
GOODS = ("salt", "tin", "wool", "glass", "honey", "paper", "silk", "rope", "tea", "clay", "roses", "bells")
FRAMES = ("What is {np}?", "Name {np}.", "Can you tell me {np}?", "I would like to know {np}.")
PERSON_FRAMES = ("Who is {np}?", *FRAMES[1:])
