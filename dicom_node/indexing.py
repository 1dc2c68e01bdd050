"""From the journal folder `incoming` to the file store and the index, in the scheduler's process.

Everything here may happen twice: an entry leaves the journal only after its file is in the store and its rows are
committed, and both of those are no work the second time. While the database is away the entries wait.
"""

import errno
import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import structlog
from psycopg_pool import ConnectionPool

import storage.associations
import storage.commitments
import storage.events
import storage.instances
from dicom_node import metrics
from dicom_node.commitment import note_report, note_request
from dicom_node.commitment_requests import note_answer
from dicom_node.dimse.part10 import NotPart10Error, parse_file_head, read_file_head
from dicom_node.encoding.provenance import is_ours
from dicom_node.reception import ENTRY_NAME
from dicom_node.recognition.headers import UnreadableHeader, read_instance, series_header
from dicom_node.recognition.scanning import BEGINNING_BYTES, Beginning
from storage.database import Connection
from storage.files import FileStore
from storage.records import Association, Instance

log = structlog.get_logger()

BATCH = 128
#: Reception goes first: the threads of the index are this much nicer than the rest of the process (Linux counts per
#: thread). They still get a tenth of a processor that reception wants for itself.
NICER = 10
_READ_BYTES = 1 << 20

#: notes that are about entries before them
_ABOUT_EARLIER = (".commit.json", ".reported.json")

#: errors of the database that are about one row, not about the database being away
_ABOUT_THE_ROW = (psycopg.DataError, psycopg.IntegrityError, psycopg.NotSupportedError)


@dataclass(frozen=True)
class Entry:
    """One entry of the journal."""

    path: Path
    at: datetime
    subject: str  # association id or receiver
    kind: str  # dcm | opened.json | closed.json | started.json | commit.json | reported.json | answer.json


@dataclass(frozen=True)
class _Read:
    """What one pass over a file gives."""

    sha256: str
    content: bytes  # the first BEGINNING_BYTES
    size_bytes: int


@dataclass(frozen=True)
class _Parsed:
    entry: Entry
    instance: Instance


class _UnusableError(Exception):
    """One entry cannot be indexed; it goes to quarantine with this text as the reason."""


_own_niceness = os.getpriority(os.PRIO_PROCESS, 0)


def _be_nice() -> None:
    with suppress(OSError):  # a process that is nice already may not be allowed to change that
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), min(19, _own_niceness + NICER))


# Hashing leaves the interpreter free, so two threads read while one parses and talks to the database.
_of_thread = threading.local()
_readers = ThreadPoolExecutor(2, "index-read", initializer=_be_nice)
_indexer = ThreadPoolExecutor(1, "index", initializer=_be_nice)


def index_incoming(folder: Path, store: FileStore, pool: "ConnectionPool[Connection]", limit: int = 2000) -> int:
    """Index what lies in the journal, in order; returns how many entries were taken out of it.

    folder : Settings.incoming_dir. What cannot be parsed goes to `quarantine` beside it, with the reason, and holds
        nothing else up.
    limit : entries at most; when the answer equals it, more may be waiting.
    Raises what psycopg raises while the database is away, and OSError when the store cannot be written; whatever is
    not finished then stays in the journal.
    """
    return _indexer.submit(_index, folder, store, pool, limit).result()


def _index(folder: Path, store: FileStore, pool: "ConnectionPool[Connection]", limit: int) -> int:
    done = 0
    for batch in _batches(_entries(folder, limit)):
        _index_batch(batch, folder.parent / "quarantine", store, pool)
        done += len(batch)
    return done


def _entries(folder: Path, limit: int) -> list[Entry]:
    try:
        names = sorted(os.listdir(folder))
        if any(name.endswith(_ABOUT_EARLIER) for name in names):
            # A folder that changes while it is read may show such a note and not what was there before it. What was
            # there before a note of the first reading is in the second.
            first = set(names)
            names = [n for n in sorted(os.listdir(folder)) if n in first or not n.endswith(_ABOUT_EARLIER)]
    except FileNotFoundError:
        return []  # no receiver has started yet
    found = []
    for name in names:
        match = ENTRY_NAME.fullmatch(name)
        if match:
            at = datetime.fromtimestamp(int(match["time_ns"]) / 1e9, UTC)
            found.append(Entry(folder / name, at, match["subject"], match["kind"]))
            if len(found) == limit:
                break
    return found


def _batches(entries: list[Entry]) -> Iterator[list[Entry]]:
    """Up to BATCH entries. A receiver's start stands alone, as what follows it is of another life of the receiver."""
    batch: list[Entry] = []
    for entry in entries:
        if batch and (len(batch) == BATCH or entry.kind == "started.json"):
            yield batch
            batch = []
        batch.append(entry)
        if entry.kind == "started.json":
            yield batch
            batch = []
    if batch:
        yield batch


