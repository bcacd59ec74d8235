"""Spaces of tuned values: single weights, all of them, low rank, LoRA; see `sparsezo_gui.engine.spaces.space`."""
