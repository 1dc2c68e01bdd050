"""A requestor over a plain socket, for tests that must decide every byte on the wire.

PDUs are those of PS3.8 section 9.3, command sets those of PS3.7 section 6.3 and Annex E. Nothing is checked before it
is sent: what a test builds is what the peer gets. Only what comes back is read strictly.
"""

import socket
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

CT = "1.2.840.10008.5.1.4.1.1.2"
VERIFICATION = "1.2.840.10008.1.1"
IMPLICIT_LITTLE, EXPLICIT_LITTLE = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"

ASSOCIATE_RQ, ASSOCIATE_AC, ASSOCIATE_RJ, P_DATA, RELEASE_RQ, RELEASE_RP, ABORT = range(1, 8)
STORE_RQ, ECHO_RQ, CANCEL_RQ = 0x0001, 0x0030, 0x0FFF
_NO_DATASET = 0x0101  # Command Data Set Type (0000,0800)


class EndedError(Exception):
    """The peer did not go on: "closed", "aborted", "rejected a b c", "released" or "silent"."""


@dataclass(frozen=True)
class Context:
    """A presentation context to propose; `context_id` odd, 1 to 255, unless the test wants it otherwise."""

    context_id: int
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...] = (EXPLICIT_LITTLE,)


@dataclass(frozen=True)
class Answer:
    """A response message; `status` is None when the command set has none."""

    field: int
    message_id: int
    status: int | None
    context_id: int
    sop_instance_uid: str
    comment: str


STORE_AND_ECHO = (Context(1, CT), Context(3, VERIFICATION, (IMPLICIT_LITTLE,)))

# ------------------------------------------------------------------ building


def pdu(kind: int, body: bytes, length: int | None = None) -> bytes:
    """A PDU; `length` in place of the true one."""
    return struct.pack(">BxI", kind, len(body) if length is None else length) + body


def _item(kind: int, body: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(body)) + body


def associate_rq(
    called: str, calling: str, contexts: Sequence[Context], max_pdu_bytes: int, user_items: bytes = b""
) -> bytes:
    """A-ASSOCIATE-RQ (PS3.8 section 9.3.2); `max_pdu_bytes` is what we take, `user_items` come after the usual ones."""
    body = struct.pack(">Hxx16s16s32x", 1, called.encode().ljust(16), calling.encode().ljust(16))
    body += _item(0x10, APPLICATION_CONTEXT.encode())
    for context in contexts:
        syntaxes = b"".join(_item(0x40, syntax.encode()) for syntax in context.transfer_syntaxes)
        body += _item(
            0x20, bytes([context.context_id, 0, 0, 0]) + _item(0x30, context.abstract_syntax.encode()) + syntaxes
        )
    user = _item(0x51, struct.pack(">I", max_pdu_bytes)) + _item(0x52, b"2.25.7") + user_items
    return pdu(ASSOCIATE_RQ, body + _item(0x50, user))


def element(group: int, number: int, value: bytes) -> bytes:
    """A data element, Implicit VR Little Endian, as it is."""
    return struct.pack("<HHI", group, number, len(value)) + value


def uid_value(uid: str) -> bytes:
    """A UID as a value of even length."""
    value = uid.encode("utf-8")
    return value + b"\0" * (len(value) % 2)


def command_set(elements: Mapping[int, bytes]) -> bytes:
    """Elements of group 0000 in ascending order, with the group length before them (PS3.7 section 6.3.1)."""
    body = b"".join(element(0, number, elements[number]) for number in sorted(elements))
    return element(0, 0, struct.pack("<I", len(body))) + body


def us(value: int) -> bytes:
    """A value of VR US."""
    return struct.pack("<H", value)


def store_rq(
    message_id: int, sop_instance_uid: str | None, sop_class_uid: str = CT, other: Mapping[int, bytes] | None = None
) -> bytes:
    """C-STORE-RQ (PS3.7 Table 9.3-1); without the UID's element when it is None, `other` replaces or adds elements."""
    elements = {
        0x0002: uid_value(sop_class_uid), 0x0100: us(STORE_RQ), 0x0110: us(message_id), 0x0700: us(0), 0x0800: us(1)
    }  # fmt: skip
    if sop_instance_uid is not None:
        elements[0x1000] = uid_value(sop_instance_uid)
    return command_set(elements | dict(other or {}))


def echo_rq(message_id: int) -> bytes:
    """C-ECHO-RQ (PS3.7 Table 9.3-12)."""
    return command_set(
        {0x0002: uid_value(VERIFICATION), 0x0100: us(ECHO_RQ), 0x0110: us(message_id), 0x0800: us(_NO_DATASET)}
    )


