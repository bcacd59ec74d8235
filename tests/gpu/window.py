"""The program's window while the starter is tuned: its memory curve beside what the driver says, as JSON.

python tests/gpu/window.py PICTURE [SETTING…]
"""

from __future__ import annotations

import json
import sys
import threading
import time

from PySide6.QtCore import QEvent, QObject, QTimer
from PySide6.QtWidgets import QApplication

from sparsezo_gui.gui import app
from sparsezo_gui.gui.main_window import MainWindow
from sparsezo_gui.recipe import load, with_settings

SETTINGS = ("loop.steps=400", "loop.evaluate_every=0", "mask.rule=random", "data.validation=50", "data.test=50",
            "model.device=cuda", "run.name=On a GPU")  # fmt: skip


class Watch(QObject):
    """Looks ten times a second, at what is drawn and at the driver's figure, and closes the window in the end."""

    def __init__(self, picture: str, driver: bool) -> None:
        super().__init__()
        self.picture = picture
        self.window: MainWindow | None = None
        self.samples: list[tuple[int, int]] = []  # bytes as drawn, and as the driver says
        self.used = 0
        self.timer = QTimer(self, interval=100)
        self.timer.timeout.connect(self.look)
        if driver:
            threading.Thread(target=self.ask, daemon=True).start()

    def ask(self) -> None:
        """Keeps the driver's figure: bytes of the first GPU that all programs have."""
        import pynvml

        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        self.before = pynvml.nvmlDeviceGetMemoryInfo(handle).used
        while True:
            self.used = pynvml.nvmlDeviceGetMemoryInfo(handle).used - self.before
            time.sleep(0.02)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if self.window is None and event.type() == QEvent.Type.Paint and isinstance(watched, MainWindow):
            self.window = watched
            self.timer.start()
        return False

    def look(self) -> None:
        record = self.window.workspace.run.record
        if record is None:
            return
        drawn = record.columns["memory"]
        if record.state == "running" and len(drawn):
            self.samples.append((int(drawn[-1]), self.used))
        if record.finished:
            self.timer.stop()
            QTimer.singleShot(500, self.end)

    def end(self) -> None:
        record = self.window.workspace.run.record
        self.window.grab().save(self.picture)
        steps, drawn = (values.tolist() for values in self.window.page("run").board._bytes.getOriginalDataset())
        found = {"state": record.state, "step": record.step, "samples": self.samples, "run": str(record.folder),
                 "steps": steps, "gib": drawn}  # fmt: skip
        print(json.dumps(found), flush=True)
        self.window.close()


if __name__ == "__main__":
    made = app.make_application()
    recipe = with_settings(load("starter"), (*SETTINGS, *sys.argv[2:]))
    watch = Watch(sys.argv[1], driver=recipe.model.device == "cuda")
    QApplication.instance().installEventFilter(watch)
    app.run(app.Options(recipe, autostart=True))
