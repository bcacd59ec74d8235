"""A run remembers what it was trained and measured on, and whatever uses it again compares."""

from __future__ import annotations

import json
from queue import SimpleQueue

import pytest

from sparsezo_gui import cli
from sparsezo_gui.engine import known, provenance, training
from sparsezo_gui.engine.data.keys import name_of
from sparsezo_gui.engine.data.record import Record
from sparsezo_gui.engine.pretrained import consent
from sparsezo_gui.engine.pretrained.code import find_code
from sparsezo_gui.engine.pretrained.source import inspect
from sparsezo_gui.engine.runs.branch import branch
from sparsezo_gui.engine.runs.folder import open_run
from sparsezo_gui.engine.runs.listing import list_runs
from sparsezo_gui.engine.session.loading import data_of
from sparsezo_gui.engine.session.opening import open_session
from sparsezo_gui.errors import ChangedInputs, UserError
from sparsezo_gui.recipe import events as e
from sparsezo_gui.recipe import outcome
from sparsezo_gui.recipe.recipe import SPLITS, ModelTable
from tests.engine.conftest import finish, of
from tests.own_code import own_code


@pytest.fixture
def run(trained):
    return trained("four steps", loop={"steps": 4, "evaluate_every": 2})


@pytest.fixture
def call(capsys, run):
    """``call(command, *options)`` on the run: exit code, the last JSON object, text of standard error."""

    def made(command, *options):
        capsys.readouterr()
        code = cli.main([command, str(run.path), *map(str, options), "--json"])
        out, error = capsys.readouterr()
        return code, json.loads(out.splitlines()[-1]) if out else None, error

    return made


def append(path, count=1):
    with path.open("a") as file:
        file.writelines(f'\n{{"text": "one more, {number}", "label": "yes"}}' for number in range(count))


def alter(path, key, value):
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))


CHANGES = {
    "the test examples": lambda folder: append(folder / "test.jsonl"),
    "the tokenizer": lambda folder: (folder / "llama" / "chat_template.jinja").write_text("{{ messages }}"),
    "the model's configuration": lambda folder: alter(folder / "llama" / "config.json", "rms_norm_eps", 0.1),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_changed_input_is_told_refused_or_marked(run, call, tmp_path, what):
    before = call("evaluate")[1]
    assert "changed" not in before
    CHANGES[what](tmp_path)
    code, out, error = call("evaluate")
    assert (code, what in error and "--changed-inputs" in error) == (2, True)
    code, out, _ = call("evaluate", "--changed-inputs")
    assert code == 0 and provenance.in_words(out["changed"]) == what
    if what == "the test examples":
        assert call("evaluate", "--split", "validation")[0] == 0  # which are as they were
        assert out["base"] != before["base"]
        return
    for command, *options in (
        ("verify",), ("resume",), ("generate", "--prompt", "a"),
        ("export", "--format", "hf", "--out", tmp_path / "out"),
    ):  # fmt: skip
        code, _, error = call(command, *options)
        assert (code, what in error) == (2, True), command
    assert call("generate", "--prompt", "a", "--changed-inputs")[1]["changed"] == out["changed"]
    code, out, _ = call("export", "--format", "hf", "--out", tmp_path / "out", "--changed-inputs")
    assert code == 0 and provenance.in_words(out["changed"]) == what
    assert f"{what} changed since" in (tmp_path / "out" / "README.md").read_text()


def test_a_chat_template_in_a_folder_of_its_own_is_the_tokenizers(run, call, tmp_path):
    (tmp_path / "llama" / "additional_chat_templates").mkdir()
    (tmp_path / "llama" / "additional_chat_templates" / "default.jinja").write_text("{{ messages }}")
    code, _, error = call("generate", "--prompt", "a")
    assert code == 2 and "the tokenizer changed" in error


def test_people_are_told_beside_the_figures(run, tmp_path, capsys):
    append(tmp_path / "test.jsonl")
    assert cli.main(["evaluate", str(run.path), "--changed-inputs"]) == 0
    assert "the test examples changed" in capsys.readouterr().out.splitlines()[-1]


def test_rows_that_move_between_splits_are_told(make, tmp_path):
    """One file, of which all three splits are cut: with rows appended, other rows are cut for each."""
    source = tmp_path / "all.jsonl"
    rows = [{"text": f"film {i}", "label": "yes" if i % 2 else "no"} for i in range(60)]
    source.write_text("\n".join(map(json.dumps, rows)))
    list(training.train(make(data={"source": str(source)}, loop={"steps": 1}), folder=tmp_path / "run"))
    append(source, 20)
    run = open_run(tmp_path / "run")
    session = finish(open_session(run))
    for split in ("train", "validation", "test"):
        with pytest.raises(ChangedInputs) as told:
            finish(data_of(session, run, (split,)))
        assert told.value.changed == (split,)


def test_test_rows_that_were_trained_on_are_told(make, tmp_path):
    chosen = make(loop={"steps": 1})
    rows = [(tmp_path / f"{split}.jsonl").read_text().splitlines() for split in ("train", "test")]
    (tmp_path / "test.jsonl").write_text("\n".join([*rows[1], *rows[0][:5]]))
    told = [event.text for event in of(e.Notice, training.train(chosen, folder=tmp_path / "run"))]
    assert "5 of 13 test examples are also in the training split" in " ".join(told)
    assert "validation examples are" not in " ".join(told)


def test_what_was_measured_on_other_examples_is_never_the_best(run, tmp_path):
    with pytest.raises(UserError, match="the validation examples changed"):
        append(tmp_path / "validation.jsonl")
        list(training.resume(run.path, paused=True))
    commands = SimpleQueue()
    for command in (e.EvaluateNow("validation", 3), e.Resume()):
        commands.put(command)
    told = []
    with pytest.raises(UserError, match="you can only ask and evaluate it"):
        told.extend(event for event in training.resume(run.path, commands, paused=True, accept=True))
    (marked,) = [event for event in of(e.Evaluation, run.events()) if event.changed]
    assert (marked.step, marked.changed) == (3, ("validation",))
    best = {**marked.metrics, "accuracy": 1.0, "loss": 0.0}
    events = [*run.events(), e.Evaluation(3, "validation", best, marked.changed)]
    assert outcome.best(events) == outcome.best(run.events()) and outcome.best(events).step in (2, 4)


def test_a_branch_takes_the_data_as_they_are_when_it_is_told_to(run, tmp_path):
    append(tmp_path / "train.jsonl")
    with pytest.raises(UserError, match=r"the training examples.*sparsezo branch"):
        list(training.resume(branch(run, 3).path))
    made = branch(run, 3, [f"data.source={tmp_path}"])
    told = list(training.resume(made.path))
    assert told[-1].step == 4
    assert any("up to 3 were trained on other data" in event.text for event in of(e.Notice, told))
    assert open_run(made.path).facts.inputs["train"] != run.facts.inputs["train"]
    append(tmp_path / "train.jsonl")
    with pytest.raises(UserError, match="the training examples"):
        list(training.resume(made.path))


@pytest.mark.parametrize(("key", "old", "new"), [
    ("loop.seed", "seed = 3", "seed = 9"), ("loop.batch_size", "batch_size = 4", "batch_size = 5"),
    ("data.template", "is it good?", "is it bad?"), ("loop.steps", "steps = 4", "steps = 9"),
])  # fmt: skip
def test_a_changed_recipe_of_a_run_is_told_and_not_half_obeyed(run, call, tmp_path, key, old, new):
    path = run.path / "recipe.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    for command, *options in (
        ("resume",), ("verify",), ("evaluate",), ("evaluate", "--step", "best"), ("generate", "--prompt", "a"),
        ("branch", "--step", 2), ("export", "--format", "overlay", "--out", tmp_path / "o"),
    ):  # fmt: skip
        code, _, error = call(command, *options)
        assert (code, f"{key} is " in error and "sparsezo branch" in error) == (2, True), command
    (listed,) = list_runs(run.path)
    assert listed.state == "damaged" and key in listed.problem
    path.write_text(text)
    assert call("verify")[1]["same"]


