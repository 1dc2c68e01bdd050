"""From a C-STORE to a durable journal entry, without a database."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_objects import CT, EXPLICIT_LITTLE, dataset_bytes, new_uid, write_objects

import dicom_node.reception
from dicom_node.dimse.part10 import read_file_head
from dicom_node.dimse.requests import AssociationFacts, StoreRequest
from dicom_node.dimse.scp import running_scp
from dicom_node.dimse.scu import echo, send_files
from dicom_node.reception import ENTRY_NAME, Incoming

ASSOCIATION = AssociationFacts("0123456789abcdef", "MODALITY1", "LIVERNODE", "10.1.2.3", 1_700_000_000_000_000_000)


def store(
    incoming: Incoming, dataset: bytes = b"12345678", uid: str = "2.25.9", by: AssociationFacts = ASSOCIATION
) -> None:
    sink = incoming.open_sink(StoreRequest(by, CT, uid, EXPLICIT_LITTLE))
    sink.write([memoryview(dataset)])
    sink.commit()


def entries(folder: Path) -> list[str]:
    """Kinds of the entries, in order; every name is one of the journal's."""
    found = []
    for name in sorted(os.listdir(folder)):
        match = ENTRY_NAME.fullmatch(name)
        assert match, name
        found.append(match["kind"])
    return found


def test_everything_is_written_down_in_order(tmp_path: Path) -> None:
    incoming = Incoming(tmp_path / "incoming", "receiver")
    store(incoming, b"first", "2.25.8")
    store(incoming, b"second", "2.25.9")
    incoming.closed(ASSOCIATION, "released")
    names = sorted(os.listdir(tmp_path / "incoming"))
    assert entries(tmp_path / "incoming") == ["started.json", "opened.json", "dcm", "dcm", "closed.json"]
    contents = [(tmp_path / "incoming" / name).read_bytes() for name in names]
    assert json.loads(contents[0]) == {"receiver": "receiver"}
    assert json.loads(contents[1]) == {
        "association_id": "0123456789abcdef", "receiver": "receiver", "calling_ae_title": "MODALITY1",
        "called_ae_title": "LIVERNODE", "peer_host": "10.1.2.3", "opened_at_ns": ASSOCIATION.opened_at_ns,
    }  # fmt: skip
    assert json.loads(contents[4]) == {"association_id": "0123456789abcdef", "state": "released", "stored": 2}
    for content, (uid, dataset) in zip(contents[2:4], [("2.25.8", b"first"), ("2.25.9", b"second")], strict=True):
        (tmp_path / "one").write_bytes(content)
        head = read_file_head(tmp_path / "one")
        assert (head.sop_class_uid, head.sop_instance_uid, head.transfer_syntax_uid) == (CT, uid, EXPLICIT_LITTLE)
        assert content[head.dataset_offset :] == dataset


def test_an_association_that_stored_nothing_leaves_no_trace(tmp_path: Path) -> None:
    incoming = Incoming(tmp_path, "receiver")
    incoming.closed(ASSOCIATION, "aborted")
    assert entries(tmp_path) == ["started.json"]


