"""Recipes in and out of TOML, with sentences for everything that can be wrong in one."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path, PureWindowsPath
from typing import Any

import tomlkit
from pydantic import ValidationError

from sparsezo_gui import resources
from sparsezo_gui.errors import UserError, did_you_mean, quoted
from sparsezo_gui.plain import quoted_plain
from sparsezo_gui.recipe.rates import suited
from sparsezo_gui.recipe.recipe import VERSION, Recipe
from sparsezo_gui.recipe.registry import BY_TABLE, REGISTRIES
from sparsezo_gui.sizes import size

# From version N to N + 1; the first will be written when version 2 is.
MIGRATIONS: dict[int, Callable[[dict], dict]] = {}
LARGEST_FILE = 200 << 10  # bytes; a recipe is about 1 KiB
MOST_DOTS = 1000  # in a line; the time and memory that a dotted name takes grow with the square of its parts
_MOST_FAULTS = 20  # told at once
# Keys that may hold a path, and the bundled names that each may hold instead.
_PATHS = (
    ("model", "id", resources.BUNDLED_MODELS),
    ("data", "source", resources.BUNDLED_DATA),
    ("mask", "text", {*resources.BUNDLED_TEXT, "task", "answers"}),
    ("mask", "texts", {*resources.BUNDLED_TEXT, "task", "answers"}),
    ("mask", "file", ()),
    ("run", "folder", ()),
)
# The keys of a table that the program wrote before others were added, all of which it writes; and what those others
# stood for before they existed.
BEFORE: dict[str, tuple[set[str], dict[str, Any]]] = {
    "model": ({"id", "revision", "bits", "device"}, {"block": 64}),
    "data": (
        {"source", "task", "template", "columns", "answers", "train", "validation", "test", "max_tokens"},
        {"chat_template": False},
    ),
}
# What only says where things lie and how they are kept here: a run may be told otherwise at any time.
PLACES: dict[str, Any] = {
    "model": {"id", "revision", "device", "trust_remote_code"}, "data": {"source"}, "mask": {"file"}, "run": True,
}


def load(name: str | Path) -> Recipe:
    """Recipe from a TOML file, or from the name of a bundled recipe. Relative paths in it are meant from its folder."""
    path = Path(name)
    if os.path.isdir(path):
        raise UserError(f"'{path}' is a folder; a recipe is a TOML file.")
    if not os.path.exists(path):
        if path.suffix or len(path.parts) > 1:
            raise UserError(
                f"There is no recipe file '{path}'. Check the path, or name a bundled recipe: "
                f"{', '.join(resources.recipes())}."
            )
        path = resources.recipe(str(name))
    if not os.path.isfile(path):  # of a pipe no end might come
        raise UserError(f"'{path}' is not a file; a recipe is a TOML file.")
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise UserError(f"{path}: larger than {size(LARGEST_FILE)}, so this is not a recipe.")
        text = path.read_text(encoding="utf-8-sig")  # some editors put a mark before the text
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a text file in UTF-8 (byte {error.start}).") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from error
    recipe = loads(text, str(path), path.parent)
    if not recipe.run.name:
        recipe = recipe.model_copy(update={"run": recipe.run.model_copy(update={"name": path.stem})})
    return recipe


def loads(text: str, where: str = "recipe", folder: Path | None = None) -> Recipe:
    """Recipe from TOML text; ``where`` names it in errors, ``folder`` is what relative paths are meant from."""
    if any(line.count(".") > MOST_DOTS for line in text.splitlines()):
        raise UserError(f"{where}: a line holds more than {MOST_DOTS:,} full stops, so this is not a recipe.")
    try:
        tables = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not valid TOML: {error}.") from error
    tables = _as_it_was(_migrated(tables, where))
    if folder is not None:
        _resolve_paths(tables, folder, where)
    return build(tables, where)


def _migrated(tables: dict[str, Any], where: str) -> dict[str, Any]:
    """The tables as this version of the format has them. Raises `UserError`."""
    version = tables.get("version", VERSION)
    if not isinstance(version, int) or isinstance(version, bool) or not 1 <= version <= VERSION:
        raise UserError(
            f"{where}: version {quoted(version)} is not known here (this program writes {VERSION}). Update SparseZO."
        )
    for step in range(version, VERSION):
        tables = MIGRATIONS[step](tables)
    return {**tables, "version": VERSION}


def _as_it_was(tables: dict[str, Any]) -> dict[str, Any]:
    """The tables, with what a key stood for in those that the program wrote before it had that key; see `BEFORE`."""
    found = {}
    for name, (written, added) in BEFORE.items():
        table = tables.get(name)
        if isinstance(table, dict) and table.keys() >= written:
            found[name] = {**added, **table}
    return {**tables, **found}


def build(tables: dict[str, Any], where: str = "recipe") -> Recipe:
    """Validated recipe from plain tables. A learning rate that they do not tell is the one that suits their rules (see
    `sparsezo_gui.recipe.rates`). Raises `UserError` with one sentence per fault."""
    faults, variants = [], {}
    for registry in REGISTRIES:
        # Variants are built apart from the rest: pydantic would fold their faults into one without a place.
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
    return recipe if "learning_rate" in tables.get("update", {}) else _at_suited_rate(Recipe(), recipe)


def with_settings(recipe: Recipe, settings: Iterable[str], folder: Path | None = None) -> Recipe:
    """Recipe with ``key=value`` settings put in, such as ``loop.steps=100``; values are TOML, or else plain words.

    Relative paths in them are meant from ``folder`` (None: they stay as they are). See `changed` for other rules.
    """
    tables, values = recipe.model_dump(mode="json"), dict[str, dict[str, Any]]()
    for setting in settings:
        key, sign, value = setting.partition("=")
        table, dot, name = key.strip().partition(".")
        if not sign or not dot:
            raise UserError(f"--set {setting}: write it as table.key=value, such as loop.steps=100.")
        if not isinstance(tables.get(table), dict):
            tables_known = [name for name, content in tables.items() if isinstance(content, dict)]
            raise UserError(f"--set {setting}: there is no table '{table}'. {did_you_mean(table, tables_known)}")
        values.setdefault(table, {})[name] = _value(value.strip())
    if folder is not None:
        _resolve_paths(values, folder, "--set")
    return changed(recipe, values, "--set")


def changed(recipe: Recipe, tables: dict[str, dict[str, Any]], where: str = "recipe") -> Recipe:
    """Recipe with the settings in ``tables`` put in.

    Another rule brings what is usual for it (see `Registry.changed`), and the learning rate follows, unless it is set
    too (see `sparsezo_gui.recipe.rates`). Raises `UserError`.
    """
    whole = recipe.model_dump(mode="json")
    for table, values in tables.items():
        registry = BY_TABLE.get(table)
        whole[table] = registry.changed(whole[table], values) if registry else whole[table] | values
    made = build(whole, where)
    rules = [(each.mask.rule, each.estimator.rule, each.update.rule) for each in (recipe, made)]
    if rules[0] == rules[1] or "learning_rate" in tables.get("update", {}):
        return made
    return _at_suited_rate(recipe, made)


def portable(recipe: Recipe) -> Recipe:
    """The recipe to give away: of a path only its last part, as if it lay beside the recipe, and no folder of the run.
    Bundled names and Hub ids stay, and different paths stay different."""
    names: dict[str, str] = {}

    def beside(path: str, known: Iterable[str]) -> str:
        absolute = os.path.isabs(path) or PureWindowsPath(path).is_absolute()
        if path in known or not (absolute or path.startswith((".", "~")) or os.path.exists(path)):
            return path
        name = PureWindowsPath(path).name or "here"  # it knows both kinds of slash
        number = len(names) + 1
        return names.setdefault(path, f"./{name}" if f"./{name}" not in names.values() else f"./{number}-{name}")

    tables = {table: getattr(recipe, table) for table, _, _ in _PATHS}
    for table, key, known in _PATHS:
        value = getattr(tables[table], key, ())
        found = beside(value, known) if isinstance(value, str) else tuple(beside(each, known) for each in value)
        if value:
            tables[table] = tables[table].model_copy(update={key: "" if key == "folder" else found})
    return recipe.model_copy(update=tables)


def values(recipe: Recipe) -> dict[str, Any]:
    """What decides what a run does, as plain tables: all but `PLACES`, and of the mask's texts the bundled ones."""
    tables = recipe.model_dump(mode="json", exclude=PLACES)
    for table, key, names in _PATHS:
        if table == "mask" and key in tables[table]:
            value = tables[table][key]
            kept = [each if each in names else "" for each in ([value] if isinstance(value, str) else value)]
            tables[table][key] = kept[0] if isinstance(value, str) else kept
    return tables


