"""What is wrong with a template, in words for people: those of Jinja and Python are for programmers."""

from __future__ import annotations

import re
from types import TracebackType

from jinja2 import TemplateError, TemplateSyntaxError

_SIGNS = {"end of print statement": "}}", "end of statement block": "%}", "begin of print statement": "{{"}
_KNOWN = (
    (r"nexpected end of template.*innermost block that needs to be closed is '(\w+)'",
     "'{{% {0} %}}' has no '{{% end{0} %}}'"),
    (r"nexpected end of template", "'{{{{' or '{{%' is not closed: write '}}}}' or '%}}' after it"),
    (r"Missing end of comment", "'{{#' is not closed: write '#}}' after it"),
    (r"Missing end of raw", "'{{% raw %}}' has no '{{% endraw %}}'"),
    (r"unknown tag '(end\w+|el\w+)'", "'{{% {0} %}}' is here, but nothing before it that it belongs to"),
    (r"unknown tag '(.+?)'", "there is no '{{% {0} %}}'"),
    (r"tag name expected", "'{{%' needs a word after it, such as 'if'"),
    (r"unexpected '}', expected '(.)'", "'{0}' is missing before the end of the expression"),
    (r"unexpected '}'", "'}}' is not expected here; '{{{{' is closed by '}}}}'"),
    (r"unexpected char [\"'](['\"])[\"'] at", "a text in quotes is not closed: write {0} after it"),
    (r"(?:Expected an expression, got|unexpected) '(.+)'", "a column or a value is missing before '{0}'"),
    (r"unexpected char '(.+?)' at", "'{0}' is not expected here"),
    (r"expected token '.+?', got '(.+)'", "'{0}' is not expected here"),
    (r"expected name or number", "a name is missing after '.'"),
    (r"^'(\w+)' is undefined", "there is no '{0}'"),
    (r"has no (?:attribute|element) '?(\w+)'?", "a value has no part '{0}'"),
    (r"access to attribute '(\w+)' of .* is unsafe", "'{0}' cannot be read from a template"),
    (r"concatenate|unsupported operand type\(s\) for \+", "'+' joins texts, or adds numbers, but not both"),
    (r"unsupported operand type\(s\) for (\S+):", "'{0}' needs numbers on both sides"),
    (r"not supported between instances of '(\w+)' and '(\w+)'", "a text and a number cannot be compared"),
    (r"index out of range", "a list or a text is shorter than that"),
    (r"division by zero", "it divides by zero"),
    (r"object is not callable", "something is called as a function that is none"),
    (r"object is not (?:iterable|subscriptable)", "a number or nothing is used as a list"),
    (r"escape", "a text in quotes has a '\\' that means nothing; write '\\\\'"),
)  # fmt: skip
"""What an error says, and how to say it."""


def told(error: BaseException) -> str:
    """One sentence without its full stop; the line is named unless it is the first. A template's own refusal is
    quoted."""
    if type(error) is TemplateError:  # raised by the template
        return f"'{str(error).strip().rstrip('.')}'"
    line = error.lineno if isinstance(error, TemplateSyntaxError) else _line(error.__traceback__)
    said = words(error.message if isinstance(error, TemplateSyntaxError) else str(error)) or type(error).__name__
    return f"line {line}: {said}" if line > 1 else said


def words(message: str | None) -> str:
    """What an error's ``message`` means; itself if it is not one of Jinja's or Python's."""
    text = (message or "").strip().rstrip(".")
    for pattern, sentence in _KNOWN:
        if found := re.search(pattern, text, re.DOTALL):
            return sentence.format(*(_SIGNS.get(each, each) for each in found.groups()))
    return text


def _line(trace: TracebackType | None) -> int:
    """The line of a template in which an error occurred, 0 if in none."""
    found = 0
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<template>":
            found = trace.tb_lineno
        trace = trace.tb_next
    return found