def test_on_disk_before_it_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    incoming = Incoming(tmp_path, "receiver")
    store(incoming)  # the association is known from here on
    steps: list[str] = []
    fsync, rename, write, writev = os.fsync, os.rename, os.write, os.writev

    def spy_fsync(descriptor: int) -> None:
        steps.append("fsync folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "fsync file")
        fsync(descriptor)

    def spy_rename(source: Any, target: Any) -> None:
        steps.append("rename")
        rename(source, target)

    def spy_write(descriptor: int, part: Any) -> int:
        steps.append("write")
        return write(descriptor, part[:100])  # a short write must not cut the object

    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr(os, "rename", spy_rename)

    def spy_writev(descriptor: int, parts: Any) -> int:
        steps.append("write")
        return writev(descriptor, [parts[0], parts[1][:100]])

    monkeypatch.setattr(os, "write", spy_write)
    monkeypatch.setattr(os, "writev", spy_writev)
    store(incoming, b"x" * 1000, "2.25.10")
    monkeypatch.undo()
    assert [step for step in steps if step != "write"] == ["fsync file", "rename", "fsync folder"]
    assert steps[-3] == "fsync file"
    last = sorted(tmp_path.glob("*.dcm"))[-1]
    assert last.read_bytes().endswith(b"x" * 1000)


@pytest.mark.parametrize("step", ["writev", "fsync", "rename"])
def test_disk_full_is_refused_and_reception_goes_on_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    incoming = Incoming(tmp_path / "incoming", "receiver")
    files = write_objects(tmp_path, 3)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with running_scp("NODE", open_sink=incoming.open_sink, closed=incoming.closed) as port:
        first, *rest = files.values()
        with monkeypatch.context() as patch:
            patch.setattr(dicom_node.reception.os, step, full)
            (refused,) = send_files([first], "127.0.0.1", port, "NODE", "SCU")
        assert refused.status == 0xA700
        assert entries(tmp_path / "incoming") == ["started.json"]
        results = send_files(rest, "127.0.0.1", port, "NODE", "SCU")
        assert all(r.is_stored for r in results)
    kinds = entries(tmp_path / "incoming")
    assert kinds == ["started.json", "opened.json", "dcm", "dcm", "closed.json"]


def test_the_end_is_noted_when_there_is_room_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    incoming = Incoming(tmp_path, "receiver")
    store(incoming)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(dicom_node.reception.os, "fsync", full)
        incoming.closed(ASSOCIATION, "released")
    assert entries(tmp_path) == ["started.json", "opened.json", "dcm"]
    other = AssociationFacts("fedcba9876543210", "MODALITY2", "LIVERNODE", "10.1.2.4", 1)
    store(incoming, b"1", "2.25.10", other)
    assert entries(tmp_path) == ["started.json", "opened.json", "dcm", "closed.json", "opened.json", "dcm"]


def test_a_start_clears_what_this_receiver_left_half_written(tmp_path: Path) -> None:
    (tmp_path / ".receiver-17-0123456789abcdef-000001").write_bytes(b"half")
    (tmp_path / ".other-17-0123456789abcdef-000001").write_bytes(b"half")
    Incoming(tmp_path, "receiver")
    assert [name for name in os.listdir(tmp_path) if name.startswith(".")] == [".other-17-0123456789abcdef-000001"]


def test_time_never_steps_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    incoming = Incoming(tmp_path, "receiver")
    store(incoming, b"first", "2.25.8")
    monkeypatch.setattr(time, "time_ns", lambda: 1)
    store(incoming, b"second", "2.25.9")
    Incoming(tmp_path, "receiver")  # also not over a restart
    names = sorted(os.listdir(tmp_path))
    assert names[-1].endswith("started.json")
    assert (tmp_path / names[-2]).read_bytes().endswith(b"second")


# ------------------------------------------------------------------ the process

RECEIVE = """
import sys
from pathlib import Path
from dicom_node.reception import receive
from dicom_node.settings import Settings
receive(Settings(), Path(sys.argv[1]))
"""


def start_receiver(data_dir: Path, port: int) -> subprocess.Popen[bytes]:
    ready = data_dir / "ready"
    ready.unlink(missing_ok=True)
    environment = {
        **os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "DICOM_NODE_DATA_DIR": str(data_dir),
        "DICOM_NODE_DICOM_HOST": "127.0.0.1", "DICOM_NODE_DICOM_PORT": str(port),
        "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nothing",
    }  # fmt: skip
    return subprocess.Popen([sys.executable, "-c", RECEIVE, str(ready)], env=environment)


def test_killed_in_mid_association_and_back_on_its_port(tmp_path: Path, eventually: Callable[..., None]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    files = write_objects(tmp_path, 40)
    receiver = start_receiver(tmp_path, port)
    acknowledged: list[str] = []
    try:
        eventually((tmp_path / "ready").exists, "the receiver is ready", timeout_s=30)

        def kill_after_ten(result: Any) -> None:
            if result.is_stored:
                acknowledged.append(result.sop_instance_uid)
            if len(acknowledged) == 10:
                receiver.send_signal(signal.SIGKILL)

        send_files(list(files.values()), "127.0.0.1", port, "LIVERNODE", "SCU", kill_after_ten)
        receiver.wait(10)
        receiver = start_receiver(tmp_path, port)
        eventually((tmp_path / "ready").exists, "the receiver is back", timeout_s=30)
        assert echo("127.0.0.1", port, "LIVERNODE", "SCU").seconds is not None
    finally:
        receiver.terminate()
        assert receiver.wait(15) == 0  # SIGTERM is a clean end
    incoming = tmp_path / "incoming"
    stored = {read_file_head(path).sop_instance_uid for path in incoming.glob("*.dcm")}
    assert len(acknowledged) >= 10
    assert stored >= set(acknowledged)
    kinds = entries(incoming)
    assert kinds[0] == kinds[-1] == "started.json"
    assert "closed.json" not in kinds


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_uids_of_a_request_never_become_paths(tmp_path: Path) -> None:
    incoming = Incoming(tmp_path / "incoming", "../receiver")
    store(incoming, dataset_bytes("../../x"), new_uid())
    assert [p.name for p in tmp_path.iterdir()] == ["incoming"]
    assert len(entries(tmp_path / "incoming")) == 3