def differences(kept: dict[str, Any], recipe: Recipe) -> list[tuple[str, Any, Any]]:
    """Keys of which ``recipe`` has other values than `values` once ``kept`` of it: key, old and new value. Keys that
    the version which kept them did not have are passed over. Raises `UserError`."""
    now = values(recipe)
    if kept == now:
        return []
    before = _migrated(kept, "run.json: [recipe]")
    return [
        (f"{table}.{key}", old, now[table].get(key))
        for table, content in before.items() if isinstance(content, dict) and table in now
        for key, old in content.items() if now[table].get(key) != old
    ]  # fmt: skip


def _at_suited_rate(before: Recipe, after: Recipe) -> Recipe:
    update = after.update.model_copy(update={"learning_rate": suited(before, after)})
    return after.model_copy(update={"update": update})


def dump(recipe: Recipe) -> str:
    """Recipe as TOML text that `loads` gives back unchanged; everything is written, also defaults."""
    return quoted_plain(tomlkit.dumps(recipe.model_dump(mode="json")))


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text


def _resolve_paths(tables: dict[str, Any], folder: Path, where: str) -> None:
    """Turns paths that exist beside the recipe into absolute ones; a bundled name or a Hub id stays as it is."""
    for table, key, names in _PATHS:
        content = tables.get(table)
        value = content.get(key) if isinstance(content, dict) else None
        if not isinstance(value, str | list):
            continue
        try:
            found = [_resolved(each, folder, key, names) for each in ([value] if isinstance(value, str) else value)]
        except (OSError, ValueError, RuntimeError) as error:  # too long, a zero in it, links in a circle
            raise UserError(f"{where}: [{table}] {key}: {quoted(value)} is no path ({error}).") from error
        content[key] = found[0] if isinstance(value, str) else found


