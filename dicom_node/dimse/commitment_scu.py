"""Storage Commitment Push Model as its SCU (PS3.4 Annex J): an archive is asked whether it keeps what it was sent.

The answer comes as an N-EVENT-REPORT, on the association of the request while that is held open, or later on one that
the archive opens (commitment.py).
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from io import BytesIO
from typing import Any

from pydicom.uid import UID
from pynetdicom.dimse_messages import N_ACTION_RQ
from pynetdicom.dimse_primitives import N_ACTION, N_EVENT_REPORT
from pynetdicom.dsutils import encode

from dicom_node.dimse.commitment_messages import action_information, send_whole, serve_report
from dicom_node.dimse.contexts import (
    STORAGE_COMMITMENT,
    STORAGE_COMMITMENT_INSTANCE,
    commitment_request_context,
)
from dicom_node.dimse.requests import CommitmentReport, Reference
from dicom_node.dimse.scu import RequestorAssociation, associated
from dicom_node.dimse.status import PROCESSING_FAILURE, RESOURCE_LIMITATION, describe, is_success_or_warning
from dicom_node.dimse.tls import TlsPeer
from dicom_node.errors import DestinationRefused, DestinationUnreachable

_REQUEST_COMMITMENT = 1  # Action Type ID, PS3.4 Table J.3-1
_LOOK_UP_S = 0.2


class Uptake(Enum):
    """What became of one request, by what must happen next."""

    TAKEN = "taken"  # the archive will report
    REFUSED = "refused"  # it said no, and would again
    NOT_ASKED = "not asked"  # it knows nothing of the transaction, or could not take it now: the same one again
    UNANSWERED = "unanswered"  # it may have the transaction or not: a new one


@dataclass(frozen=True)
class Asked:
    """One request, and how it was taken."""

    uptake: Uptake
    status: int | None  # of the N-ACTION response, if there was one
    reason: str  # empty when taken without a warning


def ask(
    transaction_uid: str,
    references: Sequence[Reference],
    host: str,
    port: int,
    called_ae_title: str,
    calling_ae_title: str,
    *,
    on_asked: Callable[[Asked], None],
    on_report: Callable[[CommitmentReport], None],
    wait_s: float,
    timeout_s: float = 60.0,
    tls: TlsPeer | None = None,
) -> None:
    """Ask about the objects of one transaction, over an association of its own.

    One request per association: many archives wait for nothing but the response while they report on it.
    on_asked : called once, as soon as it is known.
    on_report : called in another thread with each report that comes on this association, perhaps before `on_asked`;
        raises RefusedError with the status to answer when it cannot keep what it is told.
    wait_s : how long the association is held open for the report.
    timeout_s : longest wait for a response of the peer.
    What the network or the peer does is in the results: nothing is raised for it.
    """
    contexts = [commitment_request_context()]
    peer = f"{host}:{port} ({called_ae_title})"
    try:
        with associated(host, port, called_ae_title, calling_ae_title, contexts, timeout_s, tls=tls) as opened:
            asking = _Asking.on(opened, on_report)
            asked = _asked(asking.ask(transaction_uid, references, timeout_s), peer)
            on_asked(asked)
            if asked.uptake is Uptake.TAKEN:
                asking.wait_for(transaction_uid, wait_s)
    except (DestinationRefused, DestinationUnreachable) as error:
        on_asked(Asked(Uptake.NOT_ASKED, None, str(error)))


def _asked(status: int | None, peer: str) -> Asked:
    if status is None:
        return Asked(Uptake.UNANSWERED, None, f"{peer} gave no answer to N-ACTION")
    if is_success_or_warning(status):
        return Asked(Uptake.TAKEN, status, describe(status) if status else "")
    uptake = Uptake.NOT_ASKED if status in (PROCESSING_FAILURE, RESOURCE_LIMITATION) else Uptake.REFUSED
    return Asked(uptake, status, f"{peer} answered N-ACTION with {describe(status)}")


class _Asking(RequestorAssociation):
    """An association on which a report may come at any time: its own thread takes every message."""

    changed: threading.Condition
    status: int | None  # of the N-ACTION response
    reported: set[str]  # Transaction UIDs
    on_report: Callable[[CommitmentReport], None]

    @classmethod
    def on(cls, association: Any, on_report: Callable[[CommitmentReport], None]) -> "_Asking":
        """Make an established association one of these."""
        association.changed = threading.Condition()
        association.status = None
        association.reported = set()
        association.on_report = on_report
        association.__class__ = cls
        adopted: _Asking = association
        return adopted

    def ask(self, transaction_uid: str, references: Sequence[Reference], timeout_s: float) -> int | None:
        """Send N-ACTION and wait for the response; its status, None without one."""
        context: Any = self.accepted_contexts[0]
        syntax = UID(str(context.transfer_syntax[0]))
        information = action_information(transaction_uid, references)
        encoded = encode(information, syntax.is_implicit_VR, syntax.is_little_endian)
        action: Any = N_ACTION()
        action.MessageID = 1
        action.RequestedSOPClassUID = STORAGE_COMMITMENT
        action.RequestedSOPInstanceUID = STORAGE_COMMITMENT_INSTANCE
        action.ActionTypeID = _REQUEST_COMMITMENT
        action.ActionInformation = BytesIO(encoded or b"")
        send_whole(self, N_ACTION_RQ(), action, int(context.context_id))
        self._wait(lambda: self.status is not None, timeout_s)
        return self.status

    def wait_for(self, transaction_uid: str, wait_s: float) -> None:
        """Hold the association open until the report is there, or the time is over."""
        self._wait(lambda: transaction_uid in self.reported, wait_s)

    def _wait(self, is_there: Callable[[], bool], within_s: float) -> None:
        deadline = time.monotonic() + within_s
        with self.changed:
            while not is_there() and self.is_established and (left := deadline - time.monotonic()) > 0:
                self.changed.wait(min(left, _LOOK_UP_S))  # the end of the association rings no bell

    def _serve_request(self, msg: Any, context_id: int) -> None:
        if isinstance(msg, N_ACTION) and msg.MessageIDBeingRespondedTo is not None:
            with self.changed:
                self.status = PROCESSING_FAILURE if msg.Status is None else int(msg.Status)
                self.changed.notify_all()
        elif isinstance(msg, N_EVENT_REPORT) and msg.MessageIDBeingRespondedTo is None:
            taken: list[CommitmentReport] = []

            def take(report: CommitmentReport) -> None:
                self.on_report(report)
                taken.append(report)

            serve_report(self, msg, self._accepted_cx[context_id], take)
            with self.changed:  # only now, so that the release comes after the response
                self.reported.update(report.transaction_uid for report in taken)
                self.changed.notify_all()
        else:
            super()._serve_request(msg, context_id)
