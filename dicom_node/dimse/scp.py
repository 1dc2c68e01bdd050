"""The acceptor: C-ECHO and C-STORE.

Negotiation, state machine and everything but C-STORE are pynetdicom's. What is ours: who may associate, the limit of
associations, a socket that reads large PDUs at once, and C-STORE from the request's encoded bytes to the response.
"""

import logging
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import structlog
from pynetdicom import AE, _config, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.presentation import build_context
from pynetdicom.transport import AssociationServer, AssociationSocket, RequestHandler

from dicom_node.dimse.contexts import VERIFICATION, is_storage_class, is_uid, supported_contexts
from dicom_node.dimse.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicom_node.dimse.requests import AssociationFacts, StoreRequest
from dicom_node.dimse.status import (
    CANNOT_UNDERSTAND,
    INVALID_SOP_INSTANCE,
    SOP_CLASS_NOT_SUPPORTED,
    SUCCESS,
    AbortAssociationError,
    RefusedError,
    describe,
    status_of,
)

log = structlog.get_logger()

# One line per PDU costs more than the PDU; what matters is logged here, without tracebacks for every TCP probe.
_config.LOG_HANDLER_LEVEL = "none"
logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
# A UID that is too long must be answered with a status; the library's own check would abort the association.
_config.VALIDATORS["UI"] = lambda _value: (True, "")

MAX_PDU_BYTES = 1 << 20  # announced; fewer, larger PDUs cost less per byte
_MAX_PDU_TAKEN_BYTES = 16 << 20  # a peer that promises more than this is cut off before memory is given to it
_APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
_RECEIVE_BUFFER_BYTES = 4 << 20
_DRAIN_S = 10.0
#: the library polls: many connections on which nothing happens must not eat the processor
_HALF_OPEN_POLL_S, _POLL_S = 0.01, 0.001

#: (result, source, diagnostic) of A-ASSOCIATE-RJ, PS3.8 Table 9-21
REJECT_APPLICATION_CONTEXT = (0x01, 0x01, 0x02)
REJECT_CALLING_AE_TITLE = (0x01, 0x01, 0x03)
REJECT_CALLED_AE_TITLE = (0x01, 0x01, 0x07)
REJECT_CONGESTION = (0x02, 0x03, 0x01)
REJECT_LOCAL_LIMIT = (0x02, 0x03, 0x02)

Receive = Callable[[StoreRequest], None]
Closed = Callable[[AssociationFacts, str], None]
Allowed = Callable[[str, str], bool]


@contextmanager
def running_scp(
    ae_title: str,
    *,
    receive: Receive,
    host: str = "127.0.0.1",
    port: int = 0,
    closed: Closed = lambda _facts, _state: None,
    allowed: Allowed = lambda _calling_ae_title, _peer_host: True,
    max_associations: int = 50,
    network_timeout_s: float = 60.0,
    bind_within_s: float = 0.0,
) -> Iterator[int]:
    """Accept associations while the context lasts; yields the bound port (`port` 0: any free one).

    receive : called in the association's thread for every C-STORE request. When it returns the object is answered
        with Success, so it must return only when the object is safe; what it raises becomes a status (status.py).
    closed : called once for every accepted association when it has ended, with "released" or "aborted".
    allowed : (calling AE title, peer address) -> whether the association is accepted. The called AE title must
        be `ae_title`.
    bind_within_s : how long a port that is still taken is tried again.
    At the end a store in progress is finished and answered; then associations are aborted.
    Raises OSError when the port cannot be bound.
    """
    acceptor = _Acceptor(ae_title, receive, closed, allowed, max_associations)
    ae = AE(ae_title)
    ae.maximum_pdu_size = MAX_PDU_BYTES
    ae.maximum_associations = 1_000_000  # ours counts accepted ones only: half-open connections must not take slots
    ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    ae.network_timeout = network_timeout_s
    ae.acse_timeout = min(30.0, network_timeout_s)
    ae.dimse_timeout = network_timeout_s
    server = _bound_server(ae, acceptor, host, port, bind_within_s)
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), name="dicom-acceptor", daemon=True)
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.close()
        thread.join()
        acceptor.drain(_DRAIN_S)
        association: Any
        for association in ae.active_associations:  # never accepted ones: half-open connections
            association.dul.kill_dul()
            with suppress(Exception):
                association.dul.socket._shutdown_socket()


def _bound_server(ae: AE, acceptor: "_Acceptor", host: str, port: int, bind_within_s: float) -> "_Server":
    deadline = time.monotonic() + bind_within_s
    while True:
        try:
            server: Any = ae.make_server(
                (host, port),
                # the library wants one context; those of an association are set when it is requested
                contexts=[build_context(VERIFICATION)],
                server_class=_Server,
                request_handler=_Handler,
                evt_handlers=[(evt.EVT_REQUESTED, acceptor.requested), (evt.EVT_CONN_CLOSE, _let_go)],
            )
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            server.acceptor = acceptor
            bound: _Server = server
            return bound


