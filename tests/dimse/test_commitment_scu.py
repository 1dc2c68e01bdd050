"""Storage Commitment as SCU on the wire: an archive is asked, and reports on the same association or another."""

import errno
from collections.abc import Callable, Sequence
from typing import Any

import archive as archive_module
import pytest
from archive import Archive
from modality import wait_until
from pydicom.dataset import Dataset
from test_commitment_service import Desk, node, references
from tiny_objects import CT

from dicom_node.dimse.commitment_scu import Asked, Uptake, ask
from dicom_node.dimse.requests import CommitmentReport, Reference


class Asking:
    """Asks, and keeps what comes of it."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.reports: list[CommitmentReport] = []
        self.take: Callable[[CommitmentReport], None] = self.reports.append

    def __call__(self, port: int, what: Sequence[Reference], wait_s: float = 10.0) -> Uptake:
        ask(
            "2.25.9", what, "127.0.0.1", port, "ARCHIVE", "NODE",
            on_asked=self.asked.append, on_report=lambda report: self.take(report), wait_s=wait_s, timeout_s=10,
        )  # fmt: skip
        (asked,) = self.asked
        return asked.uptake


@pytest.mark.parametrize("failing", [0, 1])
def test_the_report_comes_on_the_association_that_asks(failing: int) -> None:
    archive, asking, what = Archive(reports_at_once=True), Asking(), references(3)
    archive.failing = {one.sop_instance_uid: 0x0112 for one in what[:failing]}
    with archive.running() as port:
        assert asking(port, what) is Uptake.TAKEN
        wait_until(lambda: archive.response_statuses, "the response")
    assert [(one.transaction_uid, one.references) for one in archive.asked] == [("2.25.9", what)]
    failed = tuple((one, 0x0112) for one in what[:failing])
    assert asking.reports == [CommitmentReport("2.25.9", what[failing:], failed)]
    assert archive.response_statuses == [0]


def test_an_archive_that_is_silent_is_let_go() -> None:
    archive, asking = Archive(), Asking()
    with archive.running() as port:
        assert asking(port, references(1), wait_s=0.1) is Uptake.TAKEN
        wait_until(lambda: not archive.asked[0].association.is_established, "the release")
    assert asking.reports == []


@pytest.mark.parametrize(
    ("status", "uptake"),
    [
        (0x0110, Uptake.NOT_ASKED),
        (0x0213, Uptake.NOT_ASKED),
        (0x0124, Uptake.REFUSED),
        (0x0122, Uptake.REFUSED),
        (0x0107, Uptake.TAKEN),
    ],
)
def test_statuses_of_the_archive(status: int, uptake: Uptake) -> None:
    archive, asking = Archive(action_status=status), Asking()
    with archive.running() as port:
        assert asking(port, references(1), wait_s=0.0) is uptake
    assert asking.asked[0].status == status
    assert f"0x{status:04X}" in asking.asked[0].reason


def test_archives_that_cannot_be_asked() -> None:
    archive = Archive()
    with archive.running(commits=False) as port:
        plain = Asking()
        assert plain(port, references(1)) is Uptake.NOT_ASKED
    assert "Storage Commitment Push Model" in plain.asked[0].reason
    nobody = Asking()
    assert nobody(port, references(1)) is Uptake.NOT_ASKED
    assert "cannot be reached" in nobody.asked[0].reason


def test_no_response_is_neither_yes_nor_no() -> None:
    archive, asking = Archive(), Asking()
    archive.aborts = True
    with archive.running() as port:
        assert asking(port, references(1)) is Uptake.UNANSWERED


def test_a_report_that_cannot_be_kept_is_not_success() -> None:
    archive, asking = Archive(reports_at_once=True), Asking()

    def full(_report: CommitmentReport) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    asking.take = full
    with archive.running() as port:
        asking(port, references(1), wait_s=0.5)
        wait_until(lambda: archive.response_statuses, "the response")
    assert archive.response_statuses == [0x0213]


def test_a_request_of_several_pdus() -> None:
    archive, asking = Archive(reports_at_once=True), Asking()
    what = tuple(Reference(CT, f"2.25.99{number:06d}") for number in range(400))
    with archive.running() as port:
        assert asking(port, what, wait_s=30.0) is Uptake.TAKEN
    assert asking.reports == [CommitmentReport("2.25.9", what, ())]


# ---- reports on an association that the archive opens


@pytest.mark.parametrize("roles", [True, False], ids=["as SCP", "without a word about roles"])
def test_an_archive_reports_on_its_own_association(roles: bool) -> None:
    archive, desk, what = Archive(), Desk(), references(3)
    archive.failing = {what[0].sop_instance_uid: 0x0213}
    asked = [_asked("2.25.7", what), _asked("2.25.8", what[1:])]
    with node(desk) as port:
        assert archive.report(port, *asked, roles=roles) == [0, 0]
    assert desk.reports == [
        CommitmentReport("2.25.7", what[1:], ((what[0], 0x0213),)),
        CommitmentReport("2.25.8", what[1:], ()),
    ]


def test_what_is_not_believed_or_not_kept_is_not_success() -> None:
    archive, desk = Archive("STRANGER"), Desk()
    with node(desk) as port:
        assert archive.report(port, _asked("2.25.7", references(1))) == [0x0115]
        desk.is_full = True
        assert archive.report(port, _asked("2.25.7", references(1))) == [0x0213]
    assert desk.reports == []


def without(keyword: str) -> Dataset:
    information, _ = Archive().information(_asked("2.25.7", references(1)))
    delattr(information, keyword)
    return information


@pytest.mark.parametrize(
    ("information", "event_type", "status"),
    [
        (lambda: without("TransactionUID"), 1, 0x0115),
        (lambda: without("ReferencedSOPSequence"), 1, 0x0115),
        (lambda: None, 1, 0x0115),
        (lambda: Archive().information(_asked("../../etc/passwd", references(1)))[0], 1, 0x0115),
        (lambda: Archive().information(_asked("2.25.7", references(1)))[0], 3, 0x0113),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_reports_that_are_not_in_order(information: Callable[[], Dataset | None], event_type: int, status: int) -> None:
    archive, desk = Archive(), Desk()
    good = archive.information(_asked("2.25.7", references(1)))
    with node(desk) as port:
        assert archive.report_with(port, lambda: [(information(), event_type), good]) == [status, 0]
    assert len(desk.reports) == 1


def _asked(transaction_uid: str, what: tuple[Reference, ...]) -> Any:
    return archive_module.Asked(transaction_uid, what, None)
