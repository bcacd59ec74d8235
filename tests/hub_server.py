"""A Hugging Face Hub in small, for tests: what the real client needs to load, search and upload, with faults on demand.

Small files are served as they are; large ones (`LARGE`) by a redirect to another origin, as the real Hub does. A change
of the attributes of `HubServer` shows from the next request on.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import close_session

LARGE = (".safetensors", ".parquet", ".gguf")
PIECE = 4096  # bytes that are sent at once
TOKEN = "hf_" + "T" * 34  # of a user whom every gated repository lets in
STRANGER = "hf_" + "S" * 34  # of a user who has accepted no terms
READER = "hf_" + "R" * 34  # of the first user, to read only
USERS = {TOKEN: ("owner", "write"), READER: ("owner", "read"), STRANGER: ("stranger", "write")}


@dataclass(frozen=True)
class Repository:
    """Files of one commit. ``gated``: all may see the list, but only `TOKEN` gets files; ``private``: nor the list."""

    files: dict[str, bytes]
    gated: bool = False
    private: bool = False
    about: dict[str, Any] = field(default_factory=dict)
    """What the Hub says of it besides."""

    @property
    def commit(self) -> str:
        return hashlib.sha1(repr(sorted(self.files.items())).encode()).hexdigest()


@dataclass(frozen=True)
class Asked:
    """One request; ``start`` is the first byte asked for, None without a Range."""

    method: str
    path: str
    start: int | None
    token: str


@dataclass
class HubServer:
    """Repositories by path ('models/owner/name', 'datasets/owner/name'), requests so far, and what shall go wrong."""

    endpoint: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    break_after: int | None = None
    """Bytes of a large file after which the line breaks, each time."""
    slow: float = 0.0
    """Seconds before each `PIECE` of a large file."""
    wrong: bool = False
    wrong_place: int = 0
    """Whether large files have a bit flipped, their sizes being right."""
    more: int = 0
    """Bytes that large files have beyond their size."""
    ranges: bool = True
    """Whether a Range is heeded."""
    failures: int = 0
    """How many requests still fail with ``status``."""
    status: int = 500
    stored: dict[str, bytes] = field(default_factory=dict)
    """Large files that were sent, by their hash."""
    sent: list[str] = field(default_factory=list)
    """Their hashes, each time that one began to be sent."""
    hang_up_after: int | None = None
    """Bytes of a large file after which the line breaks when it is sent."""
    refuses: str = ""
    """What is wrong with every model card."""

    def add(self, path: str, files: Path | dict[str, bytes], **how: Any) -> None:
        """Publishes a folder's files, or these, as a new commit of the repository."""
        if isinstance(files, Path):
            files = {str(each.relative_to(files)): each.read_bytes() for each in files.rglob("*") if each.is_file()}
        self.repositories[path] = Repository(files, **how)

    def starts(self) -> list[int | None]:
        """Where each request for a large file's content began."""
        return [each.start for each in self.asked if each.path.startswith("/cdn/") and each.method == "GET"]

    def names(self) -> list[str]:
        """Names of the files whose content was asked for."""
        paths = [each.path for each in self.asked if each.method == "GET" and "/resolve/" in each.path]
        return [path.rpartition("/")[2] for path in paths]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """The server as the Hub of the real client in this process, with a cache of its own and no token."""
    home = tmp_path / "huggingface"
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with serving() as server:
        address = f"{server.endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        settings = {"ENDPOINT": server.endpoint, "HUGGINGFACE_CO_URL_TEMPLATE": address, "HF_HUB_OFFLINE": False,
                    "HF_HOME": str(home), "HF_HUB_CACHE": str(home / "hub"), "HF_TOKEN_PATH": str(home / "token"),
                    "HF_HUB_DISABLE_TELEMETRY": True}  # fmt: skip
        for name, value in settings.items():
            monkeypatch.setattr(constants, name, value)
        yield server
        close_session()


