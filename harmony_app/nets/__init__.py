"""Torch modules that methods share."""
