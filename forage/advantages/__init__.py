"""Rewards to advantages, one estimator a file."""
