"""From the journal to the file store and the index, on a real database; and every step of it interrupted."""

import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg_pool import ConnectionPool, PoolTimeout
from tiny_objects import CT, EXPLICIT_LITTLE, dataset_bytes, new_uid

import dicom_node.indexing
import storage.associations
import storage.events
import storage.instances
from dicom_node.dimse.requests import AssociationFacts, StoreRequest
from dicom_node.indexing import index_incoming
from dicom_node.reception import Incoming
from storage.database import open_pool
from storage.files import FolderStore, sha256_of


def association(number: int = 1) -> AssociationFacts:
    return AssociationFacts(f"{number:016x}", f"MODALITY{number}", "LIVERNODE", "10.1.2.3", 1_700_000_000_000_000_000)


@dataclass
class Bench:
    """A journal, a store and a database."""

    data_dir: Path
    store: FolderStore
    pool: Any

    def __post_init__(self) -> None:
        self.incoming = Incoming(self.data_dir / "incoming", "receiver")

    def receive(self, uid: str, by: AssociationFacts, dataset: bytes | None = None, **elements: object) -> None:
        encoded = dataset if dataset is not None else dataset_bytes(uid, **elements)  # type: ignore[arg-type]
        sink = self.incoming.open_sink(StoreRequest(by, CT, uid, EXPLICIT_LITTLE))
        sink.write([memoryview(encoded)])
        sink.commit()

    def index(self, limit: int = 1000) -> int:
        return index_incoming(self.data_dir / "incoming", self.store, self.pool, limit)

    def ask(self, query: str) -> list[Any]:
        with self.pool.connection() as connection:
            found: list[Any] = connection.execute(query).fetchall()
        return found

    def left(self) -> list[str]:
        return sorted(name.split(".", 1)[1] for name in os.listdir(self.data_dir / "incoming"))

    def quarantined(self) -> dict[str, str]:
        """File in quarantine -> reason."""
        folder = self.data_dir / "quarantine"
        reasons = {path.name: json.loads(path.read_text())["reason"] for path in folder.glob("*.reason.json")}
        assert {name.removesuffix(".reason.json") for name in reasons} == {path.name for path in folder.glob("*.dcm")}
        return {name.removesuffix(".reason.json"): reason for name, reason in reasons.items()}


@pytest.fixture
def bench(tmp_path: Path, fresh_database_url: str) -> Iterator[Bench]:
    with open_pool(fresh_database_url) as pool:
        yield Bench(tmp_path, FolderStore(tmp_path / "store"), pool)


def test_an_object_on_its_way_into_the_index(bench: Bench) -> None:
    uid, by = new_uid(), association()
    bench.receive(uid, by, study="2.25.10", series="2.25.11", InstanceNumber=7)
    bench.incoming.closed(by, "released")
    (entry,) = (bench.data_dir / "incoming").glob("*.dcm")
    sent, digest = entry.read_bytes(), sha256_of(entry)
    assert bench.index() == 4
    assert bench.left() == []
    assert bench.index() == 0
    with bench.pool.connection() as connection:
        (instance,) = storage.instances.for_study(connection, "2.25.10")
        (series,) = storage.instances.series_for_study(connection, "2.25.10")
        (known,) = storage.associations.for_study(connection, "2.25.10")
        events = storage.events.for_study(connection, "2.25.10")
    assert (instance.sop_instance_uid, instance.series_instance_uid) == (uid, "2.25.11")
    assert (instance.sha256, instance.size_bytes) == (digest, len(sent))
    assert bench.store.path(instance.path).read_bytes() == sent
    assert instance.attributes["InstanceNumber"] == 7
    assert instance.association_id == by.association_id
    assert instance.received_at is not None
    assert not instance.is_ours
    assert series.modality == "CT"
    assert series.header["00081030"]["Value"] == ["CT liver"]
    assert "00100010" not in series.header  # never the patient's name
    assert (known.state, known.stored, known.calling_ae_title, known.receiver) == (
        "released", 1, "MODALITY1", "receiver",
    )  # fmt: skip
    assert known.closed_at is not None
    (event,) = events
    assert event.kind == "association"
    assert "MODALITY1" in event.text
    assert "1 new" in event.text


