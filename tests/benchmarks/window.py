"""How quick the window is: first paint, lateness of a 10 ms timer, changes of the page, frames per second.

Run it with python tests/benchmarks/window.py [PART ...] [SETTING=VALUE ...], where there is no screen under xvfb-run; a
setting such as model.id=FOLDER is one of the run's.

``first`` starts the program ten times and waits for its first paint; ``loading`` watches a timer in the window's thread
while the ML stack is imported, ``run`` from Start to the end of a run and of its export, by what the engine does
meanwhile; ``pages`` goes from page to page during a run; ``frames`` draws 100 000 steps.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

PARTS = ("first", "loading", "run", "pages", "frames")
SETTINGS = ("loop.steps=60", "loop.evaluate_every=30", "data.validation=50", "data.test=50")
FEW = 20  # ticks that tell nothing
SWITCH = 25  # ticks between two changes of the page


def lateness(parts: list[list[float]]) -> dict[str, float]:
    """Milliseconds by which a 10 ms timer came late."""
    late = sorted(max(after - before - 0.010, 0.0) * 1000 for times in parts for before, after in pairwise(times))
    pick = {"p50": late[len(late) // 2], "p99": late[int(len(late) * 0.99)], "worst": late[-1]}
    return {**{name: round(value, 1) for name, value in pick.items()}, "ticks": len(late)}


def watch(part: str, settings: list[str]) -> None:
    """Runs the program in this process and prints what was measured as JSON."""
    from PySide6.QtCore import QEvent, QObject, Qt, QTimer
    from PySide6.QtWidgets import QApplication

    from sparsezo_gui.gui import app
    from sparsezo_gui.gui.main_window import MainWindow
    from sparsezo_gui.gui.pages import PAGES
    from sparsezo_gui.gui.run_requests import ExportRun
    from sparsezo_gui.gui.widgets.basic import Page
    from sparsezo_gui.gui.workspace import Workspace
    from sparsezo_gui.recipe import load, with_settings

    class Watch(QObject):
        """Sees the first paint, then ticks."""

        def __init__(self) -> None:
            super().__init__()
            self.times: dict[str, list[list[float]]] = {}  # of what the engine does, without a gap in each
            self.doing = ""
            self.window: MainWindow | None = None
            self.ticks, self.went, self.switches = 0, 0.0, []
            self.timer = QTimer(self, interval=10, timerType=Qt.TimerType.PreciseTimer)
            self.timer.timeout.connect(self.tick)

        def eventFilter(self, watched: QObject, event: QEvent) -> bool:
            if event.type() == QEvent.Type.Paint:
                if self.window is None and isinstance(watched, MainWindow):
                    self.window = watched
                    self.seen()
                elif self.went and isinstance(watched, Page):
                    QTimer.singleShot(0, self.painted)
            return False

        def seen(self) -> None:
            if part == "first":
                print(json.dumps({"seconds": round(time.time() - float(os.environ["SPAWNED"]), 3)}))
                QTimer.singleShot(200, self.window.close)
            else:
                self.timer.start()

        def painted(self) -> None:
            if self.went:
                self.switches.append(1000 * (time.perf_counter() - self.went))
                self.went = 0.0

        def tick(self) -> None:
            doing = engine_does(self.window.workspace)
            if doing != self.doing:
                self.doing = doing
                self.times.setdefault(doing, []).append([])
            self.times[doing][-1].append(time.perf_counter())
            self.ticks += 1
            if part == "pages" and doing == "tuning" and self.ticks % SWITCH == 0:
                self.went = time.perf_counter()
                self.window.go(list(PAGES)[self.ticks // SWITCH % len(PAGES)])
            if (part == "loading" and doing == "ready") or doing == "done":
                self.end()

        def end(self) -> None:
            workspace, export = self.window.workspace, self.window.workspace.of(ExportRun)
            if part == "run" and export.answer is None:
                folder = workspace.run.record.folder
                if export.problem:
                    raise SystemExit(export.problem.message)
                if not export.busy:
                    workspace.ask(ExportRun(folder, "hf", folder.parent / "exported", None, {}))
                return
            self.timer.stop()
            if part == "pages":
                found = sorted(self.switches)
                told = {"p50": found[len(found) // 2], "p95": found[int(len(found) * 0.95)], "worst": found[-1]}
                print(json.dumps({**{k: round(v, 1) for k, v in told.items()}, "switches": len(found)}), flush=True)
            else:
                late = {doing: lateness(parts) for doing, parts in self.times.items() if sum(map(len, parts)) > FEW}
                print(json.dumps({k: v for k, v in late.items() if k not in ("waiting", "ready", "done")}), flush=True)
            self.window.close()

    def engine_does(workspace: Workspace) -> str:
        """What the engine does, in a word or two."""
        record = workspace.run.record
        if workspace.engine_state != "ready":
            return workspace.engine_state
        if workspace.of(ExportRun).busy:
            return "exporting"
        if record is None or not part_runs:
            return "ready"
        if record.finished or record.state == "failed":
            return "done"
        stage = record.progress.stage if record.progress else ""
        return stage.split(" on ")[0].lower() or {"running": "tuning"}.get(record.state, "preparing")

    part_runs = part in ("run", "pages")
    made = app.make_application()
    seer = Watch()
    QApplication.instance().installEventFilter(seer)
    recipe = with_settings(load("starter"), [*SETTINGS, *settings])
    app.run(app.Options(recipe, autostart=part_runs))
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


def measure(part: str, settings: list[str]) -> dict[str, float]:
    """Runs one part in a fresh process with settings and runs of its own."""
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "SPARSEZO_HOME": home, "XDG_CONFIG_HOME": home, "SPAWNED": str(time.time())}
        words = [sys.executable, str(Path(__file__)), "--inside", part, *settings]
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=900)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if not lines:
        raise SystemExit(f"{part} measured nothing:\n{done.stdout}{done.stderr}")
    return json.loads(lines[-1])


def first(settings: list[str]) -> dict[str, float]:
    """The first paint of ten processes, after one that fills the disk's cache."""
    found = sorted(measure("first", settings)["seconds"] for _ in range(11))[:10]
    return {"median": statistics.median(found), "worst": found[-1]}


def main() -> None:
    """Measures the parts that are named, or all."""
    words = sys.argv[1:]
    if words[:1] == ["--inside"]:
        checkpoints() if words[1] == "frames" else watch(words[1], words[2:])
        return
    settings = [word for word in words if "=" in word]
    for part in [word for word in words if "=" not in word] or PARTS:
        found = first(settings) if part == "first" else measure(part, settings)
        print(f"{part:<10}", json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
