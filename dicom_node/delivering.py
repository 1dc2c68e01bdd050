"""What waits for a destination is sent there, and what became of each object is written down.

PostgreSQL says what may go (storage/deliveries.py): in order within a study, on so many associations at a time, nothing
while the destination is away or closed. So every worker may be rung for every destination at any time.
"""

import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import structlog
from psycopg import Connection

import storage.deliveries
import storage.destinations
import storage.events
from dicom_node import metrics
from dicom_node.addressing import fall_back, refusals
from dicom_node.commitment_requests import want
from dicom_node.delivery import ANSWERS, Fate, Outcome, pause_s, send
from dicom_node.errors import ConfigurationError
from dicom_node.lease import kept
from dicom_node.node import Node
from dicom_node.patience import DATABASE_AWAY, until_database_answers
from dicom_node.routing.destination import Destination
from dicom_node.routing.reply import destination_of
from storage.records import Delivery

log = structlog.get_logger()

LEASE_S = 15.0
BATCH = 50
#: how often a batch on its way looks whether something urgent waits
GIVES_WAY_EVERY_S = 0.3
#: before a destination that does not know us, or has no address, is asked again; `deliveries retry` asks at once
REJECTED_PAUSE_S = 600.0
_NOT_TRIED = frozenset({Fate.AWAY, Fate.REJECTED, Fate.HELD})


def deliver(node: Node, route: str) -> None:
    """Send what may go to one destination, over one association per batch, until there is nothing more.

    route : as deliveries name it (routing/reply.py).
    """
    while True:
        destination, problem = _look_up(node, route)
        with node.pool.connection() as connection:
            if destination is not None and destination.hours is not None:
                opens = destination.hours.opens_at(datetime.now(UTC))
                if opens is not None:
                    storage.destinations.close_until(connection, route, opens)
                    return
            associations = destination.max_associations if destination is not None else 1
            batch = storage.deliveries.claim_batch(connection, route, BATCH, LEASE_S, associations)
        if not batch:
            return
        attempt = _Attempt(node, route, destination, batch)
        with kept(attempt.renew, LEASE_S):
            try:
                if destination is None:
                    raise ConfigurationError(problem)
                send(
                    destination,
                    batch,
                    read_path=node.store.path,
                    calling_ae_title=node.settings.ae_title,
                    report=attempt.report,
                    gives_way=attempt.gives_way,
                )
            except ConfigurationError as error:
                attempt.report_rest(batch, Outcome(Fate.REJECTED, None, str(error)))
            except DATABASE_AWAY:
                raise
            except Exception as error:  # ours; it counts as an attempt, so that it does not go on for ever
                log.exception("delivery broke", destination=route)
                reason = f"internal error: {type(error).__name__}: {error}"
                attempt.report_rest(batch, Outcome(Fate.UNANSWERED, None, reason))
            until_database_answers(attempt.conclude)


def _look_up(node: Node, route: str) -> tuple[Destination | None, str]:
    try:
        return destination_of(node.configuration(), route), ""
    except ConfigurationError as error:
        return None, str(error)


