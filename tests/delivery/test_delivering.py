"""Delivery over real PostgreSQL to real stand-in PACSs: what is remembered, what goes instead, who waits for whom."""

import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from deliveries_lab import CLASSES, Lab, dataset_of

import dicom_node.delivery as delivery_types
import storage.associations
import storage.deliveries
import storage.destinations
import storage.jobs
from dicom_node import delivering
from dicom_node.dimse.admission import Reject
from dicom_node.dimse.standin import Faults, StandInPacs
from dicom_node.story import study_story
from storage.destinations import DestinationState
from storage.records import Association

STUDY = "2.25.4711"
SENT_TO_PACS = "type: dimse, host: 127.0.0.1, ae_title: PACS, port: "


@pytest.fixture
def lab(fresh_database_url: str, tmp_path: Path) -> Iterator[Lab]:
    made = Lab(fresh_database_url, tmp_path, delivery_attempts=3)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def pacs() -> StandInPacs:
    return StandInPacs()


@pytest.fixture
def port(pacs: StandInPacs) -> Iterator[int]:
    with pacs.running() as bound:
        yield bound


def arrived(pacs: StandInPacs) -> list[str]:
    """Kinds in order of arrival."""
    kinds = {uid: kind for kind, uid in CLASSES.items()}
    return [kinds[item.sop_class_uid] for item in pacs.kept]


def state(lab: Lab, name: str = "pacs") -> DestinationState:
    with lab.node.pool.connection() as connection:
        (found,) = [one for one in storage.destinations.states(connection) if one.name == name]
    return found


def test_a_destination_gets_what_it_wants_and_no_spares(lab: Lab, pacs: StandInPacs, port: int) -> None:
    lab.rules(pacs=f"{SENT_TO_PACS}{port}, objects: [sr, seg, sc]")
    objects = lab.finish_job(STUDY, ["pacs"], ["seg", "sc", "sr"])
    lab.deliver()
    assert arrived(pacs) == ["seg", "sc", "sr"]
    sent = {item.sop_instance_uid: item.data for item in objects}
    assert all(dataset_of(item.file_bytes) == dataset_of(sent[item.sop_instance_uid]) for item in pacs.kept)
    lab.deliver()
    assert len(pacs.kept) == 3
    assert state(lab).answered_at is not None
    assert [(d.state, d.status, d.attempts) for d in lab.deliveries(STUDY)] == [("done", 0, 1)] * 3
    assert lab.told(STUDY) == [f"pacs took {item.sop_instance_uid}" for item in pacs.kept]


def test_what_is_refused_at_negotiation_is_replaced_and_remembered(lab: Lab, pacs: StandInPacs, port: int) -> None:
    lab.rules(pacs=f"{SENT_TO_PACS}{port}")
    pacs.faults = Faults(refuses=frozenset({CLASSES["seg"], CLASSES["sr"], CLASSES["sr_comprehensive"]}))
    lab.finish_job(STUDY, ["pacs"])
    lab.deliver()
    assert arrived(pacs) == ["sc", "sr_enhanced"]
    assert lab.states(STUDY) == {
        "seg": "replaced", "sc": "done", "sr": "replaced", "sr_comprehensive": "replaced", "sr_enhanced": "done",
    }  # fmt: skip
    assert any("SOP Class is not supported" in text and "sc goes instead" in text for text in lab.told(STUDY))
    lab.finish_job("2.25.2", ["pacs"])  # the fall-backs at once, nothing is proposed that was refused
    assert [(d.kind, d.state) for d in lab.deliveries("2.25.2")] == [
        ("seg", "replaced"), ("sc", "waiting"), ("sr", "replaced"), ("sr_enhanced", "waiting"),
    ]  # fmt: skip
    lab.deliver()
    assert arrived(pacs)[2:] == ["sc", "sr_enhanced"]
    with lab.node.pool.connection() as connection:
        storage.destinations.forget(connection, "pacs")
    pacs.faults = Faults()
    lab.finish_job("2.25.3", ["pacs"])
    lab.deliver()
    assert arrived(pacs)[4:] == ["seg", "sr"]


