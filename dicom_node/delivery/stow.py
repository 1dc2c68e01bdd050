"""Delivery by STOW-RS, the Store transaction of DICOMweb (PS3.18 section 10.5): one POST per batch.

The bytes go from the file to the connection in pieces, so a large segmentation costs no memory; they are those of the
file store, as every retry must send. urllib3 does the HTTP: it depends on nothing, streams a body of known length, and
hears an archive that answers and closes before it has read everything.
"""

import secrets
import ssl
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from urllib3 import BaseHTTPResponse, HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, HTTPError, InvalidHeader, NewConnectionError, SSLError
from urllib3.exceptions import TimeoutError as HTTPTimeoutError
from urllib3.util import Retry, Timeout

from dicom_node.delivery import Batch, Fate, Outcome, ReadPath
from dicom_node.delivery.credentials import authorization
from dicom_node.delivery.dimse import tls_of
from dicom_node.delivery.stow_answer import StowAnswer, outcome_of, read_answer
from dicom_node.dimse.tls import TlsPeer, client_context
from dicom_node.errors import ConfigurationError
from storage.records import Delivery

MAX_POST_BYTES = 64 << 20  # of several objects; a larger one goes alone
CONNECT_WITHIN_S = 10.0
#: Also the longest pause in taking our bytes. An archive answers only when it has stored everything.
ANSWER_WITHIN_S = 120.0
LONGEST_WAIT_S = 3600.0  # of Retry-After
_PIECE_BYTES = 256 << 10
_MAX_ANSWER_BYTES = 16 << 20


@dataclass(frozen=True)
class _Part:
    """One object of a request."""

    delivery: Delivery
    path: Path
    size_bytes: int


class _OwnFileError(Exception):
    """A file of ours could not be read to its end; not an OSError, which urllib3 would take for the connection's."""


def send(destination: Any, batch: Batch, read_path: ReadPath, _calling_ae_title: str) -> None:
    """Send the batch to `destination` (routing.destination.Destination of type stow); see delivery.send.

    What failed before goes alone, so that an object that the archive stumbles over holds nobody else up. The objects
    of one POST go in order, but what the archive does with one says nothing to the next.
    """
    parts = []
    for delivery in batch.deliveries:
        path = read_path(delivery.path)
        try:
            parts.append(_Part(delivery, path, path.stat().st_size))
        except OSError as error:
            batch.report(delivery, Outcome(Fate.BUSY, None, f"its file cannot be read: {error.strerror}"))
    if not parts:
        return
    try:
        archive = _Archive(destination)
    except ConfigurationError as error:
        batch.end(Outcome(Fate.AWAY, None, str(error)))
        return
    try:
        for group in _groups(parts):
            ready = [part for part in group if batch.may_send(part.delivery)]
            if ready:
                for part, outcome in zip(ready, archive.store(ready), strict=True):
                    batch.report(part.delivery, outcome)
            if archive.is_closed is not None:
                batch.end(archive.is_closed)  # the rest would meet the same
                return
    finally:
        archive.close()


def _groups(parts: Sequence[_Part]) -> Iterator[list[_Part]]:
    group: list[_Part] = []
    size_bytes = 0
    for part in parts:
        is_alone = part.delivery.attempts > 1
        if group and (is_alone or size_bytes + part.size_bytes > MAX_POST_BYTES):
            yield group
            group, size_bytes = [], 0
        group.append(part)
        size_bytes += part.size_bytes
        if is_alone:
            yield group
            group, size_bytes = [], 0
    if group:
        yield group


