"""C-STORE as SCP, from the fragments of the network straight into the sink of the object (PS3.7 section 9.1.1).

One thread reads, writes and answers: no queue, no copy of the Dataset, no decoding. Messages of every other kind are
collected and handed on. Messages may be interleaved on different presentation contexts, never on one.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

import structlog

from dicom_node.dimse.admission import Admission
from dicom_node.dimse.command import (
    C_CANCEL_RQ,
    C_ECHO_RQ,
    C_STORE_RQ,
    RESPONSE,
    Command,
    MalformedCommandError,
    decode,
    store_response,
)
from dicom_node.dimse.contexts import VERIFICATION, is_storage_class, is_uid
from dicom_node.dimse.dataset_start import MAX_START_BYTES
from dicom_node.dimse.observer import Observer
from dicom_node.dimse.pdata import MalformedPduError
from dicom_node.dimse.requests import AssociationFacts, ObjectSink, OpenSink, StoreRequest
from dicom_node.dimse.status import (
    CANNOT_UNDERSTAND,
    INVALID_SOP_INSTANCE,
    NOT_AUTHORISED,
    SOP_CLASS_NOT_SUPPORTED,
    SUCCESS,
    UNRECOGNISED_OPERATION,
    AbortAssociationError,
    RefusedError,
    describe,
    status_of,
)

log = structlog.get_logger()

_MAX_COMMAND_BYTES = 64 << 10
_MAX_OTHER_DATASET_BYTES = 32 << 20  # of a message that is not C-STORE, which is collected in memory
_MAX_PARTS = 512  # of one write: the system takes 1024

#: looks at the first 64 KiB of a Dataset of so many bytes; raises RefusedError if it is none, or another object's
Inspect = Callable[[StoreRequest, bytearray, int], None]
HandOn = Callable[[int, bytes, bytes | None], None]


@dataclass(frozen=True)
class AcceptedContext:
    """One accepted presentation context."""

    abstract_syntax: str
    transfer_syntax: str


class StoreMessages:
    """The DIMSE messages that one association receives. Used by one thread."""

    def __init__(
        self,
        association: AssociationFacts,
        contexts: Mapping[int, AcceptedContext],
        *,
        admission: Admission,
        open_sink: OpenSink,
        inspect: Inspect | None,
        observer: Observer,
        send: Callable[[bytes], None],
        hand_on: HandOn,
    ) -> None:
        """admission : what this sender may store, and how fast.

        send : puts bytes of a PDU on the connection.

        hand_on : takes the messages that are no C-STORE: context, Command Set, Dataset or None.
        """
        self._association = association
        self._contexts = contexts
        self._admission = admission
        self._open_sink = open_sink
        self._inspect = inspect
        self._observer = observer
        self._send = send
        self._hand_on = hand_on
        self._commands: dict[int, bytearray] = {}
        self._objects: dict[int, _Arriving] = {}
        self._others: dict[int, tuple[bytes, bytearray]] = {}
        self.paused_until = 0.0  # time.monotonic() before which nothing more should be read: the sender has a rate

    @property
    def is_busy(self) -> bool:
        """Whether a message has begun and not ended."""
        return bool(self._objects or self._commands or self._others)

    def part(self, context_id: int, is_command: bool, data: memoryview) -> None:
        """Bytes of a Command Set or a Dataset. Raises MalformedPduError."""
        if not is_command:
            arriving = self._objects.get(context_id)
            if arriving is not None:
                arriving.add(data)
                return
            if context_id not in self._others:
                raise MalformedPduError("a Dataset fragment without a command before it")
            dataset = self._others[context_id][1]
            if len(dataset) + len(data) > _MAX_OTHER_DATASET_BYTES:
                raise MalformedPduError(f"a message of over {_MAX_OTHER_DATASET_BYTES} bytes that is no C-STORE")
            dataset += data
            return
        command = self._commands.setdefault(context_id, bytearray())
        if len(command) + len(data) > _MAX_COMMAND_BYTES:
            raise MalformedPduError(f"a Command Set of over {_MAX_COMMAND_BYTES} bytes")
        command += data

    def end(self, context_id: int, is_command: bool) -> None:
        """The Command Set or Dataset is complete. Raises MalformedPduError, AbortAssociationError."""
        if is_command:
            self._begin(context_id, bytes(self._commands.pop(context_id, b"")))
        elif context_id in self._objects:
            self._answer(context_id, self._objects.pop(context_id))
        elif context_id in self._others:
            command, dataset = self._others.pop(context_id)
            self._hand_on(context_id, command, bytes(dataset))
        else:
            raise MalformedPduError("a Dataset fragment without a command before it")

    def flush(self) -> None:
        """Write what is still in the network's buffer, which will be used again."""
        for arriving in self._objects.values():
            arriving.flush()

    def close(self) -> None:
        """The association has ended: forget what is not whole. Does not raise."""
        for arriving in self._objects.values():
            arriving.discard()
        self._objects.clear()
        self._commands.clear()
        self._others.clear()

    def _begin(self, context_id: int, encoded: bytes) -> None:
        if context_id in self._objects or context_id in self._others:
            raise MalformedPduError("a command before the Dataset of the one before it has ended")
        try:
            command = decode(encoded)
        except MalformedCommandError as error:
            raise MalformedPduError(f"no Command Set: {error}") from None
        context = self._contexts.get(context_id)
        field = command.command_field or 0
        is_ours = field == C_STORE_RQ or (context is not None and _is_foreign(field, context.abstract_syntax))
        is_request = not field & RESPONSE and field != C_CANCEL_RQ
        if (context is None and is_ours) or (is_request and command.message_id is None):
            log.warning("aborted: a request on a context that was not accepted, or without Message ID")
            raise AbortAssociationError
        if not is_ours:
            if command.has_dataset:
                self._others[context_id] = (encoded, bytearray())
            else:
                self._hand_on(context_id, encoded, None)
            return
        if context is None or command.message_id is None:
            raise MalformedPduError(f"an unexpected response, command field {field:04X}")
        arriving = self._arriving(command, command.message_id, context)
        if command.has_dataset:
            self._objects[context_id] = arriving
        else:
            self._answer(context_id, arriving)

    def _arriving(self, command: Command, message_id: int, context: AcceptedContext) -> "_Arriving":
        request = StoreRequest(
            self._association, command.sop_class_uid, command.sop_instance_uid, context.transfer_syntax
        )
        arriving = _Arriving(request, message_id, command.command_field or 0)
        try:
            if command.command_field != C_STORE_RQ:
                raise RefusedError(UNRECOGNISED_OPERATION, "no such operation on this presentation context")
            _check(request, context.abstract_syntax)
            if not self._admission.takes(request.sop_class_uid):
                raise RefusedError(NOT_AUTHORISED, "this SOP Class is not taken from this sender")
            if command.has_dataset:
                arriving.sink = self._open_sink(request)
        except Exception as error:  # noqa: BLE001 - its Dataset is on the way all the same and must be read past
            arriving.failure = error
        return arriving

    def _answer(self, context_id: int, arriving: "_Arriving") -> None:
        """Every request gets an answer or an abort."""
        request = arriving.request
        try:
            self._finish(arriving)
            status, comment = SUCCESS, ""
        except AbortAssociationError:
            arriving.discard()
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the sender must be told that it is not stored
            arriving.discard()
            status, comment = status_of(error)
            log.warning(
                "object refused",
                sop_instance_uid=request.sop_instance_uid[:64],
                status=describe(status),
                reason=comment,
                calling_ae_title=self._association.calling_ae_title,
            )
        self._send(
            store_response(
                context_id,
                arriving.message_id,
                request.sop_class_uid if status == SUCCESS or is_uid(request.sop_class_uid) else "",
                request.sop_instance_uid if status == SUCCESS or is_uid(request.sop_instance_uid) else "",
                status,
                comment,
                arriving.request_field,
            )
        )
        if status == SUCCESS:
            self._observer.stored(self._association, arriving.n_bytes, time.perf_counter() - arriving.begun)
            if pause_s := self._admission.pause_s(arriving.n_bytes):
                self.paused_until = time.monotonic() + pause_s
                self._observer.paused(self._association, pause_s)
        else:
            self._observer.refused(request, status)

    def _finish(self, arriving: "_Arriving") -> None:
        if arriving.failure is not None:
            raise arriving.failure
        if arriving.sink is None or not arriving.n_bytes:
            raise RefusedError(CANNOT_UNDERSTAND, "the Dataset is missing or empty")
        if self._inspect is not None:
            self._inspect(arriving.request, arriving.start, arriving.n_bytes)
        arriving.flush()
        if arriving.failure is not None:
            raise arriving.failure
        arriving.sink.commit()


