"""Who says what a state is worth, for estimators that read values: nobody, a model of its own, or the policy itself.

The value of a token is that of the state it was chosen in: it is read at the position before, and never sees the token
that it judges. Only acted tokens have one, but for `gae_all_tokens`. The head begins at zero, and so does every value.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from forage.config import Amount, Count
from forage.errors import CheckpointError
from forage.learners.forward import spread_over, states
from forage.learners.measures import add
from forage.learners.optimizer import build_optimizers
from forage.learners.packing import MicroBatch
from forage.learners.precision import compute_twin, refresh
from forage.learners.value_model import shortened, trunk_of, value_head
from forage.learners.values import value_loss
from forage.models.causal_lm import Policy, load_weights, read_weights
from forage.models.packed import attend_packed
from forage.types import Batch, Metrics

Weigh = Callable[[Batch], Tensor]
"""The weight of each token [B,T] in the sum that is the loss of an optimizer step."""

WEIGHTS = "model.safetensors"
log = logging.getLogger(__name__)


class NoCritic:
    """Nothing is judged; estimators that read values are refused. Also says what a critic does."""

    judges = False
    warmup_steps = 0

    def __init__(self, *_given: Any) -> None:
        pass

    def attending(self) -> AbstractContextManager[None]:
        """What its forward and backward passes are to stand in."""
        return nullcontext()

    def judge(self, batch: Batch, micros: Sequence[MicroBatch], policy: Any, *, first: int = 0) -> Batch:  # noqa: ARG002
        """Fill in `values_BT`; `policy` is the model that computes, and its first optimizer step will learn from the
        first `first` micro-batches."""
        return batch

    def term(self, micro: MicroBatch, hidden_MD: Tensor, weigh: Weigh) -> tuple[Tensor | float, Metrics]:  # noqa: ARG002
        """What is added to the policy's loss, from the policy's hidden states [M,D]."""
        return 0.0, {}

    def learn(self, micros: Sequence[MicroBatch], weigh: Weigh, policy: Any, *, alone: bool) -> Metrics:  # noqa: ARG002
        """Its part of an optimizer step; `alone` says that the policy's was left out."""
        return {}

    def save(self, folder: Path) -> None:
        """Write weights and optimizer into a folder that is made for it."""

    def load(self, folder: Path) -> None:
        """Go on from what `save` wrote, to the bit."""

    def adopt(self, folder: Path) -> None:
        """Begin with the weights of another run's critic, where there is one of this kind."""


class _Critic(NoCritic):
    """What a value model of its own and a value head have in common: a head, an optimizer, a loss."""

    judges = True

    def __init__(
        self, module: nn.ModuleDict, lr: float, warmup_steps: int, value_clip: float, max_grad_norm: float
    ) -> None:
        self.module = module  # float32 master weights
        self._head: Any = module["head"]
        self.warmup_steps = warmup_steps
        self._lr, self._clip, self._max_grad_norm = lr, value_clip or math.inf, max_grad_norm
        self._optimizers = build_optimizers(module, "adamw", lr=lr, muon_lr=0.0, betas=(0.9, 0.999), weight_decay=0.01)

    def save(self, folder: Path) -> None:
        """Write `model.safetensors` and `optimizer.pt` into a folder that is made for it."""
        from safetensors.torch import save_file

        folder.mkdir()
        save_file({name: weight.detach() for name, weight in self.module.named_parameters()}, folder / WEIGHTS)
        torch.save(self._optimizers.state_dict(), folder / "optimizer.pt")

    def load(self, folder: Path) -> None:
        """Go on from what `save` wrote, to the bit.

        Raises:
            CheckpointError: there is no critic, or one of another kind or shape.
        """
        if not folder.is_dir():
            raise CheckpointError(
                f"{folder.parent} holds no critic: its run had none. Start another run from its weights instead: "
                f"model.init_from={folder.parent}"
            )
        load_weights(self.module, folder)
        try:
            state = torch.load(folder / "optimizer.pt", map_location=self._device, weights_only=True)
            self._optimizers.load_state_dict(state)
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            raise CheckpointError(f"{folder}: the critic's optimizer can't be used here ({error})") from error

    def adopt(self, folder: Path) -> None:
        """Begin with the weights of another run's critic, where there is one of this kind.

        Raises:
            CheckpointError: it is of another shape.
        """
        if not folder.is_dir():
            return
        if {name for name, _ in read_weights(folder)} == {name for name, _ in self.module.named_parameters()}:
            load_weights(self.module, folder)
        else:
            log.warning("%s is of another kind than critic.kind: the critic begins anew", folder)

    @property
    def _device(self) -> torch.device:
        return next(self.module.parameters()).device

    def _values(self, hidden_MD: Tensor) -> Tensor:
        """[M], in float32 whatever the trunk computes in: bfloat16 keeps three digits."""
        values_M1: Tensor = self._head(hidden_MD.to(self._head.weight.dtype))
        return values_M1[:, 0]

    def _loss(self, micro: MicroBatch, values_M: Tensor, weigh: Weigh) -> tuple[Tensor, Metrics]:
        batch = micro.batch
        assert batch.values_BT is not None
        assert batch.returns_BT is not None
        acted_BT = batch.acted_BT
        old_M, returns_M = (column[acted_BT].to(values_M.dtype) for column in (batch.values_BT, batch.returns_BT))
        loss_M, clipped_M = value_loss(values_M, old_M, returns_M, self._clip)
        tokens = float(len(values_M))
        metrics = {
            "value/loss": (float(loss_M.detach().sum()), tokens),
            "value/clip_fraction": (float(clipped_M.sum()), tokens),
        }
        return (loss_M * weigh(batch)[acted_BT].to(loss_M.dtype)).sum(), metrics

    def _step(self) -> Metrics:
        norm, finite = self._optimizers.clip_and_step(self._max_grad_norm)
        metrics = {"value/skipped_steps": (float(not finite), 1.0), "value/lr": (self._lr, 1.0)}
        return metrics | ({"value/grad_norm": (norm, 1.0)} if finite else {})


