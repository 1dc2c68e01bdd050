"""Rows for storage tests."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from storage import deliveries, instances, jobs, results
from storage.database import Connection
from storage.deliveries import Order
from storage.records import Association, Instance, Job, Result

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def association(association_id: str = "a1", **changes: Any) -> Association:
    values: dict[str, Any] = {
        "association_id": association_id,
        "receiver": "r1",
        "calling_ae_title": "CT1",
        "called_ae_title": "LIVERNODE",
        "peer_host": "10.0.0.1",
        "opened_at": NOW,
        "closed_at": None,
        "state": "open",
        "stored": 0,
    }
    return Association(**(values | changes))


def instance(sop: str = "1.2.1", **changes: Any) -> Instance:
    sha256 = f"{abs(hash(sop)):064x}"
    values: dict[str, Any] = {
        "sop_instance_uid": sop,
        "sop_class_uid": "1.2.840.10008.5.1.4.1.1.2",
        "series_instance_uid": "1.2.20",
        "study_instance_uid": "1.2.30",
        "transfer_syntax_uid": "1.2.840.10008.1.2.1",
        "path": f"{sha256[:2]}/{sha256[2:4]}/{sha256}.dcm",
        "sha256": sha256,
        "size_bytes": 1000,
        "attributes": {"Modality": "CT"},
        "received_at": NOW,
    }
    return Instance(**(values | changes))


def job(connection: Connection, fingerprint: str = "f1", study: str = "1.2.30") -> Job:
    """A waiting job of a study that exists afterwards."""
    instances.add(connection, instance(f"{study}.1", study_instance_uid=study))
    made = jobs.request(connection, study, "ct_lesion", fingerprint, "liver CT", {}, ["pacs"], "cpu")
    assert made is not None
    return made


def result(connection: Connection, job: Job, sop: str = "1.9.1", **changes: Any) -> Result:
    """A result of a job."""
    values = {"path": "ab/cd/x.dcm", "sha256": "e" * 64, "size_bytes": 10, "kind": "sr", "place": 6} | changes
    return results.add(connection, job.id, job.study_instance_uid, sop, "1.2.840", "1.2.1", **values)


def deliver(connection: Connection, made: Sequence[Result], *destinations: str) -> int:
    """Have results delivered."""
    return deliveries.create(connection, [Order(item.id, name) for name in destinations for item in made])


def announced(connection: Connection) -> list[tuple[str, str]]:
    """(task, argument) of every row in the outbox, in order."""
    return connection.execute("SELECT task, argument FROM outbox ORDER BY id").fetchall()


def at_once(count: int, action: Any) -> list[Any]:
    """What `count` threads get that call action(number) at the same moment."""
    import threading
    from concurrent.futures import ThreadPoolExecutor

    barrier = threading.Barrier(count)

    def one(number: int) -> Any:
        barrier.wait(10)
        return action(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))
