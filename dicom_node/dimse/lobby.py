"""Connections that have not asked for an association yet: one thread for all of them (PS3.8 Sta2).

A load balancer's probes, scanners and half-open connections cost a descriptor and a few bytes, no thread and no slot.
Only a whole A-ASSOCIATE-RQ leaves the lobby; what else comes is answered with A-ABORT or closed when the ARTIM timer
ends. TLS handshakes happen here too, so that a slow one holds nobody up.
"""

import resource
import selectors
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import structlog
from pynetdicom.pdu import A_ASSOCIATE_RQ

log = structlog.get_logger()

_HEADER = struct.Struct(">BxI")
_A_ASSOCIATE_RQ = 0x01
_KNOWN_PDUS = range(0x01, 0x08)
_MAX_REQUEST_BYTES = 1 << 20  # 128 presentation contexts with every transfer syntax there is need a third of it
_REMEMBERED_BYTES = 32 << 10
_READ_BYTES = 64 << 10
_TURN_S = 0.25
ARTIM_S = 30.0  # how long a connection may take to ask for an association (PS3.8 section 9.1.5)
_GOODBYE_S = 2.0  # how long an aborted peer has to close the connection itself
_MAX_WAITING = 4096

# reasons of A-ABORT by the service provider (PS3.8 Table 9-26)
_UNRECOGNISED_PDU, _UNEXPECTED_PDU, _INVALID_PARAMETER = 1, 2, 6

#: takes a connection (blocking again), the peer's address, its request and what it has sent behind that
Enter = Callable[[socket.socket, Any, A_ASSOCIATE_RQ, bytes], None]
#: is told the address of a peer whose TLS handshake failed, and why
HandshakeFailed = Callable[[str, str], None]


@dataclass(frozen=True)
class Door:
    """One listening socket, and the TLS that is spoken behind it."""

    listener: socket.socket
    enter: Enter
    tls: Callable[[], ssl.SSLContext] | None = None


@dataclass(eq=False)
class _Guest:
    """One connection in the lobby."""

    connection: socket.socket
    address: Any
    door: Door
    deadline: float
    received: bytearray = field(default_factory=bytearray)
    is_shaking_hands: bool = False
    is_leaving: bool = False  # told to go; only waited for


