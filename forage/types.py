"""The nouns of Forage: what flows from a question to an update. Imports no torch.

Axes, used as suffixes wherever a tensor or array is named:

    B  trajectories of a batch          G  groups (samples of one question)
    T  tokens of a trajectory, padded   V  vocabulary
    N  tokens of several rows, packed one after another
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

Metrics = dict[str, tuple[float, float]]
"""Name -> (sum, count), so that metrics add over micro-batches and processes; the value is sum / count."""


@dataclass(frozen=True, slots=True)
class Question:
    """One question with every accepted answer."""

    id: str
    text: str
    answers: tuple[str, ...]
    dataset: str = ""
    hops: int | None = None
    supporting_titles: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Passage:
    """One retrieved (or indexed) passage; `score` is the retriever's, higher is better."""

    id: str
    title: str
    text: str
    score: float = 0.0


@dataclass(frozen=True, slots=True)
class Search:
    """The policy asks for passages."""

    queries: tuple[str, ...]
    well_formed: bool = field(default=True, compare=False)  # the turn is its reasoning, then this, and nothing else


@dataclass(frozen=True, slots=True)
class Answer:
    """The policy answers, which ends the episode."""

    text: str
    well_formed: bool = field(default=True, compare=False)  # the turn is its reasoning, then this, and nothing else


@dataclass(frozen=True, slots=True)
class Invalid:
    """A turn without a usable action; `reason` is one word for metrics (no_action, empty_query, ...)."""

    reason: str


Action = Search | Answer | Invalid


@dataclass(frozen=True, slots=True)
class Found:
    """What a search returned: one list of passages a query, best first."""

    results: Sequence[Sequence[Passage]]


@dataclass(frozen=True, slots=True)
class Retry:
    """The turn held no usable action; the policy is told so and may try again."""

    reason: str


@dataclass(frozen=True, slots=True)
class Stop:
    """What ends a turn: any of these strings in the turn's text, or any of these token ids (EOS)."""

    strings: tuple[str, ...] = ()
    token_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Sampling:
    """How one turn is decoded.

    `max_tokens` bounds this turn. `temperature` 0 is greedy. `seed` fixes the turn's random numbers, whatever
    else is decoded beside it.
    """

    max_tokens: int
    temperature: float = 1.0
    seed: int = 0
    stop: Stop = Stop()


class Finish(StrEnum):
    """Why one turn's decoding ended."""

    STOP = "stop"
    EOS = "eos"
    LENGTH = "length"


@dataclass(frozen=True, slots=True)
class Completion:
    """One decoded turn. All lists have the length of `tokens`, which includes the token that completed a stop
    string (whole, even where it holds text behind the string) and a sampled EOS."""

    tokens: list[int]
    logprobs: list[float]  # log-probability each token was sampled at (temperature applied)
    versions: list[int]  # version of the weights that sampled each token
    finish: Finish


class StopReason(StrEnum):
    """How an episode ended. Every trajectory has one; their shares are metrics."""

    ANSWERED = "answered"
    NO_ANSWER = "no_answer"  # the last turn was spent without an answer
    CONTEXT_FULL = "context_full"  # the next turn or observation would not fit into the episode's tokens
    RETRIEVER_ERROR = "retriever_error"  # a search failed after its retries: left out of every batch


@dataclass(slots=True)
class Turn:
    """What the policy did in one turn, and what it was shown for it."""

    action: Action
    results: Sequence[Sequence[Passage]] = ()  # passages found, one list a query
    thought_tokens: int | None = None  # tokens beside the action's block; None without an action, or not told
    gain: float | None = None  # what its search was worth, in nats a token of the gold answer; None: not measured


