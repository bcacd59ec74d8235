"""SparseZO: sparse zeroth-order fine-tuning of 4-bit language models, with a window and a command line.

From Python, `sparsezo_gui.api` loads recipes and uses runs; its names are also here, and loaded when first used.
"""

import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sparsezo_gui.api import Event, Recipe, Run, UserError, load_recipe, train

__all__ = ["Event", "Recipe", "Run", "UserError", "load_recipe", "train"]

__version__ = "0.1.0"

# Set before any library loads, so that the Hub's libraries do not report which packages and data sets are used.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("HF_UPDATE_DOWNLOAD_COUNTS", "0")
# Nor should they draw bars over our own progress line.
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

# On Linux, threads of torch spin for a millisecond whenever they wait for one another. Beside a program that keeps a
# single core busy, that made tuning twelve times slower. A shorter spin costs the bundled model 6 % on an idle
# computer, and larger ones less.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

# If the package "kernels" is installed, transformers and bitsandbytes download compiled code from the Hub and run it
# without asking (bitsandbytes 0.50 even when imported, on a CPU with AVX-512 BF16). So we hide the package from them.
sys.modules.setdefault("kernels", None)  # type: ignore[arg-type]  # None hides a module


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    from sparsezo_gui import api

    return getattr(api, name)
