"""Two indexes of the same passages in one folder: by words and by meaning."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from forage.errors import ConfigError
from forage.indexing.build import Builder, Progress
from forage.indexing.store import PassageStore
from forage.options import arguments, signature
from forage.registry import find

LEXICAL, DENSE = "bm25", "dense"
LEXICAL_WEIGHT = 0.3
DEPTHS = {"rrf": 10, "weighted": 30}
"""Ranks are fused best from short lists; scores hardly change any more beyond these."""

Method = Literal["rrf", "weighted"]
Depth = Annotated[int, Meta(ge=1)]
Weight = Annotated[float, Meta(ge=0, le=1)]


class Fusion(msgspec.Struct, frozen=True, kw_only=True):
    """How two rankings become one; stored in the index, so that every query is fused alike."""

    method: Method
    depth: Depth
    """passages of each ranking that are read"""
    lexical_weight: Weight | None
    """of BM25, in weighted fusion; None where there are no weights"""
    fitted: dict[str, Any] = {}
    """what `forage fuse` chose it on: name and SHA-256 of the questions, k, and recall; empty: it was not fitted"""

    @classmethod
    def of(cls, method: Method = "rrf", depth: int | None = None, lexical_weight: float | None = None) -> Fusion:
        """With the method's own defaults.

        Raises:
            ConfigError: a weight is given where ranks are fused.
        """
        if method == "rrf" and lexical_weight is not None:
            raise ConfigError(
                f"lexical_weight = {lexical_weight} does nothing with fusion = 'rrf'; set fusion=weighted"
            )
        if method == "weighted" and lexical_weight is None:
            lexical_weight = LEXICAL_WEIGHT
        return cls(method=method, depth=depth or DEPTHS[method], lexical_weight=lexical_weight)

    def changed(self, method: Method | None, depth: int | None, lexical_weight: float | None) -> Fusion:
        """This one with what is given in its place; another method has its own defaults.

        Raises:
            ConfigError: a weight is given where ranks are fused.
        """
        if method is None and depth is None and lexical_weight is None:
            return self
        if method is not None and method != self.method:
            return Fusion.of(method, depth, lexical_weight)
        weight = self.lexical_weight if lexical_weight is None else lexical_weight
        return Fusion.of(self.method, depth or self.depth, weight)


class HybridBuilder:
    """BM25 and vectors of the same passages, and how their rankings become one. Takes the options of both kinds; one
    that both have is given to both.

    Args:
        fusion: rrf (reciprocal ranks) or weighted (scores). It can be set anew for each opening.
        depth: passages of each ranking that are read; without it 10 for rrf, 30 for weighted.
        lexical_weight: of BM25 in weighted fusion, from 0 to 1 (0.3); the rest is the cosine's.

    Raises:
        ConfigError: a weight is given where ranks are fused, or the parts refuse their options.
    """

    made_of = (LEXICAL, DENSE)

    def __init__(
        self,
        *,
        fusion: Method = "rrf",
        depth: Depth | None = None,
        lexical_weight: Weight | None = None,
        **options: Any,
    ) -> None:
        self._fusion = Fusion.of(fusion, depth, lexical_weight)
        self._parts: dict[str, Builder] = {kind: find("index", kind)(**own) for kind, own in _shared_out(options)}
        self.packages = tuple(dict.fromkeys(name for part in self._parts.values() for name in part.packages))

    @staticmethod
    def check_options(given: dict[str, Any]) -> dict[str, Any]:
        """The options with those of the parts checked by them."""
        return given | {name: value for kind, own in _shared_out(given) for name, value in own.items()}

    def plan(self) -> str:
        """Half a sentence for a person before it starts: the memory it will take at most."""
        return ", then ".join(part.plan() for part in self._parts.values())

    def build(self, store: PassageStore, folder: Path, progress: Progress) -> dict[str, Any]:
        """Build one part after the other; one that is whole is not built again."""
        facts = {kind: _build(kind, part, store, folder, progress) for kind, part in self._parts.items()}
        return {**facts, "fusion": msgspec.to_builtins(self._fusion)}


def _shared_out(options: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Each part's own options of those of both, checked."""
    known = {kind: signature("index", kind) for kind in HybridBuilder.made_of}
    return [
        (kind, arguments("index", kind, {name: options[name] for name in own if name in options}))
        for kind, own in known.items()
    ]


def _build(kind: str, part: Builder, store: PassageStore, folder: Path, progress: Progress) -> dict[str, Any]:
    done = folder / f".hybrid.{kind}.json"
    if done.exists():
        facts: dict[str, Any] = msgspec.json.decode(done.read_bytes())
        return facts
    facts = part.build(store, folder, progress)
    beside = done.with_name(f"{done.name}.part")
    beside.write_bytes(msgspec.json.encode(facts))
    beside.replace(done)
    return facts
