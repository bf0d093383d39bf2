"""A small hub for tests: speaks what huggingface_hub asks of the Hugging Face Hub for downloading and committing, over HTTP on this machine.

Repositories have branches, commits, files, and owners of tokens; large files (`*.safetensors`, `*.bin`) go the way of Git LFS, in one part.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

TOKEN = "hf_of_the_owner"
LARGE = (".safetensors", ".bin")


def commit_id(files: Mapping[str, bytes], parent: str) -> str:
    """The name of a commit: of its files and of what came before."""
    content = "".join(f"{name} {hashlib.sha1(files[name]).hexdigest()}\n" for name in sorted(files))
    return hashlib.sha1(f"{parent}\n{content}".encode()).hexdigest()


def blob_id(content: bytes) -> str:
    """What Git calls a file of this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass
class Repository:
    """commits: the files of each; branches: the commit each is at."""

    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    messages: dict[str, str] = field(default_factory=dict)

    def commit(self, files: dict[str, bytes], *, branch: str = "main", message: str = "") -> str:
        """Put a branch at a new commit with exactly these files."""
        name = commit_id(files, self.branches.get(branch, ""))
        self.commits[name] = dict(files)
        self.messages[name] = message
        self.branches[branch] = name
        return name

    def files(self, revision: str = "main") -> dict[str, bytes]:
        """What is at a branch or a commit."""
        return self.commits[self.branches.get(revision, revision)]


@dataclass(frozen=True)
class Fault:
    """Answers the next request of this method whose path contains `path` with an error; before: only then, else after doing what was asked."""

    method: str
    path: str
    status: int = 503
    before: bool = True


class Answer(Exception):
    """Ends a request."""

    def __init__(self, status: int = 200, body: Any = None, **headers: str) -> None:
        self.status, self.body, self.headers = status, body, headers


def absent(what: str) -> Answer:
    """`what`: Repo, Revision or Entry."""
    status = 401 if what == "Repo" else 404
    return Answer(status, {"error": f"{what} not found"}, X_Error_Code=f"{what}NotFound", X_Error_Message="not found")