@pytest.fixture
def datasets_hub(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HubServer:
    """The same, also for the library `datasets`."""
    import datasets

    cache = tmp_path / "datasets"
    address = f"{hub.endpoint}/datasets/{{repo_id}}/resolve/{{revision}}/{{path}}"
    settings = {"HF_ENDPOINT": hub.endpoint, "HUB_DATASETS_URL": address, "HF_HUB_OFFLINE": False,
                "HF_UPDATE_DOWNLOAD_COUNTS": False, "HF_DATASETS_CACHE": cache,
                "DOWNLOADED_DATASETS_PATH": cache / "downloads"}  # fmt: skip
    for name, value in settings.items():
        monkeypatch.setattr(datasets.config, name, value)
    monkeypatch.setattr(time, "sleep", lambda _: None)  # between the client's tries
    return hub


@contextmanager
def serving() -> Iterator[HubServer]:
    """A server on a free port of this computer."""
    hub = HubServer()
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), name="hub")
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """The client hung up: what a cancelled download does."""


class _Refused(Exception):
    def __init__(self, status: int, code: str = "", message: str = "") -> None:
        self.status, self.headers = status, {"X-Error-Code": code, "X-Error-Message": message}


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        try:
            self._answer()
        except _Refused as refusal:
            self._send(refusal.status, b"", refusal.headers)

    do_HEAD = do_POST = do_PUT = do_GET

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        if self.command == "PUT":
            self._store(self.path.rpartition("/")[2], size)
            return
        body = self.rfile.read(size)
        url = urlsplit(self.path)
        path, start = unquote(url.path), re.match(r"bytes=(\d+)-", self.headers.get("Range") or "")
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        self.hub.asked.append(Asked(self.command, path, int(start[1]) if start else None, token))
        if self.hub.failures:
            self.hub.failures -= 1
            raise _Refused(self.hub.status)
        if self.command == "POST" and "paths-info" not in path and "/api/repos" not in path:
            self._write(path, body, token)
        elif path == "/api/whoami-v2":
            self._who(token)
        elif path == "/api/repos/create":
            self._create(json.loads(body), token)
        elif found := re.fullmatch(r"/cdn/(.+?)@([0-9a-f]{40})/(.+)", path):
            self._content(self.hub.repositories[found[1]].files[found[3]], large=True)
        elif path in ("/api/models", "/api/datasets"):
            self._search(path.removeprefix("/api/") + "/", parse_qs(url.query))
        elif found := re.fullmatch(r"/api/((?:models|datasets)/[^/]+/[^/]+)(?:/(.*))?", path):
            self._api(found[1], found[2] or "", token, parse_qs(url.query), parse_qs(body.decode()))
        elif found := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._resolve(f"{found[1] or 'models/'}{found[2]}", found[3], found[4], token)
        else:
            raise _Refused(404)

    # Uploads

    def _who(self, token: str) -> None:
        if token not in USERS:
            raise _Refused(401, "", "Invalid user token.")
        name, role = USERS[token]
        orgs = [{"name": "team"}] if name == "owner" else []
        self._json({"type": "user", "name": name, "orgs": orgs, "auth": {"accessToken": {"role": role}}})

    def _create(self, about: dict[str, Any], token: str) -> None:
        owner = about["organization"] or USERS[token][0]
        if USERS.get(token, ("", ""))[1] != "write" or owner not in (USERS[token][0], "team"):
            raise _Refused(403, "", "You don't have the rights to create a model under this namespace")
        name = f"models/{owner}/{about['name']}"
        address = f"{self.hub.endpoint}/{owner}/{about['name']}"
        if name in self.hub.repositories:
            self._json({"error": "You already created this model repo", "url": address}, 409)
            return
        private = about.get("visibility") == "private" or bool(about.get("private"))
        self.hub.repositories[name] = Repository({".gitattributes": b"*.safetensors lfs"}, private=private)
        self._json({"url": address})

    def _write(self, path: str, body: bytes, token: str) -> None:
        if path == "/api/validate-yaml":
            errors = [{"message": self.hub.refuses}] if self.hub.refuses else []
            self._json({"errors": errors, "warnings": []}, 400 if errors else 200)
            return
        found = re.fullmatch(
            r"/(?:api/models/)?([^/]+/[^/]+?)(?:\.git)?/(preupload/main|info/lfs/objects/batch|commit/main)", path
        )
        if found is None:
            raise _Refused(404)
        repository = self._repository(f"models/{found[1]}", token)
        if USERS.get(token, ("", ""))[1] != "write":
            raise _Refused(403, "", "Forbidden")
        if found[2].startswith("preupload"):
            self._json({"files": [self._mode(each) for each in json.loads(body)["files"]]})
        elif found[2].startswith("info"):
            self._json({"transfer": "basic", "objects": [self._action(each) for each in json.loads(body)["objects"]]})
        else:
            self._commit(found[1], repository, [json.loads(line) for line in body.splitlines()])

    def _mode(self, file: dict[str, Any]) -> dict[str, Any]:
        mode = "lfs" if file["path"].endswith(LARGE) else "regular"
        return {"path": file["path"], "uploadMode": mode, "shouldIgnore": False}

    def _action(self, file: dict[str, Any]) -> dict[str, Any]:
        upload = {"upload": {"href": f"{self.hub.endpoint}/lfs/{file['oid']}"}}
        return {**file, **({} if file["oid"] in self.hub.stored else {"actions": upload})}

    def _store(self, hash: str, size: int) -> None:
        self.hub.sent.append(hash)
        content = bytearray()
        while len(content) < size:
            if self.hub.hang_up_after is not None and len(content) >= self.hub.hang_up_after:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            time.sleep(self.hub.slow)
            piece = self.rfile.read(min(PIECE, size - len(content)))
            if not piece:  # the client hung up
                self.close_connection = True
                return
            content += piece
        assert hashlib.sha256(content).hexdigest() == hash
        self.hub.stored[hash] = bytes(content)
        self._send(200, b"", {})

    def _commit(self, id: str, repository: Repository, lines: list[dict[str, Any]]) -> None:
        files = dict(repository.files)
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.stored[value["oid"]]
        made = self.hub.repositories[f"models/{id}"] = replace(repository, files=files)
        self._json({"commitUrl": f"{self.hub.endpoint}/{id}/commit/{made.commit}", "commitOid": made.commit})

    def _search(self, kind: str, query: dict) -> None:
        words, limit = query.get("search", [""])[0].lower(), int(query.get("limit", ["1000"])[0])
        named = {name.removeprefix(kind): each for name, each in self.hub.repositories.items() if name.startswith(kind)}
        found = [_info(name, each) for name, each in named.items() if words in name.lower() and not each.private]
        self._json(sorted(found, key=lambda info: str(info["downloads"]).zfill(9), reverse=True)[:limit])

    def _api(self, path: str, rest: str, token: str, query: dict, form: dict) -> None:
        repository = self._repository(path, token)
        what, _, rest = rest.partition("/")
        revision, _, folder = rest.partition("/")
        self._check(repository, unquote(revision) or "main")
        if what == "auth-check":
            self._admit(repository, path, token)
            self._json({})
        elif what in ("", "revision"):
            self._json(_info(path.partition("/")[2], repository))
        elif what == "tree":
            self._json(_tree(repository, folder, query.get("recursive", [""])[0].lower() == "true"))
        elif what == "paths-info":
            self._json([entry for entry in _tree(repository, "", True) if entry["path"] in form.get("paths", ())])
        else:
            raise _Refused(404)

    def _resolve(self, path: str, revision: str, name: str, token: str) -> None:
        repository = self._repository(path, token)
        self._check(repository, revision)
        self._admit(repository, path, token)
        if name not in repository.files:
            raise _Refused(404, "EntryNotFound", "Entry not found")
        content = repository.files[name]
        headers = {"X-Repo-Commit": repository.commit, "ETag": f'"{_hash(name, content)}"'}
        if name.endswith(LARGE):
            headers |= {"X-Linked-Size": str(len(content)), "X-Linked-Etag": headers.pop("ETag")}
            elsewhere = self.hub.endpoint.replace("127.0.0.1", "localhost")
            self._send(302, b"", {**headers, "Location": f"{elsewhere}/cdn/{path}@{repository.commit}/{name}"})
        else:
            self._content(content, headers)

    def _repository(self, path: str, token: str) -> Repository:
        if token not in ("", *USERS):
            raise _Refused(401, "", "Invalid credentials in Authorization header")
        repository = self.hub.repositories.get(path)
        if repository is None or (repository.private and token not in (TOKEN, READER)):
            raise _Refused(404 if token else 401, "RepoNotFound", "Repository not found")
        return repository

    def _admit(self, repository: Repository, path: str, token: str) -> None:
        if repository.gated and token != TOKEN:
            raise _Refused(403 if token else 401, "GatedRepo", f"Access to {path} is restricted.")

    def _check(self, repository: Repository, revision: str) -> None:
        if revision not in ("main", repository.commit):
            raise _Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")

    def _content(self, content: bytes, headers: dict[str, str] | None = None, large: bool = False) -> None:
        start, total = self.hub.asked[-1].start, len(content)
        if large and self.hub.wrong:
            place = self.hub.wrong_place
            content = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
        if large:
            content += bytes(self.hub.more)
        if start is None or not self.hub.ranges:
            self._send(200, content, headers or {}, large)
        elif start < total:
            self._send(206, content[start:], {**(headers or {}), "Content-Range": f"bytes {start}-{total - 1}/{total}"},
                       large)  # fmt: skip
        else:
            raise _Refused(416)

    def _json(self, value: Any, status: int = 200) -> None:
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, content: bytes, headers: dict[str, str], large: bool = False) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        broken = large and self.hub.break_after is not None and self.hub.break_after < len(content)
        for piece in _pieces(content[: self.hub.break_after] if broken else content):
            time.sleep(self.hub.slow if large else 0)
            self.wfile.write(piece)
        if broken:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)


