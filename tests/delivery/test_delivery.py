"""Deliveries to a real stand-in PACS in every mood."""

import socket
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_objects import dataset_bytes, new_uid, write_object

from dicom_node.delivery import Fate, Outcome, pause_s, send
from dicom_node.dimse.admission import Admission, NotAdmittedError, Reject
from dicom_node.dimse.requests import InMemory, StoreRequest
from dicom_node.dimse.scp import running_scp
from dicom_node.dimse.standin import StandInPacs
from dicom_node.dimse.status import AbortAssociationError, RefusedError
from dicom_node.errors import ConfigurationError
from dicom_node.routing.destination import Destination, DestinationTls
from storage.records import Delivery


def pacs_at(port: int, **changes: Any) -> Destination:
    """A destination as the configuration gives it."""
    return Destination("pacs", "dimse", "127.0.0.1", port, "PACS", **changes)


def delivery(number: int, uid: str, path: str, **changes: object) -> Delivery:
    values = {
        "id": number, "result_id": number, "job_id": 1, "study_instance_uid": f"2.25.{number}", "destination": "pacs",
        "state": "sending", "attempts": 1, "not_before": datetime.now(UTC), "status": None, "reason": "",
        "delivered_at": None, "sop_instance_uid": uid, "sop_class_uid": "", "transfer_syntax_uid": "", "path": path,
    }  # fmt: skip
    return Delivery(**(values | changes))  # type: ignore[arg-type]


@pytest.fixture
def batch(tmp_path: Path) -> list[Delivery]:
    """Four results in the store."""
    made = []
    for number in range(1, 5):
        uid = new_uid()
        write_object(tmp_path / f"{number}.dcm", dataset_bytes(uid), uid)
        made.append(delivery(number, uid, f"{number}.dcm"))
    return made


Deliver = Callable[[int, list[Delivery]], list[tuple[int, Outcome]]]


@pytest.fixture
def deliver(tmp_path: Path) -> Deliver:
    """Send a batch to a port and return what was reported, in order."""

    def run(port: int, deliveries: list[Delivery]) -> list[tuple[int, Outcome]]:
        reports: list[tuple[int, Outcome]] = []
        send(
            pacs_at(port),
            deliveries,
            read_path=lambda relative: tmp_path / relative,
            calling_ae_title="LIVERNODE",
            report=lambda sent, outcome: reports.append((sent.id, outcome)),
        )
        return reports

    return run


def test_each_object_is_reported_when_it_has_arrived(batch: list[Delivery], deliver: Deliver, tmp_path: Path) -> None:
    pacs = StandInPacs()
    associations = []
    with running_scp("PACS", open_sink=InMemory(pacs.keep), closed=lambda facts, _: associations.append(facts)) as port:
        reports = deliver(port, batch)
    assert reports == [(number, Outcome(Fate.DELIVERED, 0)) for number in (1, 2, 3, 4)]
    assert [kept.sop_instance_uid for kept in pacs.kept] == [d.sop_instance_uid for d in batch]
    for kept, sent in zip(pacs.kept, batch, strict=True):
        assert kept.file_bytes.endswith(dataset_bytes(sent.sop_instance_uid))
    (one,) = associations
    assert one.calling_ae_title == "LIVERNODE"


@pytest.mark.parametrize(
    ("status", "fate"),
    [
        (0xB000, Fate.DELIVERED),
        (0xB007, Fate.DELIVERED),
        (0x0111, Fate.DELIVERED),  # duplicate: it has it
        (0xA700, Fate.BUSY),
        (0x0110, Fate.BUSY),
        (0xA900, Fate.REFUSED),
        (0xC000, Fate.REFUSED),
        (0x0124, Fate.REFUSED),
        (0x0122, Fate.NOT_TAKEN),
    ],
)
def test_status_of_one_object_is_its_own(batch: list[Delivery], deliver: Deliver, status: int, fate: Fate) -> None:
    def receive(request: StoreRequest, dataset: bytes) -> None:
        if request.sop_instance_uid == batch[1].sop_instance_uid:
            raise RefusedError(status, "not this one")

    with running_scp("PACS", open_sink=InMemory(receive)) as port:
        reports = dict(deliver(port, batch))
    outcome = reports.pop(2)
    assert (outcome.fate, outcome.status) == (fate, status)
    assert f"0x{status:04X}" in outcome.reason
    assert all(other == Outcome(Fate.DELIVERED, 0) for other in reports.values())


