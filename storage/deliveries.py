"""Deliveries: each result on its way to each destination, with what the destination answered."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from storage import destinations, jobs, outbox
from storage.database import Connection, every, load_queries, text
from storage.destinations import Entrance
from storage.records import Delivery

QUERIES = load_queries("deliveries")

#: The Celery queue that workers with network access to the destinations listen on.
QUEUE = "delivery"
#: Queues of jobs whose results go before all others, since somebody waits for them.
URGENT_QUEUES = (jobs.STAT,)


@dataclass(frozen=True)
class Order:
    """A result that is to go to a destination."""

    result_id: int
    destination: str
    state: str = "waiting"  #: or "spare": kept in case; or "parked", with the reason
    reason: str = ""


def create(connection: Connection, orders: Sequence[Order], queue: str = QUEUE) -> int:
    """Deliver, each result to each destination once; with one message per destination (outbox "deliver", its name).

    Returns how many deliveries are new.
    """
    values = {
        "result_ids": [order.result_id for order in orders],
        "destinations": [order.destination for order in orders],
        "states": [order.state for order in orders],
        "reasons": [text(order.reason) for order in orders],
    }
    created = connection.execute(QUERIES["create"], values).fetchall()
    for destination in sorted({destination for destination, state in created if state == "waiting"}):
        outbox.add(connection, queue, "deliver", destination)
    return len(created)


def claim_batch(
    connection: Connection, destination: str, limit: int, lease_s: float, max_associations: int = 1
) -> list[Delivery]:
    """Take up to `limit` deliveries that may be sent to a destination now, in this order, and count the attempt.

    Due: waiting and its time has come, or being sent by somebody whose lease of lease_s seconds ran out. Nothing comes
    before what precedes it in its study (earlier jobs, then the order of their results) is done, parked or replaced.
    Studies with results of urgent queues come first.
    Nothing at all while the destination is away or closed, or when max_associations batches are on their way; a single
    one, as a probe, when it is time to try whether it is back. Two callers at one time never get the same one. Commit
    before sending.
    """
    entrance = destinations.enter(connection, destination)
    if entrance is Entrance.NONE:
        return []
    row = connection.execute(QUERIES["associations"], {"destination": destination}).fetchone()
    if row is None or row[0] >= max_associations:
        return []
    values = {
        "destination": destination,
        "limit": 1 if entrance is Entrance.PROBE else limit,
        "lease_s": float(lease_s),
        "batch": uuid.uuid4(),
        "urgent": list(URGENT_QUEUES),
    }
    batch = every(connection, Delivery, QUERIES["claim_batch"], values)
    if batch and entrance is Entrance.PROBE:
        destinations.begin_probe(connection, destination, lease_s)
    return batch


def urgent(connection: Connection, destination: str) -> bool:
    """Whether something waits for a destination, and may be sent to it now, that `claim_batch` would give first since
    somebody waits for it."""
    values = {"destination": destination, "urgent": list(URGENT_QUEUES)}
    row = connection.execute(QUERIES["urgent"], values).fetchone()
    return bool(row and row[0])


def extend(connection: Connection, delivery_ids: Sequence[int], lease_s: float) -> None:
    """Move the leases on to lease_s seconds from now, during a batch that takes long."""
    connection.execute(QUERIES["extend"], {"ids": list(delivery_ids), "lease_s": float(lease_s)})


def delivered(connection: Connection, delivery_id: int, status: int, reason: str = "") -> None:
    """The destination has it. status : DIMSE status (0000H, or a warning Bxxx), or the HTTP status of STOW-RS."""
    connection.execute(QUERIES["delivered"], {"id": delivery_id, "status": status, "reason": text(reason)})


def retry_later(
    connection: Connection, delivery_id: int, status: int | None, reason: str, not_before: datetime
) -> None:
    """It did not arrive; try again from not_before on. status : None when there was no answer."""
    values = {"id": delivery_id, "status": status, "reason": text(reason), "not_before": not_before}
    connection.execute(QUERIES["retry_later"], values)


def park(connection: Connection, delivery_id: int, status: int | None, reason: str) -> None:
    """It does not arrive and is not tried again until the administrator says so."""
    connection.execute(QUERIES["park"], {"id": delivery_id, "status": status, "reason": text(reason)})


def give_back(connection: Connection, delivery_ids: Sequence[int], reason: str = "") -> None:
    """They were not tried after all: as if they had not been taken. reason : why, empty leaves what is there."""
    connection.execute(QUERIES["give_back"], {"ids": list(delivery_ids), "reason": text(reason)})


def replace(
    connection: Connection, delivery_id: int, spare_ids: Sequence[int], status: int | None, reason: str
) -> None:
    """Others go instead. spare_ids : those of them that were kept in case."""
    connection.execute(QUERIES["replace"], {"id": delivery_id, "status": status, "reason": text(reason)})
    connection.execute(QUERIES["use_spares"], {"ids": list(spare_ids)})


def of_job(connection: Connection, job_id: int, destination: str) -> list[Delivery]:
    """Everything of a job for one destination, spares too, in the order in which it is sent."""
    return every(connection, Delivery, QUERIES["of_job"], {"job_id": job_id, "destination": destination})


def unpark(connection: Connection, destination: str | None) -> int:
    """Try what is parked again, with fresh attempts; returns how many.

    destination : its name (replies by it: all), or None for all.
    """
    return connection.execute(QUERIES["unpark"], {"destination": destination}).rowcount


def due_destinations(connection: Connection, ring_again_s: float = 10.0) -> list[str]:
    """Destinations for which the scheduler must ring now.

    They are neither away nor closed, something is due there, and nobody was told since it became due, or not within
    ring_again_s seconds. Being returned counts as being rung.
    """
    rows = connection.execute(QUERIES["due_destinations"], {"ring_again_s": float(ring_again_s)}).fetchall()
    return [row[0] for row in rows]


def for_study(connection: Connection, study_instance_uid: str) -> list[Delivery]:
    """The deliveries of a study's results, in the order they were created; spares are left out."""
    return every(connection, Delivery, QUERIES["for_study"], {"study_instance_uid": study_instance_uid})


def listed(connection: Connection, states: Sequence[str], limit: int) -> list[Delivery]:
    """The newest `limit` deliveries in one of these states."""
    return every(connection, Delivery, QUERIES["listed"], {"states": list(states), "limit": limit})


def unfinished(connection: Connection) -> int:
    """How many are waiting or being sent; parked ones are not counted."""
    row = connection.execute(QUERIES["unfinished"]).fetchone()
    return int(row[0]) if row else 0


def counts_by_destination(connection: Connection) -> dict[tuple[str, str], int]:
    """How many deliveries there are by (destination, state); replies by one destination together, spares not."""
    rows = connection.execute(QUERIES["counts_by_destination"]).fetchall()
    return {(destination, state): count for destination, state, count in rows}
