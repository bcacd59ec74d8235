"""Writes the pages of the documentation that follow from the code: python packaging/make_docs.py

Methods and settings come from the pydantic models, commands from the argument parser, the Python interface and the file
formats from docstrings. A test compares the written pages with these.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from sparsezo_gui import api, formats, resources
from sparsezo_gui.cli.parser import parser
from sparsezo_gui.recipe import methods

PACKAGE = Path(api.__file__).parent
SPECIFIED = {
    "Recipe": "recipe/__init__.py",
    "Run folder": "engine/runs/__init__.py",
    "Journal": "engine/runs/journal.py",
    "Gradients": "engine/runs/gradients.py",
    "Checkpoints": "engine/runs/checkpoints.py",
    "Shared run": "engine/runs/share.py",
    "Mask": "engine/spaces/mask.py",
    "Overlay file": "engine/export/overlay_file.py",
    "Random numbers": "engine/zo/generator.py",
}
"""By title: modules whose docstrings specify a file format, and the random numbers that a journal stands for."""


def commands() -> str:
    """Every command, with its arguments."""
    parts = [
        "# Commands", "",
        "Every command prints its arguments with `--help`. It exits with 0 on success, 2 on bad input, and 1 on",
        "failure. [Without the window](../guides/terminal.md) shows the commands at work.", "",
    ]  # fmt: skip
    (subparsers,) = (each for each in parser()._actions if isinstance(each, argparse._SubParsersAction))
    for name, command in subparsers.choices.items():
        arguments = [each for each in command._actions if each.dest != "help"]
        arguments.sort(key=lambda each: (bool(each.option_strings), each.dest == "json"))
        taken = " ".join(_value(each) for each in arguments if not each.option_strings)
        parts += [f"## {name}", "", f"{command.description}", "", "```text", f"sparsezo {name} {taken}".strip(), "```"]
        parts += ["", "| argument | meaning |", "| --- | --- |", *map(_argument, arguments), ""]
    return "\n".join(parts).rstrip() + "\n"


def _value(action: argparse.Action) -> str:
    """What stands for an argument's value: its name, or the choices."""
    if action.metavar or not action.choices:
        return str(action.metavar or ("" if action.nargs == 0 else action.dest.upper()))
    return "|".join(map(str, action.choices))


def _argument(action: argparse.Action) -> str:
    name = " ".join([", ".join(action.option_strings), _value(action)]).strip().replace("|", ", ")
    help = str(action.help or "").replace("|", "&#124;").replace("@", "&#64;")  # no column, and no address
    return f"| `{name}` | {help} |"


def interface() -> str:
    """The Python interface."""
    parts = ["# Python", "", *_prose(inspect.getdoc(api) or ""), "## Functions", ""]
    for each in (api.load_recipe, api.train):
        parts += _documented(f"### {each.__name__}", each.__name__, each)
    parts += ["## Run", "", *_prose(inspect.getdoc(api.Run) or "")]
    parts += _documented("### Run(folder)", "Run", api.Run.__init__)
    for name, member in vars(api.Run).items():
        if not name.startswith("_"):
            is_property = isinstance(member, property)
            parts += _documented(f"### {name}", "run." + name, member.fget if is_property else member, is_property)
    return "\n".join(parts).rstrip() + "\n"


def _documented(title: str, name: str, function: object, is_property: bool = False) -> list[str]:
    signature = str(inspect.signature(function)) if callable(function) else ""  # type: ignore[arg-type]
    signature = re.sub(r"\(self(, )?", "(", re.sub(r"(: |-> )'(.*?)'", r"\1\2", signature))
    if is_property:
        signature = signature.removeprefix("()")
    return [title, "", "```text", f"{name}{signature}", "```", "", *_prose(inspect.getdoc(function) or "")]


def files() -> str:
    """Which files are read and written, and how each of our own is built."""
    parts = [
        "# File formats", "", "## Read and written", "", formats.markdown(), "",
        "The rest of this page specifies the files that SparseZO writes for itself. Old versions of all of them still",
        "open.", "",
    ]  # fmt: skip
    for title, path in SPECIFIED.items():
        text = ast.get_docstring(ast.parse((PACKAGE / path).read_text(encoding="utf-8"))) or ""
        parts += [f"## {title}", "", *_prose(text)]
    return "\n".join(parts).rstrip() + "\n"


def _prose(docstring: str) -> list[str]:
    """A docstring as lines of Markdown: tables, lists of terms and programs become code."""
    lines: list[str] = []
    for block in re.split(r"\n\s*\n", docstring):
        first, *rest = block.split("\n")
        if rest and re.fullmatch(r"-{3,}", rest[0]):  # a heading
            lines += [f"### {_inline(first)}", ""]
            first, *rest = rest[1:] or [""]
            if not first:
                continue
        block = "\n".join((first, *rest))
        if first.startswith("    ") or re.match(r"={3,} ", first) or re.search(r"^``\S.*?``\s{2,}", block):
            kind = "python" if re.search(r"^    (import|for|print) ", block, re.MULTILINE) else "text"
            if lines and lines[-1] == "" and len(lines) > 1 and lines[-2] == "```" and first.startswith("    "):
                lines = [*lines[:-2], "", *_code(block), "```", ""]  # another paragraph of the same program
            else:
                lines += [f"```{kind}", *_code(block), "```", ""]
        else:
            lines += [_inline(line) for line in block.split("\n")] + [""]
    return lines


def _code(block: str) -> list[str]:
    return [line.removeprefix("    ").replace("``", "").rstrip() for line in block.split("\n")]


def _inline(line: str) -> str:
    return re.sub(r"::$", ":", line.replace("``", "`"))


def pages() -> Iterator[tuple[Path, str]]:
    """Each generated page: its path, and what belongs there."""
    folder = resources.DOCS / "reference"
    yield folder / "methods.md", methods.markdown()
    yield folder / "commands.md", commands()
    yield folder / "python.md", interface()
    yield folder / "files.md", files()


if __name__ == "__main__":
    for path, text in pages():
        path.write_text(text, encoding="utf-8")
        print(path)
