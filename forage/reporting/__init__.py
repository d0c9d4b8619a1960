"""The parts of a run's report: what is read, what is computed of it, how it is drawn."""