def test_an_urgent_answer_does_not_wait_for_a_long_one(
    lab: Lab, pacs: StandInPacs, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivering, "GIVES_WAY_EVERY_S", 0.0)
    pacs.faults = Faults(seconds=0.1)
    lab.rules(pacs=f"{SENT_TO_PACS}{port}")
    for number in range(6):
        lab.finish_job(f"{STUDY}.{number}", ["pacs"], ["seg", "sr"])
    courier = threading.Thread(target=lab.deliver)
    courier.start()
    try:
        assert pacs.wait_for(1, 20)
        lab.finish_job("2.25.1", ["pacs"], ["sr"], queue=storage.jobs.STAT)
    finally:
        courier.join(60)
    studies = [item.study_instance_uid for item in pacs.kept]
    assert len(studies) == 13
    assert studies.index("2.25.1") < 6
    assert all(delivery.attempts == 1 for number in range(6) for delivery in lab.deliveries(f"{STUDY}.{number}"))


def test_with_nothing_to_go_instead_it_is_parked_and_the_rest_goes_on(lab: Lab, pacs: StandInPacs, port: int) -> None:
    lab.rules(pacs=f"{SENT_TO_PACS}{port}, fall_backs: false")
    pacs.faults = Faults(refuses=frozenset({CLASSES["seg"]}))
    lab.finish_job(STUDY, ["pacs"])
    lab.deliver()
    assert lab.states(STUDY) == {"seg": "parked", "sr": "done"}
    (parked,) = [delivery for delivery in lab.deliveries(STUDY) if delivery.state == "parked"]
    assert "Segmentation Storage" in parked.reason
    pacs.faults = Faults()
    with lab.node.pool.connection() as connection:
        assert storage.deliveries.unpark(connection, "pacs") == 1
    lab.deliver()
    assert arrived(pacs) == ["sr", "seg"]


def test_a_pacs_that_takes_nothing_at_all(lab: Lab, pacs: StandInPacs, port: int) -> None:
    lab.rules(pacs=f"{SENT_TO_PACS}{port}")
    pacs.faults = Faults(refuses=frozenset(CLASSES.values()))
    lab.finish_job(STUDY, ["pacs"])
    lab.deliver()
    assert lab.states(STUDY) == {
        "seg": "replaced", "sc": "parked", "sr": "replaced", "sr_comprehensive": "replaced", "sr_enhanced": "replaced",
        "sr_text": "parked",
    }  # fmt: skip


@pytest.mark.parametrize(("status", "then"), [(0xC000, "parked"), (0xA900, "parked"), (0xA700, "waiting")])
def test_a_status_decides(lab: Lab, pacs: StandInPacs, port: int, status: int, then: str) -> None:
    lab.rules(pacs=f"{SENT_TO_PACS}{port}")
    pacs.faults = Faults(statuses={CLASSES["seg"]: status})
    lab.finish_job(STUDY, ["pacs"])
    lab.deliver()
    (seg, sr) = lab.deliveries(STUDY)
    assert (seg.state, seg.status, seg.attempts) == (then, status, 1)
    assert f"0x{status:04X}" in seg.reason
    assert (sr.state, sr.attempts) == (("done", 1) if then == "parked" else ("waiting", 0))
    if then == "waiting":  # twice more, and it is given up; only then the report may go
        for _ in range(2):
            lab.time_passes()
            lab.deliver()
        assert "given up after 3 attempts" in lab.told(STUDY)[-1] or lab.states(STUDY)["seg"] == "parked"
        lab.time_passes()
        lab.deliver()
        assert lab.states(STUDY) == {"seg": "parked", "sr": "done"}


def test_an_answer_that_is_lost_is_not_the_end(lab: Lab, pacs: StandInPacs, port: int) -> None:
    lab.rules(pacs=f"{SENT_TO_PACS}{port}")
    pacs.faults = Faults(aborts_after=1, keeps_aborted=True)
    lab.finish_job(STUDY, ["pacs"])
    lab.deliver()
    assert lab.states(STUDY) == {"seg": "done", "sr": "waiting"}
    lab.time_passes()
    lab.deliver()
    assert arrived(pacs) == ["seg", "sr", "sr"]
    assert dataset_of(pacs.kept[1].file_bytes) == dataset_of(pacs.kept[2].file_bytes)
    assert lab.states(STUDY) == {"seg": "done", "sr": "done"}


