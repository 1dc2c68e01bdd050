"""Associations, Instances and studies: what was received, decided by the database."""

from dataclasses import replace
from datetime import timedelta

import psycopg
import pytest
from storage_rows import NOW, association, at_once, instance

from storage import associations, configurations, events, instances, studies
from storage.database import Connection, connect


@pytest.mark.parametrize("server", ["database_server", "oldest_database_server"])
def test_new_same_conflict(server, request):
    server = request.getfixturevalue(server)
    url = server.create()
    with connect(url) as connection:
        associations.opened(connection, association("a1"))
        associations.opened(connection, association("a2"))
        first = instance(association_id="a1")
        assert instances.add(connection, first, {"00080060": {"Value": ["CT"]}}, "liver").outcome == "new"
        study = studies.get(connection, "1.2.30")
        assert study is not None
        again = replace(first, association_id="a2", received_at=NOW + timedelta(minutes=5))
        assert instances.add(connection, again).outcome == "same"
        assert studies.get(connection, "1.2.30") == study  # neither its time nor its wake-up moved
        assert [a.association_id for a in associations.for_study(connection, "1.2.30")] == ["a1", "a2"]
        other = replace(first, sha256="f" * 64)
        assert instances.add(connection, other).outcome == "conflict"
        assert instances.add(connection, other).outcome == "same"
        kept = instances.by_sop_uid(connection, first.sop_instance_uid)
        assert [(i.sha256, i.is_conflict) for i in kept] == [(first.sha256, False), ("f" * 64, True)]
        assert instances.count(connection) == 2
        assert instances.sop_uids(connection, "1.2.30") == {first.sop_instance_uid}
        assert kept[0] == first


@pytest.mark.parametrize("server", ["database_server", "oldest_database_server"])
def test_many_at_once_end_as_one_by_one(server, request):
    server = request.getfixturevalue(server)
    given = [
        instances.Arrival(instance("1", association_id="a1", received_at=NOW + timedelta(minutes=2))),
        instances.Arrival(instance("2", is_ours=True), {"00080060": {"Value": ["MR"]}}, "liver\x00"),
        instances.Arrival(instance("1", sha256="f" * 64)),  # a conflict within the batch
        instances.Arrival(instance("3", series_instance_uid="1.2.21", attributes={"X": float("nan")}), {}, "later"),
        instances.Arrival(instance("1", association_id="a2")),  # the same
        instances.Arrival(instance("4", study_instance_uid="1.2.31", is_ours=True, association_id="a2")),
        instances.Arrival(instance("0"), {"00080060": {"Value": ["CT"]}}),
    ]
    ends = []
    for all_at_once in (True, False):
        with connect(server.create()) as connection:
            for name in ("a1", "a2"):
                associations.opened(connection, association(name))
            instances.add(connection, instance("0", sha256="e" * 64))  # was there before
            if all_at_once:
                added = instances.add_all(connection, given)
            else:
                added = [instances.add_all(connection, [arrival])[0] for arrival in given]
            outcomes = [a.outcome for a in added]
            assert outcomes == ["new", "new", "conflict", "new", "same", "new", "conflict"]
            by_uid = [
                [replace(s, look_again_at=None), s.look_again_at is None]
                for s in sorted(studies.recent(connection, 9), key=lambda s: s.study_instance_uid)
            ]
            kept = sorted(instances.for_study(connection, "1.2.30"), key=lambda i: (i.sop_instance_uid, i.sha256))
            series = instances.series_for_study(connection, "1.2.30")
            took_part = [a.association_id for a in associations.for_study(connection, "1.2.30")]
            ends.append((by_uid, kept, series, took_part))
            assert instances.add_all(connection, given)[0].outcome == "same"
            assert instances.add_all(connection, []) == []
    assert ends[0] == ends[1]
    assert by_uid[1][1]  # ours only: nobody is woken


def test_eight_senders_of_one_uid_get_one_new(fresh_database_url):
    def add(number: int) -> str:
        with connect(fresh_database_url) as connection:
            made = instance(sha256=f"{number % 4:064x}")
            return instances.add(connection, made, {"a": number}).outcome

    assert sorted(at_once(8, add)) == ["conflict"] * 3 + ["new"] + ["same"] * 4


def test_eight_instances_of_a_new_study_leave_it_due_with_the_last(fresh_database_url):
    def add(number: int) -> str:
        with connect(fresh_database_url) as connection:
            return instances.add(connection, instance(f"1.2.{number}")).outcome

    with connect(fresh_database_url) as connection:
        assert at_once(8, add) == ["new"] * 8
        study = studies.get(connection, "1.2.30")
        assert study is not None
        assert study.instances == 8
        assert study.look_again_at is not None


def test_header_comes_from_the_first_that_brings_one(connection: Connection):
    assert instances.needs_header(connection, "1.2.30", "1.2.20")
    instances.add(connection, instance("1", attributes={}))
    assert instances.needs_header(connection, "1.2.30", "1.2.20")
    instances.add(connection, instance("2", attributes={}), {"00080060": {"vr": "CS", "Value": ["MR"]}})
    instances.add(connection, instance("3", attributes={}), {"00080060": {"vr": "CS", "Value": ["CT"]}})
    assert not instances.needs_header(connection, "1.2.30", "1.2.20")
    instances.set_series_kind(connection, "1.2.30", "1.2.20", "ct arterial", "it says so")
    (series,) = instances.series_for_study(connection, "1.2.30")
    assert (series.modality, series.kind, series.reason) == ("MR", "ct arterial", "it says so")
    assert series.header["00080060"]["Value"] == ["MR"]


