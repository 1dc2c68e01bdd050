"""From a delivery to the archive's proof: real associations both ways, a real database, and deaths in between."""

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from archive import Archive, Asked
from tiny_objects import CT, EXPLICIT_LITTLE, dataset_bytes, new_uid

import storage.commitment_requests
import storage.configurations
import storage.deliveries
import storage.events
import storage.instances
import storage.jobs
import storage.results
from dicom_node import commitment_requests, delivering
from dicom_node.answers import Answers, Desk
from dicom_node.commitment_requests import archives, ask_archive, sweep
from dicom_node.dimse.contexts import STORAGE_COMMITMENT
from dicom_node.dimse.part10 import file_head
from dicom_node.dimse.scp import running_scp
from dicom_node.indexing import index_incoming
from dicom_node.node import Node
from dicom_node.reception import Incoming
from dicom_node.routing.configuration import load_configuration
from dicom_node.senders import Senders
from dicom_node.settings import Settings
from dicom_node.story import results_table, studies_table, study_story
from dicom_node.transactions import Reporter, Transactions
from storage.database import open_pool
from storage.deliveries import Order
from storage.files import FolderStore
from storage.records import Instance

STUDY = "2.25.4711"


class Bench:
    """A node whose parts are stepped by hand, with an archive among its destinations."""

    def __init__(self, data_dir: Path, pool: Any, **changes: Any) -> None:
        settings = Settings(data_dir=data_dir, ae_title="NODE", **({"archive_wait_s": 0.0} | changes))
        self.node = Node(settings, pool, FolderStore(data_dir / "store"))

    def rules(self, port: int, keys: str = "commitment: true", senders: str = "") -> None:
        text = (
            "destinations:\n"
            f"  archive: {{type: dimse, host: 127.0.0.1, port: {port}, ae_title: ARCHIVE, {keys}}}\n{senders}"
        )
        load_configuration(text)
        with self.node.pool.connection() as connection:
            storage.configurations.add(connection, text, "test")

    @contextmanager
    def receiving(self) -> Iterator[int]:
        """A receiver, which knows no database."""
        settings = self.node.settings
        incoming = Incoming(settings.incoming_dir, "receiver")
        desk = Desk(incoming.note, Answers(settings.answers_dir), Transactions(settings.asked_dir), "receiver", 60.0)
        with running_scp("NODE", open_sink=incoming.open_sink, closed=incoming.closed, commitment_desk=desk) as port:
            yield port

    def results(self, count: int) -> list[str]:
        """Results of a job, ordered for the archive; their SOP Instance UIDs."""
        uids = [new_uid() for _ in range(count)]
        values = {"sop_class_uid": CT, "series_instance_uid": "2.25.1", "study_instance_uid": STUDY}
        image = Instance(
            "2.25.9", transfer_syntax_uid=EXPLICIT_LITTLE, path="x", sha256="0" * 64, size_bytes=1, **values
        )
        with self.node.pool.connection() as connection:
            storage.instances.add(connection, image)
            job = storage.jobs.request(connection, STUDY, "ct_lesion", uids[0], "rule", {}, ["archive"], "gpu")
            assert job is not None
            made = []
            for place, uid in enumerate(uids):
                data = file_head(CT, uid, EXPLICIT_LITTLE) + dataset_bytes(uid, study=STUDY)
                digest = hashlib.sha256(data).hexdigest()
                path = self.node.store.put_bytes(data, digest)
                made.append(
                    storage.results.add(
                        connection, job.id, STUDY, uid, CT, EXPLICIT_LITTLE, path, digest, len(data), "sc", place
                    )
                )
            storage.deliveries.create(connection, [Order(result.id, "archive") for result in made])
        return uids

    def deliver(self) -> None:
        delivering.deliver(self.node, "archive")

    def ask(self) -> None:
        ask_archive(self.node, "archive")

    def schedule(self) -> list[str]:
        """One turn of the scheduler; the destinations for which a worker is rung."""
        index_incoming(self.node.settings.incoming_dir, self.node.store, self.node.pool)
        return sweep(self.node)

    def states(self) -> list[str]:
        """Of the deliveries' commitments, in their order."""
        with self.node.pool.connection() as connection:
            return [one.state for one in storage.commitment_requests.for_study(connection, STUDY).values()]

    def run(self, statement: str) -> list[Any]:
        with self.node.pool.connection() as connection:
            found: list[Any] = connection.execute(statement.encode()).fetchall()
        return found

    def time_passes(self) -> None:
        """All that is waited for is due, and who holds a lease has lost it."""
        self.run("UPDATE delivery_commitment SET not_before = now() RETURNING 1")
        self.run(
            "UPDATE commitment_request SET not_before = now(), ends_at = now() - interval '1 s', "
            "lease_until = now() - interval '1 s' RETURNING 1"
        )

    def transactions(self) -> list[tuple[str, str]]:
        return self.run("SELECT transaction_uid, state FROM commitment_request ORDER BY id")

    def story(self) -> str:
        with self.node.pool.connection() as connection:
            return study_story(connection, STUDY) or ""

    def table(self) -> str:
        with self.node.pool.connection() as connection:
            return results_table(connection, studies_table(connection, 10))[STUDY]

    def told(self) -> list[str]:
        """Texts of the study's events about commitment."""
        with self.node.pool.connection() as connection:
            return [one.text for one in storage.events.for_study(connection, STUDY) if one.kind == "commitment"]


