"""The picture of a run that moves, for the README: film.py OUT.gif, with the real engine. On an idle computer it takes
about a minute."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from PIL import Image
from PySide6.QtCore import QSettings
from screenshots import until, wait

from sparsezo_gui.gui.app import make_application
from sparsezo_gui.gui.main_window import MainWindow
from sparsezo_gui.gui.theme import theme
from sparsezo_gui.gui.workspace import Workspace
from sparsezo_gui.recipe import load, with_settings

EVERY, SHOWN, LAST = 500, 160, 3000  # milliseconds from picture to picture, that each is shown, and the last one
MOST = 60  # pictures, however slow the computer is, so that the file stays small
SIZE = 1100, 700
# Fewer steps than the starter's take a higher rate.
SETTINGS = ("loop.steps=300", "loop.evaluate_every=50", "update.learning_rate=1e-2", "data.validation=150",
            "data.test=150")  # fmt: skip


def take(window: MainWindow, folder: Path) -> None:
    """Saves the window as it is, unless it is as before. In files, because the pictures show the process's memory."""
    taken = sorted(folder.glob("*.png"))
    path = folder / f"{len(taken):05}.png"
    window.grab().save(str(path))
    if taken and taken[-1].read_bytes() == path.read_bytes():
        path.unlink()


def film(folder: Path) -> None:
    """Tunes the bundled model and takes pictures meanwhile."""
    QSettings.setDefaultFormat(QSettings.Format.IniFormat)
    QSettings.setPath(QSettings.Format.IniFormat, QSettings.Scope.UserScope, str(folder))
    make_application()
    theme().apply("light")
    workspace = Workspace()
    workspace.set_recipe(with_settings(load("starter"), SETTINGS))
    window = MainWindow(workspace)
    window.resize(*SIZE)
    window.show()
    workspace.start()
    until(lambda: workspace.engine_state == "ready" and not workspace.busy_with())
    window.start_run()
    until(lambda: workspace.run.record is not None and workspace.run.record.step > 0, 600)
    while workspace.run.running:
        take(window, folder)
        wait(EVERY)
    wait(EVERY)
    take(window, folder)
    workspace.close(10)
    window.close()


def write(folder: Path, out: Path) -> None:
    """At most `MOST` of the pictures as one file, each after the first with what is new in it alone."""
    paths = sorted(folder.glob("*.png"))
    number = min(len(paths), MOST)
    paths = [paths[each * (len(paths) - 1) // (number - 1)] for each in range(number)]
    pictures = [Image.open(path).convert("RGB") for path in paths]
    palette = pictures[-1].quantize(64)
    frames = [picture.quantize(64, palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    shown = [SHOWN] * (len(frames) - 1) + [LAST]
    frames[0].save(out, save_all=True, append_images=frames[1:], duration=shown, loop=0, optimize=True)


def main() -> None:
    """Films a run, and writes the file."""
    folder = Path(tempfile.mkdtemp())
    film(folder)
    write(folder, Path(sys.argv[1]))


if __name__ == "__main__":
    main()
