"""Contact sheets of every page in both themes with the stand-in engine, one for each state: sheets.py OUT

Needs no display and no model, so that the pictures are soon there and the same on every computer. Beside the sheets
lies each picture on its own. "-150" is a screen of 1280 × 720 at 150 %, "-200" one of 1920 × 1080 at 200 %, "-wide" one
of 2560 × 1440; "-tall" and "-column" show whole pages, wide and narrow; "-chat" has the chat open.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from PIL import Image
from PySide6.QtCore import QSettings
from screenshots import until, wait
from standin import StandIn, listed, past

from sparsezo_gui.answers import RunSummary
from sparsezo_gui.errors import UserError
from sparsezo_gui.gui.app import make_application
from sparsezo_gui.gui.main_window import MainWindow
from sparsezo_gui.gui.pages import PAGES
from sparsezo_gui.gui.requests import PreviewData
from sparsezo_gui.gui.run_requests import ExportRun
from sparsezo_gui.gui.theme import theme
from sparsezo_gui.gui.workspace import Workspace
from sparsezo_gui.recipe import dump, load

SCREENS = {"": ("1", (1280, 720)), "-150": ("1.5", (853, 480)), "-200": ("2", (960, 540)), "-wide": ("1", (2560, 1440)),
           "-tall": ("1", (1280, 2600)), "-column": ("1", (820, 2400))}  # fmt: skip
TAKEN = {"": ("empty", "filled", "running", "error", "filled-chat"), "-tall": ("filled", "error")}  # else only filled
FAULTS = {
    "estimate": "The memory is unknown: there is no config.json in /models/broken.",
    "preview": "reviews.csv, row 12: the column 'label' is empty. Fill it in, or map another column to the answer.",
    "train": "The disk is full: 12 MiB are free and the run needs 40 MiB. Free some space, then resume the run.",
    "mask": "The general text cannot be downloaded: there is no network. Choose 'task' as its text, or connect.",
    "rates": "Every learning rate made the loss worse. Try a smaller epsilon.",
    "export": "/home/you/yesterday-tuned exists and is not empty. Choose another folder.",
    "inspect": "The model of this run is no longer on this computer. Download 'Qwen/Qwen3-0.6B' on the Model page.",
}


def empty(window: MainWindow, engine: StandIn) -> None:
    """The first start."""


def saved(engine: StandIn) -> list[RunSummary]:
    """Runs in the list, with their recipes."""
    runs = [
        listed(engine.home / "yesterday", tags=("support",), data="starter", curve=(1.4, 1.2, 1.1, 1.0)),
        listed(engine.home / "longer", "longer", 2000, state="done", parent=str(engine.home / "yesterday"), start=60,
               data="starter", curve=(1.4, 1.1, 0.8, 0.5, 0.45)),
        listed(engine.home / "qwen", "qwen", 640, model="Qwen/Qwen3-0.6B", data="tickets.csv", parameters=596_000_000,
               tuned=596_000, notes="The first with my own data."),
        listed(engine.home / "old", "old", 0, state="damaged", problem="journal.bin is shorter than it says."),
    ]  # fmt: skip
    for run in runs:
        Path(run.path).mkdir(parents=True)
        (Path(run.path) / "recipe.toml").write_text(dump(load("starter")))
        engine.histories[Path(run.path)] = past()
    return runs


def filled(window: MainWindow, engine: StandIn) -> None:
    """Everything was asked for once, and a run has ended."""
    workspace = window.workspace
    engine.run_list = saved(engine)
    folders = [Path(run.path) for run in engine.run_list]
    workspace.change("loop", steps=400, evaluate_every=50)
    wait(500)
    for ask in (workspace.find_mask, workspace.find_rate, workspace.probe_noise, workspace.compare_ways):
        ask()
        until(lambda: not workspace.busy_with())
    window.start_run()
    until(lambda: not workspace.run.running)
    workspace.run.list_runs()
    workspace.ask(ExportRun(folders[0], "overlay", engine.home / "yesterday.safetensors", 60, {}, False))
    until(lambda: not workspace.busy_with())


def running(window: MainWindow, engine: StandIn) -> None:
    """In the middle of a run."""
    engine.run_list = [*saved(engine), listed(engine.home / "run", "starter", state="running", data="starter")]
    window.workspace.run.list_runs()
    window.start_run()
    until(lambda: bool((record := window.workspace.run.record) and record.step >= 300))
    engine.pace = 0.5


def error(window: MainWindow, engine: StandIn) -> None:
    """All that can fail has failed."""
    workspace = window.workspace
    engine.run_list = saved(engine)
    yesterday = Path(engine.run_list[0].path)
    engine.faults = {name: UserError(text) for name, text in FAULTS.items()}
    engine.faults["noise"] = ZeroDivisionError("float division by zero")
    workspace.look_again()
    for ask in (workspace.find_mask, workspace.find_rate, workspace.probe_noise):
        ask()
        until(lambda: not workspace.busy_with())
    window.start_run()
    until(lambda: not workspace.run.running)
    workspace.ask(ExportRun(yesterday, "overlay", engine.home / "x", 60, {}, False))
    until(lambda: not workspace.busy_with())
    workspace.run.inspect(yesterday)
    until(lambda: not workspace.busy_with() and workspace.of(PreviewData).problem is not None)


STATES: dict[str, Callable[[MainWindow, StandIn], None]] = {
    "empty": empty, "filled": filled, "running": running, "error": error,
}  # fmt: skip


def take(out: Path, state: str, screen: str) -> None:
    """Pictures of every page in one state."""
    QSettings.setDefaultFormat(QSettings.Format.IniFormat)
    QSettings.setPath(QSettings.Format.IniFormat, QSettings.Scope.UserScope, tempfile.mkdtemp())
    make_application()
    theme().apply("light")
    engine = StandIn(Path(tempfile.mkdtemp()) / "runs")
    workspace = Workspace(engine)
    workspace.set_recipe(load("starter"))
    window = MainWindow(workspace)
    window.resize(*SCREENS[screen][1])
    window.show()
    workspace.start()
    until(lambda: workspace.engine_state == "ready" and not workspace.busy_with())
    while window.make_next_page():
        pass
    STATES[state.removesuffix("-chat")](window, engine)
    window.chat.setVisible(state.endswith("-chat"))
    for mode in ("light", "dark"):
        theme().apply(mode)
        for name in PAGES:
            window.go(name)
            wait(600)
            window.grab().save(str(out / f"{state}{screen}-{name}-{mode}.png"))
    engine.pace = 0
    workspace.close(20)
    window.close()


def compose(out: Path, state: str, screen: str) -> None:
    """The sheet: a row for each page, light beside dark."""
    names = [[f"{state}{screen}-{name}-{mode}.png" for mode in ("light", "dark")] for name in PAGES]
    pictures = [[Image.open(out / name) for name in row] for row in names]
    width, height = pictures[0][0].size
    sheet = Image.new("RGB", (2 * width, len(names) * height))
    for y, row in enumerate(pictures):
        for x, picture in enumerate(row):
            sheet.paste(picture, (x * width, y * height))
    sheet.save(out / f"sheet-{state}{screen}.png")


def main() -> None:
    """Each state and size in a process of its own: Qt reads the scale once."""
    out = Path(sys.argv[1])
    if len(sys.argv) > 2:
        take(out, *sys.argv[2:])
        return
    out.mkdir(parents=True, exist_ok=True)
    for screen, (scale, _) in SCREENS.items():
        for state in TAKEN.get(screen, ("filled",)):
            environment = {**os.environ, "QT_SCALE_FACTOR": scale, "HOME": "/home/you"}
            subprocess.run([sys.executable, __file__, str(out), state, screen], env=environment, check=True)
            compose(out, state, screen)


if __name__ == "__main__":
    main()
