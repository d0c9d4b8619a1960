"""Compute in bfloat16 while weights, gradients and optimizer state stay float32.

A second set of weights in bfloat16 does the computing. Its gradients are added to the float32 weights' own as soon as
each is complete, and after an optimizer step the new float32 weights are rounded into it. (Autocast would keep the
residual stream in float32 and cast each weight in each micro-batch; this casts once a step, and computes what an
inference engine in bfloat16 computes.)
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor


def compute_twin(master: Any, dtype: torch.dtype) -> Any:
    """A model that computes in `dtype` and whose gradients arrive in `master`; `master` itself if it is of `dtype`."""
    if dtype == master.dtype:
        return master
    twin = frozen_copy(master, dtype)
    for weight, own in zip(twin.parameters(), master.parameters(), strict=True):
        weight.requires_grad_(own.requires_grad)
        if own.requires_grad:
            weight.register_post_accumulate_grad_hook(_GradientTo(own))
    return twin


def frozen_copy(model: Any, dtype: torch.dtype) -> Any:
    """A copy with weights of `dtype` and without gradients. Buffers (rotary frequencies) keep their precision."""
    twin = copy.deepcopy(model)
    for weight in twin.parameters():
        weight.data = weight.data.to(dtype)
        weight.requires_grad_(False)
    return twin


@torch.no_grad()
def refresh(twin: Any, master: Any) -> None:
    """Round the float32 weights into the twin."""
    if twin is not master:
        torch._foreach_copy_(list(twin.parameters()), list(master.parameters()))


def count_denormals_as_0() -> None:
    """In this thread, and in those that it starts.

    Below 1e-38 float32 has fewer digits left, and a CPU takes many times as long. Gradients behind attention that is
    almost 0 are often so small, most of all those of a critic that has just begun.
    """
    torch.set_flush_denormal(True)


class _GradientTo:
    """Moves a complete gradient to the float32 weight, where micro-batches add up."""

    def __init__(self, master: Tensor) -> None:
        self.master = master

    @torch.no_grad()
    def __call__(self, weight: Tensor) -> None:
        assert weight.grad is not None
        if self.master.grad is None:
            self.master.grad = weight.grad.float()
        else:
            self.master.grad += weight.grad
        weight.grad = None
