"""The access token for the Hub, stored in the system keyring: never in our files, recipes or command lines."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

import huggingface_hub
import keyring
from huggingface_hub import constants
from keyring.errors import NoKeyringError

from sparsezo_gui.errors import UserError
from sparsezo_gui.redaction import TOKEN
from sparsezo_gui.untrusted import reason

SERVICE, USER = "sparsezo", "huggingface"
HOW = "with 'sparsezo token keep', 'hf auth login' or the variable HF_TOKEN"
"""Ends a sentence that asks for a token."""
_SENTENCE = ("The keyring of this system cannot be used ({}). Unlock it or set one up, or give the token with 'hf auth "
             "login' or the variable HF_TOKEN instead.")  # fmt: skip


def token() -> str | None:
    """The token to send: ours from the keyring, else the one that the Hub's client finds; None if there is none."""
    return found()[0]


def found() -> tuple[str | None, str]:
    """The token to send, and a description of its origin."""
    if kept := _kept():
        return kept, "the system's keyring"
    if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN:  # the user lets no token be sent that was not given to this program
        return None, ""
    variables = os.environ.get("HF_TOKEN") or os.environ.get("HUGGING_FACE_HUB_TOKEN")
    return huggingface_hub.get_token(), "the variable HF_TOKEN" if variables else "'hf auth login'"


def keep(text: str) -> None:
    """Saves a token in the keyring. Raises `UserError` if it is not a token, or if the keyring fails."""
    if not re.fullmatch(TOKEN, text):
        raise UserError(
            "Not a token of the Hugging Face Hub: it begins with 'hf_', followed by letters and "
            f"digits. Copy all of it from {constants.ENDPOINT}/settings/tokens."
        )
    with _telling():
        keyring.set_password(SERVICE, USER, text)
    if _kept() != text:
        raise UserError(_SENTENCE.format("it does not keep the token"))


def forget() -> bool:
    """Removes our token from the keyring; whether there was one. Raises `UserError` when the keyring is not open."""
    with _telling():
        if keyring.get_password(SERVICE, USER) is None:
            return False
        keyring.delete_password(SERVICE, USER)
    return True


def _kept() -> str | None:
    try:
        return keyring.get_password(SERVICE, USER)
    except Exception:  # a keyring that is locked or missing is one without our token
        return None


@contextmanager
def _telling() -> Iterator[None]:
    try:
        yield
    except NoKeyringError as error:
        raise UserError(_SENTENCE.format("there is none")) from error
    except Exception as error:  # beside the keyring's own errors, each back end raises those of its system
        raise UserError(_SENTENCE.format(reason(error))) from error
