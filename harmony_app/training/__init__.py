"""Data, losses, loops and checkpoints of network training."""
