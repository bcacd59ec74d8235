"""Recipes from plain tables, with a clear sentence for every possible error."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from sparsezo_gui.errors import UserError, did_you_mean, quoted
from sparsezo_gui.recipe.rates import suited, usual
from sparsezo_gui.recipe.recipe import Recipe
from sparsezo_gui.recipe.registry import BY_TABLE, REGISTRIES
from sparsezo_gui.recipe.versions import ALIASES, renamed

_MOST_FAULTS = 20  # reported at once
_LONG = 100  # entries of a list that is not quoted
_WORDS = {
    "greater_than_equal": "must be {ge:g} or more", "greater_than": "must be greater than {gt:g}",
    "less_than_equal": "must be {le:g} or less", "less_than": "must be less than {lt:g}",
    "literal_error": "must be {expected}", "string_too_long": "must have at most {max_length} characters",
    "finite_number": "must be a finite number", "missing": "must be set", "json_invalid": "must be JSON",
    "string_pattern_mismatch": "must have the form {pattern}",
    **dict.fromkeys(("string_type", "string_unicode"), "must be text"),
    **dict.fromkeys(("int_parsing", "int_type", "int_from_float", "int_parsing_size"), "must be a whole number"),
    **dict.fromkeys(("float_parsing", "float_type"), "must be a number"),
    **dict.fromkeys(("bool_parsing", "bool_type"), "must be true or false"),
    **dict.fromkeys(("tuple_type", "list_type"), "must be a list"), "extra_forbidden": "is unknown",
    **dict.fromkeys(("dict_type", "model_type"), "must be a table"),
}  # fmt: skip
"""What pydantic says, in words for people."""


def build(tables: dict[str, Any], where: str = "recipe") -> Recipe:
    """``Recipe(**tables)``, but raises `UserError` with one sentence per error."""
    faults: list[str] = []
    variants: dict[str, Any] = {}
    tables = renamed(tables)
    for registry in REGISTRIES:
        # Variants are built separately: pydantic would merge their errors into one without a location.
        try:
            variants[registry.table] = registry.build(tables.get(registry.table, {}))
        except ValidationError as error:
            faults += [_sentence(tables, fault, (registry.table,)) for fault in error.errors()[:_MOST_FAULTS]]
        except UserError as error:
            faults.append(str(error))
    rest = {name: content for name, content in tables.items() if name not in BY_TABLE}
    try:
        recipe = Recipe.model_validate({**rest, **variants})
    except ValidationError as error:
        faults = [_sentence(tables, fault) for fault in error.errors()[:_MOST_FAULTS]] + faults
    if faults:
        raise UserError(*(f"{where}: {fault}" for fault in faults))
    return recipe


def changed(recipe: Recipe, tables: dict[str, dict[str, Any]], where: str = "recipe") -> Recipe:
    """Recipe with the settings in ``tables`` applied.

    A new rule comes with its own defaults (see `Registry.changed`) and with the learning rate that fits it (see
    `sparsezo_gui.recipe.rates`), unless that is set too. A rate that is set means that none is searched for; so does
    privacy. Raises `UserError`.
    """
    whole, tables = recipe.model_dump(mode="json"), renamed(tables)
    given = tables.get("update", {})
    if "learning_rate" in given or tables.get("privacy", {}).get("rule", "none") != "none":
        tables["update"] = {"find_rate": False, **given}
    for table, values in tables.items():
        registry = BY_TABLE.get(table)
        whole[table] = registry.changed(whole[table], values) if registry else whole[table] | values
    made = build(whole, where)
    rules = [(each.mask.rule, each.estimator.rule, each.update.rule) for each in (recipe, made)]
    if rules[0] == rules[1] or "learning_rate" in given:
        return made
    return made.with_rate(usual(made), True) if made.update.find_rate else made.with_rate(suited(recipe, made))


def _sentence(tables: dict[str, Any], fault: Any, prefix: tuple[str, ...] = ()) -> str:
    """One sentence for one pydantic error."""
    location = [*prefix, *(str(part) for part in fault["loc"])]
    if not location:  # parts that do not work together
        return str(fault["msg"]).removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        table, name = (location[0], location[-1]) if len(location) > 1 else ("", location[0])
        known = Recipe.model_fields if not table else _fields(tables, table)
        if new := ALIASES.get(table, {}).get(name):
            return f"[{table}] {name}: this is the old name of '{new}', which is set too. Remove one of them."
        if table in BY_TABLE and (others := BY_TABLE[table].having(name)):
            return (
                f"[{table}] {name}: rule = '{_rule(tables, table)}' has no such key; only these have it: "
                f"{', '.join(map(repr, others))}. Remove it."
            )
        kind = "key" if table else "table"
        return f"{f'[{table}] ' if table else ''}{name}: unknown {kind}. {did_you_mean(name, known)}"
    place = f"[{location[0]}] {'.'.join(location[1:])}".strip() if len(location) > 1 else location[0]
    given = fault["input"]
    long = isinstance(given, list | tuple) and len(given) > _LONG
    return f"{place}: {in_words(fault)}, not {f'{len(given):,} entries' if long else quoted(given)}."


def in_words(fault: Any) -> str:
    """What one pydantic error demands, such as 'must be 1 or more'."""
    if fault["type"] in ("value_error", "assertion_error"):  # our own words
        said = str(fault["msg"]).split(", ", 1)[-1]
        return said[:1].lower() + said[1:]
    return _WORDS.get(fault["type"], "must be another value").format(**fault.get("ctx", {}))


def _rule(tables: dict[str, Any], table: str) -> str:
    return str(tables.get(table, {}).get("rule", BY_TABLE[table].default))


def _fields(tables: dict[str, Any], table: str) -> set[str]:
    if table in BY_TABLE:
        return set(BY_TABLE[table][_rule(tables, table)].model_fields)
    return set(getattr(Recipe.model_fields[table].annotation, "model_fields", ()))
