"""The messages of Storage Commitment Push Model (PS3.4 section J.3), read and written: N-ACTION and N-EVENT-REPORT."""

import secrets
from collections.abc import Callable, Sequence
from io import BytesIO
from typing import Any

import structlog
from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom.dimse_messages import N_EVENT_REPORT_RSP
from pynetdicom.dimse_primitives import N_EVENT_REPORT
from pynetdicom.dsutils import decode

from dicom_node.dimse.contexts import STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE, is_uid
from dicom_node.dimse.requests import (
    AssociationFacts,
    CommitmentAnswer,
    CommitmentReport,
    CommitmentRequest,
    Reference,
)
from dicom_node.dimse.status import (
    CLASS_INSTANCE_CONFLICT,
    INVALID_ARGUMENT_VALUE,
    NO_SUCH_ACTION,
    NO_SUCH_EVENT_TYPE,
    NO_SUCH_SOP_CLASS,
    NO_SUCH_SOP_INSTANCE,
    PROCESSING_FAILURE,
    RESOURCE_LIMITATION,
    SUCCESS,
    RefusedError,
    describe,
)

log = structlog.get_logger()

MAX_REFERENCES = 100_000
_REQUEST_COMMITMENT = 1  # Action Type ID, PS3.4 Table J.3-1
_SUCCESSFUL, _FAILURES_EXIST = 1, 2  # Event Type ID, PS3.4 Table J.3-2


def send_whole(association: Any, message: Any, primitive: Any, context_id: int) -> None:
    """Send a message of which all fragments enter the queue at once.

    Two threads send on an association, and fragments of two messages must not be mixed.
    """
    message.primitive_to_message(primitive)
    message.context_id = context_id
    fragments = list(message.encode_msg(context_id, association.dimse.maximum_pdu_size))
    queue = association.dul.to_provider_queue
    with queue.mutex:
        queue.queue.extend(fragments)
        queue.unfinished_tasks += len(fragments)
        queue.not_empty.notify_all()


def read_request(action: Any, facts: AssociationFacts, transfer_syntax: str) -> CommitmentRequest:
    """The request in an N-ACTION. Raises RefusedError with the status that says what is wrong (PS3.7 10.1.4.1.10)."""
    _require_well_known(action.RequestedSOPClassUID, action.RequestedSOPInstanceUID)
    if action.ActionTypeID != _REQUEST_COMMITMENT:
        raise RefusedError(NO_SUCH_ACTION, "Action Type ID must be 1")
    try:
        information = _decoded(action.ActionInformation, transfer_syntax)
        transaction_uid = _uid_in(information, "TransactionUID")
        items = information.get("ReferencedSOPSequence") or []
        if not items:
            raise RefusedError(INVALID_ARGUMENT_VALUE, "Referenced SOP Sequence is missing or empty")
        if len(items) > MAX_REFERENCES:
            raise RefusedError(RESOURCE_LIMITATION, f"{len(items)} references, {MAX_REFERENCES} at most are taken")
        references = tuple(map(_reference, items))
    except RefusedError:
        raise
    except Exception as error:
        raise RefusedError(INVALID_ARGUMENT_VALUE, "Action Information cannot be read") from error
    return CommitmentRequest(facts, secrets.token_hex(8), transaction_uid, references)


def read_report(event: Any, transfer_syntax: str) -> CommitmentReport:
    """What an archive reports in an N-EVENT-REPORT. Raises RefusedError with the status (PS3.7 10.1.1.1.8)."""
    _require_well_known(event.AffectedSOPClassUID, event.AffectedSOPInstanceUID)
    if event.EventTypeID not in (_SUCCESSFUL, _FAILURES_EXIST):
        raise RefusedError(NO_SUCH_EVENT_TYPE, "Event Type ID must be 1 or 2")
    try:
        information = _decoded(event.EventInformation, transfer_syntax)
        report = CommitmentReport(
            _uid_in(information, "TransactionUID"),
            committed=tuple(map(_reference, information.get("ReferencedSOPSequence") or [])),
            failed=tuple(
                (_reference(item), int(item.get("FailureReason") or PROCESSING_FAILURE))
                for item in information.get("FailedSOPSequence") or []
            ),
        )
    except RefusedError:
        raise
    except Exception as error:
        raise RefusedError(INVALID_ARGUMENT_VALUE, "Event Information cannot be read") from error
    if not (report.committed or report.failed):
        raise RefusedError(INVALID_ARGUMENT_VALUE, "Event Information speaks of no object")
    return report


