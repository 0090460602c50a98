"""Harmonization methods behind one interface."""
