"""Results in a store and one way to send them, for tests of every type of destination."""

from pathlib import Path

import pytest
from sent import Deliver, delivery
from tiny_objects import dataset_bytes, new_uid, write_object

from dicom_node.delivery import Outcome, send
from dicom_node.routing.destination import Destination
from storage.records import Delivery


@pytest.fixture
def results(tmp_path: Path) -> list[Delivery]:
    """Four results, each of a study of its own."""
    made = []
    (tmp_path / "store").mkdir()
    for number in range(1, 5):
        uid = new_uid()
        write_object(tmp_path / "store" / f"{number}.dcm", dataset_bytes(uid, study=f"2.25.5{number}"), uid)
        made.append(delivery(number, uid, f"{number}.dcm", study_instance_uid=f"2.25.5{number}"))
    return made


@pytest.fixture
def deliver_to(tmp_path: Path) -> Deliver:
    """Send a batch to a destination and return what was reported, in order."""

    def run(destination: Destination, deliveries: list[Delivery]) -> list[tuple[int, Outcome]]:
        reports: list[tuple[int, Outcome]] = []
        send(
            destination,
            deliveries,
            read_path=lambda relative: tmp_path / "store" / relative,
            calling_ae_title="LIVERNODE",
            report=lambda sent, outcome: reports.append((sent.id, outcome)),
        )
        assert sorted(number for number, _ in reports) == sorted(d.id for d in deliveries)
        return reports

    return run
