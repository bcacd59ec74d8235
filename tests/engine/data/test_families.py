"""Conversations in chat templates of every shape, against what `transformers` writes and what a reader would mark."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsezo_gui.engine.data.chat import learned_end, render
from sparsezo_gui.engine.data.conversations import conversation
from sparsezo_gui.engine.data.encode import encode
from sparsezo_gui.engine.data.examples import maker
from sparsezo_gui.engine.data.readers import Record
from sparsezo_gui.engine.data.splits import Rows
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe.recipe import DataTable
from tests.engine.data.conftest import byte_pairs

SPECIAL = ["<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|eot|>", "<|eom|>", "<turn>", "<end>", "<bot>", "<stop>"]
# How the families write conversations: our own templates, with their rules.
TEMPLATES = {
    "chatml": (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + (m.content or '') }}"
        "{% for t in m.tool_calls or [] %}{{ '<tool_call>' + (t.function | tojson) + '</tool_call>' }}{% endfor %}"
        "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
    "always opens": (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
        "{{ '<|im_start|>assistant\n' }}"
    ),
    "headers": (  # Llama 3
        "{{ '<s>' }}{% for m in messages %}{{ '<turn>' + m.role + '<end>\n\n' }}"
        "{% if m.tool_calls %}{{ m.tool_calls[0].function | tojson }}{{ '<|eom|>' }}"
        "{% else %}{{ m.content | trim + '<|eot|>' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<turn>assistant<end>\n\n' }}{% endif %}"
    ),
    "instructions": (  # Llama 2 and Mistral
        "{% for m in messages %}{% if m.role == 'user' %}{{ '<s>[INST] ' + m.content | trim + ' [/INST]' }}"
        "{% elif m.role == 'assistant' %}{{ ' ' + m.content | trim + ' </s>' }}{% endif %}{% endfor %}"
    ),
    "one end": (
        "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant: ' }}{% else %}{{ '</s>' }}{% endif %}"
    ),
    "model": (  # Gemma: no system's turn
        "{{ '<s>' }}{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "{% for m in messages %}{{ '<turn>' + ('model' if m.role == 'assistant' else m.role) + '\n' }}"
        "{{ m.content | trim + '<end>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<turn>model\n' }}{% endif %}"
    ),
    "two ends": (  # Phi 3
        "{% for m in messages %}{{ '<turn>' + m.role + '\n' + m.content + '<end>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<turn>assistant\n' }}{% else %}{{ '</s>' }}{% endif %}"
    ),
    "thinks": (  # Qwen 3: thoughts of the last answer only
        "{% set ns = namespace(last=-1) %}{% for m in messages %}{% if m.role == 'user' %}"
        "{% set ns.last = loop.index0 %}{% endif %}{% endfor %}{% for m in messages %}{% set c = m.content or '' %}"
        "{{ '<|im_start|>' + m.role + '\n' }}{% if m.role == 'assistant' %}"
        "{% set r = m.reasoning_content or '' %}{% if '</think>' in c %}"
        "{% set r = c.split('</think>')[0].split('<think>')[-1].strip('\n') %}"
        "{% set c = c.split('</think>')[-1].lstrip('\n') %}{% endif %}"
        "{% if loop.index0 > ns.last %}{{ '<think>\n' + r.strip('\n') + '\n</think>\n\n' + c.lstrip('\n') }}"
        "{% else %}{{ c }}{% endif %}{% for t in m.tool_calls or [] %}"
        "{{ '\n<tool_call>' + (t.function | tojson) + '</tool_call>' }}{% endfor %}{% else %}{{ c }}{% endif %}"
        "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
    "asks to think": (  # DeepSeek R1: the prompt opens a thought, and earlier ones are dropped
        "{{ '<s>' }}{% for m in messages %}{% if m.role == 'assistant' %}"
        "{{ '<bot>' + m.content.split('</think>')[-1] + '<stop>' }}{% else %}{{ '<turn>' + m.content }}{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<bot><think>\n' }}{% endif %}"
    ),
    "channels": (  # gpt-oss: thoughts in a channel of their own, and one sign in the middle and another at the end
        "{% for m in messages %}{{ '<turn>' + m.role }}{% if m.role == 'assistant' %}{% if m.thinking and loop.last %}"
        "{{ '<bot>thought<end><turn>assistant' }}{% endif %}{{ '<bot>' + m.content }}"
        "{{ '<stop>' if loop.last else '<end>' }}{% else %}{{ m.content + '<end>' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<turn>assistant' }}{% endif %}"
    ),
    "next turn ends": (  # GLM 4: nothing ends a turn but the next
        "{% for m in messages %}{{ ('<turn>' if m.role == 'user' else '<bot>') + '\n' + m.content }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<bot>' }}{% endif %}"
    ),
    "two signs": (  # Command R: one sign ends what is said, and one any turn
        "{{ '<s>' }}{% for m in messages %}{{ '<turn>' + m.role }}{% if m.role == 'assistant' %}"
        "{{ '<bot>' + m.content + '<stop>' }}{% else %}{{ m.content }}{% endif %}{{ '<end>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<turn>assistant<bot>' }}{% endif %}"
    ),
    "opens a thought": (  # Qwen 3.5 and Nemotron 3: thoughts of the last question only, and the prompt begins one
        "{% set ns = namespace(last=0) %}{% for m in messages %}{% if m.role == 'user' %}"
        "{% set ns.last = loop.index0 %}{% endif %}{% endfor %}{% for m in messages %}"
        "{{ '<|im_start|>' + m.role + '\n' }}{% if m.role == 'assistant' and loop.index0 > ns.last %}"
        "{{ '<think>\n' + (m.reasoning_content or '') + '\n</think>\n\n' }}{% endif %}"
        "{{ (m.content or '').split('</think>')[-1] }}{% for t in m.tool_calls or [] %}"
        "{{ '<tool_call>' + (t.function | tojson) + '</tool_call>' }}{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n' }}{% endif %}"
    ),
    "tools at the last question": (  # Mistral: so what is written of earlier turns depends on later ones
        "{% set asked = messages | selectattr('role', 'equalto', 'user') | list %}{{ '<s>' }}{% for m in messages %}"
        "{% if m.role == 'user' %}{{ '<turn>' + (tools | tojson) + '<end>' if tools and m == asked[-1] else '' }}"
        "{{ '[INST] ' + m.content + '[/INST]' }}{% elif m.role == 'tool' %}{{ '<turn>' + m.content + '<end>' }}"
        "{% elif m.tool_calls %}{{ '<bot>' + (m.tool_calls[0].function | tojson) + '</s>' }}"
        "{% else %}{{ ' ' + m.content + '</s>' }}{% endif %}{% endfor %}"
    ),
    "next turn ends a call": (  # GLM 4.5: thoughts of the last question only, and no signs
        "{% set ns = namespace(last=0) %}{% for m in messages %}{% if m.role == 'user' %}"
        "{% set ns.last = loop.index0 %}{% endif %}{% endfor %}{% for m in messages %}{% if m.role == 'assistant' %}"
        "{{ '<bot>\n<think>' + (m.reasoning_content or '' if loop.index0 > ns.last else '') + '</think>\n' }}"
        "{{ m.content or '' }}{% for t in m.tool_calls or [] %}"
        "{{ '<tool_call>' + (t.function | tojson) + '</tool_call>' }}{% endfor %}"
        "{% else %}{{ '<turn>' + m.role + '\n' + m.content }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<bot>' }}{% endif %}"
    ),
    "marks the end apart": (  # Gemma 4 as TRL trains it
        "{% for m in messages %}{{ '<turn>' + m.role + '\n' }}{% if m.role == 'assistant' %}"
        "{% generation %}{{ m.content }}{% endgeneration %}{% generation %}{{ '<end>\n' }}{% endgeneration %}"
        "{% else %}{{ m.content + '<end>\n' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<turn>assistant\n' }}{% endif %}"
    ),
    "marks": (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if m.role == 'assistant' %}"
        "{% generation %}{{ m.content }}{% endgeneration %}{{ '<|im_end|>\n' }}"
        "{% else %}{{ m.content + '<|im_end|>\n' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
    "marks ends": (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if m.role == 'assistant' %}"
        "{% generation %}{{ m.content + '<|im_end|>' }}{% endgeneration %}"
        "{% else %}{{ m.content + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
}  # fmt: skip


def tokenizer(name):
    made = copy.deepcopy(byte_pairs())
    made.add_special_tokens({"additional_special_tokens": list(SPECIAL)})
    made.chat_template = TEMPLATES.get(name, name)
    return made


TOKENIZERS = {name: tokenizer(name) for name in TEMPLATES}


def turn(role, content, **more):
    return {"role": role, "content": content, **more}


def read(name, talk, tools=None):
    """What is trained, after it was seen that the text is the template's."""
    made = TOKENIZERS[name]
    found = render(conversation(talk, "row 1", tools=tools), made, "row 1")
    text = made.apply_chat_template(talk, tools=tools, tokenize=False)
    assert "".join(text for text, _ in found.segments) == text
    return [text for text, trained in found.segments if trained], found


