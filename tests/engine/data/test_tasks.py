"""Every built-in task on a row made by hand, against the prompt in appendix E of MeZO (arXiv 2305.17333)."""

import json

import pytest

from sparsezo_gui.engine.data import task, tasks
from sparsezo_gui.engine.data.examples import maker
from sparsezo_gui.engine.data.readers import Record
from sparsezo_gui.engine.data.splits import Rows, explode
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe.metrics import deciding, functions
from sparsezo_gui.recipe.recipe import DataTable
from tests.engine.data.conftest import byte_pairs, words


def made(name, *rows, tokenizer=None, **table):
    """Examples of rows under a task."""
    unfolded = [
        row
        for index, values in enumerate(rows, 1)
        for row in explode(Record(values, "a.jsonl", index), task(name).explode)
    ]
    make = maker(DataTable(task=name, source="a.jsonl", **table), {"train": Rows(tuple(unfolded))}, tokenizer)
    return [make.example(row) for row in unfolded]


CHOICES = {
    "sst2": (
        {"sentence": "a fine film ", "label": "1"},
        ["a fine film It was terrible", "a fine film It was great"],
        1,
    ),
    "rte": (
        {"premise": "It rains.", "hypothesis": "It is wet.", "label": "not_entailment"},
        [
            'It rains.\nDoes this mean that "It is wet." is true? Yes or No?\nYes',
            'It rains.\nDoes this mean that "It is wet." is true? Yes or No?\nNo',
        ],
        1,
    ),
    "cb": (
        {"premise": "It rains.", "hypothesis": "It is wet.", "label": 2},
        [
            'Suppose It rains. Can we infer that "It is wet."? Yes, No, or Maybe?\nYes',
            'Suppose It rains. Can we infer that "It is wet."? Yes, No, or Maybe?\nNo',
            'Suppose It rains. Can we infer that "It is wet."? Yes, No, or Maybe?\nMaybe',
        ],
        2,
    ),
    "boolq": (
        {"passage": "Rain is water.", "question": "is rain wet", "label": True},
        ["Rain is water. Is rain wet? Yes", "Rain is water. Is rain wet? No"],
        0,
    ),
    "wsc": (
        {"text": "Ann saw Bea; She waved.", "span1_text": "Ann", "span2_text": "She", "label": 1},
        [
            'Ann saw Bea; She waved.\nIn the previous sentence, does the pronoun "she" refer to Ann? Yes or No?\nNo',
            'Ann saw Bea; She waved.\nIn the previous sentence, does the pronoun "she" refer to Ann? Yes or No?\nYes',
        ],
        1,
    ),
    "wic": (
        {"word": "class", "sentence1": "A class.", "sentence2": "Real class.", "label": False},
        [
            'Does the word "class" have the same meaning in these two sentences? Yes, No?\nA class.\nReal class.\nNo',
            'Does the word "class" have the same meaning in these two sentences? Yes, No?\nA class.\nReal class.\nYes',
        ],
        0,
    ),
    "multirc": (
        {"paragraph": "It rained.", "question": "What fell?", "answer": "rain", "label": 1},
        [
            'It rained.\nQuestion: What fell?\nI found this answer "rain". Is that correct? Yes or No?\nNo',
            'It rained.\nQuestion: What fell?\nI found this answer "rain". Is that correct? Yes or No?\nYes',
        ],
        1,
    ),
    "copa": (
        {"premise": "The man fell.", "question": "cause", "choice1": "I saw it.", "choice2": "He ran.", "label": 1},
        ["The man fell because I saw it.", "The man fell because he ran."],
        1,
    ),
    "record": (
        {
            "passage": "Rain in Rome.\n@highlight\nIt is wet",
            "query": "The rain in @placeholder falls",
            "entities": ["Paris", "Rome", "Rome"],
            "answers": ["Rome", "Rome"],
        },
        [
            "Rain in Rome.\n- It is wet\n- The rain in Paris falls",
            "Rain in Rome.\n- It is wet\n- The rain in Rome falls",
        ],
        1,
    ),
}


