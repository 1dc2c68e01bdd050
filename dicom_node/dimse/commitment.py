"""Storage Commitment Push Model (PS3.4 Annex J): the SCP on an accepted association, and reports on a new one.

The request is noted and answered at once. Whether the objects are safe is found out elsewhere; the N-EVENT-REPORT that
says so goes out on the association of the request while that is open, or later on one that we open. An accepted
association may also bring the report of an archive that we asked (commitment_scu.py).
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Protocol

import structlog
from pydicom.uid import UID
from pynetdicom.dimse_messages import N_ACTION_RSP, N_EVENT_REPORT_RQ
from pynetdicom.dimse_primitives import N_ACTION, N_EVENT_REPORT
from pynetdicom.dsutils import encode

from dicom_node.dimse.commitment_messages import event_information, read_request, send_whole, serve_report
from dicom_node.dimse.contexts import STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE, commitment_report_context
from dicom_node.dimse.requests import AssociationFacts, CommitmentAnswer, CommitmentReport, CommitmentRequest
from dicom_node.dimse.scu import AssociationRejected, associated
from dicom_node.dimse.status import (
    PROCESSING_FAILURE,
    RESOURCE_LIMITATION,
    SUCCESS,
    RefusedError,
    describe,
    is_success_or_warning,
)
from dicom_node.dimse.tls import TlsPeer
from dicom_node.errors import DestinationRefused, DestinationUnreachable

log = structlog.get_logger()

MAX_UNANSWERED = 64  # requests of one association at one time
_POLL_S = 0.05
_ENDING_WITHIN_S = 5.0


class CommitmentDesk(Protocol):
    """Where requests go and answers come from; called from several threads."""

    answer_within_s: float  # how long an association's request waits for its answer on that association

    def ask(self, request: CommitmentRequest) -> None:
        """Make the request durable; its answer will come. Raises OSError."""

    def claim(self, request: CommitmentRequest) -> CommitmentAnswer | None:
        """The answer, if it is there now and nobody else has taken it; it is the caller's to deliver then."""

    def reported(self, request: CommitmentRequest, status: int | None, reason: str) -> None:
        """What came of it: the peer's status if it took the answer; else None, and the caller delivers nothing more.

        Does not raise.
        """

    def told(self, report: CommitmentReport, by: AssociationFacts) -> None:
        """An archive says what became of a request of ours: make it durable.

        Raises RefusedError with the status to answer when it is not for this peer to say, and OSError.
        """


# ------------------------------------------------------------------ the SCP on an accepted association


