"""Which rows become examples: the seed of the splits, duplicates, and rows left out. Counts are known answers."""

import csv
import functools
import hashlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsezo_gui.engine import provenance
from sparsezo_gui.engine.data import load_rows, load_task, passages, preview, splits
from sparsezo_gui.engine.data.keys import by_content, by_index, name_of
from sparsezo_gui.engine.data.record import Record
from sparsezo_gui.recipe.recipe import SPLITS, DataTable
from sparsezo_gui.work import finish


@pytest.fixture
def table(tmp_path):
    """``table(rows, **settings)``: the data table of a file of rows, or of a folder of splits."""

    def made(rows, **settings):
        for old in tmp_path.glob("*.jsonl"):
            old.unlink()
        for name, part in rows.items() if isinstance(rows, dict) else [("all", rows)]:
            (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, part)))
        source = tmp_path if isinstance(rows, dict) else tmp_path / "all.jsonl"
        return DataTable(source=str(source), **settings)

    return made


def films(count, first=0):
    return [{"text": f"film {index}", "label": "ab"[index % 2]} for index in range(first, first + count)]


def texts(found):
    """The texts of each split, as rows or as examples."""
    return {split: [row.values["text"] for row in found[split]] for split in SPLITS}


def every(found):
    """The texts of all splits."""
    return {text for part in texts(found).values() for text in part}


def prompts(table):
    data = finish(load_task(table, None))
    return [[example.text for example in getattr(data, split).examples] for split in SPLITS], [
        notice.text for notice in data.notices
    ]


def named(*rows):
    return tuple(name_of(Record(row, "", 0)) for row in rows)


# The seed of the splits

AS_BEFORE = {  # rows of each split as sha256, from the version before splits had a seed
    ("all.jsonl", 1000, 500, 1000): ("f9209c91b1f1 46", "b24e746898eb 7", "51f665e49a61 12"),
    ("all.jsonl", 30, 10, 10): ("13786b143194 30", "f5bb768281cc 10", "995ff55bd4bb 10"),
    ("all.jsonl", 20, 0, 0): ("1a034989d844 20", "4f53cda18c2b 0", "4f53cda18c2b 0"),
    (".", 1000, 500, 1000): ("f9209c91b1f1 46", "c19f9215e0fb 19", "4fbabaa01d75 20"),
    (".", 30, 10, 10): ("13786b143194 30", "f5bb768281cc 10", "9733def5d3ff 10"),
    (".", 30, 0, 10): ("36e3aee0a84a 30", "4f53cda18c2b 0", "9733def5d3ff 10"),
}


@pytest.mark.parametrize("case", AS_BEFORE)
def test_without_a_seed_rows_are_where_they_were(tmp_path, case):
    rows = [{"text": f"text {i} é", "label": "ab"[i % 2], "n": i / 3} for i in range(60)]
    rows += [{"text": "again", "label": "a", "n": None}] * 5
    files = {"train": rows, "test": rows[:20]} if case[0] == "." else {"all": rows}
    for name, part in files.items():
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, part)))
    counts = dict(zip(SPLITS, case[1:], strict=True))
    found = load_rows(DataTable(source=str(tmp_path / case[0]), **counts)).values()
    contents = [json.dumps([row.values for row in part]).encode() for part in found]
    hashes = [hashlib.sha256(content).hexdigest()[:12] for content in contents]
    assert tuple(f"{each} {len(part)}" for each, part in zip(hashes, found, strict=True)) == AS_BEFORE[case]


def test_each_seed_splits_the_rows_differently_and_always_alike(table):
    rows = films(60) * 2
    found = {seed: texts(load_rows(table(rows, split_seed=seed))) for seed in (0, 1, 2, 2**63 - 1)}
    assert len({json.dumps(sorted(each["test"])) for each in found.values()}) == 4
    for seed, each in found.items():
        assert [len(part) for part in each.values()] == [84, 12, 24]
        parts = [set(part) for part in each.values()]
        assert sum(map(len, parts)) == 60 == len(set.union(*parts)), "equal rows stay in one split"
        assert texts(load_rows(table(rows[::-1], split_seed=seed))) == each


