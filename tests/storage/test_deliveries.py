"""Deliveries and destinations: leases, order, the breaker that all workers share, and what goes instead."""

from datetime import UTC, datetime, timedelta

import pytest
from storage_rows import announced, at_once, deliver, job, result

from storage import configurations, deliveries, destinations, jobs
from storage.database import Connection, connect
from storage.deliveries import Order
from storage.records import Delivery


def sops(batch: list[Delivery]) -> list[str]:
    return [delivery.sop_instance_uid for delivery in batch]


def claimed(connection: Connection, limit: int = 10, associations: int = 9) -> list[Delivery]:
    return deliveries.claim_batch(connection, "pacs", limit, 60, associations)


def soon(connection: Connection) -> None:
    """Time passes: every pause is over."""
    connection.execute("UPDATE delivery SET not_before = now() - interval '1 s'")
    connection.execute("UPDATE destination SET probe_at = now() - interval '1 s' WHERE breaker <> 'closed'")


def away(connection: Connection) -> destinations.Setback:
    return destinations.failed(connection, "pacs", "no route to host", lambda failures: 10.0 * failures)


def state(connection: Connection) -> destinations.DestinationState:
    (found,) = destinations.states(connection)
    return found


def test_deliveries_from_creation_to_arrival(connection: Connection) -> None:
    made = job(connection)
    both = [result(connection, made, sop) for sop in ("1.9.1", "1.9.2")]
    assert deliver(connection, both, "pacs", "archive") == 4
    assert deliver(connection, both, "pacs") == 0
    assert announced(connection)[1:] == [("deliver", "archive"), ("deliver", "pacs")]
    batch = claimed(connection)
    assert [(d.sop_instance_uid, d.state, d.attempts, d.kind) for d in batch] == [
        ("1.9.1", "sending", 1, "sr"),
        ("1.9.2", "sending", 1, "sr"),
    ]
    assert claimed(connection) == []
    deliveries.delivered(connection, batch[0].id, 0)
    later = datetime.now(UTC) + timedelta(hours=1)
    deliveries.retry_later(connection, batch[1].id, None, "no route", later)
    deliveries.retry_later(connection, batch[0].id, None, "a slow second sender", later)
    assert claimed(connection) == []
    assert deliveries.unfinished(connection) == 3
    told = {d.id: (d.state, d.status, d.reason) for d in deliveries.for_study(connection, "1.2.30")}
    assert told[batch[0].id] == ("done", 0, "")
    assert told[batch[1].id] == ("waiting", None, "no route")
    deliveries.park(connection, batch[1].id, 0xA900, "does not match")
    assert deliveries.unfinished(connection) == 2
    assert sops(deliveries.listed(connection, ["parked"], 10)) == ["1.9.2"]
    assert deliveries.unpark(connection, "archive") == 0
    assert deliveries.unpark(connection, "pacs") == 1
    assert [d.attempts for d in claimed(connection)] == [1]


def test_what_somebody_waits_for_goes_first(connection: Connection) -> None:
    """A stat result overtakes other studies', never what precedes it in its own."""
    for number in range(3):
        made = job(connection, study=f"1.2.{40 + number}")
        deliver(connection, [result(connection, made, f"1.9.{number}")], "pacs")
    assert not deliveries.urgent(connection, "pacs")
    seg = result(connection, job(connection, study="1.2.50"), "1.9.10", kind="seg", place=0)
    stat = jobs.request(connection, "1.2.50", "mre_qc", "f", "r", {}, ["pacs"], "stat")
    assert stat is not None
    deliver(connection, [seg, result(connection, stat, "1.9.11")], "pacs")
    assert deliveries.urgent(connection, "pacs")
    assert not deliveries.urgent(connection, "archive")
    batch = claimed(connection, 3)
    assert sops(batch) == ["1.9.10", "1.9.11", "1.9.0"]
    assert not deliveries.urgent(connection, "pacs")
    deliveries.give_back(connection, [batch[1].id])
    assert not deliveries.urgent(connection, "pacs")  # its study's SEG is still on the way
    deliveries.delivered(connection, batch[0].id, 0)
    assert deliveries.urgent(connection, "pacs")


def test_what_was_not_tried_does_not_count(connection: Connection) -> None:
    deliver(connection, [result(connection, job(connection))], "pacs")
    for _ in range(3):
        (one,) = claimed(connection)
        assert one.attempts == 1
        deliveries.give_back(connection, [one.id], "nobody there")
    (again,) = claimed(connection)
    assert (again.attempts, again.reason) == (1, "nobody there")


