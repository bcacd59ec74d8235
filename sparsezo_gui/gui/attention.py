"""What tells of a run while its page, or the window, is not looked at; and what keeps the computer awake for it."""

from __future__ import annotations

from PySide6.QtCore import QEvent, QObject, QSettings, QTimer
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QApplication, QWidget

from sparsezo_gui.gui.awake import Awake, on_mains
from sparsezo_gui.gui.formatting import out_of
from sparsezo_gui.gui.notifications import Notifications
from sparsezo_gui.gui.record import STATES, RunRecord
from sparsezo_gui.gui.widgets.safe_text import safe_name, window_title
from sparsezo_gui.gui.workspace import Workspace

NOTIFY, AWAKE = "notify", "keep_awake"  # settings, both on unless the user turns them off
POWER_MS = 30_000  # between two looks at the power supply


def wanted(store: QSettings, setting: str) -> bool:
    """Whether ``setting`` is on."""
    return bool(store.value(setting, True, bool))


class Attention(QObject):
    """Title, badge, notifications and sleep follow the run."""

    def __init__(self, window: QWidget, workspace: Workspace, notifications: Notifications | None = None) -> None:
        super().__init__(window)
        self._window, self._workspace = window, workspace
        self._notifications = notifications or Notifications(self)
        self.awake = Awake()
        self._busy = self._stuck = False
        self._power = QTimer(self, interval=POWER_MS)
        self._power.timeout.connect(self._hold)
        for signal in (workspace.run.changed, workspace.run.advanced, workspace.recipe_changed):
            signal.connect(self.follow)
        window.installEventFilter(self)
        self.follow()

    def follow(self) -> None:
        """Shows how far the run is, and tells if it ended or waits for the user."""
        run, record = self._workspace.run, self._workspace.run.record
        busy = record is not None and record.active and not (run.inspecting or run.waits)
        stuck = busy and record is not None and record.state == "waiting" and "disk" in record.reason
        if record is not None and self._busy and not busy:
            self._tell(record, STATES[record.state].lower())
        elif record is not None and stuck and not self._stuck:
            self._tell(record, f"waiting: {record.reason}")
        if busy != self._busy:
            (self._power.start if busy else self._power.stop)()
            self._busy = busy
            self._hold()
        self._stuck = stuck
        self._show_title(record if busy else None)

    def set_wanted(self, setting: str, on: bool) -> None:
        """Saves what the user wants."""
        self._workspace.store.setValue(setting, on)
        self._hold()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """The badge goes when the window is looked at."""
        if event.type() == QEvent.Type.WindowActivate:
            _show_badge(0)
        return False

    def _hold(self) -> None:
        """Only with mains power: on its battery, a computer that sleeps saves the run's last step and its own power."""
        self.awake.hold(self._busy and wanted(self._workspace.store, AWAKE) and on_mains())

    def _tell(self, record: RunRecord, state: str) -> None:
        QApplication.alert(self._window)
        if not self._window.isActiveWindow():
            _show_badge(1)
            if wanted(self._workspace.store, NOTIFY):
                after = f"After step {out_of(record.step, record.steps)}."
                self._notifications.send(safe_name(f"{record.name or 'Run'}: {state}"), after)

    def _show_title(self, record: RunRecord | None) -> None:
        path = self._workspace.recipe_path
        done = f"{100 * record.step // record.steps} % – " if record is not None and record.steps else ""
        title = window_title(f"{done}{path.name} – SparseZO") if path else f"{done}SparseZO"
        if title != self._window.windowTitle():
            self._window.setWindowTitle(title)


def _show_badge(number: int) -> None:
    """On the icon in the dock or taskbar, where there is one; 0 for none."""
    app = QGuiApplication.instance()
    if isinstance(app, QGuiApplication):
        app.setBadgeNumber(number)
