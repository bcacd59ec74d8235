"""What is said of data before it is learned: gaps, labels, templates, duplicates, lengths. Counts are known answers."""

import copy
import json
import unicodedata

import pytest

from sparsezo_gui.engine.data import load_task, passages, preview, text_blocks
from sparsezo_gui.engine.pretrained.limits import BeyondModel, Limits
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe.recipe import DataTable
from sparsezo_gui.work import finish
from tests.engine.data.conftest import CHATML


@pytest.fixture
def table(tmp_path):
    """``table(rows, **settings)``: the data table of rows, or of splits of rows, all of which are used."""

    def made(rows, **settings):
        parts = rows if isinstance(rows, dict) else {"train": rows}
        for old in tmp_path.glob("*.*"):
            old.unlink()
        for name, part in parts.items():
            text = "\n".join(part) if isinstance(part[0], str) else "\n".join(map(json.dumps, part))
            suffix = "csv" if isinstance(part[0], str) else "jsonl"
            (tmp_path / f"{name}.{suffix}").write_text(text)
        counts = {name: 1000 if name in parts else 0 for name in ("train", "validation", "test")}
        return DataTable(source=str(tmp_path), **{**counts, **settings})

    return made


def said(table, tokenizer=None, limits=None):
    return [notice.text for notice in finish(load_task(table, tokenizer, limits)).notices]


def refused(table, tokenizer=None, limits=None):
    with pytest.raises(UserError) as error:
        finish(load_task(table, tokenizer, limits))
    return error.value


def labelled(count=24, label=lambda index: "ab"[index % 2]):
    return ["text,label", *(f"t {index},{label(index)}" for index in range(count))]


def test_data_in_order_needs_no_word(table, made):
    assert said(table(labelled())) == said(table(labelled()), made("byte_pairs")) == []


# Gaps


def test_gaps_are_counted_and_the_first_in_the_file_named(table, made):
    gaps = table(labelled(24, lambda index: "" if index % 3 == 2 else "ab"[index % 2]))
    for tokenizer in (None, made("words")):
        assert str(refused(gaps, tokenizer)) == (
            "8 of 24 rows have gaps: the column 'label' is empty. The first in the file: train.csv, row 3 (line 4), "
            "row 6 (line 7) and row 9 (line 10). Fill them in, or leave them out: [data] leave_out_gaps = true (in "
            "the terminal: --set data.leave_out_gaps=true)."
        )
    shown = preview(gaps, made("words"))
    assert shown.problem == str(refused(gaps)) and shown.offer == "leave_out_gaps"


def test_gaps_are_left_out_on_request(table, made):
    rows = labelled(24, lambda index: "" if index % 3 == 2 else "ab"[index % 2])
    gaps = table(rows, leave_out_gaps=True)
    data = finish(load_task(gaps, made("byte_pairs")))
    assert len(data.train) == 16
    assert [notice.text for notice in data.notices] == ["8 rows with gaps were left out: the column 'label' is empty."]
    shown = preview(gaps, made("byte_pairs"))
    assert (shown.problem, shown.offer, len(shown.examples)) == ("", "", 16)
    assert shown.notices == data.notices


def test_gaps_of_several_kinds(table):
    pairs = [{"prompt": f"p {index}", "completion": f"c {index}"} for index in range(10)]
    pairs[1]["completion"] = pairs[2]["completion"] = ""
    pairs[4]["prompt"] = None
    assert "3 of 10 rows have gaps: the column 'completion' is empty (2), the column 'prompt' is empty (1)" in str(
        refused(table(pairs, task="pairs"))
    )


def test_a_single_gap(table):
    rows = labelled(5, lambda index: "" if index == 2 else "ab"[index % 2])
    assert str(refused(table(rows))).startswith(
        "train.csv, row 3 (line 4): the column 'label' is empty. Fill it in, or"
    )


def test_other_faults_are_told_together(table):
    rows = labelled(10, lambda index: {3: "c", 5: "d", 6: "c", 8: "c"}.get(index, "ab"[index % 2]))
    lines = refused(table(rows, answers=("a", "b"))).args
    assert lines[0] == "4 of 10 rows cannot become examples. The first in the file:"
    assert [line.split(":")[0] for line in lines[1:4]] == [
        f"train.csv, row {row} (line {row + 1})" for row in (4, 6, 7)
    ]
    assert lines[4] == "2 labels are not among the answers: 'c' (3), 'd' (1)."


def test_faults_without_end_are_not_all_looked_for(table, monkeypatch):
    monkeypatch.setattr("sparsezo_gui.engine.data.faults.MOST", 5)
    gaps = table(labelled(100, lambda index: "" if index > 1 else "ab"[index]))
    assert str(refused(gaps)).startswith("At least 5 rows have gaps: the column 'label' is empty.")


