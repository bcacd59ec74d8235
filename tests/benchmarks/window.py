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

from PySide6.QtCore import QEvent, QObject, Qt, QTimer
from PySide6.QtWidgets import QApplication

from sparsezo_gui.gui import app
from sparsezo_gui.gui.main_window import MainWindow
from sparsezo_gui.gui.pages import PAGES
from sparsezo_gui.gui.record import RunRecord
from sparsezo_gui.gui.run_requests import ExportRun
from sparsezo_gui.gui.widgets.basic import Page
from sparsezo_gui.gui.workspace import Workspace
from sparsezo_gui.recipe import load, with_settings

BEGUN = """from sparsezo_gui import start
start.begin()  # as the installed program does
import runpy, sys
runpy.run_path(sys.argv[1], run_name="__main__")
"""
PARTS = ("first", "loading", "run", "pages", "frames")
SETTINGS = ("loop.steps=240", "loop.evaluate_every=80", "data.validation=50", "data.test=50", "update.find_rate=true")
FEW = 20  # ticks that tell nothing
SWITCH = 25  # ticks between two changes of the page
LONGEST = 3600  # seconds of a part
PHASES = {
    "Looking for the model": "loading the model", "Downloading": "loading the model",
    "Loading the model": "loading the model", "Reading data": "reading data", "Preparing examples": "reading data",
    "Trying a learning rate": "finding the rate", "Evaluating": "evaluating",
}  # fmt: skip


def lateness(parts: list[list[float]]) -> dict[str, float]:
    """Milliseconds by which a 10 ms timer came late."""
    late = sorted(max(after - before - 0.010, 0.0) * 1000 for times in parts for before, after in pairwise(times))
    return {**summary(late, p50=0.5, p99=0.99), "ticks": len(late)}


def summary(milliseconds: list[float], **shares: float) -> dict[str, float]:
    """The quantiles at ``shares`` and the worst."""
    found = sorted(milliseconds)
    picked = {name: found[min(int(len(found) * share), len(found) - 1)] for name, share in shares.items()}
    return {name: round(value, 1) for name, value in {**picked, "worst": found[-1]}.items()}


def phase(record: RunRecord) -> str:
    """What a run does, in a word or three."""
    if record.progress is None:
        return "tuning" if record.state == "running" else "preparing"
    stage = record.progress.stage
    usual = "mask search" if record.preparing else "tuning"
    return next((name for begins, name in PHASES.items() if stage.startswith(begins)), usual)


class First(QObject):
    """Waits for the window's first paint."""

    runs = False  # whether the program starts a run

    def __init__(self) -> None:
        super().__init__()
        self.window: MainWindow | None = None

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if event.type() == QEvent.Type.Paint and isinstance(watched, MainWindow):
            QApplication.instance().removeEventFilter(self)
            self.window = watched
            self.seen(watched.workspace)
        return False

    def seen(self, workspace: Workspace) -> None:
        self.end({"seconds": round(time.time() - float(os.environ["SPAWNED"]), 3)}, after=200)

    def end(self, found: dict[str, object], after: int = 0) -> None:
        print(json.dumps(found), flush=True)
        QTimer.singleShot(after, self.window.close)


