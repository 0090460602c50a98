"""Nipype interfaces and workflow factories."""