class _Acceptor:
    """What the associations of one server share. Thread-safe."""

    def __init__(
        self, ae_title: str, receive: Receive, closed: Closed, allowed: Allowed, max_associations: int
    ) -> None:
        self.ae_title = ae_title
        self.receive = receive
        self._closed = closed
        self._allowed = allowed
        self._max_associations = max_associations
        self._accepted: set[_NodeAssociation] = set()
        self._lock = threading.Lock()
        self.is_draining = False

    def requested(self, event: evt.Event) -> None:
        """Decide on an association request before the library negotiates its presentation contexts."""
        association: Any = event.assoc
        try:
            reject = self._admit(association)
        except Exception as error:  # noqa: BLE001 - the library would go on and accept
            log.error("association request could not be judged", error=repr(error))
            reject = REJECT_CONGESTION
        if reject is not None:
            association.acse.send_reject(*reject)
            association.kill()  # as the library does after its own rejections: waits until the PDU is out

    def _admit(self, association: "_NodeAssociation") -> tuple[int, int, int] | None:
        request: Any = association.requestor.primitive
        calling = str(request.calling_ae_title).strip()
        called = str(request.called_ae_title).strip()
        peer_host = _plain_address(association.requestor.address)
        where = {"calling_ae_title": calling, "called_ae_title": called, "peer": peer_host}
        if str(request.application_context_name) != _APPLICATION_CONTEXT:
            return REJECT_APPLICATION_CONTEXT
        if called != self.ae_title:
            log.warning("association refused: called AE title is not ours", **where)
            return REJECT_CALLED_AE_TITLE
        if not self._allowed(calling, peer_host):
            log.warning("association refused: sender not known", **where)
            return REJECT_CALLING_AE_TITLE
        association.acceptor.supported_contexts = supported_contexts(request.presentation_context_definition_list)
        association.facts = AssociationFacts(secrets.token_hex(8), calling, called, peer_host, time.time_ns())
        with self._lock:
            if self.is_draining:
                association.facts = None
                return REJECT_CONGESTION
            if len(self._accepted) >= self._max_associations:
                log.warning("association refused: limit reached", limit=self._max_associations, **where)
                association.facts = None
                return REJECT_LOCAL_LIMIT
            self._accepted.add(association)
        association.dul._run_loop_delay = _POLL_S
        return None

    def ended(self, association: "_NodeAssociation", facts: AssociationFacts) -> None:
        try:
            self._closed(facts, "released" if association.is_released else "aborted")
        except Exception as error:  # noqa: BLE001 - the thread ends here; there is nobody else to tell
            log.error("end of an association was not noted", association=facts.association_id, error=repr(error))
        finally:  # only now, so that drain waits for the note
            with self._lock:
                self._accepted.discard(association)

    def drain(self, within_s: float) -> None:
        """Abort all associations, each after the store that it is busy with."""
        deadline = time.monotonic() + within_s
        with self._lock:
            self.is_draining = True
            left = list(self._accepted)
        for association in left:
            # released at once: it only makes sure that an answer is queued before the abort
            if association.busy.acquire(timeout=max(0.0, deadline - time.monotonic())):
                association.busy.release()
            # not abort(), which closes the socket while the answer may still be in the queue
            association.acse.send_abort(0x00)
        for association in left:
            association.join(max(0.0, deadline - time.monotonic()))
            if association.is_alive():
                association.abort()


def _let_go(event: evt.Event) -> None:
    """A connection that closes before it asks for an association (a probe) must not wait for its time-out."""
    if event.assoc.requestor.primitive is None:
        event.assoc.dul.to_user_queue.put(None)


def _plain_address(address: str) -> str:
    return address.removeprefix("::ffff:")


class _Server(AssociationServer):
    """Listens. SO_REUSEADDR (the library's) lets a restarted receiver take its port at once."""

    request_queue_size = 128
    acceptor: _Acceptor

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.info("connection lost before it was an association", peer=str(client_address[0]))
        with suppress(OSError):
            self.shutdown_request(request)

    def close(self) -> None:
        """Stop listening; associations go on."""
        super(AssociationServer, self).shutdown()
        self.server_close()


class _Handler(RequestHandler):
    """Makes the association of a new connection one of ours."""

    server: _Server

    def _create_association(self) -> Association:
        with suppress(OSError):  # the peer may be gone already
            self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.request.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            self.request.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
        # without a limit a peer that stops in the middle of a PDU holds the reading thread for ever
        self.request.settimeout(self.ae.network_timeout)
        association: Any = super()._create_association()
        association.__class__ = _NodeAssociation  # the library names its class inside the method
        association.node_acceptor = self.server.acceptor
        association.busy = threading.Lock()
        association.facts = None
        association.dul.socket.__class__ = _NodeSocket
        association.dul.daemon = True
        association.dul._run_loop_delay = _HALF_OPEN_POLL_S
        made: Association = association
        return made


