"""The tree of runs, any past step, branches, notes, and the chat: real clicks, by accessible name."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import pytest
from conftest import in_colours_of_the_theme
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QApplication, QDialog, QFileDialog, QLabel, QPlainTextEdit, QTreeWidget
from standin import listed, past

from sparsezo_gui.engine.runs.share import share
from sparsezo_gui.errors import ChangedInputs, UserError
from sparsezo_gui.gui import formatting
from sparsezo_gui.gui.chat import hint, placeholder
from sparsezo_gui.gui.requests import InspectRun
from sparsezo_gui.gui.run_control import Opening
from sparsezo_gui.gui.run_requests import ExportRun, ListRuns, ReadRun
from sparsezo_gui.gui.theme import theme
from sparsezo_gui.gui.widgets.comparison import RunView
from sparsezo_gui.gui.widgets.exchange import AnswerSettings, Exchange, columns
from sparsezo_gui.gui.widgets.probes import Probes
from sparsezo_gui.gui.widgets.run_columns import COLUMNS
from sparsezo_gui.gui.worker import Engine
from sparsezo_gui.recipe import Recipe, dump
from sparsezo_gui.recipe import events as e
from tests.engine.runs.made import run_of


@pytest.fixture
def runs(window, workspace, engine, tmp_path, qtbot):
    """A run of 100 steps with a branch, and a damaged one."""
    folder = tmp_path / "yesterday"
    branch = folder / "branches" / "slower"
    for path, rate in ((folder, 1e-6), (branch, 5e-7)):
        path.mkdir(parents=True)
        recipe = Recipe(update={"rule": "sgd", "learning_rate": rate}, loop={"steps": 2000})
        (path / "recipe.toml").write_text(dump(recipe))
    engine.histories = {folder: past(), branch: past()}
    engine.run_list = [
        listed(folder, notes="the first"), listed(branch, "slower", 80, parent=str(folder), start=40, best=None),
        listed(tmp_path / "broken", "broken", 0, state="damaged", best=None, problem="The journal is no journal."),
    ]  # fmt: skip
    window.go("runs")
    workspace.run.list_runs()
    tree = window.page("runs").findChild(QTreeWidget)
    qtbot.waitUntil(lambda: tree.topLevelItemCount() == 2)
    return folder


def tree_of(window):
    return window.page("runs").findChild(QTreeWidget)


def choose(window, name):
    tree = tree_of(window)
    (item,) = tree.findItems(name, Qt.MatchFlag.MatchStartsWith | Qt.MatchFlag.MatchRecursive, 0)
    tree.setCurrentItem(item)


def test_the_tree_tells_every_run_and_what_is_other_in_a_branch(window, runs, find):
    tree = tree_of(window)
    top = tree.topLevelItem(0)
    cells = {title: top.text(column) for column, title in enumerate(COLUMNS)}
    assert [cells[title] for title in ("Run", "State", "Step", "Result")] == [
        "yesterday", "Stopped", "100 of 2\u2009000", "50.0 %",
    ]  # fmt: skip
    assert top.child(0).text(0) == "slower  (from 40)"
    assert find("Selected run").text() == "yesterday" and find("Notes").toPlainText() == "the first"
    choose(window, "slower")
    assert find("Run settings").text() == "Changed: update.learning_rate 1e-06 → 5e-07"
    choose(window, "broken")
    assert find("Run details").text() == "The journal is no journal."
    for name in ("Resume the run", "Branch from this step", "Evaluate this step", "Share this run"):
        assert not find(name).isEnabled()


def test_a_past_step_is_evaluated_with_the_model_loaded_for_it(window, runs, find, click, workspace, engine, qtbot):
    click("Step, best")
    assert find("Step").text() == "60"
    click("Evaluate this step")
    known = find("Step results")
    qtbot.waitUntil(lambda: "accuracy 50.0 %" in known.text())
    assert engine.asked == [e.EvaluateNow("validation", 60)]
    assert workspace.run.running and workspace.run.record.state == "paused"
    # While it is loaded, the next question costs no loading.
    click("Evaluate this step")
    qtbot.waitUntil(lambda: len(engine.asked) == 2)
    window.go("run")  # where a run that was stopped is not called paused
    qtbot.waitUntil(lambda: find("State of the run").text() == "yesterday · Stopped, model loaded")
    assert find("Run state").text() == "yesterday: stopped, model loaded, step 100 of 2\u2009000"
    workspace.run.command(e.Stop())
    qtbot.waitUntil(lambda: not workspace.run.running)


def test_going_back_and_going_on(window, runs, find, click, workspace, engine, qtbot):
    click("Step, best")
    click("Roll back to this step")
    qtbot.waitUntil(lambda: workspace.run.record is not None and workspace.run.record.step == 60)
    assert engine.asked == [e.GoBack(60)]
    assert window.page("run").isVisible() and workspace.run.record.columns.size == 60
    assert "Rolled back" in workspace.run.record.notes[-1].text
    workspace.run.command(e.Stop())
    qtbot.waitUntil(lambda: not workspace.run.running and not workspace.of(ReadRun).busy)
    window.go("runs")
    click("Resume the run")
    qtbot.waitUntil(lambda: workspace.run.record.state == "running" and workspace.run.record.step > 100)
    workspace.run.command(e.Stop())
    qtbot.waitUntil(lambda: not workspace.run.running)


def test_the_slider_follows_a_run_that_goes_on_but_not_from_a_chosen_step(window, runs, find, workspace, engine,
                                                                            qtbot):  # fmt: skip
    def grown(step):
        engine.run_list[0] = listed(runs, step=step, notes="the first")
        workspace.run.list_runs()
        qtbot.waitUntil(lambda: workspace.of(ListRuns).answer[0].step == step and not workspace.of(ListRuns).busy)
        qtbot.waitUntil(lambda: find("Step, slider").maximum() == step)
        return find("Step, slider").value()

    assert find("Step, slider").value() == 100 and grown(150) == 150
    find("Step, slider").setValue(60)
    assert grown(200) == 60


def test_a_branch_is_made_with_what_was_changed(window, runs, find, click, enter, engine, qtbot):
    click("Step, best")
    click("Branch from this step")
    dialog = window.findChild(QDialog)
    find("Name of the branch", where=dialog).setText("hotter")
    find("Learning rate", where=dialog).setText("2e-6")
    find("Other settings", QPlainTextEdit).setPlainText("loop.batch_sise=8")
    click("Create branch")
    assert "Did you mean 'batch_size'?" in find("Problem").text()
    find("Other settings", QPlainTextEdit).setPlainText("loop.batch_size=8\n")
    find("Steps", where=dialog).setText("10")
    click("Create branch")
    assert "must be greater than 60" in find("Problem").text()
    find("Steps", where=dialog).setText("2000")
    engine.run_list.append(listed(runs / "branches" / "hotter", "hotter", 60, parent=str(runs), start=60))
    enter("Name of the branch", "hotter")  # and Enter makes it
    qtbot.waitUntil(lambda: find("Selected run").text() == "hotter")
    settings = ["update.learning_rate=2e-6", "loop.batch_size=8"]
    assert engine.asked == [(runs, 60, settings, "hotter")]


def test_notes_are_kept_and_sharing_asks_where(window, runs, find, click, engine, qtbot, monkeypatch, tmp_path):
    find("Notes").selectAll()
    qtbot.keyClicks(find("Notes"), "better than it looks")
    click("Save notes")
    qtbot.waitUntil(lambda: bool(engine.asked))
    assert engine.asked == [(runs, "better than it looks")]
    assert not find("Save notes").isEnabled()
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(tmp_path / "x.zip"), ""))
    (tmp_path / "x.zip").write_text("shared before")
    for with_examples in (False, True):
        engine.asked.clear()
        click("Share this run")
        qtbot.waitUntil(lambda: find("Save the shared run").isEnabled())
        assert find("Save the shared run").isDefault()
        assert find("Files to share").toPlainText() == "events.jsonl: metrics"
        find("Share examples").setChecked(with_examples)
        told = f"events.jsonl: {engine.held[with_examples]}"
        assert find("Files to share").toPlainText() == told
        click("Save the shared run")
        qtbot.waitUntil(lambda told=told: told in window.page("runs").banner.text)
        assert engine.asked == [(runs, tmp_path / "x.zip", with_examples)]
    assert (tmp_path / "x.zip").read_text() == "shared before"  # until the engine has written another


def test_a_name_leads_to_no_other_folder(window, runs, find, click, engine, workspace, qtbot, monkeypatch):
    engine.run_list[0] = dataclasses.replace(engine.run_list[0], name="../../.ssh/<b>x")
    workspace.run.list_runs()
    qtbot.waitUntil(lambda: find("Selected run").text() == "../../.ssh/<b>x")
    offered = []
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *told: (offered.append(Path(told[2])) or "", ""))
    click("Share this run")
    qtbot.waitUntil(lambda: find("Save the shared run").isEnabled())
    click("Save the shared run")
    click("Cancel sharing")
    click("Show the run")
    qtbot.waitUntil(lambda: workspace.run.record is not None)
    workspace.run.record.name = "../../.ssh/<b>x"
    window.page("run").export_csv()
    assert [path.parent for path in offered] == [Path.home()] * 2
    assert [path.name for path in offered] == ["-..-.ssh--b-x.zip", "-..-.ssh--b-x.csv"]
    assert [formatting.file_name(name) for name in ("../..", "..", ".a")] == ["-", "", "a"]


def test_what_cannot_be_shared_leaves_the_file_that_was_there(window, runs, find, click, engine, qtbot, monkeypatch,
                                                              tmp_path):  # fmt: skip
    old = tmp_path / "x.zip"
    old.write_text("old")
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(old), ""))
    click("Share this run")
    qtbot.waitUntil(lambda: find("Save the shared run").isEnabled())
    engine.faults["contents"] = UserError("The journal is damaged.")  # since it was listed
    click("Save the shared run")
    qtbot.waitUntil(lambda: window.page("runs").banner.text == "The journal is damaged.")
    assert old.read_text() == "old"


def test_a_damaged_run_says_what_is_wrong_and_offers_nothing(window, runs, find):
    choose(window, "broken")
    about = find("Run details")
    assert about.text() == "The journal is no journal." and about.property("role") == "error"
    assert not find("Step results").text() and not find("Step").isEnabled()
    choose(window, "yesterday")
    assert about.property("role") == "dim" and find("Step").isEnabled()


def test_what_a_received_run_came_without_is_said(window, runs, click, engine, qtbot, monkeypatch, tmp_path):
    """The engine's own words, of a real run whose data are not here."""
    run = run_of(tmp_path / "x", recipe=Recipe(data={"source": str(tmp_path / "rows.csv")}))
    share(run, tmp_path / "x.zip")
    monkeypatch.setattr(engine, "receive", Engine().receive)
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: (str(tmp_path / "x.zip"), ""))
    click("Open a shared run")
    qtbot.waitUntil(lambda: bool(window.page("runs").banner.text))
    told = window.page("runs").banner.text
    assert " is ready. It does not include 'rows.csv' (data.source). Copy what is missing into " in told


