"""What each device holds: parameters, K, V, activations."""
