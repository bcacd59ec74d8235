"""Recipes: what is read, what is refused and with which sentence, and that writing gives back the same."""

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsezo_gui import recipe, resources
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe import Recipe, dump, load, loads, with_settings
from sparsezo_gui.recipe.tables import build, changed


def test_an_empty_recipe_is_the_default():
    found = loads("")
    assert found == Recipe()
    assert (found.model.id, found.mask.rule, found.update.rule) == ("starter", "sensitive", "scalar-normalised")


def test_all_bundled_recipes_load_and_survive_a_round_trip():
    assert "starter" in resources.recipes()
    for name in resources.recipes():
        found = load(name)
        assert loads(dump(found)) == found


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[loop]\nstpes = 5", "r: [loop] stpes: unknown key. Did you mean 'steps'?"),
        ("[lop]\nsteps = 5", "r: lop: unknown table. Did you mean 'loop'?"),
        ("[mask]\ndensty = 0.1", "r: [mask] densty: unknown key. Did you mean 'density'?"),
        ("[mask]\nrule = 'sensitiv'", "r: [mask] rule: 'sensitiv' is not a known rule. Did you mean 'sensitive'?"),
        ("[mask]\nrule = 'all'\nscore = 'l2'", "r: [mask] score: rule = 'all' has no such key; only these have it: "),
        ("[mask]\ndensity = 2", "r: [mask] density: must be 1 or less, not 2."),
        ("[loop]\nsteps = 0", "r: [loop] steps: must be 1 or more, not 0."),
        ("[model]\nbits = 5", "r: [model] bits: must be 4, 8, 16 or 32, not 5."),
        ("[model]\ndevice = 'tpu'", "r: [model] device: must be 'auto', 'cpu', 'cuda' or 'cuda:N', not 'tpu'."),
        ("[data]\nduplicates = 'drop'", "r: [data] duplicates: must be 'keep' or 'remove', not 'drop'."),
        ("[data]\nsplit_seed = -1", "r: [data] split_seed: must be 0 or more, not -1."),
        ("[data]\nleave_out = ['7']", "r: [data] leave_out.0: must be 16 hexadecimal digits, as the Data page writes "),
        (
            f"[data]\nleave_out = {['0' * 16] * 1001}",
            "r: [data] leave_out: must name at most 1,000 rows (remove others "
            "from the data itself), not 1,001 entries.",
        ),
        ("[loop\n", "r: not valid TOML:"),
        ("version = 2", "r: unknown version 2 (this"),
        ("mask = 5", "r: [mask]: must be a table, not 5."),
        ("[update]\nlearning_rate = nan", "r: [update] learning_rate: must be a finite number, not nan."),
    ],
)
def test_every_fault_has_its_sentence(text, sentence):
    with pytest.raises(UserError) as error:
        loads(text, "r")
    assert str(error.value).startswith(sentence)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("mask = 0x" + "f" * 5000, r"\[mask\]: must be a table, not a very long int"),
        ("mask.rule = 0x" + "f" * 5000, r"\[mask\] rule: a very long int is not a known rule"),
        ("version = 0x" + "f" * 5000, "unknown version a very long int"),
        ("loop.steps = 0x" + "f" * 5000, r"\[loop\] steps: .*, not a very long int"),
        ("x = " + "[" * 5000, "not valid TOML"),
        ("a." * 90_000 + "b = 1", "more than 1,000 dots"),
        ("#" * 204_801, "larger than 200 KiB"),
        ('[run]\nfolder = "\\u0000"', r"\[run\] folder: .* is not a valid path"),
    ],
)
def test_hostile_files_get_a_sentence_soon(text, sentence, tmp_path):
    (tmp_path / "r.toml").write_text(text)
    with pytest.raises(UserError, match=sentence):
        load(tmp_path / "r.toml")


def test_names_too_long_for_a_path_stay_names(tmp_path):
    (tmp_path / "r.toml").write_text(f'[model]\nid = "{"a" * 300}"\n[data]\nsource = "{"b" * 300}"\n')
    assert load(tmp_path / "r.toml").model.id == "a" * 300
    with pytest.raises(UserError, match="There is no recipe file or bundled recipe"):
        load("r" * 300)


def test_of_many_faults_the_first_are_told():
    with pytest.raises(UserError) as error:
        loads("\n".join(f"k{number} = 1" for number in range(5000)))
    assert len(str(error.value).splitlines()) == 20


def test_all_faults_are_told_at_once():
    with pytest.raises(UserError) as error:
        loads("[loop]\nsteps = 0\n[estimator]\nepsilon = -1\n[mask]\ndensity = 7")
    assert len(str(error.value).splitlines()) == 3


