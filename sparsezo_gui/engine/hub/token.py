"""The access token for the Hub, stored in the system keyring, never in files of ours, recipes or command lines."""

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
_SENTENCE = ("The keyring of this system cannot be used ({}). Unlock it or set one up, or set the token with 'hf auth "
             "login' or the variable HF_TOKEN instead.")  # fmt: skip


def token() -> str | None:
    """The token to send: from the keyring, else from the Hub's client; None if there is none."""
    return found()[0]


def found() -> tuple[str | None, str]:
    """The token to send, and a description of its origin."""
    if kept := _kept():
        return kept, "the system's keyring"
    if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN:  # the user forbids tokens of other programs
        return None, ""
    variables = os.environ.get("HF_TOKEN") or os.environ.get("HUGGING_FACE_HUB_TOKEN")
    return huggingface_hub.get_token(), "the variable HF_TOKEN" if variables else "'hf auth login'"


def keep(text: str) -> None:
    """Saves a token in the keyring. Raises `UserError` if it is not a token, or if the keyring fails."""
    if not re.fullmatch(TOKEN, text):
        raise UserError(
            "This is not a Hugging Face token. A token starts with 'hf_', followed by letters and digits. Copy all of "
            f"it from {constants.ENDPOINT}/settings/tokens."
        )
    with _explained():
        keyring.set_password(SERVICE, USER, text)
    if _kept() != text:
        raise UserError(_SENTENCE.format("it does not keep the token"))


def forget() -> bool:
    """Removes our token from the keyring; returns whether there was one. Raises `UserError` if the keyring fails."""
    with _explained():
        if keyring.get_password(SERVICE, USER) is None:
            return False
        keyring.delete_password(SERVICE, USER)
    return True


def _kept() -> str | None:
    try:
        return keyring.get_password(SERVICE, USER)
    except Exception:  # a locked or missing keyring counts as one without our token
        return None


@contextmanager
def _explained() -> Iterator[None]:
    """Turns errors of the keyring in its block into a `UserError`."""
    try:
        yield
    except NoKeyringError as error:
        raise UserError(_SENTENCE.format("there is none")) from error
    except Exception as error:  # back ends also raise errors of their own system
        raise UserError(_SENTENCE.format(reason(error))) from error
