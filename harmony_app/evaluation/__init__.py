"""Image metrics and comparisons."""
