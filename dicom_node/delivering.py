"""What waits for a destination is sent there, and what became of each object is written down."""

from datetime import UTC, datetime, timedelta

import structlog
from psycopg import Connection

import storage.deliveries
import storage.events
from dicom_node.delivery import Fate, Outcome, pause_s, send
from dicom_node.lease import kept
from dicom_node.node import Node
from dicom_node.patience import until_database_answers
from storage.records import Delivery

log = structlog.get_logger()

DELIVERY_LEASE_S = 15.0
DELIVERY_BATCH = 50


def deliver(node: Node, destination_name: str) -> None:
    """Send what waits for one destination, oldest first, over one association per batch."""
    while True:
        with node.pool.connection() as connection:
            batch = storage.deliveries.claim_batch(connection, destination_name, DELIVERY_BATCH, DELIVERY_LEASE_S)
        if not batch:
            return
        destination = node.configuration().destination(destination_name)
        if destination is None:
            for delivery in batch:
                _note(node, delivery, Outcome(Fate.AWAY, None, f"destination {destination_name} is not in the rules"))
            continue
        left = {delivery.id for delivery in batch}

        def renew(left: set[int] = left) -> None:
            with node.pool.connection() as connection:
                storage.deliveries.extend(connection, sorted(left), DELIVERY_LEASE_S)

        def report(delivery: Delivery, outcome: Outcome, left: set[int] = left) -> None:
            until_database_answers(lambda: _note(node, delivery, outcome))
            left.discard(delivery.id)

        with kept(renew, DELIVERY_LEASE_S):
            send(
                destination,
                batch,
                read_path=node.store.path,
                calling_ae_title=node.settings.ae_title,
                report=report,
            )


def _note(node: Node, delivery: Delivery, outcome: Outcome) -> None:
    """Write one object's outcome at once, so that a crash right after it sends nothing twice."""
    with node.pool.connection() as connection:
        if outcome.delivered:
            storage.deliveries.delivered(connection, delivery.id, outcome.status or 0)
            text = f"{delivery.destination} took {delivery.sop_instance_uid}"
        elif delivery.attempts >= node.settings.delivery_attempts:
            storage.deliveries.park(connection, delivery.id, outcome.status, outcome.reason)
            text = f"{delivery.destination}: given up after {delivery.attempts} attempts: {outcome.reason}"
        else:
            pause = timedelta(seconds=pause_s(delivery.attempts, node.settings.delivery_backoff_max_s, delivery.id))
            again_at = datetime.now(UTC) + pause
            storage.deliveries.retry_later(connection, delivery.id, outcome.status, outcome.reason, again_at)
            text = f"{delivery.destination}: {outcome.reason}; next attempt in {pause.total_seconds():.0f} s"
        _tell_once(connection, delivery, text, outcome)
    log.info("delivery", delivery=delivery.id, destination=delivery.destination, fate=outcome.fate.value,
             status=outcome.status, reason=outcome.reason)  # fmt: skip


def _tell_once(connection: Connection, delivery: Delivery, text: str, outcome: Outcome) -> None:
    """An unreachable PACS over a long night is one line in the study's story, not one per attempt."""
    if outcome.delivered or outcome.reason != delivery.reason:
        storage.events.add(connection, delivery.study_instance_uid, "delivery", text, {"status": outcome.status})