def test_a_sender_that_falls_silent_loses_its_deliveries(fresh_database_url, eventually) -> None:
    with connect(fresh_database_url) as connection:
        deliver(connection, [result(connection, job(connection))], "pacs")
        (sending,) = deliveries.claim_batch(connection, "pacs", 10, 0.2)
        deliveries.extend(connection, [sending.id], 0.1)

    def due() -> list[str]:
        with connect(fresh_database_url) as connection:
            return deliveries.due_destinations(connection)

    eventually(lambda: due() == ["pacs"], "the lease ran out")
    assert due() == []
    with connect(fresh_database_url) as connection:
        assert [d.attempts for d in deliveries.claim_batch(connection, "pacs", 10, 60)] == [2]


@pytest.mark.parametrize("server", ["database_server", "oldest_database_server"])
@pytest.mark.parametrize("associations", [1, 3, 8])
def test_eight_senders_share_a_queue_without_doubles(server, associations: int, request) -> None:
    url = request.getfixturevalue(server).create()
    with connect(url) as connection:
        for number in range(24):
            made = job(connection, study=f"1.2.{number}")
            deliver(connection, [result(connection, made, f"1.9.{number}")], "pacs")

    def claim(_: int) -> list[int]:
        with connect(url) as connection:
            return [delivery.id for delivery in claimed(connection, 3, associations)]

    batches = [batch for batch in at_once(8, claim) if batch]
    assert [len(batch) for batch in batches] == [3] * associations
    assert len({number for batch in batches for number in batch}) == 3 * associations


def test_within_a_study_nothing_overtakes(connection: Connection) -> None:
    made = job(connection)
    deliver(connection, [result(connection, made, "sr")], "pacs")
    deliver(connection, [result(connection, made, "seg", kind="seg", place=0)], "pacs")  # ordered later, goes first
    jobs.claim(connection, made.id, "w", 60)
    later = job(connection, "f2")
    deliver(connection, [result(connection, later, "seg 2", kind="seg", place=0)], "pacs")
    other = job(connection, study="1.2.31")
    deliver(connection, [result(connection, other, "other")], "pacs")
    first = claimed(connection, 1)
    assert sops(first) == ["seg"]
    assert sops(claimed(connection)) == ["other"]  # the rest of the first study waits for its SEG
    deliveries.retry_later(connection, first[0].id, 0xA700, "busy", datetime.now(UTC) + timedelta(hours=1))
    assert claimed(connection) == []
    soon(connection)
    again = claimed(connection)
    assert sops(again) == ["seg", "sr", "seg 2"]
    for delivery in again:
        deliveries.give_back(connection, [delivery.id])
    deliveries.park(connection, again[0].id, 0xC000, "no")
    assert sops(claimed(connection)) == ["sr", "seg 2"]


def test_one_that_breaks_every_association_does_not_stand_before_all_others(connection: Connection) -> None:
    for number in range(3):
        deliver(connection, [result(connection, job(connection, study=f"1.2.{number}"), f"1.9.{number}")], "pacs")
    (poison,) = claimed(connection, 1)
    deliveries.retry_later(connection, poison.id, None, "aborted", datetime.now(UTC))
    soon(connection)
    assert sops(claimed(connection)) == ["1.9.1", "1.9.2", "1.9.0"]


def test_a_destination_that_is_away_is_tried_with_one_delivery_at_a_time(connection: Connection) -> None:
    for number in range(3):
        deliver(connection, [result(connection, job(connection, study=f"1.2.{number}"), f"1.9.{number}")], "pacs")
    batch = claimed(connection)
    deliveries.give_back(connection, [delivery.id for delivery in batch], "no route to host")
    assert away(connection) == destinations.Setback(10.0, is_new=True)
    assert claimed(connection) == []
    assert deliveries.due_destinations(connection, -1) == []
    for failures in (2, 3):
        soon(connection)
        assert deliveries.due_destinations(connection, -1) == ["pacs"]
        probe = claimed(connection)
        assert sops(probe) == ["1.9.0"]
        assert claimed(connection) == []  # nobody else tries meanwhile
        assert state(connection).breaker == "probing"
        deliveries.give_back(connection, [probe[0].id], "no route to host")
        assert away(connection) == destinations.Setback(10.0 * failures, is_new=False)
    soon(connection)
    (probe,) = claimed(connection)
    deliveries.delivered(connection, probe.id, 0)
    assert destinations.answered(connection, "pacs")
    assert not destinations.answered(connection, "pacs")
    assert (state(connection).breaker, state(connection).failures, state(connection).reason) == ("closed", 0, "")
    assert len(claimed(connection)) == 2


def test_one_who_tries_and_dies_gives_its_turn_back(connection: Connection) -> None:
    deliver(connection, [result(connection, job(connection))], "pacs")
    away(connection)
    soon(connection)
    assert len(deliveries.claim_batch(connection, "pacs", 10, 0.0)) == 1
    assert len(deliveries.claim_batch(connection, "pacs", 10, 60)) == 1
    destinations.extend_probe(connection, "pacs", 60)
    assert claimed(connection) == []


