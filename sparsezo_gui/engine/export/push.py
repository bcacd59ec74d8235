"""Uploads an export to the Hub with its official client.

All files come with one commit, so the model appears whole or not at all. The Hub keeps large files by their hash from
the moment they are sent, so that the next try sends only the others. They are sent as open files rather than paths:
then the client reads them here, which shows how far it is and lets it be stopped.
"""

from __future__ import annotations

import io
import re
import shlex
from collections.abc import Generator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub import CommitOperationAdd, HfApi, constants
from huggingface_hub import errors as hub

from sparsezo_gui.answers import Pushed
from sparsezo_gui.engine.data.background import in_background
from sparsezo_gui.engine.hub.refusals import HUB_ERRORS, push_refusal
from sparsezo_gui.engine.hub.token import HOW, token
from sparsezo_gui.errors import UserError
from sparsezo_gui.formats import export_formats
from sparsezo_gui.recipe.events import Progress

_ASKING = Progress("Asking the Hub")
_MINE = {".gitattributes"}  # what the Hub itself puts into a new repository
_ERRORS = (*HUB_ERRORS, RuntimeError, ValueError)  # also what the client raises for a failed upload, and a wrong card


def check_target(id: str, public: bool) -> Generator[Progress, None, None]:
    """Raises `UserError` if an export cannot be uploaded as the model ``id``: before the work of exporting."""
    try:
        yield from in_background(lambda: _target(id, public), _ASKING)
    except _ERRORS as error:
        raise push_refusal(id, error) from error


def push(out: Path, id: str, public: bool = False, card: str = "") -> Generator[Progress, None, Pushed]:
    """Uploads the export ``out``, a folder or file, as the new model ``id``; ``card`` is for a file that has none.

    Closing the generator cancels. Raises `UserError`.
    """
    files = _files(out, card)
    try:
        api = yield from in_background(lambda: _target(id, public), _ASKING)
        made = yield from in_background(lambda: api.create_repo(id, private=not public, exist_ok=True), _ASKING)
        with ExitStack() as stack:
            sources = {name: stack.enter_context(_Source(content)) for name, content in files.items()}
            parts = yield from _upload(api, id, sources)
            message = f"{out.name}, exported by SparseZO"
            commit = Progress("Publishing")
            yield from in_background(lambda: api.create_commit(id, parts, commit_message=message), commit)
    except _ERRORS as error:
        raise push_refusal(id, error, f"'{out}' is complete. To continue: {again(out, id, public)}") from error
    return Pushed(id, str(made), not public, sum(source.size for source in sources.values()))


def again(out: Path, id: str, public: bool) -> str:
    """The command that continues an upload."""
    return shlex.join(["sparsezo", "push", str(out), id, *(["--public"] if public else [])])


class _Source(io.BufferedReader):
    """A file that is being sent: how much of it was read since ``sending``, and a way to ``stop``."""

    def __init__(self, content: Path | bytes) -> None:
        raw: Any = io.FileIO(content) if isinstance(content, Path) else io.BytesIO(content)
        super().__init__(raw)
        self.size = content.stat().st_size if isinstance(content, Path) else len(content)
        self.sending = self.stopped = False

    def read(self, size: int | None = -1, /) -> bytes:
        if self.stopped:
            raise InterruptedError("stopped")
        return super().read(size)

    @property
    def sent(self) -> int:
        return self.tell() if self.sending else 0


def _upload(api: HfApi, id: str, sources: dict[str, _Source]) -> Generator[Progress, None, list[CommitOperationAdd]]:
    """Sends the large files one by one; small ones come with the commit."""
    done, total, parts = 0, sum(source.size for source in sources.values()), []
    for name, source in sources.items():

        def send(name: str = name, source: _Source = source) -> CommitOperationAdd:
            part = CommitOperationAdd(name, source)  # reads it for its hash
            source.sending = True
            api.preupload_lfs_files(id, [part], free_memory=False)
            source.sending = False
            return part

        def progress(source: _Source = source, done: int = done) -> Progress:
            return Progress("Uploading", done + source.sent, total, "bytes")

        try:
            yield progress()
            parts.append((yield from in_background(send, progress)))
        except GeneratorExit:
            source.stopped = True
            raise
        done += source.size
    return parts


def _hidden(name: Path) -> bool:
    """Whether it is or lies in something hidden, such as .git: no part of an export."""
    return any(part.startswith(".") for part in name.parts)


def _files(out: Path, card: str) -> dict[str, Path | bytes]:
    """The files of an export by their name in the repository, the card first. Raises `UserError`."""
    if out.is_dir():
        found = {path.relative_to(out): path for path in sorted(out.rglob("*")) if path.is_file()}
        files = {name.as_posix(): path for name, path in found.items() if not _hidden(name)}
        if "README.md" not in files:
            raise UserError(f"{out}: is no exported model: it has no README.md. Export a run first: sparsezo export")
        return dict(sorted(files.items(), key=lambda item: item[0] != "README.md"))
    if not out.is_file():
        raise UserError(f"There is no file or folder '{out}'. Export a run first: sparsezo export")
    forms = {form.suffix: form for form in export_formats().values() if form.suffix}
    if out.suffix not in forms:
        raise UserError(
            f"{out}: is no exported model: the name of such a file ends in {' or '.join(forms)}. Rename it."
        )
    form = forms[out.suffix]
    return {"README.md": (form.card(out) or card or _plain_card(out)).encode(), out.name: out}


def _plain_card(out: Path) -> str:
    data = huggingface_hub.ModelCardData(tags=["sparsezo", out.suffix.removeprefix(".")])
    return f"---\n{data.to_yaml()}\n---\n\n`{out.name}` was tuned with SparseZO.\n"


def _target(id: str, public: bool) -> HfApi:
    """The client with a token that may write to ``id``, which is free. Raises `UserError` and the client's errors."""
    huggingface_hub.logging.set_verbosity_error()
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]{0,95}", id, re.ASCII):
        raise UserError(
            f"'{id}' cannot be a name on the Hub. Write OWNER/NAME, with letters, digits, '-', '_' and '.'."
        )
    if (sent := token()) is None:
        tokens = f"{constants.ENDPOINT}/settings/tokens"
        raise UserError(f"To upload, create a token with write access at {tokens}, and set it {HOW}.")
    api = HfApi(token=sent)
    _check_rights(api.whoami(), id.partition("/")[0])
    try:
        info = api.model_info(id)
    except hub.RepositoryNotFoundError:
        return api
    if {each.rfilename for each in info.siblings or ()} - _MINE:
        raise UserError(
            f"'{id}' exists on the Hub already. Choose another name, or delete it at "
            f"{constants.ENDPOINT}/{id}/settings."
        )
    if not public and not info.private:
        raise UserError(f"'{id}' exists on the Hub and is public. Choose another name, or add --public.")
    return api


def _check_rights(who: dict[str, Any], owner: str) -> None:
    groups = [each.get("name") for each in who.get("orgs") or () if isinstance(each, dict)]
    if owner not in (who.get("name"), *groups):
        raise UserError(
            f"You are '{who.get('name')}' on the Hub and cannot write to '{owner}'. Use your own name or that of an "
            "organisation you belong to."
        )
    if ((who.get("auth") or {}).get("accessToken") or {}).get("role") == "read":
        raise UserError(
            f"Your token can only read. Create one with write access at {constants.ENDPOINT}/settings/tokens, and set "
            f"it {HOW}."
        )