@pytest.mark.parametrize("is_kept", [False, True], ids=["lost", "stored but the answer was lost"])
def test_an_association_that_breaks_keeps_what_was_answered(
    batch: list[Delivery], deliver: Deliver, is_kept: bool
) -> None:
    pacs = StandInPacs()

    def receive(request: StoreRequest, dataset: bytes) -> None:
        if request.sop_instance_uid != batch[2].sop_instance_uid:
            pacs.keep(request, dataset)
            return
        if is_kept:
            pacs.keep(request, dataset)
        raise AbortAssociationError

    with running_scp("PACS", open_sink=InMemory(receive)) as port:
        reports = deliver(port, batch)
    assert [number for number, _ in reports] == [1, 2, 3, 4]
    assert [outcome.delivered for _, outcome in reports] == [True, True, False, False]
    assert [outcome.fate for _, outcome in reports[2:]] == [Fate.UNANSWERED, Fate.HELD]
    assert reports[2][1].reason
    with pacs.running() as port:  # the second attempt brings the same bytes
        again = deliver(port, batch[2:])
    assert [outcome.delivered for _, outcome in again] == [True, True]
    by_uid: dict[str, set[bytes]] = {}
    for kept in pacs.kept:
        by_uid.setdefault(kept.sop_instance_uid, set()).add(kept.file_bytes)
    assert by_uid.keys() == {d.sop_instance_uid for d in batch}
    assert all(len(contents) == 1 for contents in by_uid.values())


def test_nobody_there(batch: list[Delivery], deliver: Deliver) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        reports = deliver(unused.getsockname()[1], batch)
    assert [number for number, _ in reports] == [1, 2, 3, 4]
    assert all(outcome.fate is Fate.AWAY and outcome.reason for _, outcome in reports)


def test_tls_files_that_are_missing_are_told_and_tried_again(
    batch: list[Delivery], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for tls, told in [
        (DestinationTls(ca="/nowhere/ca.pem"), "/nowhere/ca.pem cannot be read"),
        (DestinationTls(certificate="/nowhere/c.pem", key="/nowhere/k.pem"), "password"),
    ]:
        outcomes = []
        monkeypatch.setenv("DICOM_NODE_TLS_KEY_PASSWORD_FILE", str(tmp_path / "none"))
        send(
            pacs_at(1, tls=tls),
            batch,
            read_path=lambda relative: tmp_path / relative,
            calling_ae_title="NODE",
            report=lambda _delivery, outcome, outcomes=outcomes: outcomes.append(outcome),
        )
        assert len(outcomes) == len(batch)
        assert all(o.fate is Fate.AWAY and told in o.reason for o in outcomes)


def test_we_are_not_known_there(batch: list[Delivery], deliver: Deliver) -> None:
    def stranger(*_: str) -> Admission:
        raise NotAdmittedError("not known", Reject.CALLING_AE_TITLE)

    with running_scp("PACS", open_sink=InMemory(lambda _request, _dataset: None), admit=stranger) as port:
        reports = deliver(port, batch)
    assert len(reports) == 4
    assert all(o.fate is Fate.REJECTED and "calling AE title" in o.reason for _, o in reports)


def test_a_sop_class_that_is_not_taken_is_named(batch: list[Delivery], deliver: Deliver, tmp_path: Path) -> None:
    uid = new_uid()
    write_object(tmp_path / "5.dcm", b"1234", uid, transfer_syntax="1.2.840.10008.1.2.4.100")
    with StandInPacs().running() as port:
        reports = dict(deliver(port, [delivery(5, uid, "5.dcm"), *batch]))
    assert "CT Image Storage" in reports[5].reason
    assert reports[5].fate is Fate.NOT_TAKEN
    assert all(reports[number].delivered for number in (1, 2, 3, 4))


def test_a_type_that_is_not_known() -> None:
    with pytest.raises(ConfigurationError, match=r"pacs.*carrier pigeon.*dimse"):
        send(
            Destination("pacs", "carrier pigeon"), [], read_path=Path, calling_ae_title="X", report=lambda *_: None
        )  # fmt: skip


@given(attempts=st.integers(1, 1000), max_s=st.floats(1, 3600), delivery_id=st.integers(0, 2**40))
def test_pauses_double_up_to_the_longest(attempts: int, max_s: float, delivery_id: int) -> None:
    pause = pause_s(attempts, max_s, delivery_id)
    longest = min(max_s, 2.0 ** (attempts - 1))
    assert 0.9 * longest <= pause <= longest
    assert pause == pause_s(attempts, max_s, delivery_id)


def test_pauses_of_many_deliveries_are_spread() -> None:
    assert len({round(pause_s(10, 60, number), 2) for number in range(100)}) > 50