def test_settings_change_single_values_and_whole_methods():
    found = with_settings(Recipe(), ["loop.steps=7", "mask.rule=random", "update.rule=sgd", "run.name=a b"])
    assert (found.loop.steps, found.mask.rule, found.update.rule, found.run.name) == (7, "random", "sgd", "a b")


@pytest.mark.parametrize(
    "wrong",
    ["loop.steps", "steps=1", "lop.steps=1", "loop.stpes=1", "loop.steps=x", "mask.rule=[1]", "mask.rule=3"],
)
def test_wrong_settings_are_told(wrong):
    with pytest.raises(UserError, match="--set"):
        with_settings(Recipe(), [wrong])


def test_old_names_of_keys_mean_the_new_ones():
    for found in (loads("[run]\nframes = 7"), with_settings(Recipe(), ["run.frames=7"]),
                  build({"run": {"frames": 7}}), changed(Recipe(), {"run": {"frames": 7}})):  # fmt: skip
        assert found.run.checkpoints == 7 and "frames" not in dump(found)
    assert loads(dump(found)) == found
    with pytest.raises(UserError, match=r"\[run\] frames: this is the old name of .checkpoints., which is set too"):
        loads("[run]\nframes = 7\ncheckpoints = 8")
    before = recipe.values(Recipe())
    assert recipe.differences({**before, "run": {"frames": 2000}}, Recipe()) == []


def test_relative_paths_are_meant_from_the_recipes_folder(tmp_path, monkeypatch):
    (tmp_path / "data.csv").write_text("a\n")
    (tmp_path / "r.toml").write_text('[data]\nsource = "data.csv"\n[model]\nid = "owner/name"\n[run]\nfolder = "out"\n')
    monkeypatch.chdir("/")
    found = load(tmp_path / "r.toml")
    assert found.data.source == str(tmp_path / "data.csv")
    assert found.model.id == "owner/name"
    assert found.run.folder == str(tmp_path / "out")
    assert found.run.name == "r"


def test_of_several_texts_each_may_be_a_relative_path(tmp_path, monkeypatch):
    (tmp_path / "notes.txt").write_text("a\n")
    (tmp_path / "general").mkdir()
    names = ["notes.txt", "general", "answers", "owner/name", "./none.txt"]
    (tmp_path / "r.toml").write_text(f"[mask]\nrule = 'multi-task'\ntexts = {names}\n")
    monkeypatch.chdir("/")
    found = load(tmp_path / "r.toml")
    assert found.mask.texts == (str(tmp_path / "notes.txt"), *names[1:4], str(tmp_path / "none.txt"))
    assert loads(dump(found)).mask == found.mask
    with pytest.raises(UserError, match=r"\[mask\] texts"):
        loads("[mask]\nrule = 'multi-task'\ntexts = [7]\n", folder=tmp_path)
    with pytest.raises(UserError, match=r"\[mask\] texts: .* is not a valid path"):
        loads("[mask]\nrule = 'multi-task'\ntexts = ['../\\u0000']\n".replace("'", '"'), folder=tmp_path)


def test_a_folder_does_not_hide_a_bundled_name(tmp_path):
    (tmp_path / "starter").mkdir()
    (tmp_path / "r.toml").write_text('[model]\nid = "starter"\n[data]\nsource = "starter"\n[mask]\ntext = "starter"\n')
    found = load(tmp_path / "r.toml")
    assert (found.model.id, found.data.source, found.mask.text) == ("starter", "starter", "starter")