class AssociationCommitments:
    """Storage Commitment on one accepted association.

    N-ACTION is served in the association's thread. The first one that is in order starts a thread that waits for
    answers and sends them, one after the other.
    """

    def __init__(self, association: Any, facts: AssociationFacts, desk: CommitmentDesk) -> None:
        self._association = association
        self._facts = facts
        self._desk = desk
        self._turn = threading.Condition()
        self._waiting: dict[str, tuple[CommitmentRequest, Any, float]] = {}  # request, its context, deadline
        self._statuses: dict[int, int] = {}  # of N-EVENT-REPORT responses, by Message ID
        self._has_ended = False
        self._thread: threading.Thread | None = None
        self._message_id = 0

    def take(self, message: Any, context_id: int) -> bool:
        """Serve a message of this service; False: it is of another one."""
        context = self._association._accepted_cx.get(context_id)
        if context is None or str(context.abstract_syntax) != STORAGE_COMMITMENT:
            return False
        if isinstance(message, N_ACTION) and message.MessageIDBeingRespondedTo is None:
            self._serve(message, context)
            return True
        if isinstance(message, N_EVENT_REPORT):
            if message.MessageIDBeingRespondedTo is None:
                serve_report(self._association, message, context, lambda report: self._desk.told(report, self._facts))
                return True
            with self._turn:
                self._statuses[int(message.MessageIDBeingRespondedTo)] = (
                    PROCESSING_FAILURE if message.Status is None else int(message.Status)
                )
                self._turn.notify_all()
            return True
        return False

    def ended(self) -> None:
        """The association has ended: what was not reported on it is given back before this returns."""
        with self._turn:
            self._has_ended = True
            self._turn.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join(_ENDING_WITHIN_S)

    def _serve(self, action: Any, context: Any) -> None:
        if action.MessageID is None:
            log.warning("aborted: N-ACTION without Message ID", association=self._facts.association_id)
            self._association.abort()
            return
        request: CommitmentRequest | None = None
        status, comment = SUCCESS, ""
        try:
            request = read_request(action, self._facts, str(context.transfer_syntax[0]))
            with self._turn:
                if len(self._waiting) >= MAX_UNANSWERED:
                    raise RefusedError(RESOURCE_LIMITATION, f"{MAX_UNANSWERED} requests wait for their answers")
            self._desk.ask(request)
        except RefusedError as error:
            status, comment = error.status, error.comment
        except (OSError, MemoryError):
            status, comment = RESOURCE_LIMITATION, "the request cannot be kept"
        except Exception as error:  # noqa: BLE001 - whatever it is, the requestor must be told
            status, comment = PROCESSING_FAILURE, f"internal error: {type(error).__name__}"
        (log.info if status == SUCCESS else log.warning)(
            "storage commitment requested",
            association=self._facts.association_id,
            calling_ae_title=self._facts.calling_ae_title,
            transaction=request.transaction_uid if request else "",
            references=len(request.references) if request else 0,
            status=describe(status),
            reason=comment,
        )
        response: Any = N_ACTION()
        response.MessageIDBeingRespondedTo = action.MessageID
        response.AffectedSOPClassUID = STORAGE_COMMITMENT
        response.AffectedSOPInstanceUID = STORAGE_COMMITMENT_INSTANCE
        response.ActionTypeID = action.ActionTypeID
        response.Status = status
        if comment:
            response.ErrorComment = comment[:64]
        send_whole(self._association, N_ACTION_RSP(), response, int(context.context_id))
        if request is not None and status == SUCCESS:  # only now, so that the report comes after the response
            self._wait_for_answer(request, context)

    def _wait_for_answer(self, request: CommitmentRequest, context: Any) -> None:
        deadline = time.monotonic() + self._desk.answer_within_s
        with self._turn:
            self._waiting[request.request_id] = (request, context, deadline)
            if self._thread is None:
                self._thread = threading.Thread(target=self._report_answers, name="commitment", daemon=True)
                self._thread.start()
            self._turn.notify_all()

    def _report_answers(self) -> None:
        """The thread: until the association has ended. Without requests that wait it only sleeps."""
        while True:
            with self._turn:
                if not self._has_ended:
                    self._turn.wait(_POLL_S if self._waiting else None)
                waiting = list(self._waiting.values())
                has_ended = self._has_ended
            for request, context, deadline in waiting:
                self._look_for_answer(request, context, time.monotonic() > deadline)
            if has_ended:
                return

    def _look_for_answer(self, request: CommitmentRequest, context: Any, is_late: bool) -> None:
        """Report the answer if it is there, or give the request back if it can no longer be answered here."""
        if self._has_ended or not self._association.is_established:
            status, reason = None, "the association ended"
        elif (answer := self._desk.claim(request)) is not None:
            status, reason = self._report(answer, context)
        elif is_late:
            status, reason = None, f"no answer within {self._desk.answer_within_s:g} s on the association"
        else:
            return
        with self._turn:
            del self._waiting[request.request_id]
        self._desk.reported(request, status, reason)

    def _report(self, answer: CommitmentAnswer, context: Any) -> tuple[int | None, str]:
        """Send N-EVENT-REPORT and wait for the response; its status if the peer has taken the answer, else why not."""
        association = self._association
        self._message_id = self._message_id % 65535 + 1
        event: Any = N_EVENT_REPORT()
        event.MessageID = self._message_id
        event.AffectedSOPClassUID = STORAGE_COMMITMENT
        event.AffectedSOPInstanceUID = STORAGE_COMMITMENT_INSTANCE
        event.EventTypeID = answer.event_type
        syntax = UID(str(context.transfer_syntax[0]))
        encoded = encode(event_information(answer), syntax.is_implicit_VR, syntax.is_little_endian)
        if encoded is None:
            return None, "the answer cannot be encoded"
        event.EventInformation = BytesIO(encoded)
        send_whole(association, N_EVENT_REPORT_RQ(), event, int(context.context_id))
        with self._turn:
            self._turn.wait_for(
                lambda: self._has_ended or self._message_id in self._statuses, association.dimse_timeout or 60.0
            )
            status = self._statuses.pop(self._message_id, None)
        if status is None:
            return None, "the association ended" if self._has_ended else "no response to N-EVENT-REPORT"
        if not is_success_or_warning(status):
            return None, f"N-EVENT-REPORT: {describe(status)}"
        return status, ""


