"""Files of every format, whole and broken: each fault is a sentence that names file and row."""

import gzip
import json
import lzma
import sys
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsezo_gui.engine.data import lines
from sparsezo_gui.engine.data.readers import read
from sparsezo_gui.errors import UserError
from sparsezo_gui.formats import COMPRESSED, data_suffixes
from tests.fuzz.limits import limited_memory

ROWS = [{"text": 'with, a comma, a "quote"\nand a line', "label": "good"}, {"text": "café 😀", "label": "bad"}]


def values(path):
    return [record.values for record in read(path)]


def put(folder, name, content):
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


CSV = 'text,label\n"with, a comma, a ""quote""\nand a line",good\ncafé 😀,bad\n'
JSONL = "\n".join(json.dumps(row) for row in ROWS)


@pytest.mark.parametrize("packed", ["", *COMPRESSED])
@pytest.mark.parametrize("suffix", data_suffixes())
def test_every_registered_kind_of_file_is_read(tmp_path, suffix, packed):
    with pytest.raises(UserError, match=rf"a\{suffix}{packed}: (the file|cannot be unpacked|not a readable)"):
        values(put(tmp_path, f"a{suffix}{packed}", ""))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", CSV),
        ("a.csv", CSV.replace("\n", "\r\n").replace('quote"""\r\n', 'quote"""\n').replace('"\r\nand', '"\nand')),
        ("a.csv", "\ufeff" + CSV),
        ("a.csv", CSV.replace("text,label", "text;label").replace(",good", ";good").replace(",bad", ";bad")),
        ("a.tsv", CSV.replace("text,label", "text\tlabel").replace(",good", "\tgood").replace(",bad", "\tbad")),
        ("a.jsonl", JSONL),
        ("a.ndjson", JSONL + "\n\n"),
        ("a.json", json.dumps(ROWS)),
        ("a.json", json.dumps({"version": 1, "data": ROWS})),
        ("a.json", JSONL),
        ("A.CSV.GZ", gzip.compress(CSV.encode(), mtime=0)),  # tests of all processes have one name
        ("a.jsonl.xz", lzma.compress(JSONL.encode())),
    ],
)
def test_formats(tmp_path, name, content):
    if name == "a.tsv":  # a field over two lines is no tab-separated value; quotes within one are
        content, expected = (
            content.replace("\nand", " and"),
            [{**ROWS[0], "text": ROWS[0]["text"].replace("\n", " ")}, ROWS[1]],
        )
    else:
        expected = ROWS
    assert values(put(tmp_path, name, content)) == expected


def test_parquet_with_class_names(tmp_path):
    from datasets import ClassLabel, Dataset, Features, Value, disable_progress_bars

    disable_progress_bars()
    features = Features({"text": Value("string"), "label": ClassLabel(names=["bad", "good"])})
    rows = Dataset.from_dict({"text": ["a", "b", "c"], "label": [1, 0, -1]}, features=features)
    rows.to_parquet(tmp_path / "a.parquet")
    assert [row["label"] for row in values(tmp_path / "a.parquet")] == ["good", "bad", None]


def test_bare_quotes_in_tab_separated_values(tmp_path):
    assert values(put(tmp_path, "a.tsv", 'text\tlabel\n"so he says\t1\nan "odd" one\t0\n')) == [
        {"text": '"so he says', "label": "1"},
        {"text": 'an "odd" one', "label": "0"},
    ]


def test_plain_text(tmp_path):
    assert values(put(tmp_path, "a.txt", "one\ntwo\n")) == [{"text": "one"}, {"text": "two"}]
    assert values(put(tmp_path, "b.txt", "\none\ntwo\n\n\nthree")) == [{"text": "one\ntwo"}, {"text": "three"}]


def test_a_list_of_texts(tmp_path):
    assert values(put(tmp_path, "a.json", '["one", "two"]')) == [{"text": "one"}, {"text": "two"}]


def test_a_column_without_a_name_gets_one(tmp_path):
    assert values(put(tmp_path, "a.csv", ",text\n0,a\n")) == [{"column 1": "0", "text": "a"}]


