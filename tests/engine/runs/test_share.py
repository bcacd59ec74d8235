"""Shared runs: the way there and back, and files that nobody should trust."""

from __future__ import annotations

import errno
import os
import random
import shutil
import stat
import warnings
import zipfile
from queue import SimpleQueue

import pytest
import torch

from sparsezo_gui.engine import training
from sparsezo_gui.engine.files import cannot_write
from sparsezo_gui.engine.runs import share as shares
from sparsezo_gui.engine.runs.branch import branch
from sparsezo_gui.engine.runs.folder import open_run
from sparsezo_gui.engine.runs.listing import list_runs
from sparsezo_gui.engine.runs.share import receive, share
from sparsezo_gui.engine.session.opening import open_session
from sparsezo_gui.engine.spaces.mask import Mask
from sparsezo_gui.errors import UserError
from sparsezo_gui.gui.worker import Engine
from sparsezo_gui.recipe import events as e
from tests.engine.conftest import finish, of


@pytest.fixture
def run(trained):
    return trained("plain")


def values(run, step=None):
    return finish(open_session(run, step)).tuned.hash()


def here(tmp_path, folder=None):
    """What was shared, received where model and data lie."""
    places = [f"model.id={tmp_path / 'llama'}", f"data.source={tmp_path}"]
    return receive(tmp_path / "given.zip", folder, places)


def test_a_shared_run_is_rebuilt_exactly(run, tmp_path, home):
    run.note("the good one")
    shared = share(run, tmp_path / "given.zip")
    assert shared.with_mask and shared.bytes < 1_000_000
    got = here(tmp_path)
    assert got.path == home.resolve() / "runs" / "given" and got.notes == "the good one"
    assert not (got.path / "frames").exists() and not (got.path / "lock").exists()
    assert [values(got, step) for step in (0, 3, 6)] == [values(run, step) for step in (0, 3, 6)]
    assert of(e.Evaluation, got.events()) == of(e.Evaluation, run.events())


def test_a_run_from_before_blocks_were_chosen_keeps_those_that_it_had(make, tmp_path):
    """Nothing of such a run says how many weights share a scale, nor does what is made of it before it is opened."""
    list(training.train(make(model={"block": 64}), folder=tmp_path / "run"))
    recipe, facts = tmp_path / "run" / "recipe.toml", tmp_path / "run" / "run.json"
    told = [recipe.read_text(), facts.read_text()]
    recipe.write_text(told[0].replace("block = 64\n", ""))
    facts.write_text(told[1].replace('"block": 64,', ""))
    assert "64" not in recipe.read_text().split("[data]")[0] and '"block"' not in facts.read_text()
    run = open_run(tmp_path / "run")
    share(run, tmp_path / "given.zip")
    assert run.recipe.model.block == here(tmp_path).recipe.model.block == 64
    assert branch(run, 3, ["update.learning_rate=1e-4"]).recipe.model.block == 64
    held = [layer.frozen.state for layer in finish(open_session(run)).model.layers.values()]
    assert {(state.blocksize, state.absmax.dtype) for state in held} == {(64, torch.float32)}


@pytest.mark.parametrize("rule", [{"rule": "random", "density": 0.01}, {"rule": "sensitive", "sequences": 4}])
def test_without_its_mask_it_is_found_again(make, tmp_path, monkeypatch, rule):
    list(training.train(make(mask=rule), folder=tmp_path / "run"))
    run = open_run(tmp_path / "run")
    monkeypatch.setattr(shares, "MASK_BYTES", 0)
    assert not share(run, tmp_path / "given.zip").with_mask
    got = here(tmp_path)
    assert not got.mask.exists()
    assert values(got) == values(run)
    assert finish(open_session(got)).tuned.mask.hash == run.facts.mask_hash
    assert share(run, tmp_path / "whole.zip", with_mask=True).with_mask


def test_on_a_disk_that_cannot_be_written_it_is_found_again_each_time(run, tmp_path, monkeypatch):
    monkeypatch.setattr(shares, "MASK_BYTES", 0)
    share(run, tmp_path / "given.zip")
    got = here(tmp_path)

    def read_only(mask, path, new=False):
        raise cannot_write(path, OSError(errno.EROFS, os.strerror(errno.EROFS)))

    monkeypatch.setattr(Mask, "save", read_only)
    told = []
    work = open_session(got)
    with pytest.raises(StopIteration) as end:
        while True:
            told.append(next(work))
    assert end.value.value.tuned.hash() == values(run)
    assert [event for event in of(e.Notice, told) if "Read-only" in event.text] and not got.mask.exists()


