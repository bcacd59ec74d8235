"""SparseZO: sparse zeroth-order fine-tuning of 4-bit language models, with a window and a command line."""

__version__ = "0.1.0"
