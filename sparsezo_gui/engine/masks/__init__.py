"""Mask rules: which weights are tuned. A rule is one file and one registry line."""
