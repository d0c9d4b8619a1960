"""A decoder's weights, fused for speed, and filled by Hugging Face parameter names.

Query and key rows are stored with the two halves of each head interleaved, so that the pairs that rotary embedding
turns lie side by side and one complex product turns them. Dot products of queries and keys don't notice.
Matrices are stored transposed, [in, out]: at a few hundred rows a CPU's products then take a fifth less time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from forage.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from torch import Tensor

SUPPORTED = ("llama", "qwen2", "qwen3")


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of a decoder, and which optional parameters it has."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp: int
    vocab: int
    eps: float
    tied: bool
    qkv_bias: bool
    out_bias: bool
    mlp_bias: bool
    head_norms: bool

    @classmethod
    def of(cls, model: Any) -> Shape:
        """Read from a Hugging Face causal LM.

        Raises:
            ConfigError: the model has something that the local engine doesn't compute exactly.
        """
        config = model.config
        check_supported(config)
        names = set(model.state_dict())
        layer = "model.layers.0."
        return cls(
            layers=config.num_hidden_layers,
            width=config.hidden_size,
            heads=config.num_attention_heads,
            kv_heads=config.num_key_value_heads,
            head_dim=getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
            mlp=config.intermediate_size,
            vocab=config.vocab_size,
            eps=config.rms_norm_eps,
            tied=bool(config.tie_word_embeddings),
            qkv_bias=layer + "self_attn.q_proj.bias" in names,
            out_bias=layer + "self_attn.o_proj.bias" in names,
            mlp_bias=layer + "mlp.gate_proj.bias" in names,
            head_norms=layer + "self_attn.q_norm.weight" in names,
        )


def check_supported(config: Any) -> None:
    """Refuse what would not be computed exactly.

    Raises:
        ConfigError: another architecture, a sliding window in use, another activation.
    """
    if config.model_type not in SUPPORTED:
        raise ConfigError(
            f"the local engine decodes {', '.join(SUPPORTED)}; this model is {config.model_type!r}. "
            "Use another engine.kind for it"
        )
    if set(getattr(config, "layer_types", None) or ()) - {"full_attention"}:
        raise ConfigError(
            "the local engine attends to the whole context; this model has layers with a sliding window "
            "(use_sliding_window). Use another engine.kind for it"
        )
    if config.hidden_act != "silu":
        raise ConfigError(f"the local engine computes the activation 'silu'; this model has {config.hidden_act!r}")


@dataclass(slots=True)
class Layer:
    """One layer's parameters; `qkv` has the columns of queries, keys and values."""

    norm: Tensor
    qkv: Tensor
    qkv_bias: Tensor | None
    q_norm: Tensor | None
    k_norm: Tensor | None
    out: Tensor
    out_bias: Tensor | None
    mlp_norm: Tensor
    gate: Tensor
    gate_bias: Tensor | None
    up: Tensor
    up_bias: Tensor | None
    down: Tensor
    down_bias: Tensor | None


class Weights:
    """All parameters of a decoder, in `dtype` on `device`."""

    def __init__(self, shape: Shape, dtype: torch.dtype, device: torch.device) -> None:
        self._shape = shape
        self._like = torch.empty(0, dtype=dtype, device=device)
        self._targets: dict[str, tuple[Tensor, torch.Size]] = {}
        self.embedding = self._plain("model.embed_tokens.weight", self._new(shape.vocab, shape.width))
        self.layers = [self._layer(f"model.layers.{i}.") for i in range(shape.layers)]
        self.norm = self._plain("model.norm.weight", self._new(shape.width))
        self.head = self.embedding.t() if shape.tied else self._matrix("lm_head.weight", shape.vocab, shape.width)

    @torch.no_grad()
    def load(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Copy every parameter in place.

        Raises:
            CheckpointError: a name is missing or unknown, or a shape differs. What came before it has been copied.
        """
        missing = set(self._targets)
        for name, source in weights:
            if name == "lm_head.weight" and self._shape.tied:
                continue
            if name not in self._targets:
                raise CheckpointError(f"the model has no parameter {name!r}; are these the weights of another model?")
            target, size = self._targets[name]
            if source.shape != size:
                raise CheckpointError(f"{name} has shape {list(source.shape)}, the model's is {list(size)}")
            target.copy_(source.reshape(target.shape))
            missing.discard(name)
        if missing:
            raise CheckpointError(f"{len(missing)} parameters are missing, first {min(missing)}")

    def _new(self, *size: int) -> Tensor:
        return self._like.new_empty(size)

    def _plain(self, name: str, tensor: Tensor) -> Tensor:
        """Register a parameter that is stored as Hugging Face stores it."""
        self._targets[name] = (tensor, tensor.shape)
        return tensor

    def _matrix(self, name: str, outputs: int, inputs: int) -> Tensor:
        """Register a matrix, stored as [inputs, outputs]."""
        matrix = self._new(inputs, outputs)
        self._plain(name, matrix.t())
        return matrix

    def _interleaved(self, name: str, tensor: Tensor) -> None:
        """Register rows of queries or keys: stored as pairs (i, i + D/2), named as two halves of each head."""
        half = self._shape.head_dim // 2
        pairs = tensor.view(-1, half, 2, *tensor.shape[1:])
        self._targets[name] = (pairs.transpose(1, 2), tensor.shape)

    def _layer(self, prefix: str) -> Layer:
        s, new = self._shape, self._new
        rows = (s.heads + 2 * s.kv_heads) * s.head_dim
        layer = Layer(
            norm=self._plain(prefix + "input_layernorm.weight", new(s.width)),
            qkv=self._qkv(prefix, "weight", new(s.width, rows)),
            qkv_bias=self._qkv(prefix, "bias", new(rows)) if s.qkv_bias else None,
            q_norm=new(s.head_dim) if s.head_norms else None,
            k_norm=new(s.head_dim) if s.head_norms else None,
            out=self._matrix(prefix + "self_attn.o_proj.weight", s.width, s.heads * s.head_dim),
            out_bias=self._plain(prefix + "self_attn.o_proj.bias", new(s.width)) if s.out_bias else None,
            mlp_norm=self._plain(prefix + "post_attention_layernorm.weight", new(s.width)),
            gate=self._matrix(prefix + "mlp.gate_proj.weight", s.mlp, s.width),
            gate_bias=self._plain(prefix + "mlp.gate_proj.bias", new(s.mlp)) if s.mlp_bias else None,
            up=self._matrix(prefix + "mlp.up_proj.weight", s.mlp, s.width),
            up_bias=self._plain(prefix + "mlp.up_proj.bias", new(s.mlp)) if s.mlp_bias else None,
            down=self._matrix(prefix + "mlp.down_proj.weight", s.width, s.mlp),
            down_bias=self._plain(prefix + "mlp.down_proj.bias", new(s.width)) if s.mlp_bias else None,
        )
        for name, norm in (("q_norm", layer.q_norm), ("k_norm", layer.k_norm)):
            if norm is not None:
                self._interleaved(f"{prefix}self_attn.{name}.weight", norm)
        return layer

    def _qkv(self, prefix: str, kind: str, fused: Tensor) -> Tensor:
        s = self._shape
        rows = fused.t()  # of a bias: itself
        q, k, v = torch.split(rows, [s.heads * s.head_dim, s.kv_heads * s.head_dim, s.kv_heads * s.head_dim])
        self._interleaved(f"{prefix}self_attn.q_proj.{kind}", q)
        self._interleaved(f"{prefix}self_attn.k_proj.{kind}", k)
        self._plain(f"{prefix}self_attn.v_proj.{kind}", v)
        return fused
