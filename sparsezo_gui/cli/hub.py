"""Commands for the Hugging Face Hub: `download` and `push`."""

from __future__ import annotations

import argparse
from collections.abc import Generator
from pathlib import Path

from sparsezo_gui.answers import Downloaded
from sparsezo_gui.cli.command import argument, command
from sparsezo_gui.console import Console
from sparsezo_gui.recipe.events import Progress
from sparsezo_gui.recipe.recipe import ModelTable
from sparsezo_gui.sizes import size

PUBLIC = argument("--public", action="store_true", help="let everybody see the uploaded model")


@command(
    "download", "Download a model or data set from the Hugging Face Hub, checked and ready offline. An interrupted "
    "download resumes.",
    argument("id", metavar="OWNER/NAME", help="a model; with --dataset a data set, or OWNER/NAME:CONFIGURATION"),
    argument("--revision", default="main", metavar="NAME", help="branch, tag or commit (default: main)"),
    argument("--dataset", action="store_true", help="download a data set"), loads=True,
)  # fmt: skip
def download(options: argparse.Namespace, console: Console) -> None:
    try:
        found = console.finish(_download(options))
    except KeyboardInterrupt:
        console.note("What was downloaded is kept. Run the command again to resume.")
        raise
    new = f"Downloaded {size(found.downloaded)}" if found.downloaded else "Already on this computer"
    console.result(vars(found) | {"dataset": options.dataset}, f"{new}: {found.path}")


def _download(options: argparse.Namespace) -> Generator[Progress, None, Downloaded]:
    if options.dataset:
        from sparsezo_gui.engine.data import hub_download

        return hub_download.download(options.id, options.revision)
    from sparsezo_gui.engine.hub import cache

    made = {"id": options.id, "revision": options.revision, "trust_remote_code": options.trust_remote_code}
    return cache.download(ModelTable(**made))


@command(
    "push", "Upload an export to the Hugging Face Hub as a new model, private by default. Resumes when interrupted.",
    argument("path", metavar="PATH", help="what 'sparsezo export' wrote"),
    argument("id", metavar="OWNER/NAME", help="the model's name on the Hub"), PUBLIC,
)  # fmt: skip
def push(options: argparse.Namespace, console: Console) -> None:
    send(Path(options.path), options.id, options.public, console)


def check(id: str, public: bool, console: Console) -> None:
    """Raises `UserError` if nothing can be uploaded as ``id``."""
    from sparsezo_gui.engine.export.push import check_target

    console.finish(check_target(id, public))


def send(path: Path, id: str, public: bool, console: Console, card: str = "") -> None:
    """Uploads an export and says where it is."""
    from sparsezo_gui.engine.export.push import again, push

    try:
        pushed = console.finish(push(path, id, public, card))
    except KeyboardInterrupt:
        console.note(f"What was sent is kept on the Hub for now. To continue: {again(path, id, public)}")
        raise
    seen = "only you can see it" if pushed.private else "everybody can see it"
    console.result({"pushed": vars(pushed)}, f"Uploaded {size(pushed.bytes)} to {pushed.address}; {seen}.")
