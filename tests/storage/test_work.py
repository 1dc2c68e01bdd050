"""Jobs, results and the outbox: leases and races."""

import psycopg
import pytest
from storage_rows import announced, at_once, job, result

from storage import jobs, outbox, results
from storage.database import Connection, connect
from storage.records import Job


@pytest.mark.parametrize("server", ["database_server", "oldest_database_server"])
def test_eight_workers_at_one_job(server, request):
    server = request.getfixturevalue(server)
    url = server.create()
    with connect(url) as connection:
        made = job(connection)

    def claim(number: int) -> object:
        with connect(url) as connection:
            return jobs.claim(connection, made.id, f"w{number}", 5)

    claimed = [found for found in at_once(8, claim) if found is not None]
    assert [(found.id, found.state, found.attempts) for found in claimed] == [(made.id, "running", 1)]


def test_eight_requests_for_one_fingerprint_make_one_job(fresh_database_url):
    with connect(fresh_database_url) as connection:
        job(connection, "f0")

    def request(number: int) -> object:
        with connect(fresh_database_url) as connection:
            return jobs.request(connection, "1.2.30", "ct_lesion", "f1", "r", {"a": [1]}, ["pacs", "b"], "cpu")

    made = [found for found in at_once(8, request) if found is not None]
    assert len(made) == 1
    assert (made[0].send_to, made[0].inputs) == (("pacs", "b"), {"a": [1]})
    with connect(fresh_database_url) as connection:
        assert [j.state for j in jobs.for_study(connection, "1.2.30")] == ["superseded", "waiting"]
        assert len(announced(connection)) == 2


def test_of_concurrent_requests_with_different_inputs_one_stays(fresh_database_url):
    with connect(fresh_database_url) as connection:
        job(connection, "f0")

    def request(number: int) -> None:
        with connect(fresh_database_url) as connection:
            jobs.request(connection, "1.2.30", "ct_lesion", f"g{number}", "r", {}, [], "cpu")

    at_once(8, request)
    with connect(fresh_database_url) as connection:
        assert jobs.counts(connection)["waiting"] == 1
        assert jobs.counts(connection)["superseded"] == 8


def test_a_part_of_an_exam_waits_for_its_turn_and_makes_way(connection: Connection):
    """One job at a time is on its way; all of the exam outdoes a part of it that runs."""

    def ask(fingerprint: str, partial: str = "") -> Job | None:
        return jobs.request(connection, "1.2.30", "ct_lesion", fingerprint, "r", {}, [], "stat", partial=partial)

    whole = job(connection, "f0")
    jobs.claim(connection, whole.id, "w", 5)
    jobs.finish(connection, whole.id, "w", "done", "", {})
    first = ask("p1", "1 slice")
    assert first is not None
    assert first.partial == "1 slice"
    assert ask("p2", "2 slices") is None
    assert jobs.claim(connection, first.id, "w", 5) is not None
    assert ask("p2", "2 slices") is None
    assert not jobs.is_outdone(connection, first.id)
    assert ask("f1") is not None
    assert jobs.is_outdone(connection, first.id)
    jobs.finish(connection, first.id, "w", "superseded", "", None)
    assert ask("p2", "2 slices") is None


def test_an_urgent_job_that_nobody_takes_is_told_to_others_too(fresh_database_url):
    with connect(fresh_database_url) as connection:
        job(connection, "f0")
        made = jobs.request(connection, "1.2.30", "mre_qc", "f1", "r", {}, [], "stat")
        assert made is not None
        outbox.delete(connection, [message.id for message in outbox.take(connection, 10)])
        jobs.overdue(connection, 5, ring_again_s=-1, stand_ins={"stat": "gpu"})
        told = [(message.queue, message.argument) for message in outbox.take(connection, 10)]
    assert [row for row in told if row[0] != "cpu"] == [("gpu", str(made.id)), ("stat", str(made.id))]


def test_a_running_job_is_not_superseded_and_a_superseded_one_comes_back(connection: Connection):
    first = job(connection, "f1")
    second = jobs.request(connection, "1.2.30", "ct_lesion", "f2", "r", {}, [], "cpu")
    assert second is not None
    assert jobs.claim(connection, first.id, "w", 5) is None
    assert jobs.claim(connection, second.id, "w", 5) is not None
    again = jobs.request(connection, "1.2.30", "ct_lesion", "f1", "r", {}, [], "cpu")
    assert again is not None
    assert (again.fingerprint, again.state, again.attempts) == (first.fingerprint, "waiting", 0)
    found = jobs.get(connection, second.id)
    assert found is not None
    assert found.state == "running"