def test_rows_on_which_a_template_fails_are_told_together(table):
    rows = [{"n": "x" if index in (2, 5, 7) else index, "label": "ab"[index % 2]} for index in range(10)]
    lines = refused(table(rows, template="{{ 1 + row.n }}")).args
    assert lines[0] == "3 of 10 rows cannot become examples. The first in the file:"
    assert [line.split(": ")[1] for line in lines[1:]] == [f"fails on train.jsonl, row {row}" for row in (3, 6, 8)]


def test_faults_that_take_long_are_not_all_looked_for(table, monkeypatch):
    monkeypatch.setattr("sparsezo_gui.engine.data.faults.SECONDS", -1.0)
    assert str(refused(table(labelled(9, lambda index: "ab"[index] if index < 2 else "")))).startswith("train.csv, row")


def test_a_fault_of_no_row_is_told_at_once(table):
    chat = [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}] * 3
    with pytest.raises(UserError, match=r"^This model has no chat template"):
        finish(load_task(table(chat, task="chat"), object()))


# Labels


CASES = ["Spam", "ham", "spam ", " Ham", "SPAM", "ham"]


def test_labels_by_case_are_counted(table):
    rows = labelled(60, lambda index: CASES[index % 6])
    (text,) = said(table(rows))
    assert (
        "only in case, in spaces, or as 1 and 1.0 are different answers: "
        "'ham' (20), 'Ham' (10); 'spam' (10), 'Spam' (10), 'SPAM' (10)." in text
    )
    assert "--set data.merge_labels=true" in text
    shown = preview(table(rows))
    assert shown.offer == "merge_labels" and len(shown.classes) == 5


def test_labels_are_merged_on_request(table):
    data = finish(load_task(table(labelled(60, lambda index: CASES[index % 6]), merge_labels=True), None))
    assert data.answers == ("ham", "spam")
    assert "were merged: " in data.notices[0].text
    assert preview(table(labelled(60, lambda index: CASES[index % 6]), merge_labels=True)).classes == {
        "ham": 30, "spam": 30,
    }  # fmt: skip


def test_numbers_that_are_alike(table):
    rows = labelled(60, lambda index: ["0", "1", "0.0", "1.0"][index % 4])
    assert "'0' (15), '0.0' (15); '1' (15), '1.0' (15)" in said(table(rows))[0]
    assert finish(load_task(table(rows, merge_labels=True), None)).answers == ("0", "1")


@pytest.mark.parametrize(
    ("words", "alike"),
    [
        (("True", "true", "TRUE"), True), (("café", "cafe\u0301"), True), (("not spam", "not  spam"), True),
        (("a\u200b", "a"), True), (("a\u00a0b", "a b"), True), (("1", "1."), True), (("0.5", "0.50"), True),
        (("1", "10"), False), (("01", "1"), False), (("yes", "yes."), False), (("1.2.0", "1.2"), False),
    ],
)  # fmt: skip
def test_what_is_alike(words, alike):
    from sparsezo_gui.engine.data.labels import alike as key

    assert (len(set(map(key, words))) == 1) == alike


def test_a_label_that_is_like_two_answers_is_neither(table):
    rows = labelled(4, lambda index: ["Yes", "yes", "no", "YES"][index])
    assert "the label 'YES'" in str(refused(table(rows, answers=("Yes", "yes", "no"))))
    assert finish(load_task(table(rows, answers=("yes", "no")), None)).train.examples[3].label == 0


def test_one_class_only(table):
    assert "all rows with a label in the column 'label' have 'a'" in str(refused(table(labelled(9, lambda _: "a"))))
    (text,) = said(table(labelled(9, lambda _: "a"), answers=("a", "b")))
    assert text.startswith("All 9 training examples have the answer 'a'")
    (text,) = said(table(labelled(9), answers=("a", "b", "c")))
    assert text == "1 of 3 answers has no training example: 'c'."


# Templates


@pytest.mark.parametrize("written", ["{text}", "{ text }", "{text!r}", "{text:>9}", "${text}", "$text", "%(text)s"])
def test_a_template_of_another_language_is_refused(table, written):
    assert str(refused(table(labelled(), template=f"{written} => {{label}}"))) == (
        "[data] template: it uses no column, so all rows would have the same prompt. "
        f"'{written}' is plain text here. Did you mean '{{{{ text }}}}'? Columns: text, label."
    )


def test_a_template_without_a_column_is_refused(table):
    assert "it uses no column" in str(refused(table(labelled(), template="Is it good?")))
    assert "it uses no column" in str(refused(table(labelled(), template="{{ 'text' }}")))


