"""A stand-in PACS: keeps what it is sent, or does what a bad one does. For demonstration, self-tests and tests."""

import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from io import BytesIO
from pathlib import Path

from pydicom import dcmread

from dicom_node.dimse.admission import Admission, NotAdmittedError, Reject, Unlimited
from dicom_node.dimse.part10 import file_head
from dicom_node.dimse.requests import InMemory, StoreRequest
from dicom_node.dimse.scp import running_scp
from dicom_node.dimse.status import AbortAssociationError, RefusedError


@dataclass(frozen=True)
class KeptObject:
    """One object that arrived, with its bytes as a DICOM file."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    calling_ae_title: str
    file_bytes: bytes = field(repr=False)
    path: Path | None  # where it lies, if a folder was given
    at: datetime

    @cached_property
    def study_instance_uid(self) -> str:
        """Study Instance UID in the object's data set."""
        header = dcmread(BytesIO(self.file_bytes), specific_tags=["StudyInstanceUID"], stop_before_pixels=True)
        return str(header.get("StudyInstanceUID", ""))


@dataclass(frozen=True)
class Faults:
    """What a bad PACS does."""

    rejects: Reject | None = None  # every association
    refuses: frozenset[str] = frozenset()  # SOP Classes, at negotiation
    statuses: Mapping[str, int] = field(default_factory=dict)  # SOP Class -> status of C-STORE instead of Success
    aborts_after: int | None = None  # so many objects of an association; the next one is answered by A-ABORT
    keeps_aborted: bool = False  # that one is kept all the same: only its answer is lost
    seconds: float = 0.0  # that every object takes


class StandInPacs:
    """A storage SCP that says Success to everything and remembers it. Thread-safe.

    folder : where objects are written as <number>_<SOP Instance UID>.dcm; None: kept in memory only.
    """

    def __init__(self, folder: Path | None = None, ae_title: str = "PACS", faults: Faults | None = None) -> None:
        self.ae_title = ae_title
        self.faults = faults or Faults()  #: may be changed at any time
        self._answered: Counter[str] = Counter()
        self._stopped = threading.Event()
        self._folder = folder
        self._kept: list[KeptObject] = []
        self._changed = threading.Condition()
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    @property
    def kept(self) -> list[KeptObject]:
        """Everything received so far, in order of arrival; an object sent twice is there twice."""
        with self._changed:
            return list(self._kept)

    def wait_for(self, count: int, timeout_s: float) -> list[KeptObject]:
        """The objects once there are at least `count`, or what is there after `timeout_s`."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._kept) >= count, timeout_s)
            return list(self._kept)

    @contextmanager
    def running(self, host: str = "127.0.0.1", port: int = 0) -> Iterator[int]:
        """Listen while the context lasts; yields the bound port. Raises OSError."""
        self._stopped.clear()
        sink = InMemory(self._receive)
        with running_scp(self.ae_title, open_sink=sink, admit=self._admit, host=host, port=port) as bound:
            try:
                yield bound
            finally:
                self._stopped.set()

    def _admit(self, _calling: str, called: str, _peer_host: str) -> Admission:
        if self.faults.rejects is not None:
            raise NotAdmittedError("a fault", self.faults.rejects)
        if called != self.ae_title:
            raise NotAdmittedError("called AE title is not ours", Reject.CALLED_AE_TITLE)
        return _Takes(self.faults.refuses)

    def _receive(self, request: StoreRequest, dataset: bytes) -> None:
        faults, association = self.faults, request.association.association_id
        if faults.seconds:
            self._stopped.wait(faults.seconds)
        if self._answered[association] == faults.aborts_after:
            if faults.keeps_aborted:
                self.keep(request, dataset)
            raise AbortAssociationError
        self._answered[association] += 1
        if (status := faults.statuses.get(request.sop_class_uid)) is not None:
            raise RefusedError(status, "a fault")
        self.keep(request, dataset)

    def keep(self, request: StoreRequest, dataset: bytes) -> None:
        """Take one object."""
        head = file_head(
            request.sop_class_uid,
            request.sop_instance_uid,
            request.transfer_syntax_uid,
            request.association.calling_ae_title,
        )
        file_bytes = head + dataset
        with self._changed:
            path = None
            if self._folder is not None:
                path = self._folder / f"{len(self._kept) + 1:05d}_{request.sop_instance_uid}.dcm"
                path.write_bytes(file_bytes)
            self._kept.append(
                KeptObject(
                    request.sop_class_uid,
                    request.sop_instance_uid,
                    request.transfer_syntax_uid,
                    request.association.calling_ae_title,
                    file_bytes,
                    path,
                    datetime.now(UTC),
                )
            )
            self._changed.notify_all()


class _Takes(Unlimited):
    """An Admission that takes all but some SOP Classes."""

    def __init__(self, refused: frozenset[str]) -> None:
        self._refused = refused

    def takes(self, sop_class_uid: str) -> bool:
        """Whether it is none of them."""
        return sop_class_uid not in self._refused