def test_a_changed_file_is_read_anew(tmp_path):
    for text in ("one", "two"):
        assert values(put(tmp_path, "a.csv", f"text,label\n{text},1\n")) == [{"text": text, "label": "1"}]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.csv", "", r"a\.csv: the file is empty"),
        ("a.jsonl", "", r"a\.jsonl: the file has no rows"),
        ("a.json", "  ", r"a\.json: the file has no rows"),
        ("a.json", "[]", r"a\.json: the file has no rows"),
        ("a.txt", "\n\n", r"a\.txt: the file has no rows"),
        ("a.csv", "text,label\n", r"a\.csv: the file has a header \(text, label\) but no rows"),
        ("a.csv", "text,label\na,1\nb\n", r"a\.csv, row 2 \(line 3\): 1 fields, but the header names 2 columns"),
        ("a.csv", "text,label\na,b,1\n", r"row 1 \(line 2\): 3 fields.*\(text, label\).*double quotes"),
        ("a.csv", 'text,label\n"a,1\nb,2\n', r"a\.csv, line 3: .*double quote that is not closed"),
        ("a.csv", "text,text\na,b\n", r"names 'text' twice"),
        ("a.csv", b"text,label\ncaf\xe9,1\n", r"a\.csv, line 2: byte 4 is not valid UTF-8.*Save"),
        ("a.jsonl", '{"text": "a"}\n{"text": "b"\n', r"a\.jsonl, line 2: not JSON"),
        ("a.jsonl", '{"text": "a"}\n[1, 2]\n', r"a\.jsonl, row 2: must be an object.*not list"),
        ("a.jsonl", "[" * 100_000, r"a\.jsonl, line 1: not JSON"),
        ("a.json", '[{"text": "a"},\n 5]', r"a\.json, row 2: must be an object.*not int"),
        ("a.json", '[{"text": "a"},\n{"text": }]', r"a\.json, line 2: not JSON"),
        ("a.json", '{"a": [], "b": []}', r"exactly one list; this one has 2: a, b"),
        ("a.json", "5", r"needs a list of objects"),
        ("a.parquet", "PAR1 not at all", r"a\.parquet: not a readable Parquet file"),
        ("a.csv.gz", "text,label\na,1\n", r"a\.csv\.gz: cannot be unpacked"),
        ("a.jsonl.xz", lzma.compress(JSONL.encode())[:40], r"a\.jsonl\.xz: cannot be unpacked"),
        ("a.docx", "?", r"a\.docx: SparseZO cannot read this kind of file.*\.csv"),
    ],
)
def test_faults(tmp_path, name, content, sentence):
    with pytest.raises(UserError, match=sentence):
        values(put(tmp_path, name, content))