TALK = [turn("user", "Hi"), turn("assistant", "Hello"), turn("user", "Bye"), turn("assistant", "See you")]
EXPECTED = {
    "chatml": ["Hello<|im_end|>", "See you<|im_end|>"],
    "always opens": ["Hello<|im_end|>", "See you<|im_end|>"],
    "headers": ["Hello<|eot|>", "See you<|eot|>"],
    "instructions": [" Hello </s>", " See you </s>"],
    "one end": ["Hello\n", "See you\n</s>"],
    "model": ["Hello<end>", "See you<end>"],
    "two ends": ["Hello<end>", "See you<end>\n</s>"],
    "thinks": ["Hello<|im_end|>", "<think>\n\n</think>\n\nSee you<|im_end|>"],
    "asks to think": ["Hello<stop>", "See you<stop>"],
    "channels": ["<bot>Hello<end>", "<bot>See you<stop>"],
    "next turn ends": ["\nHello", "\nSee you"],
    "two signs": ["Hello<stop><end>", "See you<stop><end>"],
    "opens a thought": ["Hello<|im_end|>", "\n</think>\n\nSee you<|im_end|>"],
    "tools at the last question": [" Hello</s>", " See you</s>"],
    "next turn ends a call": ["\n<think></think>\nHello", "\n<think></think>\nSee you"],
    "marks the end apart": ["Hello<end>\n", "See you<end>\n"],
    "marks": ["Hello<|im_end|>", "See you<|im_end|>"],
    "marks ends": ["Hello<|im_end|>", "See you<|im_end|>"],
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_turn_is_learned_with_its_end_and_nothing_of_the_next(name):
    trained, found = read(name, TALK)
    assert trained == EXPECTED[name]
    made = TOKENIZERS[name]
    assert found.answer.rpartition("</think>")[2].strip() == "See you"
    assert found.prompt == made.apply_chat_template(TALK[:3], add_generation_prompt=True, tokenize=False)
    assert read(name, TALK[:2])[0] == [EXPECTED[name][1].replace("See you", "Hello")]


@pytest.mark.parametrize(("name", "end"), [("channels", "<stop>"), ("two ends", "<end>"), ("headers", "<|eot|>")])
def test_the_sign_at_the_very_end_stops_generation(name, end):
    assert learned_end(TOKENIZERS[name]) == TOKENIZERS[name].convert_tokens_to_ids(end)


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("content", ["", "  two spaces", "ends so \n", "⟦answer 1⟧", "See you", "a<|im_end|>\nb"])
def test_contents_of_any_kind(name, content):
    trained, _ = read(name, [*TALK[:1], turn("assistant", content), *TALK[2:]])
    kept = content if name not in TRIMMING else content.strip()
    assert trained == [EXPECTED[name][0].replace("Hello", kept), EXPECTED[name][1]]


TRIMMING = ("headers", "instructions", "model")
CALLS = [
    turn("user", "When?"),
    {"role": "assistant", "tool_calls": [{"type": "function", "function": {"name": "find", "arguments": {"n": 1}}}]},
    turn("tool", "0:00"),
    turn("assistant", "At 0."),
    turn("user", "Thanks"),
    turn("assistant", "Bye"),
]
TOOLS = [{"type": "function", "function": {"name": "find", "parameters": {}}}]
CALL = '{"name": "find", "arguments": {"n": 1}}'


@pytest.mark.parametrize(
    ("name", "call", "answer"),
    [
        ("chatml", f"<tool_call>{CALL}</tool_call><|im_end|>", "At 0.<|im_end|>"),
        ("headers", f"{CALL}<|eom|>", "At 0.<|eot|>"),
        ("thinks", f"\n<tool_call>{CALL}</tool_call><|im_end|>", "At 0.<|im_end|>"),
    ],
)
def test_calls_of_tools_are_learned(name, call, answer):
    end, sign = ("<|eot|>", "<|eom|>") if name == "headers" else ("<|im_end|>", "<|im_end|>")
    last = "<think>\n\n</think>\n\nBye" if name == "thinks" else "Bye"
    assert read(name, CALLS, TOOLS)[0] == [call, answer, last + end]
    trained, found = read(name, CALLS[:2], TOOLS)
    assert trained[-1].endswith(call) and found.answer.endswith(call.removesuffix(sign))


def test_calls_of_earlier_questions_are_learned_though_their_thoughts_are_dropped():
    talk = [CALLS[0], {**CALLS[1], "reasoning_content": "look"}, *CALLS[2:]]
    expected = [f"<tool_call>{CALL}</tool_call><|im_end|>", "At 0.<|im_end|>", "\n</think>\n\nBye<|im_end|>"]
    assert read("opens a thought", talk, TOOLS)[0] == expected
    assert read("opens a thought", talk[:4], TOOLS)[0][0] == f"look\n</think>\n\n{expected[0]}"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("tools at the last question", [f"<bot>{CALL}</s>", " At 0.</s>", " Bye</s>"]),
        ("next turn ends a call", [
            f"\n<think></think>\n<tool_call>{CALL}</tool_call>", "\n<think></think>\nAt 0.",
            "\n<think></think>\nBye"]),
    ],
)  # fmt: skip
def test_calls_of_tools_where_earlier_turns_depend_on_later_ones(name, expected):
    assert read(name, [CALLS[0], {**CALLS[1], "reasoning_content": "look"}, *CALLS[2:]], TOOLS)[0] == expected


