"""Layers of the frozen model: quantised weights, and the patches that tuned values put on them."""
