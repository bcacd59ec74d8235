"""The Method page: the mask before and after it is found, and the advisor."""

from __future__ import annotations

import dataclasses

import pytest
from PySide6.QtCore import QPoint, Qt
from PySide6.QtGui import QAction, QHelpEvent
from PySide6.QtWidgets import QApplication, QLabel, QToolTip, QWidget
from standin import mask_report

from sparsezo_gui.errors import UserError
from sparsezo_gui.gui.record import RunRecord
from sparsezo_gui.gui.requests import CompareWays, FindMask, FindRate
from sparsezo_gui.gui.theme import colours, theme
from sparsezo_gui.gui.widgets.safe_text import tooltip
from sparsezo_gui.gui.wording import grouped_numbers
from sparsezo_gui.recipe.events import Progress, Stop
from sparsezo_gui.recipe.noise import Noise, NoiseProbed


@pytest.fixture
def method(window):
    window.go("method")
    return window.page("method")


@pytest.fixture
def found(method, click, workspace, qtbot):
    """A page on which the mask was found."""
    click("Find the mask")
    qtbot.waitUntil(lambda: workspace.mask is not None)
    return method


def shown(page: QWidget, name: str) -> bool:
    return any(w.isVisible() for w in page.findChildren(QWidget) if w.accessibleName() == name)


def test_before_it_is_found_there_is_one_hint_and_no_chart(method, find, workspace):
    workspace.change("mask", text="general")
    assert find("Source of the mask").text() == (
        "Found on the bundled general text: at most 32 sequences of up to 512 tokens."
    )
    assert find("Cost of the mask").text().startswith("About 32 forward and backward passes")
    assert find("Mask not found yet").text() and find("Find the mask").text() == "Find mask"
    assert not shown(method, "Tuned weights by block")


