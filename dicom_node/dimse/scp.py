"""The acceptor: who may associate, how many at a time, and what is done with their objects."""

import logging
import secrets
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any

import structlog
from pynetdicom import AE, _config, evt
from pynetdicom.association import Association
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.presentation import build_context
from pynetdicom.transport import AssociationServer, RequestHandler

from dicom_node.dimse.admission import Admit, NotAdmittedError, Reject, anyone_calling
from dicom_node.dimse.association import MAX_PDU_BYTES, NodeAssociation, adopt
from dicom_node.dimse.commitment import AssociationCommitments, CommitmentDesk
from dicom_node.dimse.contexts import VERIFICATION, supported_contexts
from dicom_node.dimse.fast_store import AcceptedContext, Inspect, StoreMessages
from dicom_node.dimse.lobby import ARTIM_S, Door, Lobby
from dicom_node.dimse.observer import Observer
from dicom_node.dimse.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicom_node.dimse.requests import AssociationFacts, OpenSink
from dicom_node.slots import Slots

log = structlog.get_logger()

# One line per PDU costs more than the PDU; what matters is logged here, without tracebacks for every TCP probe.
_config.LOG_HANDLER_LEVEL = "none"
logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
# A UID that is too long must be answered with a status; the library's own check would abort the association.
_config.VALIDATORS["UI"] = lambda _value: (True, "")

_APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
_RECEIVE_BUFFER_BYTES = 4 << 20
_DRAIN_S = 10.0
_SMALL_WRITE_BYTES = 128 << 10
_LARGE_WRITE_BYTES = 16 << 20

Closed = Callable[[AssociationFacts, str], None]


@contextmanager
def running_scp(
    ae_title: str,
    *,
    open_sink: OpenSink,
    host: str = "127.0.0.1",
    port: int | None = 0,
    tls_port: int | None = None,
    tls: Callable[[], ssl.SSLContext] | None = None,
    shared_port: bool = False,
    closed: Closed = lambda _facts, _state: None,
    admit: Admit | None = None,
    inspect: Inspect | None = None,
    commitment_desk: CommitmentDesk | None = None,
    observer: Observer | None = None,
    max_associations: int = 50,
    slots: Slots | None = None,
    commit_waits: bool = True,
    network_timeout_s: float = 60.0,
    artim_s: float = ARTIM_S,
    bind_within_s: float = 0.0,
) -> Iterator[int]:
    """Accept associations while the context lasts; yields the bound port (`port` 0: any free one).

    port : without TLS; None: not at all, and the TLS port is yielded.
    tls_port : where TLS is spoken, with the context that `tls` gives for each connection; None: nowhere.

    open_sink : called in an association's thread for every C-STORE request that is in order; what it or its sink
        raises becomes a status (status.py).
    shared_port : several processes listen on the port, and the kernel deals the connections out (SO_REUSEPORT).
    closed : called once for every accepted association when it has ended, with "released" or "aborted".
    admit : decides on every association request, and what the association may store; None: anyone who calls
        `ae_title` may store everything.
    slots : where the associations of all processes on one data directory are counted, beside `max_associations` here.
    commitment_desk : takes requests of Storage Commitment; without it the service is not offered.
    inspect : looks at the first 64 KiB of every Dataset before it is answered.
    commit_waits : whether the commit of a sink waits for a disk.
    network_timeout_s : a peer silent for so long is aborted; artim_s : one that has not asked for an association.
    bind_within_s : how long a port that is still taken is tried again.
    At the end a store in progress is finished and answered; then associations are aborted.
    Raises OSError when the port cannot be bound.
    """
    acceptor = _Acceptor(
        admit or anyone_calling(ae_title),
        open_sink,
        closed,
        inspect,
        observer or Observer(),
        max_associations,
        slots,
        commit_waits,
        commitment_desk,
    )
    ae = AE(ae_title)
    ae.maximum_pdu_size = MAX_PDU_BYTES
    ae.maximum_associations = 1_000_000  # ours counts: the library's would count associations that are not accepted yet
    ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    ae.network_timeout = network_timeout_s
    ae.acse_timeout = min(artim_s, network_timeout_s)
    ae.dimse_timeout = network_timeout_s
    doors: list[Door] = []
    ports: list[int] = []
    try:
        for number, context in ((port, None), (tls_port, tls)):
            if number is not None:
                server: Any = _bound_server(ae, acceptor, host, number, shared_port, bind_within_s)
                doors.append(Door(server.socket, server.enter, context))
                ports.append(int(server.server_address[1]))
    except OSError:
        for door in doors:
            door.listener.close()
        raise
    lobby = Lobby(doors, artim_s, handshake_failed=acceptor.handshake_failed)
    lobby.start()
    try:
        yield ports[0]
    finally:
        lobby.close()
        acceptor.drain(_DRAIN_S)


