"""Methods without training: one monotone map of intensity for the whole scan."""
