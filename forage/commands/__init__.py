"""Commands by theme; `forage.cli` gathers them."""
