"""Where a step's groups come from: played with the newest weights, or with older ones out of a queue."""
