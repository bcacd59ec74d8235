"""Looks: two palettes, one accent, one style sheet, and icons in the theme's colours.

Fusion draws subtle gradients on buttons and fields, so those are drawn flat by the style sheet; everything else follows
the palette. Every distance is a multiple of `GRID`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from PySide6.QtCore import QByteArray, QObject, QRectF, Qt, Signal
from PySide6.QtGui import QColor, QGuiApplication, QIcon, QPainter, QPalette, QPixmap
from PySide6.QtSvg import QSvgRenderer
from PySide6.QtWidgets import QApplication

from sparsezo_gui import resources

GRID = 8
MODES = ("system", "light", "dark")


@dataclass(frozen=True)
class Colours:
    """The colours of one theme; text on `window`, `base` and `accent` has a contrast of at least 4.5."""

    dark: bool
    window: str
    base: str
    raised: str
    text: str
    dim: str
    border: str
    strong_border: str
    accent: str
    accent_hover: str
    on_accent: str
    accent_soft: str
    good: str
    warning: str
    warning_soft: str
    error: str
    error_soft: str
    faint: str  # the raw curve behind the smoothed one
    second: str  # evaluation points


LIGHT = Colours(
    dark=False, window="#f4f5f7", base="#ffffff", raised="#ebedf0", text="#1c2127", dim="#5a636e", border="#d8dce1",
    strong_border="#9aa3ad", accent="#0f5fb8", accent_hover="#0b4f9b", on_accent="#ffffff", accent_soft="#e2edf9",
    good="#1a7240", warning="#8a5200", warning_soft="#fdf1dd", error="#b3261e", error_soft="#fce9e7", faint="#a9c4e4",
    second="#b04a00",
)  # fmt: skip
DARK = Colours(
    dark=True, window="#1b1e23", base="#22262c", raised="#2c3138", text="#e4e7eb", dim="#a0a9b4", border="#383e47",
    strong_border="#68727e", accent="#6cb0ff", accent_hover="#8cc2ff", on_accent="#0c1a2b", accent_soft="#26384f",
    good="#6cc991", warning="#e6b05a", warning_soft="#3b3120", error="#ff8a80", error_soft="#432725", faint="#3f628d",
    second="#f0a060",
)  # fmt: skip


class Theme(QObject):
    """The theme in use. `changed` comes after palette and style sheet were set, for what paints itself."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.mode = "system"
        self.colours = LIGHT
        self.text_scale = 1.0
        self._base_size = 0.0
        self._follows = False

    def apply(self, mode: str, text_scale: float = 1.0) -> None:
        """Sets 'system', 'light' or 'dark', and the text size as a factor of the system's."""
        app = QApplication.instance()
        assert isinstance(app, QApplication)
        hints = QGuiApplication.styleHints()
        if not self._follows:
            self._follows = True
            app.setStyle("Fusion")
            self._base_size = app.font().pointSizeF()
            hints.colorSchemeChanged.connect(self._system_changed)
        self.mode, self.text_scale = mode, text_scale
        schemes = {"light": Qt.ColorScheme.Light, "dark": Qt.ColorScheme.Dark}
        hints.setColorScheme(schemes.get(mode, Qt.ColorScheme.Unknown))
        font = app.font()
        font.setPointSizeF(self._base_size * text_scale)
        app.setFont(font)
        self._paint(app)

    def _system_changed(self) -> None:
        app = QApplication.instance()
        if isinstance(app, QApplication):
            self._paint(app)

    def _paint(self, app: QApplication) -> None:
        is_dark = QGuiApplication.styleHints().colorScheme() == Qt.ColorScheme.Dark
        self.colours = DARK if (self.mode == "dark" or (self.mode == "system" and is_dark)) else LIGHT
        app.setPalette(palette(self.colours))
        app.setStyleSheet(style_sheet(self.colours, self.text_scale))
        self.changed.emit()


@cache
def theme() -> Theme:
    """The one theme of the application."""
    return Theme()