@pytest.mark.parametrize("name", CHOICES)
def test_choices_of_the_paper(name):
    row, sequences, label = CHOICES[name]
    (example,) = made(name, row)
    ((prompt, trained),) = example.segments
    assert [prompt + choice for choice in example.choices] == sequences
    assert (example.label, trained) == (label, False)
    assert not prompt.endswith(" ")


SQUAD = "Title: Rain\nContext: Rain is water.\nQuestion: What is rain?\nAnswer:"


@pytest.mark.parametrize(
    ("name", "row", "prompt", "answer"),
    [
        (
            "squad",
            {
                "title": "Rain",
                "context": "Rain is water.",
                "question": " What is rain?",
                "answers": {"text": ["water", "wet"], "answer_start": [8, 0]},
            },
            SQUAD,
            " water\n",
        ),
        (
            "squad",
            {
                "title": "Rain",
                "context": "Rain is water.",
                "question": "What is rain?",
                "answers": {"text": [], "answer_start": []},
            },
            SQUAD,
            " no answer\n",
        ),
        (
            "squad",
            {"context": "Rain is water.", "question": "What is rain?", "answers": "water"},
            SQUAD.removeprefix("Title: Rain\n"),
            " water\n",
        ),
        (
            "drop",
            {
                "passage": "Two and two.",
                "question": "How many?",
                "answers_spans": {"spans": ["4", "four"], "types": ["number", "span"]},
            },
            "Passage: Two and two.\nQuestion: How many?\nAnswer:",
            " 4\n",
        ),
        ("pairs", {"prompt": "2 + 2 =", "answer": 4}, "2 + 2 =", " 4"),
        ("pairs", {"instruction": "Add.", "input": "2 2", "output": "4"}, "Add.\n2 2", " 4"),
        ("pairs", {"instruction": "Add.", "input": "", "output": "4"}, "Add.", " 4"),
        ("pairs", {"input": "Add.", "output": "4"}, "Add.", " 4"),
    ],
)
def test_completions(name, row, prompt, answer):
    (example,) = made(name, row)
    assert example.segments == ((prompt, False), (answer, True))
    assert example.references[0] == answer.strip()
    assert not example.choices


def test_nested_files_of_squad_and_superglue():
    article = {
        "title": "Rain",
        "paragraphs": [
            {
                "context": "Rain is water.",
                "qas": [
                    {"question": "What is rain?", "answers": [{"text": "water", "answer_start": 8}]},
                ],
            }
        ],
    }
    assert made("squad", article)[0].segments[0][0] == SQUAD
    passage = {
        "passage": {
            "text": "It rained.",
            "questions": [
                {"question": "What fell?", "answers": [{"text": "rain", "label": 1}, {"text": "snow", "label": 0}]}
            ],
        }
    }
    assert [example.label for example in made("multirc", passage)] == [1, 0]
    wsc = {"text": "Ann saw it.", "target": {"span1_text": "Ann", "span2_text": "it"}, "label": False}
    assert '"it" refer to Ann' in made("wsc", wsc)[0].segments[0][0]


def test_text():
    assert made("text", {"text": "once upon a time"})[0].segments == (("once upon a time", True),)


def test_choice_with_the_users_prompt():
    rows = [{"text": "late", "label": "shipping"}, {"text": "broke", "label": "billing"}]
    template = "Customer: {{ text }}\nTeam:"
    first, second = made("choice", *rows, template=template, columns={"answer": "label"})
    assert first.segments == (("Customer: late\nTeam:", False),)
    assert first.choices == second.choices == (" billing", " shipping")
    assert (first.label, second.label) == (1, 0)


def test_answers_by_number_or_by_name():
    rows = [{"text": "a", "label": 1}, {"text": "b", "label": "0"}, {"text": "c", "label": "Good"}]
    assert [example.label for example in made("choice", *rows, answers=("bad", "good"))] == [1, 0, 1]
    assert [example.label for example in made("choice", *rows[:2], answers=("1", "0"))] == [0, 1]


def test_answers_of_a_task_can_be_worded_anew():
    (example,) = made("sst2", {"sentence": "fine", "label": 1}, answers=("{{ bad }}", "good"))
    assert (example.choices, example.label) == ((" {{ bad }}", " good"), 1)