def test_found_it_is_shown_by_block_and_by_kind(found, find, qtbot, both_themes):
    theme().apply(both_themes)
    report = mask_report()
    assert find("Mask found").text() == (
        f"{report.tuned:,} of {report.eligible:,} weights (0.0806 %) are tuned. Finding them took 21 s "
        "and up to 1.46 GiB of memory."
    ).replace(",", "\u2009")
    assert find("Find the mask").text() == "Find again"
    chart = find("Tuned weights by block")
    assert chart.accessibleDescription() == (
        "28 blocks. Block 0 has the highest tuned share (0.229 %), block 27 the lowest (0.0382 %); "
        "the average is 0.0806 %."
    )
    assert "v_proj" in find("Tuned weights by kind").accessibleDescription()
    assert not shown(found, "Mask not found yet")
    image = chart.grab().toImage()
    assert len({image.pixel(x, image.height() // 2) for x in range(image.width())}) > 1


def test_the_overlap_with_other_masks_is_a_table(found, find, workspace, engine, click, qtbot, monkeypatch):
    report = mask_report()
    assert find("Mask 1").text() == "Sensitive (density 0.01)"
    assert find("Mask 2").text() == "Large activations (text task, sequences 16)"
    assert find("In both: mask 1").text() == f"{report.tuned:,}".replace(",", "\u2009")
    assert (find("Share of this mask: mask 1").text(), find("By chance: mask 1").text()) == ("100 %", "1 %")
    assert (find("Share of this mask: mask 2").text(), find("By chance: mask 2").text()) == ("14.3 %", "0.1 %")
    alone = dataclasses.replace(report, overlaps=())
    monkeypatch.setattr(engine, "mask", lambda recipe: iter_of(alone))
    click("Find the mask")
    qtbot.waitUntil(lambda: workspace.mask == alone)
    assert not shown(found, "Mask 1")


def iter_of(answer):
    yield Progress("Finding the sensitive weights")
    return answer


def test_a_bar_tells_its_exact_numbers(found, find, qtbot):
    chart = find("Tuned weights by block")
    first = mask_report().layers[0]
    place = QPoint(chart.width() // 10, chart.height() // 2)
    event = QHelpEvent(QHelpEvent.Type.ToolTip, place, chart.mapToGlobal(place))
    QApplication.sendEvent(chart, event)
    told = f"Block 0: {first.tuned:,} of {first.weights:,} weights (0.229 %)".replace(",", "\u2009")
    assert QToolTip.text() == tooltip(told)
    QToolTip.hideText()
    qtbot.waitUntil(lambda: not QToolTip.isVisible())


def test_a_mask_of_other_settings_is_not_shown(found, find, workspace):
    workspace.change("mask", density=0.005)
    assert not shown(found, "Mask found") and shown(found, "Mask not found yet")
    workspace.change("mask", density=0.01)
    workspace.change("loop", steps=7)
    workspace.change("data", train=50)
    assert shown(found, "Mask found")
    workspace.change("model", id="Qwen/Qwen3-0.6B")
    assert not shown(found, "Mask found")


def test_on_the_tasks_own_text_the_data_matters(method, click, workspace, qtbot):
    workspace.change("mask", text="task")
    click("Find the mask")
    qtbot.waitUntil(lambda: workspace.mask is not None)
    workspace.change("data", train=50)
    assert workspace.mask is None


def test_finding_can_be_cancelled(found, find, click, workspace, engine, qtbot):
    engine.pace = 0.2
    click("Find the mask")
    assert find("Mask search").text() == "Waiting for the engine…"
    qtbot.waitUntil(lambda: "sensitive weights" in find("Mask search").text())
    assert find("Mask search progress").maximum() == 32
    click("Cancel finding the mask")
    qtbot.waitUntil(lambda: not workspace.of(FindMask).busy)
    assert shown(found, "Mask found") and find("Find the mask").isEnabled()


def test_it_cannot_be_asked_for_while_a_run_goes_on(method, find, workspace, engine, qtbot):
    engine.pace = 0.01
    workspace.train()
    qtbot.waitUntil(lambda: workspace.run.record.state == "running")
    press = find("Find the mask")
    assert not press.isEnabled() and press.toolTip() == "The engine is busy training."
    qtbot.mouseClick(press, Qt.MouseButton.LeftButton)
    workspace.find_mask()
    assert not workspace.of(FindMask).busy
    workspace.run.command(Stop())
    qtbot.waitUntil(lambda: press.isEnabled())
    assert press.toolTip() == "Loads the model and finds the mask."


def test_what_goes_wrong_is_told_on_the_page(method, click, workspace, engine, qtbot):
    engine.faults["mask"] = UserError("notes.txt: is too short to find sensitive parameters with.")
    click("Find the mask")
    qtbot.waitUntil(lambda: workspace.of(FindMask).problem is not None)
    assert "is too short" in method.banner.text
    del engine.faults["mask"]
    click("Find the mask")
    qtbot.waitUntil(lambda: workspace.mask is not None)
    assert method.banner.text == ""


def test_each_rule_says_where_its_mask_comes_from(method, find, workspace):
    for rule, words in {
        "random": "Drawn from the seed", "large-magnitude": "by magnitude", "saved": "No mask file",
        "weight-activation": "input activation", "rows": "Whole rows", "outlier-channels": "first block with",
        "multi-task": "texts have equal weight",
    }.items():  # fmt: skip
        workspace.change("mask", rule=rule)
        assert words in find("Source of the mask").text()
        assert shown(method, "Find the mask")
    workspace.change_all({"model": {"bits": 16}, "mask": {"rule": "all"}})
    assert "no search is needed" in find("Source of the mask").text()
    for absent in ("Find the mask", "Cost of the mask", "Mask not found yet", "Mask found"):
        assert not shown(method, absent)


def test_several_texts_are_parted_by_commas(method, find, workspace, qtbot):
    workspace.change("mask", rule="multi-task")
    find("Show advanced settings").click()
    texts = find("Texts")
    assert texts.text() == "general, answers"
    texts.selectAll()
    qtbot.keyClicks(texts, "general, notes.txt ,")
    qtbot.keyClick(texts, Qt.Key.Key_Return)
    assert workspace.recipe.mask.texts == ("general", "notes.txt")
    texts.selectAll()
    qtbot.keyClicks(texts, " ")
    qtbot.keyClick(texts, Qt.Key.Key_Return)
    assert workspace.recipe.mask.texts == ("general", "notes.txt")
    assert any("must name one text" in part.text() for part in method.findChildren(QLabel))


def test_a_rule_that_does_not_go_with_the_rest_is_refused_with_a_sentence(method, click, find, workspace):
    click("Show advanced settings")
    combo = find("Weights to tune")
    before = combo.currentIndex()
    combo.setCurrentIndex(combo.findData("random-layers"))
    assert "4-bit weights cannot be updated in place. Set Bits = 32 or 16" in method.banner.text
    assert workspace.recipe.mask.rule == "sensitive"
    assert combo.currentIndex() == before, "what was refused is not shown as chosen"
    workspace.change("model", bits=32)
    combo.setCurrentIndex(combo.findData("random-layers"))
    assert workspace.recipe.mask.rule == "random-layers"


def test_a_long_path_does_not_widen_the_page(method, find, workspace):
    width = method.body.parentWidget().width()
    workspace.change("mask", rule="saved", file="/" + "folder/" * 60 + "mask.safetensors")
    assert find("Source of the mask").minimumSizeHint().width() < width / 2


def test_the_advisor_speaks_and_keeps_silent(method, find, workspace, engine, qtbot):
    def said() -> list[str]:
        parts = method.findChildren(QLabel)
        return [part.text() for part in parts if part.accessibleName() == "Advice" and part.isVisible()]

    qtbot.waitUntil(lambda: workspace.plan is not None)
    assert said() == [], "what is recommended is said where it can be taken"
    assert find("Recommended way").text() == grouped_numbers(workspace.plan.why)
    workspace.change("mask", rule="random", density=0.0002)
    assert len(said()) == 2
    workspace.change("mask", density=0.01)
    assert len(said()) == 1
    engine.faults["estimate"] = UserError("There is no model 'x'.")
    workspace.change("loop", batch_size=4)
    qtbot.waitUntil(lambda: said() == [])


def test_the_rate_goes_with_the_rules(method, workspace):
    update = {"rule": "scalar-normalised", "learning_rate": 5e-3}
    workspace.change_all({"mask": {"rule": "sensitive"}, "update": update})
    method._edited("mask", "rule", "random")
    assert (workspace.recipe.mask.rule, workspace.recipe.update.learning_rate) == ("random", 2.5e-2)
    assert method._fields["update", "learning_rate"].value() == 2.5e-2
    method._edited("estimator", "rule", "grzo")
    assert workspace.recipe.update.learning_rate == 0.1
    method._edited("estimator", "rule", "two-sided")
    method._edited("update", "rule", "sgd")
    assert workspace.recipe.update.learning_rate == 2.5e-5
    method._edited("mask", "rule", "sensitive")
    assert workspace.recipe.update.learning_rate == 1e-6


def test_a_rate_is_found_told_and_taken(method, find, click, workspace, qtbot):
    assert "Short runs" in find("Suggested rate").text() and not shown(method, "Use the suggested rate")
    assert not shown(method, "Losses by learning rate")
    click("Find learning rate")
    qtbot.waitUntil(lambda: workspace.rates is not None)
    assert "Learning rate 0.003: of the rates from" in find("Suggested rate").text()
    chart = find("Losses by learning rate")
    assert chart.accessibleDescription() == "Initial loss 1.4. 0.0001: 1.39; 0.001: 1.3; 0.01: 1.1; 0.1: 2.4."
    image = chart.grab().toImage()
    drawn = {image.pixelColor(x, y).name() for x in range(image.width()) for y in range(image.height())}
    assert {colours().accent, colours().error} <= drawn, "the best rate, and one that diverged"
    assert click("Use the suggested rate").text().startswith("Use ")
    assert workspace.recipe.update.learning_rate == 3e-3
    assert not shown(method, "Use the suggested rate") and "Learning rate 0.003" in find("Suggested rate").text()
    assert not workspace.recipe.update.find_rate
    workspace.change("update", learning_rate=1e-3, schedule="cosine")
    assert shown(method, "Use the suggested rate")
    workspace.change("loop", batch_size=3)
    assert "Short runs" in find("Suggested rate").text() and not shown(method, "Use the suggested rate")


def test_finding_a_rate_can_be_cancelled_and_fail(method, find, click, workspace, engine, qtbot):
    engine.pace = 0.2
    click("Find learning rate")
    qtbot.waitUntil(lambda: "Trying a learning rate" in find("Suggested rate").text())
    assert find("Learning rate search progress").maximum() == 40 and not find("Find the mask").isEnabled()
    click("Cancel learning rate search")
    qtbot.waitUntil(lambda: not workspace.of(FindRate).busy)
    assert workspace.rates is None and find("Find learning rate").isEnabled()
    engine.faults["rates"] = UserError("There are too few training examples to find a rate with.")
    click("Find learning rate")
    qtbot.waitUntil(lambda: "too few" in method.banner.text)


def test_noise_is_measured_told_and_its_epsilon_taken(method, find, click, workspace, engine, qtbot):
    assert not shown(method, "Loss differences and noise by epsilon")
    click("Measure noise")
    qtbot.waitUntil(lambda: workspace.noise is not None)
    told = find("Suggested epsilon").text()
    assert told.startswith("Epsilon 0.003 is too small, so a run raises it to 0.009: there, differences")
    chart = find("Loss differences and noise by epsilon")
    said = (
        "0.003: 2.1e-04, needed 5.0e-04; 0.009: 6.4e-04, needed 5.5e-04; 0.03: 2.2e-03, needed 4.5e-04. Chosen: 0.009."
    )
    assert chart.accessibleDescription() == said
    image = chart.grab().toImage()
    drawn = {image.pixelColor(x, y).name() for x in range(image.width()) for y in range(image.height())}
    assert {colours().accent, colours().second} <= drawn, "what was measured, and what is needed"
    assert click("Use the suggested epsilon").text() == "Use 0.009"
    assert workspace.recipe.estimator.epsilon == 3 * 3e-3 and not shown(method, "Use the suggested epsilon")
    workspace.change("loop", batch_size=3)
    assert workspace.noise is None and "stand out from rounding noise" in find("Suggested epsilon").text()
    engine.faults["noise"] = UserError("Measuring noise uses training examples.")
    click("Measure noise")
    qtbot.waitUntil(lambda: "uses training examples" in method.banner.text)
    workspace.change_all({"estimator": {"rule": "first-order"}, "update": {"rule": "adam"}})
    assert not shown(method, "Measure noise"), "it takes no differences"


def test_the_noise_that_the_displayed_run_measured_is_shown(method, find, workspace, qtbot):
    recipe = workspace.recipe
    record = workspace.run.record = RunRecord(recipe)
    trials = [Noise(recipe.estimator.epsilon, 1e-2, 1e-5)]
    record.add([NoiseProbed.of(trials)])
    workspace.run.changed.emit()
    told = find("Suggested epsilon").text()
    assert told.startswith("Epsilon 0.003 is large enough: differences of the loss (1.0e-2) are")
    workspace.change("mask", density=0.05)
    assert not shown(method, "Loss differences and noise by epsilon"), "that run tunes other weights"


@pytest.fixture
def compared(method, click, workspace, qtbot):
    """A page on which the ways were compared."""
    click("Compare on this computer")
    qtbot.waitUntil(lambda: workspace.plan is not None and any(way.pace for way in workspace.plan.ways))
    return method


def test_before_they_are_compared_ways_have_an_estimate(method, find, workspace, qtbot):
    qtbot.waitUntil(lambda: workspace.plan is not None)
    assert find("Memory: Exact gradients").text() == "1.85 GiB (estimated)"
    assert find("A step: Exact gradients").text() == find("In all: Exact gradients").text() == "–"
    assert find("Comparison").text() == "Memory is estimated. Compare to measure memory and time."


def test_compared_ways_have_their_figures_and_one_is_recommended(compared, find):
    assert find("Memory: Exact gradients").text() == "1.76 GiB (measured)"
    assert find("A step: Exact gradients").text() == "250 ms"
    assert find("Usual steps: Forward passes only").text() == "2\u2009000"
    assert find("In all: Exact gradients").text() == "37 s", "100 steps, and 12 s to find the mask"
    assert find("In all: Exact gradients, last half").text() == "55 s"
    assert shown(compared, "Recommended: Exact gradients") and not shown(compared, "Recommended: Forward passes only")
    assert find("Recommended way").text().startswith("Exact gradients: usually 100 steps")
    lora = find("Use LoRA, exact gradients")
    assert not lora.isEnabled() and lora.toolTip() == "It needs 1.76 GiB, and 1.00 GiB are free."
    assert find("Limits: LoRA, exact gradients").text() == lora.toolTip()
    assert "cannot tune accuracy" in find("Limits: Exact gradients").text().lower()


def test_a_way_is_taken_and_left_again_without_comparing_again(compared, find, click, workspace):
    before, plan = workspace.recipe, workspace.plan
    assert find("Use Forward passes only").text() == "In use" and not find("Use Forward passes only").isEnabled()
    click("Use Exact gradients, last half")
    recipe = workspace.recipe
    assert (recipe.estimator.rule, recipe.mask.rule, recipe.mask.blocks) == ("first-order", "lora", "half")
    assert recipe.loop.steps == 100 and workspace.plan is plan
    assert find("Use Exact gradients, last half").text() == "In use"
    click("Use Forward passes only")
    assert workspace.recipe == before.model_copy(update={"loop": before.loop.model_copy(update={"steps": 2000})})
    workspace.change("update", learning_rate=1e-4)
    assert workspace.plan is plan
    workspace.change("loop", batch_size=3)
    assert workspace.plan is not plan, "it was compared for other batches"


def test_a_comparison_can_be_cancelled_and_its_problem_is_told(method, find, click, workspace, engine, qtbot):
    engine.endless = True
    click("Compare on this computer")
    qtbot.waitUntil(lambda: find("Comparison").text() == "Measuring: Forward passes only…")
    assert find("Comparison progress").maximum() == 3
    click("Cancel the comparison")
    qtbot.waitUntil(lambda: not workspace.of(CompareWays).busy)
    engine.endless = False
    engine.faults["plan"] = UserError("data.csv: cannot be read.")
    click("Compare on this computer")
    qtbot.waitUntil(lambda: "cannot be read" in method.banner.text)


def test_automatic_is_the_users_setting_and_changes_the_recipe(window, method, workspace, engine, tmp_path, qtbot):
    action = next(each for each in window.findChildren(QAction) if each.text() == "Choose the method a&utomatically")
    workspace.change_all(workspace.plan.best.tables if workspace.plan else {"estimator": {"rule": "first-order"}})
    assert not action.isChecked() and not workspace.automatic
    action.trigger()
    assert workspace.automatic and workspace.recipe.estimator.rule == "auto"
    assert workspace.recipe.update.rule == "scalar-normalised", "which suits either choice"
    path = tmp_path / "mine.toml"
    path.write_text('[mask]\nrule = "random"\n')
    window.open_recipe(path)
    assert workspace.recipe.estimator.rule == "auto"
    action.trigger()
    assert not workspace.automatic and workspace.recipe.estimator.rule == "two-sided"
    window.open_recipe(path)
    assert workspace.recipe.estimator.rule == "two-sided"