def test_what_fails_is_said_on_the_page(window, runs, find, click, engine, workspace, qtbot):
    engine.faults["inspect"] = UserError("starter: these are not the weights that run 'yesterday' was tuned on.")
    click("Evaluate this step")
    qtbot.waitUntil(lambda: workspace.of(InspectRun).problem is not None)
    texts = [part.text() for part in window.page("runs").banner.findChildren(QLabel)]
    assert any("not the weights" in text for text in texts)
    qtbot.waitUntil(lambda: find("Evaluate this step").isEnabled())


def test_changed_inputs_are_a_question_and_what_is_measured_then_is_marked(window, runs, find, click, engine, workspace,
                                                                           qtbot):  # fmt: skip
    way = "add --changed-inputs"
    engine.faults["inspect"] = ChangedInputs("The validation examples changed.", way, changed=("validation",))
    click("Evaluate this step")
    qtbot.waitUntil(lambda: window.page("runs").banner.isVisible())
    assert window.page("runs").banner.text == "The validation examples changed."
    assert engine.asked == []
    click("Continue anyway")
    qtbot.waitUntil(lambda: bool(workspace.run.record and workspace.run.record.changed_input_evaluations))
    assert "with changed inputs: accuracy 50.0 %" in find("Step results").text()
    assert [each.step for each in workspace.run.record.evaluations] == [0]
    workspace.run.command(e.Stop())
    qtbot.waitUntil(lambda: not workspace.run.running and not workspace.of(ReadRun).busy)
    click("Export this step")
    engine.faults["export"] = engine.faults["inspect"]
    click("Export now")
    qtbot.waitUntil(lambda: workspace.of(ExportRun).problem is not None)
    assert engine.exported is None
    click("Export anyway")
    qtbot.waitUntil(lambda: engine.exported is not None and not workspace.of(ExportRun).busy)