def test_what_comes_split_is_not_affected(table):
    """Nor is one file of which nothing is split off."""
    files = {"train": films(40), "validation": films(20, 40), "test": films(20, 60)}
    counts = {"train": 30, "validation": 10, "test": 10}
    assert texts(load_rows(table(files, **counts))) == texts(load_rows(table(files, **counts, split_seed=5)))
    part = table({name: files[name] for name in ("train", "test")}, **counts)
    found = [texts(load_rows(part.model_copy(update={"split_seed": seed}))) for seed in (0, 5)]
    assert found[0]["test"] == found[1]["test"] and found[0]["validation"] != found[1]["validation"]
    alone = {"train": 30, "validation": 0, "test": 0}
    assert texts(load_rows(table(films(60), **alone))) == texts(load_rows(table(films(60), **alone, split_seed=5)))


# Duplicates


def test_of_equal_rows_one_stays_and_others_take_their_places(table):
    rows = [*films(5) * 4, *films(15, 5)]
    kept = {"train": 12, "validation": 4, "test": 4}
    assert len(set(texts(load_rows(table(rows, **kept)))["train"])) < 12
    found = load_rows(table(rows, **kept, duplicates="remove"))
    assert [len(found[split]) for split in SPLITS] == [12, 4, 4]
    assert len({text for part in texts(found).values() for text in part}) == 20
    assert sum(part.repeats for part in found.values()) == 15
    assert finish(load_task(table(rows, **kept, duplicates="remove"), None)).notices[0].text == (
        "15 duplicates were removed: one of each stays, in test if it is there, else in validation or training."
    )


def test_no_row_moves_when_duplicates_are_removed(table):
    rows = films(12) * 8
    before, after = (texts(load_rows(table(rows, duplicates=each))) for each in ("keep", "remove"))
    assert {split: set(part) for split, part in before.items()} == {split: set(part) for split, part in after.items()}
    assert [len(part) for part in after.values()] == [8, 2, 2]


def test_what_is_in_several_splits_stays_in_the_one_that_results_are_measured_on(table):
    files = {"train": films(40), "validation": films(10, 35), "test": films(10, 30)}
    found = texts(load_rows(table(files, duplicates="remove")))
    assert set(found["test"]) == {f"film {index}" for index in range(30, 40)}
    assert set(found["validation"]) == {f"film {index}" for index in range(40, 45)}
    assert set(found["train"]) == {f"film {index}" for index in range(30)}
    few = texts(load_rows(table(files, train=20, validation=3, test=4, duplicates="remove")))
    assert [len(part) for part in few.values()] == [20, 3, 4], "others take their places"
    assert not set(few["train"]) & {*few["test"], *few["validation"]}


def test_examples_are_the_same_whatever_the_model_does_not_see(table):
    """A column that is not used, and how Unicode composes letters; another answer makes another example."""
    rows = [{**row, "id": index} for index, row in enumerate(films(10) * 2)]
    rows += [{"text": "film 1", "label": "a", "id": 20}, {"text": "cafe\u0301", "label": "a", "id": 21}]
    rows += [{"text": "caf\u00e9", "label": "a", "id": 22}]
    settings = {"validation": 0, "test": 0, "columns": {"answer": "label"}, "template": "{{ text }}"}
    (train, *_), told = prompts(table(rows, **settings))
    assert len(train) == 23 and any(text.startswith("11 of 23 examples are duplicates.") for text in told)
    assert preview(table(rows, **settings)).offer == "duplicates"
    (train, *_), told = prompts(table(rows, **settings, duplicates="remove"))
    assert len(train) == len(set(train)) == 12 and {"film 1 a", "film 1 b"} <= set(train)
    assert "11 duplicates were removed" in told[0] and not any("are duplicates" in text for text in told)
    assert preview(table(rows, **settings, duplicates="remove")).offer == ""


def test_examples_in_several_splits_stay_in_test(table, made):
    def part(first, last, column):
        return [{**row, column: index} for index, row in enumerate(films(last - first, first))]

    files = {"train": part(0, 20, "x"), "validation": part(15, 25, "y"), "test": part(18, 38, "z")}
    assert preview(table(files)).offer == "duplicates"
    for tokenizer in (None, made("byte_pairs")):
        data = finish(load_task(table(files, duplicates="remove"), tokenizer))
        assert [len(getattr(data, split)) for split in SPLITS] == [15, 3, 20]
        assert [notice.text.partition(":")[0] for notice in data.notices] == ["12 duplicates were removed"]


rows_of = st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from("xy"), st.integers(0, 2)), min_size=1)