def test_a_space_at_the_end_of_a_prompt_goes_to_the_answer():
    (example,) = made("choice", {"text": "a", "label": "x"}, template="{{ text }}: ", answers=("x", "y"))
    assert example.segments == (("a:", False),)
    assert example.choices == (" x", " y")


def test_columns_are_found_whatever_the_case_of_their_letters():
    rows = [{"Text": "Fine", "LABEL": "good", "text ": "no"}, {"Text": "Poor", "LABEL": "bad", "text ": "no"}]
    assert [example.text for example in made("choice", *rows)] == ["Fine\nAnswer: good", "Poor\nAnswer: bad"]
    exact = [{"Text": "no", "text": word, "label": word} for word in ("a", "b")]
    assert made("choice", *exact)[0].text == "a\nAnswer: a"


def test_columns_can_be_named_with_dots_and_spaces():
    row = {"the text": "a", "meta": {"kind": "x"}}
    (example,) = made(
        "choice", row, template="{{ row['the text'] }} is", columns={"answer": "meta.kind"}, answers=("x", "y")
    )
    assert example.segments == (("a is", False),)


FINE = {"text": "a", "label": "x"}


@pytest.mark.parametrize(
    ("rows", "table", "sentence"),
    [
        (
            [FINE],
            {"template": "{{ txt }}"},
            "there is no column 'txt'. Columns: text, label. Did you mean 'text'",
        ),
        ([FINE], {"template": "{{ text"}, r"\[data\] template, line 1: .*Write a column as \{\{ column \}\}"),
        (
            [FINE],
            {"template": "{{ text.__class__.__mro__ }}"},
            "row 1: '__class__' cannot be read from a template",
        ),
        (
            [FINE],
            {"template": "{{ text.nothing }}"},
            "fails on a.jsonl, row 1: a value has no part 'nothing'",
        ),
        ([FINE], {"template": "{{ 1 / 0 }}{{ text }}"}, "template: fails on a.jsonl, row 1: it divides by zero"),
        (
            [FINE],
            {"columns": {"answer": "lable"}},
            "no column 'lable'.*Columns: text, label. Did you mean 'label'",
        ),
        ([FINE], {"columns": {"answr": "label"}}, "has no part 'answr'. Did you mean 'answer'"),
        ([{"body": "a", "label": "x"}], {}, "no column for 'text' .*Columns: body, label"),
        ([FINE, {"text": " ", "label": "x"}], {}, "a.jsonl, row 2: the column 'text' is empty"),
        ([FINE, {"text": "b", "label": None}], {}, "a.jsonl, row 2: the column 'label' is empty"),
        ([FINE, {"label": "x"}], {}, "a.jsonl, row 2: the column 'text' is empty"),
        ([FINE, {"text": "b", "label": "z"}], {}, "a.jsonl, row 2: the label 'z' .* is not among the answers: .*x.*y"),
        ([FINE], {"answers": ("x",)}, "at least two different answers"),
        ([FINE], {"answers": ("x", "x ")}, "at least two different answers"),
        ([FINE], {"answers": ()}, "at least two different answers"),
        ([{"text": "a", "label": index} for index in range(101)], {"answers": ()}, "101 different values"),
        ([FINE], {"template": "{% if nothing %}{{ text }}{% endif %}"}, "row 1: the prompt is empty"),
        ([{"text": "half \ud800", "label": "x"}], {}, "row 1: the text holds half of a character"),
    ],
)
def test_faults(rows, table, sentence):
    with pytest.raises(UserError, match=sentence):
        made("choice", *rows, **{"answers": ("x", "y"), **table})


@pytest.mark.parametrize(
    ("name", "row", "table", "sentence"),
    [
        ("sst2", {"sentence": "a", "label": 2}, {}, "the label '2' .* not among the answers: 0, 1, negative, positive"),
        ("sst2", {"sentence": "a", "label": 1}, {"answers": ("a", "b", "c")}, r"has 2 \(terrible, great\), not 3"),
        ("pairs", {"prompt": "a", "answer": "b"}, {"answers": ("a", "b")}, "has no fixed answers"),
        ("pairs", {"prompt": "a", "answer": []}, {}, "row 1: there is no answer in the column 'answer'"),
        ("record", {**CHOICES["record"][0], "answers": ["Oslo"]}, {}, "'Oslo'.* not among"),
        ("chat", {"messages": []}, {"template": "{{ messages }}"}, "the model's own chat template"),
    ],
)
def test_faults_of_other_tasks(name, row, table, sentence):
    with pytest.raises(UserError, match=sentence):
        made(name, row, **table)


