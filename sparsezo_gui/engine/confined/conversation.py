"""Chat templates as `transformers` renders them, for a process that shall not import it (which would import torch).

What a template sees and may call is that of ``transformers.utils.chat_template_utils``; a test compares the two. No
documents come here.
"""

from __future__ import annotations

import functools
import json
from datetime import datetime
from typing import Any

from jinja2 import Template, TemplateError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, LoopControlExtension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from sparsezo_gui.engine.confined import turns


class _Generation(Extension):
    """``{% generation %}`` marks what the assistant writes, and changes nothing in the text."""

    tags = frozenset({"generation"})

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_written"), [], [], body).set_lineno(line)

    def _written(self, caller: Any) -> str:
        return caller()


class _Namespace(Namespace):
    def __init__(*args: Any, **values: Any) -> None:
        self, args = args[0], args[1:]
        values = dict(*args, **values)
        for name in values:
            _check_name(name)
        Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        Namespace.__setitem__(self, name, value)


class _Dict:
    def __call__(self, *args: Any, **values: Any) -> dict:
        return dict(*args, **values)

    def fromkeys(self, *args: Any) -> dict:
        return dict.fromkeys(*args)


def _check_name(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace cannot hold {name!r}")


def _tojson(value: Any, ensure_ascii=False, indent=None, separators=None, sort_keys=False) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise(message: str) -> None:
    raise TemplateError(message)


@functools.lru_cache(maxsize=4)
def compiled(text: str) -> Template:
    """``text`` as a template."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, LoopControlExtension]
    )
    environment.filters["tojson"] = _tojson
    environment.globals |= {
        "raise_exception": _raise, "strftime_now": lambda form: datetime.now().strftime(form), "dict": _Dict(),
        "namespace": _Namespace,
    }  # fmt: skip
    return environment.from_string(text)


def render(text: str, values: dict[str, Any]) -> str:
    """The text of the conversation ``values['messages']``."""
    return _writer(text, values)(values.get("messages", []), values.get("add_generation_prompt", False))


def ending(text: str, values: dict[str, Any], special: list[str]) -> str:
    """`turns.Ending` of the template as JSON."""
    found = turns.ending(_writer(text, values), special)
    return json.dumps({**vars(found), "openers": sorted(found.openers)})


def _writer(text: str, values: dict[str, Any]) -> turns.Write:
    shared = {"tools": None, "documents": None, **values}

    def write(messages: list[turns.Message], prompt: bool) -> str:
        return compiled(text).render({**shared, "messages": _normal(messages), "add_generation_prompt": prompt})

    return write


def _normal(messages: list[turns.Message]) -> list[turns.Message]:
    """Without what is null, and with the thoughts under each of their names."""
    found = []
    for message in messages:
        message = {key: value for key, value in message.items() if value is not None}
        if thought := next((message[key] for key in turns.THOUGHTS if key in message), None):
            message = {"thinking": thought, **message, "reasoning_content": thought}
        found.append(message)
    return found
