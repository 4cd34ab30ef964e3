"""What the published rows contradict, a module a kind of contradiction, found by computation."""