class _NodeSocket(AssociationSocket):
    """Reads a PDU with as few calls and copies as the library's interface allows."""

    def recv(self, nr_bytes: int) -> bytearray:
        """Exactly `nr_bytes`, or fewer when the peer closed. Raises OSError on time-out or an absurd length."""
        if nr_bytes > _MAX_PDU_TAKEN_BYTES:
            raise OSError(f"PDU of {nr_bytes} bytes announced, {MAX_PDU_BYTES} were agreed")
        connection: Any = self.socket
        buffer = bytearray(nr_bytes)
        view = memoryview(buffer)
        done = 0
        while done < nr_bytes:
            count = connection.recv_into(view[done:])
            if count == 0:
                view.release()
                del buffer[done:]
                return buffer
            done += count
        if nr_bytes > 6:
            # a sender with Nagle's algorithm waits for our ACK; a delayed one costs 40 ms per object
            with suppress(OSError, AttributeError):
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        return buffer


class _NodeAssociation(Association):
    """An accepted association: C-STORE is served here, from the encoded bytes."""

    node_acceptor: _Acceptor
    facts: AssociationFacts | None
    busy: threading.Lock

    def run(self) -> None:
        """The association's thread."""
        try:
            super().run()
        finally:
            if self.facts is not None:
                self.node_acceptor.ended(self, self.facts)

    def _serve_request(self, msg: Any, context_id: int) -> None:
        if not isinstance(msg, C_STORE) or self._sent_release:
            super()._serve_request(msg, context_id)
            return
        with self.busy:
            if not self.node_acceptor.is_draining:  # else it is aborted in a moment, and this object not begun
                self._serve_store(msg, context_id)

    def _serve_store(self, request: Any, context_id: int) -> None:
        """Answer one C-STORE request; every request gets an answer or an abort (PS3.7 section 9.1.1)."""
        context = self._accepted_cx.get(context_id)
        if context is None or request.MessageID is None or self.facts is None:
            log.warning("aborted: C-STORE on a context that was not accepted, or without Message ID")
            self.abort()
            return
        sop_class_uid = str(request.AffectedSOPClassUID or "").strip("\0 ")
        sop_instance_uid = str(request.AffectedSOPInstanceUID or "").strip("\0 ")
        try:
            _check_request(sop_class_uid, sop_instance_uid, str(context.abstract_syntax), request.DataSet)
            self.node_acceptor.receive(
                StoreRequest(
                    association=self.facts,
                    sop_class_uid=sop_class_uid,
                    sop_instance_uid=sop_instance_uid,
                    transfer_syntax_uid=str(context.transfer_syntax[0]),
                    dataset=request.DataSet.getbuffer(),
                )
            )
            status, comment = SUCCESS, ""
        except AbortAssociationError:
            self.abort()
            return
        except Exception as error:  # noqa: BLE001 - whatever it is, the sender must be told that it is not stored
            status, comment = status_of(error)
            log.warning(
                "object refused",
                sop_instance_uid=sop_instance_uid[:64],
                status=describe(status),
                reason=comment,
                calling_ae_title=self.facts.calling_ae_title,
            )
        response: Any = C_STORE()
        response.MessageIDBeingRespondedTo = request.MessageID
        if is_uid(sop_class_uid):
            response.AffectedSOPClassUID = sop_class_uid
        if is_uid(sop_instance_uid):
            response.AffectedSOPInstanceUID = sop_instance_uid
        response.Status = status
        if comment:
            response.ErrorComment = comment[:64]
        self.dimse.send_msg(response, context_id)


def _check_request(sop_class_uid: str, sop_instance_uid: str, abstract_syntax: str, dataset: Any) -> None:
    """Raises RefusedError unless the command names an object that can be stored under this presentation context."""
    if not is_storage_class(abstract_syntax) or not is_storage_class(sop_class_uid):
        raise RefusedError(SOP_CLASS_NOT_SUPPORTED, "Affected SOP Class UID is not one of storage")
    if not sop_instance_uid:
        raise RefusedError(CANNOT_UNDERSTAND, "Affected SOP Instance UID is missing or empty")
    if not is_uid(sop_instance_uid):
        raise RefusedError(INVALID_SOP_INSTANCE, "Affected SOP Instance UID is not a UID")
    if dataset is None or not dataset.getbuffer().nbytes:
        raise RefusedError(CANNOT_UNDERSTAND, "the Dataset is missing or empty")
