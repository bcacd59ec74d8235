"""Notifications of the desktop, for what happens while another window is looked at. Nothing comes where there are none.

On Linux they go over D-Bus, as every desktop there takes them, also those without a tray; elsewhere Qt shows them.
"""

from __future__ import annotations

import html
import logging
import sys
import threading
from functools import partial

from PySide6.QtCore import QObject, QTimer
from PySide6.QtWidgets import QApplication, QSystemTrayIcon

from sparsezo_gui import resources

SHOWN_MS = 15_000  # for which the tray has an icon, without which Windows and macOS show no message
SECONDS = 5.0  # for the desktop to take a message
NAME = "org.freedesktop.Notifications"
log = logging.getLogger(__name__)


class Notifications(QObject):
    """Sends messages of an application."""

    def send(self, title: str, text: str) -> None:
        """Shows a message; returns at once."""
        if sys.platform == "linux":
            threading.Thread(target=partial(_over_dbus, title, text), name="notification", daemon=True).start()
        elif QSystemTrayIcon.isSystemTrayAvailable() and QSystemTrayIcon.supportsMessages():
            tray = QSystemTrayIcon(QApplication.windowIcon(), self)
            tray.messageClicked.connect(_raise_window)
            tray.show()
            tray.showMessage(title, text, QApplication.windowIcon())
            QTimer.singleShot(SHOWN_MS, tray, tray.deleteLater)


def _over_dbus(title: str, text: str) -> None:
    try:
        from jeepney import DBusAddress, new_method_call
        from jeepney.io.blocking import open_dbus_connection

        address = DBusAddress("/org/freedesktop/Notifications", bus_name=NAME, interface=NAME)
        icon = resources.icon("sparsezo").as_uri()
        # The text is mark-up, and may quote a stranger. With the desktop file's name, a click finds the window.
        body, hints = html.escape(text, quote=False), {"desktop-entry": ("s", "sparsezo")}
        content = "SparseZO", 0, icon, title, body, list[str](), hints, -1
        with open_dbus_connection("SESSION") as bus:
            bus.send_and_get_reply(new_method_call(address, "Notify", "susssasa{sv}i", content), timeout=SECONDS)
    except Exception as error:  # whatever a desktop lacks, the window says the same
        log.info("no notification: %s", error)


def _raise_window() -> None:
    for window in QApplication.topLevelWidgets():
        if window.isWindow() and window.isVisible():
            window.raise_()
            window.activateWindow()
            return
