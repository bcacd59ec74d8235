"""A new user's walk through the window with the X server's own mouse and keyboard: walk.py OUT [WALK ...]

Needs xdotool and a display; without a screen:

    xvfb-run -s "-screen 0 1280x720x24" python tests/gui/walk.py OUT

``starter`` tunes the bundled model: start, pause, ask, resume, time slider, export, ask the exported file. ``csv`` and
``chat`` count the clicks from the start of the program to the first step with data of one's own; a file dialog that is
opened and answered is one click, typing and turning the wheel count nothing. Every stage leaves a picture in OUT.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from PySide6.QtCore import QObject, QPoint, QRect, QSettings, Qt, Signal
from PySide6.QtWidgets import QApplication, QFileDialog, QScrollArea, QSlider, QWidget

sys.path.insert(0, str(Path(__file__).parents[1]))

from sparsezo_gui.gui import app
from sparsezo_gui.gui.main_window import MainWindow

ALLOWED = {"csv": 6, "chat": 5}  # clicks


class Inside(QObject):
    """Calls something in the window's thread, also while a dialog is open, and waits for its answer."""

    _asked = Signal(object, object)

    def __init__(self) -> None:
        super().__init__()
        self._asked.connect(self._answer, Qt.ConnectionType.QueuedConnection)

    def __call__(self, call: Callable[[], Any]) -> Any:
        answer: Future[Any] = Future()
        self._asked.emit(call, answer)
        return answer.result(60)

    def _answer(self, call: Callable[[], Any], answer: Future[Any]) -> None:
        try:
            answer.set_result(call())
        except Exception as error:
            answer.set_exception(error)


def xdotool(*words: object) -> None:
    """One command to the X server."""
    subprocess.run(["xdotool", *map(str, words)], check=True)
    time.sleep(0.1)


class Walker:
    """A hand with a mouse, a keyboard and a counter of clicks, in a thread of its own."""

    def __init__(self, out: Path) -> None:
        self.out, self.clicks, self.pictures, self.inside = out, 0, 0, Inside()

    @property
    def window(self) -> MainWindow:
        """The main window."""
        return next(w for w in QApplication.topLevelWidgets() if isinstance(w, MainWindow))

    def until(self, done: Callable[[], object], what: str, seconds: int = 60) -> None:
        """Waits until something is so in the window."""
        for _ in range(5 * seconds):
            if self.inside(done):
                return
            time.sleep(0.2)
        raise RuntimeError(f"Waited {seconds} s for this: {what}")

    def find(self, name: str) -> QWidget | None:
        """The visible control of this accessible name."""
        found = [w for top in QApplication.topLevelWidgets() for w in top.findChildren(QWidget)
                 if w.accessibleName() == name and w.isVisible()]  # fmt: skip
        return found[0] if found else None

    def place(self, name: str) -> tuple[QPoint, QRect | None]:
        """The middle of a control on the screen, and the part of its page that is in view."""
        widget = self.find(name)
        assert widget is not None
        area = widget.parentWidget()
        while area is not None and not isinstance(area, QScrollArea):
            area = area.parentWidget()
        shown = QRect(area.viewport().mapToGlobal(QPoint(0, 0)), area.viewport().size()) if area else None
        return centre(widget), shown

    def see(self, name: str) -> QPoint:
        """Waits for an enabled control and turns the wheel until it is in view."""
        self.until(lambda: (w := self.find(name)) is not None and w.isEnabled(), f"{name!r} to be enabled")
        for _ in range(60):
            middle, shown = self.inside(lambda: self.place(name))
            if shown is None or shown.contains(middle):
                return middle
            xdotool("mousemove", shown.right() - 4, shown.center().y())
            xdotool("click", 5 if middle.y() > shown.center().y() else 4)
        raise RuntimeError(f"{name!r} does not come into view")

    def click(self, name: str, counts: bool = True) -> None:
        """Moves the mouse to a control and presses it."""
        point = self.see(name)
        xdotool("mousemove", point.x(), point.y(), "click", 1)
        self.clicks += counts

    def type(self, text: str) -> None:
        """Types into what has the focus."""
        xdotool("type", "--delay", 15, text)

    def key(self, name: str) -> None:
        """Presses a key."""
        xdotool("key", name)

    def choose(self, name: str, path: Path) -> None:
        """Opens a file dialog by its button and answers it."""
        self.click(name)
        self.until(self.dialog_is_open, f"the dialog of {name!r}")
        self.inside(lambda: QApplication.clipboard().setText(str(path)))  # completion would eat keys typed this fast
        self.key("ctrl+v")
        self.key("Return")
        self.until(lambda: not self.dialog_is_open(), "the dialog to close")

    def dialog_is_open(self) -> bool:
        """Whether a file dialog is."""
        return any(isinstance(w, QFileDialog) and w.isVisible() for w in QApplication.topLevelWidgets())

    def drag(self, name: str, share: float) -> None:
        """Pulls the handle of a slider to a share of its way."""
        y = self.see(name).y()

        def way() -> tuple[int, int, float]:
            slider = self.find(name)
            assert isinstance(slider, QSlider)
            return (slider.mapToGlobal(QPoint(8, 0)).x(), slider.width() - 16, slider.value() / slider.maximum())

        left, width, now = self.inside(way)
        xdotool("mousemove", int(left + now * width), y, "mousedown", 1)
        for part in range(1, 6):
            xdotool("mousemove", int(left + (now + (share - now) * part / 5) * width), y)
        xdotool("mouseup", 1)
        self.clicks += 1

    def look(self, name: str) -> None:
        """Takes a picture of the screen."""
        time.sleep(0.5)
        self.pictures += 1
        path = str(self.out / f"{self.pictures:02} {name}.png")
        self.inside(lambda: QApplication.primaryScreen().grabWindow(0).save(path))

    def begin(self) -> None:
        """Waits for the engine, and skips the tour of the first start, which is offered once in a life."""
        self.until(lambda: self.window.workspace.engine_state == "ready", "the engine", 300)
        if self.inside(lambda: self.find("Skip the tour")):
            self.click("Skip the tour", counts=False)

    def until_step(self, step: int) -> None:
        """Waits for a step of the run that is shown."""

        def reached() -> bool:
            record = self.window.workspace.run.record
            return record is not None and record.step >= step

        self.until(reached, f"step {step}", 1200)