def _index_batch(batch: list[Entry], quarantine: Path, store: FileStore, pool: "ConnectionPool[Connection]") -> None:
    """Associations that opened, then objects study by study, then associations that ended; then forget the entries."""
    done: list[Entry] = []
    begun = time.perf_counter()
    by_study: dict[str, list[_Parsed]] = {}

    def set_aside(entry: Entry, reason: str) -> None:
        _quarantine(entry, reason, quarantine, pool)

    def note(kinds: tuple[str, ...]) -> None:
        for entry in batch:
            if entry.kind in kinds:
                try:
                    with pool.connection() as connection:
                        _note(connection, entry)
                except FileNotFoundError:
                    continue  # another indexer was faster
                except (ValueError, KeyError, TypeError, *_ABOUT_THE_ROW) as error:
                    set_aside(entry, f"not a note of a receiver: {type(error).__name__}")
                else:
                    done.append(entry)

    note(("started.json", "opened.json"))
    objects_in_order = [entry for entry in batch if entry.kind == "dcm"]
    reads = [_readers.submit(_read, entry.path) for entry in objects_in_order]
    try:
        for entry, read in zip(objects_in_order, reads, strict=True):
            try:
                parsed = _parse(entry, read.result)
            except FileNotFoundError:
                continue
            except _UnusableError as error:
                set_aside(entry, str(error))
            else:
                by_study.setdefault(parsed.instance.study_instance_uid, []).append(parsed)
    finally:
        for read in reads:
            read.cancel()
    for objects in by_study.values():
        try:
            paths = store.put_files([(parsed.entry.path, parsed.instance.sha256) for parsed in objects])
        except FileNotFoundError:
            continue  # another indexer took one of them: what it did not take is seen again next time
        objects[:] = [
            replace(parsed, instance=replace(parsed.instance, path=path))
            for parsed, path in zip(objects, paths, strict=True)
        ]
        try:
            with pool.connection() as connection:
                _add(connection, objects)
        except _ABOUT_THE_ROW:
            _add_one_by_one(objects, set_aside, pool)
        done += [parsed.entry for parsed in objects]
    note(("closed.json", "commit.json", "reported.json", "answer.json"))
    for entry in done:
        entry.path.unlink(missing_ok=True)
    metrics.indexed(sum(entry.kind == "dcm" for entry in done), time.perf_counter() - begun)


# ------------------------------------------------------------------ objects


def _parse(entry: Entry, read: Callable[[], _Read]) -> _Parsed:
    """Header and digest of one object; its path in the store is not known yet. Raises _UnusableError, OSError."""
    try:
        file = read()
        head = parse_file_head(file.content, entry.path.name)
        beginning = Beginning(
            file.content, file.size_bytes, head.dataset_offset, head.transfer_syntax_uid, head.sop_class_uid
        )
        instance = read_instance(entry.path, beginning)
    except (UnreadableHeader, NotPart10Error) as error:
        raise _UnusableError(str(error)) from error
    except OSError as error:
        if error.errno == errno.EIO:
            raise _UnusableError("the disk cannot read the file") from error
        raise
    except Exception as error:
        raise _UnusableError(f"header cannot be read: {type(error).__name__}") from error
    if head.sop_instance_uid != instance.sop_instance_uid:
        raise _UnusableError(
            f"sent as SOP Instance {head.sop_instance_uid}, but its Dataset says {instance.sop_instance_uid}"
        )
    return _Parsed(entry, replace(instance, sha256=file.sha256, association_id=entry.subject, received_at=entry.at))


def _read(path: Path) -> _Read:
    """Digest and first bytes in one pass, and in reads large enough that little is left to the interpreter."""
    digest, content, size_bytes = hashlib.sha256(), b"", 0
    try:
        buffer: memoryview = _of_thread.buffer
    except AttributeError:
        buffer = _of_thread.buffer = memoryview(bytearray(_READ_BYTES))  # made once: new pages cost more than a hash
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
            content = content or bytes(buffer[: min(count, BEGINNING_BYTES)])
            size_bytes += count
    return _Read(digest.hexdigest(), content, size_bytes)


def _add(connection: Connection, objects: list[_Parsed]) -> None:
    """Insert objects of one study, with a sample header for each series that has none yet."""
    described: set[str] = set()
    arrivals = [_arrival(connection, parsed, described) for parsed in objects]
    for arrival, added in zip(arrivals, storage.instances.add_all(connection, arrivals), strict=True):
        instance = arrival.instance
        if added.outcome == "conflict":
            metrics.conflict()
            storage.events.add(
                connection,
                instance.study_instance_uid,
                "conflict",
                f"SOP Instance {instance.sop_instance_uid} came again with other bytes; both are kept, the first is "
                "used",
                {"sop_instance_uid": instance.sop_instance_uid, "sha256": instance.sha256},
            )