def test_only_the_owner_finishes(connection: Connection):
    made = job(connection)
    jobs.claim(connection, made.id, "w1", 5)
    assert not jobs.finish(connection, made.id, "w2", "done", "", {})
    assert not jobs.heartbeat(connection, made.id, "w2", 5)
    assert not jobs.release(connection, made.id, "w2", "")
    assert jobs.heartbeat(connection, made.id, "w1", 5)
    assert jobs.finish(connection, made.id, "w1", "refused", "no arterial phase", {"x": float("nan")})
    assert not jobs.finish(connection, made.id, "w1", "done", "", None)
    found = jobs.get(connection, made.id)
    assert found is not None
    assert (found.state, found.reason, found.result, found.lease_owner) == (
        "refused",
        "no arterial phase",
        {"x": None},
        None,
    )
    assert found.finished_at is not None


def test_a_silent_worker_loses_its_job_until_the_attempts_are_used_up(connection: Connection):
    made = job(connection)
    for attempt in (1, 2):
        assert jobs.claim(connection, made.id, f"w{attempt}", 60) is not None
        assert jobs.overdue(connection, max_attempts=2) == []  # the lease still holds
        assert jobs.heartbeat(connection, made.id, f"w{attempt}", -1)
        (changed,) = jobs.overdue(connection, max_attempts=2)
        assert not jobs.finish(connection, made.id, f"w{attempt}", "done", "", None)
        assert changed.state == ("waiting" if attempt == 1 else "failed")
    assert changed.reason.startswith("parked: ")
    assert jobs.overdue(connection, max_attempts=2) == []
    assert announced(connection) == [("run_job", str(made.id))] * 2


def test_release_may_leave_the_attempt_uncounted_and_the_bell_alone(connection: Connection):
    made = job(connection)
    jobs.claim(connection, made.id, "w", 60)
    assert jobs.release(connection, made.id, "w", "the worker stops", count_attempt=False)
    claimed = jobs.claim(connection, made.id, "w", 60)
    assert claimed is not None
    assert claimed.attempts == 1
    assert jobs.release(connection, made.id, "w", "no memory", ring=False)
    assert len(announced(connection)) == 2
    assert jobs.overdue(connection, 5, ring_again_s=60) == []
    assert len(announced(connection)) == 2


def test_the_oldest_waiting_jobs_are_rung_again(fresh_database_url):
    with connect(fresh_database_url) as connection:
        made = [job(connection, study=f"1.2.{number}") for number in range(20)]
    with connect(fresh_database_url) as connection:
        assert jobs.overdue(connection, 5, ring_again_s=60) == []
        assert len(announced(connection)) == 20
        jobs.overdue(connection, 5, ring_again_s=-1)
        assert announced(connection)[20:] == [("run_job", str(j.id)) for j in made[:16]]
        connection.rollback()


def test_the_outbox_gives_each_row_to_one_sender(fresh_database_url):
    with connect(fresh_database_url) as one, connect(fresh_database_url) as two:
        for number in range(3):
            outbox.add(one, "cpu", "run_job", str(number))
        one.commit()
        first = outbox.take(one, 2)
        assert [(m.queue, m.task, m.argument) for m in first] == [("cpu", "run_job", "0"), ("cpu", "run_job", "1")]
        second = outbox.take(two, 10)
        assert [m.argument for m in second] == ["2"]
        two.rollback()  # that sender died
        outbox.delete(one, [m.id for m in first])
        one.commit()
        assert [m.argument for m in outbox.take(one, 10)] == ["2"]


def test_a_result_uid_stands_for_one_object(connection: Connection):
    made = job(connection)
    kept = result(connection, made)
    assert result(connection, made) == kept
    assert results.for_job(connection, made.id) == results.for_study(connection, "1.2.30") == [kept]
    assert results.by_sop_uid(connection, "1.9.1") == kept
    with pytest.raises(results.ResultConflictError, match=r"1\.9\.1"):
        results.add(connection, made.id, "1.2.30", "1.9.1", "1.2.840", "1.2.1", "p", "d" * 64, 10)


def test_an_unknown_state_is_refused_by_the_schema(connection: Connection):
    made = job(connection)
    jobs.claim(connection, made.id, "w", 5)
    with pytest.raises(psycopg.errors.CheckViolation):
        jobs.finish(connection, made.id, "w", "finished", "", None)  # type: ignore[arg-type]
