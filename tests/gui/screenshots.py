"""Pictures of every page in both themes, 1280 × 800, with the real engine: screenshots.py OUT [RUN [RECIPE]]

The package carries those of the documentation, so each has only its 256 most frequent colours (Pillow comes with the
extra bench). Take them on an idle computer: they show times.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
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


def reduced(picture: Image.Image) -> Image.Image:
    """``picture`` with its 256 most frequent colours, and the nearest of them for each other one."""
    colours, places, counts = np.unique(
        np.asarray(picture).reshape(-1, 3).astype(int), axis=0, return_inverse=True, return_counts=True
    )
    frequent = colours[np.argsort(-counts)[:256]]
    nearest = ((colours[:, None] - frequent) ** 2).sum(2).argmin(1).astype(np.uint8)
    result = Image.frombytes("P", picture.size, nearest[places.ravel()].tobytes())
    result.putpalette(frequent.astype(np.uint8).tobytes())
    return result


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
                reduced(picture.convert("RGB")).save(path, optimize=True)
    workspace.close(10)
    window.close()


if __name__ == "__main__":
    main()
