"""What a value model is made of: the trunk of a language model, and a head with one number a token."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn

from forage.errors import CheckpointError, ConfigError
from forage.models.causal_lm import Policy, load_policy


def trunk_of(policy: Policy, path: str) -> Any:
    """A language model without its head."""
    if not path:
        return copy.deepcopy(policy.model.base_model)
    frugal = any(getattr(module, "gradient_checkpointing", False) for module in policy.model.modules())
    other = load_policy(path, device=policy.device, gradient_checkpointing=frugal)
    if other.model.config.vocab_size != policy.model.config.vocab_size:
        raise CheckpointError(f"critic.path = {path!r} has another vocabulary than the policy")
    return other.model.base_model


def shortened(trunk: Any, layers: int) -> Any:
    """The trunk's first `layers` layers with its last norm behind them; 0 leaves it whole."""
    if layers > len(trunk.layers):
        raise ConfigError(f"critic.layers = {layers}, but its trunk has {len(trunk.layers)}")
    if layers:
        trunk.layers = trunk.layers[:layers]
        trunk.config.num_hidden_layers = layers
    return trunk


def value_head(config: Any, model: Any) -> nn.Linear:
    """One number of a hidden state; 0 of all of them at first."""
    head = nn.Linear(config.hidden_size, 1, dtype=model.dtype, device=model.device)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head