def colours() -> Colours:
    """Colours in use now."""
    return theme().colours


def palette(c: Colours) -> QPalette:
    """Qt palette for what the style sheet does not name."""
    result = QPalette()
    roles = {
        QPalette.ColorRole.Window: c.window, QPalette.ColorRole.WindowText: c.text, QPalette.ColorRole.Base: c.base,
        QPalette.ColorRole.AlternateBase: c.window, QPalette.ColorRole.Text: c.text, QPalette.ColorRole.Button: c.base,
        QPalette.ColorRole.ButtonText: c.text, QPalette.ColorRole.BrightText: c.error,
        QPalette.ColorRole.Highlight: c.accent, QPalette.ColorRole.HighlightedText: c.on_accent,
        QPalette.ColorRole.ToolTipBase: c.raised, QPalette.ColorRole.ToolTipText: c.text,
        QPalette.ColorRole.PlaceholderText: c.dim, QPalette.ColorRole.Link: c.accent,
        QPalette.ColorRole.Mid: c.border, QPalette.ColorRole.Midlight: c.raised,
        QPalette.ColorRole.Dark: c.strong_border,
        QPalette.ColorRole.Light: c.raised, QPalette.ColorRole.Accent: c.accent,
    }  # fmt: skip
    for role, colour in roles.items():
        result.setColor(role, QColor(colour))
    for role in (QPalette.ColorRole.WindowText, QPalette.ColorRole.Text, QPalette.ColorRole.ButtonText):
        result.setColor(QPalette.ColorGroup.Disabled, role, QColor(c.strong_border))
    return result


