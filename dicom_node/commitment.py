"""Storage Commitment from the request to the answer (PS3.4 Annex J): may the one who asks delete its images?

A receiver notes the request in the journal, behind all objects that it acknowledged before (dimse/commitment.py,
answers.py). Indexing makes it a row, so what was acknowledged before is indexed before. The scheduler looks every
reference up in the index and in the file store, where a file gets its name only after its bytes are on disk, whatever
`durable_ack` says. The answer goes to the association that asked, or a worker takes it to the sender on a new one.
"""

import errno
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

import structlog

import storage.commitments
import storage.events
from dicom_node.answers import Answers
from dicom_node.delivery import pause_s
from dicom_node.dimse.requests import CommitmentAnswer, Reference
from dicom_node.errors import ConfigurationError
from dicom_node.lease import kept
from dicom_node.node import Node
from dicom_node.patience import DATABASE_AWAY, until_database_answers
from dicom_node.routing.reply import reporting_address
from storage.commitments import Known, StudyVerdict
from storage.database import Connection
from storage.records import Commitment

log = structlog.get_logger()

# Failure Reasons (0008,1197), PS3.3 section C.14.1.1
COMMITTED = 0
PROCESSING_FAILURE = 0x0110
NO_SUCH_OBJECT_INSTANCE = 0x0112
CLASS_INSTANCE_CONFLICT = 0x0119
RESOURCE_LIMITATION = 0x0213

#: Every Failure Reason that an answer may hold, and when.
FAILURE_REASONS: Mapping[int, str] = MappingProxyType(
    {
        PROCESSING_FAILURE: "in quarantine, of two versions under one UID, or its file is not whole",
        NO_SUCH_OBJECT_INSTANCE: "the object is not here",
        CLASS_INSTANCE_CONFLICT: "the object is here under another SOP Class",
        RESOURCE_LIMITATION: "its file could not be looked at for want of resources",
    }
)

JUDGED_AT_ONCE = 20
REPORTED_AT_ONCE = 20
REPORT_LEASE_S = 60.0
RECEIVER_ANSWERS_WITHIN_S = 15.0  # beyond its own time-outs
_LACK_OF_RESOURCES = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM)

#: path in the file store -> bytes of the file that is there; raises OSError
FileSize = Callable[[str], int]


# ------------------------------------------------------------------ is it safe?


def failure_reason(reference: Reference, known: Known | None, file_size: FileSize) -> int:
    """COMMITTED, or the Failure Reason of one reference.

    Committed is what is indexed with this SOP Class, of which one version and no other has come, and whose file lies
    in the store in its full length.
    """
    if known is None:
        return NO_SUCH_OBJECT_INSTANCE
    if known.is_quarantined or known.path is None:
        return PROCESSING_FAILURE  # it came, but nobody can say what it is
    if known.sop_class_uid != reference.sop_class_uid:
        return CLASS_INSTANCE_CONFLICT
    if known.is_conflict:
        return PROCESSING_FAILURE  # which of two versions is meant cannot be known
    try:
        size_bytes = file_size(known.path)
    except FileNotFoundError:
        return NO_SUCH_OBJECT_INSTANCE
    except OSError as error:
        return RESOURCE_LIMITATION if error.errno in _LACK_OF_RESOURCES else PROCESSING_FAILURE
    return COMMITTED if size_bytes == known.size_bytes else PROCESSING_FAILURE


def references_of(commitment: Commitment) -> list[Reference]:
    """What was asked about, in its order."""
    return [Reference(*pair) for pair in zip(commitment.sop_class_uids, commitment.sop_instance_uids, strict=True)]


def answer_of(commitment: Commitment) -> CommitmentAnswer:
    """The answer to a transaction that has been judged."""
    judged = list(zip(references_of(commitment), commitment.failure_reasons or (), strict=True))
    return CommitmentAnswer(
        commitment.request_id,
        commitment.transaction_uid,
        committed=tuple(reference for reference, reason in judged if reason == COMMITTED),
        failed=tuple((reference, reason) for reference, reason in judged if reason != COMMITTED),
    )


# ------------------------------------------------------------------ notes of the receivers, for indexing.py


