"""What is shown of an example is what is learned: for every kind of task and tokenizer, to the token."""

import json

import pytest

from sparsezo_gui.engine.data import load_task, preview
from sparsezo_gui.engine.data.rendering import merged, pieces, trained_sequence
from sparsezo_gui.recipe.recipe import DataTable
from sparsezo_gui.work import finish

LONG = "the cat sat so very great " * 20
TURNS = [
    {"role": "user", "content": "Is it? 😀"}, {"role": "assistant", "content": "Yes  or\n\nNo"},
    {"role": "user", "content": "so"}, {"role": "assistant", "content": "great"},
]  # fmt: skip
TASKS = {
    "choice": [{"text": text, "label": label} for text, label in (("Is it? 😀", "Yes"), (LONG, "No"))],
    "sst2": [{"sentence": text, "label": label} for text, label in (("Is it", 1), (LONG, 0))],
    "pairs": [
        {"prompt": prompt, "completion": answer} for prompt, answer in (("Is", "it 😀?"), (LONG, "No"), ("a", LONG))
    ],
    "copa": [
        {"premise": "It was.", "choice1": "Yes", "choice2": "No it was great", "question": "cause", "label": index}
        for index in (0, 1)
    ],
    "preference": [{"prompt": "Is it?", "chosen": "Yes it was", "rejected": "No"}],
    "text": [{"text": "Is  it\n\n😀?"}, {"text": LONG}],
    "chat": [{"messages": TURNS}, {"messages": TURNS[:2]}],
}


@pytest.fixture(params=TASKS)
def table(request, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(map(json.dumps, TASKS[request.param])))
    return DataTable(source=str(path), task=request.param, train=50, validation=0, test=0, max_tokens=64)


@pytest.mark.parametrize("name", ["words", "byte_pairs", "metaspace", "letters"])
def test_what_is_shown_is_what_is_learned(table, made, name):
    tokenizer = made(name)
    if table.task == "chat" and not tokenizer.chat_template:
        pytest.skip("has no chat template")
    data = finish(load_task(table, tokenizer))
    for example, encoded in zip(data.train.examples, data.train.encoded, strict=True):
        tokens, learned = trained_sequence(encoded)
        shown = pieces(example, encoded, tokenizer)
        assert [place for place, (_, trained) in enumerate(shown) if trained] == list(learned)
        after = example.templated and not example.choices  # what the template writes after the last token learned
        assert len(shown) - len(tokens) in ({after} if not encoded.cut else {False, after})  # its end may be cut, too
        targets = [
            target
            for row in encoded.rows
            for target, choice in zip(row.targets, row.choices, strict=True)
            if choice == encoded.label
        ]
        assert [tokens[place] for place in learned] == targets
        if name == "byte_pairs":  # whose tokens are the text, byte for byte
            assert "".join(text for text, _ in shown[: len(tokens)]) == tokenizer.decode(tokens)
            spans = [text for text, trained in merged(shown) if trained]
            assert "".join(spans) == tokenizer.decode(targets)


@pytest.mark.parametrize("name", ["byte_pairs", "metaspace"])
def test_the_page_shows_the_same(table, made, name):
    tokenizer = made(name)
    if table.task == "chat" and not tokenizer.chat_template:
        pytest.skip("has no chat template")
    data = finish(load_task(table, tokenizer))
    shown = {pieces(*each, tokenizer) for each in zip(data.train.examples, data.train.encoded, strict=True)}
    assert set(preview(table, tokenizer).examples) == shown


def test_a_conversation_is_the_text_of_its_template(made, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"messages": TURNS}))
    tokenizer = made("byte_pairs")
    (shown,) = preview(DataTable(source=str(path), task="chat"), tokenizer).examples
    whole = tokenizer.apply_chat_template(TURNS, tokenize=False)
    assert "".join(text for text, _ in shown) == whole
    trained = [text for text, trained in merged(shown) if trained]
    assert trained == ["Yes  or\n\nNo<|im_end|>", "great<|im_end|>"]
