"""In-process decoding of many episodes at once, with KV that stays over an episode's search turns."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal

import torch

from forage.engines.decoder import Decoder
from forage.engines.kernels import Choice
from forage.engines.rows import Rows, Start
from forage.engines.schedule import Seat, Slots, Turn, plan, portions
from forage.engines.stopping import Stops
from forage.errors import CheckpointError, ConfigError, TrainingError
from forage.types import Completion, Finish, Sampling

if TYPE_CHECKING:
    from torch import Tensor

    from forage.interfaces import Tokenizer

COUNTERS = ("prefill_tokens", "decode_tokens", "reused_tokens", "prefill_seconds", "decode_seconds", "ticks")
BREATHS = 8
"""Turns of the event loop between ticks while some session is outside `generate`, so that its search moves on."""


class LocalSession:
    """One episode on a `LocalEngine`. Made by `LocalEngine.session`."""

    def __init__(self, engine: LocalEngine, seat: Seat) -> None:
        self._engine = engine
        self._seat = seat

    async def generate(
        self, tokens: Sequence[int], sampling: Sampling, on_token: Callable[[int], None] | None = None
    ) -> Completion:
        """Decode one turn after `tokens`, the whole context so far; only what is new is prefilled.

        `on_token` is called with each token as it is sampled; it must not raise.

        Raises:
            ConfigError: context and turn don't fit into a slot, or a token is not in the model's vocabulary.
            TrainingError: the weights are such that a logit is not finite.
        """
        return await self._engine.generate(self._seat, list(tokens), sampling, on_token)


class LocalEngine:
    """Continuous batching in this process, on the model's device, without threads.

    A tick prefills all tokens that are new (prompts that a group has in common only once) and then decodes one token
    in every running turn; no turn waits for another. KV takes `kv_bytes(config, slots, max_tokens, dtype)`, allocated
    once; sessions beyond `slots` queue in order of arrival.

    Args:
        slots: episodes decoded at once.
        max_tokens: longest context of an episode, prompt and all turns included.
        dtype: of weights and activations ("bfloat16" is fast where the processor has bfloat16 products).
        prefill_tokens: most tokens prefilled in one forward; bounds the memory of activations.
        lockstep: tick only when every admitted session waits for tokens, so that the schedule, and with it every bit,
            is a function of admission order and tokens alone. Otherwise slow searches overlap with decoding.
        kernels: what is done between matrix products: in torch, or compiled by numba (extra `fast`), which needs a CPU
            and reads no padding. "auto" is numba where it is installed and the device is a CPU. The two differ in the
            last bits.

    Raises:
        ConfigError: the model is not one that is computed exactly here; the message names what is. Or numba is asked
            for on another device.
        MissingExtra: numba is asked for and not installed.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Tokenizer,
        max_tokens: int = 4096,
        lockstep: bool = False,
        *,
        slots: int = 64,
        dtype: Literal["float32", "bfloat16"] = "float32",
        prefill_tokens: int = 2048,
        kernels: Choice = "auto",
    ) -> None:
        for name, value in (("slots", slots), ("max_tokens", max_tokens), ("prefill_tokens", prefill_tokens)):
            if value < 1:
                raise ConfigError(f"engine.{name} must be at least 1, not {value}")
        self.version = 0
        self._slot_tokens = max_tokens
        self._prefill_tokens = prefill_tokens
        self._lockstep = lockstep
        self._decoder = Decoder(model, slots, max_tokens, getattr(torch, dtype), kernels)
        self._vocab = self._decoder.shape.vocab
        self._slots = Slots(slots, self._decoder.kv)
        self._rows = Rows(slots, max_tokens, self._decoder.device, self._decoder.kernels.step)
        self._stops = Stops(tokenizer, self._vocab, self._decoder.device)
        self._seats: list[Seat] = []  # admitted, in order of admission
        self._queue: deque[tuple[Seat, asyncio.Future[None]]] = deque()
        self._driver: asyncio.Task[None] | None = None
        self._ticks = 0
        self._incomplete = ""
        self._stats = dict.fromkeys(COUNTERS, 0.0)

    @property
    def kv_dtype(self) -> torch.dtype:
        """What keys and values are kept in."""
        return self._decoder.kv.dtype

    @asynccontextmanager
    async def session(self, group: str) -> AsyncIterator[LocalSession]:
        """A session as soon as a slot is free; leaving it frees the slot, whatever is under way."""
        seat = Seat(group)
        try:
            await self._admit(seat)
            yield LocalSession(self, seat)
        finally:
            self._leave(seat)

    def load_weights(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Take new weights by Hugging Face parameter name, in place; all KV of older versions is dropped.

        Turns under way go on with the new weights, their context prefilled anew.

        Raises:
            CheckpointError: a name is missing or unknown, or a shape differs. Nothing is decoded then until a
                complete set has been loaded.
        """
        for turn in self._turns():
            self._park(turn)
        for seat in self._seats:
            seat.cached = []
        try:
            self._decoder.weights.load(weights)
        except CheckpointError as error:
            self._incomplete = f"the engine's weights are incomplete since a failed load ({error}); load them again"
            raise
        self._incomplete = ""
        self.version = version

    def take_stats(self) -> dict[str, float]:
        """Since the last call: tokens prefilled, decoded, and reused (context whose KV was there), seconds, ticks."""
        taken, self._stats = self._stats, dict.fromkeys(COUNTERS, 0.0)
        return taken

    async def generate(
        self, seat: Seat, tokens: list[int], sampling: Sampling, on_token: Callable[[int], None] | None
    ) -> Completion:
        """`LocalSession.generate` of the session that holds `seat`."""
        self._check(seat, tokens, sampling)
        done: asyncio.Future[Completion] = asyncio.get_running_loop().create_future()
        turn = seat.turn = Turn(seat, tokens, sampling, self._stops.rule(sampling.stop), on_token, done)
        self._wake()
        try:
            return await done
        finally:
            if seat.turn is turn:  # the caller was cancelled
                seat.turn = None
                self._wake()

    def _check(self, seat: Seat, tokens: list[int], sampling: Sampling) -> None:
        if self._incomplete:
            raise CheckpointError(self._incomplete)
        if seat not in self._seats or seat.turn is not None:
            raise RuntimeError("a session generates one turn at a time, and none after it was left")
        if not tokens or sampling.max_tokens < 1:
            raise ValueError(f"nothing to decode: {len(tokens)} context tokens, max_tokens={sampling.max_tokens}")
        if len(tokens) + sampling.max_tokens > self._slot_tokens:
            raise ConfigError(
                f"a context of {len(tokens)} tokens and a turn of {sampling.max_tokens} don't fit into "
                f"engine.max_tokens = {self._slot_tokens}"
            )
        if not 0 <= min(tokens) <= max(tokens) < self._vocab:
            raise ConfigError(
                f"token {max(tokens)} is not among the model's {self._vocab}; the tokenizer belongs to another model"
            )

    async def _admit(self, seat: Seat) -> None:
        if len(self._seats) < len(self._slots.holders) and not self._queue:
            self._seats.append(seat)
            return
        admitted = asyncio.get_running_loop().create_future()
        self._queue.append((seat, admitted))
        await admitted

    def _leave(self, seat: Seat) -> None:
        if seat not in self._seats:  # cancelled in the queue
            self._queue = deque(entry for entry in self._queue if entry[0] is not seat)
            return
        self._seats.remove(seat)
        self._slots.leave(seat)
        while self._queue and len(self._seats) < len(self._slots.holders):
            following, admitted = self._queue.popleft()
            if not admitted.done():
                self._seats.append(following)
                admitted.set_result(None)
        self._wake()

    def _turns(self) -> list[Turn]:
        return [seat.turn for seat in self._seats if seat.turn is not None]

    def _ready(self) -> bool:
        waiting = sum(seat.turn is not None for seat in self._seats)
        return waiting == len(self._seats) > 0 if self._lockstep else waiting > 0

    def _wake(self) -> None:
        """Start the driver where there is something to do and none runs."""
        if self._driver is None and self._ready():
            self._driver = asyncio.get_running_loop().create_task(self._drive())
            self._driver.add_done_callback(self._driven)

    async def _drive(self) -> None:
        while True:
            self._tick()
            if not self._ready():
                return
            everyone = all(seat.turn is not None for seat in self._seats)
            for _ in range(1 if everyone else BREATHS):
                await asyncio.sleep(0)
            if not self._ready():
                return

    def _driven(self, driver: asyncio.Task[None]) -> None:
        """The driver has ended; where a tick failed, every caller that waits gets its error."""
        self._driver = None
        if driver.cancelled():
            self._fail(asyncio.CancelledError())
        elif (error := driver.exception()) is not None:
            self._fail(error)
        self._wake()

    def _fail(self, error: BaseException) -> None:
        for turn in self._turns():
            turn.seat.turn, turn.seat.cached = None, []
            if not turn.done.done():
                turn.done.set_exception(error)

    @torch.inference_mode()
    def _tick(self) -> None:
        """Seat whoever has a turn, prefill what is new, decode one token in each row, end the turns that are over."""
        turns = self._turns()
        for turn in turns:
            if turn.running and turn.seat.slot >= len(turns):
                self._park(turn)
        self._slots.settle([turn.seat for turn in turns])
        self._start([turn for turn in turns if not turn.running])
        self._decode(sorted(turns, key=lambda turn: turn.seat.slot))

    def _park(self, turn: Turn) -> None:
        """Take a running turn's tokens out of its row, so that the turn can start again elsewhere."""
        if turn.running:
            self._collect(turn)
            turn.seat.cached = turn.context[:-1]
            turn.running = False

    def _collect(self, turn: Turn) -> None:
        """Fill a running turn's lists up with what its row has sampled since."""
        first, last, row = len(turn.sampled), self._ticks - turn.began, turn.seat.slot
        if first == last:
            return
        turn.sampled += self._rows.tokens(row, first, last)
        turn.logprobs += self._rows.logprobs(row, first, last)
        turn.versions += [self.version] * (last - first)

    def _start(self, turns: Sequence[Turn]) -> None:
        if not turns:
            return
        started = self._now()
        waves, reused = plan(turns, self._seats)
        for wave in waves:
            for source, target, length in wave.copies:
                self._decoder.kv.copy(source, target, length)
            for pieces in portions(wave.pieces, self._prefill_tokens):
                self._decoder.prefill(pieces)
                self._stats["prefill_tokens"] += sum(len(piece.tokens) for piece in pieces)
        self._rows.start([self._begin(turn) for turn in turns])
        self._stats["reused_tokens"] += reused
        self._stats["prefill_seconds"] += self._now() - started

    def _begin(self, turn: Turn) -> Start:
        turn.running, step = True, len(turn.sampled)
        turn.began = self._ticks - step
        context = turn.context
        self._decoder.kv.prefixes.changing(turn.seat.slot, len(context) - 1)
        return Start(turn.seat.slot, context[-1], len(context) - 1, step, turn.rule.number, turn.sampling)

    def _decode(self, turns: Sequence[Turn]) -> None:
        """One token in each row; `turns` are in the order of rows."""
        started = self._now()
        length = self._ticks + max(len(turn.tokens) - turn.began for turn in turns)
        logits = self._decoder.decode(*self._rows.inputs(len(turns)), length)
        over = self._rows.advance(logits, [turn.sampling.temperature for turn in turns], self._stops)
        self._ticks += 1
        self._stream(turns)
        for row in over:
            self._end(turns[row])
        self._stats["decode_tokens"] += len(turns)
        self._stats["ticks"] += 1
        self._stats["decode_seconds"] += self._now() - started

    def _stream(self, turns: Sequence[Turn]) -> None:
        if any(turn.on_token for turn in turns):
            for turn, token in zip(turns, self._rows.newest(len(turns)), strict=True):
                if turn.on_token:
                    turn.on_token(token)

    def _end(self, turn: Turn) -> None:
        """Hand a turn to its caller if it is over."""
        self._collect(turn)
        finish = self._stops.ended(turn.rule, turn.sampled)
        if finish is None and len(turn.sampled) < turn.sampling.max_tokens:
            return
        self._park(turn)
        turn.seat.turn = None
        if turn.done.done():  # its caller was cancelled in this turn of the event loop
            return
        if not math.isfinite(sum(turn.logprobs)):
            turn.done.set_exception(TrainingError("a logit is not finite: the model's weights have diverged"))
            return
        turn.done.set_result(Completion(turn.sampled, turn.logprobs, turn.versions, finish or Finish.LENGTH))

    def _now(self) -> float:
        """Seconds, once the device has done what it was given."""
        if self._decoder.device.type == "cuda":
            torch.cuda.synchronize(self._decoder.device)
        return perf_counter()
