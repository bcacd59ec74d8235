"""The picture of a run that moves, for the README: film.py OUT.gif, with the real engine, on an idle computer."""

from __future__ import annotations

import sys
import tempfile
from itertools import pairwise
from pathlib import Path

from PIL import Image, ImageChops
from PySide6.QtCore import QSettings
from screenshots import until, wait

from sparsezo_gui.gui.app import make_application
from sparsezo_gui.gui.main_window import MainWindow
from sparsezo_gui.gui.theme import theme
from sparsezo_gui.gui.workspace import Workspace
from sparsezo_gui.recipe import load

EVERY, SHOWN, LAST = 700, 160, 3000  # milliseconds from picture to picture, that each is shown, and the last one
SIZE = 1100, 700


def taken(window: MainWindow, path: Path) -> Image.Image:
    """The window as it is."""
    window.grab().save(str(path))
    with Image.open(path) as picture:
        return picture.convert("RGB")


def main() -> None:
    """Tunes the bundled model and takes pictures meanwhile."""
    folder = Path(tempfile.mkdtemp())
    QSettings.setDefaultFormat(QSettings.Format.IniFormat)
    QSettings.setPath(QSettings.Format.IniFormat, QSettings.Scope.UserScope, str(folder))
    make_application()
    theme().apply("light")
    workspace = Workspace()
    workspace.set_recipe(load("starter"))
    window = MainWindow(workspace)
    window.resize(*SIZE)
    window.show()
    workspace.start()
    until(lambda: workspace.engine_state == "ready" and not workspace.busy_with())
    window.start_run()
    until(lambda: workspace.run.record is not None and workspace.run.record.step > 0, 600)
    pictures = []
    while workspace.run.running:
        pictures.append(taken(window, folder / "picture.png"))
        wait(EVERY)
    pictures.append(taken(window, folder / "picture.png"))
    moving = [after for before, after in pairwise(pictures)
              if ImageChops.difference(before, after).getbbox()]  # fmt: skip
    palette = pictures[-1].quantize(64)
    frames = [picture.quantize(64, palette=palette, dither=Image.Dither.NONE) for picture in (pictures[0], *moving)]
    shown = [SHOWN] * (len(frames) - 1) + [LAST]
    frames[0].save(sys.argv[1], save_all=True, append_images=frames[1:], duration=shown, loop=0, optimize=True)
    workspace.close(10)
    window.close()


if __name__ == "__main__":
    main()
