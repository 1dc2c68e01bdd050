"""From a received object to a durable file in `incoming`, without the database.

The folder is a journal; names sort in the order in which things happened:

    <time>-<association>-<seq>.dcm        an object, as sent, with File Meta Information of ours
    <time>-<association>.opened.json      its association, written before its first object
    <time>-<association>.closed.json      the association ended: released or aborted, and how many objects it stored
    <time>-<association>.commit.json      somebody asked for storage commitment (answers.py)
    <time>-<association>.reported.json    what came of that on the association
    <time>-<association>.answer.json      an archive answers our request for storage commitment
    <time>-<receiver>.started.json        a receiver started: associations it had open before are lost

<time> is 19 digits of nanoseconds since the epoch, <association> 16 hexadecimal digits. Names that begin with a dot
are being written. indexing.py reads the journal and empties it.
"""

import json
import os
import re
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog

from dicom_node.answers import Answers, Desk
from dicom_node.dimse.dataset_start import require_consistent
from dicom_node.dimse.part10 import file_head
from dicom_node.dimse.requests import AssociationFacts, StoreRequest
from dicom_node.disk import DiskWatermark, reserve_bytes
from dicom_node.senders import Senders
from dicom_node.settings import Settings
from dicom_node.slots import Slots
from dicom_node.transactions import Transactions

log = structlog.get_logger()

ENTRY_NAME = re.compile(
    r"(?P<time_ns>\d{19})-(?P<subject>[0-9A-Za-z_]{1,64})(-(?P<number>\d{6,}))?"
    r"\.(?P<kind>dcm|(opened|closed|started|commit|reported|answer)\.json)"
)
BIND_WITHIN_S = 15.0
_SYNC_EVERY_BYTES = 64 << 20