def note_request(connection: Connection, facts: Mapping[str, Any], at: datetime) -> None:
    """`commit.json`: somebody asked. Raises ValueError, KeyError, TypeError when it is not such a note."""
    storage.commitments.asked(
        connection,
        transaction_uid=str(facts["transaction_uid"]),
        calling_ae_title=str(facts["calling_ae_title"]),
        called_ae_title=str(facts["called_ae_title"]),
        peer_host=str(facts["peer_host"]),
        request_id=str(facts["request_id"]),
        receiver=str(facts["receiver"]),
        asked_at=at,
        references=[(str(sop_class), str(uid)) for sop_class, uid in facts["references"]],
    )


def note_report(connection: Connection, facts: Mapping[str, Any]) -> None:
    """`reported.json`: the association of the request took the answer, or cannot any more."""
    if facts["status"] is None:
        storage.commitments.not_awaited(connection, str(facts["request_id"]), str(facts["reason"]))
    else:
        note_answered(connection, str(facts["request_id"]), int(facts["status"]), "on the same association")


def note_answered(connection: Connection, request_id: str, status: int, how: str) -> None:
    """The one who asked has the answer: say so once, in the story of each study."""
    commitment = storage.commitments.answered(connection, request_id, status)
    if commitment is not None:
        _tell(connection, commitment, "was told", how)
        log.info("storage commitment answered", transaction=commitment.transaction_uid, how=how,
                 calling_ae_title=commitment.calling_ae_title, status=status)  # fmt: skip


def _tell(connection: Connection, commitment: Commitment, what: str, how: str) -> None:
    details = {"transaction_uid": commitment.transaction_uid}
    ending = f"(storage commitment {commitment.transaction_uid}, {how})"
    studies = storage.commitments.studies_of(connection, commitment.id)
    for study in studies:
        asked = study.committed + study.failed
        text = f"{commitment.calling_ae_title} {what} that {study.committed} of {asked} objects are safe {ending}"
        storage.events.add(connection, study.study_instance_uid, "commitment", text, details)
    if not studies:
        text = f"{commitment.calling_ae_title} {what} that nothing it asked about is here {ending}"
        storage.events.add(connection, None, "commitment", text, details)


# ------------------------------------------------------------------ the scheduler's part


