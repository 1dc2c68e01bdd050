"""What a real association leaves in the trail, at the acceptor and after the index."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import pytest
from schema import checked
from tiny_objects import CT, EXPLICIT_LITTLE, dataset_bytes, new_uid, write_object

from dicom_node.audit import Trail
from dicom_node.audit.observer import AuditObserver
from dicom_node.audit.transfers import note_transfers
from dicom_node.dimse.observer import Observer, Observers
from dicom_node.dimse.requests import AssociationFacts, InMemory, StoreRequest
from dicom_node.dimse.scp import running_scp
from dicom_node.dimse.scu import echo, send_files
from dicom_node.indexing import index_incoming
from dicom_node.reception import Incoming
from dicom_node.senders import Senders
from storage.database import open_pool
from storage.files import FolderStore


class InList:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def write(self, records: list[tuple[str, bool]]) -> None:
        self.lines += [xml for xml, _ in records]

    def close(self) -> None:
        pass


class Kept:
    """A trail in memory."""

    def __init__(self) -> None:
        self._sink = InList()
        self.trail = Trail([self._sink], "NODE")

    def messages(self) -> list[Element]:
        """All records; none can be added after."""
        self.trail.close()
        return [checked(line) for line in self._sink.lines]


@pytest.fixture
def kept() -> Iterator[Kept]:
    made = Kept()
    yield made
    made.trail.close()


class Broken(Observer):
    def rejected(self, *_: str) -> None:
        raise RuntimeError


def test_who_was_turned_away_and_what_was_refused(tmp_path: Path, kept: Kept) -> None:
    (tmp_path / "senders.json").write_text(json.dumps([{"ae_title": "CT1", "host": "127.0.0.1"}]))
    senders = Senders(tmp_path / "senders.json", "NODE", tmp_path / "run")

    def full(_request: StoreRequest, _dataset: bytes) -> None:
        raise OSError(28, "No space left on device")

    files = []
    for number in range(3):
        uid = new_uid()
        files.append(write_object(tmp_path / f"{number}.dcm", dataset_bytes(uid), uid))
    observer = Observers(Broken(), AuditObserver(kept.trail))
    with running_scp("NODE", open_sink=InMemory(full), admit=senders.admit, observer=observer) as port:
        for _ in range(3):
            assert echo("127.0.0.1", port, "NODE", "SPY").seconds is None
        assert echo("127.0.0.1", port, "NODE", "CT1").seconds is not None
        assert all(r.is_refused for r in send_files(files, "127.0.0.1", port, "NODE", "CT1"))
    refused, failed = kept.messages()
    assert refused[0][1].get("originalText") == "Node Authentication"
    assert refused[2].get("UserID") == "SPY"
    assert failed[0].get("EventOutcomeIndicator") == "4"
    assert [(c.get("UID"), c.get("NumberOfInstances")) for c in failed.iter("SOPClass")] == [(CT, "3")]


def test_the_same_refusal_is_told_once_a_minute_with_its_number(kept: Kept) -> None:
    now = 0.0
    observer = AuditObserver(kept.trail, clock=lambda: now)
    for _ in range(100):
        now += 1
        observer.rejected("SPY", "NODE", "10.6.6.6", "sender not known")
    observer.handshake_failed("10.6.6.6", "CERTIFICATE_VERIFY_FAILED")
    messages = kept.messages()
    assert len(messages) == 3
    assert ["Repeated" in [d.get("type") for d in m.iter("ParticipantObjectDetail")] for m in messages] == [
        False,
        True,
        False,
    ]


def test_what_was_brought_is_told_when_it_is_indexed(tmp_path: Path, fresh_database_url: str, kept: Kept) -> None:
    store = FolderStore(tmp_path / "store")
    incoming = Incoming(tmp_path / "incoming", "receive-1")

    def bring(number: int, *uids: str, **elements: Any) -> None:
        by = AssociationFacts(f"{number:016x}", f"CT{number}", "NODE", "10.1.2.3", 1_700_000_000_000_000_000)
        for uid in uids:
            sink = incoming.open_sink(StoreRequest(by, CT, uid, EXPLICIT_LITTLE))
            sink.write([memoryview(dataset_bytes(uid, **elements))])
            sink.commit()
        incoming.closed(by, "released")

    with open_pool(fresh_database_url) as pool:
        one, two, three = new_uid(), new_uid(), new_uid()
        bring(1, one, two, PatientID="PATIENT-7")
        bring(1 + 1, one, PatientID="PATIENT-7")
        bring(3, three, study="2.25.5", series="2.25.6", PatientID="")
        assert note_transfers(kept.trail, pool, store.path) == 0
        while index_incoming(tmp_path / "incoming", store, pool):
            pass
        assert note_transfers(kept.trail, pool, store.path) == 3
        assert note_transfers(kept.trail, pool, store.path) == 0
        with pool.connection() as connection:
            told = str(connection.execute("SELECT text, details FROM event").fetchall())
    assert "PATIENT-7" not in told

    def short(message: Element) -> tuple[Any, ...]:
        study, patient = message.findall("ParticipantObjectIdentification")
        return (
            message[1].get("UserID"),
            message[0].get("EventActionCode"),
            study.get("ParticipantObjectID"),
            [(c.get("UID"), c.get("NumberOfInstances")) for c in study.iter("SOPClass")],
            patient.get("ParticipantObjectID"),
        )

    assert [short(message) for message in kept.messages()] == [
        ("CT1", "C", "2.25.1", [(CT, "2")], "PATIENT-7"),
        ("CT2", "R", "2.25.1", [], "PATIENT-7"),
        ("CT3", "C", "2.25.5", [(CT, "1")], "(none)"),
    ]
