"""How quick the window is: first paint, lateness of a 10 ms timer, frames per second.

Run it with python tests/benchmarks/window.py, where there is no screen under xvfb-run.

``first`` starts the program and waits for its first paint; ``loading`` and ``training`` watch a timer in the window's
thread while the ML stack is imported and while the bundled recipe runs; ``checkpoints`` draws 100 000 steps.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

PARTS = ("first", "loading", "training", "frames")
SETTINGS = ("loop.steps=60", "loop.evaluate_every=30", "mask.rule=random", "data.validation=50", "data.test=50")


def lateness(times: list[float]) -> dict[str, float]:
    """Milliseconds by which a 10 ms timer came late."""
    late = sorted(max(after - before - 0.010, 0.0) * 1000 for before, after in pairwise(times))
    pick = {"p50": late[len(late) // 2], "p99": late[int(len(late) * 0.99)], "worst": late[-1]}
    return {**{name: round(value, 1) for name, value in pick.items()}, "ticks": len(late)}


def watch(part: str) -> None:
    """Runs the program in this process and prints what was measured as JSON."""
    from PySide6.QtCore import QEvent, QObject, Qt, QTimer
    from PySide6.QtWidgets import QApplication

    from sparsezo_gui.gui import app
    from sparsezo_gui.gui.main_window import MainWindow
    from sparsezo_gui.recipe import load, with_settings

    class Watch(QObject):
        """Sees the first paint, then ticks."""

        def __init__(self) -> None:
            super().__init__()
            self.times: list[float] = []
            self.window: MainWindow | None = None
            self.timer = QTimer(self, interval=10, timerType=Qt.TimerType.PreciseTimer)
            self.timer.timeout.connect(self.tick)

        def eventFilter(self, watched: QObject, event: QEvent) -> bool:
            if self.window is None and event.type() == QEvent.Type.Paint and isinstance(watched, MainWindow):
                self.window = watched
                if part == "first":
                    print(json.dumps({"seconds": round(time.time() - float(os.environ["SPAWNED"]), 3)}))
                    QTimer.singleShot(200, watched.close)
                else:
                    self.timer.start()
            return False

        def tick(self) -> None:
            workspace = self.window.workspace
            record = workspace.run.record
            wanted = {"loading": workspace.engine_state == "loading",
                      "training": record is not None and record.state == "running"}[part]  # fmt: skip
            if wanted:
                self.times.append(time.perf_counter())
            done = workspace.engine_state == "ready" if part == "loading" else bool(record and record.finished)
            if done and self.times:
                self.timer.stop()
                print(json.dumps(lateness(self.times)), flush=True)
                self.window.close()

    made = app.make_application()
    seer = Watch()
    QApplication.instance().installEventFilter(seer)
    recipe = with_settings(load("starter"), SETTINGS)
    app.run(app.Options(recipe, autostart=part == "training"))
    del made


def checkpoints() -> None:
    """Draws a run of 100 000 steps that grows by one step a frame."""
    import numpy as np

    from sparsezo_gui.gui.app import make_application
    from sparsezo_gui.gui.plots.board import Board
    from sparsezo_gui.gui.record import RunRecord
    from sparsezo_gui.gui.theme import theme
    from sparsezo_gui.recipe.events import Started, Step

    make_application()
    theme().apply("light")
    board, record, count = Board(), RunRecord(), 100_000
    board.resize(1000, 600)
    board.show()
    noise = np.random.default_rng(0).standard_normal(count)
    record.add([Started("/tmp/run", "long", 1, count, 10**9, 10**9, 10**6, "CPU")])
    record.add(Step(i + 1, 2 + float(noise[i]), float(noise[i]), 1e-3, 0.03, 10**9, 600) for i in range(count))
    board.show_record(record, "Memory")
    board.grab()
    wall, used = time.perf_counter(), time.process_time()
    for frame in range(30):
        record.add([Step(count + 1 + frame, 2.0, 1.0, 1e-3, 0.03, 10**9, 600)])
        board.draw()
        board.grab()
    wall, used = time.perf_counter() - wall, time.process_time() - used
    print(json.dumps({"frames_per_second": round(30 / wall, 1), "of_processor_time": round(30 / used, 1)}))


def measure(part: str) -> dict[str, float]:
    """Runs one part in a fresh process with settings and runs of its own."""
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "SPARSEZO_HOME": home, "XDG_CONFIG_HOME": home, "SPAWNED": str(time.time())}
        done = subprocess.run([sys.executable, str(Path(__file__)), "--inside", part], env=environment,
                              capture_output=True, text=True, timeout=600)  # fmt: skip
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if not lines:
        raise SystemExit(f"{part} measured nothing:\n{done.stdout}{done.stderr}")
    return json.loads(lines[-1])


def main() -> None:
    """Measures the parts that are named, or all."""
    if sys.argv[1:2] == ["--inside"]:
        checkpoints() if sys.argv[2] == "frames" else watch(sys.argv[2])
        return
    for part in sys.argv[1:] or PARTS:
        print(f"{part:<10}", json.dumps(measure(part)), flush=True)


if __name__ == "__main__":
    main()