@given(parts=st.tuples(rows_of, rows_of, rows_of))
@settings(max_examples=60)
def test_whatever_repeats_what_one_of_each_stays_where_it_is_kept_first(tmp_path, parts):
    files = dict(zip(SPLITS, parts, strict=True))
    files["train"] = [*files["train"], ("g", "x", 0), ("h", "y", 0)]  # two answers
    for name, part in files.items():
        rows = [{"text": text, "label": label, "id": number} for text, label, number in part]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    table = DataTable(source=str(tmp_path), template="{{ text }}", answers=("x", "y"), duplicates="remove")
    data = finish(load_task(table, None))
    expected: set[str] = set()
    for split in ("test", "validation", "train"):
        found = [example.text for example in getattr(data, split).examples]
        fresh = {f"{text} {label}" for text, label, _ in files[split]} - expected
        assert len(found) == len(fresh) and set(found) == fresh
        expected |= fresh


def test_long_texts_lose_the_parts_that_they_repeat(table, made):
    rows = [{"text": "the cat sat on the mat " * 30}, {"text": "the cat sat on the mat " * 30, "id": 1}, films(1)[0]]
    whole = {"task": "text", "validation": 0, "test": 0, "max_tokens": 24}
    before, after = (
        finish(load_task(table(rows, **whole, duplicates=each), made("words"))).train for each in ("keep", "remove")
    )
    assert len(set(before.encoded)) == len(after) == len(set(after.encoded)) < len(before)


def test_a_single_duplicate_among_many_is_no_notice(table):
    rows = [{**row, "id": index} for index, row in enumerate([*films(200), *films(1)])]
    assert prompts(table(rows, validation=0, test=0))[1] == []
    assert prompts(table(rows, validation=0, test=0, duplicates="remove"))[1][0].startswith("1 duplicate was removed")


