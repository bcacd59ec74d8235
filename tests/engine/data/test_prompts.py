"""A question to a tuned model has the tokens of an evaluation's prompt, whatever the task and the tokenizer."""

from __future__ import annotations

import json

import pytest
from tokenizers import processors

from sparsezo_gui.engine.data import encode
from sparsezo_gui.engine.data.prompts import encode_prompt, learned_end
from sparsezo_gui.engine.data.tokenise import prompt_tokens
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe.recipe import DataTable
from tests.engine.data.test_tasks import CHOICES
from tests.engine.data.test_tasks import made as examples

COMPLETIONS = {
    "squad": {"title": "Rain", "context": "Rain is water.", "question": " What is rain?", "answers": "water"},
    "drop": {"passage": "Two and two.", "question": "How many?", "answers_spans": {"spans": ["4"]}},
    "pairs": {"instruction": "Add.", "input": "2 2", "output": "4"},
    "preference": {"prompt": "Is it warm?", "chosen": "No.", "rejected": "Yes."},
}


def table(name, **more):
    return DataTable(task=name, source="a.jsonl", **more)


@pytest.mark.parametrize("name", [*CHOICES, *COMPLETIONS])
def test_columns_give_the_prompt_of_the_row(name, tokenizer):
    row = CHOICES[name][0] if name in CHOICES else COMPLETIONS[name]
    expected = encode(examples(name, row, tokenizer=tokenizer)[0], tokenizer, 512)
    found = encode_prompt(table(name), tokenizer, json.dumps(row))
    assert found.prompt == expected.prompt
    if name in CHOICES:
        assert found.choice.rows == expected.rows
        assert list(found.candidates) == [text.strip() for text in examples(name, row)[0].choices]
    else:
        assert (found.candidates, found.choice) == ((), None)


@pytest.mark.parametrize(
    ("name", "row", "text", "more"),
    [
        ("sst2", CHOICES["sst2"][0], "a fine film ", {}),
        ("pairs", {"prompt": "2 + 2 =", "answer": 4}, "2 + 2 =", {}),
        ("pairs", {"input": "Add.", "output": "4"}, "Add.", {}),
        ("pairs", {"input": "Add.", "output": "4"}, '{"input": "Add."}', {}),
        ("pairs", {"prompt": '{"a": 1}', "answer": 4}, '{"a": 1}', {}),  # a text that happens to be JSON
        ("preference", COMPLETIONS["preference"], "Is it warm?", {}),
        (
            "choice",
            {"message": "late", "team": "no"},
            "late",
            {"template": "Say: {{ message }} is it? ", "columns": {"answer": "team"}, "answers": ("no", "yes it is")},
        ),
        (
            "choice",
            {"message": "late", "team": "no"},
            "late",
            {"template": "{{ text }}\n", "columns": {"text": "message", "answer": "team"}, "answers": ("no", "yes")},
        ),
    ],
)
def test_a_text_goes_into_the_one_column(name, row, text, more, tokenizer):
    expected = encode(examples(name, row, tokenizer=tokenizer, **more)[0], tokenizer, 512)
    assert encode_prompt(table(name, **more), tokenizer, text).prompt == expected.prompt


def test_labels_of_the_data_are_the_candidates(made):
    found = encode_prompt(table("choice"), made("byte_pairs"), "late", ("billing", "shipping"))
    assert found.candidates == ("billing", "shipping")
    free = encode_prompt(table("choice"), made("byte_pairs"), "late")
    assert (free.prompt, free.choice) == (prompt_tokens("late\nAnswer:", made("byte_pairs")), None)
    assert encode_prompt(table("choice"), made("byte_pairs"), "late", raw=True) == encode_prompt(
        table("text"), made("byte_pairs"), "late"
    )


def test_a_chat_is_one_turn_of_the_user_in_the_models_template(made):
    tokenizer = made("byte_pairs")
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Is it?"}], add_generation_prompt=True, tokenize=False
    )
    rows = {"messages": [{"role": "user", "content": "Is it?"}, {"role": "assistant", "content": "Yes\nNo"}]}
    expected = encode(examples("chat", rows, tokenizer=tokenizer)[0], tokenizer, 512)
    found = encode_prompt(table("chat"), tokenizer, "Is it?")
    assert found.prompt == expected.prompt == tuple(tokenizer(text).input_ids)
    assert encode_prompt(table("chat"), tokenizer, "Is it?", raw=True).prompt == tuple(tokenizer("Is it?").input_ids)