def _resolved(value: Any, folder: Path, key: str, names: Iterable[str]) -> Any:
    if not isinstance(value, str) or not value or value in names:
        return value
    path = folder / os.path.expanduser(value)
    relative = value.startswith(("./", "../", "~")) or key == "folder" or os.path.exists(path)
    return str(path.resolve()) if relative else value


def _sentence(tables: dict[str, Any], fault: Any, prefix: tuple[str, ...] = ()) -> str:
    """One sentence for one pydantic error."""
    location = [*prefix, *(str(part) for part in fault["loc"])]
    if not location:  # parts that do not go together
        return fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        table, name = (location[0], location[-1]) if len(location) > 1 else ("", location[0])
        known = Recipe.model_fields if not table else _fields(tables, table)
        if table in BY_TABLE and (others := BY_TABLE[table].having(name)):
            return (
                f"[{table}] {name}: rule = '{_rule(tables, table)}' has no such key; it belongs to "
                f"{', '.join(map(repr, others))}. Remove it."
            )
        kind = "key" if table else "table"
        return f"{f'[{table}] ' if table else ''}{name}: there is no such {kind}. {did_you_mean(name, known)}"
    place = f"[{location[0]}] {'.'.join(location[1:])}".strip() if len(location) > 1 else location[0]
    message = fault["msg"].removeprefix("Value error, ")
    return f"{place}: {message[:1].lower()}{message[1:]}, not {quoted(fault['input'])}."


def _rule(tables: dict[str, Any], table: str) -> str:
    return tables.get(table, {}).get("rule", BY_TABLE[table].default)


def _fields(tables: dict[str, Any], table: str) -> set[str]:
    if table in BY_TABLE:
        return set(BY_TABLE[table][_rule(tables, table)].model_fields)
    return set(getattr(Recipe.model_fields[table].annotation, "model_fields", ()))