def test_a_column_in_single_braces_beside_a_real_one(table):
    assert (
        "'{label}' is plain text, the same in all prompts. Did you mean '{{ label }}'?"
        in said(table(labelled(), template="{{ text }} => {label}"))[0]
    )
    for fine in (
        '{"label": "a"} {{ text }}',
        "\\boxed{label} {{ text }}",
        "{{ '{label}' }} {{ text }}",
        "{x} {{ text }}",
    ):
        assert said(table(labelled(), template=fine)) == []


def test_a_prompt_that_holds_the_answer(table):
    found = said(table(labelled(), columns={"text": "label"}))
    assert found[0].startswith("The prompt contains the answer column 'label', so the model reads the answer")
    for name in ("label", "answer"):
        assert (
            "The prompt contains the answer column 'label'"
            in said(table(labelled(), template=f"{{{{ text }}}} {{{{ {name} }}}}"))[0]
        )


def test_identical_prompts_are_counted(table, made):
    rows = ["text,kind,label", *(f"t {index},{index % 3},{'ab'[index % 2]}" for index in range(60))]
    one = table(rows, template="{{ kind }}:")
    for tokenizer in (None, made("byte_pairs")):
        text, same = said(one, tokenizer)
        assert text.startswith(
            "57 of 60 training prompts repeat another one, 3 of them with a different answer; 3 are distinct."
        )
        assert same.startswith("54 of 60 examples are duplicates.")


def test_one_prompt_for_all_is_refused(table):
    rows = ["text,kind,label", *(f"t {index},x,{'ab'[index % 2]}" for index in range(60))]
    assert "All 60 training examples have the same prompt" in str(refused(table(rows, template="{{ kind }}:")))
    pairs = [{"prompt": "Write.", "completion": f"c {index}"} for index in range(20)]
    assert "19 of 20 training prompts repeat another one" in said(table(pairs, task="pairs"))[0]


# Answers, splits and lengths


def test_empty_answers_are_counted(table, made):
    turns = [
        {"messages": [{"role": "user", "content": f"hi {n}"}, {"role": "assistant", "content": f"hey {n}" * (n % 2)}]}
        for n in range(10)
    ]
    chat = table(turns, task="chat")
    assert said(chat, made("byte_pairs"))[0].startswith(
        "5 of 10 training examples have an empty answer, which trains the model to say nothing: train.jsonl, row 1, "
        "row 3 and row 5."
    )
    left = finish(load_task(chat.model_copy(update={"leave_out_gaps": True}), made("byte_pairs")))
    assert len(left.train) == 5
    assert [notice.text for notice in left.notices] == ["5 rows with gaps were left out: the answer is empty."]


def test_an_empty_answer_after_an_empty_thought_is_one(table, made):
    thinks = copy.deepcopy(made("byte_pairs"))
    thinks.chat_template = CHATML.replace("{{ m.content }}", "{{ m.role }}<think>\n\n</think>\n\n{{ m.content }}")
    rows = [{"prompt": [{"role": "user", "content": f"p {n}"}], "completion": [
        {"role": "assistant", "content": "" if n < 2 else f"c {n}"}]} for n in range(6)]  # fmt: skip
    assert said(table(rows, task="pairs"), thinks)[0].startswith("2 of 6 training examples have an empty answer")


def test_answers_that_are_cut_are_told(table, made):
    rows = [{"prompt": f"p {n}", "completion": f"c {n} " * (40 if n < 3 else 1)} for n in range(6)]
    told = said(table(rows, task="pairs", max_tokens=16), made("words"))
    assert "3 examples lose tokens of the answer, too." in told[-1]
    rows = [{"prompt": f"p {n} " * 40, "completion": f"c {n}"} for n in range(6)]
    assert "lose" not in said(table(rows, task="pairs", max_tokens=16), made("words"))[0]


def test_empty_answers_of_a_preference(table, made):
    rows = [
        {"prompt": f"p {n}", **{part: [{"role": "assistant", "content": f"{part} {n}" * (n > 1)}] for part in parts}}
        for n in range(6) for parts in [("chosen", "rejected")]
    ]  # fmt: skip
    rows[1]["chosen"], rows[0]["rejected"] = ([{"role": "assistant", "content": "a"}] for _ in range(2))
    assert said(table(rows, task="preference"), made("byte_pairs"))[0].startswith("2 of 6 training examples have an em")


def test_one_answer_for_all(table):
    rows = [{"prompt": f"p {index}", "completion": "I am not sure."} for index in range(20)]
    assert said(table(rows, task="pairs")) == [
        "All 20 training examples have the same answer, so the model learns to always give it."
    ]


def test_an_empty_turn_among_others(table, made):
    turns = [
        {"role": role, "content": text}
        for role, text in zip(["user", "assistant"] * 2, ["a", "", "b", "c"], strict=True)
    ]
    rows = [{"messages": [*turns[:2], *turns[2:]]}, {"messages": turns[2:]}]
    assert said(table(rows, task="chat"), made("byte_pairs"))[0].startswith("1 of 2 training examples has an empty")