def test_the_chosen_step_is_taken_to_the_export_page(window, runs, find, click, qtbot):
    click("Step, best")
    click("Export this step")
    assert window.page("export").isVisible()
    assert find("Step to export").text() == "60"


def test_the_chat_answers_side_by_side(window, runs, find, click, workspace, engine, qtbot):
    qtbot.keyClick(window, Qt.Key.Key_J, Qt.KeyboardModifier.ControlModifier)
    assert not find("Ask the model").isEnabled()
    click("Step, best")
    find("Prompt").setPlainText("Where is my parcel?")
    assert "after step 60" in find("Answering model").text()
    click("Ask the model")
    qtbot.waitUntil(lambda: not any(each.waiting for each in window.chat._exchanges))
    assert engine.asked == [e.Ask("Where is my parcel?", 96, 0), e.Ask("Where is my parcel?", 96, 60)]
    assert find("Base model's answer").text() == "The answer after 0."
    assert find("Tuned model's answer", QLabel).text() == "The answer after 60."
    workspace.run.command(e.Stop())
    qtbot.waitUntil(lambda: not workspace.run.running and not workspace.of(ReadRun).busy)
    engine.faults["inspect"] = UserError("The model is gone.")
    find("Prompt").setPlainText("And now?")
    click("Ask the model")
    qtbot.waitUntil(lambda: window.chat._exchanges[-1].answers[0].text() == "The model is gone.")
    click("Clear chat")
    assert window.chat._exchanges == []


