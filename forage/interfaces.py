"""Every seam of Forage, one page. Each kind is found by name, or as `package.module:Class` of your own.

A part's options are the keyword-only parameters of its constructor: they appear in the configuration under the
part's table, typed and checked. What stands before the `*` is handed in by `forage.build`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from forage.errors import RetrieverError
from forage.types import (
    Action,
    Batch,
    Completion,
    Found,
    Harvest,
    Metrics,
    Passage,
    Question,
    Retry,
    Sampling,
    Scores,
    Stop,
    Trajectory,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor


class Dataset(Protocol):
    """Questions, and the passages that answer them."""

    @property
    def corpus(self) -> str:
        """Names the corpus; two data sets of one corpus share an index."""
        ...

    def questions(self) -> Sequence[Question]: ...

    def passages(self) -> Iterable[Passage]: ...


class Tokenizer(Protocol):
    """The part of a Hugging Face tokenizer that Forage uses."""

    def encode(self, text: str, *, add_special_tokens: bool = ...) -> list[int]: ...

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = ...) -> str: ...


class Renderer(Protocol):
    """The protocol between policy and environment, in tokens."""

    stop: Stop

    def prompt(self, question: str) -> list[int]: ...

    def parse(self, completion: Completion) -> Action: ...

    def observation(self, seen: Found | Retry, searches_left: int, max_tokens: int) -> list[int]:
        """What the policy is shown after a turn; empty where not even one without a passage fits `max_tokens`."""
        ...

    def answer(self, text: str) -> tuple[list[int], list[int]]:
        """How the policy would answer with `text`: the tokens that open an answer, and those of the text.

        Asked for only where searches are measured (`forage.gain`).
        """
        ...


class Encoder(Protocol):
    """Texts to vectors, compared by their inner products.

    One may have `settings`, a mapping of what its vectors depend on (pooling, a digest of the weights): an index keeps
    them, and refuses an encoder with others; those that are options of its constructor are given to it when the index
    is opened. With `options`, it says what else it is made with again, in place of the options that it was given.
    """

    dimensions: int

    def encode_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors [N, dimensions]; that of a text does not depend on the others, but for rounding."""
        ...

    def encode_passages(self, texts: Sequence[str]) -> NDArray[np.float32]: ...


class Index(Protocol):
    """A synchronous retriever, such as an index in memory; `forage.retrievers.gather.Gather` makes it a `Retriever`.

    One that gains from many queries in a call may say how many with `batch_size`; `forage serve` then asks that many.
    """

    def lookup(self, queries: Sequence[str], k: int) -> list[list[Passage]]: ...


class Retriever(Protocol):
    """Queries to passages. One outcome a query: a failure is a value, so that it never fails its neighbours."""

    async def search(self, queries: Sequence[str], k: int) -> list[list[Passage] | RetrieverError]: ...


class Reranker(Protocol):
    """Judges passages by reading them together with the query: dearer than what finds them, and closer.

    One that gains from many queries in a call may say how many with `batch_size`, as an index may.
    """

    def score(self, pairs: Sequence[tuple[str, Passage]]) -> Sequence[float]:
        """A score for each (query, passage), higher is better; that of a pair does not depend on the others.

        Raises:
            RetrieverError: a pair can't be scored.
        """
        ...


class Session(Protocol):
    """One episode's hold on an engine: its KV stays until the session is left."""

    async def generate(
        self, tokens: Sequence[int], sampling: Sampling, on_token: Callable[[int], None] | None = None
    ) -> Completion:
        """Decode one turn after `tokens`, the whole context so far; only what is new is prefilled."""
        ...


class Engine(Protocol):
    """Decodes many episodes at once. Sessions of one `group` share the prefill of what they have in common."""

    version: int

    def session(self, group: str) -> AbstractAsyncContextManager[Session]: ...

    def load_weights(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Take new weights by Hugging Face parameter name; all KV of older versions is dropped."""
        ...

    def take_stats(self) -> dict[str, float]:
        """Counters and seconds since the last call (see `docs/metrics.md`, engine)."""
        ...


class WeightSync(Protocol):
    """Brings the learner's weights to the engine; built for the pair."""

    async def push(self, version: int) -> None: ...


class Reward(Protocol):
    """Scores the samples of one question together. A plain `def f(trajectory) -> float` is adapted."""

    async def __call__(self, group: Sequence[Trajectory]) -> list[Scores]: ...


class Source(Protocol):
    """Gives each step its groups. Steps come in order; the one just given may be asked for again."""

    async def take(self, step: int) -> Harvest: ...

    def save(self, folder: Path, step: int) -> None:
        """Write what `step + 1` begins with, whether that was given already or not."""
        ...

    def load(self, folder: Path) -> None: ...


Reduce = Callable[["Tensor"], "Tensor"]
"""Sums a tensor over all processes; the identity in one process."""


class AdvantageEstimator(Protocol):
    """Rewards to advantages. `needs` names the optional batch columns it reads, checked before the run starts.

    `group_relative` says that a group whose rewards are all equal gets advantage 0 throughout, so that it may be left
    out. An estimator that compares samples of a question may have `min_samples`, how many it takes (1 without it):
    fewer `rollout.samples` are refused. One with `chooses = True` has the rows without an advantage left out of the
    batch and of its counts, as in fine-tuning on what is right. One with `judges_shown = True` has a critic judge and
    learn observed tokens, too. Rewards are read with `forage.batch.token_rewards` or `row_rewards`, which know of a KL
    in the reward.
    """

    needs: frozenset[str]
    group_relative: bool

    def __call__(self, batch: Batch, reduce: Reduce) -> Batch: ...


class PolicyLoss(Protocol):
    """The loss of each token, unreduced [B,T]; aggregation, KL and entropy are the learner's terms.

    One with `reads_equal_groups = True` teaches something where all advantages are 0, too: then groups of equal rewards
    are not left out. One with `needs_several_steps = True` is refused where a batch is one optimizer step.
    """

    needs: frozenset[str]

    def __call__(self, logprobs_BT: Tensor, batch: Batch) -> tuple[Tensor, Metrics]: ...


class Learner(Protocol):
    """Holds the weights that are trained. Coroutines, so that a long update never blocks the loop."""

    async def score(self, batch: Batch) -> Batch:
        """Fill in the columns that advantages need (`values_BT`, `ref_logprobs_BT`)."""
        ...

    async def update(self, batch: Batch) -> Metrics:
        """One pass over the batch, an optimizer step for each minibatch of questions."""
        ...

    def weights(self) -> Iterable[tuple[str, Tensor]]: ...

    def save(self, folder: Path) -> None: ...

    def load(self, folder: Path) -> None: ...


class Tracker(Protocol):
    """Receives a run's metrics; `close` is called once, also after a failure."""

    def log(self, step: int, metrics: Mapping[str, Any]) -> None: ...

    def close(self) -> None: ...
