"""A local HTTP server that misbehaves as servers do: one fault a request, then it behaves. It notes every request."""

from __future__ import annotations

import re
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BLOCK = 1 << 13


@dataclass
class Served:
    """A file of the server. etag, modified: None leaves the header out; length: what to tell instead of the true one;
    redirect: the address it is at instead."""

    content: bytes
    etag: str | None = '"one"'
    modified: float | None = None
    ranges: bool = True
    length: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    redirect: str | None = None
    bytes_a_second: float | None = None


@dataclass(frozen=True)
class Request:
    """What was asked for."""

    method: str
    path: str
    headers: dict[str, str]

    @property
    def range(self) -> str | None:
        return self.headers.get("range")


Fault = Callable[[BaseHTTPRequestHandler, Served], bool]
"""Answers in place of the server; True when it has done so."""


def status(code: int, **headers: str) -> Fault:
    """Answer with an error."""

    def answer(handler: BaseHTTPRequestHandler, served: Served) -> bool:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return True

    return answer


def drop_after(count: int) -> Fault:
    """Send so many bytes of the body, then close the connection."""

    def answer(handler: BaseHTTPRequestHandler, served: Served) -> bool:
        begin = send_head(handler, served)
        handler.wfile.write(served.content[begin : begin + count])
        handler.wfile.flush()
        handler.close_connection = True
        return True

    return answer


def silence(seconds: float) -> Fault:
    """Say nothing for so long, then close the connection."""

    def answer(handler: BaseHTTPRequestHandler, served: Served) -> bool:
        time.sleep(seconds)
        handler.close_connection = True
        return True

    return answer


def behave(handler: BaseHTTPRequestHandler, served: Served) -> bool:
    """No fault this time."""
    return False


def send_head(handler: BaseHTTPRequestHandler, served: Served) -> int:
    """Send status and headers; returns where the body begins, past the end when there is to be none."""
    match = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
    modified = formatdate(served.modified, usegmt=True) if served.modified is not None else None
    condition = handler.headers.get("If-Range")
    begin = 0
    if match and served.ranges and condition in (None, served.etag, modified):
        begin = int(match[1])
        if begin >= len(served.content):
            handler.send_response(416)
            handler.send_header("Content-Range", f"bytes */{len(served.content)}")
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return len(served.content)
        handler.send_response(206)
        handler.send_header("Content-Range", f"bytes {begin}-{len(served.content) - 1}/{len(served.content)}")
    else:
        handler.send_response(200)
    length = served.length if served.length is not None else len(served.content) - begin
    handler.send_header("Content-Length", str(length))
    for name, value in (("ETag", served.etag), ("Last-Modified", modified), *served.headers.items()):
        if value is not None:
            handler.send_header(name, value)
    handler.end_headers()
    return begin


class FileServer:
    """Serves `files` by path on this machine until it is closed; `faults[path]` are taken one a GET."""

    def __init__(self) -> None:
        self.files: dict[str, Served] = {}
        self.faults: defaultdict[str, list[Fault]] = defaultdict(list)
        self.requests: list[Request] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def url(self, path: str) -> str:
        """The address of a file."""
        return f"{self.address}/{path}"

    def gets(self, path: str | None = None) -> list[Request]:
        """The GET requests there were, for one file or all."""
        return [one for one in self.requests if one.method == "GET" and path in (None, one.path)]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_HEAD(self) -> None:
                served = self._find()
                if served is not None:
                    send_head(self, served)

            def do_GET(self) -> None:
                served = self._find()
                if served is not None:
                    try:
                        self._answer(served)
                    except (BrokenPipeError, ConnectionResetError):
                        self.close_connection = True

            def _answer(self, served: Served) -> None:
                faults = server.faults[self.path.lstrip("/")]
                if faults and faults.pop(0)(self, served):
                    return
                begin = send_head(self, served)
                for place in range(begin, len(served.content), BLOCK):
                    block = served.content[place : place + BLOCK]
                    self.wfile.write(block)
                    if served.bytes_a_second:
                        self.wfile.flush()
                        time.sleep(len(block) / served.bytes_a_second)

            def _find(self) -> Served | None:
                headers = {name.lower(): value for name, value in self.headers.items()}
                path = self.path.removeprefix(server.address).lstrip("/")
                self.path = f"/{path}"
                server.requests.append(Request(self.command, path, headers))
                served = server.files.get(path)
                if served is None and server.faults[path]:
                    served = Served(b"")
                if served is None:
                    self.send_response(404)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                elif served.redirect is not None:
                    status(302, Location=served.redirect, **served.headers)(self, served)
                    return None
                return served

        return Handler
