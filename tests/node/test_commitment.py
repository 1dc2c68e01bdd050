"""Storage Commitment from N-ACTION to N-EVENT-REPORT: a real receiver, a real database, and deaths in between."""

import errno
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from modality import Modality, Reported, ask, store, wait_until
from tiny_objects import CT, EXPLICIT_LITTLE, dataset_bytes, new_uid

import storage.commitments
import storage.configurations
import storage.events
from dicom_node import commitment as commitment_module
from dicom_node.answers import Answers, Desk
from dicom_node.commitment import (
    CLASS_INSTANCE_CONFLICT,
    COMMITTED,
    NO_SUCH_OBJECT_INSTANCE,
    PROCESSING_FAILURE,
    RESOURCE_LIMITATION,
    Commitments,
    failure_reason,
    report_answers,
)
from dicom_node.dimse.requests import AssociationFacts, CommitmentRequest, Reference, StoreRequest
from dicom_node.dimse.scp import running_scp
from dicom_node.indexing import index_incoming
from dicom_node.node import Node
from dicom_node.reception import Incoming
from dicom_node.routing.configuration import load_configuration
from dicom_node.routing.reply import reporting_address
from dicom_node.settings import Settings
from dicom_node.story import study_story
from dicom_node.transactions import Transactions
from storage.commitments import Known
from storage.database import open_pool
from storage.files import FolderStore

MR = "1.2.840.10008.5.1.4.1.1.4"


def desk_of(journal: Incoming, node: Node, receiver: str, wait_s: float = 60.0) -> Desk:
    settings = node.settings
    return Desk(journal.note, Answers(settings.answers_dir), Transactions(settings.asked_dir), receiver, wait_s)


class Bench:
    """A node whose parts are started, stopped and stepped by hand."""

    def __init__(self, data_dir: Path, pool: Any, **changes: Any) -> None:
        self.node = Node(Settings(data_dir=data_dir, **changes), pool, FolderStore(data_dir / "store"))
        self.incoming_dir = self.node.settings.incoming_dir
        self.commitments = Commitments(self.node)

    @contextmanager
    def receiving(self, receiver: str = "receiver") -> Iterator[int]:
        incoming = Incoming(self.incoming_dir, receiver, self.node.settings.durable_ack == "fsync")
        desk = desk_of(incoming, self.node, receiver, self.node.settings.commitment_wait_s)
        with running_scp("NODE", open_sink=incoming.open_sink, closed=incoming.closed, commitment_desk=desk) as port:
            yield port

    def restart_scheduler(self) -> None:
        self.commitments = Commitments(self.node)

    def index(self) -> int:
        return index_incoming(self.incoming_dir, self.node.store, self.node.pool)

    def schedule(self) -> list[str]:
        """One turn of the scheduler; the AE titles that a worker is rung for."""
        self.index()
        self.commitments.step()
        return self.commitments.sweep()

    def report(self) -> None:
        """One turn of a worker."""
        report_answers(self.node, "MODALITY")

    def schedule_until_rung(self) -> str:
        rung: list[str] = []
        wait_until(lambda: rung.extend(self.schedule()) or rung, "a worker is rung")
        return rung[0]

    def schedule_until_reported(self, modality: Modality, count: int = 1) -> list[Reported]:
        def is_reported() -> bool:
            self.schedule()
            return modality.has(count, within_s=0.1)

        wait_until(is_reported, "the report", 60)
        return modality.wait_for(count)

    def schedule_until(self, state: str) -> None:
        def is_reached() -> bool:
            self.schedule()
            return self.states() == {state: 1}

        wait_until(is_reached, f"state {state}: {self.states()}")

    def states(self) -> dict[str, int]:
        with self.node.pool.connection() as connection:
            return storage.commitments.counts(connection)

    def ask(self, query: str) -> list[Any]:
        with self.node.pool.connection() as connection:
            found: list[Any] = connection.execute(query).fetchall()
        return found

    def rules(self, text: str) -> None:
        load_configuration(text)
        with self.node.pool.connection() as connection:
            storage.configurations.add(connection, text, "test")

    def story(self, study: str) -> str:
        with self.node.pool.connection() as connection:
            return study_story(connection, study) or ""


@pytest.fixture
def bench(tmp_path: Path, fresh_database_url: str) -> Iterator[Bench]:
    with open_pool(fresh_database_url) as pool:
        yield Bench(tmp_path, pool)


