"""The tuning engine: torch, transformers, bitsandbytes and datasets; never Qt.

Importing this package loads none of them; each module imports what it needs, and the modules of variants import torch
only inside their methods.
"""

import logging

logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)  # it asks to install the package "kernels"
