"""The acceptor, with real associations."""

import errno
import os
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from programs import need
from pydicom import dcmread
from pynetdicom import AE
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.presentation import build_context
from tiny_objects import CT, EXPLICIT_LITTLE, dataset_bytes, new_uid, write_object, write_objects

from dicom_node.dimse.admission import Admission, NotAdmittedError, Reject, Unlimited
from dicom_node.dimse.contexts import IMPLICIT_LITTLE, TRANSFER_SYNTAXES, VERIFICATION, supported_contexts
from dicom_node.dimse.part10 import read_file_head
from dicom_node.dimse.requests import AssociationFacts, InMemory, StoreRequest
from dicom_node.dimse.scp import running_scp
from dicom_node.dimse.scu import RequestorAssociation, echo, send_files
from dicom_node.dimse.status import AbortAssociationError

SHARED = Path(__file__).parents[2].parent / "shared" / "data"


class Kept:
    """Remembers what the acceptor hands on."""

    def __init__(self) -> None:
        self.datasets: dict[str, bytes] = {}
        self.requests: list[StoreRequest] = []
        self.ended: list[tuple[AssociationFacts, str]] = []

    def receive(self, request: StoreRequest, dataset: bytes) -> None:
        self.requests.append(request)
        self.datasets[request.sop_instance_uid] = dataset

    def closed(self, association: AssociationFacts, state: str) -> None:
        self.ended.append((association, state))


@pytest.fixture
def kept() -> Kept:
    return Kept()


@contextmanager
def association(port: int, *contexts: Any) -> Iterator[Any]:
    ae = AE("SCU")
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 10
    made = ae.associate("127.0.0.1", port, ae_title="NODE", contexts=list(contexts) or [build_context(CT)])
    made.__class__ = RequestorAssociation
    try:
        yield made
    finally:
        if made.is_established:
            made.release()


def test_echo(kept: Kept) -> None:
    with running_scp("NODE", open_sink=InMemory(kept.receive)) as port:
        answer = echo("127.0.0.1", port, "NODE", "SCU")
    assert answer.seconds is not None
    assert answer.reason == ""


def test_every_transfer_syntax_byte_for_byte(kept: Kept, tmp_path: Path) -> None:
    sent = {}
    for number, syntax in enumerate(TRANSFER_SYNTAXES):
        uid, dataset = new_uid(), os.urandom(100_001)  # odd, larger than a PDU of many peers, and no Dataset at all
        sent[uid] = (syntax, dataset, write_object(tmp_path / f"{number}.dcm", dataset, uid, transfer_syntax=syntax))
    with running_scp("NODE", open_sink=InMemory(kept.receive)) as port:
        results = send_files([path for _, _, path in sent.values()], "127.0.0.1", port, "NODE", "SCU")
    assert [r.status for r in results] == [0] * 16
    got = {r.sop_instance_uid: (r.transfer_syntax_uid, kept.datasets[r.sop_instance_uid]) for r in kept.requests}
    assert got == {uid: (syntax, dataset) for uid, (syntax, dataset, _) in sent.items()}


def test_sixteen_encodings_of_one_ct(kept: Kept) -> None:
    folder = SHARED / "codecs" / "ct_sixteen_syntaxes"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    files = sorted(folder.glob("*.dcm*"))
    with running_scp("NODE", open_sink=InMemory(kept.receive)) as port:
        for path in files:  # they share one SOP Instance UID
            head = read_file_head(path)
            (result,) = send_files([path], "127.0.0.1", port, "NODE", "SCU")
            if head.transfer_syntax_uid in TRANSFER_SYNTAXES:
                assert kept.datasets.pop(head.sop_instance_uid) == path.read_bytes()[head.dataset_offset :], path.name
            else:
                assert result.is_refused
                assert "CT Image Storage" in result.reason
    assert len(kept.requests) == 14


