"""Templates: what they can say, and that none can get out of its sandbox, run for long or fill the memory."""

from datetime import date
from decimal import Decimal

import pytest

from sparsezo_gui.engine.data import template as templates
from sparsezo_gui.engine.data.template import Template
from sparsezo_gui.errors import UserError
from tests.work import peak, processor_seconds

ROW = {"text": "a fine film", "label": "good", "n": 3, "parts": ["x", "y"], "o": {"p": "q"}, "empty": ""}


def render(text):
    return Template(text).render({**ROW, "row": ROW}, "a.jsonl, row 1")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{ text }}\nIt was", "a fine film\nIt was"),
        ("{{ text | capital }}{{ '' if text.endswith('?') else '?' }}", "A fine film?"),
        ("{% if empty %}no{% elif n > 2 and n != 7 %}yes{% else %}no{% endif %}", "yes"),
        ("{{ text.strip().removesuffix('film') | trim | upper }}", "A FINE"),
        ("{{ text | replace('fine', label) }}", "a good film"),
        ("{{ parts | join(', ') }} {{ parts[0] }} {{ parts | last }} {{ text[2:6] }}", "x, y x y fine"),
        ("{{ row['text'] }} {{ o.p }} {{ n + 1 }} {{ -n }} {{ 7 // 2 }} {{ label + '!' }}",
         "a fine film q 4 -3 3 good!"),
        ("{{ ['a', text] | length }} {{ 'fine' in text }} {{ text is defined }} {{ missing is defined }}",
         "2 True True False"),
        ("{{ text | truncate(5) }} {{ '7' | int }} {{ empty | default('none', true) }}{# a word #}", "a... 7 none"),
        ("{% raw %}{{ text }}{% endraw %}\n", "{{ text }}\n"),
    ],
)  # fmt: skip
def test_what_a_template_can_say(text, expected):
    assert render(text) == expected


ESCAPES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ text['__class__'] }}",
    "{{ text | attr('__class__') }}",
    "{{ cycler.__init__.__globals__ }}",
    "{{ lipsum.__globals__['os'].popen('id').read() }}",
    "{{ joiner.__init__.__globals__ }}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ self.__init__.__globals__ }}",
    "{{ self._TemplateReference__context }}",
    "{{ '{0.__class__}'.format(text) }}",
    "{{ '{x.__class__}'.format_map({'x': text}) }}",
    "{{ text.format }}{{ text.format.__globals__ }}",
    "{{ (text.strip).__self__.__class__ }}",
    "{{ text.strip.__objclass__ }}",
    "{{ [text] | map(attribute='__class__') | list }}",
    "{{ [text] | join('', '__class__') }}",
    "{{ [text] | sort(attribute='__class__') }}",
    "{{ [text] | groupby('__class__') }}",
    "{{ parts.append('z') }}",
    "{{ row.update({'text': 'z'}) }}",
    "{{ text.join(parts) }}",
    "{{ range(3) }}",
    "{{ dict(a=1) }}",
    "{{ get_flashed_messages.__globals__ }}",
    "{{ url_for.__globals__ }}",
    "{{ config }}",
    "{{ text.__init__.__globals__ }}",
    "{{ ().__class__.__base__ }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}",
    "{% extends '/etc/passwd' %}",
    "{% from 'os' import system %}",
    "{% set x = text.__class__ %}{{ x }}",
    "{% do parts.append('z') %}",
]


@pytest.mark.parametrize("text", ESCAPES)
def test_no_way_out_of_the_sandbox(text):
    with pytest.raises(UserError, match=r"^\[data\] template"):
        render(text)
    assert ROW["parts"] == ["x", "y"] and ROW["text"] == "a fine film"


