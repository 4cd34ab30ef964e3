"""Input that cannot be meant, made by the hundred: `python -m tests.fuzz` tries all of it."""
