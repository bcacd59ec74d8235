"""The style sheet. Its placeholders are the fields of `theme.Colours`, sizes and icon files."""

from string import Template

STYLE = Template("""
QWidget { color: $text; }
QMainWindow, QDialog { background: $window; }
QLabel[role="title"] { font-size: ${title}pt; font-weight: 600; }
QLabel[role="heading"] { font-weight: 600; }
QLabel[role="dim"], QLabel[role="hint"] { color: $dim; }
QLabel[role="figure"] { font-size: ${figure}pt; font-weight: 600; }
QLabel[role="figure"][level="good"] { color: $good; }
QLabel[role="error"] { color: $error; }
QLabel:disabled { color: $strong_border; }
QFrame[role="card"] { background: $base; border: 1px solid $border; border-radius: 6px; }
QFrame[role="next"] { background: $base; border: 0; border-bottom: 1px solid $border; }
QFrame[role="strip"] { background: $base; border: 0; border-top: 1px solid $border; }
QFrame[role="banner"] { background: $accent_soft; border: 1px solid $accent; border-radius: 6px; }
QFrame[role="banner"][level="warning"] { background: $warning_soft; border-color: $warning; }
QFrame[role="banner"][level="error"] { background: $error_soft; border-color: $error; }
QFrame[role="good"] { background: $base; border: 1px solid $good; border-radius: 6px; }
QLabel[role="badge"] { border: 1px solid $strong_border; border-radius: 4px; padding: 1px 8px; font-weight: 600; }
QLabel[role="badge"][level="fits"] { color: $good; border-color: $good; }
QLabel[role="badge"][level="tight"] { color: $warning; border-color: $warning; }
QLabel[role="badge"][level="large"] { color: $error; border-color: $error; }

QPushButton { background: $base; border: 1px solid $strong_border; border-radius: 4px; padding: 5px 16px;
    min-height: 18px; }
QPushButton:hover { background: $raised; }
QPushButton:pressed { background: $border; }
QPushButton:focus { border: 2px solid $accent; padding: 4px 15px; }
QPushButton:disabled { color: $strong_border; border-color: $border; background: $window; }
QPushButton[role="primary"] { background: $accent; color: $on_accent; border: 1px solid $accent;
    font-weight: 600; }
QPushButton[role="primary"]:hover { background: $accent_hover; border-color: $accent_hover; }
QPushButton[role="primary"]:focus { border: 2px solid $text; padding: 4px 15px; }
QPushButton[role="primary"]:disabled { background: $raised; color: $strong_border; border-color: $border; }
QPushButton[role="flat"], QToolButton[role="flat"] { background: transparent; border: 1px solid transparent;
    border-radius: 4px; padding: 5px 8px; color: $accent; text-align: left; }
QPushButton[role="flat"]:hover, QToolButton[role="flat"]:hover { background: $raised; }
QPushButton[role="flat"]:focus, QToolButton[role="flat"]:focus { border: 2px solid $accent; padding: 4px 7px; }
QPushButton[role="info"] { background: transparent; border: 0; padding: 0; min-height: 0; }
QPushButton[role="info"]:hover { background: $raised; }
QPushButton[role="flat"]:disabled, QToolButton[role="flat"]:disabled { color: $strong_border; }

QLineEdit, QPlainTextEdit, QTextEdit, QComboBox { background: $base; border: 1px solid $strong_border;
    border-radius: 4px; padding: 5px 7px; selection-background-color: $accent;
    selection-color: $on_accent; }
QLineEdit:focus, QPlainTextEdit:focus, QTextEdit:focus, QComboBox:focus { border: 2px solid $accent;
    padding: 4px 6px; }
*[role="code"] { font-family: "$code"; }
QLineEdit, QComboBox { min-height: 18px; }
QLineEdit[invalid="true"], QPlainTextEdit[invalid="true"] { border: 2px solid $error; padding: 4px 6px; }
QLineEdit:disabled, QComboBox:disabled, QPlainTextEdit:disabled { color: $strong_border; border-color: $border;
    background: $window; }
QLineEdit:read-only, QPlainTextEdit[readOnly="true"] { border-color: $border; }
QComboBox::drop-down { border: 0; width: 24px; }
QComboBox::down-arrow { image: url($chevron); width: 16px; height: 16px; }
QComboBox QAbstractItemView { background: $base; border: 1px solid $strong_border; outline: 0;
    selection-background-color: $accent; selection-color: $on_accent; }

QFrame[role="navigation"] { background: $window; border: 0; border-right: 1px solid $border; }
QToolButton[role="navigation"] { background: transparent; border: 2px solid transparent; border-radius: 6px;
    padding: 7px 10px; text-align: left; }
QToolButton[role="navigation"]:hover { background: $raised; }
QToolButton[role="navigation"]:checked { background: $accent_soft; color: $accent; font-weight: 600; }
QToolButton[role="navigation"]:focus { border-color: $accent; }
QFrame[role="card"][chosen="true"] { border-color: $accent; background: $accent_soft; }
QCheckBox, QRadioButton { spacing: 8px; border: 1px solid transparent; border-radius: 4px; padding: 2px; }
QCheckBox:focus, QRadioButton:focus { border-color: $accent; }
QCheckBox:disabled, QRadioButton:disabled { color: $strong_border; }
QCheckBox::indicator { width: 14px; height: 14px; border: 1px solid $strong_border; border-radius: 3px;
    background: $base; }
QCheckBox::indicator:checked { background: $accent; border-color: $accent; image: url($check); }
QRadioButton::indicator { width: 14px; height: 14px; border: 1px solid $strong_border; border-radius: 8px;
    background: $base; }
QRadioButton::indicator:checked { width: 6px; height: 6px; border: 5px solid $accent; }
QCheckBox::indicator:disabled, QRadioButton::indicator:disabled { border-color: $border; }

QAbstractItemView { background: $base; alternate-background-color: $window; border: 1px solid $border;
    border-radius: 4px; outline: 0; gridline-color: $border; }
QAbstractItemView:focus { border-color: $accent; }
QListView { padding: 1px; }
QListView:focus { border: 2px solid $accent; padding: 0; }
QListView::item { padding: 6px 8px; }
QTableView::item { padding: 2px 8px; }
QAbstractItemView::item:selected { background: $accent_soft; color: $text; }
QHeaderView { background: $window; border: 0; }
QHeaderView::section { background: $window; color: $dim; border: 0; border-bottom: 1px solid $border;
    padding: 5px 8px; text-align: left; }
QHeaderView::section:vertical { border-bottom: 0; }
QTableCornerButton::section { background: $window; border: 0; }

QTabWidget::pane { border: 0; padding-top: 8px; }
QTabBar { qproperty-drawBase: 0; }
QTabBar::tab { background: transparent; color: $dim; border: 2px solid transparent; border-bottom-color: $border;
    padding: 4px 12px; font-weight: 600; }
QTabBar::tab:selected { color: $text; border-bottom-color: $accent; }
QTabBar::tab:hover { color: $text; }
QTabBar::tab:focus { border: 2px solid $accent; border-radius: 4px; }

QProgressBar { background: $raised; border: 0; border-radius: 4px; max-height: 8px; min-height: 8px; }
QProgressBar::chunk { background: $accent; border-radius: 4px; }
QSlider { min-height: 20px; }
QSlider::groove { background: $raised; border-radius: 2px; height: 4px; }
QSlider::sub-page { background: $accent; border-radius: 2px; }
QSlider::sub-page:disabled { background: $strong_border; }
QSlider::handle { background: $base; border: 1px solid $strong_border; border-radius: 8px; width: 14px;
    margin: -6px 0; }
QSlider::handle:hover { background: $raised; }
QSlider::handle:focus { border: 2px solid $accent; width: 12px; }
QSlider::handle:disabled { background: $window; border-color: $border; }

QScrollArea, QScrollArea > QWidget > QWidget[role="page"] { background: $window; border: 0; }
QScrollArea[role="plain"], QScrollArea[role="plain"] > QWidget > QWidget { background: transparent; border: 0; }
QTreeView::item { padding: 4px 6px; }
QScrollBar:vertical { background: transparent; width: 12px; margin: 0; }
QScrollBar:horizontal { background: transparent; height: 12px; margin: 0; }
QScrollBar::handle { background: $strong_border; border-radius: 4px; margin: 2px; }
QScrollBar::handle:vertical { min-height: 32px; }
QScrollBar::handle:horizontal { min-width: 32px; }
QScrollBar::add-line, QScrollBar::sub-line { width: 0; height: 0; }
QScrollBar::add-page, QScrollBar::sub-page { background: transparent; }
QStatusBar { background: $window; border-top: 1px solid $border; }
QStatusBar::item { border: 0; }
QStatusBar QLabel { padding: 2px 8px; color: $dim; }
QMenuBar { background: $window; border-bottom: 1px solid $border; }
QMenuBar::item { padding: 5px 10px; background: transparent; }
QMenuBar::item:selected { background: $raised; }
QMenu { background: $base; border: 1px solid $strong_border; padding: 4px; }
QMenu::item { padding: 5px 24px 5px 24px; border-radius: 4px; }
QMenu::item:selected { background: $accent; color: $on_accent; }
QMenu::item:disabled { color: $strong_border; background: transparent; }
QMenu::separator { height: 1px; background: $border; margin: 4px 8px; }
QToolTip { background: $raised; color: $text; border: 1px solid $strong_border; padding: 4px; }
""")