def test_no_such_task():
    with pytest.raises(UserError, match=r"there is no task 'sst3'\. Did you mean 'sst2'"):
        task("sst3")


@pytest.mark.parametrize("name", sorted({*tasks()} - {"squad"}))  # judged by F1, as its evaluations say
def test_the_metric_of_a_task_is_the_one_that_decided_before_evaluations_named_it(name):
    """So the best step of an older run stays the best."""
    counted = {"choice": ("choices",), "preference": ("choices",), "text": ("loss",)}
    kinds = counted.get(task(name).kind, ("loss", "written"))
    assert task(name).metric == deciding({each: 0.0 for kind in kinds for each in functions(kind)})


def test_all_tasks_are_there():
    paper = {"sst2", "rte", "cb", "boolq", "wsc", "wic", "multirc", "copa", "record", "squad", "drop"}
    assert set(tasks()) == paper | {"choice", "pairs", "chat", "text", "preference"}
    assert all(tasks()[name].paper for name in paper)


ASKED = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"


def trained(example):
    return [text for text, learned in example.segments if learned]


@pytest.fixture
def speaking():
    return byte_pairs()


@pytest.mark.parametrize("template", ["", "Say: {{ prompt }}"])
def test_pairs_go_through_the_chat_template_of_a_model_that_has_one(speaking, template):
    row = {"prompt": "def f():\n", "answer": "    return 5\n"}
    (found,) = made("pairs", row, tokenizer=speaking, template=template)
    prompt = ASKED.format("Say: def f():\n" if template else "def f():\n")
    assert found.segments == ((prompt, False), ("    return 5\n<|im_end|>", True), ("\n", False))
    assert (found.prompt, found.references, found.templated) == (prompt, ("return 5",), True)
    (found,) = made("pairs", row, tokenizer=speaking, template=template, chat_template=False)
    assert found.text == ("Say: " if template else "") + "def f():\n    return 5\n"


@pytest.mark.parametrize(
    ("prompt", "answer", "between"),
    [("a", "b", " "), ("a", " b", ""), ("a ", "b", ""), ("a\n", "\tb ", ""), ("a", "\n", "")],
)
def test_spaces_of_prompts_and_answers_stay(prompt, answer, between):
    if not answer.strip():
        with pytest.raises(UserError, match="column 'answer' is empty"):
            made("pairs", {"prompt": prompt, "answer": answer})
        return
    assert made("pairs", {"prompt": prompt, "answer": answer})[0].text == prompt + between + answer
    if not prompt.endswith(" "):
        rows = {"prompt": prompt, "chosen": answer, "rejected": "c"}
        assert made("preference", rows)[0].text == prompt + between + answer


ALPACA = {
    "instruction": "Q", "input": "in", "output": "A", "system": "Be brief.", "history": [["old q", "old a"]],
}  # fmt: skip


def test_system_and_history_of_alpaca_are_turns_of_their_own(speaking):
    (found,) = made("pairs", ALPACA, tokenizer=speaking)
    talk = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "old q"},
        {"role": "assistant", "content": "old a"},
        {"role": "user", "content": "Q\nin"},
        {"role": "assistant", "content": "A"},
    ]
    assert found.text == speaking.apply_chat_template(talk, tokenize=False)
    assert trained(found) == ["A<|im_end|>"]
    assert made("pairs", ALPACA)[0].text == "Be brief.\nold q\nold a\nQ\nin A"  # a model without a template
    (own,) = made("pairs", ALPACA, tokenizer=speaking, template="{{ system }} {{ prompt }}")
    assert "<|im_start|>system" not in own.text and "user\nBe brief. Q<|im_end|>" in own.text
    with pytest.raises(UserError, match=r"row 1: the history must be a list of \[question, answer\]"):
        made("pairs", {**ALPACA, "history": [["old q"]]})


