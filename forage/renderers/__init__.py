"""The protocol between policy and environment, in tokens."""
