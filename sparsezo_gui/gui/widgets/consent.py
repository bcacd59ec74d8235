"""Asks whether the code that comes with a model may run."""

from __future__ import annotations

from PySide6.QtCore import Qt, QUrl
from PySide6.QtGui import QDesktopServices
from PySide6.QtWidgets import QPlainTextEdit, QWidget

from sparsezo_gui.answers import ModelCode
from sparsezo_gui.gui.formatting import size
from sparsezo_gui.gui.theme import GRID
from sparsezo_gui.gui.widgets.basic import button, label, row
from sparsezo_gui.gui.widgets.dialogs import Dialog
from sparsezo_gui.plain import printable


class ConsentDialog(Dialog):
    """Lists the files and their folder. Enter, Escape and closing the dialog all refuse."""

    def __init__(self, code: ModelCode, parent: QWidget) -> None:
        super().__init__("Run the model's code?", parent)
        note = label(
            f"'{printable(code.model)}' needs the Python code that comes with it. This code can do anything that you "
            "can do on this computer. Review the files, and run them only if you trust their author. If a file "
            "changes, you will be asked again.",
            wrap=True,
        )
        note.setMinimumWidth(56 * GRID)
        folder = label("", "dim", wrap=True, name="Folder of the code")
        folder.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        folder.setText(printable(str(code.folder)))
        lines = (f"{printable(name)}  ({size(len(content))})" for name, content in sorted(code.files.items()))
        files = QPlainTextEdit("\n".join(lines), readOnly=True)
        files.setAccessibleName("Code files")
        files.setProperty("role", "code")
        files.setTabChangesFocus(True)
        url = QUrl.fromLocalFile(str(code.folder))
        show = button("Show folder", lambda: QDesktopServices.openUrl(url), name="Show the folder of the code")
        leave = button("Don't run", self.reject, role="primary", name="Do not run the code")
        allow = button("Run code", self.accept, name="Run the code")
        for other in (show, allow):
            other.setAutoDefault(False)
        leave.setDefault(True)
        for part in (note, folder, files):
            self.layout_.addWidget(part)
        self.layout_.addLayout(row(show, None, allow, leave))
        leave.setFocus()