def test_dcmtk_sends(kept: Kept, tmp_path: Path) -> None:
    files = write_objects(tmp_path, 5)
    with running_scp("NODE", open_sink=InMemory(kept.receive), closed=kept.closed) as port:
        paths = [str(path) for path in files.values()]
        subprocess.run([need("storescu"), "-aec", "NODE", "127.0.0.1", str(port), *paths], check=True, timeout=30)
    assert kept.datasets.keys() == files.keys()
    for uid, path in files.items():
        received = dcmread(BytesIO(kept.datasets[uid]), force=True)
        original = dcmread(path)
        assert received == original
    assert [state for _, state in kept.ended] == ["released"]


def test_facts_of_the_association(kept: Kept, tmp_path: Path) -> None:
    files = write_objects(tmp_path, 2)
    with running_scp("NODE", open_sink=InMemory(kept.receive), closed=kept.closed) as port:
        send_files(list(files.values()), "127.0.0.1", port, "NODE", "MODALITY1")
    first, second = (request.association for request in kept.requests)
    assert first == second == kept.ended[0][0]
    assert (first.calling_ae_title, first.called_ae_title, first.peer_host) == ("MODALITY1", "NODE", "127.0.0.1")


def test_called_ae_title_must_be_ours(kept: Kept) -> None:
    with running_scp("NODE", open_sink=InMemory(kept.receive)) as port:
        assert "called AE title not recognised" in echo("127.0.0.1", port, "OTHER", "SCU").reason


def test_unknown_sender_is_rejected(kept: Kept) -> None:
    asked = []

    def admit(calling_ae_title: str, called_ae_title: str, peer_host: str) -> Admission:
        asked.append((calling_ae_title, called_ae_title, peer_host))
        if calling_ae_title != "KNOWN":
            raise NotAdmittedError("sender not known", Reject.CALLING_AE_TITLE)
        return Unlimited()

    with running_scp("NODE", open_sink=InMemory(kept.receive), closed=kept.closed, admit=admit) as port:
        assert "calling AE title not recognised" in echo("127.0.0.1", port, "NODE", "STRANGER").reason
        assert echo("127.0.0.1", port, "NODE", "KNOWN").seconds is not None
    assert asked == [("STRANGER", "NODE", "127.0.0.1"), ("KNOWN", "NODE", "127.0.0.1")]
    assert len(kept.ended) == 1


def test_a_policy_that_fails_lets_nobody_in(kept: Kept) -> None:
    def broken(_calling: str, _called: str, _peer: str) -> Admission:
        raise RuntimeError("no answer")

    with running_scp("NODE", open_sink=InMemory(kept.receive), admit=broken) as port:
        assert "rejected" in echo("127.0.0.1", port, "NODE", "SCU").reason


def test_limit_of_associations_counts_accepted_ones_only(kept: Kept, eventually: Callable[..., None]) -> None:
    with running_scp("NODE", open_sink=InMemory(kept.receive), closed=kept.closed, max_associations=1) as port:
        half_open = [socket.create_connection(("127.0.0.1", port)) for _ in range(5)]
        with association(port) as first:
            assert first.is_established
            assert "local limit exceeded" in echo("127.0.0.1", port, "NODE", "SCU").reason
        eventually(lambda: kept.ended, "the first association ended")
        assert echo("127.0.0.1", port, "NODE", "SCU").seconds is not None
        for connection in half_open:
            connection.close()


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), 0xA700),
        (OSError(errno.EIO, "Input/output error"), 0xA700),
        (RuntimeError("a mistake of ours"), 0x0110),
    ],
)
def test_what_is_not_stored_is_not_success(tmp_path: Path, error: Exception, status: int) -> None:
    first = [error]

    def receive(_request: StoreRequest, _dataset: bytes) -> None:
        if first:
            raise first.pop()

    files = list(write_objects(tmp_path, 2).values())
    with running_scp("NODE", open_sink=InMemory(receive)) as port:
        refused, stored = send_files(files, "127.0.0.1", port, "NODE", "SCU")
    assert refused.status == status
    assert refused.is_refused
    assert stored.is_stored  # the association goes on


