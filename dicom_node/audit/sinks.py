"""Where audit records go: a folder of files, and a syslog server (PS3.15 A.6, A.7; RFC 5424, 5425, 5426)."""

import fcntl
import os
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from dicom_node.errors import ConfigurationError

FILE_BYTES = 20_000_000
_CONNECT_S = 5.0
_RETRY_S = 10.0
_FACILITY = 10  # security/authorisation messages
_NOTICE, _WARNING = 5, 4
_DEFAULT_PORTS = {"udp": 514, "tcp": 601, "tls": 6514}
_MAX_UDP_BYTES = 65_000


class Sink(Protocol):
    """Takes records in batches, in the trail's own thread."""

    def write(self, records: list[tuple[str, bool]]) -> None:
        """Each: XML on one line, whether it tells of a failure. Raises OSError when they were not taken."""

    def close(self) -> None:
        """No more will come."""


class FolderSink:
    """`audit.log` with one record per line, and older files beside it. Several processes may write."""

    def __init__(self, folder: Path, total_bytes: int, file_bytes: int = FILE_BYTES) -> None:
        """total_bytes : the oldest files go when together they hold more."""
        self._folder = folder
        self._total_bytes = total_bytes
        self._file_bytes = file_bytes

    def write(self, records: list[tuple[str, bool]]) -> None:
        """Append, and be on disk on return. Raises OSError."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(self._folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            path = self._folder / "audit.log"
            with suppress(FileNotFoundError):
                if path.stat().st_size > self._file_bytes:
                    self._rotate(path)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                before = os.fstat(descriptor).st_size
                data = "".join(f"{xml}\n" for xml, _ in records).encode()
                if os.write(descriptor, data) < len(data):
                    os.ftruncate(descriptor, before)  # a full disk: no half record
                    raise OSError("audit record not written whole")
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        finally:
            os.close(lock)  # and the lock with it

    def close(self) -> None:
        """Nothing is open between writes."""

    def _rotate(self, path: Path) -> None:
        path.rename(self._folder / f"audit-{datetime.now(UTC):%Y%m%dT%H%M%S}-{time.time_ns() % 10**9:09d}.log")
        older = sorted(self._folder.glob("audit-*.log"))
        while older and sum(file.stat().st_size for file in older) > self._total_bytes - self._file_bytes:
            older.pop(0).unlink()


class SyslogSink:
    """A syslog server. Over TCP and TLS records wait while it is away; UDP gives no sign."""

    def __init__(
        self,
        url: str,
        tls: Callable[[], ssl.SSLContext] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """url : udp://HOST[:514], tcp://HOST[:601] or tls://HOST[:6514]. tls : makes the context.

        Raises ConfigurationError for another url.
        """
        try:
            parts = urlsplit(url)
            self._kind, self._host, port = parts.scheme, parts.hostname or "", parts.port
        except ValueError:
            self._kind, self._host, port = "", "", None
        if self._kind not in _DEFAULT_PORTS or not self._host:
            raise ConfigurationError(f"DICOM_NODE_AUDIT_SYSLOG={url!r}: udp://HOST, tcp://HOST or tls://HOST is needed")
        self._port = port or _DEFAULT_PORTS[self._kind]
        self._tls = tls
        self._clock = clock
        self._connection: socket.socket | None = None
        self._not_before = 0.0

    def write(self, records: list[tuple[str, bool]]) -> None:
        """Send. Raises OSError; a batch that failed in the middle is sent again as a whole."""
        if self._connection is None:
            if self._clock() < self._not_before:
                raise OSError("the syslog server was away a moment ago")
            self._not_before = self._clock() + _RETRY_S
            self._connection = self._connected()
        try:
            for xml, is_failure in records:
                self._send(self._connection, _syslog_line(xml, is_failure))
        except OSError:
            self.close()
            raise
        self._not_before = 0.0

    def close(self) -> None:
        """End the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(OSError):
                connection.close()

    def _connected(self) -> socket.socket:
        if self._kind == "udp":
            family, kind, protocol, _, address = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_DGRAM)[0]
            connection = socket.socket(family, kind, protocol)
            connection.connect(address)
            return connection
        connection = socket.create_connection((self._host, self._port), _CONNECT_S)
        try:
            if self._kind == "tls":
                if self._tls is None:
                    raise OSError("no TLS context")
                connection = self._tls().wrap_socket(connection, server_hostname=self._host)
        except BaseException:
            connection.close()
            raise
        return connection

    def _send(self, connection: socket.socket, line: bytes) -> None:
        if self._kind == "udp":
            connection.send(line[:_MAX_UDP_BYTES])
            return
        connection.sendall(b"%d %s" % (len(line), line))  # octet counting, RFC 5425 section 4.3, RFC 6587 3.4.1
        self._look_for_the_end(connection)

    def _look_for_the_end(self, connection: socket.socket) -> None:
        """The server says nothing: what can be read is the end of the connection, which sending alone may not see."""
        connection.settimeout(0.0)
        try:
            if not connection.recv(64):
                raise OSError("the syslog server closed the connection")
        except (BlockingIOError, ssl.SSLWantReadError):
            pass
        finally:
            connection.settimeout(_CONNECT_S)


def _syslog_line(xml: str, is_failure: bool) -> bytes:
    priority = _FACILITY * 8 + (_WARNING if is_failure else _NOTICE)
    at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    header = f"<{priority}>1 {at} {socket.gethostname() or '-'} dicom-node {os.getpid()} DICOM+RFC3881 - "
    return header.encode("ascii", "replace") + b"\xef\xbb\xbf" + xml.encode()