def say(role, content):
    return {"role": role, "content": content}


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": [say("user", "Hi")], "completion": [say("assistant", "Yes")]},
        {"prompt": [say("user", "Hi")], "completion": "Yes"},
        {"prompt": json.dumps([say("user", "Hi")]), "completion": "Yes"},
        {"prompt": "Hi", "completion": [say("assistant", "Yes")]},
        {"prompt": "Hi", "completion": [say("user", "Hi"), say("assistant", "Yes")]},
    ],
)
def test_prompts_and_answers_that_are_turns(speaking, row):
    (found,) = made("pairs", row, tokenizer=speaking)
    assert found.segments[:2] == ((ASKED.format("Hi"), False), ("Yes<|im_end|>", True))
    answer = row["completion"]
    other = "No" if isinstance(answer, str) else [*answer[:-1], say("assistant", "No")]
    compared = {"prompt": row["prompt"], "chosen": answer, "rejected": other}
    (found,) = made("preference", compared, tokenizer=speaking)
    assert found.segments == ((ASKED.format("Hi"), False),)
    assert (found.choices, found.references) == (("Yes<|im_end|>", "No<|im_end|>"), ("Yes",))


def test_json_that_is_no_conversation_stays_text(speaking):
    text = '[{"from": "Bonn", "to": "Ulm"}]'
    (found,) = made("pairs", {"prompt": "Hi", "answer": text}, tokenizer=speaking)
    assert trained(found) == [text + "<|im_end|>"]


def test_a_prompt_inside_the_answers_to_compare(speaking):
    talk = [say("system", "Be kind."), say("user", "Hi")]
    row = {"chosen": [*talk, say("assistant", "Yes")], "rejected": [*talk, say("assistant", "No")]}
    (found,) = made("preference", row, tokenizer=speaking)
    assert found.segments[0][0] == "<|im_start|>system\nBe kind.<|im_end|>\n" + ASKED.format("Hi")
    assert found.choices == ("Yes<|im_end|>", "No<|im_end|>")
    row["rejected"][1] = say("user", "Ho")
    with pytest.raises(UserError, match="row 1: the chosen and the rejected answer do not follow the same conver"):
        made("preference", row, tokenizer=speaking)


@pytest.mark.parametrize(
    ("name", "row", "told"),
    [
        ("choice", {"text": {"title": "t"}, "label": "a"}, r"column 'text' holds an object with 'title', not text"),
        ("choice", {"text": ["t"], "label": "a"}, r"'text' holds a list of 1 item, not text.* as \{\{ text\[0\] \}\}"),
        ("choice", {"text": [say("user", "t")], "label": "a"}, "'text' holds a conversation, not text"),
        ("choice", {"text": b"abc", "label": "a"}, "'text' holds 3 bytes, not text. Use another column"),
        ("choice", {"text": "t", "label": ["a"]}, "the column 'label' holds a list of 1 item, not text"),
        ("text", {"text": {"title": "t"}}, "'text' holds an object with 'title', not text"),
        ("pairs", {"prompt": {"title": "t"}, "answer": "a"}, "column 'prompt' holds an object with 'title', not text"),
        ("pairs", {"prompt": "t", "answer": {"a": 1}}, "no answer in the column 'answer'. It holds an object with 'a'"),
        ("pairs", {"prompt": "t", "answer": "a", "system": ["s"]}, "the system prompt holds a list of 1 item, not"),
        ("preference", {"prompt": "t", "chosen": {"a": 1}, "rejected": "b"}, "no answer in the column 'chosen'"),
    ],
)
@pytest.mark.parametrize("chats", [False, True])
def test_objects_and_lists_are_told_and_never_written(name, row, told, chats, speaking):
    with pytest.raises(UserError, match=f"a.jsonl, row 1: .*{told}"):
        made(name, row, tokenizer=speaking if chats else None, **({"answers": ("a", "b")} if name == "choice" else {}))


