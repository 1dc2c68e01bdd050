"""A modality that wants to delete its images: the SCU of Storage Commitment, on stock pynetdicom."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import AE, evt
from pynetdicom.dimse_primitives import N_EVENT_REPORT
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import uid_to_service_class
from tiny_objects import CT, dataset_bytes

from dicom_node.dimse.contexts import EXPLICIT_LITTLE, STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE
from dicom_node.dimse.part10 import file_head
from dicom_node.dimse.requests import Reference
from dicom_node.dimse.scu import RequestorAssociation


@dataclass(frozen=True)
class Reported:
    """One N-EVENT-REPORT as it came."""

    event_type: int
    transaction_uid: str
    committed: tuple[Reference, ...]
    failed: tuple[tuple[Reference, int], ...]
    on_association: Any  # pynetdicom's


class _Association(RequestorAssociation):
    """Takes reports beside requests of its own.

    The library serves N-EVENT-REPORT in a thread of its own that says "not paused" at its end, whatever the
    association's loop does at that moment; a request sent just then would wait for ever. And a release that overtakes
    the response would kill the library's thread: `answering` is held until it is out.
    """

    answering: threading.Lock

    def _serve_request(self, msg: Any, context_id: int) -> None:
        if isinstance(msg, N_EVENT_REPORT) and msg.MessageIDBeingRespondedTo is None:
            with self.answering:
                uid_to_service_class(STORAGE_COMMITMENT)(self).SCP(msg, self._accepted_cx[context_id])
        else:
            super()._serve_request(msg, context_id)


class Modality:
    """Sends images, asks for commitment, and remembers the reports that it gets, on any association."""

    def __init__(self, ae_title: str = "MODALITY") -> None:
        self.ae_title = ae_title
        self.reports: list[Reported] = []
        self.report_status = 0x0000  # answered to N-EVENT-REPORT
        self._changed = threading.Condition()

    def has(self, count: int, within_s: float) -> bool:
        """Whether so many reports are there within a time."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self.reports) >= count, within_s)

    def wait_for(self, count: int, timeout_s: float = 10.0) -> list[Reported]:
        """The reports once there are so many. Raises AssertionError."""
        with self._changed:
            self._changed.wait_for(lambda: len(self.reports) >= count, timeout_s)
            assert len(self.reports) >= count, f"{len(self.reports)} of {count} reports within {timeout_s} s"
            return list(self.reports)

    @contextmanager
    def association(self, port: int, called: str = "NODE") -> Iterator[Any]:
        """An association for images and commitment; reports that come on it are taken."""
        ae = AE(self.ae_title)
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 30
        contexts = [build_context(CT, EXPLICIT_LITTLE), build_context(STORAGE_COMMITMENT)]
        handlers = [(evt.EVT_N_EVENT_REPORT, self._take)]
        made: Any = ae.associate("127.0.0.1", port, contexts=contexts, ae_title=called, evt_handlers=handlers)
        made.__class__ = _Association
        made.answering = threading.Lock()
        assert made.is_established
        try:
            yield made
        finally:
            with made.answering:
                if made.is_established:
                    made.release()

    @contextmanager
    def listening(self, port: int = 0, *, takes_role: bool | None = True) -> Iterator[int]:
        """The modality's own SCP for reports on new associations; yields its port.

        takes_role : whether it agrees that the peer is SCP; None: it says nothing of roles.
        """
        ae = AE(self.ae_title)
        ae.require_called_aet = True
        roles = {} if takes_role is None else {"scu_role": not takes_role, "scp_role": takes_role}
        ae.add_supported_context(STORAGE_COMMITMENT, **roles)
        server: Any = ae.start_server(
            ("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_N_EVENT_REPORT, self._take)]
        )
        try:
            yield int(server.server_address[1])
        finally:
            with suppress(OSError):
                server.shutdown()

    def _take(self, event: Any) -> tuple[int, None]:
        information = event.event_information
        pairs = [
            tuple(
                Reference(str(item.ReferencedSOPClassUID), str(item.ReferencedSOPInstanceUID))
                for item in information.get(keyword) or []
            )
            for keyword in ("ReferencedSOPSequence", "FailedSOPSequence")
        ]
        reasons = [int(item.FailureReason) for item in information.get("FailedSOPSequence") or []]
        failed = tuple(zip(pairs[1], reasons, strict=True))
        with self._changed:
            self.reports.append(
                Reported(int(event.event_type), str(information.TransactionUID), pairs[0], failed, event.assoc)
            )
            self._changed.notify_all()
        return self.report_status, None


def request_dataset(transaction_uid: str, references: Sequence[Reference]) -> Dataset:
    """Action Information of N-ACTION."""
    information = Dataset()
    information.TransactionUID = transaction_uid
    information.ReferencedSOPSequence = []
    for reference in references:
        item = Dataset()
        item.ReferencedSOPClassUID = reference.sop_class_uid
        item.ReferencedSOPInstanceUID = reference.sop_instance_uid
        information.ReferencedSOPSequence.append(item)
    return information


def ask(association: Any, transaction_uid: str, references: Sequence[Reference]) -> int | None:
    """N-ACTION; its status."""
    return ask_with(association, request_dataset(transaction_uid, references))


def ask_with(
    association: Any,
    information: Dataset | None,
    action_type: int = 1,
    sop_class: str = STORAGE_COMMITMENT,
    sop_instance: str = STORAGE_COMMITMENT_INSTANCE,
) -> int | None:
    """N-ACTION with anything in it; its status, None without an answer."""
    status, _ = association.send_n_action(
        information, action_type, UID(sop_class), UID(sop_instance), meta_uid=UID(STORAGE_COMMITMENT)
    )
    found: int | None = status.get("Status")
    return found


def store(association: Any, sop_instance_uid: str, **elements: object) -> int | None:
    """C-STORE of a small CT slice; its status."""
    encoded = file_head(CT, sop_instance_uid, EXPLICIT_LITTLE) + dataset_bytes(sop_instance_uid, **elements)  # type: ignore[arg-type]
    status: int | None = association.send_c_store(dcmread(BytesIO(encoded))).get("Status")
    return status


def wait_until(condition: Any, what: str, timeout_s: float = 10.0) -> None:
    """Wait for a condition. Raises AssertionError naming `what`."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(0.01)