def centre(widget: QWidget) -> QPoint:
    """The middle of a control on the screen."""
    return widget.mapToGlobal(widget.rect().center())


def starter(walker: Walker, _: Path) -> None:
    """From the first start to an answer of the exported file."""
    walker.begin()
    walker.look("start")
    walker.click("Start run")
    walker.until_step(100)
    walker.look("tuning")
    walker.click("Pause run")
    walker.until(lambda: walker.find("Resume run"), "the run to pause")
    walker.key("ctrl+j")
    walker.click("Prompt")
    walker.type("Arsenal won the match and the fans went home.")
    walker.click("Ask the model")
    walker.until(lambda: walker.find("Copy the answers"), "an answer")
    walker.look("chat while paused")
    walker.key("ctrl+j")
    walker.click("Resume run")
    walker.until_step(200)
    walker.click("Stop run")
    walker.until(lambda: not walker.window.workspace.run.running, "the run to stop")
    walker.look("stopped")
    walker.click("Go to Runs")
    walker.drag("Step, slider", 0.5)
    walker.look("time slider")
    walker.click("Export this step")
    walker.look("export")
    walker.click("Export now")
    walker.until(lambda: walker.find("Ask the exported file"), "the export", 300)
    walker.click("Prompt for the exported file")
    walker.type("The striker scored twice.")
    walker.click("Ask the exported file")
    walker.until(lambda: walker.find("Answer of the exported file"), "its answer", 300)
    walker.look("exported")


def own_csv(walker: Walker, folder: Path) -> None:
    """A table of one's own on the bundled model."""
    path = folder / "reviews.csv"
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["review", "verdict"])
        table.writerows([f"film number {n} was {'a joy' if n % 2 else 'a bore'}", "good" if n % 2 else "bad"]
                        for n in range(300))  # fmt: skip
    walker.begin()
    walker.click("Go to Data")
    walker.choose("Choose a data file", path)
    walker.click("Use suggestion")  # of the column of the answers
    walker.look("table")
    walker.click("Start run")
    walker.until_step(1)
    walker.look("table runs")


def own_chat(walker: Walker, folder: Path) -> None:
    """Instructions of one's own on a chat model in a folder."""
    model, path = folder / "my-chat-model", folder / "instructions.jsonl"
    with path.open("w") as file:
        for n in range(200):
            file.write(json.dumps({"instruction": f"Say the number {n}.", "response": f"The number is {n}."}) + "\n")
    walker.begin()
    walker.choose("Choose a model folder", model)
    walker.look("chat model")
    walker.click("Go to Data")
    walker.choose("Choose a data file", path)
    walker.click("Use this task")
    walker.look("instructions")
    walker.click("Start run")
    walker.until_step(1)
    walker.look("instructions run")


WALKS = {"starter": starter, "csv": own_csv, "chat": own_chat}


def walk(name: str, out: Path) -> int:
    """One walk in this process, from a fresh home; the exit code is 1 where it cannot be walked."""
    folder = Path(os.environ["SPARSEZO_HOME"])
    QSettings.setDefaultFormat(QSettings.Format.IniFormat)
    QSettings.setPath(QSettings.Format.IniFormat, QSettings.Scope.UserScope, str(folder))
    QApplication.setAttribute(Qt.ApplicationAttribute.AA_DontUseNativeDialogs)
    application = app.make_application()
    if name == "chat":
        from models import CHAT_TEMPLATE, tiny

        tiny("llama", folder / "my-chat-model", chat_template=CHAT_TEMPLATE)
    walker = Walker(out)
    told: list[str] = []

    def go() -> None:
        time.sleep(0.5)
        try:
            WALKS[name](walker, folder)
        except Exception as error:
            told.append(f"{name}: {error}")
            walker.look("failed")
        walker.inside(close)

    def close() -> None:
        run = walker.window.workspace.run
        if run.running and not run.inspecting:
            walker.window.stop_and_close()
        else:
            walker.window.close()

    thread = threading.Thread(target=go)
    thread.start()
    app.run(app.Options())
    thread.join(10)
    del application
    if walker.clicks > ALLOWED.get(name, walker.clicks):
        told.append(f"{name}: more than {ALLOWED[name]} clicks")
    print(*told, f"{name}: {walker.clicks} clicks", sep="\n", flush=True)
    return int(bool(told))


def main() -> int:
    """Each walk in a process and a home of its own."""
    out = Path(sys.argv[1]).absolute()
    if sys.argv[2:3] == ["--inside"]:
        return walk(sys.argv[3], out)
    codes = []
    for name in sys.argv[2:] or WALKS:
        (out / name).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as home:
            environment = {
                **os.environ,
                "SPARSEZO_HOME": home,
                "XDG_CONFIG_HOME": home,
                "HOME": home,
                "HF_HUB_OFFLINE": "1",
            }
            words = [sys.executable, __file__, str(out / name), "--inside", name]
            codes.append(subprocess.run(words, env=environment).returncode)
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