def test_odd_header_values_do_not_stop_an_instance(connection: Connection):
    odd = instance(attributes={"Modality": "C\x00T", "X": [float("nan"), "\ud800", {"\x00": 1}]})
    assert instances.add(connection, odd, {"a": "\x00"}, "liver\x00").outcome == "new"
    (kept,) = instances.for_study(connection, "1.2.30")
    assert kept.attributes == {"Modality": "CT", "X": [None, "", {"": 1}]}


def test_our_own_results_wake_nobody(connection: Connection):
    instances.add(connection, instance(is_ours=True))
    study = studies.get(connection, "1.2.30")
    assert study is not None
    assert study.look_again_at is None


def test_an_unknown_association_is_an_error(connection: Connection):
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        instances.add(connection, instance(association_id="nobody"))


def test_a_wake_up_between_reading_and_deciding_is_kept(fresh_database_url):
    with connect(fresh_database_url) as scheduler, connect(fresh_database_url) as receiver:
        instances.add(receiver, instance("1"))
        receiver.commit()
        (study,) = studies.due(scheduler, 10)
        scheduler.commit()
        instances.add(receiver, instance("2"))  # arrives while the scheduler thinks
        receiver.commit()
        studies.set_state(scheduler, "1.2.30", "waiting", "for the venous phase", None, study.look_again_at)
        scheduler.commit()
        (study,) = studies.due(scheduler, 10)
        assert (study.state, study.reason) == ("waiting", "for the venous phase")
        studies.set_state(scheduler, "1.2.30", "ready", "", None, study.look_again_at)
        scheduler.commit()
        assert studies.due(scheduler, 10) == []
        assert studies.next_due_in_s(scheduler) is None


def test_two_schedulers_do_not_get_the_same_study(fresh_database_url):
    with connect(fresh_database_url) as one, connect(fresh_database_url) as two:
        instances.add(one, instance("1"))
        instances.add(one, instance("2", study_instance_uid="1.2.31"))
        one.commit()
        first = studies.due(one, 1)
        second = studies.due(two, 10)
        assert {s.study_instance_uid for s in first + second} == {"1.2.30", "1.2.31"}
        assert (len(first), len(second)) == (1, 1)


def test_a_timer_makes_a_study_due_only_then(connection: Connection):
    instances.add(connection, instance())
    (study,) = studies.due(connection, 10)
    later = study.last_received_at + timedelta(days=3650)
    studies.set_state(connection, "1.2.30", "waiting", "", later, study.look_again_at)
    assert studies.due(connection, 10) == []
    wait_s = studies.next_due_in_s(connection)
    assert wait_s is not None
    assert wait_s > 3600
    studies.touch(connection, "1.2.30")
    assert len(studies.due(connection, 10)) == 1
    assert studies.touch_all(connection, NOW) == 1
    assert [s.study_instance_uid for s in studies.recent(connection, 5)] == ["1.2.30"]


def test_the_end_of_an_association_wakes_its_studies(connection: Connection):
    associations.opened(connection, association())
    instances.add(connection, instance(association_id="a1"))
    (study,) = studies.due(connection, 10)
    studies.set_state(connection, "1.2.30", "waiting", "open association", None, study.look_again_at)
    assert [a.association_id for a in associations.open_for_study(connection, "1.2.30")] == ["a1"]
    associations.closed(connection, "a1", "released", NOW, 1)
    assert len(studies.due(connection, 10)) == 1
    assert associations.open_for_study(connection, "1.2.30") == []
    ended = associations.get(connection, "a1")
    assert ended is not None
    assert (ended.state, ended.closed_at, ended.stored) == ("released", NOW, 1)
    associations.closed(connection, "a1", "aborted", None, 0)  # too late: it has ended already
    assert associations.get(connection, "a1") == ended


def test_a_receiver_that_starts_again_has_lost_its_associations(connection: Connection):
    associations.opened(connection, association("a1"))
    associations.opened(connection, association("a2"))
    associations.opened(connection, association("b1", receiver="r2"))
    associations.closed(connection, "a2", "released")
    instances.add(connection, instance(association_id="a1"))
    (study,) = studies.due(connection, 10)
    studies.set_state(connection, "1.2.30", "waiting", "", None, study.look_again_at)
    assert associations.mark_lost(connection, "r1") == ["a1"]
    assert associations.mark_lost(connection, "r1") == []
    assert len(studies.due(connection, 10)) == 1
    other = associations.get(connection, "b1")
    assert other is not None
    assert other.state == "open"


def test_configurations_and_events_keep_their_order(connection: Connection):
    assert configurations.current(connection) is None
    one = configurations.add(connection, "rules: []", "admin")
    two = configurations.add(connection, "rules: [x]", "admin")
    assert configurations.current(connection) == two
    assert configurations.history(connection) == [two, one]
    events.add(connection, "1.2.30", "stored", "one\x00", {"n": float("inf")})
    events.add(connection, None, "receiver", "two")
    assert [(e.kind, e.text, e.details) for e in events.for_study(connection, "1.2.30")] == [
        ("stored", "one", {"n": None})
    ]
    assert [e.text for e in events.recent(connection, 10)] == ["two", "one"]
