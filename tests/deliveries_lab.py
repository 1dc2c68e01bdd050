"""Results to deliver without a pipeline that makes them, and what a scheduler and workers do with them."""

import hashlib
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from tiny_objects import EXPLICIT_LITTLE, dataset_bytes

import storage.associations
import storage.deliveries
import storage.events
import storage.instances
import storage.jobs
import storage.outbox
from dicom_node import delivering, jobs
from dicom_node.analysis import Answer
from dicom_node.couriers import Couriers
from dicom_node.dimse.part10 import file_head, parse_file_head
from dicom_node.dimse.standin import KeptObject
from dicom_node.encoding.package import KINDS, Package
from dicom_node.encoding.results import EncodedObject
from dicom_node.node import Node
from dicom_node.settings import Settings
from storage import configurations
from storage.database import open_pool
from storage.files import FolderStore
from storage.records import Delivery, Instance

CLASSES = {
    "seg": "1.2.840.10008.5.1.4.1.1.66.4",
    "pm": "1.2.840.10008.5.1.4.1.1.30",
    "sc": "1.2.840.10008.5.1.4.1.1.7",
    "sr": "1.2.840.10008.5.1.4.1.1.88.34",
    "sr_comprehensive": "1.2.840.10008.5.1.4.1.1.88.33",
    "sr_enhanced": "1.2.840.10008.5.1.4.1.1.88.22",
    "sr_text": "1.2.840.10008.5.1.4.1.1.88.11",
}


def encoded(kind: str, study: str, job_id: int, size_bytes: int = 0) -> EncodedObject:
    """An object of this kind; `size_bytes` of it are pixels."""
    uid = f"{study}.{job_id}.{list(KINDS).index(kind)}"
    more: dict[str, object] = {"SOPClassUID": CLASSES[kind], "InstanceNumber": job_id}
    if size_bytes:
        more["PixelData"] = hashlib.shake_128(uid.encode()).digest(size_bytes)
    data = file_head(CLASSES[kind], uid, EXPLICIT_LITTLE) + dataset_bytes(uid, study=study, **more)
    return EncodedObject(kind, uid, CLASSES[kind], EXPLICIT_LITTLE, f"{study}.{job_id}", data)


def dataset_of(file_bytes: bytes) -> bytes:
    """The encoded Dataset in a DICOM file."""
    return file_bytes[parse_file_head(file_bytes, "it").dataset_offset :]


class Lab:
    """A node over a database, in which studies get finished jobs."""

    def __init__(self, database_url: str, folder: Path, **settings: object) -> None:
        values = {"data_dir": folder, "DATABASE_URL": database_url, "delivery_backoff_max_s": 0.3} | settings
        self.node = Node(Settings(**values), open_pool(database_url, max_size=8), FolderStore(folder / "store"))  # type: ignore[arg-type]
        self.couriers = Couriers()

    def close(self) -> None:
        """End its connections."""
        self.node.pool.close()

    def rules(self, **destinations: str) -> None:
        """Put destinations in force: name -> what stands between the braces."""
        lines = [f"  {name}: {{{entry}}}\n" for name, entry in destinations.items() if name != "senders"]
        document = "destinations:\n" + "".join(lines)
        if "senders" in destinations:
            document += "senders:\n  - {" + destinations["senders"] + "}\n"
        with self.node.pool.connection() as connection:
            configurations.add(connection, document, "test")

    def finish_job(
        self,
        study: str,
        send_to: Sequence[str],
        kinds: Sequence[str] = ("seg", "sr"),
        *,
        fingerprint: str = "f1",
        size_bytes: int = 0,
        association_id: str | None = None,
        queue: str = "gpu",
    ) -> list[EncodedObject]:
        """A study whose job gives an object of each kind; fall-backs of the destinations too."""
        image = Instance(
            f"{study}.9", "1.2", f"{study}.8", study, EXPLICIT_LITTLE, "x", "0" * 64, 1, association_id=association_id
        )
        inputs = {"arterial": {"sop_instance_uids": [f"{study}.9"], "paths": ["x"]}}
        with self.node.pool.connection() as connection:
            storage.instances.add(connection, image)
            job = storage.jobs.request(
                connection, study, "ct_lesion", fingerprint, "rule", inputs, list(send_to), queue
            )
        assert job is not None
        built = Package(tuple(kinds)).built
        objects = tuple(encoded(kind, study, job.id, size_bytes) for kind in built if kind in CLASSES)
        with mock.patch.object(jobs, "_work", return_value=Answer("done", None, objects, {"seconds": {}})):
            jobs.run_job(self.node, job.id)
        return list(objects)

    def deliver(self, name: str = "pacs") -> None:
        """What a worker does when it is rung."""
        delivering.deliver(self.node, name)

    def deliveries(self, study: str) -> list[Delivery]:
        """Those of a study, without spares."""
        with self.node.pool.connection() as connection:
            return storage.deliveries.for_study(connection, study)

    def states(self, study: str) -> dict[str, str]:
        """kind -> state, of a study with one job and one destination."""
        return {delivery.kind: delivery.state for delivery in self.deliveries(study)}

    def told(self, study: str | None, kind: str = "delivery") -> list[str]:
        """Texts of events."""
        with self.node.pool.connection() as connection:
            query = "SELECT text FROM event WHERE study_instance_uid IS NOT DISTINCT FROM %s AND kind = %s ORDER BY id"
            return [row[0] for row in connection.execute(query, (study, kind)).fetchall()]

    def run(self, statement: str) -> None:
        """SQL."""
        with self.node.pool.connection() as connection:
            connection.execute(statement.encode())

    def time_passes(self) -> None:
        """Every pause is over."""
        self.run("UPDATE delivery SET not_before = now() - interval '1 s'")
        self.run("UPDATE destination SET probe_at = now() - interval '1 s' WHERE breaker <> 'closed'")

    @contextmanager
    def working(self, ring_again_s: float = 0.5) -> Iterator[None]:
        """Ring workers as the scheduler does, while the context lasts."""
        stop = threading.Event()

        def ring() -> None:
            while not stop.wait(0.02):
                with self.node.pool.connection() as connection:
                    rows = storage.outbox.take(connection, 100)
                    storage.outbox.delete(connection, [row.id for row in rows])
                    names = {row.argument for row in rows if row.task == "deliver"}
                with self.node.pool.connection() as connection:
                    names.update(storage.deliveries.due_destinations(connection, ring_again_s))
                for name in names:
                    self.couriers.send(name, lambda name=name: delivering.deliver(self.node, name))  # type: ignore[misc]

        thread = threading.Thread(target=ring)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


def first_arrivals(kept: Sequence[KeptObject]) -> dict[str, KeptObject]:
    """SOP Instance UID -> what arrived first; AssertionError where other bytes came under the same UID later."""
    found: dict[str, KeptObject] = {}
    for item in kept:
        first = found.setdefault(item.sop_instance_uid, item)
        assert dataset_of(first.file_bytes) == dataset_of(item.file_bytes), item.sop_instance_uid
    return found
