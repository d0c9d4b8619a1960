"""A search service over HTTP: any index, Search-R1's contract and one of our own. `forage serve` runs it."""