class Incoming:
    """The journal folder, seen from the one receiver that writes under this name. Thread-safe."""

    def __init__(self, folder: Path, receiver: str, is_durable: bool = True, disk: DiskWatermark | None = None) -> None:
        """Make the folder, remove what this receiver left half-written, and note that it started. Raises OSError.

        is_durable : every entry is on disk before it counts (fsync of the file and of the folder); else it is in the
            page cache: a killed process loses nothing, a machine without power loses its last seconds.
        disk : refuses objects before the disk is full; None: nothing is reserved.
        """
        self.disk = disk or DiskWatermark(folder, 0)
        self.is_durable = is_durable
        self.receiver = re.sub(r"[^0-9A-Za-z_]", "_", receiver)[:64]
        self._folder = str(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for half_written in folder.glob(f".{self.receiver}-*"):
            half_written.unlink(missing_ok=True)
        names = (ENTRY_NAME.fullmatch(name) for name in os.listdir(folder))
        self._last_ns = max((int(match["time_ns"]) for match in names if match), default=0)
        self._folder_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        self._lock = threading.Lock()
        self._begun = 0  # objects, also those that were cut off
        self._stored: dict[str, int] = {}  # objects per association that is open and has stored something
        self._owed: list[tuple[str, dict[str, Any]]] = []  # markers that could not be written
        self.note(self.receiver, "started", {"receiver": self.receiver})

    def open_sink(self, request: StoreRequest) -> "ArrivingObject":
        """Begin one object; it is in the journal when its `commit` returns. Raises OSError, RefusedError."""
        self.disk.check()
        self._write_owed()
        with self._lock:
            self._begun += 1
            return ArrivingObject(self, request, f"{request.association.association_id}-{self._begun:06d}")

    def add(self, aside: str, association: AssociationFacts) -> None:
        """Put a complete object into the journal, behind the note of its association. Raises OSError."""
        with self._lock:
            count = self._stored.get(association.association_id, 0)
        if count == 0:
            self.note(association.association_id, "opened", self._describe(association))
        self._publish(aside, f"{association.association_id}-{count + 1:06d}", "dcm")
        with self._lock:
            self._stored[association.association_id] = count + 1

    def closed(self, association: AssociationFacts, state: str) -> None:
        """Note that an association ended; one that stored nothing leaves no trace. Does not raise."""
        with self._lock:
            count = self._stored.pop(association.association_id, 0)
        if count:
            facts = {"association_id": association.association_id, "state": state, "stored": count}
            with self._lock:
                self._owed.append((association.association_id, facts))
            self._write_owed()

    def _write_owed(self) -> None:
        """Closing notes wait in memory while the disk is full; a receiver that dies before turns them into "lost"."""
        while True:
            with self._lock:
                if not self._owed:
                    return
                subject, facts = self._owed.pop(0)
            try:
                self.note(subject, "closed", facts)
            except OSError as error:
                log.warning("end of an association not yet noted", association=subject, error=error.strerror)
                with self._lock:
                    self._owed.insert(0, (subject, facts))
                return

    def _describe(self, association: AssociationFacts) -> dict[str, Any]:
        return {
            "association_id": association.association_id,
            "receiver": self.receiver,
            "calling_ae_title": association.calling_ae_title,
            "called_ae_title": association.called_ae_title,
            "peer_host": association.peer_host,
            "opened_at_ns": association.opened_at_ns,
        }

    def note(self, subject: str, kind: str, facts: Mapping[str, Any]) -> None:
        """Write a note into the journal, behind all that is in it. Raises OSError."""
        self._write(subject, f"{kind}.json", json.dumps(facts).encode())

    def _write(self, subject: str, suffix: str, content: bytes) -> None:
        aside = self.aside(f"{subject}.{suffix}")
        try:
            with open(aside, "wb") as file:
                file.write(content)
                file.flush()
                if self.is_durable:
                    os.fsync(file.fileno())
            self._publish(aside, subject, suffix)
        except BaseException:
            with suppress(OSError):
                os.unlink(aside)
            raise

    def aside(self, name: str) -> str:
        """Where an entry is written; a restart of this receiver removes what is left there."""
        return f"{self._folder}/.{self.receiver}-{name}"

    def _publish(self, aside: str, subject: str, suffix: str) -> None:
        os.rename(aside, f"{self._folder}/{self._next_ns():019d}-{subject}.{suffix}")
        if self.is_durable:
            os.fsync(self._folder_fd)

    def _next_ns(self) -> int:
        """Time that never repeats or steps back, also over a restart with a wrong clock."""
        with self._lock:
            self._last_ns = max(self._last_ns + 1, time.time_ns())
            return self._last_ns


class ArrivingObject:
    """The ObjectSink of one object on its way into the journal: written aside, made durable, then named."""

    def __init__(self, incoming: Incoming, request: StoreRequest, name: str) -> None:
        """Raises OSError."""
        self._incoming = incoming
        self._association = request.association
        self._aside = incoming.aside(name)
        self._unsynced = 0
        # without Source Application Entity Title: the same object from two senders must be the same bytes
        head = file_head(request.sop_class_uid, request.sop_instance_uid, request.transfer_syntax_uid)
        self._head: list[memoryview] = [memoryview(head)]  # goes with the first bytes of the Dataset
        self._descriptor = os.open(self._aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o640)

    def write(self, parts: Sequence[memoryview]) -> None:
        """Append bytes of the Dataset. Raises OSError, RefusedError."""
        parts = [*self._head, *parts]
        self._head = []
        written = os.writev(self._descriptor, parts)
        self._unsynced += written
        self._incoming.disk.check(written)
        for part in parts:  # what a short write has left over
            rest = part[min(written, len(part)) :]
            written -= len(part) - len(rest)
            while rest:
                count = os.write(self._descriptor, rest)
                self._unsynced += count
                rest = rest[count:]
        if self._unsynced > _SYNC_EVERY_BYTES and self._incoming.is_durable:
            os.fdatasync(self._descriptor)  # else a large object would keep its sender waiting at the end
            self._unsynced = 0

    def commit(self) -> None:
        """Put the object into the journal, by the durability that is set. Raises OSError."""
        if self._incoming.is_durable:
            os.fsync(self._descriptor)
        os.close(self._descriptor)
        self._descriptor = -1
        self._incoming.add(self._aside, self._association)

    def discard(self) -> None:
        """Leave nothing behind."""
        if self._descriptor >= 0:
            with suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = -1
        with suppress(OSError):
            os.unlink(self._aside)


def is_the_object(request: StoreRequest, start: bytearray, n_bytes: int) -> None:
    """Raises RefusedError unless a Dataset begins as one, with the UIDs of its command (PS3.4 Table B.2-1)."""
    require_consistent(
        start, request.transfer_syntax_uid, request.sop_class_uid, request.sop_instance_uid, total_bytes=n_bytes
    )


def receive(settings: Settings, ready_file: Path | None = None, receiver: str = "receive-1") -> None:
    """Receive until SIGTERM or SIGINT: the whole work of `dicom-node receive`.

    ready_file : written with the process id when the port is open.
    receiver : name of this receiver; two at one time on one data directory need two names.
    On SIGTERM stores in progress are finished and answered, then associations are aborted.
    Raises OSError when the port or the folder cannot be had, ConfigurationError for TLS files that are not in order.
    """
    import pydicom.config

    from dicom_node.audit import open_trail
    from dicom_node.audit.observer import AuditObserver
    from dicom_node.dimse.metered import Metered
    from dicom_node.dimse.observer import Observers
    from dicom_node.dimse.scp import running_scp
    from dicom_node.dimse.tls import tls_context

    # This process reads no Dataset, and checks the UIDs that it uses itself; the library would check every one of the
    # hundreds in an association request, several times.
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    tls = tls_context(settings)
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    disk = DiskWatermark(settings.data_dir, reserve_bytes(settings.data_dir, settings.disk_reserve_mb))
    incoming = Incoming(settings.incoming_dir, receiver, settings.durable_ack == "fsync", disk)
    with (
        open_trail(settings, receiver) as trail,
        running_scp(
            settings.ae_title,
            open_sink=incoming.open_sink,
            inspect=is_the_object,
            observer=Observers(Metered(), AuditObserver(trail)),
            closed=incoming.closed,
            admit=Senders(settings.data_dir / "senders.json", settings.ae_title, settings.run_dir).admit,
            host=settings.dicom_host,
            port=settings.dicom_port if settings.dicom_port_enabled else None,
            tls_port=settings.tls_port,
            tls=tls,
            commit_waits=incoming.is_durable,
            shared_port=settings.receivers != 1,
            commitment_desk=Desk(
                incoming.note,
                Answers(settings.answers_dir),
                Transactions(settings.asked_dir),
                incoming.receiver,
                settings.commitment_wait_s,
            ),
            max_associations=settings.max_associations,
            slots=Slots(settings.run_dir / "associations.slots", settings.max_associations),
            network_timeout_s=settings.network_timeout_s,
            bind_within_s=BIND_WITHIN_S,
        ) as port,
    ):
        log.info("receiving", ae_title=settings.ae_title, port=port)
        if ready_file is not None:
            ready_file.parent.mkdir(parents=True, exist_ok=True)
            ready_file.write_text(str(os.getpid()))
        stopping.wait()
    log.info("receiver stopped")
