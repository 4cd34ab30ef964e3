"""Training, export and scoring of the small text-conditioned DiT."""
