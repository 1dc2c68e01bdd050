"""Delivery into a folder, and what can be wrong with one."""

import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sent import Deliver

from dicom_node.delivery import Fate, Outcome, folder
from dicom_node.routing.destination import Destination
from storage.records import Delivery

DONE = Outcome(Fate.DELIVERED, 0)


def into(path: Path) -> Destination:
    return Destination("share", "folder", path=str(path))


@pytest.fixture
def share(tmp_path: Path) -> Path:
    (tmp_path / "share").mkdir()
    return tmp_path / "share"


def target_of(share: Path, delivery: Delivery) -> Path:
    return share / delivery.study_instance_uid / f"{delivery.sop_instance_uid}.dcm"


def files(share: Path) -> set[Path]:
    return {path for path in share.rglob("*") if path.is_file()}


def test_one_file_per_object_with_the_bytes_of_the_store(
    results: list[Delivery], deliver_to: Deliver, tmp_path: Path, share: Path
) -> None:
    assert deliver_to(into(share), results) == [(number, DONE) for number in (1, 2, 3, 4)]
    for result in results:
        assert target_of(share, result).read_bytes() == (tmp_path / "store" / result.path).read_bytes()
    assert files(share) == {target_of(share, result) for result in results}


def test_again_is_no_work(results: list[Delivery], deliver_to: Deliver, share: Path) -> None:
    deliver_to(into(share), results)
    before = {path: path.stat().st_mtime_ns for path in files(share)}
    reports = deliver_to(into(share), results)
    assert {outcome.fate for _, outcome in reports} == {Fate.DELIVERED}
    assert {path: path.stat().st_mtime_ns for path in files(share)} == before


def test_other_bytes_under_a_name_stay(results: list[Delivery], deliver_to: Deliver, share: Path) -> None:
    target = target_of(share, results[1])
    target.parent.mkdir()
    target.write_bytes(b"a stranger's")
    reports = dict(deliver_to(into(share), results))
    assert reports[2].fate is Fate.REFUSED
    assert "other bytes" in reports[2].reason
    assert target.read_bytes() == b"a stranger's"
    assert [reports[number] for number in (1, 3, 4)] == [DONE] * 3


def test_a_name_appears_when_its_bytes_are_on_disk(
    results: list[Delivery], deliver_to: Deliver, share: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: set[int] = set()
    real_sync, real_rename = os.fsync, os.rename

    def fsync(descriptor: int) -> None:
        real_sync(descriptor)
        synced.add(os.fstat(descriptor).st_ino)

    def rename(source: Any, target: Any) -> None:
        assert os.stat(source).st_ino in synced
        assert os.path.basename(source).startswith(".")
        real_rename(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", rename)
    deliver_to(into(share), results)
    for path in files(share):
        assert {path.parent.stat().st_ino, share.stat().st_ino} <= synced


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (errno.ENOSPC, "is full"),
        (errno.EDQUOT, "is full"),
        (errno.EROFS, "Read-only"),
        (errno.EIO, "cannot be written"),
    ],
)
def test_a_folder_that_cannot_be_written_is_tried_again(
    results: list[Delivery], deliver_to: Deliver, share: Path, monkeypatch: pytest.MonkeyPatch, error: int, told: str
) -> None:
    def fails(_descriptor: int) -> None:
        raise OSError(error, os.strerror(error))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fails)
        reports = deliver_to(into(share), results)
    assert {outcome.fate for _, outcome in reports} == {Fate.AWAY}
    assert told in reports[0][1].reason
    assert str(share) in reports[0][1].reason
    assert files(share) == set()  # nothing half-written
    assert [outcome for _, outcome in deliver_to(into(share), results)] == [DONE] * 4


def test_a_folder_that_is_not_there_is_not_made(results: list[Delivery], deliver_to: Deliver, tmp_path: Path) -> None:
    missing = tmp_path / "not mounted"
    reports = deliver_to(into(missing), results)
    assert {outcome.fate for _, outcome in reports} == {Fate.AWAY}
    assert "not there, or not mounted" in reports[0][1].reason
    assert not missing.exists()
    missing.mkdir()
    assert [outcome for _, outcome in deliver_to(into(missing), results)] == [DONE] * 4


def test_a_process_that_was_killed_leaves_nothing_in_the_way(
    results: list[Delivery], deliver_to: Deliver, share: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class KilledError(BaseException):
        pass

    def killed(*_: object) -> None:
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", killed)
        patch.setattr(Path, "unlink", lambda *_args, **_kw: None)
        with pytest.raises(KilledError):
            deliver_to(into(share), results)
    assert not target_of(share, results[0]).exists()
    assert len(files(share)) == 1
    deliver_to(into(share), results)
    assert files(share) == {target_of(share, result) for result in results}


@pytest.mark.parametrize("uid", ["../../etc/passwd", "", "Doe^Jane", "1.2/3"])
def test_names_are_uids(results: list[Delivery], share: Path, tmp_path: Path, uid: str) -> None:
    source = tmp_path / "store" / results[0].path
    for wrong in (replace(results[0], sop_instance_uid=uid), replace(results[0], study_instance_uid=uid)):
        assert folder._put(share, wrong, source).fate is Fate.REFUSED
    assert files(share) == set()