def serve_report(association: Any, event: Any, context: Any, take: Callable[[CommitmentReport], None]) -> None:
    """Answer an N-EVENT-REPORT request.

    take : keeps what it says, for good; raises RefusedError with the status to answer, or OSError when it cannot.
    """
    if event.MessageID is None:
        log.warning("aborted: N-EVENT-REPORT without Message ID")
        association.abort()
        return
    report: CommitmentReport | None = None
    status, comment = SUCCESS, ""
    try:
        report = read_report(event, str(context.transfer_syntax[0]))
        take(report)
    except RefusedError as error:
        status, comment = error.status, error.comment
    except (OSError, MemoryError):
        status, comment = RESOURCE_LIMITATION, "the report cannot be kept"
    except Exception as error:  # noqa: BLE001 - whatever it is, the archive must be told
        status, comment = PROCESSING_FAILURE, f"internal error: {type(error).__name__}"
    (log.info if status == SUCCESS else log.warning)(
        "an archive reports on storage commitment",
        transaction=report.transaction_uid if report else "",
        committed=len(report.committed) if report else 0,
        failed=len(report.failed) if report else 0,
        status=describe(status),
        reason=comment,
    )
    response: Any = N_EVENT_REPORT()
    response.MessageIDBeingRespondedTo = event.MessageID
    response.AffectedSOPClassUID = STORAGE_COMMITMENT
    response.AffectedSOPInstanceUID = STORAGE_COMMITMENT_INSTANCE
    response.EventTypeID = event.EventTypeID
    response.Status = status
    if comment:
        response.ErrorComment = comment[:64]
    send_whole(association, N_EVENT_REPORT_RSP(), response, int(context.context_id))


def _require_well_known(affected_class: Any, affected_instance: Any) -> None:
    """Both services speak of the one well-known SOP Instance (PS3.4 section J.3.5)."""
    sop_class = str(affected_class or "").strip("\0 ")
    sop_instance = str(affected_instance or "").strip("\0 ")
    if sop_class != STORAGE_COMMITMENT:
        if sop_instance == STORAGE_COMMITMENT_INSTANCE:
            raise RefusedError(CLASS_INSTANCE_CONFLICT, "the SOP Instance is of Storage Commitment Push Model")
        raise RefusedError(NO_SUCH_SOP_CLASS, "the SOP Class is not Storage Commitment Push Model")
    if sop_instance != STORAGE_COMMITMENT_INSTANCE:
        raise RefusedError(NO_SUCH_SOP_INSTANCE, "the SOP Instance is not the well-known one")


def _decoded(information: Any, transfer_syntax: str) -> Dataset:
    syntax = UID(transfer_syntax)
    return decode(information or BytesIO(), syntax.is_implicit_VR, syntax.is_little_endian)


def _reference(item: Dataset) -> Reference:
    return Reference(_uid_in(item, "ReferencedSOPClassUID"), _uid_in(item, "ReferencedSOPInstanceUID"))


def _uid_in(dataset: Dataset, keyword: str) -> str:
    value = str(dataset.get(keyword) or "").strip("\0 ")
    if not is_uid(value):
        raise RefusedError(INVALID_ARGUMENT_VALUE, f"{keyword} is missing or no UID")
    return value


def action_information(transaction_uid: str, references: Sequence[Reference]) -> Dataset:
    """Action Information of N-ACTION (PS3.4 Table J.3-1)."""
    information = Dataset()
    information.TransactionUID = transaction_uid
    information.ReferencedSOPSequence = [_item(reference) for reference in references]
    return information


def event_information(answer: CommitmentAnswer) -> Dataset:
    """Event Information of N-EVENT-REPORT (PS3.4 Table J.3-2)."""
    information = Dataset()
    information.TransactionUID = answer.transaction_uid
    if answer.committed:
        information.ReferencedSOPSequence = [_item(reference) for reference in answer.committed]
    if answer.failed:
        information.FailedSOPSequence = [_item(reference) for reference, _ in answer.failed]
        for item, (_, failure_reason) in zip(information.FailedSOPSequence, answer.failed, strict=True):
            item.FailureReason = failure_reason
    return information


def _item(reference: Reference) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = reference.sop_class_uid
    item.ReferencedSOPInstanceUID = reference.sop_instance_uid
    return item
