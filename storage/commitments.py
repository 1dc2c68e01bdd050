"""Storage Commitment transactions: what was asked, what was found, whether the answer reached the one who asked.

States: asked (not looked up yet), offered (the association of the request may take the answer), waiting (the answer
goes on a new association), sending, done, parked.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from storage.database import Connection, every, load_queries, one, text
from storage.records import Commitment

QUERIES = load_queries("commitments")


@dataclass(frozen=True)
class Known:
    """What the index knows under one SOP Instance UID; without path: only quarantine has it."""

    sop_instance_uid: str
    sop_class_uid: str | None
    study_instance_uid: str | None
    path: str | None
    size_bytes: int | None
    is_conflict: bool  #: other bytes came under the same UID
    is_quarantined: bool  #: what came last under this UID could not be indexed


@dataclass(frozen=True)
class StudyVerdict:
    """What a transaction says of one study."""

    study_instance_uid: str
    committed: int
    failed: int


@dataclass(frozen=True)
class StudyCommitment:
    """A transaction as one study's story tells it."""

    transaction_uid: str
    calling_ae_title: str
    asked_at: datetime
    state: str
    attempts: int
    reason: str
    answered_at: datetime | None
    committed: int
    failed: int


def asked(
    connection: Connection,
    *,
    transaction_uid: str,
    calling_ae_title: str,
    called_ae_title: str,
    peer_host: str,
    request_id: str,
    receiver: str,
    asked_at: datetime,
    references: Sequence[tuple[str, str]],
) -> None:
    """Remember a request. Telling it twice changes nothing; a later one of the same transaction is answered anew.

    references : (SOP Class UID, SOP Instance UID), in the order asked.
    """
    values = {
        "transaction_uid": transaction_uid,
        "calling_ae_title": text(calling_ae_title),
        "called_ae_title": text(called_ae_title),
        "peer_host": text(peer_host),
        "request_id": request_id,
        "receiver": text(receiver),
        "asked_at": asked_at,
        "sop_class_uids": [sop_class for sop_class, _ in references],
        "sop_instance_uids": [sop_instance for _, sop_instance in references],
    }
    connection.execute(QUERIES["asked"], values)


def unjudged(connection: Connection, limit: int) -> list[Commitment]:
    """Requests whose references were not looked up yet, oldest first."""
    return every(connection, Commitment, QUERIES["unjudged"], {"limit": limit})


def get(connection: Connection, commitment_id: int) -> Commitment | None:
    """One transaction."""
    return one(connection, Commitment, QUERIES["get"], {"id": commitment_id})


def known(connection: Connection, sop_instance_uids: Sequence[str]) -> dict[str, Known]:
    """What is known under these UIDs; those never received are absent."""
    values = {"uids": sorted(set(sop_instance_uids))}
    return {row.sop_instance_uid: row for row in every(connection, Known, QUERIES["known"], values)}


def judge(
    connection: Connection, commitment: Commitment, failure_reasons: Sequence[int], studies: Sequence[StudyVerdict]
) -> str | None:
    """Keep the verdicts, one per reference, 0: committed. Returns the new state, "offered" or "waiting".

    None when there was nothing to judge: the transaction was asked again, or judged by somebody else.
    """
    values = {
        "id": commitment.id,
        "request_id": commitment.request_id,
        "failure_reasons": list(failure_reasons),
    }
    row = connection.execute(QUERIES["judge"], values).fetchone()
    if row is None:
        return None
    connection.execute(QUERIES["forget_studies"], values)
    for study in studies:
        connection.execute(
            QUERIES["add_study"],
            {
                "id": commitment.id,
                "study_instance_uid": study.study_instance_uid,
                "committed": study.committed,
                "failed": study.failed,
            },
        )
    return str(row[0])


def offered(connection: Connection) -> list[Commitment]:
    """Answers that wait to be taken by an open association."""
    return every(connection, Commitment, QUERIES["offered"], {})


