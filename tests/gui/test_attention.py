"""What tells of a run while the window is not looked at, on a session bus of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from queue import SimpleQueue

import pytest
from jeepney import HeaderFields, MessageType, new_error, new_method_return
from jeepney.bus_messages import message_bus
from jeepney.io.blocking import open_dbus_connection
from PySide6.QtGui import QAction

from sparsezo_gui.errors import UserError
from sparsezo_gui.gui.attention import AWAKE, NOTIFY
from sparsezo_gui.recipe import events as e

SERVED = ("org.freedesktop.Notifications", "org.freedesktop.PowerManagement")
METHODS = ("Notify", "Inhibit", "UnInhibit")
pytestmark = pytest.mark.skipif(not shutil.which("dbus-daemon"), reason="no session bus can be started here")


@pytest.fixture
def desktop(monkeypatch):
    """The arguments of the calls that a desktop gets, by method."""
    command = ["dbus-daemon", "--session", "--nofork", "--print-address"]
    daemon = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", daemon.stdout.readline().strip())
    calls = {method: SimpleQueue() for method in METHODS}
    bus = open_dbus_connection("SESSION")
    for name in SERVED:
        bus.send_and_get_reply(message_bus.RequestName(name))
    server = threading.Thread(target=_serve, args=(bus, calls), daemon=True)
    server.start()
    yield calls
    daemon.kill()
    daemon.wait()
    daemon.stdout.close()
    server.join(60)
    bus.close()


def _serve(bus, calls):
    while True:
        try:
            message = bus.receive()
        except (OSError, ConnectionError):
            return
        if message.header.message_type is not MessageType.method_call:
            continue
        method = message.header.fields[HeaderFields.member]
        if method in METHODS:
            calls[method].put(message.body)
            bus.send(new_method_return(message, *(() if method == "UnInhibit" else ("u", (7,)))))
        else:
            bus.send(new_error(message, "org.freedesktop.DBus.Error.UnknownMethod"))


def named(calls, method):
    """The arguments of the next call of that name."""
    return calls[method].get(timeout=60)


def silent(calls, *methods):
    """Whether none of these came, once all that was begun is done."""
    for thread in threading.enumerate():
        if thread.name in ("notification", "awake"):
            thread.join(60)
    return all(calls[method].empty() for method in methods)


@pytest.fixture
def elsewhere(window, monkeypatch):
    """Another window is looked at."""
    monkeypatch.setattr(type(window), "isActiveWindow", lambda self: False)


def switch(window, title):
    (action,) = [each for each in window.findChildren(QAction) if each.text().replace("&", "") == title]
    return action


def run(workspace, qtbot, steps=20):
    workspace.change("loop", steps=steps)
    workspace.train()
    qtbot.waitUntil(lambda: not workspace.run.running)


def test_the_end_of_a_run_is_notified_and_the_computer_kept_awake_until_then(desktop, elsewhere, workspace, qtbot):
    workspace.change("run", name="mails <b>")
    run(workspace, qtbot)
    assert named(desktop, "Inhibit")[0]
    name, _, icon, title, text, _, hints, _ = named(desktop, "Notify")
    assert (name, title, text) == ("SparseZO", "mails <b>: finished", "After step 20 of 20.")
    assert icon.startswith("file://") and hints["desktop-entry"][1] == "sparsezo"
    assert named(desktop, "UnInhibit") == (7,)


def test_an_error_is_notified(desktop, elsewhere, workspace, engine, qtbot):
    engine.faults["step"] = UserError("The loss is not finite.")
    run(workspace, qtbot)
    assert named(desktop, "Notify")[3] == "starter: failed"


def test_a_full_disk_is_notified_once(desktop, elsewhere, window, workspace, engine, qtbot):
    engine.pace = 0.01
    workspace.change("loop", steps=5000)
    workspace.train()
    qtbot.waitUntil(lambda: workspace.run.record is not None and workspace.run.record.state == "running")
    step = workspace.run.record.step
    for _ in range(2):
        workspace.run._take([e.Paused(step, "the disk is full")])
    assert named(desktop, "Notify")[3] == "starter: waiting: the disk is full"
    workspace.run._take([e.Resumed(step)])
    window.page("run").stop()
    qtbot.waitUntil(lambda: not workspace.run.running)
    assert named(desktop, "Notify")[3] == "starter: stopped" and silent(desktop, "Notify")


def test_both_can_be_turned_off_and_stay_off(desktop, elsewhere, window, workspace, qtbot):
    for title, setting in (("Notify when a run ends", NOTIFY), ("Keep the computer awake during a run", AWAKE)):
        action = switch(window, title)
        assert action.isChecked() and action.isCheckable()
        action.trigger()
        assert workspace.store.value(setting, True, bool) is False
    run(workspace, qtbot)
    assert not window.attention.awake.held and silent(desktop, "Notify", "Inhibit")


def test_on_battery_the_computer_may_sleep(desktop, elsewhere, window, workspace, engine, qtbot, monkeypatch):
    monkeypatch.setattr("sparsezo_gui.gui.attention.on_mains", lambda: False)
    run(workspace, qtbot)
    assert named(desktop, "Notify")[3] == "starter: finished" and silent(desktop, "Inhibit")


def test_a_window_that_is_looked_at_notifies_nothing(desktop, window, workspace, qtbot, monkeypatch):
    monkeypatch.setattr(type(window), "isActiveWindow", lambda self: True)
    run(workspace, qtbot)
    assert named(desktop, "Inhibit") and named(desktop, "UnInhibit") and silent(desktop, "Notify")


def test_without_a_desktop_nothing_is_said(elsewhere, window, workspace, qtbot, caplog):
    run(workspace, qtbot)
    assert window.page("model").banner.text == "starter: finished after step 20 of 20."


def test_the_title_carries_the_percentage_while_a_run_goes(window, workspace, engine, qtbot, tmp_path):
    assert window.windowTitle() == "SparseZO"
    window.workspace.set_recipe(workspace.recipe, tmp_path / "mails.toml")
    workspace.change("loop", steps=200)
    engine.pace = 0.01
    workspace.train()
    qtbot.waitUntil(lambda: workspace.run.record is not None and workspace.run.record.step > 2)
    window.page("run").pause_or_resume()
    qtbot.waitUntil(lambda: workspace.run.record.state == "paused")
    assert window.windowTitle() == f"{workspace.run.record.step // 2} % – mails.toml – SparseZO"
    window.page("run").stop()
    qtbot.waitUntil(lambda: not workspace.run.running)
    assert window.windowTitle() == "mails.toml – SparseZO"


def test_importing_the_window_loads_neither_of_their_libraries():
    code = "import sys, sparsezo_gui.gui.main_window; print({'jeepney', 'wakepy', 'psutil'} & sys.modules.keys())"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"
