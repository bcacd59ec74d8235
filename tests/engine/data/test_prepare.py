"""The whole way: a recipe's data table to token rows, texts to blocks, and the preview of both."""

import json
import subprocess
import sys

import pytest

from sparsezo_gui import resources
from sparsezo_gui.engine.data import load_task, preview, previewing, text_blocks
from sparsezo_gui.engine.data.rendering import SHOWN
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe.events import Progress
from sparsezo_gui.recipe.recipe import DataTable
from sparsezo_gui.work import finish


@pytest.fixture
def films(tmp_path):
    """100 rows of a film critic."""
    rows = [{"sentence": f"the cat sat {'so ' * (index % 7)}", "label": index % 2} for index in range(100)]
    path = tmp_path / "films.jsonl"
    path.write_text("\n".join(json.dumps({**row, "id": index}) for index, row in enumerate(rows)))
    return DataTable(source=str(path), task="sst2", train=40, validation=20, test=30, max_tokens=10)


def test_load_task(films, made):
    work = load_task(films, made("words"))
    events = []
    data = None
    try:
        while True:
            events.append(next(work))
    except StopIteration as end:
        data = end.value
    assert all(isinstance(event, Progress) for event in events)
    assert (events[-1].done, events[-1].total) == (90, 90)
    assert [len(split) for split in (data.train, data.validation, data.test)] == [40, 20, 30]
    assert data.answers == ("terrible", "great")
    assert data.train.encoded[0].rows[0].targets == (6, 5)
    assert data.longest == 9  # max_tokens, less the answer
    everything = [encoded for split in (data.train, data.validation, data.test) for encoded in split.encoded]
    assert data.truncated == sum(encoded.cut > 0 for encoded in everything) > 0
    assert data.tokens_cut == sum(encoded.cut for encoded in everything)
    assert finish(load_task(films, made("words"))) == data


def test_loading_can_be_cancelled(films, made):
    work = load_task(films, made("words"))
    next(work)
    work.close()
    assert next(work, "ended") == "ended"


def test_every_row_may_be_told_of_and_be_the_last(films, made, monkeypatch):
    monkeypatch.setattr("sparsezo_gui.engine.data.background.PROGRESS_EVERY", 0)
    for work in (load_task(films, made("words")), previewing(films, made("words"))):
        told = [event.done for event in work if event.stage == "Preparing examples"]
        assert told[:90] == list(range(90))
    work = previewing(films, made("words"))
    next(event for event in work if event.done == 5)
    work.close()
    assert next(work, "ended") == "ended"


def test_a_preview_of_a_long_text_is_short(tmp_path, made):
    """Its beginning and its end, with the answer; the whole of it is counted all the same."""
    path = tmp_path / "a.jsonl"
    text = "first " + "the cat sat so very great " * 40_000 + "last"
    rows = [{"text": text, "label": "Yes"}, {"text": "the cat", "label": "No"}]
    path.write_text("\n".join(map(json.dumps, rows)))
    columns = {"answer": "label"}
    table = DataTable(source=str(path), template="{{ text }}", columns=columns, train=2, test=0, validation=0)
    shown = preview(table)
    long, short = ("".join(piece for piece, _ in pieces) for pieces in shown.examples)
    assert long.startswith("first the cat") and long.endswith("last Yes") and long.count("…") == 1
    assert len(long) == SHOWN + 1 and shown.left_out == (len(f"{text} Yes") - SHOWN, 0)
    assert short == "the cat No"
    assert [trained for _, trained in shown.examples[0]][-1]
    assert len(shown.rows[0][0]) < len(text) / 100


def test_a_preview_shows_what_is_left_of_a_text(tmp_path, made):
    path = tmp_path / "a.jsonl"
    text = "first " + "the cat sat so very great " * 4_000 + "last"
    path.write_text("\n".join(json.dumps({"text": text, "label": label}) for label in ("Yes", "No")))
    columns = {"answer": "label"}
    table = DataTable(source=str(path), template="{{ text }}", columns=columns, train=2, test=0, validation=0)
    shown = preview(table, made("byte_pairs"))
    long = "".join(piece for piece, _ in shown.examples[0])
    assert f"{text} Yes".endswith(long) and shown.left_out == (0, 0)
    assert (shown.longest_tokens, shown.cut, len(shown.examples[0])) == (511, 2, 512)
    shown = preview(table.model_copy(update={"max_tokens": 10_000}), made("byte_pairs"))
    assert sum(len(piece) for piece, _ in shown.examples[0]) == SHOWN + 1 and shown.left_out[0] > SHOWN