@pytest.fixture
def modality() -> Modality:
    return Modality()


def test_images_of_the_same_association_are_committed_on_it(bench: Bench, modality: Modality) -> None:
    uids = [new_uid() for _ in range(5)]
    wanted = tuple(Reference(CT, uid) for uid in uids)
    with bench.receiving() as port, modality.association(port) as association:
        assert [store(association, uid, study="2.25.50") for uid in uids] == [0] * 5
        assert ask(association, "2.25.9", wanted) == 0
        (reported,) = bench.schedule_until_reported(modality)
        bench.schedule_until("done")
    assert reported.on_association is association
    assert (reported.event_type, reported.committed, reported.failed) == (1, wanted, ())
    assert os.listdir(bench.node.settings.answers_dir) == []
    with bench.node.pool.connection() as connection:
        texts = [event.text for event in storage.events.for_study(connection, "2.25.50") if event.kind == "commitment"]
    assert texts == [
        "MODALITY was told that 5 of 5 objects are safe (storage commitment 2.25.9, on the same association)"
    ]
    assert "asked by MODALITY: 5 of 5 objects safe; answer: done" in bench.story("2.25.50")


def test_what_is_committed_is_on_disk_whatever_durable_ack_says(
    tmp_path: Path, fresh_database_url: str, modality: Modality, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: set[int] = set()
    real = os.fsync

    def fsync(descriptor: int) -> None:
        real(descriptor)
        synced.add(os.fstat(descriptor).st_ino)

    with open_pool(fresh_database_url) as pool:
        bench = Bench(tmp_path, pool, durable_ack="page-cache")
        with bench.receiving() as port, modality.association(port) as association:
            monkeypatch.setattr(os, "fsync", fsync)
            uids = [new_uid() for _ in range(3)]
            assert [store(association, uid) for uid in uids] == [0] * 3
            assert synced == set()
            assert ask(association, "2.25.9", [Reference(CT, uid) for uid in uids]) == 0
            (reported,) = bench.schedule_until_reported(modality)
        assert len(reported.committed) == 3
        files = [bench.node.store.path(path) for (path,) in bench.ask("SELECT path FROM instance")]
        for path in [*files, *(file.parent for file in files)]:
            assert path.stat().st_ino in synced


def test_a_study_that_is_partly_there(bench: Bench, modality: Modality) -> None:
    here, never, twice, spoilt, gone, short = (new_uid() for _ in range(6))
    with bench.receiving() as port, modality.association(port) as association:
        for uid in (here, twice, spoilt, gone, short):
            assert store(association, uid, study="2.25.50") == 0
        assert store(association, twice, study="2.25.50", InstanceNumber=2) == 0  # other bytes under the same UID
        bench.index()
        path = {uid: bench.node.store.path(p) for uid, p in bench.ask("SELECT sop_instance_uid, path FROM instance")}
        path[gone].unlink()
        path[short].write_bytes(path[short].read_bytes()[:-1])
        quarantine(bench, spoilt)
        wanted = [Reference(CT, uid) for uid in (here, never, twice, spoilt, gone, short)] + [Reference(MR, here)]
        assert ask(association, "2.25.9", wanted) == 0
        (reported,) = bench.schedule_until_reported(modality)
    assert reported.event_type == 2
    assert reported.committed == (Reference(CT, here),)
    assert reported.failed == tuple(
        zip(
            wanted[1:],
            (
                NO_SUCH_OBJECT_INSTANCE,
                PROCESSING_FAILURE,
                PROCESSING_FAILURE,
                NO_SUCH_OBJECT_INSTANCE,
                PROCESSING_FAILURE,
                CLASS_INSTANCE_CONFLICT,
            ),
            strict=True,
        )
    )
    assert "1 of 6 objects safe" in bench.story("2.25.50")


def quarantine(bench: Bench, uid: str) -> None:
    """An object comes under this UID that cannot be indexed."""
    journal = Incoming(bench.incoming_dir, "other")
    by = AssociationFacts(os.urandom(8).hex(), "MODALITY", "NODE", "127.0.0.1", 1)
    sink = journal.open_sink(StoreRequest(by, CT, uid, EXPLICIT_LITTLE))
    sink.write([memoryview(b"no Dataset" * 9)])
    sink.commit()
    bench.index()
    assert bench.ask("SELECT count(*) FROM event WHERE kind = 'quarantine'")[0][0] > 0


def test_quarantined_and_then_sent_again_in_order(bench: Bench, modality: Modality) -> None:
    uid, only_spoilt = new_uid(), new_uid()
    quarantine(bench, uid)
    quarantine(bench, only_spoilt)
    with bench.receiving() as port, modality.association(port) as association:
        assert store(association, uid) == 0
        assert ask(association, "2.25.9", [Reference(CT, uid), Reference(CT, only_spoilt)]) == 0
        (reported,) = bench.schedule_until_reported(modality)
    assert reported.committed == (Reference(CT, uid),)
    assert reported.failed == ((Reference(CT, only_spoilt), PROCESSING_FAILURE),)


def test_released_at_once_and_told_on_a_new_association(bench: Bench, modality: Modality) -> None:
    uid = new_uid()
    with modality.listening() as own_port, bench.receiving() as port:
        bench.rules(f"senders:\n  - {{ae_title: MODALITY, host: 127.0.0.0/8, port: {own_port}}}\n")
        with modality.association(port) as association:
            assert store(association, uid, study="2.25.50") == 0
            assert ask(association, "2.25.9", [Reference(CT, uid)]) == 0
        assert bench.schedule_until_rung() == "MODALITY"
        bench.report()
        (reported,) = modality.wait_for(1)
        assert reported.on_association is not association
        assert (reported.event_type, reported.committed) == (1, (Reference(CT, uid),))
        assert bench.states() == {"done": 1}
        bench.report()  # rung twice
    assert len(modality.reports) == 1
    assert "on a new association" in bench.story("2.25.50")


def test_scheduler_and_receiver_restart_between_request_and_report(bench: Bench, modality: Modality) -> None:
    uid = new_uid()
    with modality.listening() as own_port:
        bench.rules(f"destinations:\n  ct: {{type: dimse, host: 127.0.0.1, port: {own_port}, ae_title: MODALITY}}\n")
        with bench.receiving() as port, modality.association(port) as association:
            assert store(association, uid) == 0
            assert ask(association, "2.25.9", [Reference(CT, uid)]) == 0
        entries = {path.name: path.read_bytes() for path in bench.incoming_dir.iterdir()}
        bench.index()
        for name, content in entries.items():  # the scheduler was killed before it emptied the journal
            (bench.incoming_dir / name).write_bytes(content)
        bench.restart_scheduler()
        assert bench.schedule_until_rung() == "MODALITY"
        for name, content in entries.items():
            (bench.incoming_dir / name).write_bytes(content)
        bench.restart_scheduler()
        bench.schedule()
        bench.report()
        for name, content in entries.items():
            (bench.incoming_dir / name).write_bytes(content)
        bench.schedule()
        bench.report()
        (reported,) = modality.reports
    assert reported.event_type == 1
    assert bench.states() == {"done": 1}


def test_scheduler_killed_before_it_laid_the_answer_out(
    bench: Bench, modality: Modality, monkeypatch: pytest.MonkeyPatch
) -> None:
    with bench.receiving() as port, modality.association(port) as association:
        assert ask(association, "2.25.9", [Reference(CT, new_uid())]) == 0

        class KilledError(Exception):
            pass

        def killed(*_: object) -> None:
            raise KilledError

        monkeypatch.setattr(Answers, "offer", killed)
        with pytest.raises(KilledError):
            wait_until(bench.schedule, "never")
        assert bench.states() == {"offered": 1}
        monkeypatch.undo()
        bench.restart_scheduler()
        (reported,) = bench.schedule_until_reported(modality)
        assert reported.on_association is association
        bench.schedule_until("done")


def test_a_receiver_killed_with_the_answer_in_its_hand(bench: Bench, modality: Modality) -> None:
    facts = AssociationFacts("0" * 16, "MODALITY", "NODE", "127.0.0.1", 1)
    journal = Incoming(bench.incoming_dir, "receiver")
    request = CommitmentRequest(facts, "a" * 16, "2.25.9", (Reference(CT, new_uid()),))
    desk = desk_of(journal, bench.node, "receiver")
    desk.ask(request)
    bench.schedule()
    assert bench.states() == {"offered": 1}
    assert desk.claim(request) is not None
    assert desk.claim(request) is None
    bench.schedule()
    assert bench.states() == {"offered": 1}  # it may be on its way
    Incoming(bench.incoming_dir, "receiver-2")  # another one that starts says nothing about it
    bench.schedule()
    assert bench.states() == {"offered": 1}
    Incoming(bench.incoming_dir, "receiver")
    with modality.listening() as own_port:
        bench.rules(f"senders:\n  - {{ae_title: MODALITY, host: 127.0.0.1, port: {own_port}}}\n")
        assert bench.schedule_until_rung() == "MODALITY"
        bench.report()
    assert [reported.transaction_uid for reported in modality.reports] == ["2.25.9"]


def test_a_receiver_that_never_speaks_again(tmp_path: Path, fresh_database_url: str) -> None:
    with open_pool(fresh_database_url) as pool:
        bench = Bench(tmp_path, pool, commitment_wait_s=0)
        facts = AssociationFacts("0" * 16, "MODALITY", "NODE", "127.0.0.1", 1)
        journal = Incoming(bench.incoming_dir, "receiver")
        request = CommitmentRequest(facts, "a" * 16, "2.25.9", (Reference(CT, new_uid()),))
        desk_of(journal, bench.node, "receiver", 0).ask(request)
        bench.schedule()
        assert bench.states() == {"offered": 1}
        bench.ask("UPDATE commitment SET asked_at = asked_at - interval '76 seconds' RETURNING id")
        assert bench.schedule() == ["MODALITY"]
        bench.commitments.sweep()
        assert os.listdir(bench.node.settings.answers_dir) == []  # nobody can take it any more


def test_the_same_transaction_again_is_answered_again(bench: Bench, modality: Modality) -> None:
    first, second = new_uid(), new_uid()
    wanted = [Reference(CT, first), Reference(CT, second)]
    with bench.receiving() as port, modality.association(port) as association:
        assert store(association, first, study="2.25.50") == 0
        assert ask(association, "2.25.9", wanted) == 0
        bench.schedule_until_reported(modality)
        assert store(association, second, study="2.25.50") == 0
        assert ask(association, "2.25.9", wanted) == 0
        bench.schedule_until_reported(modality, 2)
        bench.schedule_until("done")
        with Modality("OTHER").association(port) as other:  # a Transaction UID is its requestor's own
            assert ask(other, "2.25.9", wanted) == 0
            bench.schedule()
            assert bench.ask("SELECT count(*) FROM commitment") == [(2,)]
    assert [(one.event_type, len(one.committed)) for one in modality.reports] == [(2, 1), (1, 2)]
    assert bench.ask("SELECT committed, failed FROM commitment_study ORDER BY commitment_id") == [(2, 0), (2, 0)]


def test_a_modality_that_is_away_and_comes_back(tmp_path: Path, fresh_database_url: str, modality: Modality) -> None:
    with open_pool(fresh_database_url) as pool, ExitStack() as stack:
        bench = Bench(tmp_path, pool, delivery_backoff_max_s=0.1, delivery_attempts=3)
        port = stack.enter_context(bench.receiving())
        uid = new_uid()
        with modality.association(port) as association:
            assert store(association, uid, study="2.25.50") == 0
            assert ask(association, "2.25.9", [Reference(CT, uid)]) == 0
        bench.schedule_until_rung()
        bench.report()
        assert "no port is known for MODALITY (127.0.0.1)" in bench.ask("SELECT reason FROM commitment")[0][0]
        with Modality().listening() as own_port:
            pass
        bench.rules(f"senders:\n  - {{ae_title: MODALITY, host: 127.0.0.1, port: {own_port}}}\n")

        def is_parked() -> bool:
            bench.schedule()
            bench.report()
            return bench.states() == {"parked": 1}

        wait_until(is_parked, "parked")
        story = bench.story("2.25.50")
        assert "MODALITY could not be told that 1 of 1 objects are safe" in story
        assert "given up after 3 attempts" in story
        with modality.listening(own_port), modality.association(port) as association:
            assert ask(association, "2.25.9", [Reference(CT, uid)]) == 0  # it asks again
        # that one was released at once as well
        with modality.listening(own_port):
            bench.schedule_until_rung()
            bench.report()
    assert [reported.event_type for reported in modality.reports] == [1]


def test_thousands_of_references(bench: Bench, modality: Modality) -> None:
    uids = [new_uid() for _ in range(3)]
    unknown = [Reference(CT, f"2.25.99{number:06d}") for number in range(3_000)]
    wanted = [Reference(CT, uids[0]), *unknown[:1500], Reference(CT, uids[1]), *unknown[1500:], Reference(CT, uids[2])]
    with bench.receiving() as port, modality.association(port) as association:
        for uid in uids:
            assert store(association, uid) == 0
        assert ask(association, "2.25.9", wanted) == 0
        (reported,) = bench.schedule_until_reported(modality)
    assert reported.committed == tuple(Reference(CT, uid) for uid in uids)
    assert reported.failed == tuple((one, NO_SUCH_OBJECT_INSTANCE) for one in unknown)


def test_a_request_never_overtakes_the_objects_before_it(
    bench: Bench, modality: Modality, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder read while it changes may show the request and hide an object that was there before it."""
    uid = new_uid()
    with bench.receiving() as port, modality.association(port) as association:
        assert store(association, uid) == 0
        assert ask(association, "2.25.9", [Reference(CT, uid)]) == 0
        real = os.listdir
        hidden = [next(name for name in real(bench.incoming_dir) if name.endswith(".dcm"))]
        readings = []

        def forgetful(folder: Any) -> list[str]:
            names = real(folder)
            readings.append(folder)
            return [name for name in names if name not in hidden] if len(readings) == 1 else names

        monkeypatch.setattr("dicom_node.indexing.os.listdir", forgetful)
        bench.index()
        bench.commitments.step()
        monkeypatch.undo()
        (reported,) = modality.wait_for(1)
    assert reported.event_type == 1


def test_verdict_that_cannot_be_reached_is_never_committed(
    bench: Bench, modality: Modality, monkeypatch: pytest.MonkeyPatch
) -> None:
    uid = new_uid()

    def broken(*_: object) -> int:
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr(commitment_module, "failure_reason", broken)
    with bench.receiving() as port, modality.association(port) as association:
        assert store(association, uid) == 0
        assert ask(association, "2.25.9", [Reference(CT, uid)]) == 0
        (reported,) = bench.schedule_until_reported(modality)
    assert reported.failed == ((Reference(CT, uid), PROCESSING_FAILURE),)


def test_notes_that_are_none_go_to_quarantine(bench: Bench) -> None:
    bench.incoming_dir.mkdir(parents=True)
    for number, text in enumerate(
        ["{", "[]", "{}", '{"request_id": "x", "references": [[1]]}', json.dumps({"status": "x"})]
    ):
        for kind in ("commit", "reported"):
            (bench.incoming_dir / f"{number:019d}-{'f' * 16}.{kind}.json").write_text(text)
    bench.schedule()
    assert os.listdir(bench.incoming_dir) == []
    assert bench.states() == {}


# ---- the verdict alone

KNOWN = Known("2.25.1", CT, "2.25.50", "ab/cd/x.dcm", 100, False, False)
HERE = Reference(CT, "2.25.1")


@pytest.mark.parametrize(
    ("known", "size", "reason"),
    [
        (KNOWN, 100, COMMITTED),
        (None, 100, NO_SUCH_OBJECT_INSTANCE),
        (KNOWN, 99, PROCESSING_FAILURE),
        (KNOWN, 101, PROCESSING_FAILURE),
        (KNOWN, FileNotFoundError(errno.ENOENT, ""), NO_SUCH_OBJECT_INSTANCE),
        (KNOWN, OSError(errno.EIO, ""), PROCESSING_FAILURE),
        (KNOWN, OSError(errno.EMFILE, ""), RESOURCE_LIMITATION),
        (replace(KNOWN, sop_class_uid=MR), 100, CLASS_INSTANCE_CONFLICT),
        (replace(KNOWN, is_conflict=True), 100, PROCESSING_FAILURE),
        (replace(KNOWN, is_quarantined=True), 100, PROCESSING_FAILURE),
        (replace(KNOWN, path=None, sop_class_uid=None, is_quarantined=True), 100, PROCESSING_FAILURE),
    ],
)
def test_failure_reason(known: Known | None, size: int | OSError, reason: int) -> None:
    def file_size(_path: str) -> int:
        if isinstance(size, OSError):
            raise size
        return size

    assert failure_reason(HERE, known, file_size) == reason


@pytest.fixture(scope="module")
def stocked(
    tmp_path_factory: pytest.TempPathFactory, database_server: Any
) -> Iterator[tuple[Bench, dict[str, tuple[int, bool]]]]:
    """A node with objects of every kind: UID -> (Failure Reason when asked for as CT, is it indexed)."""
    good, also_good, twice, spoilt, gone, never = (new_uid() for _ in range(6))
    kinds = {
        good: (COMMITTED, True),
        also_good: (COMMITTED, True),
        twice: (PROCESSING_FAILURE, True),
        spoilt: (PROCESSING_FAILURE, False),
        gone: (NO_SUCH_OBJECT_INSTANCE, True),
        never: (NO_SUCH_OBJECT_INSTANCE, False),
    }
    with open_pool(database_server.create()) as pool:
        bench = Bench(tmp_path_factory.mktemp("stocked"), pool)
        journal = Incoming(bench.incoming_dir, "receiver")
        by = AssociationFacts("0" * 16, "MODALITY", "NODE", "127.0.0.1", 1)
        for uid, number in ((good, 1), (also_good, 1), (twice, 1), (twice, 2), (gone, 1)):
            sink = journal.open_sink(StoreRequest(by, CT, uid, EXPLICIT_LITTLE))
            sink.write([memoryview(dataset_bytes(uid, InstanceNumber=number))])
            sink.commit()
        bench.index()
        quarantine(bench, spoilt)
        ((path,),) = bench.ask(f"SELECT path FROM instance WHERE sop_instance_uid = '{gone}'")
        bench.node.store.path(path).unlink()
        yield bench, kinds


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_mixture_is_reported_reference_by_reference(
    stocked: tuple[Bench, dict[str, tuple[int, bool]]], data: st.DataObject
) -> None:
    bench, kinds = stocked
    drawn = data.draw(st.lists(st.tuples(st.sampled_from(sorted(kinds)), st.sampled_from([CT, MR])), min_size=1))
    expected = []
    for uid, sop_class in drawn:
        reason, is_indexed = kinds[uid]
        expected.append(CLASS_INSTANCE_CONFLICT if is_indexed and sop_class != CT else reason)
    facts = AssociationFacts(os.urandom(8).hex(), "MODALITY", "NODE", "127.0.0.1", 1)
    journal = Incoming(bench.incoming_dir, "receiver-2")
    transaction = new_uid()
    request = CommitmentRequest(
        facts, os.urandom(8).hex(), transaction, tuple(Reference(sop_class, uid) for uid, sop_class in drawn)
    )
    desk = desk_of(journal, bench.node, "receiver-2")
    desk.ask(request)
    bench.index()
    bench.commitments.step()
    answer = desk.claim(request)
    assert answer is not None
    pairs = list(zip(request.references, expected, strict=True))
    assert answer.committed == tuple(reference for reference, reason in pairs if not reason)
    assert answer.failed == tuple((reference, reason) for reference, reason in pairs if reason)
    assert answer.event_type == (2 if any(expected) else 1)
    desk.reported(request, 0, "")
    bench.index()
    assert bench.ask(f"SELECT state FROM commitment WHERE transaction_uid = '{transaction}'") == [("done",)]


# ---- where to report


@pytest.mark.parametrize(
    ("document", "address"),
    [
        ("", None),
        ("senders: [{ae_title: CT1, host: 10.1.2.3}]", None),
        ("senders: [{ae_title: CT1, host: 10.1.2.3, port: 104}]", ("10.1.2.3", 104)),
        ("senders: [{ae_title: CT1, host: 10.1.2.0/24, port: 104}]", ("10.1.2.3", 104)),
        ("senders: [{ae_title: CT1, host: '*', port: 104}]", ("10.1.2.3", 104)),
        ("senders: [{ae_title: CT2, host: 10.1.2.3, port: 104}]", None),
        ("senders: [{ae_title: CT1, host: 10.9.9.9, port: 104}]", None),
        ("destinations: {ct: {type: dimse, host: 10.1.2.9, port: 11112, ae_title: CT1}}", ("10.1.2.9", 11112)),
        (
            "destinations: {b: {type: dimse, host: 10.1.2.9, port: 1, ae_title: CT1}, "
            "a: {type: dimse, host: 10.1.2.3, port: 2, ae_title: CT1}}",
            ("10.1.2.3", 2),
        ),
        (
            "senders: [{ae_title: CT1, host: 10.1.2.3, port: 104}]\n"
            "destinations: {ct: {type: dimse, host: 10.1.2.3, port: 11112, ae_title: CT1}}",
            ("10.1.2.3", 104),
        ),
    ],
)
def test_reporting_address(document: str, address: tuple[str, int] | None) -> None:
    assert reporting_address(load_configuration(document), "CT1", "10.1.2.3") == address