def cancel_rq(message_id: int) -> bytes:
    """C-CANCEL-RQ for an earlier message (PS3.7 Table 9.3-6)."""
    return command_set({0x0100: us(CANCEL_RQ), 0x0120: us(message_id), 0x0800: us(_NO_DATASET)})


def pdv(context_id: int, fragment: bytes, is_command: bool, is_last: bool) -> bytes:
    """A presentation data value item with its message control header (PS3.8 section 9.3.5.1 and Annex E.2)."""
    return struct.pack(">IBB", len(fragment) + 2, context_id, is_command | is_last << 1) + fragment


def p_data(*items: bytes) -> bytes:
    """P-DATA-TF of these items."""
    return pdu(P_DATA, b"".join(items))


def fragments(data: bytes, sizes: Sequence[int]) -> Iterator[tuple[bytes, bool]]:
    """`data` cut into pieces of these sizes (0 is allowed) and what is left, each with whether it is the last."""
    done = 0
    for size in sizes:
        yield data[done : done + size], False
        done = min(len(data), done + size)
    yield data[done:], True


# ------------------------------------------------------------------ talking


class RawScu:
    """One connection. After `associate`: `accepted` maps context ids to Transfer Syntaxes, `peer_max_pdu_bytes` is
    the peer's limit (0: none)."""

    def __init__(self, port: int, timeout_s: float = 10.0, nodelay: bool = True) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, nodelay)
        self.accepted: dict[int, str] = {}
        self.results: dict[int, int] = {}  # context id -> result of its negotiation (PS3.8 Table 9-18)
        self.peer_max_pdu_bytes = 0
        self._read = bytearray()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self, reset: bool = False) -> None:
        """Close the connection, by RST instead of FIN with `reset`."""
        if reset:
            with suppress(OSError):
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def associate(
        self,
        contexts: Sequence[Context] = STORE_AND_ECHO,
        called: str = "LIVERNODE",
        calling: str = "RAWSCU",
        max_pdu_bytes: int = 65536,
    ) -> Self:
        """Request an association. Raises EndedError when it is not accepted."""
        self.send(associate_rq(called, calling, contexts, max_pdu_bytes))
        kind, body = self.read_pdu()
        if kind == ASSOCIATE_RJ:
            raise EndedError(f"rejected {body[1]} {body[2]} {body[3]}")
        assert kind == ASSOCIATE_AC, f"PDU type {kind} in answer to A-ASSOCIATE-RQ"
        offset = 68
        while offset + 4 <= len(body):
            item, length = struct.unpack_from(">BxH", body, offset)
            content = body[offset + 4 : offset + 4 + length]
            if item == 0x21:
                self.results[content[0]] = content[2]
                if content[2] == 0:
                    (size,) = struct.unpack_from(">H", content, 6)
                    self.accepted[content[0]] = content[8 : 8 + size].decode().rstrip("\0")
            elif item == 0x50 and content[0] == 0x51:
                (self.peer_max_pdu_bytes,) = struct.unpack_from(">I", content, 4)
            offset += 4 + length
        return self

    def send(self, *parts: bytes | memoryview) -> None:
        """Send all of it. Raises OSError."""
        left = [memoryview(part) for part in parts if len(part)]
        while left:
            sent = self.socket.sendmsg(left[:512])
            while left and sent >= len(left[0]):
                sent -= len(left.pop(0))
            if sent:
                left[0] = left[0][sent:]

    def send_message(self, context_id: int, command: bytes, dataset: bytes | None = None) -> None:
        """A message in the simplest way: the command in one PDV, the Dataset in PDUs as large as the peer takes."""
        head = p_data(pdv(context_id, command, True, True))
        if dataset is None:
            self.send(head)
            return
        size = (self.peer_max_pdu_bytes or 1 << 20) - 6
        parts: list[bytes | memoryview] = [head]
        for start in range(0, max(1, len(dataset)), size):
            piece = memoryview(dataset)[start : start + size]
            parts += [self.data_head(context_id, len(piece), start + size >= len(dataset)), piece]
        self.send(*parts)

    @staticmethod
    def data_head(context_id: int, size: int, is_last: bool) -> bytes:
        """What goes before `size` bytes of a Dataset in a P-DATA-TF of one PDV."""
        return struct.pack(">BxIIBB", P_DATA, size + 6, size + 2, context_id, is_last << 1)

    def read_pdu(self) -> tuple[int, bytes]:
        """(PDU type, body). Raises EndedError."""
        self._fill(6)
        kind, length = struct.unpack_from(">BxI", self._read)
        assert length <= 1 << 24, f"a PDU of {length} bytes in an answer"
        self._fill(6 + length)
        body = bytes(self._read[6 : 6 + length])
        del self._read[: 6 + length]
        return kind, body

    def _fill(self, size: int) -> None:
        while len(self._read) < size:
            try:
                received = self.socket.recv(65536)
            except TimeoutError:
                raise EndedError("silent") from None
            except OSError:
                raise EndedError("closed") from None
            if not received:
                raise EndedError("closed")
            self._read += received

    def answer(self) -> Answer:
        """The next response message. Raises EndedError."""
        command = b""
        context_id = 0
        while True:
            kind, body = self.read_pdu()
            if kind != P_DATA:
                raise EndedError(
                    {RELEASE_RQ: "released", RELEASE_RP: "released", ABORT: "aborted"}.get(kind, str(kind))
                )
            offset = 0
            while offset < len(body):
                length, context_id, control = struct.unpack_from(">IBB", body, offset)
                assert control & 1, "a response of C-STORE or C-ECHO has no Dataset"
                command += body[offset + 6 : offset + 4 + length]
                offset += 4 + length
                if control & 2:
                    assert offset == len(body), "more than one message in a PDU"
                    return _answer(context_id, command)

    def store(
        self,
        message_id: int,
        sop_instance_uid: str | None,
        dataset: bytes,
        context_id: int = 1,
        sop_class_uid: str = CT,
    ) -> Answer:
        """Send an object and wait for the answer. Raises EndedError, OSError."""
        self.send_message(context_id, store_rq(message_id, sop_instance_uid, sop_class_uid), dataset)
        return self.answer()

    def store_streamed(
        self, message_id: int, sop_instance_uid: str, head: bytes, repeated: bytes, times: int, context_id: int = 1
    ) -> Answer:
        """Send a Dataset of `head` and `times` copies of `repeated` (at most as long as a PDU), never held at once."""
        self.send(p_data(pdv(context_id, store_rq(message_id, sop_instance_uid), True, True)))
        self.send(self.data_head(context_id, len(head), False), head)
        for number in range(times):
            self.send(self.data_head(context_id, len(repeated), number == times - 1), repeated)
        return self.answer()

    def echo(self, message_id: int, context_id: int = 3) -> Answer:
        """C-ECHO. Raises EndedError, OSError."""
        self.send_message(context_id, echo_rq(message_id))
        return self.answer()

    def release(self) -> None:
        """Release the association and wait for the confirmation. Raises EndedError."""
        self.send(pdu(RELEASE_RQ, b"\0" * 4))
        kind, _ = self.read_pdu()
        assert kind == RELEASE_RP, f"PDU type {kind} in answer to A-RELEASE-RQ"

    def abort(self) -> None:
        """Abort (PS3.8 section 9.3.8) and close."""
        with suppress(OSError):
            self.send(pdu(ABORT, b"\0" * 4))
        self.close()


