"""A stand-in for an archive's STOW-RS service, in every mood."""

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from typing import Any

from certificates import Pair
from pydicom import dcmread


@dataclass
class Post:
    """One request, and what it brought."""

    target: str
    headers: dict[str, str]
    objects: dict[str, bytes]  # SOP Instance UID -> file


@dataclass
class Answer:
    """One response."""

    status: int = 200
    stored: list[str] = field(default_factory=list)
    failed: dict[str, int] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None  # instead of the lists
    content_type: str = "application/dicom+json"

    def encoded(self) -> bytes:
        if self.body is not None:
            return self.body
        document: dict[str, Any] = {}
        if self.stored:
            document["00081199"] = {"vr": "SQ", "Value": [_item(uid) for uid in self.stored]}
        if self.failed:
            items = [_item(uid) | {"00081197": {"vr": "US", "Value": [why]}} for uid, why in self.failed.items()]
            document["00081198"] = {"vr": "SQ", "Value": items}
        return json.dumps(document).encode()


def _item(uid: str) -> dict[str, Any]:
    return {"00081155": {"vr": "UI", "Value": [uid]}}


def all_stored(post: Post) -> Answer:
    return Answer(stored=list(post.objects))


class WebArchive:
    """`react` decides on each request; what it raises cuts the connection."""

    def __init__(self, react: Callable[[Post], Answer] = all_stored) -> None:
        self.react = react
        self.posts: list[Post] = []
        self.early: Answer | None = None  # answered before the body is read
        self.swallows = False  # bodies are read in small pieces and forgotten, and all is well
        self.port = 0
        self.connections = 0

    @contextmanager
    def running(self, tls: Pair | None = None) -> Iterator[str]:
        """Listen; yields the URL of the service."""
        archive = self

        class Handler(_Handler):
            pass

        Handler.archive = archive
        server = _Server(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        if tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls.certificate, tls.key)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        self.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield f"http{'s' if tls else ''}://127.0.0.1:{self.port}/dicom-web/"
        finally:
            server.shutdown()
            server.server_close()


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that broke off, or that does not trust us


class _Handler(BaseHTTPRequestHandler):
    archive: WebArchive
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        self.archive.connections += 1

    def do_POST(self) -> None:
        if self.archive.early is not None:
            self._say(self.archive.early)
            self.close_connection = True
            return
        length = int(self.headers["Content-Length"])
        if self.archive.swallows:
            while length:
                length -= len(self.rfile.read(min(length, 64 << 10)))
            self._say(Answer())
            return
        body = self.rfile.read(length)
        post = Post(self.path, dict(self.headers), _objects(body, self.headers["Content-Type"]))
        self.archive.posts.append(post)
        try:
            answer = self.archive.react(post)
        except ConnectionError:
            self.close_connection = True
            return
        self._say(answer)

    def _say(self, answer: Answer) -> None:
        content = answer.encoded()
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(content)))
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def _objects(body: bytes, content_type: str) -> dict[str, bytes]:
    """The parts of a multipart body (RFC 2046 section 5.1)."""
    assert content_type.startswith('multipart/related; type="application/dicom"; boundary=')
    delimiter = b"--" + content_type.rsplit("=", 1)[1].encode()
    assert body.startswith(delimiter + b"\r\n")
    assert body.endswith(b"\r\n" + delimiter + b"--\r\n")
    found = {}
    for part in body[: -len(delimiter) - 4].split(delimiter + b"\r\n")[1:]:
        head, _, content = part.partition(b"\r\n\r\n")
        assert head == b"Content-Type: application/dicom"
        file = content.removesuffix(b"\r\n")
        found[str(dcmread(BytesIO(file), stop_before_pixels=True).SOPInstanceUID)] = file
    return found
