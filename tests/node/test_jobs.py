"""Jobs against real PostgreSQL; only the analysis itself is replaced."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_objects import dataset_bytes

import storage.deliveries
import storage.jobs
import storage.results
from dicom_node import jobs
from dicom_node.analysis import Answer
from dicom_node.dimse.part10 import file_head
from dicom_node.encoding.concepts import UnknownConcept
from dicom_node.encoding.results import EncodedObject
from dicom_node.encoding.sources import InvalidResult
from dicom_node.errors import NodeError
from dicom_node.node import Node
from dicom_node.settings import Settings
from storage import instances
from storage.database import open_pool
from storage.files import FolderStore
from storage.records import Instance, Job

SR = "1.2.840.10008.5.1.4.1.1.88.34"
STUDY = "2.25.4711"


@pytest.fixture
def node(fresh_database_url: str, tmp_path: Path) -> Iterator[Node]:
    """A node over a database of its own."""
    pool = open_pool(fresh_database_url)
    settings = Settings(data_dir=tmp_path, DATABASE_URL=fresh_database_url, job_attempts=2)
    try:
        yield Node(settings, pool, FolderStore(tmp_path / "store"))
    finally:
        pool.close()


def requested(node: Node, fingerprint: str = "f1") -> Job:
    """A waiting job of a study."""
    values = {"sop_class_uid": "1.2", "series_instance_uid": "2.25.1", "study_instance_uid": STUDY}
    syntax = "1.2.840.10008.1.2.1"
    image = Instance("2.25.9", transfer_syntax_uid=syntax, path="x", sha256="0" * 64, size_bytes=1, **values)
    with node.pool.connection() as connection:
        instances.add(connection, image)
        job = storage.jobs.request(connection, STUDY, "ct_lesion", fingerprint, "rule", {}, ["pacs"], "gpu")
    assert job is not None
    return job


def sr_file(uid: str) -> bytes:
    """The smallest file that C-STORE can send as an SR."""
    return file_head(SR, uid, "1.2.840.10008.1.2.1") + dataset_bytes(uid, study=STUDY, SOPClassUID=SR)


def answer(uid: str = "2.25.100") -> Answer:
    """What an analysis would give."""
    item = EncodedObject("sr", uid, SR, "1.2.840.10008.1.2.1", "2.25.101", sr_file(uid))
    return Answer("done", None, (item,), {"status": "done", "seconds": {}})


def state(node: Node, job: Job) -> Job:
    with node.pool.connection() as connection:
        found = storage.jobs.get(connection, job.id)
    assert found is not None
    return found


def test_a_job_runs_once_however_often_its_message_comes(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[int] = []
    monkeypatch.setattr(jobs, "_work", lambda node, job: runs.append(job.id) or answer())
    job = requested(node)
    for _ in range(3):
        jobs.run_job(node, job.id)
    assert runs == [job.id]
    assert state(node, job).state == "done"
    with node.pool.connection() as connection:
        results = storage.results.for_job(connection, job.id)
        waiting = storage.deliveries.for_study(connection, STUDY)
        announced = connection.execute("SELECT queue, task, argument FROM outbox WHERE task = 'deliver'").fetchall()
    assert [node.store.path(result.path).read_bytes() for result in results] == [sr_file("2.25.100")]
    assert [delivery.destination for delivery in waiting] == ["pacs"]
    assert announced == [("cpu", "deliver", "pacs")]


def test_a_job_that_breaks_is_tried_again_and_then_parked(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(node: Node, job: Job) -> Answer:
        raise MemoryError("out of memory")

    monkeypatch.setattr(jobs, "_work", broken)
    job = requested(node)
    jobs.run_job(node, job.id)
    assert state(node, job).state == "waiting"
    jobs.run_job(node, job.id)
    parked = state(node, job)
    assert parked.state == "failed"
    assert "parked after 2 attempts" in parked.reason
    assert "out of memory" in parked.reason


def test_a_lost_lease_keeps_nothing(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    def taken_over(node: Node, job: Job) -> Answer:
        with node.pool.connection() as connection:
            connection.execute("UPDATE job SET lease_until = now() - interval '1 s' WHERE id = %s", (job.id,))
        with node.pool.connection() as connection:
            storage.jobs.overdue(connection, 5)
            assert storage.jobs.claim(connection, job.id, "another worker", 60) is not None
        return answer()

    monkeypatch.setattr(jobs, "_work", taken_over)
    job = requested(node)
    jobs.run_job(node, job.id)
    assert state(node, job).state == "running"
    assert state(node, job).lease_owner == "another worker"
    with node.pool.connection() as connection:
        assert storage.results.for_job(connection, job.id) == []
        assert storage.deliveries.for_study(connection, STUDY) == []


def test_a_stopped_worker_hands_its_job_back_uncounted(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(node: Node, job: Job) -> Answer:
        jobs.leave(node)
        return answer()

    monkeypatch.setattr(jobs, "_work", stopped)
    job = requested(node)
    jobs.run_job(node, job.id)
    assert (state(node, job).state, state(node, job).attempts) == ("waiting", 0)


@pytest.mark.parametrize("error", [InvalidResult("SR 2.25.100: leaves Segment 1."), UnknownConcept("no code")])
def test_an_answer_that_is_not_right_is_withheld_at_once(
    node: Node, monkeypatch: pytest.MonkeyPatch, error: NodeError
) -> None:
    """No second attempt, which would give the same bytes; nothing kept, nothing delivered; the story says why."""

    def wrong(node: Node, job: Job) -> Answer:
        raise error

    monkeypatch.setattr(jobs, "_work", wrong)
    job = requested(node)
    jobs.run_job(node, job.id)
    parked = state(node, job)
    assert (parked.state, parked.attempts) == ("failed", 1)
    assert parked.reason == f"answer withheld: {error}"
    jobs.run_job(node, job.id)
    assert state(node, job) == parked
    with node.pool.connection() as connection:
        assert storage.jobs.overdue(connection, 5) == []
        assert storage.results.for_job(connection, job.id) == []
        assert storage.deliveries.for_study(connection, STUDY) == []
        told = [event.text for event in storage.events.for_study(connection, STUDY) if event.kind == "job"]
    assert told == [f"ct_lesion: failed: answer withheld: {error}"]
