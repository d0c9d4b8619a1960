"""What a tick needs to know of each row, kept on the device, so that Python touches only the rows that may be over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch

from forage.engines.sampler import sample, uniforms

if TYPE_CHECKING:
    from torch import Tensor

    from forage.engines.stopping import Stops
    from forage.types import Sampling

TOKEN, POSITION, STEP, LAST_STEP, RULE = range(5)


class Start(NamedTuple):
    """A turn that begins (or goes on) in a row: its last token, that token's position, tokens sampled so far."""

    row: int
    token: int
    position: int
    step: int
    rule: int
    sampling: Sampling


class State(NamedTuple):
    """Of every slot: its numbers [S, 5] (`TOKEN` and the following), and what its turn is sampled with and has sampled
    [S, tokens of a turn].
    """

    numbers: Tensor
    uniforms: Tensor
    tokens: Tensor
    logprobs: Tensor


Step = Callable[[State, "Tensor", "float | Tensor", "Tensor"], "Tensor"]
"""See `step`."""


def step(state: State, logits_RV: Tensor, temperature: float | Tensor, watched: Tensor) -> Tensor:
    """Sample a token in each of the first R slots; which turns may be over with it, bool [R].

    `watched` [rules, V] are the tokens that may end a turn (`Stops.watched`).
    """
    numbers = state.numbers[: len(logits_RV)]
    R, last = len(numbers), numbers[:, STEP, None]
    uniform_R = state.uniforms[:R].gather(1, last).squeeze(1)
    tokens, logprobs = sample(logits_RV, temperature, uniform_R)
    state.tokens[:R].scatter_(1, last, tokens[:, None])
    state.logprobs[:R].scatter_(1, last, logprobs[:, None])
    over = watched[numbers[:, RULE], tokens] | (numbers[:, STEP] >= numbers[:, LAST_STEP])
    numbers[:, TOKEN] = tokens
    numbers[:, POSITION : STEP + 1] += 1
    return over


class Rows:
    """The turns under way, one a slot; the first R slots are being decoded.

    Args:
        slots: rows at most.
        max_tokens: tokens of a turn at most.
        step: draws the tokens.
    """

    def __init__(self, slots: int, max_tokens: int, device: torch.device, step: Step = step) -> None:
        self._step = step
        self._state = State(
            torch.zeros(slots, 5, dtype=torch.int64, device=device),
            torch.zeros(slots, max_tokens, device=device),
            torch.zeros(slots, max_tokens, dtype=torch.int64, device=device),
            torch.zeros(slots, max_tokens, device=device),
        )

    def start(self, starts: Sequence[Start]) -> None:
        """Begin these turns, each in its row."""
        device = self._state.numbers.device
        rows = torch.tensor([s.row for s in starts], device=device)
        numbers = [[s.token, s.position, s.step, s.sampling.max_tokens - 1, s.rule] for s in starts]
        self._state.numbers[rows] = torch.tensor(numbers, device=device)
        for s in starts:
            drawn = torch.from_numpy(uniforms(s.sampling.seed, s.sampling.max_tokens))
            self._state.uniforms[s.row, : len(drawn)] = drawn

    def inputs(self, rows: int) -> tuple[Tensor, Tensor]:
        """The newest token of each row and its position, [R]."""
        return self._state.numbers[:rows, TOKEN], self._state.numbers[:rows, POSITION]

    @torch.inference_mode()
    def advance(self, logits_RV: Tensor, temperatures: Sequence[float], stops: Stops) -> list[int]:
        """Sample a token in each row at its temperature; the rows whose turn may be over with it."""
        same = len(set(temperatures)) == 1
        temperature = float(temperatures[0]) if same else torch.tensor(temperatures, device=logits_RV.device)
        return self._step(self._state, logits_RV, temperature, stops.watched).nonzero().squeeze(1).tolist()

    def tokens(self, row: int, first: int, last: int) -> list[int]:
        """Tokens sampled in steps `first` to `last` of a row's turn, the last one left out."""
        return self._state.tokens[row, first:last].tolist()

    def logprobs(self, row: int, first: int, last: int) -> list[float]:
        """The log-probabilities they were sampled at."""
        return self._state.logprobs[row, first:last].tolist()

    def newest(self, rows: int) -> list[int]:
        """The token that each row sampled last."""
        return self._state.numbers[:rows, TOKEN].tolist()