def _pieces(content: bytes) -> Iterable[bytes]:
    return (content[start : start + PIECE] for start in range(0, len(content), PIECE))


def _hash(name: str, content: bytes) -> str:
    if name.endswith(LARGE):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _info(id: str, repository: Repository) -> dict[str, Any]:
    siblings = []
    for entry in _tree(repository, "", True):
        if entry["type"] == "file":
            lfs = entry.get("lfs")
            large = {"lfs": {"sha256": lfs["oid"], "size": lfs["size"], "pointerSize": 134}} if lfs else {}
            siblings.append({"rfilename": entry["path"], "size": entry["size"], "blobId": entry["oid"], **large})
    return {"_id": "0" * 24, "id": id, "modelId": id, "sha": repository.commit, "siblings": siblings, "tags": [],
            "gated": "auto" if repository.gated else False, "private": repository.private, "disabled": False,
            "downloads": 0, "likes": 0, **repository.about}  # fmt: skip


def _tree(repository: Repository, folder: str, recursive: bool) -> list[dict[str, Any]]:
    """Entries of a folder ('' is the root), files with the hashes of their contents."""
    inside = f"{folder}/" if folder else ""
    entries: dict[str, dict[str, Any]] = {}
    for name, content in sorted(repository.files.items()):
        if name.startswith(inside):
            parts = name.removeprefix(inside).split("/")
            for depth in range(1, len(parts) if recursive else min(len(parts), 2)):
                path = inside + "/".join(parts[:depth])
                entries[path] = {"type": "directory", "oid": "0" * 40, "size": 0, "path": path}
            if recursive or len(parts) == 1:
                entries[name] = _entry(name, content)
    return list(entries.values())


def _entry(name: str, content: bytes) -> dict[str, Any]:
    entry = {"type": "file", "oid": hashlib.sha1(content).hexdigest(), "size": len(content), "path": name}
    if not name.endswith(LARGE):
        return {**entry, "oid": _hash(name, content)}
    return {**entry, "lfs": {"oid": _hash(name, content), "size": len(content), "pointerSize": 134}}
