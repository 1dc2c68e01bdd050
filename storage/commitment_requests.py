"""Storage Commitment that we ask archives for: transactions, what they are about, and what was answered.

A delivery that is to be committed is wanted, asked, committed or failed, or sent_again after the archive said that it
does not have it. A transaction is asking (somebody holds it), waiting (did not reach the archive), requested, and then
committed, failed or timed_out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from storage.database import Connection, every, load_queries, one, text
from storage.records import CommitmentRequest

QUERIES = load_queries("commitment_requests")


@dataclass(frozen=True)
class Asked:
    """One object of a transaction."""

    delivery_id: int
    sop_instance_uid: str
    study_instance_uid: str
    state: str  #: of the delivery's commitment
    is_latest: bool  #: no later transaction is about it
    requests: int  #: transactions about it so far
    sent_again: int  #: how often it was sent again because the archive did not have it


@dataclass(frozen=True)
class Transaction:
    """The transaction of a report."""

    id: int
    destination: str
    state: str


@dataclass(frozen=True)
class DeliveryCommitment:
    """Where one delivery stands, as its study's story tells it."""

    delivery_id: int
    state: str
    requests: int
    sent_again: int
    failure_reason: int | None
    reason: str
    committed_at: datetime | None
    transaction_uid: str | None
    requested_at: datetime | None


@dataclass(frozen=True)
class Progress:
    """How far the results of one study are at one destination; numbers of objects."""

    study_instance_uid: str
    destination: str
    results: int
    delivered: int
    parked: int
    to_commit: int  #: delivered at least once to a destination that commits
    committed: int
    not_committed: int  #: the archive said no, or nothing at all


def want(connection: Connection, delivery_id: int, after_s: float) -> None:
    """A delivery arrived: its archive is to be asked about it, in after_s seconds. In the transaction that says so."""
    connection.execute(QUERIES["want"], {"delivery_id": delivery_id, "after_s": float(after_s)})


def claim(
    connection: Connection, destination: str, transaction_uid: str, limit: int, lease_s: float, together_s: float = 0.0
) -> list[CommitmentRequest]:
    """Take what is to be asked of an archive now: transactions that did not reach it, and a new one.

    transaction_uid : of the new one, never used before. limit : transactions, and objects of the new one, at most.
    together_s : what is due so soon goes with what is due now.
    Two callers at one time never get the same. Commit before asking: an answer may come at once.
    """
    values = {
        "destination": destination,
        "transaction_uid": transaction_uid,
        "limit": limit,
        "lease_s": float(lease_s),
        "together_s": float(together_s),
    }
    ids = [row[0] for row in connection.execute(QUERIES["take_waiting"], values).fetchall()]
    delivery_ids = [row[0] for row in connection.execute(QUERIES["wanted"], values).fetchall()]
    if delivery_ids:
        row = connection.execute(QUERIES["open"], values).fetchone()
        assert row is not None  # noqa: S101 - INSERT ... RETURNING
        about = {"request_id": row[0], "delivery_ids": delivery_ids}
        connection.execute(QUERIES["include"], about)
        connection.execute(QUERIES["mark_asked"], about)
        ids.append(row[0])
    return every(connection, CommitmentRequest, QUERIES["asking"], {"ids": ids})


def extend(connection: Connection, request_ids: Sequence[int], lease_s: float) -> None:
    """Move the leases on to lease_s seconds from now."""
    connection.execute(QUERIES["extend"], {"ids": list(request_ids), "lease_s": float(lease_s)})


def requested(connection: Connection, request_id: int, status: int, within_s: float) -> None:
    """The archive took the request; it is to report within so many seconds."""
    connection.execute(QUERIES["requested"], {"id": request_id, "status": status, "within_s": float(within_s)})


def ask_later(connection: Connection, request_id: int, status: int | None, reason: str, not_before: datetime) -> None:
    """The archive has not taken the request and knows nothing of the transaction: the same one from a time on."""
    values = {"id": request_id, "status": status, "reason": text(reason), "not_before": not_before}
    connection.execute(QUERIES["ask_later"], values)


def refused(connection: Connection, request_id: int, status: int | None, reason: str) -> list[int]:
    """The archive will never take the request; returns the deliveries that stay without commitment."""
    values = {"id": request_id, "state": "failed", "status": status, "reason": text(reason)}
    if connection.execute(QUERIES["close"], values).fetchone() is None:
        return []
    return [row[0] for row in connection.execute(QUERIES["fail"], values).fetchall()]


