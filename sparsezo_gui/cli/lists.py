"""Commands that list: `runs`, `methods`, `recipes`, `models` and `cache`."""

from __future__ import annotations

import argparse
import dataclasses
from datetime import datetime
from pathlib import Path

from sparsezo_gui import recipe, resources
from sparsezo_gui.answers import Cache, Found
from sparsezo_gui.cli.command import argument, command
from sparsezo_gui.console import Console
from sparsezo_gui.errors import UserError
from sparsezo_gui.sizes import size


@command("runs", "List your runs.")
def runs(options: argparse.Namespace, console: Console) -> None:
    from sparsezo_gui.engine.runs.folder import BRANCHES
    from sparsezo_gui.engine.runs.listing import list_runs

    rows = [run.as_json() for run in list_runs()]
    if not options.json:
        for row in rows:
            row["name"] = f"{'  ' * Path(row['path']).parts.count(BRANCHES)}{row['name']}"
    console.table(rows, ("name", "state", "step", "steps", "model", "created", "path"), "No runs yet.")


@command(
    "methods", "List the rules for each part of a method, and the tasks.",
    argument("--markdown", action="store_true", help="print the documentation page"),
)  # fmt: skip
def methods(options: argparse.Namespace, console: Console) -> None:
    from sparsezo_gui.engine.data.tasks import tasks
    from sparsezo_gui.recipe import methods

    if options.markdown and not options.json:
        print(methods.markdown(), end="")
        return
    rows = methods.rows()
    for name, task in tasks().items():
        rows.append({"table": "data", "rule": f"task = {name}", "about": task.title, "source": task.paper, "keys": {}})
    console.table(rows, ("table", "rule", "about"), "")


@command("recipes", "List the bundled recipes.")
def recipes(options: argparse.Namespace, console: Console) -> None:
    found = [(name, recipe.load(name)) for name in resources.recipes()]
    rows = [
        {"recipe": name, "model": each.model.id, "data": each.data.source, "mask": each.mask.rule, "path": str(path)}
        for (name, each), path in zip(found, resources.recipes().values(), strict=True)
    ]
    console.table(rows, ("recipe", "model", "data", "mask", "path"), "No bundled recipes.")


@command(
    "models", "List the models on this computer, or search the Hub.",
    argument("--search", metavar="WORDS", help="search the Hub; shows whether tuning fits this computer, with the "
             "default recipe, before anything is downloaded"),
    argument("--datasets", action="store_true", help="search for data sets"),
)  # fmt: skip
def models(options: argparse.Namespace, console: Console) -> None:
    if options.search is not None:
        _search(options, console)
        return
    if options.datasets:
        raise UserError("--datasets needs --search WORDS. To list the data sets on this computer: sparsezo cache")
    from sparsezo_gui.engine.hub.library import local_models

    rows = [dataclasses.asdict(model) for model in local_models()]
    console.table(
        rows, ("id", "architecture", "parameters", "bytes", "kind", "problem"), "No models on this computer yet."
    )


def _search(options: argparse.Namespace, console: Console) -> None:
    from sparsezo_gui.engine.search import search

    found = console.finish(search(options.search, recipe.Recipe(), options.datasets))
    shown = [field.name for field in dataclasses.fields(Found) if field.name != "config"]
    rows = [{name: getattr(each, name) for name in shown} for each in found]
    if not options.json:
        for row in rows:
            row |= {"size": size(row["bytes"]) if row["bytes"] else "", "gated": "gated" if row["gated"] else "",
                    "fit": row["fit"] or row["problem"]}  # fmt: skip
    columns = ("id", "rows", "size") if options.datasets else ("id", "fit", "size")
    console.table(rows, (*columns, "licence", "downloads", "gated"), "Nothing on the Hub has these words in its name.")


@command(
    "cache", "List what is kept: downloads from the Hub, and what saves time, such as activations below the tuned "
    "blocks; and remove it.",
    argument("--remove", metavar="NAME|all", help="remove this; it is computed or downloaded again when needed (all: "
             "all but downloads)"),
)  # fmt: skip
def cache(options: argparse.Namespace, console: Console) -> None:
    from sparsezo_gui.engine import caches
    from sparsezo_gui.engine.hub.downloads import downloads

    downloaded = downloads()
    if options.remove:
        _remove(options.remove, downloaded, console)
        return
    rows = [dataclasses.asdict(each) for each in (*downloaded, *caches.caches())]
    if not options.json:
        for row in rows:
            row |= {"bytes": size(row["bytes"]), "used": datetime.fromtimestamp(row["used"]).isoformat(" ", "minutes")}
    console.table(rows, ("name", "kind", "bytes", "used", "path"), "Nothing is kept.")


def _remove(name: str, downloaded: list[Cache], console: Console) -> None:
    from sparsezo_gui.engine import caches
    from sparsezo_gui.engine.hub.downloads import remove_download

    removed = [each for each in downloaded if each.name == name]
    for each in removed:
        remove_download(each)
    what = f"the {' and the '.join(each.kind for each in removed)} {name}"
    if not removed:
        removed = caches.remove(name, [each.name for each in downloaded])
        what = f"{len(removed)} cache{'' if len(removed) == 1 else 's'}"
    freed = sum(each.bytes for each in removed)
    console.result({"removed": [each.name for each in removed], "bytes": freed}, f"Removed {what}, {size(freed)}.")
