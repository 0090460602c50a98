"""Volumes to slices and back in three orientations, devices, precision, fusion."""
