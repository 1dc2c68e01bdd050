"""An accepted association: pynetdicom's, with a data path of our own.

Negotiation, state machine and every message but C-STORE are pynetdicom's. Overridden are the places where it polls or
copies: the thread that reads (the DUL) blocks in recv, feeds P-DATA to `StoreMessages` and answers from there; the
association's thread sleeps until there is something for it. Written against pynetdicom 3.0.
"""

import mmap
import queue
import select
import socket
import ssl
import struct
import threading
import time
from contextlib import AbstractContextManager, suppress
from typing import Any, Protocol

import structlog
from pynetdicom.association import Association
from pynetdicom.dul import DULServiceProvider
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.transport import AssociationSocket

from dicom_node.dimse.admission import Admission
from dicom_node.dimse.commitment import AssociationCommitments
from dicom_node.dimse.fast_store import StoreMessages
from dicom_node.dimse.pdata import MalformedPduError, PDataReader
from dicom_node.dimse.requests import AssociationFacts
from dicom_node.dimse.status import AbortAssociationError
from dicom_node.slots import Slot

log = structlog.get_logger()

MAX_PDU_BYTES = 1 << 20  # announced; fewer, larger PDUs cost less per byte
_MAX_PDU_TAKEN_BYTES = 16 << 20  # a peer that announces more than this is cut off
_MAX_OTHER_PDU_BYTES = 64 << 10  # release and abort have ten
_BUFFER_BYTES = 1 << 20  # holds a whole CT slice, which then is written at once
_SMALLEST_READ_BYTES = 64 << 10  # with less room than this the buffer is emptied first
_WORTH_WAITING_BYTES = 16 << 10
_IDLE_TURN_S = 0.1  # how long a read blocks: after it, is there anything to send, or reason to stop?
_ANSWER_TURN_MS = 1.0  # the same while the association's thread works on an answer
_ANSWER_EXPECTED_S = 5.0
_STEADY_S = 0.25  # of reading without a break, then the state machine has its turn
_HALF_OPEN_POLL_S = 0.001
_GOODBYE_S = 2.0  # how long a peer has to close the connection after the last word
_TRANSFER, _ENDED = "Sta6", "Sta13"  # PS3.8 Table 9-10: ready for data transfer; waiting for the connection to close
_REQUESTED, _CLOSED, _ARTIM_EXPIRED, _INVALID_PDU = "Evt6", "Evt17", "Evt18", "Evt19"
_COMMAND_LAST, _DATASET_LAST = b"\x03", b"\x02"


class Host(Protocol):
    """What an association asks of the acceptor that it belongs to."""

    is_draining: bool
    turn: AbstractContextManager[Any]  # held while bytes are worked on

    @property
    def write_after_bytes(self) -> int:
        """So many bytes of a Dataset are received before they are written."""

    def messages(self, association: "NodeAssociation", facts: AssociationFacts) -> StoreMessages:
        """The service for the messages of an association that has been accepted."""

    def ended(self, association: "NodeAssociation", facts: AssociationFacts) -> None:
        """An accepted association has ended; nothing of it is stored any more."""


def adopt(
    association: Any, host: Host, request: A_ASSOCIATE_RQ, behind: bytes, network_timeout_s: float
) -> "NodeAssociation":
    """Make an association of the library one of ours, before it is started.

    request : what the peer asks for; behind : what it has sent after that, without waiting for the answer.
    """
    association.__class__ = NodeAssociation  # the library names its classes inside its methods
    association.host = host
    association.facts = None
    association.must_abort = False
    association.bell = threading.Event()
    checkpoint = _Checkpoint(association)
    if association._reactor_checkpoint.is_set():
        checkpoint.set()
    association._reactor_checkpoint = checkpoint
    association.dimse.msg_queue = _Bell(association.bell)
    dul = association.dul
    dul.__class__ = _NodeDul
    dul.daemon = True
    dul.to_user_queue = _Bell(association.bell)
    dul.messages = dul.reader = None
    dul.answer_expected_until = dul.goodbye_until = 0.0
    dul.socket.__class__ = _NodeSocket
    dul.socket.adopt(behind, network_timeout_s)
    dul._recv_pdu.put(request)
    dul.event_queue.put(_REQUESTED)
    adopted: NodeAssociation = association
    return adopted


