"""Puts this folder on the path, so that tests in subfolders find the helpers in it."""