def offered_requests(connection: Connection) -> set[str]:
    """The request ids of these."""
    return {row[0] for row in connection.execute(QUERIES["offered_requests"]).fetchall()}


def not_awaited(connection: Connection, request_id: str, reason: str) -> None:
    """The association of this request cannot take the answer any more; it goes on a new one."""
    connection.execute(QUERIES["not_awaited"], {"request_id": request_id, "reason": text(reason)})


def receiver_started(connection: Connection, receiver: str, started_at: datetime) -> list[str]:
    """What this receiver's earlier life was asked goes on new associations; returns the request ids concerned."""
    values = {"receiver": text(receiver), "started_at": started_at}
    return [row[0] for row in connection.execute(QUERIES["receiver_started"], values).fetchall()]


def give_up_offers(connection: Connection, older_than_s: float) -> list[str]:
    """The same for offers asked for so long ago that a living receiver would have spoken; returns the request ids."""
    values = {"older_than_s": float(older_than_s)}
    return [row[0] for row in connection.execute(QUERIES["give_up_offers"], values).fetchall()]


def claim_batch(connection: Connection, calling_ae_title: str, limit: int, lease_s: float) -> list[Commitment]:
    """Take up to `limit` answers that are due for one AE title, oldest first, and count the attempt.

    Two callers at one time never get the same one. Commit before sending.
    """
    values = {"calling_ae_title": calling_ae_title, "limit": limit, "lease_s": float(lease_s)}
    found = every(connection, Commitment, QUERIES["claim_batch"], values)
    return sorted(found, key=lambda commitment: (commitment.asked_at, commitment.id))


def extend(connection: Connection, request_ids: Sequence[str], lease_s: float) -> None:
    """Move the leases on to lease_s seconds from now, during a batch that takes long."""
    connection.execute(QUERIES["extend"], {"request_ids": list(request_ids), "lease_s": float(lease_s)})


def answered(connection: Connection, request_id: str, status: int) -> Commitment | None:
    """The one who asked has the answer. None when that was known, or when the transaction was asked again."""
    return one(connection, Commitment, QUERIES["answered"], {"request_id": request_id, "status": status})


def retry_later(connection: Connection, request_id: str, status: int | None, reason: str, not_before: datetime) -> None:
    """The answer did not arrive; try again from not_before on. status : None when the peer said nothing."""
    values = {"request_id": request_id, "status": status, "reason": text(reason), "not_before": not_before}
    connection.execute(QUERIES["retry_later"], values)


def park(connection: Connection, request_id: str, status: int | None, reason: str) -> None:
    """The answer does not arrive and is not tried again, unless it is asked for again or unparked."""
    connection.execute(QUERIES["park"], {"request_id": request_id, "status": status, "reason": text(reason)})


def unpark(connection: Connection, calling_ae_title: str) -> int:
    """Try everything parked for an AE title again, with fresh attempts; returns how many."""
    return connection.execute(QUERIES["unpark"], {"calling_ae_title": calling_ae_title}).rowcount


def due_senders(connection: Connection, ring_again_s: float) -> list[str]:
    """AE titles for which the scheduler must ring now; being returned counts as being rung."""
    rows = connection.execute(QUERIES["due_senders"], {"ring_again_s": float(ring_again_s)}).fetchall()
    return [row[0] for row in rows]


def studies_of(connection: Connection, commitment_id: int) -> list[StudyVerdict]:
    """What a transaction says of each study; references to what was never received belong to none."""
    return every(connection, StudyVerdict, QUERIES["studies_of"], {"id": commitment_id})


def for_study(connection: Connection, study_instance_uid: str) -> list[StudyCommitment]:
    """The transactions that were about objects of a study, in the order they were asked."""
    return every(connection, StudyCommitment, QUERIES["for_study"], {"study_instance_uid": study_instance_uid})


def counts(connection: Connection) -> dict[str, int]:
    """How many transactions there are in each state."""
    return {row[0]: int(row[1]) for row in connection.execute(QUERIES["counts"]).fetchall()}