@dataclass(slots=True)
class Trajectory:
    """One episode, written once, in the tokens that were sampled.

        tokens    prompt ... | <think> .. </search> | <information> .. </information> | <answer> .. </answer>
        acted     0   0    0 | 1   1   1   1        | 0   0   0   0                   | 1   1   1   1
        turn      0   0    0 | 0   0   0   0        | 1   1   1   1                   | 1   1   1   1

    A token is tagged acted (1: sampled by the policy) or observed (0) when it is appended. `logprobs` is 0.0 and
    `versions` is -1 where observed.
    """

    question: Question
    group: str
    sample: int
    tokens: list[int] = field(default_factory=list)
    acted: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)
    turn: list[int] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    stop: StopReason | None = None
    failure: str = ""  # the retriever's message when stop is RETRIEVER_ERROR
    wasted: int = 0  # decoded tokens that no action came of (turns cut by a limit or without an action)
    tree: int | None = None  # number of its tree among those of the group; None: sampled without trees
    taken_turns: int = 0  # turns that were taken over from another episode of its tree; those behind are its own

    def observe(self, tokens: Sequence[int]) -> None:
        """Append tokens that the policy is shown."""
        self._append(tokens, [0] * len(tokens), [0.0] * len(tokens), [-1] * len(tokens))

    def act(self, completion: Completion) -> None:
        """Append tokens that the policy sampled, with the log-probabilities it sampled them at."""
        self._append(completion.tokens, [1] * len(completion.tokens), completion.logprobs, completion.versions)

    def _append(
        self, tokens: Sequence[int], acted: Sequence[int], logprobs: Sequence[float], versions: Sequence[int]
    ) -> None:
        if not len(tokens) == len(logprobs) == len(versions):
            raise ValueError(f"{len(tokens)} tokens with {len(logprobs)} logprobs and {len(versions)} versions")
        self.tokens += tokens
        self.acted += acted
        self.logprobs += logprobs
        self.versions += versions
        self.turn += [len(self.turns)] * len(tokens)

    def branch(self, turn: int, sample: int) -> Trajectory:
        """An episode of the same tree that begins as this one, up to where turn `turn` was sampled, to be played on."""
        tags = enumerate(zip(self.turn, self.acted, strict=True))
        end = next((t for t, (number, acted) in tags if acted and number == turn), len(self.tokens))
        return replace(
            self,
            sample=sample,
            tokens=self.tokens[:end],
            acted=self.acted[:end],
            logprobs=self.logprobs[:end],
            versions=self.versions[:end],
            turn=self.turn[:end],
            turns=[replace(taken) for taken in self.turns[:turn]],
            stop=None,
            failure="",
            wasted=0,
            taken_turns=turn,
        )

    @property
    def answer(self) -> str | None:
        """The text of the answer action; None where the episode ended without one."""
        last = self.turns[-1].action if self.turns else None
        return last.text if isinstance(last, Answer) else None

    @property
    def searches(self) -> int:
        """Searches that were really run, those of turns taken over included."""
        return sum(bool(turn.results) for turn in self.turns)

    @property
    def own_searches(self) -> int:
        """Searches that were run for this episode."""
        return sum(bool(turn.results) for turn in self.turns[self.taken_turns :])

    @property
    def taken_tokens(self) -> int:
        """Acted tokens that were taken over from another episode, and not decoded for this one."""
        return sum(acted for acted, turn in zip(self.acted, self.turn, strict=True) if turn < self.taken_turns)


@dataclass(frozen=True, slots=True)
class Scores:
    """A trajectory's reward: `total` is what is learned from, `parts` are charted (unweighted, by name).

    `turns` says which share of the total was earned in which turn (by its number); it stands on the last token of that
    turn. The rest of the total stands on the last acted token of the episode.
    """

    total: float
    parts: Mapping[str, float] = field(default_factory=dict)
    turns: Mapping[int, float] = field(default_factory=dict)


@dataclass(slots=True)
class Group:
    """All samples of one question, rewarded."""

    trajectories: list[Trajectory]
    scores: list[Scores]
    baseline: float | None = None  # reward of a greedy episode of the same question, where one was played

    @property
    def has_signal(self) -> bool:
        """Whether the rewards differ, so that a group-relative advantage is not zero throughout."""
        return len({score.total for score in self.scores}) > 1


