"""Spaces of tuned values: sparse entries, every weight, or low rank; see `sparsezo_gui.engine.spaces.space`."""
