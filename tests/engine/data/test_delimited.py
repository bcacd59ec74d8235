"""Separators and quoting: what the rows agree on is taken, what contradicts itself is told with its line."""

import csv
import io
import zipfile

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sparsezo_gui.engine.data.readers import read
from sparsezo_gui.errors import UserError
from tests.engine.data.files import put, values

ROWS = [{"Review": f"nice, but {i}", "Mood": "good" if i % 2 else "bad"} for i in range(24)]


def table(header, rows, separator, end="\n", **options):
    """What the standard library writes."""
    file = io.StringIO()
    writer = csv.writer(file, delimiter=separator, lineterminator=end, **options)
    writer.writerows([header, *rows])
    return file.getvalue()


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_any_separator_under_any_suffix(tmp_path, name, separator, end, quoting):
    text = table(ROWS[0].keys(), [row.values() for row in ROWS], separator, end, quoting=quoting)
    assert values(put(tmp_path, name, text)) == ROWS
    assert values(put(tmp_path, name, "\ufeff" + text)) == ROWS


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_what_spreadsheets_call_unicode_text(tmp_path, encoding):
    text = table(ROWS[0].keys(), [row.values() for row in ROWS], "\t", "\r\n")
    assert values(put(tmp_path, "a.csv", text.encode(encoding))) == ROWS


def test_utf_16_without_its_mark(tmp_path):
    with pytest.raises(UserError, match=r"a\.csv: many bytes are zero.*UTF-16.*Save"):
        values(put(tmp_path, "a.csv", "text,label\na,1\n".encode("utf-16-le")))