def test_a_prompt_can_be_asked_raw(window, runs, find, click, workspace, engine, qtbot):
    window.chat.show()
    assert find("Prompt").placeholderText() == "Type the text…\nCtrl+Enter to ask"
    click("Raw prompt")
    assert find("Prompt").placeholderText().startswith("Type some text to continue…")
    find("Prompt").setPlainText("Answer:\n")
    click("Ask the model")
    qtbot.waitUntil(lambda: not any(each.waiting for each in window.chat._exchanges))
    assert engine.asked == [e.Ask("Answer:\n", 96, 0, True), e.Ask("Answer:\n", 96, 100, True)]
    workspace.run.command(e.Stop())
    qtbot.waitUntil(lambda: not workspace.run.running and not workspace.of(ReadRun).busy)


@pytest.mark.parametrize(
    ("data", "raw", "text"),
    [
        ({"task": "chat"}, False, "Type a message…"),
        ({"task": "chat"}, True, "Type some text to continue…"),
        ({"task": "text"}, False, "Type some text to continue…"),
        ({"task": "pairs"}, False, "Type the prompt…"),
        ({"task": "sst2", "columns": {"sentence": "review"}}, False, "Type the review…"),
        ({"template": "{{- title | trim }}: {{ text }}"}, False, 'Type {"text": "…", "title": "…"}'),
        ({"task": "boolq"}, False, 'Type {"passage": "…", "question": "…"}'),
        ({"task": "record"}, False, 'Type {"entities": "…", "passage": "…", "query": "…"}'),
        ({"task": "gone"}, False, "Type some text to continue…"),
    ],
)
def test_the_chat_says_what_to_write(data, raw, text):
    assert placeholder(Recipe(data=data), Engine().tasks(), raw) == text


@pytest.mark.parametrize(
    ("data", "way"),
    [
        ({"task": "pairs"}, "goes into the run's template, and into the model's chat template where there is one, as"),
        ({"task": "pairs", "chat_template": False}, "The model's chat template is not used. If the task"),
        ({"task": "chat", "chat_template": False}, "Your text goes into the model's chat template, as the run's"),
        ({"task": "sst2"}, "Your text goes into the run's template, as the run's examples did. If the task"),
        ({"task": "text"}, "The model continues your text. If the task"),
        ({"task": "gone"}, "Your text goes into the run's template, as the run's examples did. If the task"),
    ],
)
def test_the_chat_says_which_templates_a_text_goes_into(data, way):
    assert way in hint(Recipe(data=data), Engine().tasks())