# ------------------------------------------------------------------ reports on an association that we open


@dataclass(frozen=True)
class ReportResult:
    """What became of one report."""

    answer: CommitmentAnswer
    is_taken: bool
    status: int | None  # of the N-EVENT-REPORT response, if there was one
    reason: str  # empty when taken


def report(
    answers: Sequence[CommitmentAnswer],
    host: str,
    port: int,
    called_ae_title: str,
    calling_ae_title: str,
    on_report: Callable[[ReportResult], None],
    timeout_s: float = 60.0,
    tls: TlsPeer | None = None,
) -> None:
    """Report answers over one association that proposes us as SCP (PS3.4 section J.3.3, PS3.7 section D.3.3.4).

    on_report : called once for every answer, after each.
    A peer that says nothing of roles is taken to agree: an association for this SOP Class from us can mean nothing
    else. What the network or the peer does is in the results: nothing is raised for it.
    """
    context, role = commitment_report_context()
    peer = f"{host}:{port} ({called_ae_title})"
    left = list(answers)
    reason = f"{peer} ended the association"
    try:
        with associated(
            host, port, called_ae_title, calling_ae_title, [context], timeout_s, roles=[role], tls=tls
        ) as opened:
            answered = opened.acceptor.role_selection.get(STORAGE_COMMITMENT)
            if answered is not None and not answered.scp_role:
                reason = f"{peer} does not take reports of Storage Commitment from us (it refuses our role as SCP)"
                left, refused = [], left
                for answer in refused:
                    on_report(ReportResult(answer, False, None, reason))
            for message_id, answer in enumerate(list(left), 1):
                if not opened.is_established:
                    break
                result = _report_one(opened, answer, message_id % 65536, peer)
                on_report(result)
                left.remove(answer)
                if result.status is None:
                    break
    except AssociationRejected as error:
        reason = str(error)
    except (DestinationRefused, DestinationUnreachable) as error:
        reason = str(error)
    for answer in left:
        on_report(ReportResult(answer, False, None, reason))


def _report_one(association: Any, answer: CommitmentAnswer, message_id: int, peer: str) -> ReportResult:
    try:
        response, _ = association.send_n_event_report(
            event_information(answer),
            answer.event_type,
            UID(STORAGE_COMMITMENT),
            UID(STORAGE_COMMITMENT_INSTANCE),
            msg_id=message_id,
        )
        status = response.get("Status")
    except (OSError, ValueError, AttributeError, RuntimeError):  # the library's words for an association that ended
        status = None
    if status is None:
        return ReportResult(answer, False, None, f"{peer} gave no answer to N-EVENT-REPORT")
    reason = "" if is_success_or_warning(status) else f"{peer} answered N-EVENT-REPORT with {describe(status)}"
    return ReportResult(answer, not reason, status, reason)
