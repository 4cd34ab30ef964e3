"""What is measured: latency, memory, quality, and the training of the small model."""
