"""Sentences of the engine in the words of the window's forms: settings and export formats by their titles, not as in a
recipe's file or a command, and numbers as everywhere in the window."""

from __future__ import annotations

import re

from sparsezo_gui.formats import EXPORTS, export_format
from sparsezo_gui.gui.formatting import field_label
from sparsezo_gui.recipe.recipe import Recipe
from sparsezo_gui.recipe.registry import BY_TABLE
from sparsezo_gui.recipe.variants import shown

TITLES = {"mask": "Weights to tune", "estimator": "Gradient estimate", "update": "Update rule", "objective": "Loss",
          "selection": "Example selection", "privacy": "Privacy of the examples", "loop": "Training loop",
          "run": "Run storage"}  # fmt: skip
"""Sections of the Method page, by table."""
TABLES = {"model": "Model", "data": "Data", **TITLES}
_SETTING = re.compile(r"\[([a-z]+)\] ([a-z_]+)(?: = '([^']*)')?")
_DOTTED = re.compile(rf"\b({'|'.join(TABLES)})\.([a-z_]+)(?= ?=)")
_BARE = re.compile(
    r"(?<=[Ss]et )[a-z_]+(?= = )|(?<= or )[a-z_]+(?= = )|(?<= and )[a-z_]+(?= = )|(?<=(?:needs|nless) )[a-z_]+(?= = )"
)
_TABLE = re.compile(rf"(?:this |a )?\[({'|'.join(TABLES)})\](?= |\.|,)")
_TERMINAL = re.compile(r" \(in the terminal: [^)]*\)|[;,] in the terminal, add --[a-z-]+")
_COLUMNS = re.compile(r"with columns = \{[^}]*\}")
_NAME = "|".join(sorted(EXPORTS, key=len, reverse=True))
_FORMATS = re.compile(rf"with --format ((?:{_NAME})\b(?: or (?:{_NAME})\b)*)")

_GROUPED = re.compile(r"(?<!\w)'[^']*'|(?<![\w.,])\d{1,3}(?:,\d{3})+(?!\w|,\d)")


def grouped_numbers(sentence: str) -> str:
    """``sentence`` with "12,300" as "12 300", but for what it quotes."""
    return _GROUPED.sub(lambda found: found[0] if found[0][0] == "'" else found[0].replace(",", "\u2009"), sentence)


def in_form_words(sentence: str) -> str:
    """``sentence`` with "[estimator] rule = 'two-sided'" as "Gradient estimate = 'Central difference (SPSA)'",
    "[privacy]" as "'Privacy of the examples'", and "with --format hf" as "as 'Hugging Face folder'"; without hints for
    the terminal. See also `grouped_numbers`."""
    sentence = _COLUMNS.sub("above the rows on the Data page", _TERMINAL.sub("", sentence))
    sentence = _FORMATS.sub(_titles, _SETTING.sub(_words, sentence))
    sentence = _DOTTED.sub(lambda found: _title(*found.groups()) or found[0], sentence)
    sentence = _BARE.sub(lambda found: _only_title(found[0]) or found[0], sentence)
    return grouped_numbers(_TABLE.sub(lambda found: f"'{TABLES[found[1]]}'", sentence))


def _titles(found: re.Match[str]) -> str:
    return "as " + " or ".join(f"'{export_format(name).title}'" for name in found[1].split(" or "))


def _words(found: re.Match[str]) -> str:
    table, name, value = found.groups()
    registry = BY_TABLE.get(table)
    if name == "rule" and registry is not None:
        title = TITLES[table]
        value = registry[value].title if value in registry.paths else value
    else:
        title = _title(table, name)
    if not title:
        return found[0]  # no setting, but something like it
    return f"{title} = '{value}'" if value is not None else title


def _only_title(name: str) -> str:
    """The label of a setting whose table is not named, if all that have this name have the same."""
    found = {title for table in TABLES if (title := _title(table, name))}
    return found.pop() if len(found) == 1 else ""


def _title(table: str, name: str) -> str:
    """The label of a setting, whichever rule has it; empty if there is none."""
    registry, plain = BY_TABLE.get(table), Recipe.model_fields.get(table)
    kinds = [registry[rule] for rule in registry] if registry is not None else [plain and plain.annotation]
    for kind in kinds:
        field = getattr(kind, "model_fields", {}).get(name)
        if field is not None and field.json_schema_extra:
            return shown(field).title or field_label(name)
    return ""
