"""Training of what ships: the small model and the scorer of pictures against prompts."""