def style_sheet(c: Colours, scale: float = 1.0) -> str:
    """The application's style sheet."""
    chevron = resources.icon("chevron-down").as_posix()
    check = resources.icon("check-dark" if c.dark else "check-light").as_posix()
    return f"""
QWidget {{ color: {c.text}; }}
QMainWindow, QDialog {{ background: {c.window}; }}
QLabel[role="title"] {{ font-size: {16 * scale:.0f}pt; font-weight: 600; }}
QLabel[role="heading"] {{ font-weight: 600; }}
QLabel[role="dim"], QLabel[role="hint"] {{ color: {c.dim}; }}
QLabel[role="figure"] {{ font-size: {14 * scale:.0f}pt; font-weight: 600; }}
QLabel[role="error"] {{ color: {c.error}; }}
QLabel:disabled {{ color: {c.strong_border}; }}
QFrame[role="card"] {{ background: {c.base}; border: 1px solid {c.border}; border-radius: 6px; }}
QFrame[role="strip"] {{ background: {c.base}; border: 0; border-top: 1px solid {c.border}; }}
QFrame[role="line"] {{ background: {c.border}; border: 0; }}
QFrame[role="banner"] {{ background: {c.accent_soft}; border: 1px solid {c.accent}; border-radius: 6px; }}
QFrame[role="banner"][level="warning"] {{ background: {c.warning_soft}; border-color: {c.warning}; }}
QFrame[role="banner"][level="error"] {{ background: {c.error_soft}; border-color: {c.error}; }}
QLabel[role="badge"] {{ border: 1px solid {c.strong_border}; border-radius: 4px; padding: 1px 8px; font-weight: 600; }}
QLabel[role="badge"][level="fits"] {{ color: {c.good}; border-color: {c.good}; }}
QLabel[role="badge"][level="tight"] {{ color: {c.warning}; border-color: {c.warning}; }}
QLabel[role="badge"][level="large"] {{ color: {c.error}; border-color: {c.error}; }}

QPushButton {{ background: {c.base}; border: 1px solid {c.strong_border}; border-radius: 4px; padding: 5px 16px;
    min-height: 18px; }}
QPushButton:hover {{ background: {c.raised}; }}
QPushButton:pressed {{ background: {c.border}; }}
QPushButton:focus {{ border: 2px solid {c.accent}; padding: 4px 15px; }}
QPushButton:disabled {{ color: {c.strong_border}; border-color: {c.border}; background: {c.window}; }}
QPushButton[role="primary"] {{ background: {c.accent}; color: {c.on_accent}; border: 1px solid {c.accent};
    font-weight: 600; }}
QPushButton[role="primary"]:hover {{ background: {c.accent_hover}; border-color: {c.accent_hover}; }}
QPushButton[role="primary"]:focus {{ border: 2px solid {c.text}; padding: 4px 15px; }}
QPushButton[role="primary"]:disabled {{ background: {c.raised}; color: {c.strong_border}; border-color: {c.border}; }}
QPushButton[role="flat"], QToolButton[role="flat"] {{ background: transparent; border: 1px solid transparent;
    border-radius: 4px; padding: 5px 8px; color: {c.accent}; text-align: left; }}
QPushButton[role="flat"]:hover, QToolButton[role="flat"]:hover {{ background: {c.raised}; }}
QPushButton[role="flat"]:focus, QToolButton[role="flat"]:focus {{ border: 2px solid {c.accent}; padding: 4px 7px; }}
QPushButton[role="flat"]:disabled, QToolButton[role="flat"]:disabled {{ color: {c.strong_border}; }}

QLineEdit, QPlainTextEdit, QTextEdit, QComboBox {{ background: {c.base}; border: 1px solid {c.strong_border};
    border-radius: 4px; padding: 5px 7px; selection-background-color: {c.accent};
    selection-color: {c.on_accent}; }}
QLineEdit:focus, QPlainTextEdit:focus, QTextEdit:focus, QComboBox:focus {{ border: 2px solid {c.accent};
    padding: 4px 6px; }}
QLineEdit, QComboBox {{ min-height: 18px; }}
QLineEdit[fault="true"], QPlainTextEdit[fault="true"] {{ border: 2px solid {c.error}; padding: 4px 6px; }}
QLineEdit:disabled, QComboBox:disabled, QPlainTextEdit:disabled {{ color: {c.strong_border}; border-color: {c.border};
    background: {c.window}; }}
QLineEdit:read-only, QPlainTextEdit[readOnly="true"] {{ border-color: {c.border}; }}
QComboBox::drop-down {{ border: 0; width: 24px; }}
QComboBox::down-arrow {{ image: url({chevron}); width: 16px; height: 16px; }}
QComboBox QAbstractItemView {{ background: {c.base}; border: 1px solid {c.strong_border}; outline: 0;
    selection-background-color: {c.accent}; selection-color: {c.on_accent}; }}

QFrame[role="navigation"] {{ background: {c.window}; border: 0; border-right: 1px solid {c.border}; }}
QToolButton[role="navigation"] {{ background: transparent; border: 2px solid transparent; border-radius: 6px;
    padding: 7px 10px; text-align: left; }}
QToolButton[role="navigation"]:hover {{ background: {c.raised}; }}
QToolButton[role="navigation"]:checked {{ background: {c.accent_soft}; color: {c.accent}; font-weight: 600; }}
QToolButton[role="navigation"]:focus {{ border-color: {c.accent}; }}
QFrame[role="card"][chosen="true"] {{ border-color: {c.accent}; background: {c.accent_soft}; }}
QCheckBox, QRadioButton {{ spacing: 8px; border: 1px solid transparent; border-radius: 4px; padding: 2px; }}
QCheckBox:focus, QRadioButton:focus {{ border-color: {c.accent}; }}
QCheckBox::indicator {{ width: 14px; height: 14px; border: 1px solid {c.strong_border}; border-radius: 3px;
    background: {c.base}; }}
QCheckBox::indicator:checked {{ background: {c.accent}; border-color: {c.accent}; image: url({check}); }}
QRadioButton::indicator {{ width: 14px; height: 14px; border: 1px solid {c.strong_border}; border-radius: 8px;
    background: {c.base}; }}
QRadioButton::indicator:checked {{ width: 6px; height: 6px; border: 5px solid {c.accent}; }}
QCheckBox::indicator:disabled, QRadioButton::indicator:disabled {{ border-color: {c.border}; }}

QAbstractItemView {{ background: {c.base}; alternate-background-color: {c.window}; border: 1px solid {c.border};
    border-radius: 4px; outline: 0; gridline-color: {c.border}; }}
QAbstractItemView:focus {{ border: 2px solid {c.accent}; }}
QListView::item {{ padding: 6px 8px; }}
QTableView::item {{ padding: 2px 8px; }}
QAbstractItemView::item:selected {{ background: {c.accent_soft}; color: {c.text}; }}
QHeaderView {{ background: {c.window}; border: 0; }}
QHeaderView::section {{ background: {c.window}; color: {c.dim}; border: 0; border-bottom: 1px solid {c.border};
    padding: 5px 8px; text-align: left; }}
QTableCornerButton::section {{ background: {c.window}; border: 0; }}

QProgressBar {{ background: {c.raised}; border: 0; border-radius: 4px; max-height: 8px; min-height: 8px; }}
QProgressBar::chunk {{ background: {c.accent}; border-radius: 4px; }}
QScrollArea, QScrollArea > QWidget > QWidget[role="page"] {{ background: {c.window}; border: 0; }}
QScrollBar:vertical {{ background: transparent; width: 12px; margin: 0; }}
QScrollBar:horizontal {{ background: transparent; height: 12px; margin: 0; }}
QScrollBar::handle {{ background: {c.strong_border}; border-radius: 4px; margin: 2px; }}
QScrollBar::handle:vertical {{ min-height: 32px; }}
QScrollBar::handle:horizontal {{ min-width: 32px; }}
QScrollBar::add-line, QScrollBar::sub-line {{ width: 0; height: 0; }}
QScrollBar::add-page, QScrollBar::sub-page {{ background: transparent; }}
QSplitter::handle {{ background: {c.border}; }}
QStatusBar {{ background: {c.window}; border-top: 1px solid {c.border}; }}
QStatusBar::item {{ border: 0; }}
QStatusBar QLabel {{ padding: 2px 8px; color: {c.dim}; }}
QMenuBar {{ background: {c.window}; border-bottom: 1px solid {c.border}; }}
QMenuBar::item {{ padding: 5px 10px; background: transparent; }}
QMenuBar::item:selected {{ background: {c.raised}; }}
QMenu {{ background: {c.base}; border: 1px solid {c.strong_border}; padding: 4px; }}
QMenu::item {{ padding: 5px 24px 5px 24px; border-radius: 4px; }}
QMenu::item:selected {{ background: {c.accent}; color: {c.on_accent}; }}
QMenu::item:disabled {{ color: {c.strong_border}; background: transparent; }}
QMenu::separator {{ height: 1px; background: {c.border}; margin: 4px 8px; }}
QToolTip {{ background: {c.raised}; color: {c.text}; border: 1px solid {c.strong_border}; padding: 4px; }}
"""


def icon(name: str, role: str = "dim") -> QIcon:
    """Bundled SVG icon in a colour of the theme (a field of `Colours`), sharp at every scale."""
    c = colours()
    return _icon(name, getattr(c, role), c.strong_border)


@cache
def _icon(name: str, colour: str, disabled: str) -> QIcon:
    result = QIcon()
    for tint, mode in ((colour, QIcon.Mode.Normal), (disabled, QIcon.Mode.Disabled)):
        source = resources.icon(name).read_bytes().replace(b"#808890", tint.encode())
        renderer = QSvgRenderer(QByteArray(source))
        for size in (16, 20, 24, 32, 48, 64):
            pixmap = QPixmap(size, size)
            pixmap.fill(Qt.GlobalColor.transparent)
            painter = QPainter(pixmap)
            painter.setRenderHint(QPainter.RenderHint.Antialiasing)
            renderer.render(painter, QRectF(0, 0, size, size))
            painter.end()
            result.addPixmap(pixmap, mode)
    return result
