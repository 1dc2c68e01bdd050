"""Connections that never become associations, by the thousand; and C-ECHO beside them."""

import itertools
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from raw_scu import STORE_AND_ECHO, EndedError, RawScu, associate_rq, echo_seconds, p_data, pdu, pdv, store_rq


def probe(port: int, count: int, open_at_once: int = 16) -> None:
    """`count` TCP probes as of a load balancer: connect and close, by FIN or RST, some after a few foreign bytes.

    `open_at_once` connections overlap. Raises OSError when one cannot connect within 5 s.
    """
    foreign = (b"", b"", b"GET / HTTP/1.0\r\n\r\n", b"\x16\x03\x01\x02\0\x01\0\x01\xfc")
    open_ones: list[socket.socket] = []
    for number, data in zip(range(count), itertools.cycle(foreign), strict=False):
        connection = socket.create_connection(("127.0.0.1", port), 5)
        if number % 3 == 0:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if data:
            with suppress(OSError):
                connection.sendall(data)
        open_ones.append(connection)
        if len(open_ones) >= open_at_once:
            open_ones.pop(0).close()
    for connection in open_ones:
        connection.close()


@contextmanager
def half_open(port: int, count: int, associations: int = 0) -> Iterator[list[socket.socket]]:
    """`count` connections held open: silent ones, ones with the start of a PDU, ones with half an A-ASSOCIATE-RQ;
    and `associations` accepted ones in the middle of a PDU of a Dataset. Closed at the end."""
    request = associate_rq("LIVERNODE", "HALF", STORE_AND_ECHO, 65536)
    starts = (b"", request[:5], request[: len(request) // 2], request[:-1])
    with ExitStack() as stack:
        held = []
        for _, start in zip(range(count), itertools.cycle(starts), strict=False):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), 5))
            connection.sendall(start)
            held.append(connection)
        for number in range(associations):
            scu = stack.enter_context(RawScu(port)).associate()
            command = p_data(pdv(1, store_rq(1, f"2.25.8{number}"), True, True))
            data = pdu(4, pdv(1, b"\x08\0\x05\0" * 500, False, False))
            scu.send(command + data[: len(data) // 2])
            held.append(scu.socket)
        yield held


class EchoWatch:
    """C-ECHO again and again from a thread of its own; `worst_s`: the slowest answer, infinite if one did not come."""

    def __init__(self, port: int, pause_s: float = 0.05) -> None:
        self.worst_s, self.count = 0.0, 0
        self.trouble: list[str] = []
        self._port, self._pause_s = port, pause_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self._stop.wait(self._pause_s):
            started = time.perf_counter()
            try:
                seconds = echo_seconds(self._port)
            except (OSError, EndedError) as error:
                self.trouble.append(f"{error!r} after {time.perf_counter() - started:.2f} s")
                seconds = float("inf")
            self.worst_s = max(self.worst_s, seconds)
            self.count += 1

    def __enter__(self) -> "EchoWatch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)
