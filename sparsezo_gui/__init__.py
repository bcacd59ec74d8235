"""SparseZO: sparse zeroth-order fine-tuning of 4-bit language models, with a window and a command line."""

import os

__version__ = "0.1.0"

# Before any of them is loaded: the Hub's libraries shall not report which packages, tools and data sets are in use.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("HF_UPDATE_DOWNLOAD_COUNTS", "0")
