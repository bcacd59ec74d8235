"""Which weights are tuned: mask rules, mask files, and the tuned values (overlay) on top of the frozen model."""
