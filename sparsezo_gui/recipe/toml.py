"""Reading and writing recipes as TOML, with a clear sentence for every possible error."""

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

# From version N to N + 1; none yet.
MIGRATIONS: dict[int, Callable[[dict], dict]] = {}
# Old names of keys, by table: in files, settings and runs they mean the new ones.
ALIASES: dict[str, dict[str, str]] = {"run": {"frames": "checkpoints"}}
LARGEST_FILE = 200 << 10  # bytes; a recipe is about 1 KiB
MOST_DOTS = 1000  # in a line; time and memory to parse a dotted key grow with the square of its parts
_MOST_FAULTS = 20  # reported at once
# Keys whose value may be a path, and the bundled names that each may have instead.
_PATHS = (
    ("model", "id", resources.BUNDLED_MODELS),
    ("data", "source", resources.BUNDLED_DATA),
    ("mask", "text", {*resources.BUNDLED_TEXT, "task", "answers"}),
    ("mask", "texts", {*resources.BUNDLED_TEXT, "task", "answers"}),
    ("mask", "file", ()),
    ("run", "folder", ()),
)
# All keys that the program used to write for a table before it got more, and what those later keys mean in a recipe
# from before.
BEFORE: dict[str, tuple[set[str], dict[str, Any]]] = {
    "model": ({"id", "revision", "bits", "device"}, {"block": 64}),
    "data": (
        {"source", "task", "template", "columns", "answers", "train", "validation", "test", "max_tokens"},
        {"chat_template": False},
    ),
}
# Keys that only say where things are stored on this computer; they may change at any time during a run.
PLACES: dict[str, Any] = {
    "model": {"id", "revision", "device", "trust_remote_code"}, "data": {"source"}, "mask": {"file"}, "run": True,
}


def load(name: str | Path) -> Recipe:
    """Recipe from a TOML file, or from the name of a bundled recipe. Relative paths in it start from its folder."""
    path = Path(name)
    if os.path.isdir(path):
        raise UserError(f"'{path}' is a folder; a recipe is a TOML file.")
    if not os.path.exists(path):
        if path.suffix or len(path.parts) > 1:
            raise UserError(
                f"There is no recipe file '{path}'. Check the path, or use a bundled recipe: "
                f"{', '.join(resources.recipes())}."
            )
        path = resources.recipe(str(name))
    if not os.path.isfile(path):  # reading from a pipe may never end
        raise UserError(f"'{path}' is not a file; a recipe is a TOML file.")
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise UserError(f"{path}: larger than {size(LARGEST_FILE)}, so this is not a recipe.")
        text = path.read_text(encoding="utf-8-sig")  # some editors write a byte order mark
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a text file in UTF-8 (byte {error.start}).") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from error
    recipe = loads(text, str(path), path.parent)
    if not recipe.run.name:
        recipe = recipe.model_copy(update={"run": recipe.run.model_copy(update={"name": path.stem})})
    return recipe


def loads(text: str, where: str = "recipe", folder: Path | None = None) -> Recipe:
    """Recipe from TOML text; ``where`` names it in errors, relative paths start from ``folder``."""
    if any(line.count(".") > MOST_DOTS for line in text.splitlines()):
        raise UserError(f"{where}: a line has more than {MOST_DOTS:,} dots, so this is not a recipe.")
    try:
        tables = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not valid TOML: {error}.") from error
    tables = _as_it_was(_migrated(tables, where))
    if folder is not None:
        _resolve_paths(tables, folder, where)
    return build(tables, where)


def _migrated(tables: dict[str, Any], where: str) -> dict[str, Any]:
    """The tables, migrated to the current version of the format. Raises `UserError`."""
    version = tables.get("version", VERSION)
    if not isinstance(version, int) or isinstance(version, bool) or not 1 <= version <= VERSION:
        raise UserError(
            f"{where}: unknown version {quoted(version)} (this program writes version {VERSION}). Update SparseZO."
        )
    for step in range(version, VERSION):
        tables = MIGRATIONS[step](tables)
    return {**tables, "version": VERSION}


def _as_it_was(tables: dict[str, Any]) -> dict[str, Any]:
    """The tables; those from before a key existed get the value that it had in effect then, see `BEFORE`."""
    found = {}
    for name, (written, added) in BEFORE.items():
        table = tables.get(name)
        if isinstance(table, dict) and table.keys() >= written:
            found[name] = {**added, **table}
    return {**tables, **found}


def _renamed(tables: dict[str, Any]) -> dict[str, Any]:
    """The tables with the new names of keys, see `ALIASES`; beside the new name, an old one is an unknown key."""
    found = {}
    for name, names in ALIASES.items():
        table = tables.get(name)
        if isinstance(table, dict):
            found[name] = {key if (new := names.get(key, key)) in table else new: table[key] for key in table}
    return {**tables, **found}


def build(tables: dict[str, Any], where: str = "recipe") -> Recipe:
    """Validated recipe from plain tables. A missing learning rate is set to the one that fits the rules (see
    `sparsezo_gui.recipe.rates`). Raises `UserError` with one sentence per error."""
    faults, variants, tables = [], {}, _renamed(tables)
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
    return recipe if "learning_rate" in tables.get("update", {}) else _at_suited_rate(Recipe(), recipe)


