"""The window has one format of numbers, also in sentences of the engine."""

from __future__ import annotations

import pytest
from PySide6.QtGui import QTextLayout

from sparsezo_gui.gui import formatting
from sparsezo_gui.gui.widgets.safe_text import Label, breakable
from sparsezo_gui.gui.wording import grouped_numbers, in_form_words
from sparsezo_gui.recipe.events import GeneralText


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("100 steps instead of 2,000, and it fits.", "100 steps instead of 2 000, and it fits."),
        ("1,234,567 of 12,345 weights", "1 234 567 of 12 345 weights"),
        ("'mails 2,000.csv' has 2,000 rows", "'mails 2,000.csv' has 2 000 rows"),
        ("the run's 2,000 steps", "the run's 2 000 steps"),
        ("blocks 1,2 and 10,20; 0.5,100; 1,0000", "blocks 1,2 and 10,20; 0.5,100; 1,0000"),
    ],
)
def test_numbers_are_grouped_as_everywhere_in_the_window(said, shown):
    assert (
        grouped_numbers(said)
        == in_form_words(said)
        == shown.replace(" 000", "\u2009000")
        .replace("1 234 567", "1\u2009234\u2009567")
        .replace("12 345", "12\u2009345")
    )


def test_what_the_engine_says_is_in_the_windows_format(window, workspace, find, qtbot):
    window.go("method")
    qtbot.waitUntil(lambda: workspace.plan is not None)
    assert "2,000" in workspace.plan.why and "2\u2009000" in find("Recommended way").text()


@pytest.mark.parametrize(
    ("base", "tuned", "told"), [(20.0, 19.9999, "0.0 %"), (20.0, 20.0, "0.0 %"), (20.0, 20.4, "+2.0 %")]
)
def test_no_change_has_no_sign(base, tuned, told):
    event = GeneralText(6, 100, base, tuned)
    assert str(event).endswith(f"({told})") and formatting.change(event.increase) == told


def test_a_percentage_is_not_torn_apart():
    assert breakable("at 12.3 % of 5 %") == "at 12.3\u00a0% of 5\u00a0%"
    label = Label("at 12.3 %")
    assert label.text() == "at 12.3 %"


def test_lines_of_prose_have_room_and_a_single_line_is_as_high_as_ever(qtbot):
    one, two = Label("short"), Label("word " * 12)
    for each in (one, two):
        qtbot.addWidget(each)
        each.setWordWrap(True)
    plain = Label("short")
    assert one.heightForWidth(400) == pytest.approx(plain.sizeHint().height(), abs=1)
    width = two.fontMetrics().horizontalAdvance("word " * 6) + 2
    layout, height = two._lay_out(width)
    assert isinstance(layout, QTextLayout) and layout.lineCount() == 2
    apart = layout.lineAt(1).y() - layout.lineAt(0).y()
    assert apart == pytest.approx(1.4 * two.fontInfo().pixelSize(), abs=0.5) and two.heightForWidth(width) >= height
