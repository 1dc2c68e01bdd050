"""A stand-in PACS: keeps what it is sent. For the demonstration, for self-tests and for tests."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from io import BytesIO
from pathlib import Path

from pydicom import dcmread

from dicom_node.dimse.part10 import file_head
from dicom_node.dimse.requests import InMemory, StoreRequest
from dicom_node.dimse.scp import running_scp


@dataclass(frozen=True)
class KeptObject:
    """One object that arrived, with its bytes as a DICOM file."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    calling_ae_title: str
    file_bytes: bytes = field(repr=False)
    path: Path | None  # where it lies, if a folder was given

    @cached_property
    def study_instance_uid(self) -> str:
        """Study Instance UID in the object's data set."""
        header = dcmread(BytesIO(self.file_bytes), specific_tags=["StudyInstanceUID"], stop_before_pixels=True)
        return str(header.get("StudyInstanceUID", ""))


class StandInPacs:
    """A storage SCP that says Success to everything and remembers it. Thread-safe.

    folder : where objects are written as <number>_<SOP Instance UID>.dcm; None: kept in memory only.
    """

    def __init__(self, folder: Path | None = None, ae_title: str = "PACS") -> None:
        self.ae_title = ae_title
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
        with running_scp(self.ae_title, open_sink=InMemory(self.keep), host=host, port=port) as bound:
            yield bound

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
                )
            )
            self._changed.notify_all()