def test_long_texts_become_several_examples(tmp_path, made):
    path = tmp_path / "a.txt"
    path.write_text("\n\n".join(f"{index} the cat sat so very great the cat sat so very great" for index in range(20)))
    table = DataTable(source=str(path), task="text", train=20, validation=4, test=4, max_tokens=8)
    data = finish(load_task(table, made("words")))
    assert len(data.train) == 20
    assert len(data.train.examples) == len(data.train.encoded)
    assert (data.longest, data.tokens_cut, data.answers) == (7, 0, ())


def test_a_row_that_gives_nothing_to_learn_is_named(films, made, monkeypatch):
    def encode(*_):
        raise UserError("there is no token to learn.")

    monkeypatch.setattr("sparsezo_gui.engine.data.prepare.encode", encode)
    with pytest.raises(UserError, match=r"90 of 90 rows .* no token to learn\. The .*: films\.jsonl, row 1, row 2"):
        finish(load_task(films, made("words")))


def test_text_blocks(tmp_path, made, films, monkeypatch):
    path = tmp_path / "stories.jsonl"
    path.write_text(
        "\n".join(json.dumps({"id": "x", "text": f"the cat sat so very great {index}"}) for index in range(50))
    )
    monkeypatch.setitem(resources.BUNDLED_TEXT, "stories", path)
    blocks = text_blocks("stories", made("words"), 5, 16)
    assert [len(block) for block in blocks] == [16] * 5
    assert blocks == text_blocks(str(path), made("words"), 5, 16, None)
    assert text_blocks("task", made("words"), 3, 8, films)[0][0] == 1
    with pytest.raises(UserError, match="needs the data table"):
        text_blocks("task", made("words"), 3, 8)
    with pytest.raises(UserError, match="There is no data file"):
        text_blocks("storiez", made("words"), 3, 8)
    path.write_text('{"number": 5}')
    with pytest.raises(UserError, match=r"no column contains text\. Columns: number"):
        text_blocks("stories", made("words"), 3, 8)


def test_preview(films, made):
    shown = preview(films, made("words"), page=1, page_size=7)
    assert shown.columns == ("sentence", "label", "id")
    assert [row[2] for row in shown.rows] == [str(index) for index in range(7, 14)]
    assert (shown.available, shown.totals) == (100, {"train": 40, "validation": 20, "test": 30})
    assert shown.columns_of == {"sentence": "sentence", "answer": "label"}
    assert shown.problem == ""
    assert shown.examples[0] == (
        ("<s>", False),
        ("the", False),
        (" cat", False),
        (" sat", False),
        (" It", False),
        (" was", False),
        (" great", True),
    )
    assert sum(shown.classes.values()) == 40
    assert sum(count for _, count in shown.lengths) == 90
    assert shown.lengths[-1][0] >= shown.longest_tokens == 9
    assert shown.cut > 0


def test_preview_without_a_tokenizer(films):
    shown = preview(films, page_size=2)
    assert shown.examples[0] == (("the cat sat It was", False), (" terrible", True))
    assert shown.lengths == ()


def test_the_tokens_of_a_preview_are_the_text(tmp_path, made):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"prompt": "the  cat 😀\nsat", "answer": "Yes or\n\nNo"}))
    table = DataTable(source=str(path), task="pairs", chat_template=False)
    for name, begin in (("byte_pairs", ""), ("metaspace", "<s>")):
        tokens = preview(table, made(name)).examples[0]
        assert "".join(text for text, _ in tokens) == f"{begin}the  cat 😀\nsat Yes or\n\nNo{made(name).eos_token}"
        assert "".join(text for text, trained in tokens if trained) == f" Yes or\n\nNo{made(name).eos_token}"


def test_a_preview_suggests_columns(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("ticket body,team label,number\nlate,shipping,1\nbroke,billing,2\nfree,billing,3\n")
    shown = preview(DataTable(source=str(path)))
    assert "no column for 'answer'" in shown.problem
    assert shown.suggestion == {"answer": "team label", "text": "ticket body"}
    assert shown.rows[0] == ("late", "shipping", "1")
    assert preview(DataTable(source=str(path), columns=shown.suggestion)).problem == ""


def test_a_preview_shows_rows_that_cannot_become_examples(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text,label\na,x\nb,\nc,y\n")
    shown = preview(DataTable(source=str(path)))
    assert "a.csv, row 2 (line 3): the column 'label' is empty" in shown.problem
    assert len(shown.rows) == 3


@pytest.mark.slow
def test_nothing_heavy_is_imported():
    heavy = "('torch', 'datasets', 'transformers', 'PySide6')"
    code = f"import sys, sparsezo_gui.engine.data; sys.exit(any(name in sys.modules for name in {heavy}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
