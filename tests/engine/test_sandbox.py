"""The process for what strangers wrote: what it gives, what it may take, and that it never stands in the way."""

from __future__ import annotations

import marshal
import os
import subprocess
import sys
import time

import psutil
import pytest

from sparsezo_gui.engine.data.chat import render
from sparsezo_gui.engine.data.conversations import Conversation, conversation
from sparsezo_gui.engine.sandbox import child, process
from sparsezo_gui.engine.sandbox.process import Exceeded, Refused, Sandbox
from sparsezo_gui.errors import UserError
from tests.models import tokenizer
from tests.work import processor_seconds

TALK = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Hi <b>'you'</b>"},
    {"role": "assistant", "content": "<think>so</think> Hello "},
    {"role": "user", "content": "Bye"},
    {"role": "assistant", "content": "See you"},
]
CHAT_TEMPLATES = (
    "{{ bos_token }}{% for m in messages %}\n    {% if m.role == 'user' %}\n[INST] {{ m['content'] }} [/INST]"
    "    {% else %}\n{{ m.content | trim }}{{ eos_token }}\n    {% endif %}\n{% endfor %}",
    "{%- set ns = namespace(last=messages|length - 1, found=false) %}{%- for m in messages[::-1] %}"
    "{%- if not ns.found and m.role == 'user' %}{%- set ns.found = true %}{%- set ns.last = loop.revindex0 %}{%- endif "
    "%}{%- endfor %}{%- for m in messages %}{{- '<|im_start|>' + m.role + '\n' }}{%- if loop.index0 > ns.last %}"
    "{{- '<think>\n\n</think>\n\n' }}{%- endif %}{{- m.content.split('</think>')[-1].lstrip('\n') + '<|im_end|>\n' }}"
    "{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}",
    "{% for m in messages %}{% if m.role == 'system' %}{% continue %}{% endif %}{{ m | tojson }}{% generation %}"
    "{{ m.content | tojson(indent=2) }}{% endgeneration %}{% if loop.index > 3 %}{% break %}{% endif %}{% endfor %}",
    "{{ strftime_now('%Y') }} {{ dict(a=1, b=tools) }} {{ dict.fromkeys('ab') }} {{ documents is none }} {{ unknown }}"
    "{% macro say(m) %}{{ m.role | upper }}: {{ m.content }}{% endmacro %}{% for m in messages %}{{ say(m) }}"
    "{% endfor %}",
)
MUCH = r"64\.0 MiB of"
BOMBS = (
    ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "1 second"),
    ("{% set ns = namespace(x='a' * 99) %}{% for a in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}", MUCH),
    ("{{ 'x' * 10**9 }}", MUCH),
    ("{{ '%1000000000d' % 1 }}", MUCH),
    ("{{ '{:1000000000}'.format(1) }}", MUCH),
    ("{{ ('a' * 9999).replace('a', 'b' * 99999) }}", MUCH),
    ("{{ [0] * 10**8 }}", MUCH),
    ("{{ (9 ** (9 ** 9)) % 7 }}", "1 second"),  # in one call of C, which no signal interrupts
    ("{{ lipsum(n=10**9) }}", "1 second"),
)


@pytest.fixture
def sandbox():
    made = Sandbox()
    yield made
    made.close()


def with_template(text):
    made = tokenizer()
    made.chat_template = text
    return made


def written(talk, made, place):
    return "".join(piece for piece, _ in render(conversation(talk, place), made, place).segments)


@pytest.mark.parametrize("text", CHAT_TEMPLATES)
def test_conversations_read_as_transformers_writes_them(text):
    made = with_template(text)
    found = render(Conversation(TALK, trained=(2,)), made, "row 1")
    assert "".join(piece for piece, _ in found.segments) == made.apply_chat_template(TALK, tokenize=False)
    asked = made.apply_chat_template(TALK[:2], add_generation_prompt=True, tokenize=False)
    assert found.prompt.startswith(asked)  # a template that never asks is given what opens a turn


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{% set ns = namespace(__class__=1) %}", "__class__"),
        ("{{ messages.append(1) }}", "append"),
        ("{{ ''.__class__.__mro__ }}", "cannot be read from a template"),
        ("{% for", "is missing before|not closed"),
        ("{{ [].__class__.__base__.__subclasses__() }}", "cannot be read from a template"),
    ],
)
def test_what_a_chat_template_refuses_is_told(text, sentence):
    with pytest.raises(UserError, match=f"^row 1: the model's chat template refuses.*{sentence}"):
        written(TALK, with_template(text), "row 1")


