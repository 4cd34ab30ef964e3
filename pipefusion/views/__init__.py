"""Views on stock diffusers transformers, one file an architecture: `shape(config, ...)` and `View`."""
