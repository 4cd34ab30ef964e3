"""What a diffusers pipeline does around its transformer: prompts, timesteps, pictures."""
