"""The next run: what it is, what stops it, and that the form never says anything else."""

from __future__ import annotations

import ast
import re
from datetime import date
from pathlib import Path

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QLabel, QMessageBox

from sparsezo_gui import engine
from sparsezo_gui.errors import UserError
from sparsezo_gui.gui.following import named, short
from sparsezo_gui.gui.widgets.next_run import NextRun
from sparsezo_gui.gui.wording import in_form_words
from sparsezo_gui.recipe import build
from sparsezo_gui.recipe.presets import matching, preset


def test_no_run_starts_with_other_values_than_those_on_screen(window, find, enter, click, workspace):
    window.go("method")
    start, why = find("Start run"), window.findChild(NextRun)._fault
    enter("Steps", "-1")
    enter("Batch size", "0")
    assert not start.isEnabled() and why.text() == "Steps: must be 1 or more, not -1."
    assert find("Next run").text().endswith("1\u2009000 steps")
    window.go("run")
    window.page("run").start()  # as the menu does
    assert workspace.run.record is None and "Steps: must be 1 or more" in window.page("run").banner.text
    window.go("method")
    enter("Steps", "20")
    assert why.text() == "Batch size: must be 1 or more, not 0." and workspace.recipe.loop.steps == 20
    workspace.change("loop", batch_size=4)  # as a recipe's text or another page does
    assert start.isEnabled() and not why.isVisible() and find("Batch size").text() == "4"


def test_what_the_engine_finds_wrong_stops_the_next_run_until_it_is_mended(window, find, click, enter, workspace,
                                                                            engine, qtbot):  # fmt: skip
    engine.faults["summary"] = UserError("There is no model 'x/y'.")
    enter("Model folder or Hub id", "x/y")
    qtbot.waitUntil(lambda: not find("Start run").isEnabled())
    assert find("Model problem").text() == "There is no model 'x/y'."
    assert not window.findChild(NextRun)._fault.isVisible(), "what the page says is not said twice"
    window.go("method")
    assert find("Why the next run cannot start").text() == "There is no model 'x/y'."
    del engine.faults["summary"]  # it was downloaded meanwhile
    click("Check the next run again")
    qtbot.waitUntil(lambda: find("Start run").isEnabled() and workspace.memory is not None)
    assert "x/y"[2:] in find("Next run").text() and find("Whether the next run fits").text() == "Fits"


def test_an_estimate_is_shown_for_its_own_model_only(window, find, workspace, qtbot):
    badge = find("Whether the next run fits")
    assert badge.isVisible()
    workspace.change("model", id="x/y")
    assert not badge.isVisible() and "waiting" in find("Memory needed").text()
    qtbot.waitUntil(badge.isVisible)
    workspace.change("model", bits=8)
    assert badge.isVisible(), "about the same as before"


def test_whether_it_fits_is_said_once_beside_the_list_of_models(window, find):
    told = [each for each in window.findChildren(QLabel) if each.isVisible() and each.text() == "Fits"]
    assert told == [find("Whether the next run fits")]


def test_a_fault_of_the_model_is_not_repeated_as_one_of_its_memory(window, find, enter, engine, qtbot):
    engine.faults["estimate"] = UserError("config.json is missing.")
    enter("Model folder or Hub id", "/models/broken")
    qtbot.waitUntil(lambda: find("Memory needed").text() == "Memory: unknown.")
    window.go("method")
    assert find("Why the next run cannot start").text() == "config.json is missing."


def test_an_error_of_an_earlier_model_is_gone_with_it(window, find, enter, workspace, engine, qtbot):
    engine.faults["estimate"] = UserError("The model 'x/y' has no layers.")
    enter("Model folder or Hub id", "x/y")
    qtbot.waitUntil(lambda: "no layers" in find("Memory needed").text())
    enter("Model folder or Hub id", "x/z")
    assert "no layers" not in find("Memory needed").text(), "at once, not when the engine has time"


def test_another_model_or_data_bring_a_name_and_a_text_of_their_own(window, click, enter, workspace, qtbot):
    assert (workspace.recipe.run.name, workspace.recipe.mask.text) == ("starter", "starter")
    enter("Model folder or Hub id", "Qwen/Qwen3-0.6B")
    window.go("data")
    enter("Data source", "reviews.csv")
    assert (workspace.recipe.run.name, workspace.recipe.mask.text) == ("", "general")
    assert named(workspace.recipe).run.name == f"Qwen3-0.6B-reviews-{date.today()}"
    workspace.change("run", name="mine")
    enter("Data source", "others.csv")
    click("Start run")
    qtbot.waitUntil(lambda: workspace.run.record is not None and workspace.run.record.name == "mine")


@pytest.mark.parametrize("data_first", [False, True])
@pytest.mark.parametrize("automatic", [False, True])
def test_the_starters_method_does_not_come_along_to_another_model(window, enter, workspace, data_first, automatic):
    workspace.set_automatic(automatic)
    for page in ("data", "model") if data_first else ("model", "data"):
        window.go(page)
        if page == "model":
            enter("Model folder or Hub id", "Qwen/Qwen3-0.6B")
        else:
            enter("Data source", "reviews.csv")
    made, defaults = workspace.recipe, build({})
    if automatic:
        assert (made.estimator.rule, made.mask, made.update) == ("auto", defaults.mask, defaults.update)
        return
    assert matching(made) is preset("Gradient subspace") and made.update.find_rate
    assert (made.estimator, made.mask.text, made.mask.sequences) == (defaults.estimator, "general", 32)
    assert (made.loop.steps, made.loop.evaluate_every) == (250, 50)
    workspace.change("model", id="some/other")
    assert (workspace.recipe.mask, workspace.recipe.loop) == (made.mask, made.loop)


