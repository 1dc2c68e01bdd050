"""Storage Commitment on the wire: the SCP on an open association, and reports on a new one."""

import errno
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from modality import Modality, ask, ask_with, request_dataset, store, wait_until
from pydicom.dataset import Dataset
from pynetdicom import AE, build_role
from pynetdicom.presentation import build_context
from tiny_objects import CT, new_uid

from dicom_node.dimse.commitment import ReportResult, report
from dicom_node.dimse.contexts import STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE
from dicom_node.dimse.requests import (
    AssociationFacts,
    CommitmentAnswer,
    CommitmentReport,
    CommitmentRequest,
    InMemory,
    Reference,
)
from dicom_node.dimse.scp import running_scp
from dicom_node.dimse.status import RefusedError

NO_SUCH_OBJECT = 0x0112


class Desk:
    """Remembers what is asked; answers when told to."""

    def __init__(self, answer_within_s: float = 30.0) -> None:
        self.answer_within_s = answer_within_s
        self.asked: list[CommitmentRequest] = []
        self.came_of_it: list[tuple[str, int | None, str]] = []
        self.reports: list[CommitmentReport] = []
        self.is_full = False
        self._answers: dict[str, CommitmentAnswer] = {}
        self._lock = threading.Lock()

    def ask(self, request: CommitmentRequest) -> None:
        if self.is_full:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.asked.append(request)

    def claim(self, request: CommitmentRequest) -> CommitmentAnswer | None:
        with self._lock:
            return self._answers.pop(request.request_id, None)

    def reported(self, request: CommitmentRequest, status: int | None, reason: str) -> None:
        self.came_of_it.append((request.transaction_uid, status, reason))

    def told(self, report: CommitmentReport, by: AssociationFacts) -> None:
        if self.is_full:
            raise OSError(errno.ENOSPC, "No space left on device")
        if by.calling_ae_title != "ARCHIVE":
            raise RefusedError(0x0115, "Transaction UID is not one that this peer was asked")
        self.reports.append(report)

    def answer(self, number: int = -1, failing: int = 0) -> None:
        request = self.asked[number]
        good, bad = request.references[failing:], request.references[:failing]
        answer = CommitmentAnswer(
            request.request_id, request.transaction_uid, good, tuple((one, NO_SUCH_OBJECT) for one in bad)
        )
        with self._lock:
            self._answers[request.request_id] = answer


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
def modality() -> Modality:
    return Modality()


@contextmanager
def node(desk: Desk | None, **options: Any) -> Iterator[int]:
    stored = InMemory(lambda _request, _dataset: None)
    with running_scp("NODE", open_sink=stored, commitment_desk=desk, **options) as port:
        yield port


def references(count: int) -> tuple[Reference, ...]:
    return tuple(Reference(CT, new_uid()) for _ in range(count))


def test_the_answer_comes_on_the_association_that_asked(desk: Desk, modality: Modality) -> None:
    wanted = references(3)
    with node(desk) as port, modality.association(port) as association:
        assert ask(association, "2.25.9", wanted) == 0
        (request,) = desk.asked
        assert (request.transaction_uid, request.references) == ("2.25.9", wanted)
        assert (request.association.calling_ae_title, request.association.peer_host) == ("MODALITY", "127.0.0.1")
        desk.answer(failing=1)
        (reported,) = modality.wait_for(1)
        wait_until(lambda: desk.came_of_it, "the answer noted")
    assert reported.on_association is association
    assert (reported.event_type, reported.transaction_uid) == (2, "2.25.9")
    assert reported.committed == wanted[1:]
    assert reported.failed == ((wanted[0], NO_SUCH_OBJECT),)
    assert desk.came_of_it == [("2.25.9", 0, "")]


def test_all_good_is_event_type_one_without_failed_sequence(desk: Desk, modality: Modality) -> None:
    with node(desk) as port, modality.association(port) as association:
        assert ask(association, "2.25.9", references(2)) == 0
        desk.answer()
        (reported,) = modality.wait_for(1)
    assert (reported.event_type, len(reported.committed), reported.failed) == (1, 2, ())


def test_several_requests_are_answered_in_any_order(desk: Desk, modality: Modality) -> None:
    with node(desk) as port, modality.association(port) as association:
        for number in range(1, 4):
            assert ask(association, f"2.25.{number}", references(number)) == 0
        for number in (2, 0, 1):
            desk.answer(number)
            modality.wait_for(len(modality.reports) + 1)
        wait_until(lambda: len(desk.came_of_it) == 3, "all noted")
    assert [reported.transaction_uid for reported in modality.reports] == ["2.25.3", "2.25.1", "2.25.2"]