def test_the_hint_is_of_the_run_on_show(window, tmp_path):
    folder, old = tmp_path / "old", dump(Recipe(data={"task": "pairs", "chat_template": False}))
    folder.mkdir()
    (folder / "recipe.toml").write_text(old.replace("chat_template = false\n", ""))  # as before that key existed
    window.chat.set_target(folder, 3)
    assert "chat template is not used" in window.chat._hint.text()
    window.chat.empty()
    assert "chat template is not used" in window.chat._hint.text()


def test_an_answer_that_is_empty_says_why(qapp):
    asked = columns("Is it?", None, False, AnswerSettings(), 1)
    exchange = Exchange("Is it?", asked, lambda _: None, lambda _: None)
    exchange.add_piece(e.Answer(0, " \n"))
    assert exchange.answers[0].text() == "…"
    exchange.add_piece(e.Answer(0, "", last=True))
    assert exchange.answers[0].text() == "The model gave an empty answer."
    exchange.add_piece(e.Answer(9, "technical 92 %\nbilling 8 %", last=True))
    assert exchange.answers[1].text() == "technical 92 %\nbilling 8 %"


def answered(window, qtbot):
    qtbot.waitUntil(lambda: not any(each.waiting for each in window.chat._exchanges))


def test_up_to_four_models_answer_with_the_settings_of_the_chat(
    window, runs, find, click, enter, workspace, engine, qtbot
):
    window.chat.show()
    click("Settings of the answers")
    for field, text in (
        ("Longest answer, tokens", "32"),
        ("Temperature", "0.7"),
        ("More steps to compare", "20, 40, 60"),
    ):
        enter(field, text)
    find("Prompt").setPlainText("Where is it?")
    click("Ask the model")
    answered(window, qtbot)
    assert engine.asked == [e.Ask("Where is it?", 32, step, False, 0.7, 1) for step in (0, 20, 40, 100)]
    assert find("Answer after step 20").text() == "The answer after 20."
    window.chat.resize(320, 600)
    click("Copy the answers")
    copied = QApplication.clipboard().text()
    assert copied.startswith("Where is it?\n\nBase:\nThe answer after 0.") and "After step 40:" in copied
    click("Ask again")
    answered(window, qtbot)
    assert engine.asked[4:] == [e.Ask("Where is it?", 32, step, False, 0.7, 2) for step in (0, 20, 40, 100)]
    workspace.run.command(e.Stop())
    qtbot.waitUntil(lambda: not workspace.run.running and not workspace.of(ReadRun).busy)


def test_a_conversation_has_turns_and_a_system_prompt(window, runs, find, click, enter, workspace, engine, qtbot):
    recipe = Recipe(data={"task": "chat"}, loop={"steps": 2000})
    (runs / "recipe.toml").write_text(dump(recipe))
    window.chat._described = ()
    window.chat.show()
    window.chat._refresh()
    click("Settings of the answers")
    enter("System prompt", "Be brief.")
    for prompt in ("Hello", "And you?"):
        find("Prompt").setPlainText(prompt)
        click("Ask the model")
        answered(window, qtbot)
    assert [(each.prompt, each.system) for each in engine.asked[2:]] == [("And you?", "Be brief.")] * 2
    assert [each.turns for each in engine.asked] == [
        (), (), (("Hello", "The answer after 0."),), (("Hello", "The answer after 100."),),
    ]  # fmt: skip
    workspace.run.command(e.Stop())
    qtbot.waitUntil(lambda: not workspace.run.running and not workspace.of(ReadRun).busy)


def test_an_answer_is_stopped(window, runs, find, click, workspace, engine, qtbot):
    window.chat.show()
    engine.pace = 0.3
    find("Prompt").setPlainText("Tell me everything")
    click("Ask the model")
    qtbot.waitUntil(lambda: workspace.run.running and find("Stop the answer").isVisible())
    click("Stop the answer")
    click("Clear chat")  # what comes yet goes nowhere
    find("Prompt").setPlainText("And this?")
    click("Ask the model")
    answered(window, qtbot)
    assert find("Tuned model's answer").text() == "The answer after 100."
    qtbot.waitUntil(lambda: e.StopAnswer() in engine.asked)
    workspace.run.command(e.Stop())
    qtbot.waitUntil(lambda: not workspace.run.running and not workspace.of(ReadRun).busy)


