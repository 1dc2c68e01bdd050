"""The requestor: C-STORE of files as they are, and C-ECHO."""

import logging
import queue
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom.uid import UID
from pynetdicom import AE, _config, evt
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation
from pynetdicom.presentation import PresentationContext

from dicom_node.dimse.admission import REJECT_REASONS
from dicom_node.dimse.contexts import proposed_contexts, verification_context
from dicom_node.dimse.part10 import (
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    FileHead,
    NotPart10Error,
    read_file_head,
)
from dicom_node.dimse.status import describe, is_stored
from dicom_node.dimse.tls import TlsPeer, client_context, handshake_failure
from dicom_node.errors import ConfigurationError, DestinationRefused, DestinationUnreachable

_config.STORE_SEND_CHUNKED_DATASET = True  # a file's encoded Dataset goes out as it is, piece by piece
_config.LOG_HANDLER_LEVEL = "none"
logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)  # what went wrong is in the results

CONNECT_TIMEOUT_S = 10.0
ANSWER_TIMEOUT_S = 60.0
ANNOUNCED_PDU_BYTES = 16382  # results are sent, only short answers come back
_LOOK_UP_S = 0.2


class AssociationRejected(DestinationRefused):
    """The peer rejected the association; `is_transient` as the peer says (congestion, limit)."""

    def __init__(self, text: str, is_transient: bool) -> None:
        super().__init__(text)
        self.is_transient = is_transient


class NothingTaken(AssociationRejected):
    """The peer accepted none of the proposed `contexts`; each has its result."""

    def __init__(self, text: str, contexts: Sequence[PresentationContext]) -> None:
        super().__init__(text, False)
        self.contexts = contexts


@dataclass(frozen=True)
class SendResult:
    """What became of one file. Exactly one of: stored; refused (by the peer, or not sendable); neither: unreachable."""

    path: Path
    sop_instance_uid: str
    is_stored: bool
    is_refused: bool
    status: int | None  # of the C-STORE response, if there was one
    reason: str  # empty when stored without a warning


@dataclass(frozen=True)
class EchoResult:
    """Answer to C-ECHO: seconds it took, or None and why."""

    seconds: float | None
    reason: str = ""


def send_files(
    paths: Sequence[Path],
    host: str,
    port: int,
    called_ae_title: str,
    calling_ae_title: str,
    on_progress: Callable[[SendResult], None] = lambda _result: None,
    timeout_s: float = ANSWER_TIMEOUT_S,
    tls: TlsPeer | None = None,
) -> list[SendResult]:
    """Send DICOM files by C-STORE, byte for byte, over one association.

    Exactly the (SOP Class, Transfer Syntax) pairs of the files are proposed; more than 128 pairs take several
    associations. `on_progress` is called after each file with its result, in the order of sending.
    timeout_s : longest wait for an answer of the peer. tls : None: without.
    Returns one result per file, in order of sending. What the network or the peer does is in the results:
    this function raises nothing for it.
    """
    results: list[SendResult] = []

    def note(result: SendResult) -> None:
        results.append(result)
        on_progress(result)

    sendable: list[tuple[Path, FileHead]] = []
    for path in paths:
        try:
            sendable.append((path, read_file_head(path)))
        except (NotPart10Error, OSError) as error:
            note(_refused(path, "", None, str(error)))
    groups = proposed_contexts([(head.sop_class_uid, head.transfer_syntax_uid) for _, head in sendable])
    for contexts in groups:
        pairs = {(str(context.abstract_syntax), str(context.transfer_syntax[0])) for context in contexts}
        files = [(p, head) for p, head in sendable if (head.sop_class_uid, head.transfer_syntax_uid) in pairs]
        left = iter(files)
        try:
            with associated(host, port, called_ae_title, calling_ae_title, contexts, timeout_s, tls=tls) as association:
                for message_id, (path, head) in enumerate(left, 1):
                    result = _send_one(association, path, head, message_id % 65536, f"{host}:{port}")
                    note(result)
                    if not (result.is_stored or result.is_refused):
                        break
            reason = f"{host}:{port} ended the association"
            is_refused = False
        except AssociationRejected as error:
            reason, is_refused = str(error), not error.is_transient
        except DestinationUnreachable as error:
            reason, is_refused = str(error), False
        for path, head in left:  # those not yet tried
            note(SendResult(path, head.sop_instance_uid, False, is_refused, None, reason))
    return results


def _refused(path: Path, sop_instance_uid: str, status: int | None, reason: str) -> SendResult:
    return SendResult(path, sop_instance_uid, False, True, status, reason)


def _send_one(association: Any, path: Path, head: FileHead, message_id: int, peer: str) -> SendResult:
    uid = head.sop_instance_uid
    if not association.is_established:
        return SendResult(path, uid, False, False, None, f"{peer} ended the association")
    accepted = {(str(c.abstract_syntax), str(c.transfer_syntax[0])) for c in association.accepted_contexts}
    if (head.sop_class_uid, head.transfer_syntax_uid) not in accepted:
        sop_class, syntax = UID(head.sop_class_uid), UID(head.transfer_syntax_uid)
        return _refused(path, uid, None, f"{peer} does not take {sop_class.name} ({sop_class}) in {syntax.name}")
    try:
        status = association.send_c_store(path, msg_id=message_id).get("Status")
    except (OSError, ValueError, AttributeError, RuntimeError) as error:
        if association.is_established:
            return _refused(path, uid, None, f"cannot be sent: {error}")
        return SendResult(path, uid, False, False, None, f"{peer} ended the association")
    if status is None:
        return SendResult(path, uid, False, False, None, f"{peer} gave no answer or cut the connection")
    reason = describe(status) if status else ""
    return SendResult(path, uid, is_stored(status), not is_stored(status), status, reason)


