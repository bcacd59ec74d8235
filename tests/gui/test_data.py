"""The Data page: the task that the columns suggest, and the template that takes effect as one types."""

from __future__ import annotations

import dataclasses

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QComboBox

from sparsezo_gui.engine.data.tasks import tasks
from sparsezo_gui.errors import UserError
from sparsezo_gui.gui.detection import Guess, guessed
from sparsezo_gui.gui.pages.data import GROUPS
from sparsezo_gui.gui.widgets.table import DataTable

TASKS = list(tasks().values())
TEXTS = [["a film that is long", "good"], ["a dull film", "bad"], ["a warm film", "good"], ["cold", "bad"]]


@pytest.mark.parametrize(
    ("columns", "rows", "task", "mapping"),
    [
        (("text", "label"), TEXTS, "choice", {"text": "text", "answer": "label"}),
        (("Review", "Category"), TEXTS, "choice", {"text": "Review", "answer": "Category"}),
        (("instruction", "response"), [["Say hello", "Hello!"], ["Count", "1, 2, 3"]], "pairs",
         {"prompt": "instruction", "answer": "response"}),
        (("id", "question", "answer"), [["1", "Why?", "Because of that."], ["2", "How?", "Like this."]], "pairs",
         {"prompt": "question", "answer": "answer"}),
        (("messages",), [["[…]"]], "chat", {"messages": "messages"}),
        (("conversations", "id"), [["[…]", "1"]], "chat", {"messages": "conversations"}),
        (("prompt", "chosen", "rejected"), [["a", "b", "c"]], "preference",
         {"chosen": "chosen", "rejected": "rejected"}),
        (("passage", "question", "answer"), [["A text.", "What?", "This."]], "squad",
         {"context": "passage", "question": "question", "answer": "answer"}),
        (("text",), [["Once upon a time"]], "text", {"text": "text"}),
        (("a", "b"), [["1", "2"]], None, {}),
        ((), [], None, {}),
    ],
)  # fmt: skip
def test_the_task_is_guessed_from_the_columns(columns, rows, task, mapping):
    assert guessed(columns, rows, TASKS) == (Guess(task, mapping) if task else None)


def test_a_guess_is_offered_with_its_columns_and_taken(window, find, click, workspace, engine, qtbot):
    usual = engine.preview

    def preview(recipe, page):
        found = yield from usual(recipe, page)
        rows = tuple((f"Question {i}", f"A long answer {i}.") for i in range(9))
        mapped = {"prompt": "instruction", "answer": "response"} if recipe.data.task == "pairs" else {}
        return dataclasses.replace(found, columns=("instruction", "response"), rows=rows, columns_of=mapped)

    engine.preview = preview
    window.go("data")
    workspace.change("data", source="mine.jsonl", columns={})
    page = window.page("data")
    qtbot.waitUntil(lambda: "look like" in page.banner.text)
    assert page.banner.text == (
        "These columns look like 'Pairs: your prompts and the answers to learn': column 'instruction' as prompt and "
        "column 'response' as answer."
    )
    click("Use this task", page)
    data = workspace.recipe.data
    assert (data.task, data.columns) == ("pairs", {"prompt": "instruction", "answer": "response"})
    qtbot.waitUntil(lambda: "look like" not in page.banner.text)


def test_the_template_takes_effect_as_one_types(window, find, workspace, qtbot):
    window.go("data")
    qtbot.waitUntil(lambda: find("What the model will see").toPlainText() != "")
    field = find("Prompt template")
    field.selectAll()
    qtbot.keyClicks(field, "Mail: {{ text }}")
    assert "Mail" not in workspace.recipe.data.template, "not at every key"
    qtbot.waitUntil(lambda: workspace.recipe.data.template == "Mail: {{ text }}")
    assert field.toPlainText() == "Mail: {{ text }}" and field.isVisible()


def test_what_is_wrong_with_a_template_is_told_right_below_it(window, find, workspace, engine, qtbot):
    window.go("data")
    qtbot.waitUntil(lambda: find("What the model will see").toPlainText() != "")
    before = find("What the model will see").toPlainText()
    engine.faults["preview"] = UserError(
        "[data] template, line 1: '}' is not expected here. Write a column as {{ a }}."
    )
    field = find("Prompt template")
    field.selectAll()
    qtbot.keyClicks(field, "{{ text }")
    told = "line 1: '}' is not expected here. Write a column as {{ a }}."
    qtbot.waitUntil(lambda: find("Template problem").text() == told.capitalize().replace("write", "Write"))
    assert find("What the model will see").toPlainText() == before and field.isVisible(), "what it was stays in sight"
    assert not window.page("data")._fault.isVisible() and not find("Start run").isEnabled()
    assert find("Why the next run cannot start").text() == f"Prompt template, {told}"
    del engine.faults["preview"]
    qtbot.keyClick(field, Qt.Key.Key_End)
    qtbot.keyClicks(field, "}")
    qtbot.waitUntil(lambda: find("Template problem").text().startswith("Write {{ column }}"))


def test_tasks_are_in_three_groups_whose_titles_cannot_be_chosen(window, find, workspace, qtbot):
    window.go("data")
    combo = find("Task", QComboBox)
    qtbot.waitUntil(lambda: combo.count() == len(TASKS) + len(GROUPS))
    titles = [combo.itemText(row) for row in range(combo.count()) if combo.itemData(row) is None]
    assert titles == list(GROUPS) and combo.itemText(0) == GROUPS[0]
    combo.setFocus()
    for _ in range(combo.count()):
        qtbot.keyClick(combo, Qt.Key.Key_Up)
    assert combo.currentText() == TASKS[[task.name for task in TASKS].index(combo.currentData())].title


def test_two_long_columns_fit_beside_the_scroll_bar(qtbot):
    table = DataTable()
    qtbot.addWidget(table)
    table.resize(1000, 300)
    table.show()
    table.show_page(["text", "label"], [["long " * 100, "longer " * 100]] * 50, 1, ["answer"], {})
    qtbot.waitUntil(table.verticalScrollBar().isVisible)
    assert table.horizontalHeader().length() == table.viewport().width()
    assert table.horizontalScrollBar().maximum() == 0
