"""An archive: a storage SCP that is also asked for Storage Commitment, on stock pynetdicom, in every mood."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import AE, evt
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import CTImageStorage  # type: ignore[attr-defined]

from dicom_node.dimse.contexts import (
    STORAGE_COMMITMENT,
    STORAGE_COMMITMENT_INSTANCE,
    commitment_report_context,
)
from dicom_node.dimse.requests import Reference

SR = "1.2.840.10008.5.1.4.1.1.88.34"


@dataclass
class Asked:
    """One N-ACTION as it came."""

    transaction_uid: str
    references: tuple[Reference, ...]
    association: Any  # pynetdicom's


@dataclass
class Archive:
    """Keeps what it is sent, and remembers what it is asked. Thread-safe enough for one node."""

    ae_title: str = "ARCHIVE"
    stored: list[str] = field(default_factory=list)  # SOP Instance UIDs, once for each C-STORE
    asked: list[Asked] = field(default_factory=list)
    action_status: int = 0x0000
    #: SOP Instance UID -> Failure Reason, for what it does not keep
    failing: dict[str, int] = field(default_factory=dict)
    aborts: bool = False  # instead of an answer to N-ACTION
    reports_at_once: bool = False  # on the association that asks
    response_statuses: list[int | None] = field(default_factory=list)  # to its N-EVENT-REPORTs
    _changed: threading.Condition = field(default_factory=threading.Condition)

    @contextmanager
    def running(self, port: int = 0, *, commits: bool = True) -> Iterator[int]:
        """Listen; yields the port."""
        ae = AE(self.ae_title)
        for sop_class in (CTImageStorage, SR):
            ae.add_supported_context(sop_class)
        if commits:
            ae.add_supported_context(STORAGE_COMMITMENT)
        handlers = [(evt.EVT_C_STORE, self._store), (evt.EVT_N_ACTION, self._act)]
        server: Any = ae.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers)
        try:
            yield int(server.server_address[1])
        finally:
            with suppress(OSError):
                server.shutdown()

    def wait_asked(self, count: int, timeout_s: float = 10.0) -> list[Asked]:
        """The requests once there are so many. Raises AssertionError."""
        with self._changed:
            self._changed.wait_for(lambda: len(self.asked) >= count, timeout_s)
            assert len(self.asked) >= count, f"asked {len(self.asked)} of {count} times within {timeout_s} s"
            return list(self.asked)

    def information(self, asked: Asked) -> tuple[Dataset, int]:
        """Event Information and Event Type ID of its report."""
        information = Dataset()
        information.TransactionUID = asked.transaction_uid
        good = [one for one in asked.references if one.sop_instance_uid not in self.failing]
        bad = [one for one in asked.references if one.sop_instance_uid in self.failing]
        if good:
            information.ReferencedSOPSequence = [_item(one) for one in good]
        if bad:
            information.FailedSOPSequence = [_item(one) for one in bad]
            for item in information.FailedSOPSequence:
                item.FailureReason = self.failing[item.ReferencedSOPInstanceUID]
        return information, 2 if bad else 1

    def report(self, port: int, *what: Asked, called: str = "NODE", roles: bool = True) -> list[int | None]:
        """Report on an association of its own; the statuses that the node answers. Empty: not let in."""
        return self.report_with(port, lambda: [self.information(one) for one in what], called, roles)

    def report_with(
        self,
        port: int,
        what: Callable[[], list[tuple[Dataset | None, int]]],
        called: str = "NODE",
        roles: bool = True,
    ) -> list[int | None]:
        """The same with anything in it."""
        context, role = commitment_report_context()
        ae = AE(self.ae_title)
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 10
        made: Any = ae.associate(
            "127.0.0.1", port, contexts=[context], ae_title=called, ext_neg=[role] if roles else []
        )
        if not made.is_established:
            return []
        statuses = [_send(made, *one) for one in what()]
        made.release()
        self.response_statuses += statuses
        return statuses

    def store(self, port: int, called: str = "NODE") -> list[str]:
        """Propose to store; the SOP Classes that the node takes."""
        ae = AE(self.ae_title)
        contexts = [build_context(CTImageStorage), build_context(STORAGE_COMMITMENT)]
        made: Any = ae.associate("127.0.0.1", port, contexts=contexts, ae_title=called)
        taken = [str(context.abstract_syntax) for context in made.accepted_contexts]
        made.release()
        return taken

    def _store(self, event: Any) -> int:
        with self._changed:
            self.stored.append(str(event.request.AffectedSOPInstanceUID))
            self._changed.notify_all()
        return 0x0000

    def _act(self, event: Any) -> tuple[int, None]:
        information = event.action_information
        references = tuple(
            Reference(str(item.ReferencedSOPClassUID), str(item.ReferencedSOPInstanceUID))
            for item in information.ReferencedSOPSequence
        )
        asked = Asked(str(information.TransactionUID), references, event.assoc)
        if self.aborts:
            event.assoc.abort()
        if self.action_status == 0 and self.reports_at_once:
            threading.Thread(target=self._report_on, args=(asked,), daemon=True).start()
        with self._changed:
            self.asked.append(asked)
            self._changed.notify_all()
        return self.action_status, None

    def _report_on(self, asked: Asked) -> None:
        self.response_statuses.append(_send(asked.association, *self.information(asked)))


def _send(association: Any, information: Dataset | None, event_type: int) -> int | None:
    status, _ = association.send_n_event_report(
        information, event_type, UID(STORAGE_COMMITMENT), UID(STORAGE_COMMITMENT_INSTANCE)
    )
    found: int | None = status.get("Status")
    return found


def _item(reference: Reference) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = reference.sop_class_uid
    item.ReferencedSOPInstanceUID = reference.sop_instance_uid
    return item