def echo(
    host: str,
    port: int,
    called_ae_title: str,
    calling_ae_title: str,
    timeout_s: float = CONNECT_TIMEOUT_S,
    tls: TlsPeer | None = None,
) -> EchoResult:
    """C-ECHO over an association of its own. Raises nothing for what the network or the peer does."""
    started = time.monotonic()
    contexts = [verification_context()]
    try:
        with associated(host, port, called_ae_title, calling_ae_title, contexts, timeout_s, tls=tls) as association:
            if not association.accepted_contexts:
                return EchoResult(None, f"{host}:{port} does not take Verification")
            status = association.send_c_echo().get("Status")
    except (DestinationRefused, DestinationUnreachable) as error:
        return EchoResult(None, str(error))
    except (RuntimeError, ValueError):  # the library's words for an association that ended in between
        return EchoResult(None, f"{host}:{port} ended the association")
    if status != 0:
        return EchoResult(None, "no answer to C-ECHO" if status is None else f"C-ECHO: {describe(status)}")
    return EchoResult(time.monotonic() - started)


@contextmanager
def associated(
    host: str,
    port: int,
    called_ae_title: str,
    calling_ae_title: str,
    contexts: list[PresentationContext],
    timeout_s: float,
    roles: Sequence[SCP_SCU_RoleSelectionNegotiation] = (),
    tls: TlsPeer | None = None,
) -> Iterator[Any]:
    """An established association, released at the end. Raises AssociationRejected, DestinationUnreachable."""
    ae = AE(calling_ae_title)
    ae.maximum_pdu_size = ANNOUNCED_PDU_BYTES
    ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    ae.connection_timeout = min(CONNECT_TIMEOUT_S, timeout_s)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = timeout_s
    tls_args = None
    if tls is not None:
        try:
            tls_args = (client_context(tls.files), tls.server_name or host)
        except ConfigurationError as error:
            raise DestinationUnreachable(f"{host}:{port} cannot be reached: {error}") from error
    opened: list[evt.Event] = []
    try:
        association = ae.associate(
            host,
            port,
            contexts=contexts,
            ae_title=called_ae_title,
            ext_neg=list(roles),
            evt_handlers=[(evt.EVT_CONN_OPEN, _without_nagle), (evt.EVT_CONN_OPEN, opened.append)],
            tls_args=tls_args,
        )
    except (OSError, ValueError) as error:  # a name that is not known, an AE title that is none
        raise DestinationUnreachable(f"{host}:{port} cannot be reached: {error}") from error
    association.__class__ = RequestorAssociation  # the library makes its own kinds only
    association.dimse.__class__ = _Messages
    try:
        if association.is_rejected:
            answer: Any = association.acceptor.primitive
            words = REJECT_REASONS.get((answer.result_source, answer.diagnostic), "unknown reason")
            raise AssociationRejected(
                f"{host}:{port} ({called_ae_title}) rejected the association: {words}", answer.result == 2
            )
        if not association.is_established:
            if association.rejected_contexts:  # the library aborts when nothing was accepted
                names = ", ".join(sorted({UID(str(c.abstract_syntax)).name for c in association.rejected_contexts}))
                raise NothingTaken(
                    f"{host}:{port} ({called_ae_title}) takes none of: {names}", association.rejected_contexts
                )
            text = f"{host}:{port} ({called_ae_title}) does not answer as a DICOM application"
            if not opened and tls_args is None:
                text = f"{host}:{port} cannot be reached: nobody listens there, or nothing gets through"
            if tls_args is not None and (failure := handshake_failure(tls_args[0])):
                text = f"{host}:{port}: no TLS connection: {failure}"
            elif tls_args is not None:
                text += "; with TLS: it may not trust our certificate, or want one"
            raise DestinationUnreachable(text)
        yield association
    finally:
        if association.is_established:
            association.release()
        if association.is_established:
            association.abort()


class RequestorAssociation(Association):
    """Gives back a response that the association's own thread took from under the one who waits for it.

    That thread is to pause while a request is out, but a busy machine can stop it just before it does; the library
    then drops the response, and the sender waits for the whole time-out and sends again.
    """

    def _serve_request(self, msg: Any, context_id: int) -> None:
        if msg.MessageIDBeingRespondedTo is None:
            super()._serve_request(msg, context_id)
        else:
            self.dimse.msg_queue.put((context_id, msg))


class _Messages(DIMSEServiceProvider):
    """Notices the end of the association while it waits for a response.

    The library tells the one who waits by an empty message; when the association's own thread took that one, the
    wait would last for the whole time-out.
    """

    def get_msg(self, block: bool = False) -> Any:
        if not block:
            return super().get_msg(False)
        deadline = time.monotonic() + (self.dimse_timeout or float("inf"))
        while True:
            try:
                return self.msg_queue.get(timeout=_LOOK_UP_S)
            except queue.Empty:
                is_over = not self.dul.is_alive() or self.dul.state_machine.current_state == "Sta1"
                if is_over or time.monotonic() > deadline:
                    return None, None


def _without_nagle(event: evt.Event) -> None:
    """Small last segments must not wait for the ACK of the one before."""
    connection = event.assoc.dul.socket
    if connection is not None and connection.socket is not None:
        connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