THINKING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and loop.last %}<think>\n{{ m.reasoning_content or '' }}\n</think>\n\n{% endif %}"
    "{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
BEGINNING = (
    "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)


@pytest.mark.parametrize(("name", "template"), [("byte_pairs", THINKING), ("words", BEGINNING), ("letters", BEGINNING)])
@pytest.mark.parametrize("task", ["chat", "pairs", "preference"])
def test_templates_that_think_or_begin_a_text_are_asked_as_other_programs_do(name, template, task, made, monkeypatch):
    tokenizer = made(name)
    monkeypatch.setattr(tokenizer, "chat_template", template)
    turns = [{"role": "user", "content": "the cat"}]
    answer = {"role": "assistant", "content": "Yes", "reasoning_content": "so it is"}
    row = {
        "chat": {"messages": [*turns, answer]},
        "pairs": {"prompt": "the cat", "answer": "Yes"},
        "preference": {"prompt": "the cat", "chosen": "Yes", "rejected": "No"},
    }[task]
    text = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    found = encode_prompt(table(task), tokenizer, "the cat").prompt
    assert found == tuple(tokenizer(text, add_special_tokens=False).input_ids)
    assert found == encode(examples(task, row, tokenizer=tokenizer)[0], tokenizer, 64).prompt


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("rte", "It rains.", 'needs columns. Write them as a JSON object: {"hypothesis": "…", "premise": "…"}. Or'),
        ("rte", '{"premise": "It rains."}', '{"hypothesis": "…", "premise": "…"}'),
        ("record", "It rains.", '{"passage": "…", "query": "…", "entities": ["…", "…"]}'),
        ("record", json.dumps({"passage": "a", "query": "b", "entities": ["c"]}), "at least two candidates"),
        ("sst2", " \n", "The prompt is empty."),
        ("chat", "", "The prompt is empty."),
    ],
)
def test_what_cannot_be_asked_is_a_sentence(name, text, sentence, made):
    with pytest.raises(UserError) as error:
        encode_prompt(table(name), made("byte_pairs"), text)
    assert sentence in str(error.value)


def test_a_template_of_the_row_takes_its_columns(made):
    more = {"template": "{{ row['the text'] }} is", "answers": ("x", "y"), "columns": {"answer": "label"}}
    with pytest.raises(UserError, match=r'a JSON object: \{"column": "…"\}'):
        encode_prompt(table("choice", **more), made("words"), "the cat")
    expected = encode(examples("choice", {"the text": "the cat", "label": "x"}, **more)[0], made("words"), 64)
    assert encode_prompt(table("choice", **more), made("words"), '{"the text": "the cat"}').prompt == expected.prompt


@pytest.mark.parametrize("single", ["$A </s>", "<s> $A </s>", "<s> $A"])
def test_a_prompt_begins_as_every_text_and_never_ends(single):
    from transformers import PreTrainedTokenizerFast

    from tests.models import tokenizer as own

    plain = own().backend_tokenizer
    plain.post_processor = processors.TemplateProcessing(single=single, special_tokens=[("<s>", 0), ("</s>", 1)])
    adding = PreTrainedTokenizerFast(tokenizer_object=plain, bos_token="<s>", eos_token="</s>")
    bare = tuple(adding("Say 3", add_special_tokens=False).input_ids)
    expected = (0, *bare) if "<s>" in single else bare
    assert prompt_tokens("Say 3", adding) == expected
    assert prompt_tokens("<s>Say 3", adding) == (0, *bare)  # as a chat template writes it
    row = {"prompt": "Say 3", "answer": "4"}
    assert encode(examples("pairs", row)[0], adding, 64).prompt == expected
    assert encode_prompt(table("pairs"), adding, "Say 3").prompt == expected


def test_the_end_that_a_task_teaches(made):
    tokenizer = made("byte_pairs")
    end, eos = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|end|>"])
    assert learned_end(table("chat"), tokenizer) == end
    assert [learned_end(table(name), tokenizer) for name in ("text", "squad", "preference")] == [eos, eos, end]
    assert learned_end(table("pairs", chat_template=False), tokenizer) == eos
    assert learned_end(table("choice"), tokenizer) is learned_end(table("sst2"), tokenizer) is None
    assert learned_end(table("chat"), made("words")) == 2  # no template: what is told where the data is read
