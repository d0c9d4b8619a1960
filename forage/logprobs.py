"""Log-probabilities and entropies of sampled tokens, without ever holding `[tokens, vocab]`.

M  tokens that are scored: positions whose next token was acted
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

CHUNK_ELEMENTS = {"cpu": 1 << 20}  # logits held at a time: 4 MB in float32, which a core's cache about holds
GPU_CHUNK_ELEMENTS = 1 << 28
MIN_ROWS = 256  # fewer, and reading the head's weights would cost more than multiplying by them


def logprobs_and_entropy(logits_MV: Tensor, labels_M: Tensor) -> tuple[Tensor, Tensor]:
    """Log-softmax at the label, and the entropy (nats) of the whole distribution, both [M].

    Logits of -inf exclude a token: it adds nothing to the entropy.
    """
    logprobs_MV = logits_MV.log_softmax(-1)
    label_logprobs_M = logprobs_MV.gather(-1, labels_M[:, None]).squeeze(-1)
    return label_logprobs_M, -torch.linalg.vecdot(logprobs_MV.exp(), _finite(logprobs_MV))


def head_logprobs(
    hidden_MD: Tensor, weight_VD: Tensor, bias_V: Tensor | None, labels_M: Tensor, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """The same straight from the hidden states, in chunks whose logits are computed again in the backward pass.

    Args:
        hidden_MD: final hidden states; logits are computed in this dtype, softmax in at least float32.
        weight_VD, bias_V: the LM head.
        labels_M: the token that followed each.
        temperature: divides the logits.

    Returns:
        logprobs_M, entropy_M: both differentiable.
    """
    scored: tuple[Tensor, Tensor] = _Head.apply(hidden_MD, weight_VD, bias_V, labels_M, temperature)  # type: ignore[no-untyped-call]
    return scored


def _finite(logprobs: Tensor) -> Tensor:
    """-inf to the lowest number: 0 * -inf would be NaN."""
    return logprobs.clamp(min=torch.finfo(logprobs.dtype).min)


def rows_per_chunk(vocab: int, device_type: str = "cpu") -> int:
    """How many tokens' logits are held at a time."""
    return max(MIN_ROWS, CHUNK_ELEMENTS.get(device_type, GPU_CHUNK_ELEMENTS) // vocab)


class _Head(Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_MD: Tensor, weight_VD: Tensor, bias_V: Tensor | None, labels_M: Tensor, temperature: float
    ) -> tuple[Tensor, Tensor]:
        scored = [
            logprobs_and_entropy(_logits(hidden, weight_VD, bias_V, temperature), labels)
            for hidden, labels in _chunks(weight_VD, hidden_MD, labels_M)
        ]
        logprobs_M, entropy_M = (torch.cat(columns) for columns in zip(*scored, strict=True))
        ctx.save_for_backward(hidden_MD, weight_VD, bias_V, labels_M, entropy_M)
        ctx.temperature = temperature
        ctx.set_materialize_grads(False)
        return logprobs_M, entropy_M

    @staticmethod
    def backward(ctx: Any, grad_logprobs_M: Tensor | None, grad_entropy_M: Tensor | None) -> Any:
        hidden_MD, weight_VD, bias_V, labels_M, entropy_M = ctx.saved_tensors
        of_logprobs_M = torch.zeros_like(entropy_M) if grad_logprobs_M is None else grad_logprobs_M
        of_entropy_M = torch.zeros_like(entropy_M) if grad_entropy_M is None else grad_entropy_M
        grad_hidden_MD = torch.empty_like(hidden_MD)
        grad_weight_VD = torch.zeros_like(weight_VD, dtype=entropy_M.dtype)
        grad_bias_V = None if bias_V is None else torch.zeros_like(bias_V, dtype=entropy_M.dtype)
        columns = (hidden_MD, grad_hidden_MD, labels_M, entropy_M, of_logprobs_M, of_entropy_M)
        for hidden, grad_hidden, labels, entropy, of_logprobs, of_entropy in _chunks(weight_VD, *columns):
            logprobs_CV = _logits(hidden, weight_VD, bias_V, ctx.temperature).log_softmax(-1)
            wanted = None if grad_entropy_M is None else of_entropy
            grad_CV = _grad_logits(logprobs_CV, labels, entropy, of_logprobs, wanted)
            grad_CV = grad_CV.div_(ctx.temperature).to(hidden.dtype)
            torch.mm(grad_CV, weight_VD, out=grad_hidden)
            grad_weight_VD += grad_CV.T @ hidden
            if grad_bias_V is not None:
                grad_bias_V += grad_CV.sum(0)
        cast_bias = None if grad_bias_V is None else grad_bias_V.to(weight_VD.dtype)
        return grad_hidden_MD, grad_weight_VD.to(weight_VD.dtype), cast_bias, None, None


def _grad_logits(
    logprobs_CV: Tensor, labels_C: Tensor, entropy_C: Tensor, of_logprobs_C: Tensor, of_entropy_C: Tensor | None
) -> Tensor:
    """d/dz of sum(g * logprob + h * entropy): g * (onehot - p) - h * p * (log p + entropy)."""
    probs_CV = logprobs_CV.exp()
    scale_CV: Tensor = -of_logprobs_C[:, None]
    if of_entropy_C is not None:
        scale_CV = scale_CV - of_entropy_C[:, None] * (_finite(logprobs_CV) + entropy_C[:, None])
    grad_CV = probs_CV.mul_(scale_CV)
    return grad_CV.scatter_add_(1, labels_C[:, None], of_logprobs_C[:, None])


def _logits(hidden_CD: Tensor, weight_VD: Tensor, bias_V: Tensor | None, temperature: float) -> Tensor:
    logits_CV = torch.nn.functional.linear(hidden_CD, weight_VD, bias_V)
    if logits_CV.dtype in (torch.bfloat16, torch.float16):
        logits_CV = logits_CV.float()
    return logits_CV if temperature == 1 else logits_CV / temperature


def _chunks(weight_VD: Tensor, *columns_M: Tensor) -> zip[tuple[Tensor, ...]]:
    size = rows_per_chunk(weight_VD.shape[0], weight_VD.device.type)
    return zip(*(torch.split(column, size) for column in columns_M), strict=True)