def test_steps_of_ones_own_come_along(window, enter, workspace):
    workspace.change("loop", steps=77)
    enter("Model folder or Hub id", "Qwen/Qwen3-0.6B")
    assert matching(workspace.recipe) is preset("Gradient subspace")
    assert (workspace.recipe.loop.steps, workspace.recipe.loop.evaluate_every) == (77, 200)


def test_a_method_of_ones_own_comes_along(window, enter, workspace):
    workspace.change("mask", density=0.02)
    enter("Model folder or Hub id", "Qwen/Qwen3-0.6B")
    assert (workspace.recipe.mask.rule, workspace.recipe.mask.density) == ("sensitive", 0.02)
    assert workspace.recipe.loop.steps == 1000


@pytest.mark.parametrize(("told", "shown"), [
    ("Set [estimator] rule = 'two-sided' or [update] decay = 0.",
     "Set Gradient estimate = 'Central difference (SPSA)' or Weight decay = 0."),
    ("[loop] steps: must be 1 or more.", "Steps: must be 1 or more."),
    ("[run] checkpoints = 5 leaves no space; set [mask] rule = 'unheard-of'.",
     "Space for checkpoints = 5 leaves no space; set Weights to tune = 'unheard-of'."),
    ("Export it with --format peft or hf, or share the run.",
     "Export it as 'PEFT adapter' or 'Hugging Face folder', or share the run."),
    ("Export it with --format gguf.", "Export it as 'GGUF file'."),
    ("Export it with --format gguf-lora or --format none.", "Export it as 'GGUF adapter' or --format none."),
    ("No [table] here, and no [model] at all.", "No [table] here, and no 'Model' at all."),
    ("Set [model] device = 'cpu' or bits = 16.", "Set Device = 'cpu' or Bits = 16."),
    ("For example, set loop.steps=200.", "For example, set Steps=200."),
    ("Set [data] merge_labels = true (in the terminal: --set data.merge_labels=true).", "Set Merge labels = true."),
    ('Say which one it is with columns = { answer = "…" }.', "Say which one it is above the rows on the Data page."),
    ("[data] template, line 2: 'x' is not expected here.", "Prompt template, line 2: 'x' is not expected here."),
])  # fmt: skip
def test_settings_are_told_by_their_titles(told, shown):
    assert in_form_words(told) == shown == in_form_words(shown)


def sentences_of(path):
    """The texts in a module that are no docstrings; what is filled in is 'X'."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    inside |= {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if id(node) not in inside and isinstance(node, ast.JoinedStr):
            yield "".join(part.value if isinstance(part, ast.Constant) else "X" for part in node.values)
        elif id(node) not in inside and isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_no_sentence_of_the_engine_names_a_table_of_the_file():
    found = [text for path in Path(engine.__file__).parent.rglob("*.py") for text in sentences_of(path)]
    kept = [text for text in found if " " in text and re.search(r"\[(data|model|mask|loop|privacy)\]", text)]
    assert len(kept) > 20
    assert not [text for text in map(in_form_words, kept) if re.search(r" \[(model|mask|loop|privacy)\]", text)]


def test_after_a_run_a_new_model_starts_a_new_one(window, find, click, enter, workspace, engine, qtbot):
    """Resuming the old one lies with the old one."""
    engine.pace = 0.01
    click("Start run")
    qtbot.waitUntil(lambda: workspace.run.record is not None and workspace.run.record.state == "running")
    click("Stop run")
    qtbot.waitUntil(lambda: not workspace.run.running)
    old = workspace.run.record
    window.go("model")
    enter("Model folder or Hub id", "some/model")
    window.go("method")
    click("Continue to Run")
    assert "model · starter" in find("Next run").text() and find("Resume run").isEnabled()
    click("Start run")
    qtbot.waitUntil(lambda: workspace.run.record is not old and workspace.run.record.state == "running")
    assert workspace.run.record.recipe.model.id == "some/model"
    click("Stop run")
    qtbot.waitUntil(lambda: not workspace.run.running)


def test_the_end_of_a_run_is_told_on_every_page(window, click, workspace, qtbot):
    workspace.change("loop", steps=20)
    click("Start run")
    window.go("method")
    page = window.page("method")
    qtbot.waitUntil(lambda: page.banner.text == "starter: finished after step 20 of 20.")
    click("Show", page)
    assert window.page("run").isVisible()


def test_enter_in_the_closing_dialog_keeps_the_run(window, click, workspace, engine, qtbot):
    engine.pace = 0.01
    click("Start run")
    qtbot.waitUntil(lambda: workspace.run.record is not None and workspace.run.record.state == "running")
    for key in (Qt.Key.Key_Return, Qt.Key.Key_Escape):
        window.close()
        box = window.findChild(QMessageBox)
        qtbot.keyClick(box, key)
        qtbot.waitUntil(lambda: window.findChild(QMessageBox) is None)
        assert workspace.run.running and window.isVisible() and workspace.run.pending is None
    click("Stop run")
    qtbot.waitUntil(lambda: not workspace.run.running)


@pytest.mark.parametrize(
    ("place", "name"),
    [("run:mine/first@20", "first@20"), ("/data/cats.tsv.gz", "cats"), ("owner/Model-0.6B", "Model-0.6B"),
     ("/models/tiny.gguf", "tiny"), ("ollama:llama3:8b", "llama3:8b"), ("/exports/tuned.safetensors", "tuned")],
)  # fmt: skip
def test_places_have_short_names(place, name):
    assert short(place) == name
