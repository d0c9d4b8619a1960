"""From a learner to an engine."""