def test_the_same_object_from_two_senders_is_one(bench: Bench) -> None:
    uid = new_uid()
    for number in (1, 2):
        bench.receive(uid, association(number))
        bench.incoming.closed(association(number), "released")
    bench.index()
    assert bench.ask("SELECT count(*), bool_or(is_conflict) FROM instance") == [(1, False)]
    texts = [text for (text,) in bench.ask("SELECT text FROM event ORDER BY id")]
    assert "1 new" in texts[0]
    assert "0 new, 0 in conflict, 1 already here" in texts[1]
    assert bench.ask("SELECT count(*) FROM study_association") == [(2,)]


def test_other_bytes_under_the_same_uid_are_kept_beside(bench: Bench) -> None:
    uid, by = new_uid(), association()
    bench.receive(uid, by, InstanceNumber=1)
    bench.receive(uid, by, InstanceNumber=2)
    bench.incoming.closed(by, "released")
    bench.index()
    with bench.pool.connection() as connection:
        first, second = storage.instances.by_sop_uid(connection, uid)
    assert (first.is_conflict, second.is_conflict) == (False, True)
    assert first.attributes["InstanceNumber"] == 1
    assert all(bench.store.exists(i.path) for i in (first, second))
    events = bench.ask("SELECT kind, text FROM event ORDER BY id")
    assert [kind for kind, _ in events] == ["conflict", "association"]
    assert uid in events[0][1]
    assert "1 new, 1 in conflict" in events[1][1]


def test_what_cannot_be_used_goes_to_quarantine_and_holds_nothing_up(bench: Bench) -> None:
    by, good = association(), [new_uid(), new_uid()]
    bench.receive(good[0], by)
    bench.receive("2.25.101", by, dataset=os.urandom(3000))
    bench.receive("2.25.102", by, dataset=dataset_bytes("2.25.102")[:37])
    bench.receive("2.25.103", by, dataset=dataset_bytes("2.25.104"))
    bench.receive("2.25.105", by, dataset=dataset_bytes("2.25.105", study=""))
    (bench.data_dir / "incoming" / "0000000000000000001-00000000000000ff-000001.dcm").write_bytes(b"")
    (bench.data_dir / "incoming" / "0000000000000000002-00000000000000ff.closed.json").write_bytes(b"{")
    bench.receive(good[1], by)
    bench.incoming.closed(by, "released")
    bench.index()
    assert bench.left() == []
    assert {uid for (uid,) in bench.ask("SELECT sop_instance_uid FROM instance")} == set(good)
    folder = bench.data_dir / "quarantine"
    kept = {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.endswith(".reason.json")}
    assert len(kept) == 6
    assert any(content.endswith(dataset_bytes("2.25.104")) for content in kept.values())
    reasons = [json.loads((folder / f"{name}.reason.json").read_text())["reason"] for name in kept]
    assert any("sent as SOP Instance 2.25.103, but its Dataset says 2.25.104" in reason for reason in reasons)
    assert any("StudyInstanceUID" in reason for reason in reasons)
    events = [text for (text,) in bench.ask("SELECT text FROM event WHERE kind = 'quarantine'")]
    assert len(events) == 6
    assert not any("Doe" in text for text in events)


def test_a_dataset_that_is_cut_off_goes_to_quarantine(bench: Bench) -> None:
    whole = dataset_bytes("2.25.101")
    bench.receive("2.25.101", association(), dataset=whole[:-3])
    bench.receive("2.25.102", association(), dataset=dataset_bytes("2.25.102"))
    bench.index()
    assert bench.ask("SELECT sop_instance_uid FROM instance") == [("2.25.102",)]
    (reason,) = bench.quarantined().values()
    assert "cut off: element (7FE0,0010) of 32 bytes" in reason


