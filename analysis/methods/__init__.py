"""Methods beside each other: distance to serial against seconds."""