def test_where_things_lie_may_be_told_anew_and_layout_is_free(run, call, tmp_path):
    (tmp_path / "llama").rename(tmp_path / "moved")
    path = run.path / "recipe.toml"
    lines = path.read_text().replace(str(tmp_path / "llama"), str(tmp_path / "moved")).splitlines()
    path.write_text("\ufeff# mine\n" + "\n".join(f"{line}  # kept" if "=" in line else line for line in lines))
    code, out, error = call("evaluate")
    assert code == 0 and set(out) == {"base", "tuned"}, error


def test_the_recipe_of_the_run_that_a_branch_came_from_counts_too(run):
    made = branch(run, 2, ["loop.seed=5"])
    list(training.resume(made.path))
    path = run.path / "recipe.toml"
    path.write_text(path.read_text().replace("seed = 3", "seed = 4"))
    with pytest.raises(UserError, match=r"loop\.seed is 4, was 3"):
        finish(open_session(open_run(made.path)))


def test_an_older_run_opens_and_knows_its_training_examples(run, call, tmp_path):
    facts = json.loads((run.path / "run.json").read_text())
    for name in ("inputs", "recipe"):
        del facts[name]
    (run.path / "run.json").write_text(json.dumps(facts))
    assert call("evaluate")[0] == 0 and call("verify")[1]["same"]
    append(tmp_path / "train.jsonl")
    assert "the training examples" in call("evaluate")[2]