class _Arriving:
    """One object on its way in."""

    __slots__ = ("begun", "failure", "message_id", "n_bytes", "pending", "request", "request_field", "sink", "start")

    def __init__(self, request: StoreRequest, message_id: int, request_field: int) -> None:
        self.request = request
        self.request_field = request_field  # C-STORE, or an operation that is refused
        self.message_id = message_id
        self.sink: ObjectSink | None = None
        self.failure: Exception | None = None  # known before the end; what still comes is read and dropped
        self.n_bytes = 0
        self.start = bytearray()
        self.pending: list[memoryview] = []  # in the network's buffer, not yet written
        self.begun = time.perf_counter()

    def add(self, data: memoryview) -> None:
        self.n_bytes += len(data)
        if self.sink is None:
            return
        if len(self.start) < MAX_START_BYTES:
            self.start += data[: MAX_START_BYTES - len(self.start)]
        self.pending.append(data)
        if len(self.pending) == _MAX_PARTS:
            self.flush()

    def flush(self) -> None:
        if self.sink is None or not self.pending:
            return
        try:
            self.sink.write(self.pending)
        except Exception as error:  # noqa: BLE001 - answered when the Dataset has come to its end
            self.failure = error
            self.discard()
        self.pending.clear()

    def discard(self) -> None:
        if self.sink is not None:
            with suppress(Exception):  # there is nothing left to do about it
                self.sink.discard()
            self.sink = None
        self.pending.clear()


def _is_foreign(field: int, abstract_syntax: str) -> bool:
    """Whether a storage or verification context has no use for this operation: nobody else would answer it."""
    if abstract_syntax != VERIFICATION and not is_storage_class(abstract_syntax):
        return False
    return field not in (C_ECHO_RQ, C_CANCEL_RQ)


def _check(request: StoreRequest, abstract_syntax: str) -> None:
    """Raises RefusedError unless the command names an object that can be stored under this presentation context."""
    if not is_storage_class(abstract_syntax) or not is_storage_class(request.sop_class_uid):
        raise RefusedError(SOP_CLASS_NOT_SUPPORTED, "Affected SOP Class UID is not one of storage")
    if not request.sop_instance_uid:
        raise RefusedError(CANNOT_UNDERSTAND, "Affected SOP Instance UID is missing or empty")
    if not is_uid(request.sop_instance_uid):
        raise RefusedError(INVALID_SOP_INSTANCE, "Affected SOP Instance UID is not a UID")