def test_abort_instead_of_an_answer(tmp_path: Path, kept: Kept) -> None:
    def receive(_request: StoreRequest, _dataset: bytes) -> None:
        raise AbortAssociationError

    files = list(write_objects(tmp_path, 2).values())
    with running_scp("NODE", open_sink=InMemory(receive), closed=kept.closed) as port:
        results = send_files(files, "127.0.0.1", port, "NODE", "SCU")
    assert [(r.is_stored, r.is_refused) for r in results] == [(False, False)] * 2
    assert [state for _, state in kept.ended] == ["aborted"]


def _store(
    made: Any, uid: str | None, dataset: bytes | None = b"12345678", sop_class: str = CT, context: int = 1
) -> Any:
    """Status that a hand-made C-STORE request gets, or "no answer"."""
    request = C_STORE()
    request.MessageID = 7
    request.AffectedSOPClassUID = sop_class
    request.AffectedSOPInstanceUID = uid
    request.Priority = 2
    request.DataSet = None if dataset is None else BytesIO(dataset)
    made._reactor_checkpoint.clear()
    made.dimse.send_msg(request, context)
    _, response = made.dimse.get_msg(block=True)
    made._reactor_checkpoint.set()
    return "no answer" if response is None else response.Status


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI", "ignore:The value length")
@pytest.mark.parametrize(
    ("uid", "status"),
    [
        (None, 0xC000),
        ("", 0xC000),
        ("    ", 0xC000),
        ("1." + "2" * 63, 0x0117),
        ("1." + "2" * 5000, 0x0117),
        ("../../etc/passwd", 0x0117),
        ("12", 0x0117),
    ],
)
def test_a_uid_that_is_none_gets_a_failure_status(kept: Kept, uid: str | None, status: int) -> None:
    with running_scp("NODE", open_sink=InMemory(kept.receive)) as port, association(port) as made:
        assert _store(made, uid) == status
        assert _store(made, "2.25.9") == 0x0000  # the association goes on
    assert list(kept.datasets) == ["2.25.9"]


def test_no_dataset_and_no_storage(kept: Kept) -> None:
    contexts = build_context(CT), build_context(VERIFICATION)
    with running_scp("NODE", open_sink=InMemory(kept.receive)) as port, association(port, *contexts) as made:
        assert _store(made, "2.25.9", dataset=None) == 0xC000
        assert _store(made, "2.25.9", context=3) == 0x0122
        assert _store(made, "2.25.9", sop_class="1.2.840.10008.5.1.4.31") == 0x0122
    assert not kept.datasets


def test_private_sop_classes_are_kept_and_other_services_are_not(kept: Kept, tmp_path: Path) -> None:
    private, worklist = "1.3.46.670589.11.0.0.12.1", "1.2.840.10008.5.1.4.31"
    path = write_object(tmp_path / "a.dcm", dataset_bytes("2.25.9"), "2.25.9", sop_class=private)
    with running_scp("NODE", open_sink=InMemory(kept.receive)) as port:
        (result,) = send_files([path], "127.0.0.1", port, "NODE", "SCU")
        assert result.is_stored
        with association(port, build_context(worklist), build_context(VERIFICATION)) as made:
            assert [str(c.abstract_syntax) for c in made.rejected_contexts] == [worklist]
            assert made.rejected_contexts[0].result == 0x03  # abstract syntax not supported


def test_order_of_transfer_syntaxes_is_the_senders() -> None:
    j2k, unknown = "1.2.840.10008.1.2.4.90", "1.2.3.4.5"
    proposed = [
        build_context(CT, [unknown, j2k, IMPLICIT_LITTLE, EXPLICIT_LITTLE]),
        build_context("1.2.3.4", [unknown]),
    ]
    supported = {str(c.abstract_syntax): [str(s) for s in c.transfer_syntax] for c in supported_contexts(proposed)}
    assert supported[CT] == [j2k, EXPLICIT_LITTLE, IMPLICIT_LITTLE]
    assert unknown not in supported["1.2.3.4"]


