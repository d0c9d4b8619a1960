"""Whether a run is well: rules over its metrics, without torch."""