def test_another_mask_is_not_taken_for_it(make, tmp_path, monkeypatch, run):
    monkeypatch.setattr(shares, "MASK_BYTES", 0)
    share(run, tmp_path / "given.zip")
    got = here(tmp_path)
    for name, old in (("recipe.toml", "density = 0.01"), ("run.json", '"density": 0.01')):
        text = (got.path / name).read_text()
        (got.path / name).write_text(text.replace(old, old.replace("0.01", "0.02")))
    got = open_run(got.path)
    with pytest.raises(UserError, match="--with-mask"):
        values(got)
    assert not got.mask.exists()


def test_a_branch_is_shared_with_the_steps_before_it_and_no_others(run, tmp_path):
    made = branch(run, 3, ["loop.seed=9"], "other")
    list(training.resume(made.path))
    beside = branch(run, 2, name="not this one")
    share(made, tmp_path / "given.zip")
    got = here(tmp_path, tmp_path / "here")
    assert (got.path, got.name) == (tmp_path / "here" / "branches" / "other", "other")
    assert [values(got, step) for step in (2, 6)] == [values(made, step) for step in (2, 6)]
    assert [each.name for each in list_runs(got.path)] == ["tiny", "other"]
    assert beside.name not in [each.name for each in list_runs(got.path)]


def test_of_a_parent_only_what_the_branch_begins_from_is_shared(make, tmp_path):
    commands = SimpleQueue()
    for event in training.train(make(loop={"evaluate_every": 1}), commands, folder=tmp_path / "run"):
        if isinstance(event, e.Step) and event.step == 4:
            commands.put(e.Stop())
    made = branch(open_run(tmp_path / "run"), 3, ["loop.seed=9"], "hm... slower")
    list(training.resume(tmp_path / "run"))
    share(made, tmp_path / "given.zip")
    got = here(tmp_path, tmp_path / "here")
    events = open_run(tmp_path / "here").events()
    assert max(event.step for event in of(e.Evaluation, events)) == 3 and not of(e.Finished, events)
    assert list(training.resume(got.path))[-1].hash == list(training.resume(made.path))[-1].hash


def test_it_goes_on_where_it_was_on_another_machine(run, make, tmp_path):
    commands = SimpleQueue()
    for event in training.train(make(), commands, folder=tmp_path / "half"):
        if isinstance(event, e.Step) and event.step == 3:
            commands.put(e.Stop())
    share(open_run(tmp_path / "half"), tmp_path / "given.zip")
    shutil.copytree(tmp_path / "llama", tmp_path / "there")
    got = receive(tmp_path / "given.zip", settings=[f"model.id={tmp_path / 'there'}", f"data.source={tmp_path}"])
    assert got.recipe.model.id == str(tmp_path / "there")
    assert list(training.resume(got.path))[-1].hash == values(run)


def words_of(file):
    with zipfile.ZipFile(file) as packed:
        return {name: packed.read(name) for name in packed.namelist()}


def test_a_shared_run_holds_no_example_and_no_path_unless_it_is_asked_for(make, tmp_path):
    recipe = make(run={"name": "tiny", "folder": str(tmp_path / "run")})
    list(training.train(recipe))
    run = open_run(tmp_path / "run")
    run.note("the good one")
    run.record(e.Notice(f"{run.path}/frames: no room; {tmp_path / 'llama'}: slow", "warning"))
    made = branch(run, 3, ["loop.seed=9"], "other")
    list(training.resume(made.path))
    shared = share(made, tmp_path / "given.zip")
    held = words_of(tmp_path / "given.zip")
    assert not [name for name, content in held.items() if str(tmp_path).encode() in content or b"film 3" in content]
    assert {(each.file, each.bytes) for each in shared.contents} == {(n, len(content)) for n, content in held.items()}
    assert shared.contents == shares.contents(made)
    assert not [each for each in shared.contents if "EXAMPLES" in each.holds]
    with_examples = share(made, tmp_path / "whole.zip", with_examples=True)
    held = words_of(tmp_path / "whole.zip")
    assert b"film 3" in held["events.jsonl"] and str(tmp_path).encode() not in b"".join(held.values())
    holds = {each.file: each.holds for each in with_examples.contents}
    assert "20 EXAMPLES" in holds["events.jsonl"] and "word for word" in holds["notes.md"]


