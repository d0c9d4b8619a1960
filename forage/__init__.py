"""Forage trains language models to reason and search, by reinforcement learning."""