def test_eight_workers_at_a_destination_that_may_be_back(fresh_database_url) -> None:
    with connect(fresh_database_url) as connection:
        for number in range(8):
            deliver(connection, [result(connection, job(connection, study=f"1.2.{number}"), f"1.9.{number}")], "pacs")
        away(connection)
        soon(connection)

    def claim(_: int) -> int:
        with connect(fresh_database_url) as connection:
            return len(claimed(connection))

    assert sorted(at_once(8, claim)) == [0] * 7 + [1]


def test_another_chance_leaves_the_breaker_closed(connection: Connection) -> None:
    assert destinations.failed(connection, "pacs", "aborted", lambda failures: None if failures < 2 else 5.0) == (
        destinations.Setback(None, is_new=True)
    )
    assert state(connection).breaker == "closed"
    assert destinations.failed(connection, "pacs", "aborted", lambda failures: None if failures < 2 else 5.0) == (
        destinations.Setback(5.0, is_new=True)
    )
    assert (state(connection).breaker, state(connection).failures) == ("open", 2)


def test_outside_of_its_hours_nothing_goes_until_the_rules_change(connection: Connection) -> None:
    deliver(connection, [result(connection, job(connection))], "pacs")
    until = datetime.now(UTC) + timedelta(hours=5)
    destinations.close_until(connection, "pacs", until)
    assert claimed(connection) == []
    assert deliveries.due_destinations(connection, -1) == []
    assert state(connection).closed_until == until
    configurations.add(connection, "", "test")
    assert state(connection).closed_until is None
    assert len(claimed(connection)) == 1


def test_what_is_refused_is_remembered_for_a_while(connection: Connection) -> None:
    destinations.refuse(connection, "pacs", "1.2.3", "not supported")
    destinations.refuse(connection, "pacs", "1.2.3", "not supported at all")
    destinations.refuse(connection, "back: CT1 at 10.1.2.3", "1.2.3", "no")
    (seen,) = destinations.refusals(connection, "pacs", 60)
    assert (seen.sop_class_uid, seen.reason) == ("1.2.3", "not supported at all")
    assert len(destinations.refusals(connection, None, 60)) == 2
    assert destinations.refusals(connection, "pacs", -1) == []
    assert destinations.forget(connection, "back") == 1
    configurations.add(connection, "", "test")
    assert destinations.refusals(connection, None, 60) == []


def test_a_spare_waits_for_its_call(connection: Connection) -> None:
    made = job(connection)
    seg = result(connection, made, "seg", kind="seg", place=0)
    page = result(connection, made, "sc", kind="sc", place=4)
    report = result(connection, made, "sr")
    orders = [Order(seg.id, "pacs"), Order(page.id, "pacs", "spare"), Order(report.id, "pacs")]
    assert deliveries.create(connection, orders) == 3
    assert len(deliveries.for_study(connection, "1.2.30")) == 2
    assert deliveries.counts_by_destination(connection) == {("pacs", "waiting"): 2}
    first, second = claimed(connection)
    assert sops([first, second]) == ["seg", "sr"]
    everything = deliveries.of_job(connection, made.id, "pacs")
    assert [(d.kind, d.state) for d in everything] == [("seg", "sending"), ("sc", "spare"), ("sr", "sending")]
    deliveries.replace(connection, first.id, [everything[1].id], None, "not supported; sc goes instead")
    deliveries.give_back(connection, [second.id])
    assert sops(claimed(connection)) == ["sc", "sr"]
    assert deliveries.counts_by_destination(connection) == {("pacs", "sending"): 2, ("pacs", "replaced"): 1}


def test_replies_are_known_by_their_destination(connection: Connection) -> None:
    made = job(connection)
    one, two = "back: CT1 at 10.1.2.3", "back: CT2 at 10.1.2.4"
    reports = [result(connection, made)]
    assert deliver(connection, reports, one, two, "backup") == 3
    assert deliveries.counts_by_destination(connection) == {("back", "waiting"): 2, ("backup", "waiting"): 1}
    for name in (one, two, "backup"):
        (delivery,) = deliveries.claim_batch(connection, name, 5, 60)
        deliveries.park(connection, delivery.id, None, "no")
    assert deliveries.unpark(connection, "back") == 2
    assert deliveries.unpark(connection, None) == 1


def test_destinations_are_rung_when_due_and_not_all_the_time(fresh_database_url) -> None:
    with connect(fresh_database_url) as connection:
        deliver(connection, [result(connection, job(connection))], "pacs")
    with connect(fresh_database_url) as connection:
        assert deliveries.due_destinations(connection) == []  # rung by its creation
        (sending,) = claimed(connection)
        deliveries.retry_later(connection, sending.id, None, "", datetime.now(UTC))
    with connect(fresh_database_url) as connection:
        assert deliveries.due_destinations(connection) == ["pacs"]  # became due since
    with connect(fresh_database_url) as connection:
        assert deliveries.due_destinations(connection) == []
        assert deliveries.due_destinations(connection, ring_again_s=-1) == ["pacs"]
