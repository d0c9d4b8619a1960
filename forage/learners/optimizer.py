"""AdamW, or Muon for the hidden matrices with AdamW for the rest, behind one small surface."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Optimizers:
    """One or two torch optimizers that step together; `rates` are their learning rates at factor 1."""

    def __init__(self, optimizers: list[torch.optim.Optimizer], rates: list[float]) -> None:
        self.optimizers = optimizers
        self.rates = rates

    def clip_and_step(self, max_norm: float, factor: float = 1.0) -> tuple[float, bool]:
        """Scale the gradients down to `max_norm`, make a step, forget the gradients.

        A gradient that is not finite is thrown away.

        Returns:
            The norm before, and whether a step was made.
        """
        for weight in self.weights:
            if weight.grad is None:  # nothing in the batch: momentum still moves, as if zeros had been computed
                weight.grad = torch.zeros_like(weight)
        norm = float(torch.nn.utils.clip_grad_norm_(self.weights, max_norm))
        finite = norm < float("inf")
        if finite:
            self.step(factor)
        self.zero_grad()
        return norm, finite

    @property
    def weights(self) -> list[Tensor]:
        """All that is trained."""
        groups = [group for optimizer in self.optimizers for group in optimizer.param_groups]
        return [weight for group in groups for weight in group["params"] if weight.requires_grad]

    def step(self, factor: float) -> None:
        """One step at `factor` times the learning rates, then forget the gradients."""
        for optimizer, rate in zip(self.optimizers, self.rates, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate * factor
            optimizer.step()
        self.zero_grad()

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> list[dict[str, Any]]:
        """All moments and counters."""
        return [optimizer.state_dict() for optimizer in self.optimizers]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        """Take over what `state_dict` gave."""
        for optimizer, state in zip(self.optimizers, states, strict=True):
            optimizer.load_state_dict(state)


def build_optimizers(
    model: Any, kind: str, *, lr: float, muon_lr: float, betas: tuple[float, float], weight_decay: float
) -> Optimizers:
    """The optimizers of `kind` ("adamw" or "muon") over the model's weights. Norms and biases are never decayed."""
    hidden = _hidden_matrices(model) if kind == "muon" else []
    taken = {id(weight) for weight in hidden}
    rest = [weight for weight in model.parameters() if id(weight) not in taken]
    groups = [
        {"params": [weight for weight in rest if weight.ndim >= 2], "weight_decay": weight_decay},
        {"params": [weight for weight in rest if weight.ndim < 2], "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW([group for group in groups if group["params"]], lr=lr, betas=betas, fused=True)
    if not hidden:
        return Optimizers([adamw], [lr])
    muon = torch.optim.Muon(hidden, lr=muon_lr, weight_decay=weight_decay)
    return Optimizers([adamw, muon], [lr, muon_lr])


def _hidden_matrices(model: Any) -> list[nn.Parameter]:
    """All matrices but the embedding and the LM head, for which Muon is not meant."""
    outer = {id(layer.weight) for layer in (model.get_input_embeddings(), model.get_output_embeddings()) if layer}
    return [weight for weight in model.parameters() if weight.ndim == 2 and id(weight) not in outer]