def _bound_server(
    ae: AE, acceptor: "_Acceptor", host: str, port: int, shared_port: bool, bind_within_s: float
) -> "_Server":
    deadline = time.monotonic() + bind_within_s
    while True:
        try:
            server: Any = ae.make_server(
                (host, port),
                # the library wants one context; those of an association are set when it is requested
                contexts=[build_context(VERIFICATION)],
                server_class=_SharedPortServer if shared_port else _Server,
                request_handler=_Handler,
                evt_handlers=[(evt.EVT_REQUESTED, acceptor.requested)],
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
        self,
        admit: Admit,
        open_sink: OpenSink,
        closed: Closed,
        inspect: Inspect | None,
        observer: Observer,
        max_associations: int,
        slots: Slots | None,
        commit_waits: bool,
        commitment_desk: CommitmentDesk | None,
    ) -> None:
        self._admit = admit
        self._open_sink = open_sink
        self._closed = closed
        self._inspect = inspect
        self._observer = observer
        self._max_associations = max_associations
        self._slots = slots
        self._commitment_desk = commitment_desk
        self._accepted: set[NodeAssociation] = set()
        self._lock = threading.Lock()
        self.is_draining = False
        # A thread that waits for the interpreter wakes up at every system call of the others; one that waits for its
        # turn does not. Threads that wait for a disk must not wait one after the other.
        self.turn: AbstractContextManager[Any] = nullcontext() if commit_waits else threading.Lock()

    def requested(self, event: evt.Event) -> None:
        """Decide on an association request before the library negotiates its presentation contexts."""
        association: Any = event.assoc
        request: Any = association.requestor.primitive
        facts = AssociationFacts(
            secrets.token_hex(8),
            str(request.calling_ae_title).strip(),
            str(request.called_ae_title).strip(),
            _plain_address(association.requestor.address),
            time.time_ns(),
        )
        try:
            self._let_in(association, facts)
        except NotAdmittedError as error:
            log.warning(
                "association refused",
                reason=error.reason,
                calling_ae_title=facts.calling_ae_title,
                called_ae_title=facts.called_ae_title,
                peer=facts.peer_host,
            )
            self._observer.rejected(facts.calling_ae_title, facts.called_ae_title, facts.peer_host, error.reason)
            reject = error.reject
        except Exception as error:  # noqa: BLE001 - the library would go on and accept
            log.error("association request could not be judged", error=repr(error))
            reject = Reject.CONGESTION
        else:
            self._observer.opened(facts)
            return
        association.acse.send_reject(*reject.value)
        association.kill()  # as the library does after its own rejections: waits until the PDU is out

    def _let_in(self, association: NodeAssociation, facts: AssociationFacts) -> None:
        """Give the association its admission and its slot. Raises NotAdmittedError."""
        request: Any = association.requestor.primitive
        if str(request.application_context_name) != _APPLICATION_CONTEXT:
            raise NotAdmittedError("application context not supported", Reject.APPLICATION_CONTEXT)
        admission = self._admit(facts.calling_ae_title, facts.called_ae_title, facts.peer_host)
        try:
            association.acceptor.supported_contexts = supported_contexts(
                request.presentation_context_definition_list,
                admission.takes,
                storage_commitment=self._commitment_desk is not None,
            )
            with self._lock:
                if self.is_draining:
                    raise NotAdmittedError("the receiver is stopping", Reject.CONGESTION)
                slot = self._slots.take() if self._slots is not None else None
                if len(self._accepted) >= self._max_associations or (self._slots is not None and slot is None):
                    if slot is not None:
                        slot.give_back()
                    raise NotAdmittedError("limit of associations reached", Reject.LOCAL_LIMIT)
                self._accepted.add(association)
        except BaseException:
            admission.release()
            raise
        association.slot = slot
        association.admission = admission
        association.facts = facts
        if self._commitment_desk is not None:
            association.commitments = AssociationCommitments(association, facts, self._commitment_desk)

    @property
    def write_after_bytes(self) -> int:
        """Of a Dataset: writing beside receiving serves a lone sender soonest, long turns serve many.

        Every system call gives the interpreter to another association's thread, which costs more than the call.
        """
        return _SMALL_WRITE_BYTES if len(self._accepted) < 2 else _LARGE_WRITE_BYTES

    def handshake_failed(self, peer_host: str, reason: str) -> None:
        """Tell the observer."""
        self._observer.handshake_failed(_plain_address(peer_host), reason)

    def messages(self, association: NodeAssociation, facts: AssociationFacts) -> StoreMessages:
        """The service for an association's messages."""
        dul: Any = association.dul
        contexts = {
            number: AcceptedContext(str(context.abstract_syntax), str(context.transfer_syntax[0]))
            for number, context in association._accepted_cx.items()
        }
        return StoreMessages(
            facts,
            contexts,
            admission=association.admission,
            open_sink=self._open_sink,
            inspect=self._inspect,
            observer=self._observer,
            send=dul.socket.send,
            hand_on=dul.hand_on,
        )

    def ended(self, association: NodeAssociation, facts: AssociationFacts) -> None:
        """Note that an association has ended."""
        state = "released" if association.is_released else "aborted"
        try:
            self._closed(facts, state)
            self._observer.closed(facts, state)
        except Exception as error:  # noqa: BLE001 - the thread ends here; there is nobody else to tell
            log.error("end of an association was not noted", association=facts.association_id, error=repr(error))
        finally:  # only now, so that drain waits for the note
            with self._lock:
                self._accepted.discard(association)
            association.admission.release()
            if association.slot is not None:
                association.slot.give_back()

    def drain(self, within_s: float) -> None:
        """Abort all associations, each after the message that it is in the middle of."""
        deadline = time.monotonic() + within_s
        with self._lock:
            self.is_draining = True
            left = list(self._accepted)
        for association in left:
            association.join(max(0.0, deadline - time.monotonic()))
        for association in left:
            if association.is_alive():
                association.abort()


