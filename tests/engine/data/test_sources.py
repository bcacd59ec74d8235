"""Sources to splits: without overlap, always the same, and only what the recipe asks for."""

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsezo_gui.engine.data import load_rows, sources, splits
from sparsezo_gui.engine.data import spill as store
from sparsezo_gui.engine.data.background import in_background
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe.events import Progress
from sparsezo_gui.recipe.recipe import DataTable
from sparsezo_gui.work import finish


def jsonl(path, rows):
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return str(path)


def rows(count, start=0):
    return [{"text": f"text {index}", "label": "ab"[index % 2]} for index in range(start, start + count)]


def texts(split):
    return [row.values["text"] for row in split]


def table(source, train=1000, validation=500, test=1000, **more):
    return DataTable(source=str(source), train=train, validation=validation, test=test, **more)


def test_one_file_is_split_without_overlap(tmp_path):
    source = jsonl(tmp_path / "all.jsonl", rows(100))
    found = load_rows(table(source, 40, 20, 30))
    parts = {name: texts(split) for name, split in found.items()}
    assert [len(part) for part in parts.values()] == [40, 20, 30]
    assert len({text for part in parts.values() for text in part}) == 90
    assert parts["train"][:2] != ["text 0", "text 1"]
    assert {name: texts(split) for name, split in load_rows(table(source, 40, 20, 30)).items()} == parts


def test_a_small_file_is_split_in_proportion(tmp_path):
    found = load_rows(table(jsonl(tmp_path / "all.jsonl", rows(100))))
    assert [len(split) for split in found.values()] == [70, 10, 20]
    assert [split.total for split in found.values()] == [100, 100, 100]


def test_equal_rows_stay_in_one_split(tmp_path):
    found = load_rows(table(jsonl(tmp_path / "all.jsonl", rows(12) * 8)))
    parts = [set(texts(split)) for split in found.values()]
    assert sum(map(len, parts)) == 12 == len(set.union(*parts))
    assert sum(len(split) for split in found.values()) == 96


def test_a_row_more_moves_no_other(tmp_path):
    before = load_rows(table(jsonl(tmp_path / "all.jsonl", rows(100)), 100, 0, 0))
    after = load_rows(table(jsonl(tmp_path / "more.jsonl", [*rows(1, 500), *rows(100)]), 50, 20, 20))
    assert [text for text in texts(after["train"]) if text != "text 500"]
    assert len(before["validation"]) == len(before["test"]) == 0


def test_a_folder_with_all_splits_is_taken_as_it_is(tmp_path):
    jsonl(tmp_path / "train.jsonl", rows(30))
    jsonl(tmp_path / "dev.jsonl", rows(10, 30))
    jsonl(tmp_path / "test-00000.jsonl", rows(5, 40))
    jsonl(tmp_path / "test-00001.jsonl", rows(5, 45))
    (tmp_path / "README.md").write_text("?")
    found = load_rows(table(tmp_path, train=20))
    assert len(found["train"]) == 20
    assert set(texts(found["validation"])) == {f"text {index}" for index in range(30, 40)}
    assert set(texts(found["test"])) == {f"text {index}" for index in range(40, 50)}
    assert found["test"].own


def test_what_a_folder_lacks_comes_from_its_training_rows(tmp_path):
    jsonl(tmp_path / "train.jsonl", rows(50))
    jsonl(tmp_path / "validation.jsonl", rows(10, 50))
    found = load_rows(table(tmp_path, 30, 10, 15))
    assert not set(texts(found["train"])) & set(texts(found["test"]))
    assert [len(split) for split in found.values()] == [30, 10, 15]
    assert set(texts(found["test"])) < {f"text {index}" for index in range(50)}


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege on Windows")
@pytest.mark.parametrize("linked", ["train.jsonl", "data"])
def test_links_out_of_a_folder(tmp_path, linked):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "folder").mkdir()
    jsonl(tmp_path / "elsewhere" / "train.jsonl", rows(9))
    target = tmp_path / "elsewhere" / (linked if linked != "data" else "")
    (tmp_path / "folder" / linked).symlink_to(target)
    with pytest.raises(UserError, match="links to a file outside its folder"):
        load_rows(table(tmp_path / "folder"))
    if linked != "data":
        assert len(load_rows(table(tmp_path / "folder" / linked))["train"]) == 6  # who names it means it


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege on Windows")
def test_a_data_set_in_the_hugging_face_cache(tmp_path):
    (tmp_path / "datasets--a--b" / "blobs").mkdir(parents=True)
    snapshot = tmp_path / "datasets--a--b" / "snapshots" / "c0ffee"
    (snapshot / "data").mkdir(parents=True)
    jsonl(tmp_path / "datasets--a--b" / "blobs" / "1234", rows(9))
    (snapshot / "data" / "train.jsonl").symlink_to("../../../blobs/1234")
    assert len(load_rows(table(snapshot))["train"]) == 6


