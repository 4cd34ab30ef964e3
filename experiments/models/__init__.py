"""What a run is computed with: weights, scheduler, texts, inputs, VAE."""
