"""``python -m sparsezo_gui.cli``, as ``sparsezo``."""

import sys

from sparsezo_gui import start

if __name__ == "__main__":
    sys.exit(start.terminal())