def test_however_many_repeat_no_more_rows_are_held_than_wanted():
    """Of a million copies as of none: what is kept of a row that repeats another one is a count."""
    part = (Record({"text": index // 2 % 50}, "", index) for index in range(20_000))
    content = functools.partial(by_content, 0)
    groups, total = finish(splits.smallest(lambda: part, 30, by_content, content))
    assert (total, len(groups), sum(map(len, groups.places))) == (20_000, 30, 30)
    assert groups.repeats == [399] * 30 and len(groups.store) <= 50


@given(rows=st.lists(st.integers(0, 30), min_size=1, max_size=80), limit=st.integers(1, 40))
def test_rows_that_are_used_anyway_stay_beside_those_that_take_the_places(rows, limit):
    """Of a split with more rows than wanted, too: those with the smallest keys, of each its smallest."""
    part = [Record({"text": each}, "", index) for index, each in enumerate(rows)]
    before, _ = finish(splits.smallest(lambda: iter(part), limit, by_index))
    after, _ = finish(splits.smallest(lambda: iter(part), limit, by_index, functools.partial(by_content, 0)))
    first: dict[int, int] = {}
    for index, each in enumerate(rows, 1):
        first[each] = min(first.get(each, 2**64), by_index(index, part[0]))
    kept = [group[0].values["text"] for group in after]
    assert kept == sorted(first, key=first.get)[:limit]
    assert {group[0].values["text"] for group in before} <= set(kept)


# Rows that are left out


def test_a_row_left_out_moves_no_other(table):
    rows = films(60)
    before = texts(load_rows(table(rows)))
    gone = [rows[3], rows[17], next(row for row in rows if row["text"] == before["test"][0])]
    found = load_rows(table(rows, leave_out=named(*gone)))
    gone_texts = {row["text"] for row in gone}
    assert texts(found) == {split: [each for each in part if each not in gone_texts] for split, part in before.items()}
    data = finish(load_task(table(rows, leave_out=named(*gone)), None))
    assert [notice.text for notice in data.notices] == ["3 rows were left out."]


def test_a_row_is_left_out_wherever_it_stands(table, tmp_path):
    """In a sorted or longer file, beside an equal row, and in another format."""
    rows, names = films(30), named(films(30)[4])
    for other in (rows[::-1], [*films(9, 50), *rows], rows[2:]):
        assert "film 4" not in every(load_rows(table(other, leave_out=names)))
    twice = load_rows(table([*rows, rows[4]], leave_out=names))
    assert sum(map(len, twice.values())) == 29 and twice["train"].left_out.count == 2
    with (tmp_path / "all.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["label", "text"])
        writer.writeheader()
        writer.writerows(rows)
    source = DataTable(source=str(tmp_path / "all.csv"), leave_out=names)
    assert "film 4" not in every(load_rows(source))


def test_a_row_that_changed_is_back_and_told(table):
    rows, names = films(30), named(*films(3))
    rows[1]["text"] = "film 1, corrected"
    data = finish(load_task(table(rows, leave_out=names), None))
    assert sum(len(getattr(data, split)) for split in SPLITS) == 28
    assert [(notice.text, notice.level) for notice in data.notices] == [
        ("2 rows were left out.", "info"),
        ("1 of the rows to leave out is not in the data: it was removed, or changed and is used again.", "warning"),
    ]


def test_rows_of_every_file_are_left_out(table):
    files = {"train": films(20), "validation": films(5, 20), "test": films(5, 25)}
    found = load_rows(table(files, leave_out=named(*films(1), *films(2, 20), *films(1, 29))))
    assert [len(found[split]) for split in SPLITS] == [19, 3, 4] and found["train"].left_out.count == 4


def test_rows_of_nested_lists_are_left_out_one_by_one(table):
    def article(index):
        questions = [{"question": f"q{index}.{j}", "answers": [{"text": "a"}]} for j in range(4)]
        return {"title": f"t{index}", "paragraphs": [{"context": f"c{index}", "qas": questions}]}

    whole = table([article(index) for index in range(10)], task="squad")
    shown = preview(whole)
    less = preview(whole.model_copy(update={"leave_out": (shown.names[5],)}))
    assert (sum(shown.totals.values()), sum(less.totals.values())) == (40, 39)
    assert less.names == shown.names and [(name, "q1.1" in text) for name, text in less.left_out_rows] == [
        (shown.names[5], True)
    ]


def test_a_preview_names_its_rows_and_shows_those_that_are_left_out(table):
    rows = films(60)
    shown = preview(table(rows, leave_out=named(rows[1], rows[55])))
    assert len(shown.rows) == 50 and shown.names == named(*rows[:50])
    assert shown.left_out_rows == ((shown.names[1], "film 1 · b"), (named(rows[55])[0], "film 55 · b"))
    assert len(shown.examples) == 49 and "film 1 " not in "".join(text for each in shown.examples for text, _ in each)
    assert sum(shown.totals.values()) == 58


def test_all_rows_left_out(table):
    shown = preview(table(films(3), leave_out=named(*films(3))))
    assert shown.problem.startswith("All training rows are left out. Put some back on the Data page") and shown.rows
    assert len(shown.left_out_rows) == 3 and shown.columns == ("text", "label")


@pytest.mark.parametrize("column", [{}, {"id": 1}], ids=["equal rows", "equal examples"])
def test_all_training_examples_are_those_of_a_test(table, column):
    files = {"train": films(4), "test": [{**row, **column} for row in films(6)]}
    assert preview(table(files, duplicates="remove")).problem.startswith("All training examples are also in the test")


# What follows from the rows

CHOICES = {
    "seed": {"split_seed": 1},
    "duplicates": {"duplicates": "remove"},
    "left out": {"leave_out": named(films(1)[0])},
}


@pytest.mark.parametrize("choice", CHOICES.values(), ids=CHOICES)
def test_a_choice_is_another_data_set(table, made, choice):
    """To a run that is resumed, by its recipe and by its examples."""
    rows = films(40) * 2
    before, after = table(rows, template="{{ text }}"), table(rows, template="{{ text }}", **choice)
    hashes = [provenance.of_data(finish(load_task(each, made("byte_pairs"))), each) for each in (before, after, after)]
    assert hashes[0]["train"] != hashes[1]["train"] and hashes[1] == hashes[2]
    assert hashes[0]["template"] == hashes[1]["template"]


@pytest.mark.parametrize("choice", CHOICES.values(), ids=CHOICES)
@pytest.mark.parametrize("text", ["task", "answers"])
def test_a_mask_reads_the_rows_that_are_learned(table, made, choice, text):
    """And is kept under a hash of them."""
    rows = [*films(6) * 2, *({**row, "id": 1} for row in films(6))]
    before, after = (table(rows, template="{{ text }}", **each) for each in ({}, choice))
    tokenizer = made("byte_pairs")
    found = [passages(text, tokenizer, 100, 64, each) for each in (before, after)]
    assert found[0] != found[1]
    if text == "answers":
        data = finish(load_task(after, tokenizer))
        assert len(found[1]) == len(data.train)