class OwnCritic(_Critic):
    """A value model of its own: a language model's trunk with one number for each token in place of the vocabulary.

    Its trunk begins as a copy of the policy's. As large as the policy, and it takes as long, unless it has fewer
    layers; nothing of it disturbs the policy.

    Args:
        path: model or run whose trunk it begins with; empty: the policy's own.
        layers: of the trunk, so many are taken, from the first on; 0: all.
        keep_tokens: packed tokens whose activations are kept from judging a batch to the first optimizer step that
            learns from it: computed once instead of twice, for their memory. 0: none.
    """

    def __init__(
        self,
        policy: Policy,
        lr: float = 1e-5,
        warmup_steps: int = 0,
        value_clip: float = 0.5,
        max_grad_norm: float = 1.0,
        *,
        path: str = "",
        layers: Count = 0,
        keep_tokens: Count = 32_768,
    ) -> None:
        trunk = shortened(trunk_of(policy, path), layers)
        module = nn.ModuleDict({"trunk": trunk, "head": value_head(trunk.config, policy.model)})
        super().__init__(module, lr, warmup_steps, value_clip, max_grad_norm)
        self._compute = compute_twin(trunk, policy.dtype)
        self._keep_tokens = keep_tokens
        self._kept: list[tuple[MicroBatch, Tensor]] = []  # the first micro-batches that were judged, with their values

    def attending(self) -> AbstractContextManager[None]:
        """Its trunk attends packed rows."""
        return attend_packed(self._compute)

    def judge(self, batch: Batch, micros: Sequence[MicroBatch], policy: Any, *, first: int = 0) -> Batch:  # noqa: ARG002
        """Fill in `values_BT`; what the first optimizer step will differentiate is kept."""
        self._kept, room, pieces = [], self._keep_tokens, []
        for number, micro in enumerate(micros):
            room -= len(micro.tokens_N)
            keep = number < first and room >= 0
            with torch.set_grad_enabled(keep):
                values_M = self._values(states(self._compute, micro))
            self._kept += [(micro, values_M)] if keep else []
            pieces.append(values_M.detach())
        return replace(batch, values_BT=spread_over(batch, pieces))

    def learn(self, micros: Sequence[MicroBatch], weigh: Weigh, policy: Any, *, alone: bool) -> Metrics:  # noqa: ARG002
        """One optimizer step on its own loss."""
        metrics: Metrics = {}
        kept, self._kept = self._kept[::-1], []
        for micro in micros:
            loss, more = self._loss(micro, self._judged(micro, kept), weigh)
            loss.backward()  # type: ignore[no-untyped-call]
            add(metrics, more)
        add(metrics, self._step())
        refresh(self._compute, self.module["trunk"])
        return metrics

    def _judged(self, micro: MicroBatch, kept: list[tuple[MicroBatch, Tensor]]) -> Tensor:
        """Values [M] to be differentiated: those kept of the same rows, which are taken out, or computed anew."""
        if kept and torch.equal(kept[-1][0].tokens_N, micro.tokens_N):
            same, values_M = kept.pop()
            if torch.equal(same.before_M, micro.before_M):
                return values_M
        kept.clear()
        return self._values(states(self._compute, micro))

    def load(self, folder: Path) -> None:
        """Go on from what `save` wrote, to the bit."""
        super().load(folder)
        self._kept = []
        refresh(self._compute, self.module["trunk"])

    def adopt(self, folder: Path) -> None:
        """Begin with the weights of another run's own critic, where there is one."""
        super().adopt(folder)
        refresh(self._compute, self.module["trunk"])


class SharedCritic(_Critic):
    """A value head on the policy's trunk: it costs a forward pass more, and its loss pulls at the policy's weights.

    Args:
        coef: weight of the value loss beside the policy's.
    """

    def __init__(
        self,
        policy: Policy,
        lr: float = 1e-5,
        warmup_steps: int = 0,
        value_clip: float = 0.5,
        max_grad_norm: float = 1.0,
        *,
        coef: Amount = 0.1,
    ) -> None:
        module = nn.ModuleDict({"head": value_head(policy.model.config, policy.model)})
        super().__init__(module, lr, warmup_steps, value_clip, max_grad_norm)
        self._coef = coef

    @torch.no_grad()
    def judge(self, batch: Batch, micros: Sequence[MicroBatch], policy: Any, *, first: int = 0) -> Batch:  # noqa: ARG002
        """Fill in `values_BT` from the policy's hidden states."""
        return replace(batch, values_BT=spread_over(batch, [self._values(states(policy, micro)) for micro in micros]))

    def term(self, micro: MicroBatch, hidden_MD: Tensor, weigh: Weigh) -> tuple[Tensor | float, Metrics]:
        """The value loss times `coef`."""
        if micro.batch.returns_BT is None:
            return 0.0, {}
        loss, metrics = self._loss(micro, self._values(hidden_MD), weigh)
        return self._coef * loss, metrics

    def learn(self, micros: Sequence[MicroBatch], weigh: Weigh, policy: Any, *, alone: bool) -> Metrics:
        """One optimizer step of the head; alone, on hidden states that stay as they are."""
        metrics: Metrics = {}
        for micro in micros if alone else ():
            with torch.no_grad():
                hidden_MD = states(policy, micro)
            loss, more = self.term(micro, hidden_MD, weigh)
            loss.backward()  # type: ignore[union-attr]
            add(metrics, more)
        return add(metrics, self._step())