def test_a_run_from_before_chat_templates_keeps_its_ways_and_is_told_what_changed(run, tmp_path):
    """It was of version 3, where no recipe said how to ask, and answers lost the spaces around them."""
    assert (run.facts.version, run.facts.prepared, run.recipe.data.chat_template) == (5, 2, True)
    path = run.path / "run.json"
    facts = json.loads(path.read_text())
    facts["recipe"]["data"].pop("chat_template")
    facts |= {"version": 3, "versions": {"sparsezo-gui": "0.9"}, "prepared": 1}
    path.write_text(json.dumps(facts))
    recipe = run.path / "recipe.toml"
    recipe.write_text(recipe.read_text().replace("chat_template = true\n", ""))
    old = open_run(run.path)
    assert not old.recipe.data.chat_template
    provenance.compare(old, old.facts.inputs, SPLITS)
    with pytest.raises(ChangedInputs, match=r"prepares examples differently.* made the run \(0\.9\), or create a"):
        provenance.compare(old, {**old.facts.inputs, "train": "0" * 64}, SPLITS)
    recipe.write_text(recipe.read_text().replace("[data]\n", "[data]\nchat_template = true\n"))
    assert open_run(run.path).recipe.data.chat_template


def test_an_estimate_reads_changed_files_anew(make, tmp_path):
    chosen = make()
    for count in (24, 25, 26):  # a folder does not tell of what is written into its files
        assert len(finish(known.data(chosen.data, chosen.model)).train) == count
        append(tmp_path / "train.jsonl")


def test_a_model_saved_anew_by_another_version_or_with_more_files_is_the_same(run, call, tmp_path):
    alter(tmp_path / "llama" / "config.json", "transformers_version", "99.0")
    for name in ("vocab.json", "README.md", "tokenizer.model", "modeling.py"):
        (tmp_path / "llama" / name).write_text("{}")
    assert call("verify")[1]["same"]


@pytest.mark.parametrize("trusted", [True, False])
def test_a_models_code_is_an_input_where_it_runs(tmp_path, monkeypatch, trusted):
    """All of it, also that of folders within; and none where the recipe does not run it."""
    monkeypatch.setenv("SPARSEZO_HOME", str(tmp_path / "home"))
    folder = own_code(tmp_path / "model", tmp_path / "marker", model_type="llama")
    table = ModelTable(id=str(folder), trust_remote_code=trusted)

    def config():
        if trusted:
            consent.give(find_code(table, folder))
        return provenance.of_model(inspect(folder, table))["config"]

    before = config()
    (folder / "parts" / "extra.py").write_text("from .. import marks  # another byte\n")
    assert (config() != before) == trusted


CHOICES = {"duplicates": "remove", "split_seed": 1, "leave_out": ["00000000000000aa"]}


@pytest.mark.parametrize("key", CHOICES)
def test_another_choice_of_rows_is_another_recipe(run, key):
    """A run is not resumed with it: it says so, and how to branch."""
    text = (run.path / "recipe.toml").read_text()
    assert f"\n{key} = " in text
    lines = [
        f"{key} = {json.dumps(CHOICES[key])}" if line.startswith(f"{key} =") else line for line in text.split("\n")
    ]
    (run.path / "recipe.toml").write_text("\n".join(lines))
    with pytest.raises(UserError, match=f"data.{key} is"):
        _ = open_run(run.path).recipe


def test_a_run_from_before_rows_could_be_chosen_goes_on(make, tmp_path):
    """Its recipe names none of these keys, and neither does what it recorded of it."""
    list(training.train(make(loop={"steps": 2, "evaluate_every": 0}), folder=tmp_path / "run"))
    recipe, facts = (tmp_path / "run" / name for name in ("recipe.toml", "run.json"))
    recipe.write_text("\n".join(line for line in recipe.read_text().split("\n") if line.split(" =")[0] not in CHOICES))
    kept = json.loads(facts.read_text())
    assert CHOICES.keys() <= kept["recipe"]["data"].keys()
    kept["recipe"]["data"] = {key: value for key, value in kept["recipe"]["data"].items() if key not in CHOICES}
    facts.write_text(json.dumps(kept))
    run = open_run(tmp_path / "run")
    assert (run.recipe.data.duplicates, run.recipe.data.split_seed, run.recipe.data.leave_out) == ("keep", 0, ())
    finish(data_of(finish(open_session(run)), run))


def test_a_run_with_chosen_rows_is_rebuilt_by_its_own_recipe(make, tmp_path):
    rows = [{"text": f"a good film {index % 30}", "label": "yes" if index % 2 else "no"} for index in range(60)]
    (tmp_path / "all.jsonl").write_text("\n".join(map(json.dumps, rows)))
    names = [name_of(Record(row, "", 0)) for row in rows[:2]]
    data = {"source": str(tmp_path / "all.jsonl"), "split_seed": 4, "duplicates": "remove", "leave_out": names}
    events = list(training.train(make(data=data, loop={"steps": 3}), folder=tmp_path / "run"))
    told = " ".join(event.text for event in of(e.Notice, events))
    assert "4 rows were left out." in told and "30 duplicates were removed" in told
    run = open_run(tmp_path / "run")
    found = finish(data_of(finish(open_session(run)), run))
    assert sum(len(getattr(found, split)) for split in SPLITS) == 28
    (tmp_path / "all.jsonl").write_text("\n".join(map(json.dumps, rows[::-1])))
    finish(data_of(finish(open_session(run)), run))
