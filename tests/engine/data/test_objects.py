"""JSON in every layout that other programs write, and rows of any of them without holding the file."""

import json
import tracemalloc

import pytest

from sparsezo_gui.engine.data import lines, objects
from sparsezo_gui.engine.data.readers import read
from sparsezo_gui.errors import UserError
from tests.engine.data.files import put, values

ROWS = [{"text": "a b", "label": "good"}, {"text": 'café, [ { "', "label": "bad"}, {"text": "c\nd", "label": "good"}]


LINES = "\n".join(map(json.dumps, ROWS))
COLUMNS = {name: [row[name] for row in ROWS] for name in ROWS[0]}


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(ROWS),
        json.dumps(ROWS, indent=2),
        json.dumps(ROWS, indent=2).replace("}\n]", "},\n]"),
        LINES,
        "\ufeff" + LINES,
        LINES.replace("}\n", "},\n"),
        LINES.replace("}\n", "}\n\n \n\ufeff"),
        LINES.replace("}\n", "}"),
        "".join(json.dumps(row, indent=1) for row in ROWS),
        LINES.replace("\n", "\r\n").encode("utf-16"),
    ],
    ids=["list", "indented", "comma", "lines", "mark", "commas", "gaps", "joined", "objects", "utf-16"],
)
@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_rows_one_after_the_other(tmp_path, name, content):
    assert values(put(tmp_path, name, content)) == ROWS


@pytest.mark.parametrize(
    "table",
    [
        {"version": 1, "data": ROWS},
        {f"id {number}": row for number, row in enumerate(ROWS)},
        {str(number): row for number, row in enumerate(ROWS)},  # pandas, 'index'
        {name: {str(number): value for number, value in enumerate(column)} for name, column in COLUMNS.items()},
        {"columns": list(COLUMNS), "index": [0, 1, 2], "data": [list(row.values()) for row in ROWS]},
        COLUMNS,
    ],
    ids=["one list", "by id", "index", "columns", "split", "lists"],
)
def test_one_object(tmp_path, table):
    assert values(put(tmp_path, "a.json", json.dumps(table))) == ROWS


def test_what_pandas_calls_table(tmp_path):
    table = {"schema": {"fields": [{"name": "index"}], "pandas_version": "1.4.0"}, "data": ROWS}
    assert values(put(tmp_path, "a.json", json.dumps(table))) == ROWS


@pytest.mark.parametrize("make", [lambda rows: {"version": {"a": 1}, "data": rows},
                                  lambda rows: {f"id {number}": row for number, row in enumerate(rows)}])  # fmt: skip
def test_an_object_that_is_too_large_to_be_held(tmp_path, monkeypatch, make):
    monkeypatch.setattr(objects, "LARGEST", 1_000_000)
    rows = [{"text": f"{number} " * 100, "label": number % 2} for number in range(10_000)]
    path = put(tmp_path, "a.json", json.dumps(make(rows)))
    assert path.stat().st_size > 3 * objects.LARGEST
    assert values(path) == rows


def test_a_large_object_that_holds_no_rows_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(objects, "LARGEST", 100_000)
    monkeypatch.setattr(lines, "PIECE", 10_000)
    columns = {name: {str(number): "a" * 10 for number in range(3000)} for name in ("a", "b", "c", "d", "e", "f")}
    with pytest.raises(UserError, match=r"a\.json: stores the values column by column.*lines=True"):
        values(put(tmp_path, "a.json", json.dumps(columns)))
    lists = {"train": [{"text": "a" * 100}] * 2000, "test": [{"text": "a" * 100}] * 2000}
    with pytest.raises(UserError, match="this one has 2: train, test"):
        values(put(tmp_path, "a.json", json.dumps(lists)))
    with pytest.raises(UserError, match=r"a\.json, line 2: not JSON .*, or one row has more than 100,000 characters"):
        values(put(tmp_path, "a.json", '[{"text": "a"},\n{"text": "' + "a" * 300_000 + '"}]'))


@pytest.mark.parametrize("layout", ["list", "lines", "under .json"])
def test_a_large_file_is_not_held(tmp_path, layout):
    rows = ({"text": f"{number} " * 100, "label": number % 2} for number in range(50_000))
    text = (", " if layout == "list" else "\n").join(map(json.dumps, rows))
    path = put(tmp_path, "a.jsonl" if layout == "lines" else "a.json", f"[{text}]" if layout == "list" else text)
    assert path.stat().st_size > 25_000_000
    tracemalloc.start()
    try:
        assert sum(1 for _ in read(path)) == 50_000
        assert tracemalloc.get_traced_memory()[1] < 12_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.json", '[{"text": "a"}', r"a\.json, line 1: the file ends inside its list"),
        ("a.json", '[{"text": "a"}]\n[{"text": "b"}]', r"a\.json, line 2: text after the end of the list"),
        ("a.json", '[[1, 2], [3, 4]]', r"a\.json, row 1.*must be an object.*not list"),
        ("a.json", '{"text": "a"}', r"needs a list of objects.*as \.jsonl"),
        ("a.json", '{"train": [{"a": 1}], "test": [{"a": 2}]}', r"exactly one list; this one has 2: train, test"),
        ("a.json", '{"text": "a"}\n{"text": b}', r"a\.json, line 2: not JSON"),
        ("a.jsonl", '{"text": "a"}\n{"text": "b"} nonsense', r"a\.jsonl, line 2: not JSON.*one object"),
        ("a.jsonl", "{'text': 'a'}", r"a\.jsonl, line 1: not JSON"),
        ("a.jsonl", '{"text": ' + "1" * 5000 + "}", r"a\.jsonl, line 1: not JSON \(nested too deeply, or a number"),
    ],
)  # fmt: skip
def test_faults(tmp_path, name, content, sentence):
    with pytest.raises(UserError, match=sentence):
        values(put(tmp_path, name, content))


def test_rows_are_named_by_their_line(tmp_path):
    path = put(tmp_path, "a.json", json.dumps(ROWS, indent=2))
    assert [(record.number, record.line) for record in read(path)] == [(1, 2), (2, 6), (3, 10)]


def test_a_number_that_is_missing_is_an_empty_cell(tmp_path):
    (row,) = values(put(tmp_path, "a.jsonl", '{"text": "a", "label": NaN}'))
    assert row["label"] != row["label"]