def test_a_cut_connection_is_an_aborted_association(kept: Kept, eventually: Callable[..., None]) -> None:
    with running_scp("NODE", open_sink=InMemory(kept.receive), closed=kept.closed) as port:
        with association(port) as made:
            assert _store(made, "2.25.9") == 0
            made.dul.socket.socket.shutdown(socket.SHUT_RDWR)
        eventually(lambda: kept.ended, "the end was noticed")
    assert kept.ended[0][1] == "aborted"


@pytest.mark.parametrize("length", [0xFFFFFFFF, 0x7FFFFFFF, 17 << 20])
def test_an_absurd_pdu_is_cut_off(kept: Kept, length: int) -> None:
    with running_scp("NODE", open_sink=InMemory(kept.receive)) as port:
        with socket.create_connection(("127.0.0.1", port), 10) as peer:
            peer.sendall(struct.pack(">BBI", 1, 0, length) + b"\0" * 100)
            answer = b"".join(iter(lambda: peer.recv(100), b""))
        assert answer == bytes((7, 0, 0, 0, 0, 4, 0, 0, 2, 6))  # A-ABORT: invalid PDU parameter value
        assert echo("127.0.0.1", port, "NODE", "SCU").seconds is not None


def test_probes_leave_nothing_behind(kept: Kept, eventually: Callable[..., None]) -> None:
    with running_scp("NODE", open_sink=InMemory(kept.receive)) as port:
        before = threading.active_count()
        for number in range(60):
            probe = socket.create_connection(("127.0.0.1", port))
            if number % 2:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            probe.close()
        eventually(lambda: threading.active_count() <= before, "threads of probes end")
        assert echo("127.0.0.1", port, "NODE", "SCU").seconds is not None


def test_a_store_in_progress_is_finished_and_answered(tmp_path: Path, kept: Kept) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def receive(request: StoreRequest, dataset: bytes) -> None:
        entered.set()
        assert go_on.wait(10)
        kept.receive(request, dataset)

    files = list(write_objects(tmp_path, 2).values())
    results: list[Any] = []
    with running_scp("NODE", open_sink=InMemory(receive), closed=kept.closed) as port:
        sender = threading.Thread(target=lambda: results.extend(send_files(files, "127.0.0.1", port, "NODE", "SCU")))
        sender.start()
        assert entered.wait(10)
        threading.Timer(0.3, go_on.set).start()
    sender.join(10)
    assert [r.is_stored for r in results].count(True) == len(kept.requests) >= 1
    assert results[0].is_stored


def test_a_port_still_taken_is_tried_again(kept: Kept) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match="in use"), running_scp("NODE", open_sink=InMemory(kept.receive), port=port):
            pass
        threading.Timer(0.3, taken.close).start()
        with running_scp("NODE", open_sink=InMemory(kept.receive), port=port, bind_within_s=10) as bound:
            assert bound == port
            assert echo("127.0.0.1", port, "NODE", "SCU").seconds is not None


def test_what_is_cut_off_in_the_middle_is_discarded(eventually: Callable[..., None]) -> None:
    events: list[str] = []

    class Sink:
        def write(self, parts: Sequence[memoryview]) -> None:
            events.append(f"{sum(map(len, parts))} bytes")

        def commit(self) -> None:
            events.append("committed")

        def discard(self) -> None:
            events.append("discarded")

    ended: list[str] = []
    with running_scp("NODE", open_sink=lambda _: Sink(), closed=lambda _, state: ended.append(state)) as port:
        with association(port) as made:
            command = C_STORE()
            command.MessageID, command.Priority = 1, 2
            command.AffectedSOPClassUID, command.AffectedSOPInstanceUID = CT, "2.25.9"
            command.DataSet = BytesIO(b"x" * 400_000)
            message = C_STORE_RQ()
            message.primitive_to_message(command)
            first, *rest = message.encode_msg(1, 16384)
            made.dul.send_pdu(first)
            for fragment in rest[:-1]:
                made.dul.send_pdu(fragment)
            eventually(lambda: events, "some of it was written")
            made.abort()
        eventually(lambda: ended, "the end was noticed")
    assert events[-1] == "discarded"
    assert "committed" not in events
