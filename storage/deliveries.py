"""Deliveries: each result on its way to each destination, with what the destination answered."""

from collections.abc import Sequence
from datetime import datetime

from storage import outbox
from storage.database import Connection, every, load_queries, text
from storage.records import Delivery

QUERIES = load_queries("deliveries")

#: The Celery queue that workers with network access to the destinations listen on.
QUEUE = "delivery"


def create(connection: Connection, result_ids: Sequence[int], destinations: Sequence[str], queue: str = QUEUE) -> int:
    """Every result to every destination, once; with one message per destination (outbox "deliver", its name).

    Returns how many deliveries are new.
    """
    values = {"result_ids": list(result_ids), "destinations": list(destinations)}
    created = connection.execute(QUERIES["create"], values).fetchall()
    for destination in sorted({row[0] for row in created}):
        outbox.add(connection, queue, "deliver", destination)
    return len(created)


def claim_batch(connection: Connection, destination: str, limit: int, lease_s: float) -> list[Delivery]:
    """Take up to `limit` deliveries that are due for a destination, oldest first, and count the attempt.

    Due: waiting and its time has come, or being sent by somebody whose lease of lease_s seconds ran out. Two callers
    at one time never get the same one. Commit before sending.
    """
    values = {"destination": destination, "limit": limit, "lease_s": float(lease_s)}
    return every(connection, Delivery, QUERIES["claim_batch"], values)


def extend(connection: Connection, delivery_ids: Sequence[int], lease_s: float) -> None:
    """Move the leases on to lease_s seconds from now, during a batch that takes long."""
    connection.execute(QUERIES["extend"], {"ids": list(delivery_ids), "lease_s": float(lease_s)})


def delivered(connection: Connection, delivery_id: int, status: int) -> None:
    """The destination has it. status : DIMSE status (0000H, or a warning Bxxx), or the HTTP status of STOW-RS."""
    connection.execute(QUERIES["delivered"], {"id": delivery_id, "status": status})


def retry_later(
    connection: Connection, delivery_id: int, status: int | None, reason: str, not_before: datetime
) -> None:
    """It did not arrive; try again from not_before on. status : None when there was no answer."""
    values = {"id": delivery_id, "status": status, "reason": text(reason), "not_before": not_before}
    connection.execute(QUERIES["retry_later"], values)


def park(connection: Connection, delivery_id: int, status: int | None, reason: str) -> None:
    """It does not arrive and is not tried again until the administrator says so."""
    connection.execute(QUERIES["park"], {"id": delivery_id, "status": status, "reason": text(reason)})


def unpark(connection: Connection, destination: str) -> int:
    """Try everything parked for a destination again, with fresh attempts; returns how many."""
    return connection.execute(QUERIES["unpark"], {"destination": destination}).rowcount


def due_destinations(connection: Connection, ring_again_s: float = 10.0) -> list[str]:
    """Destinations for which the scheduler must ring now.

    Something is due there, and nobody was told since it became due, or not within ring_again_s seconds. Being returned
    counts as being rung.
    """
    rows = connection.execute(QUERIES["due_destinations"], {"ring_again_s": float(ring_again_s)}).fetchall()
    return [row[0] for row in rows]


def for_study(connection: Connection, study_instance_uid: str) -> list[Delivery]:
    """The deliveries of a study's results, in the order they were created."""
    return every(connection, Delivery, QUERIES["for_study"], {"study_instance_uid": study_instance_uid})


def unfinished(connection: Connection) -> int:
    """How many are waiting or being sent; parked ones are not counted."""
    row = connection.execute(QUERIES["unfinished"]).fetchone()
    return int(row[0]) if row else 0


def counts_by_destination(connection: Connection) -> dict[tuple[str, str], int]:
    """How many deliveries there are by (destination, state)."""
    rows = connection.execute(QUERIES["counts_by_destination"]).fetchall()
    return {(destination, state): count for destination, state, count in rows}