def test_what_the_parser_says_is_a_sentence():
    with pytest.raises(UserError, match=r"line 1: '\{\{' or '\{%' is not closed: .* after it\. Write a column as"):
        render("{{ text")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{% if n %}x", "'{% if %}' has no '{% endif %}'"),
        ("{# x", "'{#' is not closed: write '#}' after it"),
        ("{{ text & n }}", "'&' is not expected here"),
        ("{{ text label }}", "'label' is not expected here"),
        ("{{ }}", "a column or a value is missing before '}}'"),
        ("{% foo %}", "there is no '{% foo %}'"),
        ("{% endif %}", "'{% endif %}' is here, but nothing before it that it belongs to"),
        ("{{ text }", "'}' is not expected here; '{{' is closed by '}}'"),
        ("{{ 'text }}", "a text in quotes is not closed: write ' after it"),
        ("{{ text. }}", "a name is missing after '.'"),
        ("{{ (text }}", "')' is missing before the end of the expression"),
        ("{% raw %}x", "'{% raw %}' has no '{% endraw %}'"),
        ("{%", "'{%' needs a word after it, such as 'if'"),
    ],
)
def test_what_the_parser_says_is_told_in_our_own_words_with_its_line(text, told):
    with pytest.raises(UserError) as error:
        render(f"{{{{ text }}}}\n{text}")
    assert str(error.value) == f"[data] template, line 2: {told}. Write a column as {{{{ column }}}}."


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{{ text + n }}", "'+' joins texts, or adds numbers, but not both"),
        ("{{ n + text }}", "'+' joins texts, or adds numbers, but not both"),
        ("{{ o.q }}", "a value has no part 'q'"),
        ("{{ parts[7] }}", "a value has no part '7'"),
        ("{{ n / 0 }}", "it divides by zero"),
        ("{{ text < n }}", "a text and a number cannot be compared"),
        ("{{ text - n }}", "'-' needs numbers on both sides"),
        ("{{ text.__class__ }}", "'__class__' cannot be read from a template"),
    ],
)
def test_what_fails_on_a_row_is_told_in_our_own_words_with_its_line(text, told):
    with pytest.raises(UserError) as error:
        render(f"{{{{ text }}}}\n{text}")
    assert str(error.value) == f"[data] template: fails on a.jsonl, row 1: line 2: {told}."


BOMBS = [
    "{{ 'a' * 10**9 }}",
    "{{ ['a'] * 10**9 }}",
    "{{ 10 ** 10 ** 10 }}",
    "{{ '%1000000000d' % 1 }}",
    "{{ '%*d' % (1000000000, 1) }}",
    "{{ '{:1000000000}'.format(1) }}",
    "{{ 'a'.center(10**9) }}{{ 'a'.ljust(1000000000) }}{{ 'a'.zfill(1000000000) }}",
    "{{ text | center(1000000000) }}",
    "{{ text | indent(1000000000) }}",
    "{{ text | format(1) }}",
    "{{ 1 | round(1000000000, 'ceil') }}",
    "{{ row | tojson(indent=1000000000) }}",
    "{{ 'a' | batch(1000000000, 'a') | list }}",
    "{{ text | wordwrap(1, wrapstring=text) }}",
    "{{ range(10**9) | sum }}",
    "{{ lipsum(n=10**9) }}",
    "{% for a in text %}{% for b in text %}{% for c in text %}{{ text }}{% endfor %}{% endfor %}{% endfor %}",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "{% set x = text %}{% set x = x ~ x %}",
    "{{ 'a' ~ 'a' }}",
    "{% block a %}{{ self.a() }}{% endblock %}",
    "{{ text" + " | replace('', 'aaaaaaaaaa')" * 20 + " }}",
    "{{ text" + " | replace('a', 'aaaaaaaaaa')" * 20 + " }}",
    "{{ [" + ("text" + " | replace('', 'aaaaaaaaaa')" * 5 + ",") * 40 + "] | join }}",
    "{{ " + "(" * 5000 + "text" + ")" * 5000 + " }}",
    "{{ " + "not " * 4000 + "text }}",
    "{{ text }}" * 3000,
]  # fmt: skip


@pytest.mark.parametrize("text", BOMBS)
def test_no_template_runs_long_or_fills_the_memory(text):
    with processor_seconds(at_most=5), pytest.raises(UserError, match=r"^\[data\] template") as error:
        render(text)
    assert "MemoryError" not in str(error.value)


def test_the_text_of_a_row_is_bounded():
    with pytest.raises(UserError, match="fails on row 1: its text is longer than 16,000,000 characters"):
        Template("{{ text }}{{ text }}").render({"text": "a" * 9_000_000}, "row 1")


