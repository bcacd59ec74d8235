"""Runs that start one after another."""

from __future__ import annotations

from sparsezo_gui.errors import UserError
from sparsezo_gui.gui.workspace import Workspace


def prepared(click, workspace, *steps):
    for count in steps:
        workspace.change("loop", steps=count)
        click("Add to the queue")


def test_queued_runs_start_one_after_another(window, find, click, workspace, engine, qtbot):
    engine.pace, started = 0.01, []
    train = engine.train

    def training(recipe, commands, **more):
        started.append(recipe.loop.steps)
        engine.faults = {"step": UserError("It broke.")} if len(started) == 2 else {}
        return train(recipe, commands, **more)

    engine.train = training
    workspace.change("loop", steps=20)
    click("Start run")
    qtbot.waitUntil(lambda: workspace.run.record is not None and workspace.run.record.state == "running")
    prepared(click, workspace, 11, 12, 13)
    assert find("Queue of runs").text() == "Queue: 3"
    click("Queue of runs")
    waiting = find("Runs in the queue")
    assert [waiting.item(place).text().split(" · ")[-1] for place in range(3)] == ["11 steps", "12 steps", "13 steps"]
    assert not find("Start the queue").isEnabled()
    waiting.setCurrentRow(1)
    click("Remove from the queue")
    assert waiting.count() == 2
    click("Close the queue")
    qtbot.waitUntil(lambda: started == [20, 11, 13] and not workspace.run.running)
    assert workspace.run.record.state == "done" and workspace.queue.recipes == []


def test_a_run_that_is_stopped_is_followed_by_none_and_the_queue_is_kept(window, find, click, workspace, engine, qtbot):
    engine.pace = 0.01
    workspace.change("loop", steps=400)
    click("Start run")
    qtbot.waitUntil(lambda: workspace.run.record is not None and workspace.run.record.state == "running")
    prepared(click, workspace, 5)
    window.go("run")
    click("Stop run")
    qtbot.waitUntil(lambda: not workspace.run.running)
    qtbot.wait(50)
    assert not workspace.run.running and len(workspace.queue.recipes) == 1
    again = Workspace(engine)
    assert [recipe.loop.steps for recipe in again.queue.recipes] == [5]
    again.deleteLater()
    click("Queue of runs")
    click("Start the queue")
    qtbot.waitUntil(lambda: workspace.run.record.state == "done")
    assert workspace.run.record.step == 5