def test_a_workbook_with_the_name_of_a_table(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.csv", "w") as archive:
        archive.writestr("xl/workbook.xml", "<workbook/>")
    with pytest.raises(UserError, match=r"a\.csv: this is an Excel workbook.*Save the table as CSV"):
        values(tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("content", "first"),
    [
        ("Review, verbatim;Mood\nnice, but 0;gut\nnice, but 1;schlecht\n",
         {"Review, verbatim": "nice, but 0", "Mood": "gut"}),
        ('"Review, verbatim";"Mood"\n"nice, but 0";"gut"\n', {"Review, verbatim": "nice, but 0", "Mood": "gut"}),
        ("sep=;\r\nReview;Mood\r\nnice, but 0;gut\r\n", {"Review": "nice, but 0", "Mood": "gut"}),
        ("sep=,\nA;B,C;D\n1;2,3;4\n", {"A;B": "1;2", "C;D": "3;4"}),
        ("sep=\t\na\tb\n1\t2\n", {"a": "1", "b": "2"}),
        ("Text;Wert;Art\nein;1,5;gut\nzwei;2,5;schlecht\n", {"Text": "ein", "Wert": "1,5", "Art": "gut"}),
        ("Text;Wert, EUR;Art\nein;1,5;gut\nzwei;2,5;schlecht\n", {"Text": "ein", "Wert, EUR": "1,5", "Art": "gut"}),
        ("text; verbatim,label\ngood; and more,1\nbad; and less,0\n",
         {"text; verbatim": "good; and more", "label": "1"}),
        ('text, label\n"good, and more", 1\n"bad", 0\n', {"text": "good, and more", "label": "1"}),
        ("text\nfirst\nsecond\n", {"text": "first"}),
        ("text\none; two\nthree\n", {"text": "one; two"}),
        ('text\n"one, two"\n', {"text": "one, two"}),
        ('id\ttext\n1\t"a ""b"" c\nover two lines"\n2\tplain\n', {"id": "1", "text": 'a "b" c\nover two lines'}),
        ("\n\ntext;label\na;1\n", {"text": "a", "label": "1"}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_the_separator_that_all_rows_agree_on(tmp_path, content, first, name):
    assert values(put(tmp_path, name, content))[0] == first


def test_lines_are_counted_from_the_first_of_the_file(tmp_path):
    path = put(tmp_path, "a.csv", 'sep=;\n\ntext;label\n"two\nlines";1\n\nb;2\n')
    assert [(record.number, record.line) for record in read(path)] == [(1, 4), (2, 7)]
    with pytest.raises(UserError, match=r"row 2 \(line 4\): 3 fields.*first line says that they are separated by"):
        values(put(tmp_path, "a.csv", "sep=;\ntext;label\na;1\nb;c;2\n"))


def test_what_parts_all_rows_in_two_ways_is_told(tmp_path):
    with pytest.raises(UserError, match=r"a\.csv: commas and semicolons split all rows equally well.*such as sep=;"):
        values(put(tmp_path, "a.csv", "Größe,cm;Art\n1,5;gut\n2,5;schlecht\n"))


def test_where_no_rows_agree_what_was_tried_is_told(tmp_path):
    with pytest.raises(UserError, match=r"row 2 \(line 3\): 3 fields.*separated by commas"):
        values(put(tmp_path, "a.csv", "text,label\na,1\nb,c,2\n"))
    with pytest.raises(UserError, match=r"separated by commas \(semicolons, tabs and vertical bars were tried too"):
        values(put(tmp_path, "a.csv", "text\na, b\nc\n"))


def late(row, separator="\t", before=2000, after=3):
    """A file whose first row with a quote comes after the sample."""
    rows = [f"plain {i}{separator}{i % 2}" for i in range(before)]
    more = [f"later {i}{separator}{i % 2}" for i in range(after)]
    return "\n".join([f"text{separator}label", *rows, row, *more]) + "\n"


def test_the_first_quote_of_tab_separated_values_may_come_late(tmp_path):
    rows = values(put(tmp_path, "a.tsv", late('"so he says\t1')))
    assert len(rows) == 2004 and rows[2000] == {"text": '"so he says', "label": "1"}
    rows = values(put(tmp_path, "a.tsv", late('"he said ""so"""\t1')))
    assert len(rows) == 2004 and rows[2000] == {"text": 'he said "so"', "label": "1"}
    rows = values(put(tmp_path, "a.tsv", late('"two\nlines\tof text"\t1')))
    assert len(rows) == 2004 and rows[2000] == {"text": "two\nlines\tof text", "label": "1"}


def test_bare_quotes_after_meant_ones_are_told(tmp_path):
    with pytest.raises(UserError, match=r"a\.tsv, line 2002: a double quote is inside a field.*JSONL"):
        values(put(tmp_path, "a.tsv", late('an "odd" one\t1').replace("plain 5\t", '"plain 5"\t')))


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_rows_that_a_quote_would_swallow_are_told(tmp_path, separator):
    text = late(f'"so he says{separator}1', separator).replace("later 1", 'he ended it"')
    text = text.replace("plain 5" + separator, f'"plain 5"{separator}')  # quotes are meant
    with pytest.raises(UserError, match=r'a\.csv, line 2002: a double quote opens.*ends in line 2004.*as ""'):
        values(put(tmp_path, "a.csv", text))


@pytest.mark.parametrize(
    "field",
    [
        "Roses are red, they say\nviolets are blue, they say",
        "{'a':1,\n'b':2,\n'c':3}",
        "f(a,b)\ng(c,d)",
        "a,b\n1,2\n3,4",
    ],
)
def test_texts_of_several_lines_are_not_taken_for_rows(tmp_path, field):
    rows = [["text", "label"], *([f"t {i}", str(i % 2)] for i in range(50)), [field, "1"], ["end", "0"]]
    assert values(put(tmp_path, "a.csv", table(rows[0], rows[1:], ",")))[50] == {"text": field, "label": "1"}


@settings(max_examples=150)
@given(
    rows=st.lists(st.tuples(st.text('ab ,;|"\n\t.', max_size=12), st.sampled_from(["x", "y"])), min_size=1, max_size=8),
    separator=st.sampled_from(",;\t"),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
def test_what_is_written_is_read_or_told(tmp_path, rows, separator, quoting):
    """Never other rows than were written. (Lines of a field that hold a tab each are rows in most files with tabs.)"""
    assume(separator != "\t" or not any("\t" in text and "\n" in text for text, _ in rows))
    path = put(tmp_path, "a.csv", table(["text", "label"], rows, separator, quoting=quoting))
    try:
        found = values(path)
    except UserError as error:
        assert path.name in str(error)
    else:
        assert found == [{"text": text, "label": label} for text, label in rows]
