"""Conversations: what is trained, and what the model's template makes of them."""

import copy

import pytest

from sparsezo_gui.engine.data.chat import learned_end, render
from sparsezo_gui.engine.data.conversations import conversation, messages
from sparsezo_gui.engine.data.encode import encode
from sparsezo_gui.engine.data.examples import Example
from sparsezo_gui.errors import UserError

TALK = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": " Hello "},
    {"role": "user", "content": "Bye"},
    {"role": "assistant", "content": "See you"},
]


def segments(talk, tokenizer, place):
    return render(conversation(talk, place), tokenizer, place).segments


def test_only_the_assistants_turns_are_trained(made):
    pieces = segments(TALK, made("byte_pairs"), "a.jsonl, row 1")
    assert pieces == (
        ("<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", False),
        (" Hello <|im_end|>", True),
        ("\n<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n", False),
        ("See you<|im_end|>", True),
        ("\n", False),
    )


def test_tokens(made):
    tokenizer = made("byte_pairs")
    encoded = encode(Example(segments(TALK, tokenizer, "")), tokenizer, 256)
    assert tokenizer.decode(encoded.rows[0].targets) == " Hello <|im_end|>See you<|im_end|>"
    assert tokenizer.decode(encoded.prompt).endswith("Bye<|im_end|>\n<|im_start|>assistant\n")


def test_a_template_that_changes_earlier_turns(made):
    """As Qwen3's, which writes empty thoughts before the last answer only."""
    tokenizer = copy.deepcopy(made("byte_pairs"))
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role }}: {% if loop.last %}<think></think>{% endif %}{{ m.content }}\n{% endfor %}"
    )
    pieces = segments(TALK[1:], tokenizer, "")
    assert [text for text, trained in pieces if trained] == [" Hello \n", "See you\n"]  # a line's end is the sign
    assert (
        "".join(text for text, _ in pieces)
        == "user: Hi\nassistant:  Hello \nuser: Bye\nassistant: <think></think>See you\n"
    )


@pytest.mark.parametrize(
    "value",
    [
        [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}],
        '[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]',
        [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}, {"role": "Assistant", "content": "Hello"}],
        {"role": ["user", "assistant"], "content": ["Hi", "Hello"]},  # as `datasets` wrote a sequence of objects
        "[{'role': 'human', 'content': 'Hi'}, {'role': 'ai', 'content': 'Hello', 'tool_calls': []}]",  # from pandas
    ],
)
def test_ways_to_write_a_conversation(value):
    assert messages(value, "") == [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]


def test_a_system_that_is_told_twice():
    talk = [{"role": "system", "content": "Be kind."}, {"role": "assistant", "content": "Hi"}]
    assert not conversation(talk, "", system="Be kind.").unused
    found = conversation(talk, "", system="Be short.")
    assert found.messages == talk and "is ignored" in "".join(found.unused)


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("Hi", "row 1: the conversation is not valid JSON"),
        ({"role": "user"}, "row 1: a conversation must be a list of turns"),
        ([{"role": "user"}], "row 1, turn 1: needs 'role' and 'content'"),
        ([{"role": "user", "content": "Hi"}], "row 1: the conversation has no assistant turn"),
        ([{"role": "Bob", "content": "Hi"}], r"no assistant turn to learn from \(its roles: bob\)"),
        ([{"role": "assistant", "content": "Hi", "weight": 0}], r"to learn from \(all have the weight 0\)"),
        ([{"from": "tool", "value": {"n": 1}}], "has 'from' and 'value', which holds an object with 'n'"),
        ("[{'role': 'user', 'content': open('a')}]", "row 1: the conversation is not valid JSON"),
        ("[{'role': 'user'" + "(" * 5000, "row 1: the conversation is not valid JSON"),
    ],
)
def test_faults(value, sentence):
    with pytest.raises(UserError, match=sentence):
        conversation(value, "a.jsonl, row 1")


def test_a_model_that_was_not_made_for_it(made):
    with pytest.raises(UserError, match=r"no chat template.*'pairs'"):
        segments(TALK, made("words"), "")


def test_a_conversation_that_the_template_refuses(made):
    tokenizer = copy.deepcopy(made("byte_pairs"))
    tokenizer.chat_template = "{{ raise_exception('Conversation roles must alternate') }}"
    with pytest.raises(UserError, match=r"row 1: the model's chat template refuses .*roles must alternate"):
        segments(TALK, tokenizer, "a.jsonl, row 1")
    tokenizer.chat_template = "{{ messages[-1].content }}"
    with pytest.raises(UserError, match="leaves out assistant turns"):
        segments(TALK, tokenizer, "")


SPOKEN = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
ENDS = {
    "chatml": (SPOKEN + "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}", "<|im_end|>"),
    "no generation prompt": (SPOKEN, "<|im_end|>"),
    "always opens a turn": (SPOKEN + "<|im_start|>assistant\n", "<|im_end|>"),
    "opens half of a turn": (
        SPOKEN + "<|im_start|>{% if add_generation_prompt %}assistant\n{% endif %}", "<|im_end|>"
    ),
    "another sign at the very end": (
        SPOKEN + "{% if add_generation_prompt %}<|im_start|>assistant\n{% else %}{{ eos_token }}{% endif %}",
        "<|im_end|>",
    ),
    "a sign at the very end only": (
        "{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]{% else %} {{ m.content }}"
        "{% endif %}{% endfor %}{% if messages[-1].role == 'assistant' %}{{ eos_token }}{% endif %}",
        "<|end|>",
    ),
    "words": ("{% for m in messages %}### {{ m.role }}:\n{{ m.content }}\n{% endfor %}### assistant:\n", None),
    "refuses": ("{{ raise_exception('no') }}", None),
    "no template": ("{% for", None),
    "takes too long": ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", None),
}  # fmt: skip


@pytest.fixture
def speaking(made):
    """A tokenizer of byte pairs with a chat template."""

    def make(template):
        tokenizer = copy.deepcopy(made("byte_pairs"))
        tokenizer.chat_template = template
        return tokenizer

    return make


@pytest.mark.parametrize("kind", ENDS)
def test_the_token_that_ends_a_turn(speaking, kind):
    template, end = ENDS[kind]
    tokenizer = speaking(template)
    assert learned_end(tokenizer) == (end and tokenizer.convert_tokens_to_ids(end))


def test_a_model_without_a_template_has_no_learned_end(made):
    assert learned_end(made("words")) is None
