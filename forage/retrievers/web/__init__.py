"""Searching the web: providers, pages, and what is refused."""