def _arrival(connection: Connection, parsed: _Parsed, described: set[str]) -> storage.instances.Arrival:
    """`described` are series of the study known to have a header; the object's own is added."""
    instance = parsed.instance
    header: Mapping[str, Any] = {}
    series = instance.series_instance_uid
    if series not in described and storage.instances.needs_header(connection, instance.study_instance_uid, series):
        try:
            header = series_header(parsed.entry.path)
        except UnreadableHeader as error:
            log.warning("series without a header", series=series, reason=str(error))
    described.add(series)
    instance = replace(instance, is_ours=is_ours(instance.attributes) or is_ours(header))  # loop guard
    return storage.instances.Arrival(instance, header, str(instance.attributes.get("StudyDescription") or ""))


def _add_one_by_one(objects: list[_Parsed], set_aside: Any, pool: "ConnectionPool[Connection]") -> None:
    """After a batch was refused by the database: find the row that it cannot take, and keep the others."""
    for parsed in objects:
        try:
            with pool.connection() as connection:
                _know_association(connection, parsed)
                _add(connection, [parsed])
        except _ABOUT_THE_ROW as error:
            set_aside(parsed.entry, f"the database cannot take its header: {type(error).__name__}")


def _know_association(connection: Connection, parsed: _Parsed) -> None:
    """An object whose association the database has forgotten (it was restored from a copy) is kept all the same."""
    storage.associations.opened(
        connection,
        Association(parsed.entry.subject, "", "", "", "", parsed.entry.at, parsed.entry.at, "lost", 0),
    )


# ------------------------------------------------------------------ associations


def _note(connection: Connection, entry: Entry) -> None:
    """Put one note of a receiver into the database, with its event."""
    facts = json.loads(entry.path.read_text("utf-8"))
    if entry.kind == "opened.json":
        storage.associations.opened(
            connection,
            Association(
                association_id=facts["association_id"],
                receiver=facts["receiver"],
                calling_ae_title=facts["calling_ae_title"],
                called_ae_title=facts["called_ae_title"],
                peer_host=facts["peer_host"],
                opened_at=datetime.fromtimestamp(facts["opened_at_ns"] / 1e9, UTC),
                closed_at=None,
                state="open",
                stored=0,
            ),
        )
    elif entry.kind == "closed.json":
        _close(connection, facts["association_id"], facts["state"], entry.at, int(facts["stored"]))
    elif entry.kind == "commit.json":
        note_request(connection, facts, entry.at)
    elif entry.kind == "reported.json":
        note_report(connection, facts)
    elif entry.kind == "answer.json":
        note_answer(connection, facts)
    else:
        storage.commitments.receiver_started(connection, facts["receiver"], entry.at)
        for association_id in storage.associations.mark_lost(connection, facts["receiver"]):
            _tell_end(connection, association_id, "lost: the receiver stopped", None)


def _close(connection: Connection, association_id: str, state: str, at: datetime, stored: int) -> None:
    before = storage.associations.get(connection, association_id)
    storage.associations.closed(connection, association_id, state, at, stored)
    if before is not None and before.state in ("open", "lost"):  # else it was told before
        _tell_end(connection, association_id, state, stored)


def _tell_end(connection: Connection, association_id: str, state: str, stored: int | None) -> None:
    """One event per study that the association brought something of."""
    association = storage.associations.get(connection, association_id)
    if association is None:
        return
    brought = storage.associations.brought(connection, association_id)
    again = None if stored is None else max(0, stored - sum(b.new + b.conflicts for b in brought))
    for study in brought:
        text = (
            f"association from {association.calling_ae_title} ({association.peer_host}) {state}: "
            f"{study.new} new, {study.conflicts} in conflict"
        )
        if again:
            text += f", {again} already here or in quarantine"
        storage.events.add(
            connection,
            study.study_instance_uid,
            "association",
            text,
            {"association_id": association_id, "new": study.new, "conflicts": study.conflicts, "again": again},
        )


# ------------------------------------------------------------------ quarantine


def _quarantine(entry: Entry, reason: str, folder: Path, pool: "ConnectionPool[Connection]") -> None:
    """Move an entry aside with a reason file, and say so. Idempotent up to a repeated event."""
    folder.mkdir(parents=True, exist_ok=True)
    facts = {"file": entry.path.name, "received_at": entry.at.isoformat(), "source": entry.subject, "reason": reason}
    with suppress(NotPart10Error, OSError):  # storage commitment asks for it
        facts["sop_instance_uid"] = read_file_head(entry.path).sop_instance_uid
    (folder / f"{entry.path.name}.reason.json").write_text(json.dumps(facts))
    with pool.connection() as connection:
        storage.events.add(connection, None, "quarantine", f"{entry.path.name} set aside: {reason}", facts)
    try:
        os.replace(entry.path, folder / entry.path.name)
    except FileNotFoundError:
        return  # another indexer was faster
    metrics.quarantined()
    log.warning("set aside", entry=entry.path.name, reason=reason)
