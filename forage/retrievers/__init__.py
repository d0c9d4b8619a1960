"""Queries to passages."""
