"""Talking to services outside."""