class Loading(First):
    """Notes when a 10 ms timer comes, by what the engine does, until the engine is loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.times: dict[str, list[list[float]]] = {}  # of what the engine does, one list from its begin to its end
        self.doing = ""
        self.timer = QTimer(self, interval=10, timerType=Qt.TimerType.PreciseTimer)
        self.timer.timeout.connect(self.tick)

    def seen(self, workspace: Workspace) -> None:
        self.timer.start()

    def tick(self) -> None:
        workspace = self.window.workspace
        doing = self.engine_does(workspace) if workspace.engine_state == "ready" else workspace.engine_state
        if doing != self.doing:
            self.doing = doing
            self.times.setdefault(doing, []).append([])
            print(f"{time.strftime('%H:%M:%S')} {doing}", file=sys.stderr, flush=True)
        self.times[doing][-1].append(time.perf_counter())
        if doing in ("done", "failed"):
            self.timer.stop()
            self.end(self.found())

    def engine_does(self, workspace: Workspace) -> str:
        return "done"

    def found(self) -> dict[str, object]:
        return {
            doing: lateness(parts)
            for doing, parts in self.times.items()
            if doing not in ("waiting", "done") and sum(map(len, parts)) > FEW
        }


class Run(Loading):
    """The same to the end of a run and of its export."""

    runs = True

    def engine_does(self, workspace: Workspace) -> str:
        record, export = workspace.run.record, workspace.of(ExportRun)
        problem = workspace.run.problem or export.problem
        if problem is not None:
            print(problem.message, file=sys.stderr)
            return "failed"
        if export.answer is not None:
            return "done"
        if not record.finished or workspace.run.running:
            return phase(record)
        if not export.busy:
            workspace.ask(ExportRun(record.folder, "hf", record.folder.parent / "exported", None, {}))
        return "exporting"


class Pages(Run):
    """Goes from page to page during a run, and measures how long each takes to be painted."""

    def __init__(self) -> None:
        super().__init__()
        self.ticks, self.went, self.name = 0, 0.0, ""
        self.switches: dict[str, list[float]] = {name: [] for name in PAGES}

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if self.went and event.type() == QEvent.Type.Paint and isinstance(watched, Page):
            QTimer.singleShot(0, self.painted)
        return super().eventFilter(watched, event)

    def engine_does(self, workspace: Workspace) -> str:
        doing = super().engine_does(workspace)
        if doing == "exporting":
            return "done"
        self.ticks += 1
        if self.ticks % SWITCH == 0:
            self.name = list(PAGES)[self.ticks // SWITCH % len(PAGES)]
            self.window.page(self.name).installEventFilter(self)
            self.went = time.perf_counter()
            self.window.go(self.name)
        return doing

    def painted(self) -> None:
        if self.went:
            self.switches[self.name].append(1000 * (time.perf_counter() - self.went))
            self.went = 0.0

    def found(self) -> dict[str, object]:
        every = [time for times in self.switches.values() for time in times]
        pages = {name: round(statistics.median(times), 1) for name, times in self.switches.items() if times}
        return {**summary(every, p50=0.5, p95=0.95), "switches": len(every), "median": pages}


INSIDE = {"first": First, "loading": Loading, "run": Run, "pages": Pages}


def watch(part: str, settings: list[str]) -> None:
    """Runs the program in this process and prints what was measured as JSON."""
    made = app.make_application()
    watch = INSIDE[part]()
    QApplication.instance().installEventFilter(watch)
    recipe = with_settings(load("starter"), [*SETTINGS, *settings])
    app.run(app.Options(recipe, autostart=watch.runs))
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
        # An installed program has its bytecode, whatever this shell says.
        kept = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        environment = {**kept, "SPARSEZO_HOME": home, "XDG_CONFIG_HOME": home, "SPAWNED": str(time.time())}
        words = [sys.executable, "-c", BEGUN, str(Path(__file__)), "--inside", part, *settings]
        done = subprocess.run(words, env=environment, stdout=subprocess.PIPE, text=True, timeout=LONGEST)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if not lines or done.returncode:
        raise SystemExit(f"{part} measured nothing:\n{done.stdout}")
    return json.loads(lines[-1])


def first(settings: list[str]) -> dict[str, float]:
    """The first paint of ten processes, after one that fills the disk's cache."""
    found = sorted(measure("first", settings)["seconds"] for _ in range(11))[:10]
    return {"median": statistics.median(found), "worst": found[-1]}


def main() -> None:
    """Measures the parts that are named, or all."""
    if "--inside" in sys.argv:
        part, *settings = sys.argv[sys.argv.index("--inside") + 1 :]
        checkpoints() if part == "frames" else watch(part, settings)
        return
    words = sys.argv[1:]
    settings = [word for word in words if "=" in word]
    for part in [word for word in words if "=" not in word] or PARTS:
        found = first(settings) if part == "first" else measure(part, settings)
        print(f"{part:<10}", json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