def test_a_test_file_without_labels_is_left_alone(tmp_path):
    jsonl(tmp_path / "train.jsonl", rows(50))
    jsonl(tmp_path / "test.jsonl", [{"text": "unknown", "label": -1}] * 5)
    found = load_rows(table(tmp_path, 30, 10, 10))
    assert "unknown" not in texts(found["test"])
    assert "no labels" in found["test"].note


def test_nested_lists_are_unfolded_and_stay_together(tmp_path):
    data = [
        {
            "title": f"t{i}",
            "paragraphs": [
                {"context": f"c{i}", "qas": [{"question": f"q{j}", "answers": [{"text": "a"}]} for j in range(4)]}
            ],
        }
        for i in range(10)
    ]
    (tmp_path / "squad.json").write_text(json.dumps({"version": "1.1", "data": data}))
    found = load_rows(table(tmp_path / "squad.json", task="squad"))
    titles = [{row.values["title"] for row in split} for split in found.values()]
    assert sum(map(len, titles)) == 10 == len(set.union(*titles))
    assert [len(split) for split in found.values()] == [28, 4, 8]
    assert found["train"][0].values["paragraphs"]["qas"]["question"].startswith("q")


@given(st.integers(1, 5000), st.integers(1, 2000), st.integers(0, 1000), st.integers(0, 2000))
def test_shares(count, train, validation, test):
    found = splits.shares(count, train, validation, test)
    assert all(0 <= part <= wanted for part, wanted in zip(found, (train, validation, test), strict=True))
    assert found[0] >= 1
    assert sum(found) <= count
    if train + validation + test <= count:
        assert found == (train, validation, test)


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("startr", "Did you mean 'starter'"),
        ("no/such/file.csv", "There is no data file or folder 'no/such/file.csv'"),
        ("data/train.csv", "There is no data file or folder 'data/train.csv'"),
    ],
)
def test_no_such_source(source, sentence):
    with pytest.raises(UserError, match=sentence):
        load_rows(table(source))


def test_a_folder_without_data(tmp_path):
    with pytest.raises(UserError, match="has no data files"):
        load_rows(table(tmp_path))


def test_hub_offline():
    with pytest.raises(UserError, match=r"'nobody/nothing' is not on this computer, and the program is offline"):
        load_rows(table("nobody/nothing:plain"))


def test_hub(monkeypatch):
    import datasets

    def load(name, configuration, streaming, token, revision):
        assert (name, configuration, streaming) == ("nyu-mll/glue", "sst2", False)
        label = datasets.ClassLabel(names=["negative", "positive"])
        features = datasets.Features({"sentence": datasets.Value("string"), "label": label})
        part = {"sentence": ["a", "b", "c"], "label": [0, 1, 1]}
        blind = {"sentence": ["d"], "label": [-1]}
        return datasets.DatasetDict(
            {
                "train": datasets.Dataset.from_dict(part, features=features),
                "validation": datasets.Dataset.from_dict(part, features=features),
                "test": datasets.Dataset.from_dict(blind, features=features),
            }
        )

    monkeypatch.setattr(datasets, "load_dataset", load)
    found = load_rows(table("nyu-mll/glue:sst2", task="sst2"))
    assert {row.values["label"] for row in found["validation"]} == {"negative", "positive"}
    assert "no labels" in found["test"].note
    assert found["validation"][0].place.startswith("nyu-mll/glue validation, row ")


def test_a_hub_data_set_that_cannot_be_loaded(monkeypatch):
    import datasets

    def load(*_, **__):
        raise RuntimeError("Dataset scripts are no longer supported, but found glue.py")

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(UserError, match=r"scripts are no longer supported.*own code are not supported"):
        load_rows(table("owner/name"))


@pytest.mark.parametrize("counts", [(40, 20, 30), (1000, 20, 30), (60, 0, 0)])
def test_rows_are_the_same_wherever_they_lie(tmp_path, monkeypatch, counts):
    """In memory, or in a temporary file as those of large data sets."""
    source = jsonl(tmp_path / "all.jsonl", [*rows(100), *rows(10)])
    before = load_rows(table(source, *counts))
    monkeypatch.setattr(store, "IN_MEMORY", 5)
    monkeypatch.setattr(splits, "IN_MEMORY", 5)
    after = load_rows(table(source, *counts))
    assert isinstance(after["train"].records, store.Subset)
    assert {name: list(part) for name, part in after.items()} == {name: list(part) for name, part in before.items()}


def test_what_is_asked_meanwhile_gives_its_answer_or_its_error():
    waiting = Progress("Reading data")
    assert finish(in_background(lambda: 5, waiting)) == 5
    with pytest.raises(UserError, match="There is no data file"):
        finish(in_background(lambda: sources.find("no such"), waiting))


def test_a_folder_of_datasets_own_format_is_named(tmp_path):
    import datasets

    datasets.disable_progress_bars()
    datasets.DatasetDict({"train": datasets.Dataset.from_list(rows(4))}).save_to_disk(tmp_path / "saved")
    for folder in (tmp_path / "saved", tmp_path / "saved" / "train"):
        with pytest.raises(UserError, match=r"was written by `save_to_disk` of datasets.*to_parquet"):
            load_rows(table(folder))