@pytest.fixture
def bench(tmp_path: Path, fresh_database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(commitment_requests, "SETTLE_S", 0.0)
    with open_pool(fresh_database_url) as pool:
        yield Bench(tmp_path, pool)


def test_committed_only_when_the_archive_says_so(
    tmp_path: Path, fresh_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commitment_requests, "SETTLE_S", 0.0)
    archive = Archive(reports_at_once=True)
    with open_pool(fresh_database_url) as pool, archive.running() as port:
        bench = Bench(tmp_path, pool, archive_wait_s=10.0)
        bench.rules(port)
        uids = bench.results(3)
        bench.deliver()
        assert archive.stored == uids
        assert bench.table() == "archive: delivered"
        assert "committed" not in bench.story()
        assert bench.schedule() == ["archive"]
        assert bench.schedule() == []  # rung once
        bench.ask()
        (asked,) = archive.asked
        assert [one.sop_instance_uid for one in asked.references] == uids
        assert bench.table() == "archive: committed"
        story = bench.story()
        assert story.count("to archive: committed ") == 3
        assert asked.transaction_uid in story
        assert bench.told() == ["archive has committed 3 of 3 objects (on the same association)"]
        bench.ask()
        assert len(archive.asked) == 1
        with pool.connection() as connection:
            counts = storage.commitment_requests.counts(connection)
    assert counts == {("archive", "committed"): 3}


def test_the_archive_reports_later_on_its_own_association(bench: Bench) -> None:
    archive = Archive()
    with archive.running() as port, bench.receiving() as own_port:
        bench.rules(port)
        bench.results(2)
        bench.deliver()
        bench.ask()
        assert "its archive is asked for commitment since" in bench.story()
        (asked,) = archive.asked
        assert archive.report(own_port, asked) == [0]
        assert bench.states() == ["asked", "asked"]  # the receiver has no database
        bench.schedule()
        assert bench.states() == ["committed", "committed"]
        assert bench.told() == ["archive has committed 2 of 2 objects (by ARCHIVE on a new association)"]
        assert archive.report(own_port, asked) == [0]  # it did not hear us
        bench.schedule()
        assert len(bench.told()) == 1
    assert bench.transactions() == [(asked.transaction_uid, "committed")]


def test_only_the_archive_is_believed_and_only_about_what_it_was_asked(bench: Bench) -> None:
    archive = Archive()
    with archive.running() as port, bench.receiving() as own_port:
        bench.rules(port)
        bench.results(1)
        bench.deliver()
        bench.ask()
        (asked,) = archive.asked
        assert Archive("STRANGER").report(own_port, asked) == [0x0115]
        unknown = Asked(f"{asked.transaction_uid}1", asked.references, None)
        assert archive.report(own_port, unknown) == [0x0115]
        file = bench.node.settings.asked_dir / f"{asked.transaction_uid}.json"
        text = file.read_text()
        file.write_text(text.replace("127.0.0.1", "10.9.9.9"))  # the archive lives elsewhere
        assert archive.report(own_port, asked) == [0x0115]
        bench.schedule()
        assert bench.states() == ["asked"]
        file.write_text(text)
        assert archive.report(own_port, asked) == [0]
        bench.schedule()
    assert bench.states() == ["committed"]


def test_the_archive_is_let_in_to_report_and_not_to_store(bench: Bench, tmp_path: Path) -> None:
    archive = Archive()
    with ExitStack() as stack:
        bench.rules(4444)
        known = [sender.as_json() for sender in archives(bench.node.configuration())]

        def admitted(entries: list[Any]) -> list[str]:
            (tmp_path / "senders.json").write_text(json.dumps(entries))
            senders = Senders(tmp_path / "senders.json", "NODE", tmp_path / "run")
            incoming = Incoming(tmp_path / "incoming", "receiver")
            desk = Desk(incoming.note, Answers(tmp_path / "a"), Transactions(tmp_path / "b"), "receiver", 60.0)
            port = stack.enter_context(
                running_scp("NODE", open_sink=incoming.open_sink, commitment_desk=desk, admit=senders.admit)
            )
            return archive.store(port)

        other = {"ae_title": "CT", "host": "10.0.0.1"}
        assert admitted([other, *known]) == [STORAGE_COMMITMENT]
        assert admitted([other]) == []
        assert admitted([{"ae_title": "ARCHIVE", "host": "127.0.0.1"}, *known]) == [CT, STORAGE_COMMITMENT]


def test_what_the_archive_does_not_have_is_sent_again(bench: Bench) -> None:
    archive = Archive()
    with archive.running() as port, bench.receiving() as own_port:
        bench.rules(port)
        good, lost, wrong, busy = bench.results(4)
        archive.failing = {lost: 0x0112, wrong: 0x0119, busy: 0x0213}
        bench.deliver()
        bench.ask()
        assert archive.report(own_port, archive.asked[0]) == [0]
        bench.schedule()
        assert bench.states() == ["committed", "sent_again", "failed", "wanted"]
        assert bench.table() == "archive: 3 of 4 delivered"
        assert "waiting again: archive does not keep it: status 0x0112" in bench.story()
        assert "NOT committed: archive does not keep it: status 0x0119 (class-instance conflict)" in bench.story()
        archive.failing = {wrong: 0x0119}
        bench.deliver()
        assert archive.stored == [good, lost, wrong, busy, lost]
        bench.time_passes()
        assert bench.schedule() == ["archive"]
        bench.ask()
        assert {one.sop_instance_uid for one in archive.asked[1].references} == {lost, busy}
        assert archive.asked[1].transaction_uid != archive.asked[0].transaction_uid
        assert archive.report(own_port, archive.asked[1]) == [0]
        bench.schedule()
    assert bench.states() == ["committed", "committed", "failed", "committed"]
    assert bench.table() == "archive: delivered, 1 NOT committed"
    told = bench.told()
    for words in (f"{lost}: status 0x0112 (no such SOP Instance); it is sent again", f"{wrong}: status 0x0119"):
        assert any(words in text for text in told)


def test_an_archive_that_loses_everything_is_not_filled_for_ever(bench: Bench) -> None:
    archive = Archive()
    with archive.running() as port, bench.receiving() as own_port:
        bench.rules(port)
        (uid,) = bench.results(1)
        archive.failing = {uid: 0x0112}
        for _ in range(6):
            bench.deliver()
            bench.time_passes()
            bench.ask()
            if archive.asked:
                archive.report(own_port, archive.asked[-1])
            bench.schedule()
        assert archive.stored == [uid] * 4
        assert bench.states() == ["failed"]
        assert "given up" in bench.told()[-1]
        archive.failing = {}
        with bench.node.pool.connection() as connection:
            assert storage.commitment_requests.ask_again(connection, "archive") == 1
        bench.ask()
        archive.report(own_port, archive.asked[-1])
        bench.schedule()
    assert bench.states() == ["committed"]


def test_a_lost_report_is_asked_for_again_and_believed_when_it_comes_late(bench: Bench) -> None:
    archive = Archive()
    with archive.running() as port, bench.receiving() as own_port:
        bench.rules(port)
        first, second = bench.results(2)
        bench.deliver()
        bench.ask()
        bench.schedule()
        assert bench.states() == ["asked", "asked"]
        bench.time_passes()
        assert bench.schedule() == ["archive"]
        bench.ask()
        assert [state for _, state in bench.transactions()] == ["timed_out", "requested"]
        late, newer = archive.asked
        archive.failing = {second: 0x0112}  # what it did not have then is for the newer one to say
        assert archive.report(own_port, late) == [0]
        bench.schedule()
        assert bench.states() == ["committed", "asked"]
        archive.failing = {first: 0x0112}  # committed is for good
        assert archive.report(own_port, newer) == [0]
        bench.schedule()
    assert bench.states() == ["committed", "committed"]
    assert archive.stored == [first, second]


def test_an_archive_that_never_reports_is_given_up_and_told(bench: Bench) -> None:
    archive = Archive()
    with archive.running() as port:
        bench.rules(port)
        bench.results(1)
        bench.deliver()
        for _ in range(8):
            bench.ask()
            bench.time_passes()
            bench.schedule()
    assert len(archive.asked) == commitment_requests.REQUESTS_AT_MOST
    assert bench.states() == ["failed"]
    assert "no report within 3600 s; given up after 5 requests" in bench.told()[-1]
    assert "NOT committed" in bench.story()


def test_killed_between_the_request_and_its_note(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    class KilledError(BaseException):
        pass

    def killed(*_: object) -> None:
        raise KilledError

    archive = Archive()
    with archive.running() as port, bench.receiving() as own_port:
        bench.rules(port)
        bench.results(1)
        bench.deliver()
        with monkeypatch.context() as patch:
            patch.setattr(commitment_requests, "_requested", killed)
            with pytest.raises(KilledError):
                bench.ask()
        (asked,) = archive.wait_asked(1)
        assert [state for _, state in bench.transactions()] == ["asking"]
        bench.ask()  # somebody else may still be at it
        assert len(archive.asked) == 1
        bench.time_passes()
        assert bench.schedule() == ["archive"]
        assert "the worker that asked was stopped" in bench.told()[-1]
        assert archive.report(own_port, asked) == [0]
        bench.schedule()
        assert bench.states() == ["committed"]
        bench.ask()
    assert len(archive.asked) == 1


def test_killed_before_the_journal_was_emptied(bench: Bench) -> None:
    """The scheduler dies after it noted a report, and reads it once more."""
    archive = Archive()
    with archive.running() as port, bench.receiving() as own_port:
        bench.rules(port)
        (uid,) = bench.results(1)
        archive.failing = {uid: 0x0112}
        bench.deliver()
        bench.ask()
        archive.report(own_port, archive.asked[0])
        folder = bench.node.settings.incoming_dir
        entries = {path: path.read_bytes() for path in folder.iterdir()}
        bench.schedule()
        for path, content in entries.items():
            path.write_bytes(content)
        bench.schedule()
    assert bench.run("SELECT sent_again FROM delivery_commitment") == [(1,)]
    assert len(bench.told()) == 1


def test_an_archive_that_is_away_is_asked_the_same_later(bench: Bench) -> None:
    archive = Archive()
    with archive.running() as port, bench.receiving() as own_port:
        bench.rules(port)
        bench.results(1)
        bench.deliver()
    for _ in range(3):
        bench.ask()
        bench.time_passes()
    ((transaction_uid, state),) = bench.transactions()
    assert state == "waiting"
    assert len(bench.told()) == 1  # not one line per attempt
    assert "cannot be asked for storage commitment" in bench.told()[0]
    with archive.running(port), bench.receiving() as own_port:
        assert bench.schedule() == ["archive"]
        bench.ask()
        (asked,) = archive.asked
        assert asked.transaction_uid == transaction_uid
        archive.report(own_port, asked)
        bench.schedule()
    assert bench.states() == ["committed"]


def test_an_archive_that_refuses_is_told_and_left(bench: Bench) -> None:
    archive = Archive(action_status=0x0124)
    with archive.running() as port:
        bench.rules(port)
        bench.results(2)
        bench.deliver()
        bench.ask()
        bench.time_passes()
        assert bench.schedule() == []
    assert bench.states() == ["failed", "failed"]
    assert "archive does not commit 2 objects" in bench.told()[0]
    assert "not authorised" in bench.told()[0]


def test_without_the_key_nobody_is_asked(bench: Bench) -> None:
    archive = Archive()
    with archive.running() as port:
        bench.rules(port, keys="commitment: false")
        bench.results(1)
        bench.deliver()
        assert bench.states() == []
        assert bench.table() == "archive: delivered"
        bench.rules(port)
        bench.results(1)
        bench.deliver()
        bench.rules(port, keys="commitment: false")
        bench.ask()
    assert archive.asked == []
    assert bench.states() == ["failed"]
    assert "the rules do not ask for its commitment any more" in bench.told()[-1]


def test_another_application_commits_what_the_first_one_stored(bench: Bench) -> None:
    storing, committing = Archive(), Archive("KEEPER")
    with storing.running() as port, committing.running() as other_port, bench.receiving() as own_port:
        bench.rules(port, keys=f"commitment: {{port: {other_port}, ae_title: KEEPER}}")
        assert [sender.ae_title for sender in archives(bench.node.configuration())] == ["ARCHIVE", "KEEPER"]
        uids = bench.results(1)
        bench.deliver()
        bench.ask()
        assert (storing.stored, storing.asked, committing.stored) == (uids, [], [])
        assert committing.report(own_port, *committing.asked) == [0]
        bench.schedule()
    assert bench.states() == ["committed"]


def test_what_arrives_together_is_asked_about_together(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commitment_requests, "SETTLE_S", 3600.0)
    archive = Archive()
    with archive.running() as port:
        bench.rules(port)
        bench.results(3)
        bench.deliver()
        assert bench.schedule() == []
        bench.ask()
        assert archive.asked == []
        bench.run("UPDATE delivery_commitment SET not_before = now() WHERE delivery_id % 3 = 0 RETURNING 1")
        assert bench.schedule() == ["archive"]
        bench.ask()
        assert [len(asked.references) for asked in archive.asked] == [3]


def test_two_workers_ask_once(bench: Bench) -> None:
    archive = Archive()
    with archive.running() as port:
        bench.rules(port)
        bench.results(5)
        bench.deliver()
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: bench.ask(), range(4)))
    assert sorted(one.sop_instance_uid for asked in archive.asked for one in asked.references) == sorted(archive.stored)


def test_what_was_asked_long_ago_is_forgotten(tmp_path: Path) -> None:
    transactions = Transactions(tmp_path / "asked")
    transactions.sweep()
    transactions.open("2.25.1", [Reporter("ARCHIVE", ["127.0.0.1"])])
    transactions.sweep()
    assert transactions.may_report("2.25.1", "ARCHIVE", "127.0.0.1")
    assert not transactions.may_report("2.25.1", "OTHER", "127.0.0.1")
    assert not transactions.may_report("2.25.2", "ARCHIVE", "127.0.0.1")
    transactions.sweep(kept_s=-1.0)
    assert not transactions.may_report("2.25.1", "ARCHIVE", "127.0.0.1")
