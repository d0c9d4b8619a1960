"""Puts this folder on the path of the tests in subfolders, for its helpers; makes hypothesis repeatable."""

from hypothesis import settings

settings.register_profile("forage", deadline=None, derandomize=True)
settings.load_profile("forage")