@pytest.mark.parametrize(
    ("text", "much"),
    [
        (("{{ (text" + " | capitalize | upper" * 70 + ") == text }}") * 12, "1 second"),  # 19 kB
        ("{{ text.split() + text.split() + text.split() }}", "64.0 MiB of memory"),
        ("{{ text | replace('w', text) }}", "64.0 MiB of memory"),
    ],
)
def test_a_row_has_one_budget_for_the_whole_template(text, much):
    refused = f"takes more than {much} on a.jsonl, row 7. Shorten the row or leave it out"
    with processor_seconds(at_most=8), pytest.raises(UserError, match=refused):
        Template(text).render({"text": "word " * 400_000}, "a.jsonl, row 7")
    assert render("{{ text }}") == "a fine film"  # the next one gets a process of its own


def test_constant_parts_are_not_computed_where_nothing_limits_them():
    text = "{{ '" + "a" * 4000 + "' | replace('', '" + "b" * 1000 + "')" + " | title" * 90 + " }}"
    assert peak(lambda: Template(text)) < 2**21  # computed, it has four million characters
    template = Template(text)
    assert template.names == set()
    with pytest.raises(UserError, match="takes more than"):
        template.render({}, "row 1")


@pytest.mark.parametrize(
    ("text", "row", "here"),
    [
        ("{{ text | trim | capital }}{% if label %} {{ label.strip() }}{% endif %}", ROW, True),
        ("{{ text }}", {"text": "a" * 300_000}, True),
        ("{{ text }}", {"text": "a" * 500_000}, False),
        ("{{ text }} {{ text.split() }}", {"text": "a" * 200_000}, False),
        ("{{ text }}", {"text": ["a"]}, False),
        ("{{ text + text }}", ROW, False),
        ("{{ text | replace('a', 'b') }}", ROW, False),
        ("{{ text | truncate(5, end='a') }}", ROW, False),
        ("{{ (text, text) }}", ROW, False),
        ("{{ text }}" + "a" * 3000, ROW, False),
    ],
)
def test_only_what_is_surely_small_runs_in_this_process(text, row, here, monkeypatch):
    asked = []
    monkeypatch.setattr(templates, "rendered", lambda *request: asked.append(request) or "")
    Template(text).render(row, "row 1")
    assert bool(asked) is not here


def test_values_of_any_kind_are_told_as_text():
    values = {"day": date(2024, 5, 6), "price": Decimal("1.50"), "list": [date(2024, 1, 2)], "none": None}
    text = Template("{{ day }} {{ price }} {{ list[0] }} {{ none }}|").render(values, "row 1")
    assert text == "2024-05-06 1.50 2024-01-02 |"


@pytest.mark.parametrize(
    "text", ["{{ a }}", "{{ a | trim }}", "{{ a | string }}", "{{ [a] | join }}", "{{ 'b' | replace('b', a) }}"]
)
@pytest.mark.parametrize(
    ("value", "told"),
    [({"title": 1, "body": 2}, "an object with 'title', 'body'"), ([1, 2], "a list of 2 items"), (b"abc", "3 bytes")],
)
@pytest.mark.parametrize("bundled", [False, True])
def test_how_python_writes_objects_never_reaches_a_model(text, value, told, bundled):
    with pytest.raises(UserError, match=f"fails on row 1: {told} is not text"):
        Template(text, bundled=bundled).render({"a": value}, "row 1")


def test_what_is_left_out_is_told_with_its_line_and_what_to_take_instead():
    with pytest.raises(UserError, match=r"line 2: 'for' is not allowed in a prompt; only columns, if, "):
        Template("{{ text }}\n{% for part in parts %}{{ part }}{% endfor %}")
    with pytest.raises(UserError, match=r"line 1: 'replace' cannot be called\. .*filters: .*replace"):
        Template("{{ text.replace('a', 'b') }}")


@pytest.mark.parametrize("name", templates.FILTERS)
def test_every_filter_is_harmless_on_every_kind_of_value(name):
    for value in ROW:
        for arguments in ("", "(10000000000)", "('a', 'b')", "(text, text)"):
            try:
                assert len(render(f"{{{{ {value} | {name}{arguments} }}}}")) < 10_000
            except UserError as error:
                assert str(error).startswith("[data] template")
