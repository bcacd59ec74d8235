"""Consent: which code of models the user has allowed to run. No outside file can grant it.

A recipe's ``trust_remote_code`` only says that a model needs the Python code that comes with it. The user decides
whether it may run, once per version of the code: with ``--trust-remote-code`` on the command line, or in a dialog of
the window. The decisions are stored in ``consent.json`` in the program's home, a JSON object:

- ``version`` MUST be 1; a file with another version is refused.
- ``consents`` is a list of objects. ``code`` is the `hash` of the code. For a model on the Hub, ``model`` and
  ``commit`` are its id and commit, and all three MUST match; for a folder both are empty, and the same code may run
  from anywhere. ``files`` (names) and ``given`` (time, UTC) are for the user to read.

Removing an object from the list revokes the consent.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from sparsezo_gui.engine.files import home, open_plain, write_text
from sparsezo_gui.engine.pretrained.code import Code, find_code
from sparsezo_gui.errors import ConsentNeeded, UserError
from sparsezo_gui.recipe.recipe import ModelTable
from sparsezo_gui.untrusted import reason

VERSION = 1
T = TypeVar("T")
_NAMES_SHOWN = 8


@dataclass(frozen=True)
class TrustedCode:
    """Code that the user has allowed to run. Only this module creates it."""

    code: Code

    @property
    def files(self) -> Mapping[str, bytes]:
        """All files, by path relative to the model's folder."""
        return self.code.files

    def has(self, auto: str) -> bool:
        """Whether the model has a class of its own for transformers' ``auto``."""
        return auto in self.code.classes

    def find(self, auto: str, kind: type[T]) -> type[T] | None:
        """The model's own class for transformers' ``auto``, a ``kind``; None if it has none. Raises `UserError`."""
        if not self.has(auto):
            return None
        name, folder = self.code.classes[auto], self.code.folder
        try:
            own = self.code.run(auto)
        except (Exception, SystemExit) as error:  # the model's code may raise anything
            raise UserError(
                f"{folder}: its own code for '{name}' does not run here ({reason(error)}). It may need "
                "another version of transformers, or a package that is not installed."
            ) from error
        if not (isinstance(own, type) and issubclass(own, kind)):
            raise UserError(
                f"{folder}: its own '{name}' is not a {kind.__name__} of transformers. Choose another model."
            )
        return own


def permitted(table: ModelTable, folder: Path) -> TrustedCode | None:
    """The code that the model in ``folder`` needs, if it exists and is allowed to run. Raises `UserError`."""
    code = find_code(table, folder)
    return TrustedCode(code) if code is not None and not code.missing and is_given(code) else None


def required(table: ModelTable, folder: Path) -> TrustedCode | None:
    """The code that the model in ``folder`` needs; None if it needs none.

    Raises `ConsentNeeded` if the user has not allowed it to run, and `UserError`.
    """
    code = find_code(table, folder)
    if code is None:
        return None
    if code.missing:
        raise UserError(
            f"{folder}: its code file '{code.missing}' is missing. For a model on the Hub, Measure and "
            "Start download it; otherwise copy the model again."
        )
    if not is_given(code):
        raise ConsentNeeded(code, *_question(code))
    return TrustedCode(code)


def is_given(code: Code) -> bool:
    """Whether the user has allowed ``code`` to run. Raises `UserError`."""
    return _key(code) in map(_key_of, _read())


def give(code: Code) -> None:
    """Records that the user allows ``code`` to run. Raises `UserError`."""
    if is_given(code):
        return
    hash, model, commit = _key(code)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    added = {"code": hash, "model": model, "commit": commit, "files": sorted(code.files), "given": now}
    write_text(_path(), json.dumps({"version": VERSION, "consents": [*_read(), added]}, indent=1))


def _key(code: Code) -> tuple[str, str, str]:
    return (code.hash, code.model, code.commit) if code.commit else (code.hash, "", "")


def _key_of(kept: dict[str, Any]) -> tuple[str, str, str]:
    return kept["code"], kept["model"], kept["commit"]


def _path() -> Path:
    return home() / "consent.json"


def _read() -> list[dict[str, Any]]:
    try:
        with open_plain(_path()) as file:
            table = json.load(file)
        if table["version"] != VERSION:
            raise UserError(
                f"{_path()}: was written by another version of SparseZO. Use that version, or delete the "
                "file to be asked again."
            )
        for each in table["consents"]:
            _key_of(each)
        return list(table["consents"])
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"{_path()}: cannot be read ({error.strerror}). Change its permissions.") from error
    except (ValueError, RecursionError, TypeError, KeyError) as error:
        raise UserError(f"{_path()}: is damaged. Delete it to be asked again.") from error


def _question(code: Code) -> tuple[str, str]:
    names = sorted(code.files)
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return (
        f"'{code.model}' needs the Python code that comes with it, which you have not allowed to run. Until you do, "
        "the model cannot be loaded, and if transformers does not support its type, its memory cannot be estimated.",
        f"The code is {', '.join(names[:_NAMES_SHOWN])}{more} in {code.folder}. It can do anything you can on this "
        "computer, so read it first. If you trust it, add --trust-remote-code to the command; the window asks you when "
        "you press Measure or Start.",
    )