def test_turns_as_python_writes_them_never_reach_a_model(speaking):
    row = {"prompt": str([say("user", "Hi")]), "answer": str([say("assistant", "Yes")])}
    assert made("pairs", row, tokenizer=speaking)[0].segments[1][0].startswith("Yes")
    single = {"conversations": [say("user", "Hi")]}
    single |= {"chosen": say("assistant", "Yes"), "rejected": say("assistant", "No")}
    assert [text[:2] for text in made("preference", single, tokenizer=speaking)[0].choices] == ["Ye", "No"]


@pytest.mark.parametrize("gap", [float("nan"), None, "", "\u200b"])
def test_a_cell_that_holds_nothing_writes_nothing(gap):
    row = {"prompt": "Hi", "input": gap, "note": gap, "answer": "Yes"}
    assert made("pairs", row)[0].segments[0][0] == "Hi"
    template = "{{ prompt }}{% if note %} {{ note }}{% endif %}"
    assert made("pairs", row, template=template)[0].segments[0][0] == ("Hi" if gap != "\u200b" else f"Hi {gap}")
    with pytest.raises(UserError, match="the column 'answer' is empty"):
        made("pairs", {**row, "answer": gap})


@pytest.mark.parametrize("chats", [False, True])
def test_answers_that_are_not_wanted_and_pictures_are_told_in_every_task(chats, speaking):
    rows = [{"prompt": "Hi", "text": "Hi", "answer": "Yes", "image": "a.png", "label": flag} for flag in (True, False)]
    records = tuple(Record(row, "a.jsonl", index) for index, row in enumerate(rows, 1))
    for name in ("pairs", "choice"):
        make = maker(DataTable(task=name, source="a.jsonl"), {"train": Rows(records)}, speaking if chats else None)
        for record in records:
            make.example(record)
        unwanted = name == "pairs"
        assert make.unused.counts == {
            "images are ignored": 2,
            **({
                "the answer is unwanted (label = false) but learned like the others. Leave these rows out": 1
            } if unwanted else {}),
        }  # fmt: skip


def test_a_model_without_a_template_cannot_be_asked_in_turns():
    with pytest.raises(UserError, match="This model has no chat template"):
        made("pairs", {"prompt": [say("user", "Hi")], "answer": "a"}, tokenizer=words())


def test_what_is_not_used_is_counted(speaking):
    rows = [
        {"messages": [say("user", [{"type": "image"}, {"type": "text", "text": "Hi"}]), say("assistant", "Yes")]},
        {"messages": [say("user", "Hi"), say("Narrator", "Then"), say("assistant", "Yes")]},
        {"messages": [say("user", "Hi"), say("assistant", "Yes")], "images": ["a.png"]},
    ]
    table = DataTable(task="chat", source="a.jsonl")
    records = tuple(Record(row, "a.jsonl", index) for index, row in enumerate(rows, 1))
    make = maker(table, {"train": Rows(records)}, speaking)
    assert make.notices == ()
    for record in records:
        make.example(record)
    assert make.notices == (
        "In 2 of 3 conversations, images are ignored.",
        "In 1 of 3 conversations, the role 'Narrator' is unknown; the chat template gets it unchanged.",
    )


def test_what_prompts_in_turns_hold_is_counted_too(speaking):
    picture = [say("user", [{"type": "image_url"}, {"type": "text", "text": "Hi"}])]
    rows = {"prompt": picture, "chosen": [*picture, say("assistant", "a")], "rejected": "b", "completion": "a"}
    for name in ("pairs", "preference"):
        records = (Record(rows, "a.jsonl", 1),)
        make = maker(DataTable(task=name, source="a.jsonl"), {"train": Rows(records)}, speaking)
        assert make.example(records[0]).text.startswith(ASKED.format("Hi"))
        assert make.notices == ("In 1 of 1 row, images are ignored.",)


def test_prompts_past_the_chat_template_are_told(speaking):
    table = DataTable(task="pairs", source="a.jsonl", chat_template=False)
    records = (Record({"prompt": "a", "answer": "b"}, "a.jsonl", 1),)
    (told,) = maker(table, {"train": Rows(records)}, speaking).notices
    assert told.startswith("The prompts do not use the model's chat template")
    assert maker(table, {"train": Rows(records)}).notices == ()
