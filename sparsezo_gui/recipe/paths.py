"""Paths in a recipe: relative ones start from the folder of its file, and a shared recipe names no folder."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path, PureWindowsPath
from typing import Any

from sparsezo_gui import resources
from sparsezo_gui.errors import UserError, quoted
from sparsezo_gui.recipe.recipe import Recipe

RUN = "run:"  # before a run's name or folder and @STEP, in [model] id
# Keys whose value may be a path, and the bundled names that each may have instead.
PATHS: tuple[tuple[str, str, Collection[str]], ...] = (
    ("model", "id", resources.BUNDLED_MODELS),
    ("data", "source", resources.BUNDLED_DATA),
    ("mask", "text", {*resources.BUNDLED_TEXT, "task", "answers"}),
    ("mask", "texts", {*resources.BUNDLED_TEXT, "task", "answers"}),
    ("mask", "file", ()),
    ("run", "folder", ()),
)


def resolve(tables: dict[str, Any], folder: Path, where: str) -> None:
    """Makes paths relative to the recipe absolute; bundled names and Hub ids stay as they are."""
    for table, key, names in PATHS:
        content = tables.get(table)
        if not isinstance(content, dict) or not isinstance(value := content.get(key), str | list):
            continue
        try:
            found = [_resolved(each, folder, key, names) for each in ([value] if isinstance(value, str) else value)]
        except (OSError, ValueError, RuntimeError) as error:  # too long, a null byte in it, a loop of links
            raise UserError(f"{where}: [{table}] {key}: {quoted(value)} is not a valid path ({error}).") from error
        content[key] = found[0] if isinstance(value, str) else found


def _resolved(value: Any, folder: Path, key: str, names: Collection[str]) -> Any:
    if not isinstance(value, str) or not value or value in names:
        return value
    if key == "id" and value.startswith(RUN):
        run, step = run_and_step(value)
        return f"{RUN}{_resolved(run, folder, key, names)}{'' if step is None else f'@{step}'}"
    path = folder / os.path.expanduser(value)
    relative = value.startswith(("./", "../", "~")) or key == "folder" or os.path.exists(path)
    return str(path.resolve()) if relative else value


def run_and_step(id: str) -> tuple[str, int | None]:
    """The run and the step that ``id`` ('run:NAME@STEP') names; no step if it has none."""
    name, at, step = id.removeprefix(RUN).rpartition("@")
    return (name, int(step)) if at and step.isdecimal() else (id.removeprefix(RUN), None)


def portable(recipe: Recipe) -> Recipe:
    """The recipe for sharing: paths are cut to their last part, as if beside the recipe, and the run's folder is empty.
    Bundled names and Hub ids stay, and different paths stay different."""
    names: dict[str, str] = {}

    def beside(path: str, known: Collection[str]) -> str:
        if path.startswith(RUN):
            run, step = run_and_step(path)
            at = "" if step is None else f"@{step}"
            return f"{RUN}{beside(run, known)}{at}"
        absolute = os.path.isabs(path) or PureWindowsPath(path).is_absolute()
        if path in known or not (absolute or path.startswith((".", "~")) or os.path.exists(path)):
            return path
        name = PureWindowsPath(path).name or "here"  # it splits at both kinds of slash
        number = len(names) + 1
        return names.setdefault(path, f"./{name}" if f"./{name}" not in names.values() else f"./{number}-{name}")

    tables = {table: getattr(recipe, table) for table, _, _ in PATHS}
    for table, key, known in PATHS:
        value = getattr(tables[table], key, ())
        found = beside(value, known) if isinstance(value, str) else tuple(beside(each, known) for each in value)
        if value:
            tables[table] = tables[table].model_copy(update={key: "" if key == "folder" else found})
    return recipe.model_copy(update=tables)