def test_the_index_lets_reception_go_first(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    nice: list[int] = []

    def noted(path: Path) -> Any:
        nice.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        return read(path)

    read = dicom_node.indexing._read
    monkeypatch.setattr(dicom_node.indexing, "_read", noted)
    bench.receive(new_uid(), association())
    bench.index()
    own = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    assert nice == [min(19, own + dicom_node.indexing.NICER)]


def test_results_of_ours_are_marked(bench: Bench) -> None:
    from dicom_node.encoding.provenance import MANUFACTURER, MODEL_NAME

    ours, other = new_uid(), new_uid()
    bench.receive(ours, association(), Manufacturer=MANUFACTURER, ManufacturerModelName=MODEL_NAME)
    bench.receive(other, association(), Manufacturer="Another")
    bench.index()
    assert dict(bench.ask("SELECT sop_instance_uid, is_ours FROM instance")) == {ours: True, other: False}


def test_a_receiver_that_starts_again_has_lost_its_associations(bench: Bench) -> None:
    bench.receive(new_uid(), association(1))
    Incoming(bench.data_dir / "incoming", "other")  # another receiver's start changes nothing
    bench.index()
    assert bench.ask("SELECT state FROM association") == [("open",)]
    bench.incoming = Incoming(bench.data_dir / "incoming", "receiver")
    bench.receive(new_uid(), association(2))
    bench.index()
    states = bench.ask("SELECT association_id, state FROM association ORDER BY 1")
    assert states == [(association(1).association_id, "lost"), (association(2).association_id, "open")]
    assert "lost" in bench.ask("SELECT text FROM event")[0][0]


def test_many_studies_and_associations_at_once(bench: Bench) -> None:
    expected = set()
    for slice_number in range(40):
        for number in (1, 2, 3):
            uid = new_uid()
            expected.add((uid, f"2.25.3{number}"))
            bench.receive(uid, association(number), study=f"2.25.3{number}", InstanceNumber=slice_number)
    for number in (1, 2, 3):
        bench.incoming.closed(association(number), "released")
    taken = 0
    while step := bench.index(limit=50):  # in portions, as a long queue is
        assert step <= 50
        taken += step
    assert taken == 1 + 3 + 120 + 3
    assert set(bench.ask("SELECT sop_instance_uid, study_instance_uid FROM instance")) == expected
    assert bench.ask("SELECT state, stored FROM association") == [("released", 40)] * 3


def test_an_association_that_the_database_forgot(bench: Bench) -> None:
    bench.receive(new_uid(), association())
    for path in (bench.data_dir / "incoming").glob("*.opened.json"):
        path.unlink()
    bench.index()
    assert bench.ask("SELECT count(*) FROM instance") == [(1,)]
    assert bench.left() == []


def test_while_the_database_is_away_everything_waits(bench: Bench) -> None:
    by, uid = association(), new_uid()
    bench.receive(uid, by)
    bench.incoming.closed(by, "released")
    before = bench.left()
    away = ConnectionPool("postgresql://nobody@127.0.0.1:1/nothing", open=True, min_size=0, max_size=1, timeout=0.2)
    with away, pytest.raises((psycopg.OperationalError, PoolTimeout)):
        index_incoming(bench.data_dir / "incoming", bench.store, away)
    assert bench.left() == before
    bench.index()
    assert bench.ask("SELECT sop_instance_uid FROM instance") == [(uid,)]


class Killed(BaseException):
    """Not an Exception, so that nothing handles it: as near to kill -9 as one process gets."""


_STEPS: list[tuple[Any, str]] = [
    (FolderStore, "put_files"),
    (dicom_node.indexing, "read_instance"),
    (dicom_node.indexing, "_read"),
    (storage.associations, "opened"),
    (storage.associations, "closed"),
    (storage.instances, "add_all"),
    (storage.events, "add"),
    (os, "replace"),
    (os, "link"),
    (Path, "unlink"),
]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("call", [1, 3])
@pytest.mark.parametrize(("owner", "name"), _STEPS, ids=[name for _, name in _STEPS])
def test_interrupted_anywhere_it_ends_the_same(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, call: int, after: bool
) -> None:
    uids = [new_uid() for _ in range(4)]
    for uid in uids:
        bench.receive(uid, association())
    bench.receive(uids[0], association(), InstanceNumber=99)  # a conflict
    bench.receive("2.25.66", association(), dataset=b"garbage")
    bench.incoming.closed(association(), "released")
    original: Callable[..., Any] = getattr(owner, name)
    calls = []

    def killed(*arguments: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == call and not after:
            raise Killed
        answer = original(*arguments, **named)
        if len(calls) == call:
            raise Killed
        return answer

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, killed)
        with suppress(Killed):
            bench.index()
    bench.index()
    assert bench.left() == []
    rows = bench.ask("SELECT sop_instance_uid, is_conflict FROM instance")
    assert sorted(rows) == sorted([(uid, False) for uid in uids] + [(uids[0], True)])
    for path, digest in bench.ask("SELECT path, sha256 FROM instance"):
        assert sha256_of(bench.store.path(path)) == digest
    assert bench.ask("SELECT state, stored FROM association") == [("released", 6)]
    assert len(bench.quarantined()) == 1
    told = [kind for (kind,) in bench.ask("SELECT kind FROM event")]
    assert (told.count("association"), told.count("conflict")) == (1, 1)
    assert 1 <= told.count("quarantine") <= 2  # the one thing that may be told twice
