"""Spaces of tuned values, one file each: single weights, all of them, low rank, LoRA; see `engine.spaces.space`."""