def test_nobody_there_is_tried_with_one_delivery_and_counts_no_attempt(lab: Lab, pacs: StandInPacs) -> None:
    with pacs.running() as port:
        pass
    lab.rules(pacs=f"{SENT_TO_PACS}{port}")
    for number in range(3):
        lab.finish_job(f"2.25.{number}", ["pacs"])
    lab.deliver()
    for _ in range(5):  # more often than there are attempts
        lab.time_passes()
        lab.deliver()
    everything = [delivery for number in range(3) for delivery in lab.deliveries(f"2.25.{number}")]
    assert {(delivery.state, delivery.attempts) for delivery in everything} == {("waiting", 0)}
    away = state(lab)
    assert (away.breaker, away.failures) == ("open", 6)
    assert str(port) in away.reason
    assert len(lab.told("2.25.0")) == 1
    assert len(lab.told(None, "destination")) == 1
    with lab.node.pool.connection() as connection:
        story = study_story(connection, "2.25.0")
    assert story is None or "pacs" in story
    with pacs.running(port=port):
        lab.time_passes()
        lab.deliver()
    assert arrived(pacs) == ["seg", "sr"] * 3
    assert state(lab).breaker == "closed"
    assert lab.told(None, "destination")[1:] == ["pacs answers again"]


@pytest.mark.parametrize(("reject", "pause_s"), [(Reject.CALLING_AE_TITLE, 600), (Reject.CONGESTION, 0.3)])
def test_who_rejects_for_good_is_left_alone_for_longer(
    lab: Lab, pacs: StandInPacs, port: int, reject: Reject, pause_s: float
) -> None:
    lab.rules(pacs=f"{SENT_TO_PACS}{port}")
    pacs.faults = Faults(rejects=reject)
    lab.finish_job(STUDY, ["pacs"])
    lab.deliver()
    found = state(lab)
    assert found.probe_at is not None
    assert found.probe_at - datetime.now(UTC) < timedelta(seconds=pause_s)
    assert found.probe_at - datetime.now(UTC) > timedelta(seconds=pause_s * 0.8 - 0.2)
    assert [(d.state, d.attempts) for d in lab.deliveries(STUDY)] == [("waiting", 0)] * 2
    pacs.faults = Faults()
    lab.deliver()
    assert pacs.kept == []
    with lab.node.pool.connection() as connection:
        storage.destinations.try_now(connection, "pacs")
    lab.deliver()
    assert arrived(pacs) == ["seg", "sr"]


def test_one_object_that_breaks_every_association_does_not_stop_the_others(
    lab: Lab, pacs: StandInPacs, port: int
) -> None:
    lab.rules(pacs=f"{SENT_TO_PACS}{port}")
    pacs.faults = Faults(aborts_after=0)
    lab.finish_job("2.25.1", ["pacs"])
    lab.deliver()
    pacs.faults = Faults()
    lab.run("UPDATE delivery SET not_before = now() + interval '1 h' WHERE attempts > 0")
    lab.finish_job("2.25.2", ["pacs"])
    lab.time_passes()
    lab.run("UPDATE delivery SET not_before = now() + interval '1 h' WHERE attempts > 0")
    lab.deliver()
    assert [item.study_instance_uid for item in pacs.kept] == ["2.25.2"] * 2


def test_outside_of_its_hours_nothing_is_sent(lab: Lab, pacs: StandInPacs, port: int) -> None:
    soon = datetime.now().astimezone() + timedelta(hours=2)
    window = f"{soon:%H:%M}-{soon + timedelta(hours=1):%H:%M}"
    lab.rules(pacs=f"{SENT_TO_PACS}{port}, hours: '{window}'")
    lab.finish_job(STUDY, ["pacs"])
    lab.deliver()
    assert pacs.kept == []
    assert state(lab).closed_until == soon.replace(second=0, microsecond=0)
    assert lab.states(STUDY) == {"seg": "waiting", "sr": "waiting"}
    lab.rules(pacs=f"{SENT_TO_PACS}{port}")
    lab.deliver()
    assert arrived(pacs) == ["seg", "sr"]


