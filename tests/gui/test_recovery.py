"""A window that is killed or crashes: the next one tells, keeps a report without secrets, and resumes the run."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QLabel, QPlainTextEdit, QPushButton
from standin import listed, past

from sparsezo_gui import __version__, crashes
from sparsezo_gui.answers import Crash
from sparsezo_gui.crashes import CRASH, LOG, REPORTS, RUN, WINDOWS, Recorder, collect, recording
from sparsezo_gui.engine import training
from sparsezo_gui.engine.runs import journal
from sparsezo_gui.gui.app import Options, Startup
from sparsezo_gui.gui.formatting import out_of
from sparsezo_gui.gui.main_window import MainWindow
from sparsezo_gui.gui.recovery import Recovery
from sparsezo_gui.gui.requests import FindCrashes
from sparsezo_gui.gui.workspace import Workspace
from sparsezo_gui.recipe import load
from sparsezo_gui.recipe.events import Preparing
from tests.models import small_recipe

BUSY = 300_000  # ms that the engine may take to load on a busy computer
TOKEN = "hf_" + "a1B2" * 8
RECIPE = """max_tokens = 32
[mask]
rule = "random"
density = 0.01
[update]
learning_rate = 1e-3
[loop]
steps = 100000
batch_size = 2
evaluate_every = 0
[run]
name = "small"
"""


@contextmanager
def program(*arguments, folder):
    """The window as a process of its own, killed in the end."""
    variables = {**os.environ, "XDG_CONFIG_HOME": str(folder), "QT_QPA_PLATFORM": "offscreen"}
    command = [sys.executable, "-m", "sparsezo_gui", *map(str, arguments)]
    process = subprocess.Popen(command, env=variables, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_for(something, process):
    end = time.monotonic() + BUSY / 1000
    while not (found := something()):
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.05)
    return found


def left_behind(home, name="1-1", run=None):
    """The folder of a window whose process is gone."""
    folder = home / WINDOWS / name
    folder.mkdir(parents=True)
    (folder / CRASH).write_text("SparseZO 0.0.1, Python 3.11\n")
    (folder / LOG).write_text(f"asked: loading the engine\nfailed with token={TOKEN}\x1b[2J\n")
    if run:
        (folder / RUN).write_text(str(run))
    return folder


@pytest.fixture
def open_again():
    """``open_again()``: workspace and window of the real program, as it starts."""
    made = []

    def begin():
        workspace = Workspace()
        window = MainWindow(workspace)
        made.append((workspace, window))
        Recovery(window, Recorder(None))
        Startup(window, Options())
        window.show()
        return workspace, window

    yield begin
    for workspace, window in made:
        assert workspace.close(60)
        window.close()
        window.deleteLater()


@pytest.mark.slow
def test_a_killed_window_is_told_and_its_run_resumed(home, tmp_path, open_again, qtbot):
    recipe = small_recipe(tmp_path, RECIPE)

    def trained():
        return [path for path in home.glob("runs/*/journal.bin") if journal.position(path).step > 20]

    with program(recipe, "--autostart", folder=tmp_path) as process:
        (path,) = wait_for(trained, process)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    step = journal.position(path).step

    workspace, window = open_again()
    banner = window.page("run").banner

    def press(name, where):
        (found,) = [part for part in where.findChildren(object) if getattr(part, "accessibleName", str)() == name]
        assert found.isVisible() and found.isEnabled()
        found.click()

    qtbot.waitUntil(banner.isVisible)
    assert banner.text.startswith("SparseZO ended unexpectedly during the run 'small")
    assert f"{out_of(step, 100_000)} steps are saved" in banner.text
    press("Resume", banner)  # while the engine is still loading
    qtbot.waitUntil(lambda: workspace.run.record.step > step, timeout=BUSY)
    assert workspace.run.record.folder == path.parent and window.page("run").isVisible()
    press("Stop run", window.page("run"))
    qtbot.waitUntil(lambda: not workspace.run.running)
    found = journal.read(path)
    assert not found.fault and found.step > step
    (report,) = (home / REPORTS).glob("*.txt")
    text = report.read_text()
    assert f"Run: {path.parent}, step {step} of 100000" in text and "asked: training" in text
    assert crashes.NO_TRACE in text and "Python: " in text
    assert not list((home / WINDOWS).iterdir())


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals are those of POSIX")
def test_a_fatal_error_leaves_where_it_happened(home, tmp_path):
    with program(folder=tmp_path) as process:
        wait_for(lambda: [path for path in home.glob(f"{WINDOWS}/*/{LOG}") if "asked" in path.read_text()], process)
        assert collect() == []  # it lives
        process.send_signal(signal.SIGSEGV)
        assert process.wait() == -signal.SIGSEGV
    (crash,) = collect()
    assert crash.run is None and crash.report.read_text() == crash.text
    assert crash.text.startswith(f"SparseZO {__version__}, Python ")
    assert "Fatal Python error: Segmentation fault" in crash.text and "gui/app.py" in crash.text
    assert collect() == []  # each is told once


@pytest.mark.slow
def test_a_window_that_is_closed_leaves_nothing(home, tmp_path):
    with program(folder=tmp_path) as process:
        wait_for(lambda: [path for path in home.glob(f"{WINDOWS}/*/{LOG}") if "asked" in path.read_text()], process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert not list((home / WINDOWS).iterdir()) and not (home / REPORTS).exists()


def test_a_report_has_no_secrets_and_controls_no_terminal(home):
    left_behind(home)
    (crash,) = collect()
    assert TOKEN not in crash.text and "token=•••" in crash.text and "\x1b" not in crash.text
    assert crash.report.stat().st_mode & 0o077 == 0 and crash.report.read_text() == crash.text


def test_reports_are_few_and_short(home):
    (home / REPORTS).mkdir(parents=True)
    for day in range(1, 30):
        (home / REPORTS / f"202001{day:02}-000000.txt").write_text("old")
    (left_behind(home) / LOG).write_text("more\n" * 100_000)
    (crash,) = collect()
    kept = sorted(path.name for path in (home / REPORTS).iterdir())
    assert len(kept) == crashes.KEPT and kept[-1] == crash.report.name
    assert crash.text.count("more") == crashes.LINES


def test_a_long_trace_keeps_where_it_began(home):
    (left_behind(home) / CRASH).write_text("SparseZO 0.0.1\nFatal Python error: Aborted\n" + "  File x\n" * 500)
    (crash,) = collect()
    assert crash.text.startswith("SparseZO 0.0.1\n") and "Fatal Python error: Aborted\n" in crash.text


def test_nothing_of_others_is_removed(home, tmp_path):
    (home / REPORTS).mkdir(parents=True)
    others = [home / WINDOWS / "System32" / "a.dll", tmp_path / "elsewhere" / "a", home / REPORTS / "0-my-notes.txt"]
    for path in others:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (home / WINDOWS / "1-2").symlink_to(tmp_path / "elsewhere")
    for day in range(1, 32):
        (home / REPORTS / f"202001{day:02}-000000.txt").write_text("old")
    left_behind(home)
    assert len(collect()) == 1
    assert all(path.exists() for path in others)
    assert len(list((home / REPORTS).iterdir())) == crashes.KEPT + 1


def test_only_a_run_that_can_be_resumed_is_offered(home, tmp_path):
    left_behind(home, "1-1", run=tmp_path / "gone")
    left_behind(home, "1-2")
    assert [crash.run for crash in collect()] == [None, None]


def test_a_run_that_was_being_prepared_is_offered(home, tmp_path):
    events = training.train(load(small_recipe(tmp_path, RECIPE)), folder=tmp_path / "run")
    next(event for event in events if isinstance(event, Preparing))
    left_behind(home, run=tmp_path / "run")
    assert [crash.run for crash in collect()] == [None]  # it is still being prepared
    events.close()
    left_behind(home, run=tmp_path / "run")
    assert [crash.run.state for crash in collect()] == ["interrupted"]


def test_warnings_are_noted_and_full_disks_cost_nothing(home):
    with recording() as recorder:
        logging.getLogger("library").warning("Something is odd")
        assert "Something is odd" in (recorder.folder / LOG).read_text()
        recorder.note_run(Path("/a/run"))
        assert (recorder.folder / RUN).read_text() == "/a/run"
        recorder.note_run(None)
        assert not (recorder.folder / RUN).exists()
    assert not recorder.folder.exists()
    home.joinpath(WINDOWS).rmdir()
    home.joinpath(WINDOWS).write_text("a file where the folder should be")
    with recording() as recorder:
        recorder.note_run(Path("/a/run"))
        assert recorder.folder is None


@pytest.fixture
def recovering(window, engine, workspace, qtbot):
    """``recovering(crash)``: the window after it was told of a crash."""

    def told(crash):
        Recovery(window, Recorder(None))
        engine.left = [crash]
        workspace.ask(FindCrashes())
        qtbot.waitUntil(lambda: workspace.of(FindCrashes).answer == [crash])

    return told


def test_a_crash_without_a_run_is_told_where_the_user_is(window, recovering, find, click, tmp_path):
    window.go("data")
    recovering(Crash(tmp_path / "r.txt", "Fatal Python error"))
    banner = window.page("data").banner
    assert "copy the details into a bug report" in find("Message", QLabel, banner).text()
    click("Details", banner)
    assert find("Details", QPlainTextEdit, banner).toPlainText().endswith("r.txt\n\nFatal Python error")


@pytest.mark.parametrize(("run", "said"), [
    ({}, f"during the run 'yesterday'. {out_of(100, 2000)} steps are saved."),
    ({"step": 0, "state": "interrupted"}, "while it prepared the run 'yesterday'. What it had found by then is saved."),
])  # fmt: skip
def test_a_run_that_was_interrupted_is_shown_and_offered(window, recovering, engine, workspace, click, qtbot, tmp_path,
                                                         run, said):  # fmt: skip
    run = listed(tmp_path / "yesterday", **run)
    engine.run_list, engine.histories = [run], {tmp_path / "yesterday": past()}
    recovering(Crash(tmp_path / "r.txt", "Fatal Python error", run))
    qtbot.waitUntil(window.page("run").banner.isVisible)
    assert window.page("run").banner.text == f"SparseZO ended unexpectedly {said}"
    click("Resume", window.page("run").banner)
    qtbot.waitUntil(lambda: workspace.run.record.state == "running")
    click("Stop run")
    qtbot.waitUntil(lambda: not workspace.run.running)


def test_an_interrupted_run_is_offered_at_the_start(reopened, qtbot):
    window, _ = reopened
    Recovery(window, Recorder(None))
    window.workspace.start()
    banner = window.page("model").banner
    qtbot.waitUntil(lambda: banner.text == f"yesterday was interrupted after step {out_of(100, 2000)}.")
    (resume,) = (b for b in banner.findChildren(QPushButton) if b.text() == "Resume")
    qtbot.mouseClick(resume, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: window.workspace.run.record.step > 100)
    assert window.page("run").isVisible()


def test_what_a_crash_left_stays_in_sight_when_the_engine_is_loaded(reopened, engine, qtbot, tmp_path):
    window, folder = reopened
    engine.left = [Crash(tmp_path / "r.txt", "Fatal Python error", listed(folder, "yesterday"))]
    Recovery(window, Recorder(None))
    window.workspace.start()
    banner = window.page("run").banner
    told = "SparseZO ended unexpectedly during the run 'yesterday'."
    qtbot.waitUntil(lambda: banner.text.startswith(told))
    qtbot.waitUntil(lambda: window.workspace.engine_state == "ready" and window.workspace.memory is not None)
    assert window.workspace.run.record.state == "interrupted"
    assert banner.text.startswith(told)
    assert window.page("run").isVisible()
    assert not window.page("model").banner.text
