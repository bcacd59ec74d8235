"""All commands, and the parser made from them."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

from sparsezo_gui import __version__
from sparsezo_gui.cli import bench, doctor, hub, lists, plans, runs, submit, token, tuned, tuning
from sparsezo_gui.cli.command import JSON, TRUST
from sparsezo_gui.errors import UserError

COMMANDS = (
    tuning.train,
    tuning.resume,
    submit.submit,
    runs.branch,
    runs.verify,
    runs.share,
    runs.receive,
    runs.note,
    runs.log,
    plans.plan,
    plans.estimate,
    plans.preview,
    plans.rates,
    plans.noise,
    plans.mask,
    tuned.evaluate,
    tuned.generate,
    tuned.export,
    tuned.convert,
    lists.runs,
    lists.methods,
    lists.recipes,
    lists.models,
    lists.cache,
    hub.download,
    hub.push,
    bench.bench,
    token.token,
    doctor.doctor,
)


class _Parser(argparse.ArgumentParser):
    """Reports wrong command lines like any other error, and accepts no abbreviated options: consent should be explicit,
    and ``--json`` is searched for before parsing."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """See `argparse.ArgumentParser.error`."""
        raise UserError(*self.format_usage().splitlines(), f"{self.prog}: error: {message}")


def parser() -> argparse.ArgumentParser:
    """The parser of the command line; ``command`` of its result is the `Command`."""
    made = _Parser(
        prog="sparsezo",
        description="Fine-tune language models on a laptop: sparse zeroth-order fine-tuning of 4-bit models.",
        epilog="To start: sparsezo train starter",
    )
    made.add_argument("--version", action="version", version=f"sparsezo {__version__}")
    commands = made.add_subparsers(metavar="COMMAND", required=True)
    for each in COMMANDS:
        sub = commands.add_parser(each.name, help=each.help, description=each.help)
        sub.set_defaults(command=each, set=[], trust_remote_code=False, workers=None)
        for add in (JSON, *each.arguments, *([TRUST] if each.loads else [])):
            add(sub)
    return made