class _Archive:
    """The Studies Service of an archive, over one connection that is kept open between requests."""

    is_closed: Outcome | None = None  # set: nothing can be stored there now

    def __init__(self, destination: Any) -> None:
        """Raises ConfigurationError for TLS files and credentials that are not in order."""
        parts = urlsplit(destination.url)
        host = parts.hostname or ""
        self._peer = f"{parts.scheme}://{parts.netloc}{parts.path}".rstrip("/")
        self._target = f"{parts.path.rstrip('/')}/studies"
        self._headers = {"Accept": "application/dicom+json", **authorization(destination)}
        options: dict[str, Any] = {"maxsize": 1, "retries": False}
        if parts.scheme == "https":
            tls = tls_of(destination) or TlsPeer()
            name = tls.server_name or host
            options |= {"ssl_context": client_context(tls.files), "server_hostname": name, "assert_hostname": name}
            self._pool: HTTPConnectionPool = HTTPSConnectionPool(host, parts.port or 443, **options)
            self._pool.ConnectionCls = _PatientTlsConnection
        else:
            self._pool = HTTPConnectionPool(host, parts.port or 80, **options)
            self._pool.ConnectionCls = _PatientConnection

    def close(self) -> None:
        """End the connection."""
        self._pool.close()

    def store(self, group: Sequence[_Part]) -> list[Outcome]:
        """One POST, or one for each object where the archive refuses them together; an outcome for each."""
        answer = self._post(group)
        if isinstance(answer, Outcome):
            return [answer] * len(group)
        if len(group) > 1 and answer.is_refused_as_a_whole:
            return [self.is_closed or self.store([part])[0] for part in group]
        if answer.is_about_the_archive:
            self.is_closed = outcome_of(answer, "", self._peer)
        return [outcome_of(answer, part.delivery.sop_instance_uid, self._peer) for part in group]

    def _post(self, group: Sequence[_Part]) -> StowAnswer | Outcome:
        body = _Multipart(group)
        headers = {
            **self._headers,
            "Content-Type": f'multipart/related; type="application/dicom"; boundary={body.boundary}',
            "Content-Length": str(body.size_bytes),
        }
        try:
            response = self._pool.urlopen(
                "POST", self._target, body=iter(body), headers=headers, redirect=False,
                timeout=Timeout(connect=CONNECT_WITHIN_S, read=ANSWER_WITHIN_S),
                preload_content=False, decode_content=False,
            )  # fmt: skip
            content = response.read(_MAX_ANSWER_BYTES)
            if len(content) < _MAX_ANSWER_BYTES:
                response.release_conn()
            else:
                response.close()  # what is left unread must not be taken for the next answer
        except _OwnFileError as error:
            return Outcome(Fate.BUSY, None, str(error))
        except HTTPError as error:
            reason = f"{self._peer} {_in_words(error)}"
            self.is_closed = Outcome(Fate.AWAY, None, reason)
            never_began = isinstance(error, NewConnectionError | ConnectTimeoutError | SSLError)
            return self.is_closed if never_began else Outcome(Fate.UNANSWERED, None, reason)
        return read_answer(response.status, response.headers.get("Content-Type", ""), content, _wait_s(response))


class _Multipart:
    """The body of a request, read as it is sent (PS3.18 section 8.6.1.2.1)."""

    def __init__(self, group: Sequence[_Part]) -> None:
        self.boundary = secrets.token_hex(16)  # 128 random bits: in no object
        self._group = group
        self._head = f"--{self.boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        self._end = f"--{self.boundary}--\r\n".encode()
        self.size_bytes = sum(len(self._head) + part.size_bytes + 2 for part in group) + len(self._end)

    def __iter__(self) -> Iterator[bytes]:
        """Raises _OwnFileError."""
        for part in self._group:
            yield self._head
            left = part.size_bytes
            try:
                with part.path.open("rb") as file:
                    while left and (piece := file.read(min(left, _PIECE_BYTES))):
                        yield piece
                        left -= len(piece)
            except OSError as error:
                raise _OwnFileError(f"its file cannot be read: {error.strerror}") from error
            if left:
                raise _OwnFileError(f"{left} of {part.size_bytes} bytes are missing in the file store")
            yield b"\r\n"
        yield self._end


class _PatientConnection(HTTPConnection):
    """Connects quickly or not at all; sending may then wait for the archive's disk, which urllib3 counts as one."""

    def connect(self) -> None:
        """As urllib3's."""
        super().connect()
        self.sock.settimeout(ANSWER_WITHIN_S)


class _PatientTlsConnection(HTTPSConnection):
    """The same with TLS."""

    def connect(self) -> None:
        """As urllib3's."""
        super().connect()
        self.sock.settimeout(ANSWER_WITHIN_S)


def _wait_s(response: BaseHTTPResponse) -> float:
    value = response.headers.get("Retry-After")
    try:
        return min(LONGEST_WAIT_S, Retry().parse_retry_after(value)) if value else 0.0
    except (InvalidHeader, ValueError, OverflowError):
        return 0.0


def _in_words(error: HTTPError) -> str:
    """What went wrong with a connection; the library's own texts name its objects."""
    cause = error.__cause__ or error.__context__
    if isinstance(error, SSLError):
        failure = next((item for item in error.args if isinstance(item, ssl.SSLError)), None)
        words = getattr(failure, "verify_message", "") or getattr(failure, "reason", "") or error
        return f"gives no TLS connection: {words}"
    if isinstance(error, NewConnectionError):
        return f"cannot be reached: {getattr(cause, 'strerror', None) or 'no connection'}"
    if isinstance(error, HTTPTimeoutError) or isinstance(cause, TimeoutError):
        return "does not answer"
    return "cut the connection"