def test_a_destination_that_is_gone_from_the_rules_is_said(lab: Lab, pacs: StandInPacs, port: int) -> None:
    lab.finish_job(STUDY, ["pacs"])
    lab.deliver()
    assert {(d.state, d.attempts) for d in lab.deliveries(STUDY)} == {("waiting", 0)}
    assert all("not in the rules" in d.reason for d in lab.deliveries(STUDY))
    lab.rules(pacs=f"{SENT_TO_PACS}{port}")  # the import is enough
    lab.deliver()
    assert arrived(pacs) == ["seg", "sr"]


def brought_by(lab: Lab, ae_title: str, host: str = "127.0.0.1") -> str:
    now = datetime.now(UTC)
    association = Association(f"of {ae_title}", "r", ae_title, "LIVERNODE", host, now, now, "released", 1)
    with lab.node.pool.connection() as connection:
        storage.associations.opened(connection, association)
    return association.association_id


def test_reply_to_the_sender(lab: Lab, port: int, pacs: StandInPacs) -> None:
    pacs.ae_title = "CT1"
    lab.rules(back="type: sender")
    lab.finish_job(STUDY, ["back"], association_id=brought_by(lab, "CT1"))
    route = "back: CT1 at 127.0.0.1"
    assert {d.destination for d in lab.deliveries(STUDY)} == {route}
    lab.deliver(route)
    assert all("no port is known for CT1" in d.reason for d in lab.deliveries(STUDY))
    lab.rules(back="type: sender", senders=f"ae_title: CT1, host: 127.0.0.0/8, port: {port}")
    lab.deliver(route)
    assert arrived(pacs) == ["seg", "sr"]
    lab.rules(back="type: sender", ct=f"type: dimse, host: 127.0.0.1, port: {port}, ae_title: CT1")
    lab.finish_job("2.25.2", ["back"], association_id="of CT1")
    lab.deliver(route)
    assert arrived(pacs) == ["seg", "sr"] * 2


def test_nobody_can_be_replied_to(lab: Lab) -> None:
    lab.rules(back="type: sender")
    lab.finish_job(STUDY, ["back"])
    assert {(d.destination, d.state) for d in lab.deliveries(STUDY)} == {("back", "parked")}
    assert all("not known who sent" in d.reason for d in lab.deliveries(STUDY))


def test_a_hanging_destination_holds_up_nobody(lab: Lab, pacs: StandInPacs, port: int, eventually) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hanging, lab.working():
        lab.rules(pacs=SENT_TO_PACS + str(port), hangs=f"{SENT_TO_PACS}{hanging.getsockname()[1]}")
        for number in range(12):
            lab.finish_job(f"2.25.{number}", ["hangs", "pacs"])
        eventually(lambda: len(pacs.kept) == 24, "all are there")
        connection, _ = hanging.accept()
        with connection:
            hanging.settimeout(0.3)
            with pytest.raises(TimeoutError):
                hanging.accept()  # one association only, whatever waits
    latency = max(
        (delivery.delivered_at - delivery.created_at).total_seconds()
        for number in range(12)
        for delivery in lab.deliveries(f"2.25.{number}")
        if delivery.destination == "pacs" and delivery.delivered_at and delivery.created_at
    )
    assert latency < 3
    eventually(lambda: state(lab, "hangs").breaker == "open", "it is seen to be away")


def test_an_error_of_our_own_counts_as_an_attempt(
    lab: Lab, port: int, pacs: StandInPacs, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.rules(pacs=f"{SENT_TO_PACS}{port}")
    lab.finish_job(STUDY, ["pacs"])
    with monkeypatch.context() as broken:
        broken.setattr(delivery_types, "SENDERS", {"dimse": lambda *_: 1 / 0})
        lab.deliver()
    assert [(d.state, d.attempts) for d in lab.deliveries(STUDY)] == [("waiting", 1)] * 2
    assert all("ZeroDivisionError" in d.reason for d in lab.deliveries(STUDY))
    with monkeypatch.context() as broken:  # one that sends nothing and says nothing
        broken.setattr(delivery_types, "SENDERS", {"dimse": lambda *_: None})
        lab.time_passes()
        lab.deliver()
    assert state(lab).breaker == "open"
    lab.time_passes()
    lab.deliver()
    assert arrived(pacs) == ["seg", "sr"]