class HubServer:
    """Serves `repositories` until it is closed; notes the method and the path of every request.

    meanwhile: called before each request is looked at, with its method and path.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.large: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, str]] = []
        self.meanwhile: Callable[[str, str], object] = lambda method, path: None
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        self._lock = threading.Lock()
        self._closed = False
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def add(self, name: str, files: dict[str, bytes] | None = None, **settings: bool) -> Repository:
        """A new repository, with a first commit."""
        self.repositories[name] = repository = Repository(**settings)
        repository.commit({".gitattributes": b"", **(files or {})})
        return repository

    def asked(self, method: str, part: str = "") -> list[str]:
        """Paths of the requests of a method that contain `part`."""
        return [path for asked, path in self.requests if asked == method and part in path]

    def close(self) -> None:
        """Answer nobody any more, connected or not."""
        self._closed = True
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def _serve(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                path = urlsplit(self.path).path
                if server._closed:
                    self.close_connection = True
                    return
                with server._lock:
                    server.requests.append((self.command, path))
                    server.meanwhile(self.command, path)
                    fault = server._fault(self.command, path)
                    try:
                        if fault is not None and fault.before:
                            raise _failed(fault)
                        server._route(self, path, body)
                    except Answer as answer:
                        self._send(_failed(fault) if fault else answer)

            def _send(self, answer: Answer) -> None:
                body = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
                self.send_response(answer.status)
                for name, value in {"Content-Length": str(len(body)), **answer.headers}.items():
                    self.send_header(name.replace("_", "-"), value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def __getattr__(self, name: str) -> Any:
                return (
                    self._serve
                    if name in ("do_GET", "do_HEAD", "do_POST", "do_PUT")
                    else super().__getattribute__(name)
                )

        return Handler

    def _fault(self, method: str, path: str) -> Fault | None:
        fault = next((fault for fault in self.faults if fault.method == method and fault.path in path), None)
        if fault:
            self.faults.remove(fault)
        return fault

    def _route(self, handler: BaseHTTPRequestHandler, path: str, body: bytes) -> None:
        """Always raises an Answer."""
        model = r"(?P<name>[\w.-]+(?:/[\w.-]+)?)"
        routes: dict[str, Callable[..., None]] = {
            rf"GET /api/models/{model}(?:/revision/(?P<revision>[^/]+))?": self._info,
            rf"GET /api/models/{model}/tree/(?P<revision>[^/]+)(?:/(?P<folder>.+))?": self._tree,
            rf"GET /api/models/{model}/refs": self._refs,
            rf"(?:GET|HEAD) /{model}/resolve/(?P<revision>[^/]+)/(?P<file>.+)": self._file,
            r"POST /api/repos/create": self._create,
            r"POST /api/validate-yaml": self._validate,
            rf"POST /api/models/{model}/branch/(?P<branch>[^/]+)": self._branch,
            rf"POST /api/models/{model}/preupload/(?P<revision>[^/]+)": self._preupload,
            rf"POST /{model}\.git/info/lfs/objects/batch": self._batch,
            r"PUT /large/(?P<digest>\w+)": self._put,
            rf"POST /api/models/{model}/commit/(?P<branch>[^/]+)": self._commit,
        }
        token = handler.headers.get("Authorization", "").removeprefix("Bearer ")
        if token not in ("", TOKEN):
            raise Answer(401, {"error": "bad token"}, X_Error_Message="Invalid credentials in Authorization header")
        for pattern, action in sorted(routes.items(), key=lambda item: -len(item[0])):
            match = re.fullmatch(pattern, f"{handler.command} {path}")
            if match:
                values = {key: value and unquote(value) for key, value in match.groupdict().items()}
                if "name" in values:
                    values["repository"] = self._visible(values["name"], owner=token == TOKEN)
                if handler.command == "POST" and not token:  # a PUT has its permission in the address
                    raise Answer(401, {"error": "a token is needed"})
                action(handler=handler, body=body, owner=token == TOKEN, **values)
        raise Answer(404, {"error": f"no such route: {handler.command} {path}"})

    def _visible(self, name: str, *, owner: bool) -> Repository:
        repository = self.repositories.get(name)
        if repository is None or (repository.private and not owner):
            raise absent("Repo")
        return repository

    def _info(self, repository: Repository, name: str, revision: str | None, **_: Any) -> None:
        commit = _commit_of(repository, revision or "main")
        siblings = [{"rfilename": file} for file in repository.commits[commit]]
        raise Answer(
            body={"id": name, "modelId": name, "sha": commit, "private": repository.private, "siblings": siblings}
        )

    def _tree(self, repository: Repository, revision: str, folder: str | None, **_: Any) -> None:
        everything = repository.commits[_commit_of(repository, revision)]
        files = {
            name: content for name, content in everything.items() if name.startswith(f"{folder}/" if folder else "")
        }
        if folder and not files:
            raise absent("Entry")
        raise Answer(
            body=[
                {"type": "file", "path": name, "size": len(content), "oid": blob_id(content)}
                | (
                    {"lfs": {"oid": _sha256(content), "size": len(content), "pointerSize": 1}}
                    if _is_large(name)
                    else {}
                )
                for name, content in files.items()
            ]
        )

    def _refs(self, repository: Repository, **_: Any) -> None:
        branches = [
            {"name": name, "ref": f"refs/heads/{name}", "targetCommit": commit}
            for name, commit in repository.branches.items()
        ]
        raise Answer(body={"branches": branches, "converts": [], "tags": []})

    def _file(
        self, repository: Repository, revision: str, file: str, owner: bool, handler: BaseHTTPRequestHandler, **_: Any
    ) -> None:
        if repository.gated and not owner:
            raise Answer(401, {"error": "restricted"}, X_Error_Code="GatedRepo", X_Error_Message="restricted")
        commit = _commit_of(repository, revision)
        if file not in repository.commits[commit]:
            raise absent("Entry")
        content = repository.commits[commit][file]
        etag = _sha256(content) if _is_large(file) else blob_id(content)
        begin = int((re.match(r"bytes=(\d+)-", handler.headers.get("Range", "")) or [0, 0])[1])
        headers = {"Content-Range": f"bytes {begin}-{len(content) - 1}/{len(content)}"} if begin else {}
        raise Answer(206 if begin else 200, content[begin:], ETag=f'"{etag}"', X_Repo_Commit=commit, **headers)

    def _create(self, body: bytes, **_: Any) -> None:
        wanted = json.loads(body)
        name = f"{wanted['organization']}/{wanted['name']}" if wanted.get("organization") else wanted["name"]
        if name in self.repositories:
            raise Answer(409, {"error": "exists", "url": f"{self.address}/{name}"})
        self.add(name, private=wanted.get("visibility") == "private")
        raise Answer(body={"url": f"{self.address}/{name}"})

    def _validate(self, body: bytes, **_: Any) -> None:
        content = json.loads(body)["content"]
        if not content.startswith("---\n"):
            raise Answer(400, {"errors": [{"message": "no metadata"}], "warnings": []})
        raise Answer(body={"errors": [], "warnings": []})

    def _branch(self, repository: Repository, branch: str, **_: Any) -> None:
        if branch in repository.branches:
            raise Answer(409, {"error": "exists"})
        repository.branches[branch] = repository.branches["main"]
        raise Answer(body={})

    def _preupload(self, repository: Repository, revision: str, body: bytes, **_: Any) -> None:
        there = repository.commits[_commit_of(repository, revision)]
        files = []
        for file in json.loads(body)["files"]:
            name = file["path"]
            mode = "lfs" if _is_large(name) else "regular"
            known = (_sha256 if _is_large(name) else blob_id)(there[name]) if name in there else None
            files.append({"path": name, "uploadMode": mode, "shouldIgnore": False, "oid": known})
        raise Answer(body={"files": files})

    def _batch(self, body: bytes, **_: Any) -> None:
        objects = [
            wanted
            | ({} if wanted["oid"] in self.large else {"actions": {"upload": {"href": f"{self.address}/large/{wanted['oid']}"}}})
            for wanted in json.loads(body)["objects"]
        ]  # fmt: skip
        raise Answer(body={"objects": objects, "transfer": "basic"})

    def _put(self, digest: str, body: bytes, **_: Any) -> None:
        if _sha256(body) != digest:
            raise Answer(400, {"error": "the content is another"})
        self.large[digest] = body
        raise Answer(body={})

    def _commit(
        self, repository: Repository, name: str, branch: str, body: bytes, handler: BaseHTTPRequestHandler, **_: Any
    ) -> None:
        head = _commit_of(repository, branch)
        files = dict(repository.commits[head])
        message = ""
        for line in body.splitlines():
            step = json.loads(line)
            value = step["value"]
            if step["key"] == "header":
                message = value["summary"]
                if value.get("parentCommit", head) != head:
                    raise Answer(412, {"error": "A commit has happened since."})
            elif step["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif step["key"] == "lfsFile":
                if value["oid"] not in self.large:
                    raise Answer(400, {"error": f"{value['path']} was not uploaded"})
                files[value["path"]] = self.large[value["oid"]]
            elif step["key"] == "deletedFile":
                del files[value["path"]]
        commit = repository.commit(files, branch=branch, message=message)
        raise Answer(body={"success": True, "commitOid": commit, "commitUrl": f"{self.address}/{name}/commit/{commit}"})


def _failed(fault: Fault) -> Answer:
    return Answer(fault.status, {"error": "something went wrong here"})


def _commit_of(repository: Repository, revision: str) -> str:
    commit = repository.branches.get(revision, revision)
    if commit not in repository.commits:
        raise absent("Revision")
    return commit


def _is_large(name: str) -> bool:
    return name.endswith(LARGE)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@contextlib.contextmanager
def local_hub(directory: Path, *, token: str | None = TOKEN) -> Iterator[HubServer]:
    """A hub that huggingface_hub of this process takes for the real one; its cache is `directory`, no environment of the user counts."""
    from huggingface_hub import constants

    server = HubServer()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy", "HF_TOKEN"):
            patch.delenv(name, raising=False)
        if token:
            patch.setenv("HF_TOKEN", token)
        patch.setattr(constants, "HF_TOKEN_PATH", str(directory / "token"))
        patch.setattr(constants, "ENDPOINT", server.address)
        patch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{server.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        )
        patch.setattr(constants, "HF_HUB_CACHE", str(directory))
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        try:
            yield server
        finally:
            server.close()