def with_settings(recipe: Recipe, settings: Iterable[str], folder: Path | None = None) -> Recipe:
    """Recipe with ``key=value`` settings applied, such as ``loop.steps=100``; values are TOML, or else plain strings.

    Relative paths in them start from ``folder`` (None: they stay as they are). See `changed` for a change of rules.
    """
    tables, values = recipe.model_dump(mode="json"), dict[str, dict[str, Any]]()
    for setting in settings:
        key, sign, value = setting.partition("=")
        table, dot, name = key.strip().partition(".")
        if not sign or not dot:
            raise UserError(f"--set {setting}: write it as table.key=value, such as loop.steps=100.")
        if not isinstance(tables.get(table), dict):
            tables_known = [name for name, content in tables.items() if isinstance(content, dict)]
            raise UserError(f"--set {setting}: unknown table '{table}'. {did_you_mean(table, tables_known)}")
        values.setdefault(table, {})[name] = _value(value.strip())
    if folder is not None:
        _resolve_paths(values, folder, "--set")
    return changed(recipe, values, "--set")


def changed(recipe: Recipe, tables: dict[str, dict[str, Any]], where: str = "recipe") -> Recipe:
    """Recipe with the settings in ``tables`` applied.

    A new rule comes with its own defaults (see `Registry.changed`) and with the learning rate that fits it (see
    `sparsezo_gui.recipe.rates`), unless that is set too. Raises `UserError`.
    """
    whole = recipe.model_dump(mode="json")
    for table, values in _renamed(tables).items():
        registry = BY_TABLE.get(table)
        whole[table] = registry.changed(whole[table], values) if registry else whole[table] | values
    made = build(whole, where)
    rules = [(each.mask.rule, each.estimator.rule, each.update.rule) for each in (recipe, made)]
    if rules[0] == rules[1] or "learning_rate" in tables.get("update", {}):
        return made
    return _at_suited_rate(recipe, made)


def portable(recipe: Recipe) -> Recipe:
    """The recipe for sharing: paths are cut to their last part, as if beside the recipe, and the run's folder is empty.
    Bundled names and Hub ids stay, and different paths stay different."""
    names: dict[str, str] = {}

    def beside(path: str, known: Iterable[str]) -> str:
        absolute = os.path.isabs(path) or PureWindowsPath(path).is_absolute()
        if path in known or not (absolute or path.startswith((".", "~")) or os.path.exists(path)):
            return path
        name = PureWindowsPath(path).name or "here"  # it splits at both kinds of slash
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
    """What determines a run, as plain tables: all except `PLACES`, and only bundled names for the mask's texts."""
    tables = recipe.model_dump(mode="json", exclude=PLACES)
    for table, key, names in _PATHS:
        if table == "mask" and key in tables[table]:
            value = tables[table][key]
            kept = [each if each in names else "" for each in ([value] if isinstance(value, str) else value)]
            tables[table][key] = kept[0] if isinstance(value, str) else kept
    return tables


def differences(kept: dict[str, Any], recipe: Recipe) -> list[tuple[str, Any, Any]]:
    """Where ``recipe`` differs from ``kept``, an earlier result of `values`: key, old and new value. Keys newer than
    ``kept`` are ignored. Raises `UserError`."""
    now = values(recipe)
    if kept == now:
        return []
    before = _renamed(_migrated(kept, "run.json: [recipe]"))
    return [
        (f"{table}.{key}", old, now[table].get(key))
        for table, content in before.items() if isinstance(content, dict) and table in now
        for key, old in content.items() if now[table].get(key) != old
    ]  # fmt: skip


def _at_suited_rate(before: Recipe, after: Recipe) -> Recipe:
    update = after.update.model_copy(update={"learning_rate": suited(before, after)})
    return after.model_copy(update={"update": update})


def dump(recipe: Recipe) -> str:
    """Recipe as TOML text that `loads` reads back unchanged; every key is written, including defaults."""
    return quoted_plain(tomlkit.dumps(recipe.model_dump(mode="json")))


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text


def _resolve_paths(tables: dict[str, Any], folder: Path, where: str) -> None:
    """Makes paths relative to the recipe absolute; bundled names and Hub ids stay as they are."""
    for table, key, names in _PATHS:
        content = tables.get(table)
        value = content.get(key) if isinstance(content, dict) else None
        if not isinstance(value, str | list):
            continue
        try:
            found = [_resolved(each, folder, key, names) for each in ([value] if isinstance(value, str) else value)]
        except (OSError, ValueError, RuntimeError) as error:  # too long, a null byte in it, a loop of links
            raise UserError(f"{where}: [{table}] {key}: {quoted(value)} is not a valid path ({error}).") from error
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
    if not location:  # parts that do not work together
        return fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        table, name = (location[0], location[-1]) if len(location) > 1 else ("", location[0])
        known = Recipe.model_fields if not table else _fields(tables, table)
        if table in BY_TABLE and (others := BY_TABLE[table].having(name)):
            return (
                f"[{table}] {name}: rule = '{_rule(tables, table)}' has no such key; only these have it: "
                f"{', '.join(map(repr, others))}. Remove it."
            )
        kind = "key" if table else "table"
        return f"{f'[{table}] ' if table else ''}{name}: unknown {kind}. {did_you_mean(name, known)}"
    place = f"[{location[0]}] {'.'.join(location[1:])}".strip() if len(location) > 1 else location[0]
    message = fault["msg"].removeprefix("Value error, ")
    return f"{place}: {message[:1].lower()}{message[1:]}, not {quoted(fault['input'])}."


def _rule(tables: dict[str, Any], table: str) -> str:
    return tables.get(table, {}).get("rule", BY_TABLE[table].default)


def _fields(tables: dict[str, Any], table: str) -> set[str]:
    if table in BY_TABLE:
        return set(BY_TABLE[table][_rule(tables, table)].model_fields)
    return set(getattr(Recipe.model_fields[table].annotation, "model_fields", ()))
