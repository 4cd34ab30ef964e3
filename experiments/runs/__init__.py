"""One run from configuration to record, in every world."""