def test_released_before_the_answer(desk: Desk, modality: Modality) -> None:
    with node(desk) as port:
        with modality.association(port) as association:
            assert ask(association, "2.25.9", references(1)) == 0
        wait_until(lambda: desk.came_of_it, "the request given back")
    assert desk.came_of_it == [("2.25.9", None, "the association ended")]
    assert modality.reports == []


def test_no_answer_in_time(modality: Modality) -> None:
    desk = Desk(answer_within_s=0.2)
    with node(desk) as port, modality.association(port) as association:
        assert ask(association, "2.25.9", references(1)) == 0
        wait_until(lambda: desk.came_of_it, "the request given back")
        desk.answer()  # too late: somebody else has it by now
        assert ask(association, "2.25.10", references(1)) == 0
        desk.answer()
        (reported,) = modality.wait_for(1)
    assert reported.transaction_uid == "2.25.10"
    assert "no answer within 0.2 s" in desk.came_of_it[0][2]


def test_a_modality_that_does_not_take_the_answer(desk: Desk, modality: Modality) -> None:
    modality.report_status = 0x0110
    with node(desk) as port, modality.association(port) as association:
        assert ask(association, "2.25.9", references(1)) == 0
        desk.answer()
        wait_until(lambda: desk.came_of_it, "noted")
    ((_, status, reason),) = desk.came_of_it
    assert status is None
    assert "0x0110" in reason


def test_a_receiver_that_stops_gives_its_requests_back(desk: Desk, modality: Modality) -> None:
    with modality_on(node(desk), modality) as (association, stop):
        assert ask(association, "2.25.9", references(1)) == 0
        stop()
        assert desk.came_of_it == [("2.25.9", None, "the association ended")]


@contextmanager
def modality_on(acceptor: Any, modality: Modality) -> Iterator[tuple[Any, Any]]:
    port = acceptor.__enter__()
    with modality.association(port) as association:
        yield association, lambda: acceptor.__exit__(None, None, None)


def without(keyword: str) -> Dataset:
    information = request_dataset("2.25.9", references(2))
    delattr(information, keyword)
    return information


def with_item(**changes: str) -> Dataset:
    information = request_dataset("2.25.9", references(2))
    for keyword, value in changes.items():
        setattr(information.ReferencedSOPSequence[1], keyword, value)
    return information


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"action_type": 2}, 0x0123),
        ({"action_type": 0}, 0x0123),
        ({"sop_class": CT}, 0x0119),
        ({"sop_class": CT, "sop_instance": "2.25.1"}, 0x0118),
        ({"sop_instance": "2.25.1"}, 0x0112),
        ({"information": None}, 0x0115),
        ({"information": lambda: without("TransactionUID")}, 0x0115),
        ({"information": lambda: without("ReferencedSOPSequence")}, 0x0115),
        ({"information": lambda: request_dataset("2.25.9", [])}, 0x0115),
        ({"information": lambda: request_dataset("", references(1))}, 0x0115),
        ({"information": lambda: request_dataset("../../etc/passwd", references(1))}, 0x0115),
        ({"information": lambda: with_item(ReferencedSOPInstanceUID="")}, 0x0115),
        ({"information": lambda: with_item(ReferencedSOPInstanceUID="1." * 40 + "1")}, 0x0115),
        ({"information": lambda: with_item(ReferencedSOPClassUID="CT Image Storage")}, 0x0115),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_requests_that_are_not_in_order(desk: Desk, modality: Modality, changes: dict[str, Any], status: int) -> None:
    arguments: dict[str, Any] = {"information": lambda: request_dataset("2.25.9", references(1))} | changes
    if arguments["information"] is not None:
        arguments["information"] = arguments["information"]()
    with node(desk) as port, modality.association(port) as association:
        assert ask_with(association, **arguments) == status
        assert desk.asked == []
        assert ask(association, "2.25.10", references(1)) == 0  # the association goes on


def test_a_request_that_cannot_be_kept_is_not_success(desk: Desk, modality: Modality) -> None:
    desk.is_full = True
    with node(desk) as port, modality.association(port) as association:
        assert ask(association, "2.25.9", references(1)) == 0x0213
        desk.is_full = False
        assert ask(association, "2.25.9", references(1)) == 0


def test_a_long_report_among_images(desk: Desk, modality: Modality) -> None:
    """The report is cut into many fragments; images that come meanwhile are answered between, not within it."""
    wanted = references(3000)
    with node(desk) as port, modality.association(port) as association:
        assert ask(association, "2.25.9", wanted) == 0
        desk.answer(failing=1000)
        statuses = []
        while not modality.reports and len(statuses) < 5000:
            statuses.append(store(association, new_uid()))
        (reported,) = modality.wait_for(1, 30)
        statuses.append(store(association, new_uid()))
        wait_until(lambda: desk.came_of_it, "noted")
    assert set(statuses) == {0}
    assert reported.committed == wanted[1000:]
    assert [one for one, _ in reported.failed] == list(wanted[:1000])
    assert desk.came_of_it == [("2.25.9", 0, "")]


