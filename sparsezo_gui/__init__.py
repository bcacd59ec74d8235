"""SparseZO: sparse zeroth-order fine-tuning of 4-bit language models, with a window and a command line."""

import logging
import os
import sys

__version__ = "0.1.0"

# Before any of them is loaded: the Hub's libraries shall not report which packages, tools and data sets are in use.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("HF_UPDATE_DOWNLOAD_COUNTS", "0")
# Nor shall they draw bars over our own progress line.
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

# Where a package "kernels" is installed, transformers and bitsandbytes fetch compiled code from the Hub and run it,
# bitsandbytes 0.50 already while it is imported on a CPU with AVX-512 BF16. Nobody was asked; so to them there is none.
sys.modules.setdefault("kernels", None)
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)  # it asks to install the package
