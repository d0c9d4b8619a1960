"""Losses of a token, one a file."""
