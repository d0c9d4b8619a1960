"""Several rewards, weighted and added."""

from __future__ import annotations

import inspect
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from forage.errors import ConfigError
from forage.interfaces import Reward
from forage.options import arguments
from forage.registry import find, nearest
from forage.rewards.adapt import as_reward
from forage.types import Scores, Trajectory

Options = Mapping[str, Mapping[str, Any]]
"""A member's name -> its options."""


class WeightedSum:
    """The weighted sum of other rewards, and of what they say was earned in which turn.

    Each member is charted unweighted under its name (`my_parts:Frugal` as `Frugal`), and its parts of other names as
    `MEMBER.PART`. A member of weight 0 is charted and teaches nothing.

    Args:
        weights: weight of each member, by the name that it has as a reward.kind. A penalty is negative by itself: it
            takes a positive weight.
        options: options of members, by the same names: `{search_cost = {price = 0.02}}`.

    Raises:
        ConfigError: no weight is other than 0, there is no such member, or a member's options are not usable.
    """

    def __init__(self, *, weights: Mapping[str, float], options: Options = MappingProxyType({})) -> None:
        chosen = _members_options(weights, options)
        self._weights = dict(weights)
        self._labels = _labels(weights)
        self._members = {kind: _member(kind, chosen[kind]) for kind in weights}

    @staticmethod
    def check_options(given: Mapping[str, Any]) -> dict[str, Any]:
        """The options with every member's own checked and filled in (what has no value in TOML is left out)."""
        chosen = _members_options(given["weights"], given["options"])
        filled = {kind: {name: v for name, v in own.items() if v is not None} for kind, own in chosen.items()}
        return {**given, "options": {kind: own for kind, own in filled.items() if own}}

    async def __call__(self, group: Sequence[Trajectory]) -> list[Scores]:
        scored = {kind: await member(group) for kind, member in self._members.items()}
        return [self._added({kind: scores[row] for kind, scores in scored.items()}) for row in range(len(group))]

    def _added(self, scores: Mapping[str, Scores]) -> Scores:
        """The members' scores of one trajectory as one."""
        total = 0.0
        turns: defaultdict[int, float] = defaultdict(float)
        parts: dict[str, float] = {}
        for kind, score in scores.items():
            weight, label = self._weights[kind], self._labels[kind]
            total += weight * score.total
            for number, share in score.turns.items():
                turns[number] += weight * share
            parts[label] = score.total
            parts |= {name if name == label else f"{label}.{name}": value for name, value in score.parts.items()}
        return Scores(total, parts, dict(turns))


def _member(kind: str, options: Mapping[str, Any]) -> Reward:
    found: Any = find("reward", kind)
    reward: Any = found(**options) if inspect.isclass(found) else found
    return as_reward(reward, name=kind)


def _labels(kinds: Iterable[str]) -> dict[str, str]:
    """Each kind's name in charts: what stands behind the module, where that is not the same for two of them."""
    short = {kind: kind.rpartition(":")[2] for kind in kinds}
    often = Counter(short.values())
    return {kind: name if often[name] == 1 else kind for kind, name in short.items()}


def _members_options(weights: Mapping[str, float], options: Options) -> dict[str, dict[str, Any]]:
    """Every member's options, defaults filled in."""
    if not any(weights.values()) or not all(map(math.isfinite, weights.values())):
        raise ConfigError(f"reward.weights = {dict(weights)!r}: some weight must be other than 0, and each a number")
    if strangers := [kind for kind in options if kind not in weights]:
        raise ConfigError(f"reward.options.{strangers[0]}: no such member; {nearest(strangers[0], list(weights))}")
    chosen = {}
    for kind in weights:
        try:
            chosen[kind] = arguments("reward", kind, options.get(kind, {}))
        except ConfigError as error:
            raise ConfigError(f"reward.weights.{kind}: {error}") from None
    return chosen
