"""A small Hugging Face Hub on loopback that the stock client talks to, with faults to switch on.

Speaks: GET /api/models/{id}[/revision/{rev}]?blobs=true, /api/models/{id}/auth-check, /api/models/{id}/tree/{rev}, and
HEAD/GET /{id}/resolve/{rev}/{file} with ETag, X-Repo-Commit, X-Linked-*, ranges and a redirect to its "CDN", which is
the same server under another host name. `python hub.py FOLDER` serves FOLDER/owner/name/... and prints its address.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

LARGE = 1_000_000
"""Files from this size on are LFS files: they have a SHA-256 and come from the CDN."""


@dataclasses.dataclass
class Repository:
    """`commits`: commit -> path -> content; `refs`: branch or tag -> commit; `tokens`: who may read a gated or private one."""

    commits: dict[str, dict[str, bytes]]
    refs: dict[str, str]
    gated: bool = False
    private: bool = False
    tokens: tuple[str, ...] = ()
    task: str = ""
    """The pipeline tag."""

    def put(self, files: dict[str, bytes], ref: str = "main") -> str:
        """A new commit at the end of a branch."""
        commit = hashlib.sha1(repr((len(self.commits), sorted(files))).encode()).hexdigest()
        self.commits[commit], self.refs[ref] = dict(files), commit
        return commit


@dataclasses.dataclass
class Faults:
    """What goes wrong, by file name. All off at first; `status` is answered to everything when set."""

    status: int = 0
    cut_after: dict[str, list[int]] = dataclasses.field(default_factory=dict)
    """The connection is closed after so many bytes of the body, once per number in the list."""
    hold_after: dict[str, int] = dataclasses.field(default_factory=dict)
    """The body stops after so many bytes until `release` is set."""
    damaged: set[str] = dataclasses.field(default_factory=set)
    """The last byte is wrong."""
    without_ranges: bool = False
    release: threading.Event = dataclasses.field(default_factory=threading.Event)


class HubServer:
    """`url` is the endpoint. `sent` counts body bytes per file, `seen` has (method, path, token) of every request."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.faults = Faults()
        self.sent: dict[str, int] = {}
        self.seen: list[tuple[str, str, str]] = []
        self.held = threading.Event()
        self.lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> HubServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.faults.release.set()
        self._server.shutdown()
        self._server.server_close()

    def add(self, name: str, files: dict[str, bytes], **options: object) -> Repository:
        """A repository with one commit on main."""
        repository = Repository({}, {}, **options)  # type: ignore[arg-type]
        repository.put(files)
        self.repositories[name] = repository
        return repository


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._route()

    def do_GET(self) -> None:
        self._route()

    def _route(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        with self.hub.lock:
            self.hub.seen.append((self.command, path, self.token))
        if self.hub.faults.status:
            return self._json({"error": "out of order"}, self.hub.faults.status)
        if match := re.fullmatch(r"/api/models/([\w.-]+/[\w.-]+)(?:/(revision|tree)/(.+)|/(auth-check))?", path):
            return self._api(match[1], match[2] or match[4] or "revision", match[3] or "main")
        if match := re.fullmatch(r"/(cdn/)?([\w.-]+/[\w.-]+)/resolve/([^/]+)/(.+)", path):
            return self._file(match[2], match[3], match[4], on_cdn=bool(match[1]))
        return self._refuse(404, "RepoNotFound", "Not found")

    def _find(self, name: str, revision: str, *, reading: bool) -> tuple[str, dict[str, bytes]] | None:
        repository = self.hub.repositories.get(name)
        allowed = repository is not None and (self.token in repository.tokens)
        if self.token == "hf_invalid":
            self._refuse(401, "", "Invalid credentials in Authorization header")
        elif repository is None or (repository.private and not allowed):
            self._refuse(404 if self.token else 401, "RepoNotFound", "Repository not found")
        elif repository.gated and reading and not allowed:
            self._refuse(403 if self.token else 401, "GatedRepo", "Access to this model is restricted")
        elif (commit := repository.refs.get(revision, revision)) not in repository.commits:
            self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        else:
            return commit, repository.commits[commit]
        return None

    def _api(self, name: str, what: str, revision: str) -> None:
        found = self._find(name, "main" if what == "auth-check" else revision, reading=what == "auth-check")
        if found is None:
            return
        commit, files = found
        if what == "tree":
            rows = [{"type": "file", "path": path, "oid": git_sha1(content), "size": len(content)} for path, content in files.items()]
            return self._json(rows)
        repository = self.hub.repositories[name]
        siblings = [_sibling(path, content) for path, content in files.items()]
        found = {"id": name, "sha": commit, "gated": "manual" if repository.gated else False, "siblings": siblings}
        self._json(found | ({"pipeline_tag": repository.task} if repository.task else {}))

    def _file(self, name: str, revision: str, path: str, *, on_cdn: bool) -> None:
        if on_cdn:  # signed address: no token needed
            content = self.hub.repositories[name].commits[revision][path]
            return self._content(path, content, {})
        found = self._find(name, revision, reading=True)
        if found is None:
            return None
        commit, files = found
        if path not in files:
            return self._refuse(404, "EntryNotFound", "Entry not found")
        headers = {"X-Repo-Commit": commit, "ETag": f'"{git_sha1(files[path])}"'}
        if len(files[path]) < LARGE:
            return self._content(path, files[path], headers)
        headers |= {"X-Linked-Etag": f'"{hashlib.sha256(files[path]).hexdigest()}"', "X-Linked-Size": str(len(files[path]))}
        location = f"http://localhost:{self.hub.port}/cdn/{name}/resolve/{commit}/{path}?signature=s3cret"
        return self._answer(302, b"", headers | {"Location": location})

    def _content(self, path: str, content: bytes, headers: dict[str, str]) -> None:
        if path in self.hub.faults.damaged:
            content = content[:-1] + bytes([content[-1] ^ 0xFF])
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if match is None or self.hub.faults.without_ranges:
            return self._answer(200, content, headers, path)
        start, stop = int(match[1]), min(int(match[2]) + 1, len(content))
        headers = headers | {"Content-Range": f"bytes {start}-{stop - 1}/{len(content)}"}
        return self._answer(206, content[start:stop], headers, path)

    def _answer(self, status: int, body: bytes, headers: dict[str, str], path: str = "") -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET" and path:
            self._send(body, path)
        elif self.command == "GET":
            self.wfile.write(body)

    def _send(self, body: bytes, path: str) -> None:
        faults = self.hub.faults
        cuts = faults.cut_after.get(path, [])
        limit = cuts.pop(0) if cuts else len(body)
        hold = faults.hold_after.get(path, len(body))
        for start in range(0, min(limit, len(body)), 65536):
            if start >= hold and not faults.release.is_set():
                self.hub.held.set()
                faults.release.wait()
            piece = body[start : min(start + 65536, limit)]
            try:
                self.wfile.write(piece)
            except OSError:
                self.close_connection = True
                return
            with self.hub.lock:
                self.hub.sent[path] = self.hub.sent.get(path, 0) + len(piece)
        if limit < len(body):
            self.close_connection = True

    def _refuse(self, status: int, code: str, message: str) -> None:
        self._json({"error": message}, status, {"X-Error-Code": code, "X-Error-Message": message})

    def _json(self, value: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._answer(status, json.dumps(value).encode(), {"Content-Type": "application/json"} | (headers or {}))


def git_sha1(content: bytes) -> str:
    """git's name for a blob of this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _sibling(path: str, content: bytes) -> dict[str, object]:
    row: dict[str, object] = {"rfilename": path, "size": len(content), "blobId": git_sha1(content)}
    if len(content) >= LARGE:
        row["lfs"] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest(), "pointerSize": 134}
    return row


def main() -> None:
    """Serves the repositories below a folder until it is killed."""
    with HubServer() as hub:
        for folder in Path(sys.argv[1]).glob("*/*"):
            files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
            hub.add("/".join(folder.parts[-2:]), files)
        print(hub.url, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