def test_two_questions_while_the_run_is_opened_are_both_answered(window, runs, find, click, workspace, engine, qtbot):
    window.chat.show()
    for prompt in ("one", "two"):
        find("Prompt").setPlainText(prompt)
        window.chat.ask()
    qtbot.waitUntil(lambda: not any(each.waiting for each in window.chat._exchanges))
    assert [each.prompt for each in engine.asked] == ["one", "one", "two", "two"]
    workspace.run.command(e.Stop())
    qtbot.waitUntil(lambda: not workspace.run.running and not workspace.of(ReadRun).busy)


def test_a_wish_that_came_to_nothing_is_forgotten(window, runs, find, click, workspace, engine, qtbot):
    workspace.run._opening = Opening(runs, True, (e.GoBack(60),))
    workspace.train()
    assert workspace.run._opening is None
    workspace.run.command(e.Stop())
    qtbot.waitUntil(lambda: not workspace.run.running)
    workspace.run.open(runs)
    qtbot.waitUntil(lambda: not workspace.of(ReadRun).busy)
    assert engine.asked == []


def test_notes_that_were_typed_stay_with_their_run(window, runs, find, engine, qtbot):
    find("Notes").insertPlainText("mine")
    choose(window, "slower")
    qtbot.waitUntil(lambda: bool(engine.asked))
    assert engine.asked == [(runs, "minethe first")]
    assert find("Notes").toPlainText() == ""


def test_the_chat_beside_a_run_that_goes_on(window, find, click, workspace, engine, qtbot):
    workspace.change("loop", steps=400)
    engine.pace = 0.01
    window.go("run")
    click("Start run")
    qtbot.waitUntil(lambda: workspace.run.record is not None and workspace.run.record.state == "running")
    window.chat.show()
    find("Prompt").setPlainText("Hello")
    click("Ask the model")
    qtbot.waitUntil(lambda: not any(each.waiting for each in window.chat._exchanges))
    assert find("Tuned model's answer", QLabel).text() == "The answer after all."
    click("Stop run")
    qtbot.waitUntil(lambda: not workspace.run.running)