def test_the_window_shares_and_receives_the_same(run, tmp_path):
    engine = Engine()
    found = engine.contents(run.path)
    assert "EXAMPLES" not in str(found.contents) and "EXAMPLES" in str(found.with_examples)
    assert engine.share(run.path, tmp_path / "given.zip", False).contents == found.contents
    assert engine.share(run.path, tmp_path / "whole.zip", True).contents == found.with_examples
    got = engine.receive(tmp_path / "given.zip")
    assert open_run(got.folder).name == run.name and "does not include 'llama'" in got.lacks


def test_what_a_received_run_lacks_is_told_and_can_be_put_beside_it(run, tmp_path):
    share(run, tmp_path / "given.zip")
    got = receive(tmp_path / "given.zip", tmp_path / "there" / "run")
    keys, words = shares.lacks(got)
    assert keys == ["model.id", "data.source"] and f"'{tmp_path.name}'" in words and str(got.path) in words
    with pytest.raises(UserError, match=r"There is no model folder '.*there/run/llama'"):
        values(got)
    shutil.copytree(tmp_path / "llama", got.path / "llama")
    assert shares.lacks(got)[0] == ["data.source"] and values(got) == values(run)


@pytest.mark.skipif(os.name == "nt", reason="no such modes on Windows")
def test_runs_and_shared_runs_are_for_their_owner_alone(make, tmp_path):
    before = os.umask(0)
    try:
        list(training.train(make(run={"name": "tiny", "folder": ""})))
        (path,) = (tmp_path / "home" / "runs").iterdir()
        made = branch(open_run(path), 3, ["loop.seed=9"])
        list(training.resume(made.path))
        made.note("mine")
        share(made, tmp_path / "given.zip")
        got = receive(tmp_path / "given.zip", tmp_path / "got")
        list(training.train(make(), folder=tmp_path / "own"))
    finally:
        os.umask(before)
    for top in (tmp_path / "home", got.root.path, tmp_path / "own"):
        kept = [each for each in (top, *top.rglob("*")) if each.name != "lock"]  # which holds nothing
        assert not [each for each in kept if each.stat().st_mode & 0o077]
    assert stat.S_IMODE((tmp_path / "given.zip").stat().st_mode) == 0o600


def test_a_received_run_is_not_made_into_another(run, tmp_path):
    share(run, tmp_path / "given.zip")
    with pytest.raises(UserError, match="only the paths of its model and data"):
        receive(tmp_path / "given.zip", tmp_path / "here", ["loop.seed=4"])
    assert not (tmp_path / "here").exists()


def repack(source, target, change):
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for entry in old.infolist():
            name, content = change(entry.filename, old.read(entry))
            new.writestr(name, content)


@pytest.mark.parametrize(
    "name", ["../evil", "/tmp/evil", "branches/../../run.json", "frames/1.safetensors", "branches//run.json", "a\\b",
             "branches/.x/run.json", "run.json/"],
)  # fmt: skip
def test_entries_cannot_escape(run, tmp_path, name):
    share(run, tmp_path / "given.zip")
    repack(tmp_path / "given.zip", tmp_path / "bad.zip",
           lambda old, content: (name if old == "events.jsonl" else old, content))  # fmt: skip
    with pytest.raises(UserError, match=r"not a shared run|can be"):
        receive(tmp_path / "bad.zip", tmp_path / "deep" / "here")
    assert list((tmp_path / "deep").iterdir()) == [] and not (tmp_path / "evil").exists()


@pytest.mark.parametrize("lost", ["run.json", "recipe.toml", "branches/other/run.json", "branches/other/recipe.toml"])
def test_what_is_not_whole_is_refused_by_its_name(run, tmp_path, lost):
    share(branch(run, 3, name="other"), tmp_path / "given.zip")
    repack(tmp_path / "given.zip", tmp_path / "bad.zip",
           lambda name, content: ("notes.md" if name == lost else name, content))  # fmt: skip
    with pytest.raises(UserError, match=f"bad.zip: not a shared run .it lacks '{lost}'"):
        receive(tmp_path / "bad.zip")
    repack(tmp_path / "given.zip", tmp_path / "bad.zip",
           lambda name, content: (name, b"{" if name == lost else content))  # fmt: skip
    with pytest.raises(UserError, match=r"/bad.zip/") as error:
        receive(tmp_path / "bad.zip")
    assert ".sparsezo-" not in str(error.value)