class _Bell(queue.Queue[Any]):
    """A queue that wakes the association's thread."""

    def __init__(self, bell: threading.Event) -> None:
        super().__init__()
        self._bell = bell

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        super().put(item, block, timeout)
        self._bell.set()


class _Checkpoint(threading.Event):
    """The association's loop passes here once per turn: it waits until there is something to do."""

    def __init__(self, association: "NodeAssociation") -> None:
        super().__init__()
        self._association = association

    def wait(self, timeout: float | None = None) -> bool:
        done = super().wait(timeout)
        association = self._association
        if threading.current_thread() is association and not association._kill:
            association.bell.wait(_STEADY_S)  # time-outs are looked at in every turn
            association.bell.clear()
            if association.must_abort:
                association.abort()
        return done


class NodeAssociation(Association):
    """An association of ours, from the A-ASSOCIATE-RQ on."""

    host: Host
    facts: AssociationFacts | None
    bell: threading.Event
    must_abort: bool
    slot: Slot | None = None
    commitments: AssociationCommitments | None = None
    admission: Admission

    def run(self) -> None:
        """The association's thread."""
        try:
            super().run()
        finally:
            self.dul.join(_ANSWER_EXPECTED_S)  # it may be in the middle of a commit
            if self.commitments is not None:
                self.commitments.ended()
            if self.facts is not None:
                self.host.ended(self, self.facts)

    def _serve_request(self, msg: Any, context_id: int) -> None:
        if self._sent_release or self.commitments is None or not self.commitments.take(msg, context_id):
            super()._serve_request(msg, context_id)

    def kill(self) -> None:
        """Make both threads end."""
        self.bell.set()
        super().kill()

    def request_abort(self) -> None:
        """Have the association aborted by its own thread."""
        self.must_abort = True
        self.bell.set()