class _Attempt:
    """One batch on its way: what was reported, and what that says of the destination."""

    def __init__(self, node: Node, route: str, destination: Destination | None, batch: Sequence[Delivery]) -> None:
        self._node = node
        self._destination = destination
        self._route = route
        self._left = {delivery.id for delivery in batch}
        self._not_tried: list[tuple[Delivery, Outcome]] = []
        self._fates: dict[Fate, Outcome] = {}  # the last one of each
        self._asked_at = time.monotonic()

    def renew(self) -> None:
        """Keep what is not yet reported, and the turn to try a destination that was away."""
        with self._node.pool.connection() as connection:
            storage.destinations.extend_probe(connection, self._route, LEASE_S)
            storage.deliveries.extend(connection, sorted(self._left), LEASE_S)

    def gives_way(self) -> bool:
        """Whether somebody waits for something else that could go first; asked of the database now and then."""
        if not self._left or time.monotonic() - self._asked_at < GIVES_WAY_EVERY_S:
            return False
        self._asked_at = time.monotonic()
        try:
            with self._node.pool.connection() as connection:
                return storage.deliveries.urgent(connection, self._route)
        except DATABASE_AWAY:
            return False

    def report(self, delivery: Delivery, outcome: Outcome) -> None:
        """Write one object's outcome at once, so that a crash right after it sends nothing twice."""
        self._fates[outcome.fate] = outcome
        if outcome.fate in _NOT_TRIED:
            self._not_tried.append((delivery, outcome))  # told together at the end
            return
        until_database_answers(lambda: self._note(delivery, outcome))
        self._left.discard(delivery.id)
        seconds = None
        if outcome.delivered and delivery.created_at is not None:
            seconds = (datetime.now(UTC) - delivery.created_at).total_seconds()
        metrics.delivered(self._route.partition(":")[0], outcome.fate.value, seconds)
        log.info("delivery", delivery=delivery.id, destination=delivery.destination, fate=outcome.fate.value,
                 status=outcome.status, reason=outcome.reason)  # fmt: skip

    def report_rest(self, batch: Sequence[Delivery], outcome: Outcome) -> None:
        """The same of all that nothing was reported of."""
        told = {delivery.id for delivery, _ in self._not_tried}
        for delivery in batch:
            if delivery.id in self._left - told:
                self.report(delivery, outcome)

    def _note(self, delivery: Delivery, outcome: Outcome) -> None:
        settings = self._node.settings
        status, reason = outcome.status, outcome.reason
        with self._node.pool.connection() as connection:
            if outcome.fate is Fate.DELIVERED:
                storage.deliveries.delivered(connection, delivery.id, status or 0, reason)
                if self._destination is not None:
                    want(connection, delivery.id, self._destination)
                text = f"{self._route} took {delivery.sop_instance_uid}{': ' if reason else ''}{reason}"
            elif outcome.fate is Fate.NOT_TAKEN:
                storage.destinations.refuse(connection, self._route, delivery.sop_class_uid, reason)
                refused = {*refusals(connection, self._route), delivery.sop_class_uid}
                text = f"{self._route}: {reason}: {fall_back(connection, delivery, refused, status, reason)}"
            elif outcome.fate is Fate.REFUSED:
                storage.deliveries.park(connection, delivery.id, status, reason)
                text = f"{self._route} refused {delivery.sop_instance_uid}, parked: {reason}"
            elif delivery.attempts >= settings.delivery_attempts:
                storage.deliveries.park(connection, delivery.id, status, reason)
                text = f"{self._route}: given up after {delivery.attempts} attempts: {reason}"
            else:
                backoff_s = pause_s(delivery.attempts, settings.delivery_backoff_max_s, delivery.id)
                pause = timedelta(seconds=max(backoff_s, outcome.wait_s))
                storage.deliveries.retry_later(connection, delivery.id, status, reason, datetime.now(UTC) + pause)
                text = f"{self._route}: {reason}; next attempt in {pause.total_seconds():.0f} s"
            _tell_once(connection, delivery, text, outcome)

    def conclude(self) -> None:
        """Say what the batch told of the destination, and give back what was not tried."""
        with self._node.pool.connection() as connection:
            verdict = self._judge(connection)
            for reason, deliveries in self._by_reason().items():
                storage.deliveries.give_back(connection, [delivery.id for delivery, _ in deliveries], reason)
                first_of = {delivery.study_instance_uid: (delivery, outcome) for delivery, outcome in deliveries[::-1]}
                for delivery, outcome in first_of.values():
                    if outcome.fate is not Fate.HELD:
                        _tell_once(connection, delivery, f"{self._route}: {reason}{verdict}", outcome)

    def _by_reason(self) -> dict[str, list[tuple[Delivery, Outcome]]]:
        found: dict[str, list[tuple[Delivery, Outcome]]] = {}
        for delivery, outcome in self._not_tried:
            found.setdefault(outcome.reason, []).append((delivery, outcome))
        return found

    def _judge(self, connection: Connection) -> str:
        """Close or open the breaker. One object over which the connection breaks may be the object's fault."""
        if self._fates.keys() & ANSWERS:
            if storage.destinations.answered(connection, self._route):
                storage.events.add(connection, None, "destination", f"{self._route} answers again", {})
                log.info("destination answers again", destination=self._route)
            return ""
        order = (Fate.REJECTED, Fate.AWAY, Fate.UNANSWERED, Fate.BUSY, Fate.HELD)
        fate = next(fate for fate in order if fate in self._fates)
        last = self._fates[fate]

        def pause(failures: int) -> float | None:
            if fate is Fate.REJECTED:
                return REJECTED_PAUSE_S
            if fate is not Fate.AWAY and failures == 1:
                return None
            return max(pause_s(failures, self._node.settings.delivery_backoff_max_s), last.wait_s)

        setback = storage.destinations.failed(connection, self._route, last.reason, pause)
        if setback.pause_s is None:
            return ""
        if setback.is_new:
            text = f"{self._route} is away: {last.reason}"
            storage.events.add(connection, None, "destination", text, {"destination": self._route})
        log.warning(
            "destination is away", destination=self._route, reason=last.reason, pause_s=round(setback.pause_s, 1)
        )
        return f"; tried again in {max(1, round(setback.pause_s))} s"


def _tell_once(connection: Connection, delivery: Delivery, text: str, outcome: Outcome) -> None:
    """An unreachable PACS over a long night is one line in the study's story, not one per attempt."""
    if outcome.delivered or outcome.reason != delivery.reason:
        storage.events.add(connection, delivery.study_instance_uid, "delivery", text, {"status": outcome.status})