def test_a_call_that_is_left_out_takes_nothing_of_the_turns_after_it():
    made = tokenizer("{% set messages = messages[-3:] %}" + TEMPLATES["chatml"].replace("m.tool_calls", "m.none"))
    found = render(conversation(CALLS[:5], "row 1"), made, "row 1")
    assert [text for text, trained in found.segments if trained] == ["At 0.<|im_end|>"]


PARTS = {  # of models for pictures, which read contents in parts only
    "by role": (  # as Idefics2 and SmolVLM
        "<|im_start|>{% for m in messages %}{{ m['role'] | capitalize }}"
        "{% if m['content'][0]['type'] == 'image' %}{{ ':' }}{% else %}{{ ': ' }}{% endif %}"
        "{% for part in m['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}"
        "{% elif part['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}",
        [" Hello<|im_end|>", " See you<|im_end|>"],
    ),
    "pictures first": (  # as LLaVA 1.5, which marks what is generated
        "{% for m in messages %}{% if m['role'] != 'system' %}{{ m['role'].upper() + ': ' }}{% endif %}"
        "{% for part in m['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
        "{% if m['role'] != 'assistant' %}{% for part in m['content'] | selectattr('type', 'equalto', 'text') %}"
        "{{ part['text'] + ' ' }}{% endfor %}{% else %}"
        "{% for part in m['content'] | selectattr('type', 'equalto', 'text') %}"
        "{% generation %}{{ part['text'] + ' ' }}{% endgeneration %}{% endfor %}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}",
        ["Hello ", "See you "],
    ),
    "fails on text": (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content[0].text + '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
        ["Hello<|im_end|>", "See you<|im_end|>"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("system", [[], [turn("system", "Be kind.")]])
def test_templates_that_read_contents_in_parts_only(name, system):
    template, expected = PARTS[name]
    made, talk = tokenizer(template), [*system, *TALK]
    found = render(conversation(talk, "row 1"), made, "row 1")
    parts = [{**each, "content": [{"type": "text", "text": each["content"]}]} for each in talk]
    assert "".join(text for text, _ in found.segments) == made.apply_chat_template(parts, tokenize=False)
    assert [text for text, trained in found.segments if trained] == expected
    asked = made.apply_chat_template(parts[:-1], tokenize=False, add_generation_prompt=True)
    assert (found.prompt, found.answer.strip(), found.unused) == (asked, "See you", frozenset())


@pytest.mark.parametrize("name", ["asks to think", "opens a thought"])
def test_thoughts_in_the_text_that_are_dropped_leave_the_question_unlearned(name):
    thought = [turn("user", "Hi"), turn("assistant", "<think>\ngreet\n</think>\n\nHello"), *TALK[2:]]
    trained, found = read(name, thought)
    assert trained == ["\n\n" + EXPECTED[name][0], EXPECTED[name][1]]
    assert any("reasoning" in what for what in found.unused)
    assert not any("reasoning" in what for what in read("chatml", thought)[1].unused)


def test_marks_around_a_whole_turn_are_learned_and_asked_for_as_the_template_asks():
    """As SmolLM3's: what opens a turn and the end of its line are marked too."""
    made = tokenizer(
        "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}"
        "{{ '<|im_start|>assistant\n' + m.content + '<|im_end|>\n' }}{% endgeneration %}{% else %}"
        "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    row, table = Record({"prompt": "Hi", "answer": "Yes"}, "x", 1), DataTable(source="x", task="pairs")
    found = encode(maker(table, {"train": Rows((row,), 1)}, made).example(row), made, 100)
    run_prompts = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert made.decode(found.prompt) == run_prompts and found.references == ("Yes",)
    assert made.decode([*found.rows[0].tokens, found.rows[0].targets[-1]]) == f"{run_prompts}Yes<|im_end|>\n"
    assert made.decode(found.rows[0].targets) == "<|im_start|>assistant\nYes<|im_end|>\n"


def test_marks_without_the_content_are_refused():
    made = tokenizer("{% for m in messages %}{% generation %}{{ m.role + '<end>' }}{% endgeneration %}{% endfor %}")
    with pytest.raises(UserError, match="leaves out assistant turns"):
        render(conversation(TALK, "row 1"), made, "row 1")


def test_thoughts_of_a_field_or_in_the_text_are_written_once():
    field = [TALK[0], turn("assistant", "Hello", reasoning_content="greet")]
    inline = [TALK[0], turn("assistant", "<think>\ngreet\n</think>\n\nHello")]
    expected = ["<think>\ngreet\n</think>\n\nHello<|im_end|>"]
    assert read("thinks", field)[0] == read("thinks", inline)[0] == expected
    assert read("thinks", [*inline, *TALK[2:]])[0] == EXPECTED["thinks"]


def test_what_a_template_does_not_write_is_told():
    talk = [turn("system", "Be kind."), turn("user", "Hi", mood="good"), turn("assistant", "Yes", reasoning="so")]
    ignored = "the tools", "turns of the role 'system'", "the reasoning", "the field 'mood' of turns"
    assert read("instructions", talk, TOOLS)[1].unused == {f"the model's chat template ignores {it}" for it in ignored}
    calls = [*TALK[:2], turn("user", "?"), {**CALLS[1], "content": ""}]
    trained, found = read("always opens", calls)
    assert trained == ["Hello<|im_end|>"] and any("they are not learned" in what for what in found.unused)
    with pytest.raises(UserError, match="row 1: the conversation has no assistant turn to learn from in"):
        read("always opens", calls[2:])


def test_arguments_of_tools_that_the_template_would_quote_twice_are_told():
    calls = [turn("user", "When?"), {**CALLS[1], "content": None}]
    calls[1]["tool_calls"] = [{"type": "function", "function": {"name": "find", "arguments": '{"n": 1}'}}]
    trained, found = read("chatml", calls, TOOLS)
    assert r'"arguments": "{\"n\": 1}"' in trained[0]
    assert any("quotes tool arguments that are already JSON text" in what for what in found.unused)


@pytest.mark.parametrize("name", ["chatml", "marks", "instructions", "one end"])
@pytest.mark.parametrize("key", ["weight", "train", "loss"])
def test_turns_of_no_weight_are_not_learned(name, key):
    talk = [TALK[0], {**TALK[1], key: 0}, *TALK[2:]]
    assert read(name, talk)[0] == EXPECTED[name][1:]
    talk = [*TALK[:3], {**TALK[3], key: False}]
    assert read(name, talk)[0] == EXPECTED[name][:1]


def test_what_follows_the_last_answer_is_read_and_not_learned():
    trained, _ = read("chatml", [*TALK, turn("user", "Wait")])
    assert trained == EXPECTED["chatml"]


def test_named_templates_are_chosen_as_transformers_does():
    made = tokenizer("")
    made.chat_template = {"default": TEMPLATES["chatml"], "tool_use": "{{ tools | tojson }}" + TEMPLATES["chatml"]}
    found = render(conversation(CALLS, "row 1", tools=TOOLS), made, "row 1")
    assert "".join(text for text, _ in found.segments) == made.apply_chat_template(CALLS, tools=TOOLS, tokenize=False)
    assert found.segments[0][0].startswith('[{"type": "function"')


WORDS = st.text("ab <|>/\n⟦[]im_end", max_size=12) | st.sampled_from(["Hi", "</s>", "<|im_end|>", "<|im_start|>user\n"])


ENDS = {name: (EXPECTED[name][0].removeprefix("Hello"), EXPECTED[name][1].removeprefix("See you"))
        for name in ("chatml", "always opens", "two ends", "headers", "model", "marks", "marks ends")}  # fmt: skip


@settings(max_examples=20)
@given(st.data(), st.sampled_from(sorted(TEMPLATES)), st.booleans())
def test_any_conversation_is_the_templates_text(data, name, system):
    talk = [turn("system", data.draw(WORDS))] if system and name != "model" else []
    said = data.draw(st.lists(WORDS, min_size=1, max_size=3))
    for answer in said:
        talk += [turn("user", data.draw(WORDS)), turn("assistant", answer)]
    trained = read(name, talk)[0]
    if name in ENDS:
        middle, last = ENDS[name]
        said = [answer.strip() if name in TRIMMING else answer for answer in said]
        assert trained == [*(answer + middle for answer in said[:-1]), said[-1] + last]


def test_a_long_conversation_has_the_time_it_needs():
    talk = [turn(role, f"word {number} " * 40) for number in range(200) for role in ("user", "assistant")]
    assert len(read("thinks", talk)[0]) == 200