@pytest.mark.parametrize(
    ("roles", "answer"),
    [
        ((None, None), None),
        ((True, False), (True, False)),
        ((True, True), (True, True)),
        ((False, True), (False, True)),
    ],
)
def test_roles_on_an_accepted_association(
    desk: Desk, roles: tuple[bool | None, bool | None], answer: tuple[bool, bool] | str | None
) -> None:
    ae = AE("MODALITY")
    offered = [] if roles == (None, None) else [build_role(STORAGE_COMMITMENT, scu_role=roles[0], scp_role=roles[1])]
    contexts = [build_context(CT), build_context(STORAGE_COMMITMENT)]
    with node(desk) as port:
        made: Any = ae.associate("127.0.0.1", port, contexts=contexts, ae_title="NODE", ext_neg=offered)
        accepted = [context for context in made.accepted_contexts if context.abstract_syntax == STORAGE_COMMITMENT]
        role = made.acceptor.role_selection.get(STORAGE_COMMITMENT)
        assert accepted
        if roles != (False, True):
            assert ask(made, "2.25.9", references(1)) == 0
        made.release()
    assert (None if role is None else (role.scu_role, role.scp_role)) == answer
    assert len(desk.asked) == (roles != (False, True))


def test_without_a_desk_the_service_is_not_offered() -> None:
    ae = AE("MODALITY")
    with node(None) as port:
        made: Any = ae.associate(
            "127.0.0.1", port, contexts=[build_context(CT), build_context(STORAGE_COMMITMENT)], ae_title="NODE"
        )
        assert [str(context.abstract_syntax) for context in made.accepted_contexts] == [CT]
        made.release()


# ---- reports on a new association


def answers(count: int) -> list[CommitmentAnswer]:
    return [
        CommitmentAnswer(
            f"{number:016x}", f"2.25.{number}", references(2), ((Reference(CT, "2.25.77"), NO_SUCH_OBJECT),) * number
        )
        for number in range(count)
    ]


def reported(port: int, what: list[CommitmentAnswer], timeout_s: float = 10.0) -> list[ReportResult]:
    results: list[ReportResult] = []
    report(what, "127.0.0.1", port, "MODALITY", "NODE", results.append, timeout_s)
    assert {result.answer.request_id for result in results} == {answer.request_id for answer in what}
    assert len(results) == len(what)
    return results


@pytest.mark.parametrize("takes_role", [True, None])
def test_reports_on_one_new_association(modality: Modality, takes_role: bool | None) -> None:
    what = answers(3)
    with modality.listening(takes_role=takes_role) as port:
        results = reported(port, what)
    assert [(result.is_taken, result.status, result.reason) for result in results] == [(True, 0, "")] * 3
    got = [(one.event_type, one.transaction_uid, one.committed, one.failed) for one in modality.reports]
    assert got == [(one.event_type, one.transaction_uid, one.committed, one.failed) for one in what]
    assert len({one.on_association for one in modality.reports}) == 1


def test_a_peer_that_refuses_our_role(modality: Modality) -> None:
    with modality.listening(takes_role=False) as port:
        results = reported(port, answers(2))
    assert [result.is_taken for result in results] == [False, False]
    assert all("role as SCP" in result.reason or "takes none of" in result.reason for result in results)
    assert modality.reports == []


def test_a_peer_that_says_no(modality: Modality) -> None:
    modality.report_status = 0x0110
    with modality.listening() as port:
        results = reported(port, answers(2))
    assert [(result.is_taken, result.status) for result in results] == [(False, 0x0110)] * 2


def test_nobody_there() -> None:
    with Modality().listening() as port:
        pass
    (result,) = reported(port, answers(1))
    assert (result.is_taken, result.status) == (False, None)
    assert "cannot be reached" in result.reason


def test_a_peer_that_is_no_modality() -> None:
    with running_scp("MODALITY", open_sink=InMemory(lambda *_: None)) as port:
        (result,) = reported(port, answers(1))
    assert not result.is_taken
    assert "takes none of: Storage Commitment Push Model" in result.reason


def test_a_long_report_on_a_new_association(modality: Modality) -> None:
    what = CommitmentAnswer("0" * 16, "2.25.9", references(3000), ())
    with modality.listening() as port:
        (result,) = reported(port, [what], 30.0)
    assert result.is_taken
    assert modality.reports[0].committed == what.committed


def test_the_well_known_instance() -> None:
    assert STORAGE_COMMITMENT_INSTANCE == STORAGE_COMMITMENT + ".1"
