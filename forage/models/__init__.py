"""Hugging Face causal language models, and the tiny one."""
