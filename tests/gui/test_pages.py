"""Model, Data, Method and Export: what the user does there, and what becomes of the recipe."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest
from conftest import in_colours_of_the_theme
from PySide6.QtCore import QSize, Qt
from PySide6.QtWidgets import (
    QAbstractButton,
    QAbstractItemView,
    QAbstractSlider,
    QCheckBox,
    QComboBox,
    QLabel,
    QLineEdit,
    QPlainTextEdit,
    QRadioButton,
    QScrollBar,
    QTextEdit,
)
from standin import GB, StandIn, listed, memory

from sparsezo_gui.errors import UserError
from sparsezo_gui.formats import default_export, export_format, export_formats
from sparsezo_gui.gui.calls import Request
from sparsezo_gui.gui.main_window import MainWindow
from sparsezo_gui.gui.pages import PAGES
from sparsezo_gui.gui.requests import PreviewData, ReadModel
from sparsezo_gui.gui.run_requests import ExportRun
from sparsezo_gui.gui.theme import theme
from sparsezo_gui.gui.widgets.dialogs import RecipeDialog
from sparsezo_gui.gui.widgets.edits import NumberEdit
from sparsezo_gui.gui.widgets.export_result import ExportResult
from sparsezo_gui.gui.widgets.fields import title_of
from sparsezo_gui.gui.wording import in_form_words
from sparsezo_gui.gui.workspace import Workspace
from sparsezo_gui.recipe import dump, load
from sparsezo_gui.recipe.events import Notice
from sparsezo_gui.recipe.presets import PRESETS, matching
from sparsezo_gui.recipe.recipe import DataTable
from sparsezo_gui.recipe.registry import SPACES

CONTROLS = (QAbstractButton, QComboBox, QLineEdit, QPlainTextEdit, QTextEdit, QAbstractItemView, QAbstractSlider)


def test_why_there_are_no_tokens_is_said_where_they_are_looked_for(window, workspace, engine, find, qtbot, monkeypatch):
    told = "tokenizer.json: not a tokenizer that can be loaded. Download the model again."
    lengths = {"lengths": (), "longest_tokens": 0, "tokenizer_problem": told}
    preview = engine.preview

    def without_tokens(recipe, page):
        return dataclasses.replace((yield from preview(recipe, page)), **lengths)

    monkeypatch.setattr(engine, "preview", without_tokens)
    window.go("data")
    workspace.preview()
    qtbot.waitUntil(lambda: told in window.page("data").banner.text)
    assert find("Longest example").text() == "Unknown: the model's tokenizer cannot be used."
    monkeypatch.undo()
    workspace.preview()
    qtbot.waitUntil(lambda: not window.page("data").banner.text)


def problem(qtbot, workspace: Workspace, kind: type[Request]) -> None:
    qtbot.waitUntil(lambda: workspace.of(kind).problem is not None)


def test_every_page_in_both_themes(window, qtbot, both_themes):
    theme().apply(both_themes)
    for index, name in enumerate(PAGES, 1):
        qtbot.keyClick(window, getattr(Qt.Key, f"Key_{index}"), Qt.KeyboardModifier.ControlModifier)
        qtbot.waitUntil(window.page(name).isVisible)
        in_colours_of_the_theme(window.page(name), both_themes)


def test_every_control_has_an_accessible_name(window):
    for name in PAGES:
        window.go(name)
    nameless = [
        control
        for kind in CONTROLS
        for control in window.findChildren(kind)
        if not control.accessibleName()
        and not isinstance(control, QScrollBar)
        and control.objectName() != "qt_tableview_cornerbutton"
        and not control.objectName().startswith("qt_")
        and not isinstance(control.parent(), QComboBox)
        and not isinstance(control.parent() and control.parent().parent(), QComboBox)
        and type(control).__name__ not in ("QHeaderView", "MappingHeader", "QTableCornerButton", "QComboBoxListView")
        and type(control).__module__.startswith(("sparsezo_gui", "PySide6"))
        and control.window() is window
        and type(control).__name__ not in ("GraphicsLayoutWidget",)
        and not _in_plot(control)
        and not (type(control).__name__ == "QAbstractButton" and isinstance(control.parent(), QAbstractItemView))
    ]
    assert [(type(c).__name__, c.objectName(), getattr(c, "text", str)()) for c in nameless] == []


def _in_plot(control) -> bool:
    while control is not None:
        if type(control).__name__ in ("GraphicsLayoutWidget", "PlotItem", "Board"):
            return True
        control = control.parent()
    return False


def _whole(page):
    """Asserts that all buttons and labels on show have room for their text."""
    for control in page.findChildren(QAbstractButton):
        if control.isVisible() and control.text():
            assert control.width() >= control.minimumSizeHint().width() - 2, control.text()
    for part in page.findChildren(QLabel):
        if part.isVisible() and part.text():
            room, needed = part.size(), part.sizeHint()
            whole = room.width() >= needed.width() if not part.wordWrap() else (
                room.height() >= part.heightForWidth(room.width())
            )  # fmt: skip
            assert whole, part.text()
    return True


@pytest.mark.parametrize("scale", [1.0, 1.5])
def test_nothing_is_clipped_on_a_small_screen(window, workspace, qtbot, scale):
    theme().apply("light", scale)
    window.resize(1280, 720)
    workspace.find_mask()
    qtbot.waitUntil(lambda: workspace.mask is not None and not workspace.of(PreviewData).busy)
    for name in PAGES:
        window.go(name)
        # An answer that came in just now is laid out in the event loop's next round.
        qtbot.waitUntil(lambda name=name: _whole(window.page(name)))
        assert window.width() == 1280 and window.height() <= 720
    theme().apply("light")


def test_the_first_window_is_no_larger_than_the_screen(workspace, qapp):
    made, screen = MainWindow(workspace), qapp.primaryScreen().availableSize()
    assert screen.width() < 1280, "the screen of the tests is small"
    assert made.size() == QSize(screen.width(), min(screen.height(), 800)).expandedTo(made.minimumSize())
    made.deleteLater()


@pytest.mark.parametrize("scale", [1.0, 1.5])
def test_the_title_of_every_task_can_be_read(window, find, qtbot, scale):
    theme().apply("light", scale)
    window.resize(1280, 720)
    window.go("data")
    task = find("Task")
    qtbot.waitUntil(lambda: task.count() > 10)
    qtbot.wait(20)
    longest = max(task.fontMetrics().horizontalAdvance(task.itemText(i)) for i in range(task.count()))
    assert longest < task.width() - 24 and task.mapTo(window, task.rect().topRight()).x() < 1280
    theme().apply("light")


def test_choosing_a_model(window, find, click, enter, workspace, qtbot):
    models = find("Models on this computer")
    qtbot.waitUntil(lambda: models.count() == 4)
    qtbot.waitUntil(lambda: models.item(2).text().endswith("Too large"))
    pick(qtbot, models, 1)
    assert workspace.recipe.model.id == "Qwen/Qwen3-0.6B"
    qtbot.waitUntil(lambda: find("Selected model").text() == "Qwen3 0.6B" and workspace.memory is not None)
    bits = find("Bits per weight")
    integers = "8 bits (int8, fastest)"
    for title, held in ((integers, (8, "int8")), ("16 bits", (16, "auto")), ("8 bits", (8, "auto"))):
        bits.setCurrentIndex(bits.findText(title))
        assert (workspace.recipe.model.bits, workspace.recipe.model.compute) == held
    enter("Model folder or Hub id", "some/model")
    assert workspace.recipe.model.id == "some/model"


def pick(qtbot, models, row):
    place = models.visualItemRect(models.item(row)).center()
    qtbot.mouseClick(models.viewport(), Qt.MouseButton.LeftButton, pos=place)


def test_only_a_click_or_enter_chooses_a_model(window, find, enter, workspace, qtbot):
    """And the one in use is in the list, wherever it comes from."""
    models = find("Models on this computer")
    qtbot.waitUntil(lambda: models.count() == 4)
    enter("Model folder or Hub id", "some/model")
    assert (models.count(), models.currentItem().text()) == (5, "some/model\nin use")
    find("Use this model").setFocus()
    for _ in range(3):
        qtbot.keyClick(window.focusWidget(), Qt.Key.Key_Backtab)
    models.setFocus()
    qtbot.keyClick(models, Qt.Key.Key_Down)
    qtbot.keyClick(models, Qt.Key.Key_Down)
    assert models.currentRow() == 2 and workspace.recipe.model.id == "some/model"
    qtbot.keyClick(models, Qt.Key.Key_Return)
    assert workspace.recipe.model.id == "Qwen/Qwen3-0.6B" and models.count() == 4
    assert models.currentItem().text().startswith("Qwen3 0.6B")


def test_a_missing_model_is_told(window, find, workspace, engine, qtbot):
    engine.faults["summary"] = UserError("There is no model 'x/y'. Did you mean 'x/z'?")
    workspace.change("model", id="x/y")
    problem(qtbot, workspace, ReadModel)
    assert "Did you mean 'x/z'?" in find("Model problem").text()


def test_the_memory_strip_says_what_fits(window, find, click, workspace, engine, qtbot):
    others = "Other methods: LoRA 3.00 GiB · QLoRA 2.00 GiB · full fine-tuning 11.0 GiB"
    assert find("Memory of other methods").text() == others
    assert find("Memory needed").text() == "Memory: 1.85 GiB of 8.00 GiB (estimated)"
    click("Measure memory")
    qtbot.waitUntil(lambda: "measured" in find("Memory needed").text())
    assert find("Memory of other methods").text() == f"Estimated. {others}", "which was not measured"
    engine.estimated = memory(available=GB, search=GB)
    workspace.change("model", bits=8)
    qtbot.waitUntil(lambda: find("Whether the next run fits").text() == "Too large")
    assert find("Memory of other methods").text().startswith("Finding the mask, before the run: 1.00 GiB more. ")
    click("Memory details")


def test_data_shows_rows_and_tokens(window, find, click, workspace, qtbot):
    window.go("data")
    tokens = window.page("data").tokens
    qtbot.waitUntil(lambda: tokens.isVisible() and "delivery" in tokens.toPlainText())
    assert "1 trained" in tokens.toPlainText()
    assert find("Rows shown").text() == "1 to 50 of 170"
    click("Next page of rows")
    qtbot.waitUntil(lambda: find("Rows shown").text() == "51 to 100 of 170")
    part = find("Use column ticket as")
    part.setCurrentIndex(part.findData("answer"))
    assert workspace.recipe.data.columns == {"text": "text", "answer": "ticket"}


def test_data_faults_are_sentences(window, find, click, workspace, engine, qtbot):
    window.go("data")
    engine.faults["preview"] = UserError("mail.csv, row 3: two fields, expected three.")
    workspace.change("data", source="mail.csv")
    problem(qtbot, workspace, PreviewData)
    assert find("Data problem").text() == "mail.csv, row 3: two fields, expected three."
    del engine.faults["preview"]
    click("Reload the data")
    qtbot.waitUntil(lambda: workspace.of(PreviewData).problem is None)


@pytest.mark.parametrize(
    ("switch", "button", "told"),
    [
        ("leave_out_gaps", "Skip these rows", {"problem": "8 of 24 rows have gaps: no label."}),
        ("merge_labels", "Merge these labels", {"notices": (Notice("'spam' (3), 'SPAM' (2)."), Notice("And more."))}),
    ],
)
def test_what_is_noticed_about_data_is_mended_by_a_button(
    window, workspace, engine, find, click, qtbot, monkeypatch, switch, button, told
):
    preview = engine.preview

    def noticed(recipe, page):
        found = yield from preview(recipe, page)
        return found if getattr(recipe.data, switch) else dataclasses.replace(found, offer=switch, **told)

    monkeypatch.setattr(engine, "preview", noticed)
    window.go("data")
    workspace.preview()
    banner = window.page("data").banner
    gaps = "Some rows are incomplete; see below."
    said = gaps if "problem" in told else "• 'spam' (3), 'SPAM' (2).\n• And more."
    qtbot.waitUntil(lambda: banner.text == said)
    if "problem" in told:
        assert find("Data problem").text() == told["problem"]
    click(button)
    assert getattr(workspace.recipe.data, switch) is True
    qtbot.waitUntil(lambda: not banner.text)
    assert find(title_of(switch, DataTable.model_fields[switch])).isChecked()
    window.page("data").use("other.csv")
    assert getattr(workspace.recipe.data, switch) is False


def test_prompts_go_through_the_chat_template_unless_switched_off(window, workspace, qtbot):
    window.go("data")
    box = next(each for each in window.page("data").findChildren(QCheckBox) if "chat template" in each.text())
    assert not box.isVisible()  # choices have no use for it
    workspace.change("data", task="pairs")
    qtbot.waitUntil(box.isVisible)
    assert box.isChecked()
    box.click()
    assert not workspace.recipe.data.chat_template and not box.isChecked()


def test_presets_set_the_recipe(window, click, workspace):
    window.go("method")
    click("Show more methods")
    for preset in PRESETS:
        click(preset.title)
        assert matching(workspace.recipe) is preset, preset.title
        assert workspace.recipe.mask.rule == preset.settings["mask"]["rule"]


def test_a_preset_sets_the_whole_method_whatever_was_set_before(window, click, workspace):
    window.go("method")
    click("Show more methods")
    alone = {}
    for preset in PRESETS:
        workspace.set_recipe(load("starter"))
        click(preset.title)
        alone[preset.title] = workspace.recipe
    assert alone[PRESETS[0].title].mask.text == "starter", "which the bundled data come with"
    for preset in (*PRESETS, *PRESETS[::-1]):
        workspace.change("update", learning_rate=1e-4, schedule="cosine", decay=0.01)
        if "sequences" in type(workspace.recipe.mask).model_fields:
            workspace.change("mask", sequences=5, tokens=64)
        click(preset.title)
        assert workspace.recipe == alone[preset.title], preset.title


def test_a_preset_brings_no_text_of_the_starter_to_other_data(window, click, enter, workspace):
    window.go("data")
    enter("Data source", "reviews.csv")
    window.go("method")
    click("Show more methods")
    for title in ("Random control", PRESETS[0].title):
        click(title)
    assert workspace.recipe.mask.text == "general"


def test_bits_are_not_brought_back_into_another_recipe(window, click, workspace, tmp_path):
    window.go("method")
    click("Show more methods")
    click("MeZO (all)")
    path = tmp_path / "mine.toml"
    path.write_text("[model]\nbits = 16\n")
    window.open_recipe(path)
    click(PRESETS[0].title)
    assert workspace.recipe.model.bits == 16


def test_a_preset_brings_the_bits_back_that_another_one_changed(window, click, workspace):
    window.go("method")
    click("Show more methods")
    workspace.change("model", bits=8)
    click("MeZO (all)")
    assert workspace.recipe.model.bits == 16
    click("Sparse MeZO")
    click(PRESETS[0].title)
    assert workspace.recipe.model.bits == 8
    workspace.change("model", bits=32)
    click("Random control")
    assert workspace.recipe.model.bits == 32, "which the user chose"


def test_presets_find_the_rate_and_start_at_the_usual_one(window, click, workspace):
    window.go("method")
    click("Show more methods")
    assert workspace.recipe.update.learning_rate == 5e-3 and not workspace.recipe.update.find_rate, "the starter's"
    for title, rate in (("Fast and rough", 2e-2), ("Random control", 2.5e-2), ("A direction per example", 2e-2),
                        ("Exact gradients", 2e-3), ("Exact, last half", 5e-4), ("MeZO (all)", 1.3e-3),
                        ("Sparse MeZO", 1.3e-3), (PRESETS[0].title, 5e-3)):  # fmt: skip
        click(title)
        assert workspace.recipe.update.learning_rate == rate and workspace.recipe.update.find_rate, title


@pytest.mark.parametrize(
    ("tables", "reason", "fix"),
    [
        ({"objective": {"rule": "accuracy"}}, "Loss = 'Accuracy' has no gradient",
         "Gradient estimate = 'Central difference (SPSA)'"),
        ({"privacy": {"rule": "gaussian"}}, "adds noise to the projected gradient of each example",
         "Privacy of the examples = 'None'"),
        ({"model": {"bits": 8, "compute": "int8"}}, "rounds activations, which has no gradient", "Compute = 'auto'"),
    ],
)  # fmt: skip
def test_exact_gradients_are_refused_where_they_cannot_be_had(window, click, workspace, tables, reason, fix):
    window.go("method")
    click("Show more methods")
    assert not workspace.change_all(tables)
    click("Exact gradients")
    page = window.page("method")
    assert reason in page.banner.text and fix in page.banner.text
    assert workspace.recipe.estimator.rule == "two-sided"
    checked = [each.accessibleName() for each in page.findChildren(QRadioButton) if each.isChecked()]
    assert "Exact gradients" not in checked
    assert not workspace.change_all({"objective": {"rule": "likelihood"}, "privacy": {"rule": "none"},
                                     "model": {"compute": "auto"}})  # fmt: skip
    click("Exact gradients")
    assert page.banner.text == "" and workspace.recipe.estimator.rule == "first-order"


def test_a_refusal_is_forgotten_with_the_next_change(window, click, find, workspace):
    window.go("method")
    click("Show more methods")
    click("Show advanced settings")
    rule = find("Loss")
    rule.setCurrentIndex(rule.findData("f1"))
    assert "needs answers to compare with" in window.page("method").banner.text
    assert rule.currentData() == "likelihood"
    click("Careful")
    assert window.page("method").banner.text == ""
    workspace.change("objective", rule="accuracy")
    window.go("data")
    task = find("Task")
    task.setCurrentIndex(task.findData("text"))
    assert "needs answers to choose from" in window.page("data").banner.text
    assert task.currentData() == "choice", "what holds is shown"


def test_fields_refuse_with_a_sentence(window, enter, find, workspace):
    window.go("method")
    enter("Steps", "250")
    assert workspace.recipe.loop.steps == 250
    enter("Steps", "-1")
    assert workspace.recipe.loop.steps == 250
    assert any("must be 1 or more" in label.text() for label in window.page("method").findChildren(QLabel))
    enter("Steps", "many")
    assert workspace.recipe.loop.steps == 250
    enter("Density", "0.5 %")
    assert workspace.recipe.mask.density == 0.005
    assert find("Steps").text() == "many", "what is wrong stays in sight"


def test_another_rule_has_other_fields(window, click, find, workspace):
    window.go("method")
    click("Show advanced settings")
    rule = find("Update rule")
    rule.setCurrentIndex(rule.findData("sgd"))
    assert workspace.recipe.update.rule == "sgd"
    fields = window.page("method").findChildren(NumberEdit)
    assert "Averaging factor" not in [field.accessibleName() for field in fields if field.isVisible()]


def test_arrow_keys_step_numbers(qtbot):
    edit = NumberEdit(whole=False)
    qtbot.addWidget(edit)
    edit.setText("0.001")
    qtbot.keyClick(edit, Qt.Key.Key_Up)
    assert edit.value() == 0.01
    whole = NumberEdit(whole=True)
    qtbot.addWidget(whole)
    whole.setText("16")
    qtbot.keyClick(whole, Qt.Key.Key_Down)
    assert whole.value() == 15


def test_the_recipe_as_text(window, find, click, workspace, qtbot):
    qtbot.keyClick(window, Qt.Key.Key_T, Qt.KeyboardModifier.ControlModifier)
    dialog = window.findChild(RecipeDialog)
    text = dialog.text
    assert text.toPlainText() == dump(workspace.recipe)
    text.setPlainText(text.toPlainText().replace("batch_size", "batch_sise"))
    click("Apply recipe text", dialog)
    assert "Did you mean 'batch_size'?" in find("Recipe problems", where=dialog).text()
    text.setPlainText(dump(workspace.recipe).replace('id = "starter"', 'id = "other"'))
    click("Apply recipe text", dialog)
    assert workspace.recipe.model.id == "other"


def test_recipes_are_saved_and_opened(window, workspace, tmp_path):
    path = tmp_path / "mine.toml"
    workspace.change("loop", steps=77)
    workspace.set_recipe(workspace.recipe, path)
    window.save_recipe()
    workspace.change("loop", steps=78)
    window.open_recipe(path)
    assert workspace.recipe.loop.steps == 77 and workspace.recent_recipes() == [str(path)]
    (tmp_path / "bad.toml").write_text("[modle]\n")
    window.open_recipe(tmp_path / "bad.toml")
    assert "Did you mean 'model'?" in window.page("model").banner.text


def test_export(window, find, click, workspace, engine, qtbot, tmp_path):
    window.go("export")
    click("Go to the Run page", find("Nothing to export yet"))
    assert window.page("run").isVisible()
    window.go("export")
    assert not window.page("export")._go.isVisible()
    engine.run_list = [listed(tmp_path / "run")]
    click("Refresh the list of runs")
    qtbot.waitUntil(window.page("export")._go.isEnabled)
    find("Export to").setText(str(tmp_path / "out.safetensors"))
    click("Export now")
    qtbot.waitUntil(lambda: "exported and checked" in find("Export result").text())
    assert engine.exported == ("overlay", tmp_path / "out.safetensors", 100, {})
    assert f"{tmp_path / 'out.safetensors'} · 2 KiB" in find("Where the export is").text()
    engine.faults["export"] = UserError(f"{tmp_path}: is not empty.")
    click("Export now")
    problem(qtbot, workspace, ExportRun)
    assert "is not empty" in window.page("export").banner.text
    assert not window.page("export").findChild(ExportResult).isVisible()


def test_what_was_exported_is_asked_deleted_and_exported_again(
    window, find, click, workspace, engine, qtbot, tmp_path, monkeypatch
):
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    engine.run_list = [listed(tmp_path / "run", tuned=1000, parameters=10**6)]
    window.go("export")
    click("Refresh the list of runs")
    qtbot.waitUntil(window.page("export")._go.isEnabled)
    sizes = {name: find(f"Size of {export_format(name).title}").text() for name in ("overlay", "hf", "gguf")}
    assert sizes == {"overlay": "about 8 KiB", "hf": "about 1.91 MiB", "gguf": "about 1.91 MiB"}
    click("Export now")
    qtbot.waitUntil(lambda: find("Export result").text().startswith("Step 100 exported and checked."))
    first = tmp_path / "yesterday-tuned.safetensors"
    assert first.exists() and find("Export to").text() == str(tmp_path / "yesterday-tuned-2.safetensors")
    qtbot.waitUntil(lambda: not workspace.blocker)
    find("Prompt for the exported file").setText("where is my parcel")
    click("Ask the exported file")
    qtbot.waitUntil(
        lambda: (
            find("Answer of the exported file").text()
            == "yesterday-tuned.safetensors with 2048 bytes answers: where is my parcel"
        )
    )
    click("Delete the export")
    assert any("2 KiB" in part.text() for part in window.findChildren(QLabel) if part.isVisible())
    click("Yes: delete")
    assert not first.exists() and find("Export to").text() == str(first)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    field = find("Export to")
    field.selectAll()
    qtbot.keyClicks(field, str(elsewhere / "mine.safetensors"))
    click("Export now")
    qtbot.waitUntil(lambda: find("Export to").text() == str(elsewhere / "yesterday-tuned.safetensors"))
    click("PEFT adapter")
    assert find("Export to").text() == str(elsewhere / "yesterday-tuned")


@pytest.mark.skipif(os.name == "nt", reason="there, what lies in no folder is only missing")
def test_an_export_that_cannot_be_deleted_is_told(window, find, click, workspace, engine, qtbot, tmp_path):
    engine.run_list = [listed(tmp_path / "run", tuned=1000, parameters=10**6)]
    window.go("export")
    click("Refresh the list of runs")
    qtbot.waitUntil(window.page("export")._go.isEnabled)
    place = tmp_path / "elsewhere" / "mine.safetensors"
    place.parent.mkdir()
    find("Export to").setText(str(place))
    click("Export now")
    qtbot.waitUntil(lambda: find("Export result").text().startswith("Step 100 exported and checked."))
    click("Delete the export")
    place.unlink()
    place.parent.rmdir()
    place.parent.write_text("a file where the folder was")
    click("Yes: delete")
    told = f"{place}: cannot be deleted (Not a directory). Close what uses it, then try again."
    assert window.page("export").banner.text == told and find("Exported").isVisible()


def test_the_export_page_offers_every_format_with_its_target_and_options(window, find, click, engine, qtbot):
    engine.run_list = [listed(Path("run"))]
    window.go("export")
    click("Refresh the list of runs")
    qtbot.waitUntil(window.page("export")._go.isEnabled)
    values = {name: _values(form) for name, form in export_formats().items()}
    for name, form in export_formats().items():
        if form.refusal(SPACES["entries"]):
            continue
        click(form.title)
        assert find(form.title).accessibleDescription() == form.help
        assert find("Export to").text().endswith(f"yesterday-tuned{form.suffix}")
        commands = form.serve(find("Export to").text(), engine.run_list[0].model, SPACES["entries"])
        page_says = [each.text() for each in window.page("export").findChildren(QLabel) if each.isVisible()]
        assert f"Opens in {form.opens}." in page_says
        for program, command in commands.items():
            assert any(f"{program}: {command}" in text for text in page_says)
        assert any("vLLM: " in text for text in page_says) == ("vLLM" in commands)
        page = window.page("export")
        shown = {button.text() for button in page.findChildren(QRadioButton) if button.isVisible()}
        lists = [
            each for each in page.findChildren(QComboBox) if each.isVisible() and each is not find("Run to export")
        ]
        shown |= {each.itemText(index) for each in lists for index in range(each.count())}
        assert shown & set().union(*values.values()) == values[name]


def test_a_gguf_file_has_a_kind_and_may_go_to_lm_studio(
    window, find, click, workspace, engine, qtbot, tmp_path, monkeypatch
):
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    store = tmp_path / ".lmstudio" / "models"
    store.mkdir(parents=True)
    engine.run_list = [listed(tmp_path / "run")]
    window.go("export")
    click("Refresh the list of runs")
    qtbot.waitUntil(window.page("export")._go.isEnabled)
    click("GGUF file")
    kinds = find("Kind of numbers")
    assert kinds.currentText() == "f16"
    kinds.setCurrentIndex(kinds.findText("q8_0"))
    click("LM Studio")
    out = store / "sparsezo" / "yesterday" / "yesterday.gguf"
    assert find("Export to").text() == str(out)
    click("Export now")
    qtbot.waitUntil(lambda: "exported and checked" in find("Export result").text())
    assert engine.exported == ("gguf", out, 100, {"kind": "q8_0", "to": "lmstudio"})
    click("Only the file")
    assert find("Export to").text() == str(tmp_path / "yesterday-tuned.gguf")


@pytest.mark.parametrize("space", list(SPACES))
def test_the_export_page_offers_what_can_hold_the_run_and_says_why_not(
    window, find, click, engine, qtbot, space, tmp_path
):
    engine.run_list = [listed(tmp_path / "run", space=space), listed(tmp_path / "other")]
    window.go("export")
    click("Refresh the list of runs")
    qtbot.waitUntil(window.page("export")._go.isEnabled)
    assert find(export_format(default_export(SPACES[space])).title).isChecked()
    for form in export_formats().values():
        reason = in_form_words(form.refusal(SPACES[space]))
        assert find(form.title).isEnabled() == (not reason)
        assert find(form.title).accessibleDescription() == (reason or form.help)
        shown = {each.text() for each in window.page("export").findChildren(QLabel) if each.isVisible()}
        assert (reason or form.help) in shown
    click("Hugging Face folder")  # stays when the list is read again
    click("Refresh the list of runs")
    qtbot.waitUntil(window.page("export")._go.isEnabled)
    assert find("Hugging Face folder").isChecked()
    find("Run to export").setCurrentIndex(1)
    assert find("Overlay file").isChecked() and find("PEFT adapter").isEnabled()


def test_a_free_name_is_suggested(window, find, click, engine, qtbot, tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    (tmp_path / "yesterday-tuned.safetensors").touch()
    engine.run_list = [listed(tmp_path / "run")]
    window.go("export")
    click("Refresh the list of runs")
    qtbot.waitUntil(window.page("export")._go.isEnabled)
    assert find("Export to").text() == str(tmp_path / "yesterday-tuned-2.safetensors")
    export = engine.export

    def writing(folder, form, out, *rest):
        out.touch()
        return (yield from export(folder, form, out, *rest))

    monkeypatch.setattr(engine, "export", writing)
    click("Export now")
    third = str(tmp_path / "yesterday-tuned-3.safetensors")
    qtbot.waitUntil(lambda: find("Export to").text() == third)


def _values(form) -> set[str]:
    return {title for option in form.options for title, _ in option.choices.values()}


def test_the_weights_of_a_folder_can_be_chosen(window, find, click, engine, qtbot, tmp_path):
    def shown() -> bool:
        return any(b.isVisible() for b in window.findChildren(QRadioButton) if b.text() == "Exactly as trained")

    engine.run_list = [listed(tmp_path / "run")]
    window.go("export")
    click("Refresh the list of runs")
    qtbot.waitUntil(window.page("export")._go.isEnabled)
    assert not shown()
    click("Hugging Face folder")
    assert find("Original precision").isChecked() and find("Export to").text().endswith("yesterday-tuned")
    for chosen in ({"weights": "original"}, {"weights": "trained"}):
        click("Export now")
        qtbot.waitUntil(lambda chosen=chosen: bool(engine.exported) and engine.exported[3] == chosen)
        assert engine.exported[0] == "hf"
        qtbot.waitUntil(window.page("export")._go.isEnabled)
        click("Exactly as trained")
    click("Overlay file")
    assert not shown()


def test_an_engine_that_does_not_load_is_told(qtbot, workspace, engine):
    engine.faults["load"] = ImportError("libcudart.so.12: cannot open shared object file")
    window = MainWindow(workspace)
    qtbot.addWidget(window)
    window.show()
    workspace.start()
    qtbot.waitUntil(lambda: workspace.engine_state == "failed")
    assert "libcudart" in window.page("model").banner.text
    window.close()


def test_what_was_left_is_there_again(qtbot, tmp_path):
    first = Workspace(StandIn(tmp_path))
    first.change("loop", steps=321)
    first.close()
    second = Workspace(StandIn(tmp_path))
    assert second.recipe.loop.steps == 321
    second.close()


def test_labels_are_titles_or_keys_in_words(window, find, click, workspace):
    window.go("method")
    click("Show advanced settings")
    for title in ("Space for checkpoints", "Recover from divergence", "Averaging factor", "Batch size"):
        assert find(title)
