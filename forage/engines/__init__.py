"""Engines: where tokens are decoded."""
