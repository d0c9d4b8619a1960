"""Questions, and the passages that answer them."""
