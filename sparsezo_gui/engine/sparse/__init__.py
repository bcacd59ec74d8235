"""Which weights are tuned: mask rules, mask files, and the overlay of tuned values on the frozen model."""
