"""What a tick needs to know of each row, kept on the device, so that Python touches only the rows that may be over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch

from forage.engines.sampler import Sample, sample, uniforms

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


class Rows:
    """The turns under way, one a slot; the first R slots are being decoded.

    Args:
        slots: rows at most.
        max_tokens: tokens of a turn at most.
        sample: draws the tokens.
    """

    def __init__(self, slots: int, max_tokens: int, device: torch.device, sample: Sample = sample) -> None:
        self._sample = sample
        self._state = torch.zeros(slots, 5, dtype=torch.int64, device=device)
        self._uniforms = torch.zeros(slots, max_tokens, device=device)
        self._tokens = torch.zeros(slots, max_tokens, dtype=torch.int64, device=device)
        self._logprobs = torch.zeros(slots, max_tokens, device=device)

    def start(self, starts: Sequence[Start]) -> None:
        """Begin these turns, each in its row."""
        device = self._state.device
        rows = torch.tensor([s.row for s in starts], device=device)
        state = [[s.token, s.position, s.step, s.sampling.max_tokens - 1, s.rule] for s in starts]
        self._state[rows] = torch.tensor(state, device=device)
        for s in starts:
            drawn = torch.from_numpy(uniforms(s.sampling.seed, s.sampling.max_tokens))
            self._uniforms[s.row, : len(drawn)] = drawn

    def inputs(self, rows: int) -> tuple[Tensor, Tensor]:
        """The newest token of each row and its position, [R]."""
        return self._state[:rows, TOKEN], self._state[:rows, POSITION]

    @torch.inference_mode()
    def advance(self, logits_RV: Tensor, temperatures: Sequence[float], stops: Stops) -> list[int]:
        """Sample a token in each row at its temperature; the rows whose turn may be over with it."""
        state = self._state[: len(logits_RV)]
        R = len(state)
        step = state[:, STEP, None]
        uniform_R = self._uniforms[:R].gather(1, step).squeeze(1)
        same = len(set(temperatures)) == 1
        temperature = float(temperatures[0]) if same else torch.tensor(temperatures, device=logits_RV.device)
        tokens, logprobs = self._sample(logits_RV, temperature, uniform_R)
        self._tokens[:R].scatter_(1, step, tokens[:, None])
        self._logprobs[:R].scatter_(1, step, logprobs[:, None])
        over = stops.may_end(state[:, RULE], tokens) | (state[:, STEP] >= state[:, LAST_STEP])
        state[:, TOKEN] = tokens
        state[:, POSITION : STEP + 1] += 1
        return over.nonzero().squeeze(1).tolist()

    def tokens(self, row: int, first: int, last: int) -> list[int]:
        """Tokens sampled in steps `first` to `last` of a row's turn, the last one left out."""
        return self._tokens[row, first:last].tolist()

    def logprobs(self, row: int, first: int, last: int) -> list[float]:
        """The log-probabilities they were sampled at."""
        return self._logprobs[row, first:last].tolist()

    def newest(self, rows: int) -> list[int]:
        """The token that each row sampled last."""
        return self._state[:rows, TOKEN].tolist()