@pytest.mark.parametrize("module", [gzip, lzma])
@pytest.mark.parametrize(("kind", "filling"), [("json", b"["), ("jsonl", b"\n"), ("csv", b"a,b\n"), ("txt", b"a")])
def test_a_small_file_that_unpacks_to_a_huge_one(tmp_path, module, kind, filling, monkeypatch):
    monkeypatch.setattr(lines, "SMALL", 100_000)
    suffix = {gzip: "gz", lzma: "xz"}[module]
    path = put(tmp_path, f"a.{kind}.{suffix}", module.compress(filling * (1_000_000 // len(filling))))
    assert path.stat().st_size < 10_000
    with pytest.raises(UserError, match="unpacks to more than 100 times its size"):
        for _ in read(path):
            pass


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux alone")
def test_a_packed_file_that_asks_for_gigabytes(tmp_path):
    """The head of a .xz file says how much memory unpacking takes: here 1.5 GiB, for three letters."""
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0}]
    content = bytearray(lzma.compress(b'"a"', filters=filters))
    content[content.index(b"\x21\x01") + 2] = 39  # the size of the dictionary, which the checksum of the head covers
    size = (content[12] + 1) * 4
    content[12 + size - 4 : 12 + size] = zlib.crc32(content[12 : 12 + size - 4]).to_bytes(4, "little")
    with limited_memory(2**30), pytest.raises(UserError, match="with the available memory"):
        values(put(tmp_path, "a.jsonl.xz", bytes(content)))


@pytest.mark.parametrize("pack", ["none", "zstd"])
def test_a_parquet_file_that_unfolds_without_end_is_refused(tmp_path, monkeypatch, pack):
    import pyarrow
    from pyarrow import parquet

    monkeypatch.setattr(lines, "SMALL", 1_000_000)
    text = "x" * 10_000  # written once, and meant two thousand times
    dictionary = pack == "none"
    parquet.write_table(pyarrow.table({"text": [text] * 2000}), tmp_path / "a.parquet", use_dictionary=dictionary,
                        compression=pack)  # fmt: skip
    assert (tmp_path / "a.parquet").stat().st_size < 30_000
    with pytest.raises(UserError, match=r"a\.parquet: unpacks to more than 100 times its size"):
        values(tmp_path / "a.parquet")


def test_no_packed_file_unpacks_to_more_than_the_most(tmp_path, monkeypatch):
    rows = "".join(f'{{"text": "{zlib.crc32(str(number).encode())}"}}\n' for number in range(5000))
    monkeypatch.setattr(lines, "MOST_BYTES", 50_000)
    assert len(values(put(tmp_path, "a.jsonl", rows))) == 5000
    with pytest.raises(UserError, match=r"a\.jsonl\.xz: unpacks to more"):
        values(put(tmp_path, "a.jsonl.xz", lzma.compress(rows.encode())))


def test_more_columns_than_any_table_has(tmp_path):
    with pytest.raises(UserError, match="names 1,000,001 columns, more than 10,000"):
        values(put(tmp_path, "a.csv", "," * 1_000_000 + "\n"))


@pytest.mark.parametrize("name", ["a*.parquet", "[ab].parquet", "b::c.parquet"])
def test_the_name_of_a_parquet_file_is_no_pattern(tmp_path, name):
    import pyarrow
    from pyarrow import parquet

    for each, text in ((name, "mine"), ("ab.parquet", "another"), ("b.parquet", "another")):
        parquet.write_table(pyarrow.table({"text": [text]}), tmp_path / each)
    assert values(tmp_path / name) == [{"text": "mine"}]


def test_parquet_opens_no_path_that_stands_in_it(tmp_path):
    from datasets import Dataset, Features, Image

    (tmp_path / "secret").write_text("secret")
    rows = Dataset.from_dict({"image": [{"bytes": None, "path": str(tmp_path / "secret")}]})
    rows.cast(Features({"image": Image(decode=False)})).to_parquet(tmp_path / "a.parquet")
    assert values(tmp_path / "a.parquet") == [{"image": {"bytes": None, "path": str(tmp_path / "secret")}}]


def test_line_numbers_of_paragraphs(tmp_path):
    path = put(tmp_path, "a.txt", "\none\ntwo\n\n\nthree")
    assert [(record.number, record.line) for record in read(path)] == [(1, 2), (2, 6)]
    path = put(tmp_path, "b.txt", "\none\ntwo")
    assert [(record.number, record.line) for record in read(path)] == [(1, 2), (2, 3)]


@settings(max_examples=150)
@given(
    name=st.sampled_from([f"a{kind}{pack}" for kind in data_suffixes() if kind != ".parquet" for pack in ("", ".gz")]),
    content=st.binary(max_size=60)
    | st.text('a,;"\t\n\r{}[]:1\x00\ud800' + "\ufeff", max_size=60).map(
        lambda text: text.encode("utf-8", "surrogatepass")
    ),
)
def test_random_bytes_give_rows_or_a_sentence(tmp_path, name, content):
    path = put(tmp_path, name, gzip.compress(content) if name.endswith(".gz") and len(content) % 2 else content)
    try:
        assert all(isinstance(row, dict) for row in values(path))
    except UserError as error:
        assert path.name in str(error)
