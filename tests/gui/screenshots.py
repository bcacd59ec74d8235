"""Pictures of every page in both themes, 1280 × 800, with the real engine: screenshots.py OUT [RUN [RECIPE]]

Those of the documentation, which the package carries, have 256 colours (Pillow, with the extra bench, chooses them).
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from PIL import Image
from PySide6.QtCore import QEventLoop, QSettings, QTimer

from sparsezo_gui.gui.app import make_application
from sparsezo_gui.gui.main_window import MainWindow
from sparsezo_gui.gui.pages import PAGES
from sparsezo_gui.gui.theme import theme
from sparsezo_gui.gui.workspace import Workspace
from sparsezo_gui.recipe import load


def wait(milliseconds: int) -> None:
    """Lets the window go on for a while."""
    loop = QEventLoop()
    QTimer.singleShot(milliseconds, loop.quit)
    loop.exec()


def until(done: Callable[[], bool], seconds: int = 120) -> None:
    """Waits for something."""
    for _ in range(5 * seconds):
        if done():
            return
        wait(200)
    raise SystemExit("The window took too long.")


def main() -> None:
    """Takes the pictures."""
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    QSettings.setDefaultFormat(QSettings.Format.IniFormat)
    QSettings.setPath(QSettings.Format.IniFormat, QSettings.Scope.UserScope, tempfile.mkdtemp())
    make_application()
    theme().apply("light")
    workspace = Workspace()
    workspace.set_recipe(load(sys.argv[3] if len(sys.argv) > 3 else "starter"))
    window = MainWindow(workspace)
    window.resize(1280, 800)
    window.show()
    workspace.start()
    until(lambda: workspace.engine_state != "loading" and not workspace.busy_with())
    window.go("data")
    wait(300)
    if len(sys.argv) > 2:
        workspace.run.open(Path(sys.argv[2]))
    until(lambda: not workspace.busy_with())
    for mode in ("light", "dark"):
        theme().apply(mode)
        for name in PAGES:
            window.go(name)
            wait(400)
            path = out / f"{name}-{mode}.png"
            window.grab().save(str(path))
            with Image.open(path) as picture:
                few = picture.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
            few.save(path, optimize=True)
    workspace.close(10)
    window.close()


if __name__ == "__main__":
    main()