def test_an_entry_that_unfolds_without_end_is_refused(run, tmp_path, monkeypatch):
    run.note("x" * 1001)
    share(run, tmp_path / "given.zip")
    monkeypatch.setitem(shares.LIMITS, "notes.md", 1000)
    with pytest.raises(UserError, match="too large to share"):
        share(run, tmp_path / "again.zip")
    with pytest.raises(UserError, match=r"notes\.md' is too large"):
        receive(tmp_path / "given.zip", tmp_path / "here")
    assert not (tmp_path / "here").exists()


def packed(path, entries):
    """A zip file with entries that each unfold well."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a name that is there twice
        for name, content in entries:
            file.writestr(name, content)
    return path


def nothing(*_):
    raise AssertionError("a file was written")


BOMBS = {
    "one": [("events.jsonl", bytes(30_000_000))],
    "many": [(f"branches/a{number}/events.jsonl", bytes(200_000)) for number in range(200)],
    "entries": [(f"branches/a{number}/{name}", b"") for number in range(600) for name in ("run.json", "notes.md")],
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_what_unpacks_to_too_much_is_refused_before_anything_is_written(tmp_path, monkeypatch, bomb):
    packed(tmp_path / "bad.zip", BOMBS[bomb])
    monkeypatch.setattr(shares, "private", nothing)
    with pytest.raises(UserError, match="unpacks to more than a shared run may"):
        receive(tmp_path / "bad.zip", tmp_path / "deep" / "here")
    assert list((tmp_path / "deep").iterdir()) == []


def test_what_comes_is_counted_whatever_the_entries_tell(run, tmp_path, monkeypatch):
    run.note("x" * 100_000)
    share(run, tmp_path / "given.zip")
    monkeypatch.setattr(shares, "SMALL", 50_000)
    monkeypatch.setattr(shares, "MOST_TIMES", 0)
    monkeypatch.setattr(shares, "sum", lambda _: 0, raising=False)  # as if they told nothing
    with pytest.raises(UserError, match="unpacks to more"):
        receive(tmp_path / "given.zip", tmp_path / "deep" / "here")
    assert list((tmp_path / "deep").iterdir()) == []


@pytest.mark.parametrize("names", [
    ("run.json", "run.json"), ("branches/Bee/run.json", "branches/bee/run.json"),
    ("branches/caf\u00e9/run.json", "branches/cafe\u0301/run.json"),
])  # fmt: skip
def test_two_files_of_one_name_are_refused(tmp_path, names):
    packed(tmp_path / "bad.zip", [(name, b"{}") for name in names])
    with pytest.raises(UserError, match="two files with the same name"):
        receive(tmp_path / "bad.zip", tmp_path / "deep" / "here")
    assert list((tmp_path / "deep").iterdir()) == []


def test_a_run_that_packs_too_well_is_stored_and_received(run, tmp_path, monkeypatch):
    run.note("x" * 500_000)
    monkeypatch.setattr(shares, "SMALL", 100_000)
    share(run, tmp_path / "given.zip")
    assert here(tmp_path).notes == run.notes
    monkeypatch.setattr(shares, "MOST_BYTES", 400_000)
    with pytest.raises(UserError, match="too large to share"):
        share(run, tmp_path / "again.zip")


def test_damage_gets_a_sentence_and_leaves_nothing(run, tmp_path):
    share(run, tmp_path / "given.zip")
    content = (tmp_path / "given.zip").read_bytes()
    chance = random.Random(0)
    for number in range(150):
        bad = bytearray(content)
        for _ in range(chance.randint(1, 4)):
            bad[chance.randrange(len(bad))] ^= 1 << chance.randrange(8)
        if number % 3 == 0:
            del bad[chance.randrange(len(bad)) :]
        (tmp_path / "bad.zip").write_bytes(bad)
        try:
            receive(tmp_path / "bad.zip", tmp_path / "here")
        except UserError as error:
            assert len(str(error)) > 30
            assert not (tmp_path / "here").exists()
        else:
            shutil.rmtree(tmp_path / "here")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_what_is_not_there_or_in_the_way_is_told(run, tmp_path):
    with pytest.raises(UserError, match="There is no file"):
        receive(tmp_path / "nothing.zip")
    share(run, tmp_path / "given.zip")
    with pytest.raises(UserError, match="already exists"):
        share(run, tmp_path / "given.zip")
    with pytest.raises(UserError, match="already exists"):
        receive(tmp_path / "given.zip", run.path)
    (tmp_path / "text.zip").write_text("not a zip")
    with pytest.raises(UserError, match="not a shared run"):
        receive(tmp_path / "text.zip")
