"""A sentence for everything that can go wrong between this computer and the Hugging Face Hub."""

from __future__ import annotations

import errno
import json
from textwrap import shorten

import huggingface_hub
from huggingface_hub import constants
from huggingface_hub import errors as hub

from sparsezo_gui.engine.hub.token import HOW
from sparsezo_gui.errors import UserError
from sparsezo_gui.redaction import redacted
from sparsezo_gui.untrusted import reason

BUSY = (408, 429, 500, 502, 503, 504)
"""HTTP errors that may be temporary."""
HUB_ERRORS = (hub.HTTPError, hub.EntryNotFoundError, OSError, hub.HFValidationError, json.JSONDecodeError)
"""The errors of the Hub's client."""
LONGEST = 500  # characters of a message from the Hub


def refusal(kind: str, id: str, error: BaseException, instead: str, kept: bool = True) -> UserError:
    """The sentence for ``error``, one of `HUB_ERRORS`, on getting the ``kind`` ('model' or 'data set') ``id``.

    ``instead`` is what else the user can do; ``kept`` is whether a download resumes.
    """
    resumes = "; what was downloaded is kept" if kept else ""
    chain = _chain(error)

    def any_is(*kinds: type) -> bool:
        return any(isinstance(link, kinds) for link in chain)

    status, tokens = _status(chain), f"{constants.ENDPOINT}/settings/tokens"
    page = f"{constants.ENDPOINT}/{'' if kind == 'model' else 'datasets/'}{id}"
    if huggingface_hub.is_offline_mode() and any_is(ConnectionError, hub.LocalEntryNotFoundError):
        return UserError(
            f"The {kind} '{id}' is not on this computer, and the program is offline (HF_HUB_OFFLINE). Go "
            f"online once to download it, or {instead}."
        )
    if any_is(hub.GatedRepoError) and any("awaiting a review" in str(link) for link in chain):
        return UserError(
            f"The {kind} '{id}' on the Hub is gated, and its authors have not yet answered your request. See {page}."
        )
    if any_is(hub.GatedRepoError):
        return UserError(
            f"The {kind} '{id}' on the Hub is gated. Accept its terms at {page}, create a token at "
            f"{tokens}, and set it {HOW}."
        )
    if any_is(hub.RepositoryNotFoundError, hub.HFValidationError):
        return UserError(
            f"There is no {kind} '{id}' on the Hub, or it is private. Check the name, or {instead}; for a "
            f"private {kind}, set a token {HOW}."
        )
    if any_is(hub.RevisionNotFoundError):
        return UserError(
            f"The {kind} '{id}' on the Hub lacks this revision. Use 'main', or a branch, tag or commit "
            f"listed at {page}/tree/main."
        )
    if any_is(hub.DisabledRepoError):
        return UserError(f"The {kind} '{id}' was disabled by the Hub. Choose another one.")
    if status in (401, 403):
        return UserError(
            f"Your token cannot read the {kind} '{id}' on the Hub (HTTP {status}): it is wrong, has expired or lacks "
            f"permission. Create a new one at {tokens} and set it {HOW}."
        )
    if any(isinstance(link, OSError) and link.errno in (errno.ENOSPC, errno.EDQUOT) for link in chain):
        return UserError(
            f"The disk of the Hugging Face cache ({constants.HF_HUB_CACHE}) is full. Free some space and "
            f"start again{resumes}."
        )
    if local := next((link for link in chain if isinstance(link, OSError) and link.filename), None):
        return UserError(
            f"{local.filename}: cannot be written ({local.strerror}). Change its permissions, or set "
            "HF_HOME to a folder that you can write to."
        )
    return UserError(
        f"The {kind} '{id}' cannot be downloaded: the Hub cannot be reached ({_reason(chain)}). "
        f"Check the connection and start again, or {instead}{resumes}."
    )


def search_refusal(error: BaseException) -> UserError:
    """The sentence for an ``error``, one of `HUB_ERRORS`, on searching the Hub."""
    chain = _chain(error)
    if huggingface_hub.is_offline_mode():
        return UserError("The program is offline (HF_HUB_OFFLINE), so the Hub cannot be searched.")
    if (status := _status(chain)) in (401, 403):
        return UserError(f"The Hub does not accept your token (HTTP {status}). Set another one {HOW}.")
    return UserError(f"The search failed: the Hub cannot be reached ({_reason(chain)}). Check the connection.")


def push_refusal(id: str, error: BaseException, then: str = "") -> UserError:
    """The sentence for an ``error`` on uploading the model ``id``; ``then`` is a sentence on how to continue."""
    chain = _chain(error)
    status, tokens = _status(chain), f"{constants.ENDPOINT}/settings/tokens"
    create = f"Create one with write access at {tokens} and set it {HOW}."
    if local := next((link for link in chain if isinstance(link, OSError) and link.filename), None):
        told = f"{local.filename}: cannot be read ({local.strerror})."
    elif huggingface_hub.is_offline_mode():
        told = "The program is offline (HF_HUB_OFFLINE), so nothing can be uploaded."
    elif status == 401:
        told = f"The Hub does not accept your token (HTTP 401). {create}"
    elif status in (403, 404):
        told = f"Your token may not write to '{id}' on the Hub (HTTP {status}). {create}"
    elif (status and status not in BUSY) or not any(isinstance(link, hub.HTTPError | OSError) for link in chain):
        told = f"The Hub refuses '{id}': {shorten(redacted(str(error)), LONGEST, placeholder=' …')}"
    else:
        told = f"'{id}' cannot be uploaded: the Hub cannot be reached ({_reason(chain)}). Check the connection."
    return UserError(*filter(None, (told, then)))


def _chain(error: BaseException) -> list[BaseException]:
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    return chain


def _status(chain: list[BaseException]) -> int:
    """The HTTP status of the Hub's answer; 0 if there was none."""
    return next((link.response.status_code for link in chain if isinstance(link, hub.HfHubHTTPError)), 0)


def _reason(chain: list[BaseException]) -> str:
    if any(isinstance(link, json.JSONDecodeError) for link in chain):
        return "something else answers instead, such as the sign-in page of a network"
    if _status(chain):
        return f"it answers HTTP {_status(chain)}"
    return reason(chain[-1])
