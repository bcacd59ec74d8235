"""Pretrained models as files: what kind they are, their spec, weights, tokenizer, and conversion."""