def test_missing_files_and_names(tmp_path):
    with pytest.raises(UserError, match="Did you mean 'starter'"):
        load("startr")
    with pytest.raises(UserError, match="There is no recipe file"):
        load(tmp_path / "no.toml")
    with pytest.raises(UserError, match="is a folder"):
        load(tmp_path)
    (tmp_path / "b.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="UTF-8"):
        load(tmp_path / "b.toml")


words = st.text(string.ascii_letters + string.digits + " äß→'\"\\", max_size=20)


@settings(max_examples=300)
@given(st.text(max_size=200))
def test_any_text_is_a_recipe_or_gets_a_sentence(text):
    try:
        loads(text)
    except UserError as error:
        assert str(error).strip()


keys = st.sampled_from(
    ["version", "model", "data", "mask", "loop", "update", "rule", "density", "steps", "x", "columns"]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=300)
@given(st.dictionaries(keys, values, max_size=4))
def test_any_tables_are_a_recipe_or_get_a_sentence(tables):
    try:
        recipe.build(tables)
    except UserError as error:
        assert str(error).strip()


def test_a_rate_that_a_file_does_not_tell_suits_its_rules():
    """As it would be with the same rules on the command line."""
    assert loads("[mask]\nrule = 'random'").update.learning_rate == pytest.approx(2.5e-2)
    assert loads("[mask]\nrule = 'random'") == with_settings(Recipe(), ["mask.rule=random"])
    assert loads("[mask]\nrule = 'random'\n[update]\nlearning_rate = 1e-4").update.learning_rate == 1e-4


def test_another_rule_brings_what_is_usual_for_it():
    tuned = ["mask.density=0.02", "update.learning_rate=7e-3", "estimator.epsilon=2e-3", "estimator.directions=3"]
    others = ["update.rule=sgd", "estimator.rule=bszo", "mask.rule=random"]
    found = with_settings(with_settings(Recipe(), tuned), others)
    assert (found.mask.density, found.estimator.epsilon) == (0.02, 2e-3), "which is the same for both"
    assert (found.update.learning_rate, found.estimator.directions) == (pytest.approx(2.5e-5), 2), "which is not"
    assert with_settings(Recipe(), ["update.learning_rate=3e-6", "update.rule=sgd"]).update.learning_rate == 3e-6


def test_a_recipe_to_give_away_names_no_folder(tmp_path):
    (tmp_path / "a").mkdir()
    chosen = recipe.build({
        "model": {"id": "owner/model"}, "data": {"source": str(tmp_path / "a" / "rows.csv")},
        "mask": {"rule": "multi-task", "texts": ["general", str(tmp_path / "rows.csv"), "C:\\Users\\ann\\more.txt"]},
        "run": {"folder": str(tmp_path), "name": "mine"},
    })  # fmt: skip
    given = recipe.portable(chosen)
    assert (given.model.id, given.data.source, given.run.folder) == ("owner/model", "./rows.csv", "")
    assert given.mask.texts == ("general", "./2-rows.csv", "./more.txt")
    assert recipe.values(given) == recipe.values(chosen) and recipe.loads(recipe.dump(given)) == given
    bundled = recipe.load("starter")
    assert recipe.portable(bundled) == bundled


def test_a_recipe_that_was_written_before_blocks_were_chosen():
    """The program wrote all keys but that one; by hand nobody writes them all."""
    old = '[model]\nid = "starter"\nrevision = "main"\nbits = 4\ndevice = "auto"\n'
    assert recipe.loads(old).model.block == 64
    assert recipe.loads(old + "block = 32\n").model.block == 32
    assert recipe.loads('[model]\nid = "starter"\nbits = 4\n').model.block == recipe.Recipe().model.block == 32


def test_a_recipe_that_was_written_before_rows_were_chosen():
    lines, added = dump(Recipe()).split("\n"), ("duplicates", "split_seed", "leave_out")
    old = [line for line in lines if line.split(" =")[0] not in added]
    assert len(lines) - len(old) == 3 and loads("\n".join(old)) == Recipe()
    name = "00000000000000ff"
    chosen = loads(f"[data]\nduplicates = 'remove'\nsplit_seed = 7\nleave_out = ['{name}', '{name}']")
    assert chosen.data.leave_out == (name,) and loads(dump(chosen)) == chosen
    assert recipe.portable(chosen).data == chosen.data, "a recipe that is given away means the same rows"
    before = recipe.values(Recipe())
    for key in added:
        del before["data"][key]
    assert recipe.differences(before, Recipe()) == []
    assert [key for key, *_ in recipe.differences(recipe.values(Recipe()), chosen)] == [
        "data.duplicates", "data.leave_out", "data.split_seed"
    ]  # fmt: skip


@pytest.mark.parametrize("rule", ["elastic", "addax"])
def test_a_recipe_that_was_written_before_both_parts_were_balanced(rule):
    whole = recipe.dump(recipe.build({"estimator": {"rule": rule}}))
    assert recipe.loads(whole).estimator.balanced
    assert not recipe.loads(whole.replace("balanced = true\n", "")).estimator.balanced
    assert recipe.loads(f"[estimator]\nrule = '{rule}'\n").estimator.balanced, "written by hand"


def test_where_a_recipe_differs_from_what_was_kept_of_it(tmp_path):
    chosen = recipe.load("starter")
    kept = recipe.values(chosen)
    assert recipe.differences(kept, chosen) == []
    other = recipe.with_settings(chosen, ["loop.seed=5", f"data.source={tmp_path}", "run.name=x", "model.device=cpu"])
    assert recipe.differences(kept, other) == [("loop.seed", 0, 5)]
    del kept["loop"]["guard"]  # as a version that did not know it
    assert recipe.differences(kept, chosen) == []
