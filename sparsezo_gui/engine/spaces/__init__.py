"""Spaces of tuned values: sparse entries, every weight, or low rank."""
