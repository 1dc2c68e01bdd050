"""The requestor, against real acceptors."""

import socket
from pathlib import Path

import pytest
from tiny_objects import dataset_bytes, new_uid, write_object, write_objects

from dicom_node.dimse.admission import Admission, NotAdmittedError, Reject
from dicom_node.dimse.part10 import read_file_head
from dicom_node.dimse.requests import InMemory
from dicom_node.dimse.scp import running_scp
from dicom_node.dimse.scu import SendResult, echo, send_files
from dicom_node.dimse.standin import StandInPacs
from dicom_node.dimse.status import describe, is_stored, is_transient


def test_files_arrive_as_they_are_and_are_counted(tmp_path: Path) -> None:
    files = write_objects(tmp_path, 5)
    progress: list[SendResult] = []
    pacs = StandInPacs(tmp_path / "pacs")
    with pacs.running() as port:
        results = send_files(list(files.values()), "127.0.0.1", port, "PACS", "NODE", progress.append)
    assert results == progress
    assert [r.path for r in results] == list(files.values())
    for kept in pacs.kept:
        assert kept.study_instance_uid == "2.25.1"
        sent = files[kept.sop_instance_uid]
        assert kept.path is not None
        offset = read_file_head(sent).dataset_offset
        kept_offset = read_file_head(kept.path).dataset_offset
        assert kept.path.read_bytes()[kept_offset:] == sent.read_bytes()[offset:]
    assert len(pacs.wait_for(5, 0)) == 5


def test_more_presentation_contexts_than_one_association_holds(tmp_path: Path) -> None:
    paths = []
    for number in range(130):
        uid = new_uid()
        paths.append(write_object(tmp_path / f"{number}.dcm", dataset_bytes(uid), uid, sop_class=f"1.2.3.{number}"))
    pacs = StandInPacs()
    with pacs.running() as port:
        results = send_files(paths, "127.0.0.1", port, "PACS", "NODE")
    assert all(r.is_stored for r in results)
    assert {k.sop_class_uid for k in pacs.kept} == {f"1.2.3.{number}" for number in range(130)}


def test_what_the_peer_does_not_take_is_named(tmp_path: Path) -> None:
    (good,) = write_objects(tmp_path, 1).values()
    uid = new_uid()
    mpeg = write_object(tmp_path / "mpeg.dcm", b"1234", uid, transfer_syntax="1.2.840.10008.1.2.4.100")
    pacs = StandInPacs()
    with pacs.running() as port:
        both = send_files([mpeg, good], "127.0.0.1", port, "PACS", "NODE")
        alone = send_files([mpeg], "127.0.0.1", port, "PACS", "NODE")
    assert [(r.is_stored, r.is_refused) for r in both] == [(False, True), (True, False)]
    assert "CT Image Storage" in both[0].reason
    assert "MPEG2" in both[0].reason
    assert alone[0].is_refused
    assert "CT Image Storage" in alone[0].reason


def test_files_that_cannot_be_sent_do_not_hold_up_others(tmp_path: Path) -> None:
    (good,) = write_objects(tmp_path, 1).values()
    (tmp_path / "text").write_text("no DICOM")
    pacs = StandInPacs()
    with pacs.running() as port:
        paths = [tmp_path / "text", tmp_path / "absent", good]
        results = {r.path.name: r for r in send_files(paths, "127.0.0.1", port, "PACS", "NODE")}
    assert results["text"].is_refused
    assert results["absent"].is_refused
    assert results[good.name].is_stored


def test_nobody_there(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        results = send_files(list(write_objects(tmp_path, 2).values()), "127.0.0.1", port, "PACS", "NODE")
        answer = echo("127.0.0.1", port, "PACS", "NODE")
    assert [(r.is_stored, r.is_refused) for r in results] == [(False, False)] * 2
    assert str(port) in results[0].reason
    assert answer.seconds is None
    assert str(port) in answer.reason


def test_rejected_for_good_and_for_now(tmp_path: Path) -> None:
    files = list(write_objects(tmp_path, 2).values())

    def stranger(*_: str) -> Admission:
        raise NotAdmittedError("not known", Reject.CALLING_AE_TITLE)

    with running_scp("PACS", open_sink=InMemory(lambda _request, _dataset: None), admit=stranger) as port:
        rejected = send_files(files, "127.0.0.1", port, "PACS", "NODE")
    assert all(r.is_refused and "calling AE title not recognised" in r.reason for r in rejected)
    with running_scp("PACS", open_sink=InMemory(lambda _request, _dataset: None), max_associations=0) as port:
        busy = send_files(files, "127.0.0.1", port, "PACS", "NODE")
    assert not any(r.is_refused or r.is_stored for r in busy)


@pytest.mark.parametrize(
    ("status", "stored", "transient"),
    [(0, True, False), (0xB000, True, False), (0xB007, True, False), (0xA700, False, True), (0xA7FF, False, True),
     (0xA900, False, False), (0xC123, False, False), (0x0122, False, False), (0x0110, False, True)],
)  # fmt: skip
def test_what_a_status_means(status: int, stored: bool, transient: bool) -> None:
    assert is_stored(status) is stored
    assert is_transient(status) is transient
    assert f"0x{status:04X}" in describe(status)