def test_a_watched_prompt_is_asked_again_and_again(window, find, click, workspace, engine, qtbot):
    workspace.change("loop", steps=4000, evaluate_every=60)
    engine.pace = 0.005
    window.go("run")
    click("Start run")
    qtbot.waitUntil(lambda: workspace.run.record is not None and workspace.run.record.state == "running")
    window.chat.show()
    find("Prompt").setPlainText("Hello")
    click("Ask the model")
    answered(window, qtbot)
    click("Watch this prompt")
    qtbot.waitUntil(lambda: len(window.chat._probes.probes[0].answers) >= 3)
    steps = [step for step, _ in window.chat._probes.probes[0].answers]
    assert steps == sorted(steps) and all(later // 60 > step // 60 for step, later in itertools.pairwise(steps))
    qtbot.wait(50)
    assert find(f"Prompt 1 after step {steps[0]}").text() == "The answer after all."
    assert "Hello" in str(workspace.store.value("probes"))
    click("Stop watching prompt 1")
    assert not find("Questions and answers").findChild(Probes).isVisible()
    click("Stop run")
    qtbot.waitUntil(lambda: not workspace.run.running)


def test_memory_is_let_go_of_and_taken_again(window, find, click, workspace, engine, qtbot):
    workspace.change("loop", steps=400)
    engine.pace = 0.01
    window.go("run")
    click("Start run")
    qtbot.waitUntil(lambda: workspace.run.record is not None and workspace.run.record.state == "running")
    click("Pause run")
    qtbot.waitUntil(lambda: workspace.run.record.state == "paused")
    click("Free memory")
    qtbot.waitUntil(lambda: workspace.run.record.state == "unloaded")
    assert "model unloaded" in find("State of the run").text()
    click("Resume run")
    qtbot.waitUntil(lambda: workspace.run.record.state == "running")
    click("Stop run")
    qtbot.waitUntil(lambda: not workspace.run.running)


def test_a_run_that_waits_says_for_what(window, find, workspace):
    window.go("run")
    from sparsezo_gui.gui.record import RunRecord

    record = RunRecord(workspace.recipe, Path("x"))
    record.add([e.Started("x", "tiny", 1, 10, 1, 1, 1, "CPU"), e.Paused(0, "the disk is full")])
    workspace.run.record = record
    workspace.run.changed.emit()
    assert "Waiting: the disk is full" in find("State of the run").text()
    workspace.run.record = None


def test_the_page_in_both_themes(window, runs, qtbot, both_themes):
    theme().apply(both_themes)
    window.chat.show()
    for part in (window.page("runs"), window.chat):
        in_colours_of_the_theme(part, both_themes)


def shown(tree):
    items = [tree.topLevelItem(place) for place in range(tree.topLevelItemCount())]
    return [item.text(0) for item in items if not item.isHidden()]


def test_a_run_is_renamed_and_tagged(window, runs, find, click, engine, qtbot):
    click("Rename or tag the run")
    name, tags = find("Name of the run"), find("Tags of the run")
    name.setText("keeper")
    tags.setText("paper, keep")
    click("Save name and tags")
    qtbot.waitUntil(lambda: find("Selected run").text() == "keeper")
    assert engine.run_list[0].tags == ("paper", " keep") and "paper" in find("Run details").text()


def test_a_run_is_deleted_only_after_its_size_was_told(window, runs, find, click, engine, qtbot):
    click("Delete this run")
    qtbot.waitUntil(lambda: "3.00 MiB" in find("What is deleted").text())
    assert "'yesterday' and its 1 branch will be deleted" in find("What is deleted").text()
    qtbot.keyClick(find("What is deleted").window(), Qt.Key.Key_Return)  # the safe answer is the default
    assert len(engine.run_list) == 3
    click("Delete this run")
    qtbot.waitUntil(lambda: find("Delete the run").isEnabled())
    click("Delete the run")
    qtbot.waitUntil(lambda: shown(tree_of(window)) == ["broken"])
    assert "3.00 MiB are free again" in window.page("runs").banner.text


def test_a_run_that_goes_on_is_not_deleted(window, runs, find, click, workspace, engine, qtbot):
    engine.run_list[0] = dataclasses.replace(engine.run_list[0], state="running")  # in another window
    click("Refresh runs")
    qtbot.waitUntil(lambda: find("Run details").text().startswith("Running"))
    assert not find("Delete this run").isEnabled() and find("Rename or tag the run").isEnabled()


def test_selected_runs_are_compared(window, runs, find, workspace, qtbot):
    tree, view = tree_of(window), window.page("runs").findChild(RunView)
    qtbot.waitUntil(lambda: len(view.overlay.curves) == 1)
    assert find("Step").isVisible()
    tree.topLevelItem(0).setSelected(True)
    tree.topLevelItem(0).child(0).setSelected(True)
    qtbot.waitUntil(lambda: len(view.overlay.curves) == 2)
    table = find("Differences of the selected runs")
    assert [table.horizontalHeaderItem(place).text() for place in range(2)] == ["yesterday", "slower"]
    rows = {table.verticalHeaderItem(line).text(): [table.item(line, place).text() for place in range(2)]
            for line in range(table.rowCount())}  # fmt: skip
    assert rows["update.learning_rate"] == ["1e-06", "5e-07"] and "loop.steps" not in rows
    assert rows["Step"] == ["100", "80"] and rows["Accuracy"] == ["50.0 %", "50.0 %"]
    choose(window, "yesterday")
    tree.clearSelection()
    tree.topLevelItem(0).setSelected(True)
    qtbot.waitUntil(lambda: len(view.overlay.curves) == 1)
    find("Step").setText("40")
    qtbot.keyClick(find("Step"), Qt.Key.Key_Return)
    assert view.overlay._step.value() == 40 and view.overlay._step.isVisible()


def test_without_runs_one_thing_can_be_done(window, click, find):
    window.go("runs")
    assert find("No runs yet").isVisible()
    click("Go to the Run page")
    assert window.page("run").isVisible()
