"""The stand-in speaks like the engine: the same calls, types of answers and order of events, on a tiny real model."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any, get_type_hints

import pytest
from standin import StandIn, listed, past

from sparsezo_gui.gui import hub_requests, requests, run_requests
from sparsezo_gui.gui.calls import EngineCalls, Request
from sparsezo_gui.gui.worker import Engine
from sparsezo_gui.recipe import Recipe, load
from sparsezo_gui.recipe import events as e
from tests.hub_server import TOKEN, hub
from tests.models import small_recipe, tiny

__all__ = ["hub"]
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content:DeprecationWarning")  # the Hub's client's own
MORE = """max_tokens = 32
[mask]
rule = "random"
density = 0.01
[loop]
steps = 3
batch_size = 2
evaluate_every = 2
[run]
folder = "run"
"""
CALLS = [name for name in vars(EngineCalls) if not name.startswith("_")]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> Recipe:
    return load(small_recipe(tmp_path_factory.mktemp("contract"), MORE))


@pytest.fixture(scope="module")
def run(recipe) -> tuple[Path, list[e.Event]]:
    """A run of the real engine, with its events."""
    events = list(Engine().train(recipe, SimpleQueue()))
    return Path(recipe.run.folder), events


@pytest.fixture
def stand_in(tmp_path, run) -> StandIn:
    made = StandIn(tmp_path / "runs", pace=0.0)
    made.run_list, made.histories = [listed(run[0])], {run[0]: past()}
    return made


def outcome(answer: Any) -> tuple[list[e.Event], Any]:
    """Events and answer of a call."""
    events: list[e.Event] = []
    if isinstance(answer, Iterator):
        while True:
            try:
                events.append(next(answer))
            except StopIteration as stop:
                return events, stop.value
    return events, answer


def shape(value: Any) -> Any:
    """The types that a value is made of, at any depth."""
    if dataclasses.is_dataclass(value):
        return type(value), {field.name: type(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, list | tuple) and value:
        return type(value), shape(value[0])
    return type(value)


def order(events: list[e.Event]) -> list[tuple[str, str]]:
    """Kinds of events and splits in their order, repeated ones once; progress, notices and examples come anywhere."""
    anywhere = e.Progress | e.Notice | e.Examples | e.Base
    kept = [event for event in events if not isinstance(event, anywhere)]
    kinds = [(type(event).__name__, getattr(event, "split", "")) for event in kept]
    return [kind for kind, _ in itertools.groupby(kinds)]


def test_every_request_says_what_the_engine_does_and_asks_one_call():
    kinds = [
        each
        for each in (vars(requests) | vars(run_requests) | vars(hub_requests)).values()
        if isinstance(each, type) and issubclass(each, Request)
    ]
    asked = [kind for kind in kinds if "ask" in vars(kind) and kind is not Request]
    assert len(asked) == len(CALLS) and all(kind.activity for kind in asked)


def test_both_have_all_calls_with_the_same_types():
    for name in CALLS:
        wanted = inspect.signature(getattr(EngineCalls, name)).parameters
        hints = get_type_hints(getattr(EngineCalls, name))
        for made in (Engine, StandIn):
            method = getattr(made, name)
            parameters = inspect.signature(method).parameters
            more = [each for key, each in parameters.items() if key not in wanted]
            assert list(parameters)[: len(wanted)] == list(wanted), name
            assert all(each.default is not inspect.Parameter.empty for each in more), name
            assert {key: get_type_hints(method)[key] for key in hints} == hints, (made, name)


@pytest.mark.parametrize("name", ["computer", "tasks", "models", "summary", "fits", "estimate", "measure", "ways",
                                  "plan", "mask", "preview", "runs", "history", "contents", "share", "note",
                                  "branch"])  # fmt: skip
def test_answers_have_the_same_types(name, recipe, run, stand_in, tmp_path):
    folder = run[0]
    arguments: dict[str, tuple[Any, ...]] = {
        "computer": (), "tasks": (), "models": (), "fits": (recipe, (recipe.model.id,)), "preview": (recipe, 0),
        "runs": (folder,), "history": (folder,), "contents": (folder,), "note": (folder, "tiny"),
        "branch": (folder, 1, [], "other"),
    }  # fmt: skip
    answers = []
    for number, engine in enumerate((Engine(), stand_in)):
        given = arguments.get(name, (recipe,))
        if name == "share":
            given = (folder, tmp_path / f"{number}.zip", False)
        answers.append(outcome(getattr(engine, name)(*given))[1])
    assert shape(answers[0]) == shape(answers[1])


def test_shared_and_exported_runs(run, stand_in, tmp_path):
    for number, engine in enumerate((Engine(), stand_in)):
        shared = tmp_path / f"{number}.zip"
        engine.share(run[0], shared, False)
        if number == 0:
            received = engine.receive(shared)
        assert shape(engine.receive(tmp_path / "0.zip")) == shape(received)
        out = tmp_path / f"{number}.safetensors"
        events, exported = outcome(engine.export(run[0], "overlay", out, 2, {}, False))
        assert exported.step == 2 and {type(each) for each in events} <= {e.Progress, e.Notice}
        if number == 0:
            first = shape(exported)
        assert shape(exported) == first
        events, answer = outcome(engine.ask_export(run[0], out, "a film"))
        assert isinstance(answer, str) and answer and {type(each) for each in events} <= {e.Progress, e.Notice}


def test_runs_are_labelled_measured_and_deleted(run, stand_in, tmp_path):
    found = []
    for number, engine in enumerate((Engine(), stand_in)):
        folder = tmp_path / f"run{number}"
        shutil.copytree(run[0], folder)
        stand_in.run_list = [listed(folder)]
        engine.label(folder, "mine", ("keep",))
        (one,) = (each for each in engine.runs(folder) if each.path == str(folder.resolve()))
        assert (one.name, one.tags) == ("mine", ("keep",))
        found.append([shape(engine.removable(folder)), shape(engine.remove_run(folder))])
        assert not any(each.path == str(folder) for each in engine.runs(None))
    assert found[0] == found[1]


def test_the_hub_answers_with_the_same_types(hub, recipe, run, stand_in, tmp_path, monkeypatch):
    """Search, download, discard, delete and upload, of the real engine on a Hub of the tests."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.add("models/owner/tiny", tiny("llama", tmp_path / "llama"))
    out = tmp_path / "tiny"
    shutil.copytree(tmp_path / "llama", out)
    (out / "README.md").write_text("# tiny\n")
    calls: tuple[tuple[str, tuple[Any, ...]], ...] = (
        ("search", (recipe, "tiny", False)), ("search", (recipe, "tiny", True)), ("download", ("owner/tiny", False)),
        ("discard", ("owner/tiny", False)), ("remove", ("owner/tiny", False)),
        ("push", (out, "owner/other", False, "")),
    )  # fmt: skip
    for name, given in calls:
        real, other = (outcome(getattr(engine, name)(*given)) for engine in (Engine(), stand_in))
        assert {type(event) for event in real[0]} <= {e.Progress}
        assert shape(real[1]) == shape(other[1]) or real[1] == [], name
    assert "models/owner/other" in hub.repositories