class Lobby:
    """Accepts connections and lets in those that ask for an association."""

    def __init__(
        self,
        doors: list[Door],
        artim_s: float = ARTIM_S,
        max_waiting: int = _MAX_WAITING,
        handshake_failed: HandshakeFailed = lambda _peer, _reason: None,
    ) -> None:
        """artim_s : how long a connection may take to ask for an association.

        max_waiting : beyond so many, the one that has waited longest is closed for the next one.
        """
        self._doors = doors
        self._artim_s = artim_s
        self._handshake_failed = handshake_failed
        self._max_waiting = min(max_waiting, _room_for_descriptors())
        self._selector = selectors.DefaultSelector()
        self._guests: dict[_Guest, None] = {}  # in order of arrival
        self._is_closing = False
        self._thread = threading.Thread(target=self._run, name="dicom-lobby", daemon=True)

    def start(self) -> None:
        """Begin to accept."""
        for door in self._doors:
            door.listener.setblocking(False)
            self._selector.register(door.listener, selectors.EVENT_READ, door)
        self._thread.start()

    def close(self) -> None:
        """Stop listening and close what waits; associations go on."""
        self._is_closing = True
        self._thread.join()
        for door in self._doors:
            door.listener.close()
        for guest in list(self._guests):
            self._close(guest)
        self._selector.close()

    def _run(self) -> None:
        while not self._is_closing:
            for key, _ in self._selector.select(_TURN_S):
                try:
                    if isinstance(key.data, Door):
                        self._accept(key.data)
                    elif key.data in self._guests:
                        self._serve(key.data)
                except Exception as error:  # noqa: BLE001 - one connection must not close the door for all others
                    log.error("connection dropped", error=repr(error))
                    if isinstance(key.data, _Guest):
                        self._close(key.data)
            self._close_overdue()

    def _accept(self, door: Door) -> None:
        for _ in range(128):
            try:
                connection, address = door.listener.accept()
            except BlockingIOError:
                return
            except OSError as error:  # the peer is gone already, or there are no descriptors left
                if self._guests and error.errno in (23, 24):
                    self._close(next(iter(self._guests)))
                    continue
                return
            connection.setblocking(False)
            guest = _Guest(connection, address, door, time.monotonic() + self._artim_s)
            if door.tls is not None:
                try:
                    guest.connection = door.tls().wrap_socket(
                        connection, server_side=True, do_handshake_on_connect=False, suppress_ragged_eofs=True
                    )
                except (OSError, ValueError):  # gone already
                    connection.close()
                    continue
                guest.is_shaking_hands = True
            if len(self._guests) >= self._max_waiting:
                self._close(next(iter(self._guests)))
            self._guests[guest] = None
            self._selector.register(guest.connection, selectors.EVENT_READ, guest)

    def _serve(self, guest: _Guest) -> None:
        try:
            if guest.is_shaking_hands and not self._shaken(guest):
                return
            data = guest.connection.recv(_READ_BYTES)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        except OSError:
            self._close(guest)
            return
        if not data:
            self._close(guest)
        elif not guest.is_leaving:
            guest.received += data
            self._look(guest)

    def _shaken(self, guest: _Guest) -> bool:
        connection: Any = guest.connection
        try:
            connection.do_handshake()
        except ssl.SSLWantReadError:
            self._selector.modify(connection, selectors.EVENT_READ, guest)
            return False
        except ssl.SSLWantWriteError:
            self._selector.modify(connection, selectors.EVENT_WRITE, guest)
            return False
        except ssl.SSLError as error:
            log.warning("TLS handshake failed", peer=str(guest.address[0]), reason=error.reason)
            self._handshake_failed(str(guest.address[0]), str(error.reason))
            raise OSError("TLS handshake failed") from error
        self._selector.modify(connection, selectors.EVENT_READ, guest)
        guest.is_shaking_hands = False
        return True

    def _look(self, guest: _Guest) -> None:
        """Let a guest in whose request is whole; show out one whose bytes are no request."""
        while True:
            received = guest.received
            kind = received[0]
            if kind != _A_ASSOCIATE_RQ:
                self._show_out(guest, _UNEXPECTED_PDU if kind in _KNOWN_PDUS else _UNRECOGNISED_PDU)
                return
            if len(received) >= 6:
                length = _HEADER.unpack_from(received)[1]
                if length > _MAX_REQUEST_BYTES:
                    self._show_out(guest, _INVALID_PARAMETER)
                    return
                if len(received) >= 6 + length:
                    self._let_in(guest, length)
                    return
            # TLS may hold decrypted bytes back, of which the selector knows nothing
            if not (isinstance(guest.connection, ssl.SSLSocket) and guest.connection.pending()):
                return
            received += guest.connection.recv(_READ_BYTES)

    def _let_in(self, guest: _Guest, length: int) -> None:
        try:
            request = _request(bytes(guest.received[: 6 + length]))
            primitive = request.to_primitive()
        except Exception:  # noqa: BLE001 - whatever it is, it came from outside
            self._show_out(guest, _INVALID_PARAMETER)
            return
        request.to_primitive = lambda: primitive  # type: ignore[method-assign]  # what was just made to see if it can be
        self._forget(guest)
        guest.connection.setblocking(True)
        guest.door.enter(guest.connection, guest.address, request, bytes(guest.received[6 + length :]))

    def _show_out(self, guest: _Guest, reason: int) -> None:
        """A-ABORT, then wait a moment: closing with bytes unread would take the A-ABORT back."""
        log.info("connection refused: no A-ASSOCIATE-RQ", peer=str(guest.address[0]), reason=reason)
        with suppress(OSError):
            guest.connection.send(struct.pack(">BxIxxBB", 0x07, 4, 2, reason))
        guest.is_leaving = True
        guest.received.clear()
        guest.deadline = min(guest.deadline, time.monotonic() + _GOODBYE_S)
        with suppress(OSError):
            if not isinstance(guest.connection, ssl.SSLSocket):
                guest.connection.shutdown(socket.SHUT_WR)

    def _close_overdue(self) -> None:
        now = time.monotonic()
        for guest in [guest for guest in self._guests if guest.deadline < now]:
            self._close(guest)

    def _forget(self, guest: _Guest) -> None:
        self._guests.pop(guest, None)
        with suppress(KeyError, ValueError):
            self._selector.unregister(guest.connection)

    def _close(self, guest: _Guest) -> None:
        self._forget(guest)
        with suppress(OSError):
            guest.connection.close()


def _request(encoded: bytes) -> A_ASSOCIATE_RQ:
    """Decode an A-ASSOCIATE-RQ. Raises whatever the library raises over bytes that are none."""
    request = A_ASSOCIATE_RQ()
    if len(encoded) <= _REMEMBERED_BYTES:
        request.__dict__.update(_decoded(encoded).__dict__)
    else:
        request.decode(encoded)
    return request


@lru_cache(maxsize=64)  # a sender asks with the same bytes every time, and most propose all contexts that there can be
def _decoded(encoded: bytes) -> A_ASSOCIATE_RQ:
    request = A_ASSOCIATE_RQ()
    request.decode(encoded)
    return request


def _room_for_descriptors() -> int:
    """Raise the soft limit of open files to the hard one; returns how many may wait in the lobby with it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = hard if hard != resource.RLIM_INFINITY else 65536
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    return max(16, soft // 2) if soft != resource.RLIM_INFINITY else _MAX_WAITING