class Commitments:
    """Judges requests and offers the answers. One at a time: the active scheduler's."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._answers = Answers(node.settings.answers_dir)
        self._is_fresh = True

    def step(self) -> int:
        """Judge what was asked; returns how many requests."""
        with self._node.pool.connection() as connection:
            asked = storage.commitments.unjudged(connection, JUDGED_AT_ONCE)
        for commitment in asked:
            self._judge(commitment)
        return len(asked)

    def sweep(self) -> list[str]:
        """Clear up after receivers that died; returns the AE titles for which a worker must be rung."""
        settings = self._node.settings
        patience_s = settings.commitment_wait_s + settings.network_timeout_s + RECEIVER_ANSWERS_WITHIN_S
        with self._node.pool.connection() as connection:
            for request_id in storage.commitments.give_up_offers(connection, patience_s):
                log.warning("a receiver left an answer lying", request=request_id)
            self._answers.sweep(storage.commitments.offered_requests(connection))
        if self._is_fresh:  # an earlier scheduler may have died before it laid them out
            with self._node.pool.connection() as connection:
                offered = storage.commitments.offered(connection)
            for commitment in offered:
                self._offer(commitment)
            self._is_fresh = False
        with self._node.pool.connection() as connection:
            return storage.commitments.due_senders(connection, ring_again_s=REPORT_LEASE_S)

    def _judge(self, commitment: Commitment) -> None:
        try:
            reasons, studies = self._look_up(commitment)
        except DATABASE_AWAY:
            raise
        except Exception:
            log.exception("request for storage commitment cannot be judged", transaction=commitment.transaction_uid)
            reasons, studies = [PROCESSING_FAILURE] * len(commitment.sop_instance_uids), []
        with self._node.pool.connection() as connection:
            state = storage.commitments.judge(connection, commitment, reasons, studies)
        log.info("storage commitment judged", transaction=commitment.transaction_uid,
                 calling_ae_title=commitment.calling_ae_title, committed=reasons.count(COMMITTED),
                 failed=len(reasons) - reasons.count(COMMITTED), state=state)  # fmt: skip
        if state == "offered":
            with self._node.pool.connection() as connection:
                judged = storage.commitments.get(connection, commitment.id)
            if judged is not None and judged.request_id == commitment.request_id:
                self._offer(judged)

    def _look_up(self, commitment: Commitment) -> tuple[list[int], list[StudyVerdict]]:
        references = references_of(commitment)
        with self._node.pool.connection() as connection:
            known = storage.commitments.known(connection, [reference.sop_instance_uid for reference in references])
        reasons = [failure_reason(one, known.get(one.sop_instance_uid), self._file_size) for one in references]
        counts: dict[str, list[int]] = {}
        for reference, reason in zip(references, reasons, strict=True):
            found = known.get(reference.sop_instance_uid)
            if found is not None and found.study_instance_uid is not None:
                counts.setdefault(found.study_instance_uid, [0, 0])[reason != COMMITTED] += 1
        return reasons, [StudyVerdict(study, good, bad) for study, (good, bad) in sorted(counts.items())]

    def _file_size(self, relative: str) -> int:
        return self._node.store.path(relative).stat().st_size

    def _offer(self, commitment: Commitment) -> None:
        with suppress(OSError):  # a full disk: the receiver's patience ends, and the answer goes on a new association
            self._answers.offer(answer_of(commitment))


# ------------------------------------------------------------------ the worker's part


def report_answers(node: Node, calling_ae_title: str) -> None:
    """Take what waits for one AE title to it, oldest first, over one association per address and batch."""
    while True:
        with node.pool.connection() as connection:
            batch = storage.commitments.claim_batch(connection, calling_ae_title, REPORTED_AT_ONCE, REPORT_LEASE_S)
        if not batch:
            return
        configuration = node.configuration()
        by_address: dict[tuple[str, int] | None, list[Commitment]] = {}
        for commitment in batch:
            address = reporting_address(configuration, calling_ae_title, commitment.peer_host)
            by_address.setdefault(address, []).append(commitment)
        left = {commitment.request_id for commitment in batch}

        def renew(left: set[str] = left) -> None:
            with node.pool.connection() as connection:
                storage.commitments.extend(connection, sorted(left), REPORT_LEASE_S)

        with kept(renew, REPORT_LEASE_S):
            for address, commitments in by_address.items():
                _report(node, address, commitments, left)


def _report(node: Node, address: tuple[str, int] | None, commitments: Sequence[Commitment], left: set[str]) -> None:
    from dicom_node.delivery.dimse import tls_of  # only a process that sends loads the network library
    from dicom_node.dimse.commitment import ReportResult, report

    by_request = {commitment.request_id: commitment for commitment in commitments}

    def note(commitment: Commitment, status: int | None, reason: str) -> None:
        until_database_answers(lambda: _note_attempt(node, commitment, status, reason))
        left.discard(commitment.request_id)

    def on_report(result: ReportResult) -> None:
        note(by_request[result.answer.request_id], result.status, result.reason)

    if address is None:
        first = commitments[0]
        reason = (
            f"no port is known for {first.calling_ae_title} ({first.peer_host}): "
            "give its entry in `senders` a port, or a destination its AE title"
        )
        for commitment in commitments:
            note(commitment, None, reason)
        return
    host, port = address
    called = commitments[0].calling_ae_title
    known = node.configuration().destinations.values()
    same = [d for d in known if (d.ae_title, d.host, d.port) == (called, host, port)]
    try:
        tls = tls_of(same[0]) if same else None  # what takes results over TLS takes reports over TLS
    except ConfigurationError as error:
        for commitment in commitments:
            note(commitment, None, str(error))
        return
    report(
        [answer_of(commitment) for commitment in commitments],
        host,
        port,
        called,
        commitments[0].called_ae_title,
        on_report,
        tls=tls,
    )


def _note_attempt(node: Node, commitment: Commitment, status: int | None, reason: str) -> None:
    """Write down what came of one report at once. An empty reason: the peer has it."""
    with node.pool.connection() as connection:
        if not reason:
            note_answered(connection, commitment.request_id, status or 0, "on a new association")
        elif commitment.attempts >= node.settings.delivery_attempts:
            storage.commitments.park(connection, commitment.request_id, status, reason)
            _tell(
                connection, commitment, "could not be told", f"given up after {commitment.attempts} attempts: {reason}"
            )
        else:
            pause = timedelta(seconds=pause_s(commitment.attempts, node.settings.delivery_backoff_max_s, commitment.id))
            storage.commitments.retry_later(
                connection, commitment.request_id, status, reason, datetime.now(UTC) + pause
            )
    if reason:
        log.warning(
            "storage commitment not answered yet",
            transaction=commitment.transaction_uid,
            calling_ae_title=commitment.calling_ae_title,
            attempt=commitment.attempts,
            reason=reason,
        )