def test_verdicts_on_what_a_search_found_have_the_same_types(recipe, stand_in):
    found = tuple(outcome(stand_in.search(recipe, "tiny", False))[1])
    assert shape(Engine().judge(recipe, found)) == shape(stand_in.judge(recipe, found))


def test_a_run_emits_its_events_in_the_same_order(recipe, run, stand_in):
    played = list(stand_in.train(recipe, SimpleQueue()))
    assert order(played) == order(run[1])
    for kind in (e.Started, e.Step, e.Evaluation, e.Examples, e.Finished):
        real, other = (next(each for each in events if isinstance(each, kind)) for events in (run[1], played))
        assert shape(real) == shape(other)


def test_an_inspected_run_answers_in_the_same_order(recipe, run, stand_in):
    said = []
    for engine in (Engine(), stand_in):
        commands: SimpleQueue[e.Command] = SimpleQueue()
        for command in (e.Ask("a film", 2, 0), e.EvaluateNow("validation", 2), e.GoBack(2), e.Stop()):
            commands.put(command)
        said.append(order(list(engine.inspect(run[0], False, commands))))
    assert said[0] == said[1]


def test_loading_ends_when_the_window_closes(stand_in):
    closing = threading.Event()
    closing.set()
    for engine in (Engine(), stand_in):
        events, answer = outcome(engine.load(closing))
        assert answer is None and all(isinstance(each, e.Progress) for each in events)