def _answer(context_id: int, command: bytes) -> Answer:
    elements: dict[int, bytes] = {}
    offset = 0
    while offset < len(command):
        group, number, length = struct.unpack_from("<HHI", command, offset)
        assert group == 0, f"element of group {group:04X} in a command set"
        elements[number] = command[offset + 8 : offset + 8 + length]
        offset += 8 + length
    (promised,) = struct.unpack("<I", elements[0])
    assert promised == len(command) - 12, "Command Group Length is wrong"

    def number_of(tag: int) -> int | None:
        return int(struct.unpack("<H", elements[tag])[0]) if tag in elements else None

    return Answer(
        field=number_of(0x0100) or 0,
        message_id=number_of(0x0120) or 0,
        status=number_of(0x0900),
        context_id=context_id,
        sop_instance_uid=elements.get(0x1000, b"").decode("ascii", "replace").rstrip("\0 "),
        comment=elements.get(0x0902, b"").decode("ascii", "replace").rstrip(),
    )


def echo_seconds(port: int, called: str = "LIVERNODE", calling: str = "RAWSCU", timeout_s: float = 10.0) -> float:
    """Seconds from connect to the answer of a C-ECHO, the whole association included. Raises EndedError, OSError."""
    started = time.perf_counter()
    with RawScu(port, timeout_s) as scu:
        scu.associate((Context(3, VERIFICATION, (IMPLICIT_LITTLE,)),), called, calling)
        answer = scu.echo(1)
        seconds = time.perf_counter() - started
        assert answer.status == 0, f"C-ECHO answered {answer.status}"
        scu.release()
    return seconds
