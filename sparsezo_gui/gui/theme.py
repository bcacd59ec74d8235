"""Appearance: two palettes, one accent, one style sheet, and icons in the theme's colours.

Fusion draws subtle gradients on buttons and fields, so the style sheet draws those flat; everything else follows the
palette. Every distance is a multiple of `GRID`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

from PySide6.QtCore import QByteArray, QObject, QRectF, QSettings, Qt, Signal
from PySide6.QtGui import QColor, QFont, QFontDatabase, QGuiApplication, QIcon, QPainter, QPalette, QPixmap
from PySide6.QtSvg import QSvgRenderer
from PySide6.QtWidgets import QApplication

from sparsezo_gui import resources
from sparsezo_gui.gui.style import STYLE

GRID = 8
MODES = ("system", "light", "dark")
SCALES = 0.5, 3.0  # of text


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
    """The current theme. `changed` follows a new palette and style sheet, for widgets that paint themselves."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.mode = "system"
        self.colours = LIGHT
        self.text_scale = 1.0
        self._base_size = 0.0
        self._follows = False

    def apply(self, mode: str, text_scale: float = 1.0) -> None:
        """Sets 'system', 'light' or 'dark', and the text size relative to the system's."""
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
        font.setFeature(QFont.Tag("tnum"), 1)  # digits of equal width, so that numbers do not jump
        app.setFont(font)
        self._paint(app)

    def _system_changed(self) -> None:
        app = QApplication.instance()
        if isinstance(app, QApplication):
            self._paint(app)

    def _paint(self, app: QApplication) -> None:
        is_dark = QGuiApplication.styleHints().colorScheme() == Qt.ColorScheme.Dark
        self.colours = DARK if (self.mode == "dark" or (self.mode == "system" and is_dark)) else LIGHT
        sheet = style_sheet(self.colours, self.text_scale)
        if app.styleSheet() != sheet:  # else every widget would be styled anew, which takes half a second
            app.setPalette(palette(self.colours))
            app.setStyleSheet(sheet)
            self.changed.emit()


@cache
def theme() -> Theme:
    """The application's only theme."""
    return Theme()


def appearance(store: QSettings) -> tuple[str, float]:
    """The user's mode and text scale; the usual one where the settings have none that can be read."""
    mode: Any = store.value("theme", "system", str)
    scale: Any = store.value("text_scale", 1.0, float)
    return mode, scale if SCALES[0] <= scale <= SCALES[1] else 1.0


def colours() -> Colours:
    """Colours of the current theme."""
    return theme().colours


def palette(c: Colours) -> QPalette:
    """Qt palette for whatever the style sheet does not cover."""
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
    """The application's style sheet; ``scale`` is the text scale."""
    return STYLE.substitute(
        asdict(c),
        title=f"{16 * scale:.0f}",
        figure=f"{14 * scale:.0f}",
        code=QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont).family(),
        chevron=resources.icon("chevron-down").as_posix(),
        check=resources.icon("check-dark" if c.dark else "check-light").as_posix(),
    )


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
