"""Parquet as every version of `datasets` and other programs write it."""

import datetime
import decimal
import json

import pyarrow
import pytest
from pyarrow import parquet

from sparsezo_gui.engine.data import load_task
from sparsezo_gui.engine.data.readers import read
from sparsezo_gui.engine.data.record import Binary
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe.recipe import DataTable
from sparsezo_gui.work import finish
from tests.models import tokenizer

TURNS = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}]
TURN = {name: {"dtype": "string", "_type": "Value"} for name in ("role", "content")}
LABEL = {"names": ["bad", "good"], "_type": "ClassLabel"}
SHAPES = {
    "1": [{"role": {"dtype": "string", "id": None, "_type": "Value"}}],
    "2": {"feature": TURN, "length": -1, "id": None, "_type": "Sequence"},
    "3": [TURN],
    "4": {"feature": TURN, "_type": "List"},
    "large": {"feature": TURN, "_type": "LargeList"},
}


def values(folder, table, metadata=None):
    table = pyarrow.table(table) if isinstance(table, dict) else table
    parquet.write_table(table.replace_schema_metadata(metadata), folder / "a.parquet")
    return [record.values for record in read(folder / "a.parquet")]


def test_calls_of_tools_have_their_own_arguments_only(tmp_path):
    calls = [[{"function": {"name": name, "arguments": {name: 1}}}] for name in ("a", "b")]
    rows = [{"messages": [{"role": "assistant", "content": None, "tool_calls": call}], "tools": call} for call in calls]
    assert values(tmp_path, pyarrow.Table.from_pylist(rows)) == rows


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_features_of_every_version_of_datasets(tmp_path, shape):
    features = {"messages": shape, "label": LABEL, "tags": {"feature": LABEL, "_type": "Sequence"}, "none": None}
    metadata = {"huggingface": json.dumps({"info": {"features": features}, "fingerprint": "1"})}
    rows = values(tmp_path, {"messages": [TURNS] * 3, "label": [1, 0, -1], "tags": [[0, 1]] * 3}, metadata)
    assert rows == [{"messages": TURNS, "label": label, "tags": [0, 1]} for label in ("good", "bad", None)]


@pytest.mark.parametrize(
    "metadata",
    ["{", "[]", "5", "null", "{}", '{"info": null}', '{"info": {}}', '{"info": {"features": null}}',
     '{"info": {"features": ["label"]}}', '{"info": {"features": {"label": "ClassLabel"}}}', "[" * 100_000, b"\xff",
     '{"info": {"features": {"label": {"_type": "ClassLabel"}, "gone": {"_type": "ClassLabel", "names": ["a"]}}}}',
     '{"info": {"features": {"label": {"_type": "ClassLabel", "names": 5}}}}',
     '{"info": {"features": {"label": {"_type": "ClassLabel", "names": ["only one"]}}}}'],
)  # fmt: skip
def test_metadata_that_names_no_classes_keeps_no_row_from_being_read(tmp_path, metadata):
    assert values(tmp_path, {"text": ["a"], "label": [1]}, {"huggingface": metadata}) == [{"text": "a", "label": 1}]


def test_values_of_other_programs_are_plain(tmp_path):
    day = datetime.datetime(2024, 5, 1, 12, 30)
    table = pyarrow.table({
        "text": pyarrow.array(["a"], pyarrow.large_string()),
        "label": pyarrow.array(["good"]).dictionary_encode(),
        "view": pyarrow.array(["v"], pyarrow.string_view()),
        "when": pyarrow.array([day], pyarrow.timestamp("us")),
        "exact": pyarrow.array([day], pyarrow.timestamp("ns")),
        "day": pyarrow.array([day.date()]),
        "price": pyarrow.array([decimal.Decimal("1.50")]),
        "more": pyarrow.array([[("a", 1)]], pyarrow.map_(pyarrow.string(), pyarrow.int32())),
        "half": pyarrow.array([0.5], pyarrow.float16()),
        "spark": pyarrow.array([b"text"], pyarrow.binary()),
        "image": pyarrow.array([{"bytes": b"\x89PNG\r\n\x1a\n\0", "path": "a.png"}]),
        "nothing": pyarrow.nulls(1),
    })  # fmt: skip
    assert values(tmp_path, table) == [{
        "text": "a", "label": "good", "view": "v", "when": "2024-05-01T12:30:00", "exact": "2024-05-01T12:30:00",
        "day": "2024-05-01", "price": "1.50", "more": {"a": 1}, "half": 0.5, "spark": "text",
        "image": {"bytes": Binary(9), "path": "a.png"}, "nothing": None,
    }]  # fmt: skip


@pytest.mark.parametrize("where", [{"template": "{{ image }}"}, {"template": "{{ photo.bytes }}"},
                                   {"columns": {"answer": "image"}}])  # fmt: skip
def test_bytes_are_told_where_a_text_is_made_of_them(tmp_path, where):
    assert str(Binary(1234)) == "[1,234 bytes, not text]"
    photo = {"bytes": b"\x89PNG", "path": "a.png"}
    table = pyarrow.table({"text": ["a"] * 8, "label": ["x", "y"] * 4, "image": [b"\x89PNG"] * 8, "photo": [photo] * 8})
    parquet.write_table(table, tmp_path / "a.parquet")
    more = {"template": "{{ text }}", "columns": {"answer": "label"}, "answers": ("x", "y"), **where}
    with pytest.raises(UserError, match="binary data, such as an image"):
        finish(load_task(DataTable(source=str(tmp_path / "a.parquet"), **more), tokenizer()))
