"""The acceptor's happenings as audit records."""

import threading
import time
from collections import Counter
from collections.abc import Callable

from dicom_node.audit import events
from dicom_node.audit.trail import Trail
from dicom_node.dimse.observer import Observer
from dicom_node.dimse.requests import AssociationFacts, StoreRequest
from dicom_node.dimse.status import describe

_SAME_AGAIN_S = 60.0
_REMEMBERED = 1000


class AuditObserver(Observer):
    """Notes who was turned away, and what was refused. Thread-safe.

    The same refusal of the same peer is told once a minute, with the number of those in between: a misconfigured
    sender, or a hostile one, must not fill the trail. Refused objects are told when their association ends.
    """

    def __init__(self, trail: Trail, clock: Callable[[], float] = time.monotonic) -> None:
        self._trail = trail
        self._clock = clock
        self._told: dict[tuple[str, str, str, str], tuple[float, int]] = {}  # -> when, how often since
        self._refused: dict[str, dict[str, Counter[str]]] = {}  # association -> SOP Class -> reason -> objects
        self._lock = threading.Lock()

    def rejected(self, calling_ae_title: str, called_ae_title: str, peer_host: str, reason: str) -> None:
        """An association request was answered with A-ASSOCIATE-RJ."""
        same = (calling_ae_title, called_ae_title, peer_host, reason)
        now = self._clock()
        with self._lock:
            told_at, repeated = self._told.pop(same, (now - _SAME_AGAIN_S, 0))
            is_due = now - told_at >= _SAME_AGAIN_S
            self._told[same] = (now, 0) if is_due else (told_at, repeated + 1)
            while len(self._told) > _REMEMBERED:
                self._told.pop(next(iter(self._told)))
        if is_due:
            self._trail.note(events.association_refused(self._trail.ae_title, *same, repeated))

    def handshake_failed(self, peer_host: str, reason: str) -> None:
        """A TLS connection was not made."""
        self.rejected("", "", peer_host, f"TLS handshake failed: {reason}")

    def refused(self, request: StoreRequest, status: int) -> None:
        """A C-STORE request was answered with a failure."""
        with self._lock:
            classes = self._refused.setdefault(request.association.association_id, {})
            if len(classes) < _REMEMBERED:
                classes.setdefault(request.sop_class_uid[:64], Counter())[describe(status)] += 1

    def closed(self, association: AssociationFacts, state: str) -> None:  # noqa: ARG002 - of the protocol
        """It has ended."""
        with self._lock:
            classes = self._refused.pop(association.association_id, {})
        for sop_class_uid, reasons in classes.items():
            self._trail.note(
                events.objects_refused(
                    association.calling_ae_title,
                    association.called_ae_title,
                    association.peer_host,
                    sop_class_uid,
                    reasons,
                )
            )