def timed_out(
    connection: Connection, request_id: int, reason: str, not_before: datetime, max_requests: int
) -> dict[int, str]:
    """No answer: ask again in a new transaction from a time on; returns the new state of each delivery concerned.

    max_requests : transactions about one object after which it is failed.
    """
    values = {"id": request_id, "state": "timed_out", "status": None, "reason": text(reason)}
    if connection.execute(QUERIES["close"], values).fetchone() is None:
        return {}
    again = {**values, "not_before": not_before, "max_requests": max_requests}
    return {row[0]: row[1] for row in connection.execute(QUERIES["want_again"], again).fetchall()}


def overdue(connection: Connection) -> list[tuple[int, str]]:
    """(id, state) of transactions whose archive said nothing in time, and of those whose worker fell silent."""
    return [(row[0], row[1]) for row in connection.execute(QUERIES["overdue"]).fetchall()]


def by_transaction(connection: Connection, transaction_uid: str) -> Transaction | None:
    """The transaction of a report, locked until the end of the database's; None: never asked."""
    return one(connection, Transaction, QUERIES["by_transaction"], {"transaction_uid": transaction_uid})


def objects(connection: Connection, request_id: int) -> list[Asked]:
    """What a transaction is about, locked."""
    return every(connection, Asked, QUERIES["objects"], {"id": request_id})


def answered(
    connection: Connection, request_id: int, state: Literal["committed", "failed"], reasons: Mapping[int, int]
) -> None:
    """Keep what the archive said: delivery -> 0 (it is safe there, for good) or Failure Reason."""
    for delivery_id, failure_reason in reasons.items():
        values = {"id": request_id, "delivery_id": delivery_id, "failure_reason": failure_reason}
        connection.execute(QUERIES["note_reason"], values)
    committed = [delivery_id for delivery_id, failure_reason in reasons.items() if failure_reason == 0]
    connection.execute(QUERIES["commit"], {"delivery_ids": committed})
    connection.execute(QUERIES["answered"], {"id": request_id, "state": state})


def turn(
    connection: Connection,
    delivery_id: int,
    state: Literal["wanted", "sent_again", "failed"],
    failure_reason: int,
    reason: str,
    not_before: datetime,
) -> None:
    """The archive does not keep one object: ask again from a time on, send it again now, or leave it."""
    values = {
        "delivery_id": delivery_id,
        "state": state,
        "failure_reason": failure_reason,
        "reason": text(reason),
        "not_before": not_before,
    }
    connection.execute(QUERIES["turn"], values)
    if state == "sent_again":
        connection.execute(QUERIES["send_again"], values)


def due_destinations(connection: Connection, ring_again_s: float) -> list[str]:
    """Destinations for which the scheduler must ring now; being returned counts as being rung."""
    rows = connection.execute(QUERIES["due_destinations"], {"ring_again_s": float(ring_again_s)}).fetchall()
    return [row[0] for row in rows]


def ask_again(connection: Connection, destination: str | None) -> int:
    """Ask about everything once more that was not committed, with fresh patience; returns how many.

    destination : with the replies by it; None: all.
    """
    return connection.execute(QUERIES["ask_again"], {"destination": destination}).rowcount


def studies_of(connection: Connection, delivery_ids: Sequence[int]) -> list[str]:
    """The studies of some deliveries."""
    rows = connection.execute(QUERIES["studies_of"], {"delivery_ids": list(delivery_ids)}).fetchall()
    return [row[0] for row in rows]


def for_study(connection: Connection, study_instance_uid: str) -> dict[int, DeliveryCommitment]:
    """Delivery -> where it stands, for those of a study that are to be committed."""
    values = {"study_instance_uid": study_instance_uid}
    return {row.delivery_id: row for row in every(connection, DeliveryCommitment, QUERIES["for_study"], values)}


def progress(connection: Connection, study_instance_uids: Sequence[str]) -> list[Progress]:
    """How far the results of these studies are at each destination."""
    return every(connection, Progress, QUERIES["progress"], {"study_instance_uids": list(study_instance_uids)})


def counts(connection: Connection) -> dict[tuple[str, str], int]:
    """How many deliveries that are to be committed there are by (destination, state); replies count together."""
    rows = connection.execute(QUERIES["counts"]).fetchall()
    return {(destination, state): count for destination, state, count in rows}