def _plain_address(address: str) -> str:
    return address.removeprefix("::ffff:")


class _Server(AssociationServer):
    """Holds the listening socket. SO_REUSEADDR (the library's) lets a restarted receiver take its port at once."""

    request_queue_size = 4096  # what does not fit waits a second for its next SYN
    acceptor: _Acceptor

    def enter(self, connection: socket.socket, address: Any, request: A_ASSOCIATE_RQ, behind: bytes) -> None:
        """Start the association that a connection asks for; `behind` was sent after the request."""
        with suppress(OSError):  # the peer may be gone already
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
        _Handler(connection, address, self, request, behind)


class _SharedPortServer(_Server):
    """The same, beside other processes."""

    def server_bind(self) -> None:
        listener: Any = self.socket
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        super().server_bind()


class _Handler(RequestHandler):
    """Makes the association of a new connection one of ours."""

    server: _Server

    def __init__(
        self, connection: Any, client_address: Any, server: _Server, request: A_ASSOCIATE_RQ, behind: bytes
    ) -> None:
        self._request = request
        self._behind = behind
        super().__init__(connection, client_address, server)

    def _create_association(self) -> Association:
        made: Any = super()._create_association()
        timeout_s = float(self.ae.network_timeout or 60.0)
        return adopt(made, self.server.acceptor, self._request, self._behind, timeout_s)