@pytest.mark.parametrize(("text", "much"), BOMBS)
def test_a_chat_template_has_a_budget_for_each_row(text, much):
    refused = f"chat template: takes more than {much}.* on a.jsonl, row 3. Shorten the row"
    with processor_seconds(at_most=5), pytest.raises(UserError, match=refused):
        written(TALK, with_template(text), "a.jsonl, row 3")
    assert written(TALK, tokenizer(), "row 4").startswith("<s>")


@pytest.mark.parametrize(("work", "more"), [("prompt", ()), ("ending", ([],))])
def test_where_the_system_limits_no_memory_the_parent_does(sandbox, work, more):
    request = sandbox._start() and process._Request(60, 64 << 20)
    sandbox._request = request
    values = {"text": "ab", "x": "a" * 1000}
    bomb = "{{ (text" + " | replace('a', x)" * 4 + ") }}"
    unlimited = marshal.dumps((work, (bomb, values, *more), 60, 2**60))
    assert sandbox._exchange(sandbox._process, unlimited)[0] == b"" and request.exceeded == "memory"


def test_memory_that_was_taken_and_given_back_is_no_ones(sandbox):
    text, values = "{{ a }}" * 15, {"a": "a" * 1_000_000}
    for _ in range(6):
        assert len(sandbox.ask("prompt", text, values, seconds=5, memory=45 << 20)) == 15_000_000


def test_a_dead_process_is_replaced_and_an_interrupted_one_does_not_answer_late(sandbox, monkeypatch):
    ask = ("prompt", "{{ a }}", {"a": "1"})
    assert sandbox.ask(*ask, seconds=1, memory=64 << 20) == "1"
    sandbox._process.kill()
    sandbox._process.wait()
    assert sandbox.ask(*ask, seconds=1, memory=64 << 20) == "1"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(process, "_answer", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        sandbox.ask("prompt", "late", {}, seconds=1, memory=64 << 20)
    assert sandbox.ask(*ask, seconds=1, memory=64 << 20) == "1"


def test_it_ends_when_it_is_not_asked(sandbox, monkeypatch):
    monkeypatch.setattr(process, "_IDLE_SECONDS", 0.1)
    sandbox.ask("prompt", "a", {}, seconds=1, memory=64 << 20)
    deadline = time.monotonic() + 20
    while sandbox._process is not None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert sandbox._process is None
    assert sandbox.ask("prompt", "b", {}, seconds=1, memory=64 << 20) == "b"


@pytest.mark.slow
def test_it_knows_nothing_of_the_user_and_imports_no_torch(sandbox, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    found = psutil.Process(sandbox._start().pid)
    assert "HF_TOKEN" not in found.environ()
    code = "import sys\nsys.path[:0] = sys.argv[1:]\nfrom sparsezo_gui.engine.sandbox import child\nchild._work()\n"
    done = subprocess.run(
        [sys.executable, "-c", code + "print({'torch', 'transformers', 'numpy'} & set(sys.modules))"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "set()"


@pytest.mark.slow
@pytest.mark.parametrize("program", ["sparsezo_gui", "sparsezo_gui.cli"])
def test_a_frozen_program_is_its_own_child(program):
    request = marshal.dumps(("prompt", ("{{ a }}!", {"a": "x"}), 1, 64 << 20))
    done = subprocess.run(
        [sys.executable, "-m", program, child.WORD], input=len(request).to_bytes(8, "little") + request,
        capture_output=True, check=True, env=os.environ,
    )  # fmt: skip
    assert done.stdout == (1).to_bytes(8, "little") + b"d" + (3).to_bytes(8, "little") + b"dx!"


def test_what_a_library_says_comes_back(sandbox):
    with pytest.raises(Refused, match="it divides by zero"):
        sandbox.ask("prompt", "{{ 1 / 0 }}", {}, seconds=1, memory=64 << 20)
    with pytest.raises(Exceeded, match="memory"):
        sandbox.ask("prompt", "{{ a }}", {"a": "b" * 10_000_000}, seconds=1, memory=5_000_000)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_a_child_whose_parent_died_ends_by_itself():
    request = marshal.dumps(("prompt", ("{{ (9 ** (9 ** 9)) % 7 }}", {}), 0, 64 << 20))
    with subprocess.Popen(process._command(), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as orphan:
        orphan.stdin.write(len(request).to_bytes(8, "little") + request)
    assert orphan.returncode < 0


def test_a_process_that_ends_before_it_is_watched_is_no_fault():
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    Sandbox()._watch(gone)
