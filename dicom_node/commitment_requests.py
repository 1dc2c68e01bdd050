"""Does the archive keep what it was sent? Storage Commitment as its SCU (PS3.4 Annex J), from delivery to proof.

A delivery that arrived at a destination with `commitment` is wanted; a worker asks the archive about all of
them in one transaction. The archive's report comes on the same association, or on one that it opens: a receiver notes
it in the journal (answers.py), and indexing brings it here. All that is known is in PostgreSQL, so whoever dies in
between leaves a transaction that is answered all the same, or asked again when its time is over.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import structlog

import storage.commitment_requests as requests
import storage.events
from dicom_node.delivery import pause_s
from dicom_node.dimse.requests import CommitmentReport, Reference
from dicom_node.dimse.status import PROCESSING_FAILURE, RefusedError, describe
from dicom_node.errors import ConfigurationError
from dicom_node.lease import kept
from dicom_node.node import Node
from dicom_node.patience import DATABASE_AWAY, until_database_answers
from dicom_node.routing.configuration import Configuration
from dicom_node.routing.destination import Destination
from dicom_node.routing.reply import destination_of
from dicom_node.routing.sender import Sender
from dicom_node.transactions import Reporter, Transactions, new_transaction_uid
from storage.database import Connection
from storage.records import CommitmentRequest

log = structlog.get_logger()

#: From arrival to question: what arrives with it goes into the same transaction, and archives file what they took a
#: moment after they took it.
SETTLE_S = 2.0
ASK_LEASE_S = 60.0
OBJECTS_AT_ONCE = 1000
REQUESTS_AT_MOST = 5  # transactions about one object
SENT_AGAIN_AT_MOST = 3  # because the archive did not have it
ASKED_AGAIN_AFTER_S = 300.0  # by an archive that could not say
RING_AGAIN_S = 20.0

# Failure Reasons (0008,1197), PS3.3 section C.14.1.1
_COMMITTED = 0
_NO_SUCH_OBJECT_INSTANCE = 0x0112
_RESOURCE_LIMITATION = 0x0213
_DUPLICATE_TRANSACTION_UID = 0x0131
_PASSING = (PROCESSING_FAILURE, _RESOURCE_LIMITATION, _DUPLICATE_TRANSACTION_UID)

_Turn = Literal["wanted", "sent_again", "failed"]


def want(connection: Connection, delivery_id: int, destination: Destination) -> None:
    """A delivery arrived; remember to ask about it, if its destination is one that is asked."""
    if destination.commitment:
        requests.want(connection, delivery_id, SETTLE_S)


def archives(configuration: Configuration) -> list[Sender]:
    """The destinations that are asked, as peers that may associate to report."""
    asked = [destination for destination in configuration.destinations.values() if destination.commitment]
    own = {(destination.ae_title, destination.host) for destination in asked}
    own |= {(ae_title, host) for host, _, ae_title in (destination.commitment_address for destination in asked)}
    return [Sender(ae_title, (host,), is_archive=True) for ae_title, host in sorted(own) if ae_title and host]


# ------------------------------------------------------------------ the worker's part


def reporters_of(configuration: Configuration, archive: Destination) -> list[Reporter]:
    """Who may report for an archive: its own AE titles and addresses, and where the list of senders knows them."""
    host, _, ae_title = archive.commitment_address
    found = []
    for name in dict.fromkeys((archive.ae_title, ae_title)):
        known = [other for sender in configuration.senders if sender.ae_title == name for other in sender.hosts]
        found.append(Reporter(name, [*dict.fromkeys((archive.host, host, *known))]))
    return found


def ask_archive(node: Node, route: str) -> None:
    """Ask one archive about all that it is to commit now.

    route : as deliveries name their destination (routing/reply.py).
    """
    while True:
        with node.pool.connection() as connection:
            batch = requests.claim(connection, route, new_transaction_uid(), OBJECTS_AT_ONCE, ASK_LEASE_S, SETTLE_S)
        if not batch:
            return
        configuration = node.configuration()
        try:
            archive = destination_of(configuration, route)
        except ConfigurationError as error:
            for request in batch:
                _ask_later(node, request, None, str(error))
            continue
        if not archive.commitment:
            for request in batch:
                _refused(node, request, None, "the rules do not ask for its commitment any more")
            continue
        left = [request.id for request in batch]

        def renew(left: list[int] = left) -> None:
            with node.pool.connection() as connection:
                requests.extend(connection, left, ASK_LEASE_S)

        with kept(renew, ASK_LEASE_S):
            away = ""
            for request in batch:
                if away:  # the others would wait for the same time-out
                    _ask_later(node, request, None, away)
                else:
                    away = _ask(node, archive, reporters_of(configuration, archive), request)
                left.remove(request.id)


def _ask(node: Node, archive: Destination, reporters: Sequence[Reporter], request: CommitmentRequest) -> str:
    """Ask, hold the association for the report, and write down what comes of it; why the archive is away, or empty."""
    from dicom_node.delivery.dimse import tls_of  # only a process that sends loads the network library
    from dicom_node.dimse.commitment_scu import Asked, Uptake, ask

    away: list[str] = []

    def note(asked: Asked) -> None:
        if asked.uptake is Uptake.TAKEN:
            until_database_answers(lambda: _requested(node, request, asked.status or 0))
        elif asked.uptake is Uptake.REFUSED:
            until_database_answers(lambda: _refused(node, request, asked.status, asked.reason))
        elif asked.uptake is Uptake.UNANSWERED:
            until_database_answers(lambda: _unanswered(node, request.id, asked.reason, request.attempts))
        else:
            until_database_answers(lambda: _ask_later(node, request, asked.status, asked.reason))
            if asked.status is None:
                away.append(asked.reason)

    def take(report: CommitmentReport) -> None:
        try:
            with node.pool.connection() as connection:
                note_report(connection, report, "on the same association")
        except DATABASE_AWAY as error:  # it reports again, or is asked again
            raise RefusedError(PROCESSING_FAILURE, "the report cannot be kept now") from error

    try:
        tls = tls_of(archive)
        Transactions(node.settings.asked_dir).open(request.transaction_uid, reporters)
    except (ConfigurationError, OSError) as error:
        note(Asked(Uptake.NOT_ASKED, None, str(error)))
        return away[0]
    host, port, ae_title = archive.commitment_address
    ask(
        request.transaction_uid,
        [*map(Reference, request.sop_class_uids, request.sop_instance_uids)],
        host,
        port,
        ae_title,
        node.settings.ae_title,
        on_asked=note,
        on_report=take,
        wait_s=node.settings.archive_wait_s,
        tls=tls,
    )
    return away[0] if away else ""


def _requested(node: Node, request: CommitmentRequest, status: int) -> None:
    with node.pool.connection() as connection:
        requests.requested(connection, request.id, status, node.settings.archive_timeout_s)
    log.info("storage commitment asked", transaction=request.transaction_uid, destination=request.destination,
             objects=len(request.sop_instance_uids))  # fmt: skip


def _ask_later(node: Node, request: CommitmentRequest, status: int | None, reason: str) -> None:
    """The archive has not taken the request."""
    if request.attempts >= node.settings.delivery_attempts:
        _refused(node, request, status, f"given up after {request.attempts} attempts: {reason}")
        return
    pause = timedelta(seconds=pause_s(request.attempts, node.settings.delivery_backoff_max_s, request.id))
    with node.pool.connection() as connection:
        requests.ask_later(connection, request.id, status, reason, datetime.now(UTC) + pause)
        if reason != request.reason:  # an archive that is away for a night is one line in the study's story
            text = f"{request.destination} cannot be asked for storage commitment: {reason}"
            ids = [asked.delivery_id for asked in requests.objects(connection, request.id)]
            _tell(connection, ids, text, request.transaction_uid)
    log.warning("storage commitment not asked yet", transaction=request.transaction_uid,
                destination=request.destination, attempt=request.attempts, reason=reason)  # fmt: skip


def _refused(node: Node, request: CommitmentRequest, status: int | None, reason: str) -> None:
    with node.pool.connection() as connection:
        failed = requests.refused(connection, request.id, status, reason)
        text = f"{request.destination} does not commit {len(failed)} objects: {reason}"
        _tell(connection, failed, text, request.transaction_uid)
    log.error("storage commitment refused", transaction=request.transaction_uid, destination=request.destination,
              reason=reason)  # fmt: skip


def _unanswered(node: Node, request_id: int, reason: str, attempts: int = 0) -> None:
    """Nobody knows whether the archive has the transaction: a new one, while there is patience."""
    pause = timedelta(seconds=pause_s(attempts, node.settings.delivery_backoff_max_s, request_id) if attempts else 0.0)
    with node.pool.connection() as connection:
        states = requests.timed_out(connection, request_id, reason, datetime.now(UTC) + pause, REQUESTS_AT_MOST)
        failed = [delivery_id for delivery_id, state in states.items() if state == "failed"]
        again = [delivery_id for delivery_id, state in states.items() if state != "failed"]
        _tell(connection, again, f"storage commitment: {reason}; it is asked again", "")
        _tell(connection, failed, f"storage commitment: {reason}; given up after {REQUESTS_AT_MOST} requests", "")
    log.warning("storage commitment not answered", request=request_id, again=len(again), given_up=len(failed),
                reason=reason)  # fmt: skip


# ------------------------------------------------------------------ the scheduler's part


def sweep(node: Node) -> list[str]:
    """Close transactions whose time is over; returns the destinations for which a worker must be rung."""
    with node.pool.connection() as connection:
        overdue = requests.overdue(connection)
    for request_id, state in overdue:
        late = f"no report within {node.settings.archive_timeout_s:.0f} s"
        _unanswered(node, request_id, late if state == "requested" else "the worker that asked was stopped")
    with node.pool.connection() as connection:
        return requests.due_destinations(connection, RING_AGAIN_S)


# ------------------------------------------------------------------ what the archive says


def note_answer(connection: Connection, facts: Mapping[str, Any]) -> None:
    """`answer.json`: a receiver was told. Raises ValueError, KeyError, TypeError when it is not such a note."""
    report = CommitmentReport(
        str(facts["transaction_uid"]),
        tuple(Reference(str(sop_class), str(uid)) for sop_class, uid in facts["committed"]),
        tuple((Reference(str(sop_class), str(uid)), int(reason)) for sop_class, uid, reason in facts["failed"]),
    )
    note_report(connection, report, f"by {facts['calling_ae_title']} on a new association")


def note_report(connection: Connection, report: CommitmentReport, how: str) -> None:
    """Keep a report and do what follows from it. Telling it twice changes nothing.

    A report on a transaction that timed out is as good as any: the archive keeps what it says it keeps. But what it
    does not keep is left to the transaction that was opened since.
    """
    transaction = requests.by_transaction(connection, report.transaction_uid)
    if transaction is None:
        log.warning("report on a transaction that nobody knows", transaction=report.transaction_uid)
        return
    asked = requests.objects(connection, transaction.id)
    failed = {reference.sop_instance_uid: reason for reference, reason in report.failed}
    committed = {reference.sop_instance_uid for reference in report.committed} - failed.keys()
    reasons = {
        one.delivery_id: _COMMITTED if one.sop_instance_uid in committed else failed.get(one.sop_instance_uid)
        for one in asked
    }
    new = [one for one in asked if reasons[one.delivery_id] == _COMMITTED and one.state != "committed"]
    bad = [one for one in asked if reasons[one.delivery_id] != _COMMITTED and one.is_latest and one.state == "asked"]
    is_whole = all(reason == _COMMITTED for reason in reasons.values())
    known = {delivery_id: reason for delivery_id, reason in reasons.items() if reason is not None}
    requests.answered(connection, transaction.id, "committed" if is_whole else "failed", known)
    for study in sorted({one.study_instance_uid for one in new}):
        count = sum(one.study_instance_uid == study for one in new)
        total = sum(one.study_instance_uid == study for one in asked)
        text = f"{transaction.destination} has committed {count} of {total} objects ({how})"
        details = {"transaction_uid": report.transaction_uid}
        storage.events.add(connection, study, "commitment", text, details)
    for one in bad:
        _turn(connection, one, transaction.destination, reasons[one.delivery_id], report.transaction_uid)
    log.info("storage commitment answered", transaction=report.transaction_uid, destination=transaction.destination,
             committed=len(new), not_committed=len(bad), how=how)  # fmt: skip


def _turn(
    connection: Connection, one: requests.Asked, destination: str, failure_reason: int | None, transaction_uid: str
) -> None:
    """What is done about an object that the archive does not keep."""
    words = "nothing said about it" if failure_reason is None else describe(failure_reason)
    state: _Turn
    if failure_reason == _NO_SUCH_OBJECT_INSTANCE and one.sent_again < SENT_AGAIN_AT_MOST:
        state, what = "sent_again", "it is sent again"
    elif (failure_reason is None or failure_reason in _PASSING) and one.requests < REQUESTS_AT_MOST:
        state, what = "wanted", f"it is asked again in {ASKED_AGAIN_AFTER_S:.0f} s"
    else:
        state, what = "failed", "given up"
    again_at = datetime.now(UTC) + timedelta(seconds=ASKED_AGAIN_AFTER_S)
    reason = f"{destination} does not keep it: {words}"
    requests.turn(connection, one.delivery_id, state, failure_reason or PROCESSING_FAILURE, reason, again_at)
    text = f"{destination} does not keep {one.sop_instance_uid}: {words}; {what}"
    details = {"transaction_uid": transaction_uid, "sop_instance_uid": one.sop_instance_uid}
    storage.events.add(connection, one.study_instance_uid, "commitment", text, details)


def _tell(connection: Connection, delivery_ids: Sequence[int], text: str, transaction_uid: str) -> None:
    for study in requests.studies_of(connection, delivery_ids):
        storage.events.add(connection, study, "commitment", text, {"transaction_uid": transaction_uid})