class _NodeSocket(AssociationSocket):
    """A connection with a buffer in front, which the data path and the library both read from."""

    buffer: memoryview
    begin: int  # of what has not been looked at
    filled: int

    def adopt(self, first_bytes: bytes, network_timeout_s: float) -> None:
        """Take over a connected socket and the bytes that were read from it before."""
        self.buffer = memoryview(mmap.mmap(-1, _BUFFER_BYTES + len(first_bytes)))  # resident where it was used
        self.buffer[: len(first_bytes)] = first_bytes
        self.begin, self.filled = 0, len(first_bytes)
        self._timeout_s = network_timeout_s
        connection: Any = self.socket
        self._is_tls = isinstance(connection, ssl.SSLSocket)
        self._poll = select.poll()  # select() ends at descriptor 1023
        with suppress(OSError):  # the peer may be gone already, which the first read will say
            self._poll.register(connection, select.POLLIN)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if self._is_tls:
                connection.settimeout(_IDLE_TURN_S)
            else:
                # The kernel's own time-outs: Python's would cost a poll() before each recv().
                connection.settimeout(None)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(_IDLE_TURN_S))
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(network_timeout_s))

    @property
    def ready(self) -> bool:
        """Whether bytes can be read now."""
        connection: Any = self.socket
        if connection is None or not self._is_connected:
            return False
        return bool(self.begin < self.filled or (self._is_tls and connection.pending()) or self.is_readable(0))

    def is_readable(self, within_ms: float) -> bool:
        """Whether the connection has bytes, or has ended, within a time."""
        connection: Any = self.socket
        if self._is_tls and connection.pending():
            return True
        return bool(self._poll.poll(within_ms))

    def fill(self, wanted: int = 0) -> int | None:
        """Read into the buffer; None: nothing came for a while, 0: the peer closed. Raises OSError.

        wanted : bytes that are known to come: waiting for all of them costs one turn instead of one per segment.
        """
        connection: Any = self.socket
        try:
            if wanted > _WORTH_WAITING_BYTES and not self._is_tls:
                count: int = connection.recv_into(self.buffer[self.filled :], wanted, socket.MSG_WAITALL)
            else:
                count = connection.recv_into(self.buffer[self.filled :])
        except (BlockingIOError, TimeoutError, ssl.SSLWantReadError):
            return None
        self.filled += count
        return count

    @property
    def room(self) -> int:
        """Bytes that can be read before `make_room` is needed."""
        return len(self.buffer) - self.filled

    def make_room(self) -> None:
        """Forget what has been looked at."""
        left = bytes(self.buffer[self.begin : self.filled])
        self.buffer[: len(left)] = left
        self.begin, self.filled = 0, len(left)

    def give_back(self) -> None:
        """Free the buffer now: the library's objects refer to each other, and wait long for the garbage collector."""
        self.buffer = memoryview(b"")
        self.begin = self.filled = 0

    def acknowledge_now(self) -> None:
        """A sender with Nagle's algorithm waits for our ACK; a delayed one costs 40 ms per object."""
        connection: Any = self.socket
        with suppress(OSError, AttributeError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    def recv(self, nr_bytes: int) -> bytearray:
        """Exactly `nr_bytes`, or fewer when the peer closed. Raises OSError on time-out."""
        if nr_bytes > _MAX_PDU_TAKEN_BYTES:
            raise OSError(f"PDU of {nr_bytes} bytes announced, {MAX_PDU_BYTES} were agreed")
        deadline = time.monotonic() + self._timeout_s
        taken = bytearray()
        while len(taken) < nr_bytes:
            if self.begin == self.filled:
                self.make_room()
                count = self.fill()
                if count == 0:
                    break
                if count is None and time.monotonic() > deadline:
                    raise TimeoutError("the peer stopped in the middle of a PDU")
            count = min(self.filled - self.begin, nr_bytes - len(taken))
            taken += self.buffer[self.begin : self.begin + count]
            self.begin += count
        return taken

    def send(self, bytestream: bytes) -> None:
        """Send all of it; a failure ends the connection."""
        connection: Any = self.socket
        try:
            if self._is_tls:
                connection.settimeout(self._timeout_s)
            connection.sendall(bytestream)
        except (OSError, AttributeError):
            self.event_queue.put(_CLOSED)
        finally:
            if self._is_tls and connection is not None:
                with suppress(OSError):
                    connection.settimeout(_IDLE_TURN_S)


class _NodeDul(DULServiceProvider):
    """The thread that reads and writes."""

    socket: _NodeSocket
    messages: StoreMessages | None
    reader: PDataReader | None
    answer_expected_until: float
    goodbye_until: float

    @property
    def _run_loop_delay(self) -> float:
        """Data transfer blocks in recv and needs no pause besides."""
        return 0.0 if self.state_machine.current_state == _TRANSFER else _HALF_OPEN_POLL_S

    @_run_loop_delay.setter
    def _run_loop_delay(self, _seconds: float) -> None:
        """The library sets its own once."""

    def run(self) -> None:
        """The thread. Not `run_reactor`, which the library has bound as the thread's target before we adopt it."""
        try:
            super().run()
        finally:
            if self.messages is not None:
                self.messages.close()
            self.socket.give_back()
            self._association.bell.set()

    @property
    def _association(self) -> NodeAssociation:
        association: Any = self.assoc
        adopted: NodeAssociation = association
        return adopted

    def _process_recv_primitive(self) -> bool:
        is_sending = super()._process_recv_primitive()
        if is_sending and self.answer_expected_until:
            self.answer_expected_until = time.monotonic() + 0.02  # an answer may be in several parts
        return is_sending

    def _is_transport_event(self) -> bool:
        if self.state_machine.current_state == _ENDED:
            return self._see_off()
        if self.state_machine.current_state != _TRANSFER:
            return super()._is_transport_event()
        association = self._association
        if association.must_abort or association.facts is None:
            time.sleep(_HALF_OPEN_POLL_S)
            return False
        try:
            return self._transfer(association, association.facts)
        except MalformedPduError as error:
            log.warning("aborted: not DICOM", association=association.facts.association_id, reason=str(error))
            self.socket.begin = self.socket.filled = 0
            self.event_queue.put(_INVALID_PDU)
        except AbortAssociationError:
            association.request_abort()
        except OSError:
            self.event_queue.put(_CLOSED)
        return True

    def _see_off(self) -> bool:
        """What comes after our A-ABORT, A-ASSOCIATE-RJ or A-RELEASE-RP is dropped, and a peer that does not close the
        connection loses it after a moment: one that talks on, or is silent, must not keep its slot."""
        now = time.monotonic()
        self.goodbye_until = self.goodbye_until or now + _GOODBYE_S
        self.socket.begin = self.socket.filled = 0
        try:
            has_closed = self.socket.fill() == 0
        except (OSError, AttributeError):
            has_closed = True
        if has_closed or now > self.goodbye_until:
            self.event_queue.put(_CLOSED if has_closed else _ARTIM_EXPIRED)
        return True

    def _transfer(self, association: NodeAssociation, facts: AssociationFacts) -> bool:
        """Read and serve for a while. Raises MalformedPduError, AbortAssociationError, OSError."""
        if self.messages is None or self.reader is None:
            self.messages = association.host.messages(association, facts)
            self.reader = PDataReader(self.messages, _MAX_PDU_TAKEN_BYTES)
        came = False
        until = time.monotonic() + _STEADY_S
        connection = self.socket
        while not (self.event_queue.queue or self.to_provider_queue.queue or self._kill_thread):
            if connection.begin < connection.filled:
                came = True
                with association.host.turn:
                    connection.begin += self.reader.feed(connection.buffer[connection.begin : connection.filled])
                if self.reader.is_before_other_pdu and not self._other_pdu():
                    return True
            if association.host.is_draining and not (self.messages.is_busy or self.reader.bytes_left):
                association.request_abort()
                return came
            if self.event_queue.queue:
                return True
            now = time.monotonic()
            if now > until:
                return came
            if now < self.messages.paused_until:
                time.sleep(min(self.messages.paused_until - now, _IDLE_TURN_S))
                continue
            if now < self.answer_expected_until and not connection.is_readable(_ANSWER_TURN_MS):
                return came
            if self.messages.is_busy or self.reader.bytes_left:
                connection.acknowledge_now()  # many senders write the header of a PDU, and then wait
            if not self.messages.is_busy:
                connection.make_room()
            else:
                if connection.begin >= association.host.write_after_bytes or connection.room < _SMALLEST_READ_BYTES:
                    with association.host.turn:
                        self.messages.flush()
                    connection.make_room()
            count = connection.fill(min(self.reader.bytes_left, connection.room))
            if count is None:
                return came
            if count == 0:
                self.event_queue.put(_CLOSED)
                return True
        return came

    def _other_pdu(self) -> bool:
        """Give a PDU that is not P-DATA-TF to the library when it is there whole; False: it was."""
        connection = self.socket
        length = int.from_bytes(connection.buffer[connection.begin + 2 : connection.begin + 6], "big")
        if length > _MAX_OTHER_PDU_BYTES:
            raise MalformedPduError(f"PDU of type {connection.buffer[connection.begin]:02X} with {length} bytes")
        if connection.filled - connection.begin < 6 + length:
            return True
        self._read_pdu_data()
        return False

    def hand_on(self, context_id: int, command: bytes, dataset: bytes | None) -> None:
        """Give a whole message to the library."""
        self.answer_expected_until = time.monotonic() + _ANSWER_EXPECTED_S
        for header, fragment in ((_COMMAND_LAST, command), (_DATASET_LAST, dataset)):
            if fragment is not None:
                primitive: Any = P_DATA()
                primitive.presentation_data_value_list = [[context_id, header + fragment]]
                self.assoc.dimse.receive_primitive(primitive)


def _timeval(seconds: float) -> bytes:
    return struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))
