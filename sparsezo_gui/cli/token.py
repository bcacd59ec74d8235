"""`token`: the access token for the Hub."""

from __future__ import annotations

import argparse
import sys

from sparsezo_gui.cli.command import argument, command
from sparsezo_gui.console import Console


@command(
    "token", "Save an access token for gated and private models in the system keyring.",
    argument("what", choices=("keep", "forget", "show"), help="keep: save it (asks for it, or reads standard input); "
             "forget: remove it; show: where it comes from, and its last 4 characters"),
)  # fmt: skip
def token(options: argparse.Namespace, console: Console) -> None:
    from sparsezo_gui.engine.hub import token

    if options.what == "keep":
        token.keep(_secret())
        console.result({"kept": True}, "Token saved in the system keyring. Remove it with 'sparsezo token forget'.")
    elif options.what == "forget":
        had = token.forget()
        console.result({"forgotten": had}, "Token removed." if had else "The keyring has no token from SparseZO.")
    else:
        text, place = token.found()
        end = f"…{text[-4:]}" if text else None
        words = (
            f"The token ends in {end} and comes from {place}." if end else "No token. Public models do not need one."
        )
        console.result({"token": end, "from": place if end else None}, words)


def _secret() -> str:
    """The token, typed without echo or from standard input; never from the command line, which all users can see."""
    from getpass import getpass

    try:
        return (getpass("Token (hidden as you type): ") if sys.stdin.isatty() else sys.stdin.readline()).strip()
    except EOFError:
        return ""