@dataclass(slots=True)
class Harvest:
    """What the rollouts of one step gave. A question's episodes stand in `groups`, `replaced` or `left_out`."""

    groups: list[Group]  # to learn from
    replaced: list[Group] = field(default_factory=list)  # without signal; other questions were played in their place
    left_out: list[Group] = field(default_factory=list)  # rewarded, but not learned from: parts of groups, or all
    failed: list[Trajectory] = field(default_factory=list)  # ended by a failed search, not rewarded
    gone: int = 0  # questions of which nothing is left to learn from
    missing: int = 0  # groups that the step was to have and has not
    refills: int = 0  # further rounds of questions
    searches: int = 0  # failed ones included, and those of greedy episodes
    seconds: float = 0.0
    tail_seconds: float = 0.0  # of them, after nine in ten episodes had ended: waiting for the slowest

    @property
    def trajectories(self) -> list[Trajectory]:
        """All that can be learned from, group by group."""
        return [trajectory for group in self.groups for trajectory in group.trajectories]

    @property
    def rewarded(self) -> list[Group]:
        """All that was rewarded; of a group from which episodes were left out, both parts."""
        return self.groups + self.replaced + self.left_out

    @property
    def played(self) -> int:
        """Questions asked."""
        return len(self.groups) + len(self.replaced) + self.gone

    def replace_equal(self) -> None:
        """Move groups without signal out of those to learn from."""
        self.replaced += [group for group in self.groups if not group.has_signal]
        self.groups = [group for group in self.groups if group.has_signal]

    def add(self, further: Harvest) -> None:
        """Take in a further round of the same step."""
        for name in ("groups", "replaced", "left_out", "failed"):
            getattr(self, name).extend(getattr(further, name))
        self.refills += 1
        for name in ("gone", "searches", "seconds", "tail_seconds"):
            setattr(self, name, getattr(self, name) + getattr(further, name))


@dataclass(slots=True)
class Batch:
    """Trajectories as tensors, padded on the right to the longest.

    Column t speaks of token t: `logprobs[b, t]` is log p(tokens[b, t] | tokens[b, :t]). Only `acted_BT` tokens are
    ever learned from; all other columns are 0 elsewhere.
    """

    tokens_BT: Tensor  # int64, 0 behind the end
    acted_BT: Tensor  # bool
    turn_BT: Tensor  # int64, the turn a token belongs to
    version_BT: Tensor  # int64, -1 where observed
    sampled_logprobs_BT: Tensor  # float32, as sampled
    lengths_B: Tensor  # int64, tokens of each row
    rewards_B: Tensor  # float32, the total of each row
    rewards_BT: Tensor  # float32, where the rewards stand: their sum over a row is rewards_B
    group_B: Tensor  # int64, 0..G-1 with gaps where groups were left out; rows of a group are adjacent
    old_logprobs_BT: Tensor | None = None  # denominator of the ratio
    ref_logprobs_BT: Tensor | None = None
    penalty_BT: Tensor | None = None  # subtracted from the rewards, token by token (a KL in the reward)
    values_BT: Tensor | None = None  # the critic's: of the state that a token was chosen in
    advantages_BT: Tensor | None = None
    returns_BT: Tensor | None = None  # what the critic learns
    baselines_B: Tensor | None = None  # float32, reward of the greedy episode of the row's question
    tree_B: Tensor | None = None  # int64, a number for each tree of the batch; rows of a tree need not be adjacent
    gains_BT: Tensor | None = None  # float32, gain of the search that a token is of; NaN where it is of none measured
    judged_BT: Tensor | None = None  # bool, what a critic judges and learns where that is more than acted_BT
    sampled_BT: Tensor | None = None  # bool, where observed tokens are learned too: which of acted_BT were sampled
    acted_tokens: int = 0  # acted tokens of the whole step, rows left out for equal rewards included
    tokens_G: Tensor | None = None  # int64, acted tokens of each group of the step, those left out included
    rows_G: Tensor | None = None  # int64, trajectories of each group of the step, those left out included
    extra: dict[str, Any] = field(default_factory=dict)  # columns of a user's own estimator or loss