def test_duplicates_across_splits_are_counted(table, made):
    def part(first, count):
        return [{"text": f"t {index}", "label": "ab"[index % 2]} for index in range(first, first + count)]

    splits = {"train": part(0, 20), "validation": part(15, 10), "test": part(18, 20)}
    for tokenizer in (None, made("byte_pairs")):
        *texts, cure = said(table(splits), tokenizer)
        assert cure == (
            "12 of 50 examples are duplicates. To remove them, set [data] duplicates = 'remove' (in the terminal: "
            "--set data.duplicates=remove)."
        )
        assert [text.partition(",")[0] for text in texts] == [
            "5 of 10 validation examples are also in the training split",
            "2 of 20 test examples are also in the training split",
            "7 of 20 test examples are also in the validation split",
        ]


def test_texts_that_differ_in_how_unicode_composes_letters_are_the_same(table, made):
    def part(form, last):
        return [{"text": unicodedata.normalize(form, f"été {n}, où {last}"), "label": "ab"[n % 2]} for n in range(20)]

    splits = {"train": [*part("NFC", "a"), *part("NFD", "a")], "test": [*part("NFD", "a"), *part("NFC", "b")]}
    for tokenizer in (None, made("byte_pairs")):
        twice, there, same = said(table(splits), tokenizer)
        assert same.startswith("40 of 80 examples are duplicates.")
        assert twice.startswith("20 of 40 training prompts repeat another one with the same answer")
        assert there.startswith("20 of 40 test examples are also in the training split")
    rows = [{"prompt": f"p {n}", "completion": unicodedata.normalize(("NFC", "NFD")[n % 2], "né")} for n in range(20)]
    assert "have the same answer" in said(table(rows, task="pairs"))[0]


def test_repeated_texts_are_counted(table):
    (told,) = said(table([{"text": f"t {index % 5}"} for index in range(20)], task="text"))
    assert told.startswith("15 of 20 examples are duplicates. To remove them, set")


def test_what_is_cut_is_told(table, made):
    rows = [{"text": f"{index} " + "the cat sat " * 9, "label": "ab"[index % 2]} for index in range(4)]
    (text,) = said(table(rows, max_tokens=16), made("words"))[-1:]
    assert text.startswith("4 examples were longer than 16 tokens;")


def test_examples_beyond_the_positions_of_the_model(table, made, tmp_path):
    rows = [
        {"text": f"{index} " + "the cat sat " * (9 if index == 2 else 1), "label": "ab"[index % 2]}
        for index in range(4)
    ]
    fixed = Limits(tmp_path, 1000, positions=16, fixed=True)
    assert str(refused(table(rows), made("words"), fixed)) == (
        "1 example is longer than the 16 tokens that the model has positions for (the longest: 31). "
        "Set [data] max_tokens = 16."
    )
    assert (
        "1 example is longer than the 16 tokens that the model was made for (the longest: 31)"
        in said(table(rows), made("words"), Limits(tmp_path, 1000, positions=16))[-1]
    )
    cut = table(rows, max_tokens=16)
    assert finish(load_task(cut, made("words"), fixed)).truncated == 1


def test_a_token_that_the_model_does_not_know(table, made, tmp_path):
    error = refused(table([{"text": "the cat very", "label": x} for x in "ab"]), made("words"), Limits(tmp_path, 11))
    assert isinstance(error, BeyondModel)
    assert (
        "contains the token 'very' (number 11), which the model lacks: the tokenizer has 12 tokens, and the model"
        in str(error)
    )


def test_gaps_that_are_left_out_give_no_text_for_a_mask(table, made):
    rows = labelled(24, lambda index: "" if index % 3 == 2 else "ab"[index % 2])
    for source, find in (("task", text_blocks), ("answers", passages)):
        with pytest.raises(UserError, match="the column 'label' is empty"):
            find(source, made("byte_pairs"), 30, 8, table(rows))
        assert find(source, made("byte_pairs"), 30, 8, table(rows, leave_out_gaps=True))


@pytest.mark.parametrize("value", [[], "", "  ", None])
def test_every_kind_of_empty_cell_is_a_gap(table, made, value):
    for task, part, row in (
        ("pairs", "completion", {"prompt": "p", "completion": "c"}),
        ("chat", "messages", {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}),
        ("preference", "chosen", {"prompt": "p", "chosen": "c", "rejected": "r"}),
        ("text", "text", {"text": "t"}),
    ):
        if value == [] and task == "text":  # is refused as no text
            continue
        rows = [row, {**row, part: value}, {**row, part: value}]
        assert "2 of 3 rows have gaps" in str(refused(table(rows, task=task), made("byte_pairs"))), task
        assert len(finish(load_task(table(rows, task=task, leave_out_gaps=True), made("byte_pairs"))).train) == 1
