"""Penalties for what an episode left out.

With F1 they make the reward of Search-R1++ (arXiv 2602.19526): F1 less .1 where it did not search, less .1 where it did
not answer; F1 alone taught a policy to avoid answering.
"""

from __future__ import annotations

from forage.types import Trajectory


def no_answer(trajectory: Trajectory) -> float:
    """-1 where the episode ended without an answer."""
    return -1.0 if trajectory.answer is None else 0.0


def no_search(trajectory: Trajectory) -> float:
    """-1 where no search was run."""
    return 0.0 if trajectory.searches else -1.0
