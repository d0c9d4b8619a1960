"""A corpus to an index on disk."""
