"""Bad days of several PACSs at once: afterwards every object is there exactly once, in order, byte for byte."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from deliveries_lab import CLASSES, Lab, dataset_of, first_arrivals

from dicom_node.dimse.admission import Reject
from dicom_node.dimse.standin import Faults, StandInPacs

STUDIES = 6
TROUBLES = {
    "well": Faults(),
    "slow": Faults(seconds=0.1),
    "refusing": Faults(statuses=dict.fromkeys(CLASSES.values(), 0xA700)),
    "aborting": Faults(aborts_after=3, keeps_aborted=True),
    "rejecting": Faults(rejects=Reject.LOCAL_LIMIT),
    "no_sr": Faults(refuses=frozenset({CLASSES["sr"]})),
    "no_seg": Faults(refuses=frozenset({CLASSES["seg"]})),
}
EXPECTED = {"no_sr": ("seg", "sr_comprehensive"), "no_seg": ("sc", "sr")}


@pytest.fixture
def lab(fresh_database_url: str, tmp_path: Path) -> Iterator[Lab]:
    made = Lab(fresh_database_url, tmp_path)
    try:
        yield made
    finally:
        made.close()


def test_after_recovery_every_object_is_there_once(lab: Lab, eventually) -> None:
    pacs = {name: StandInPacs(faults=faults) for name, faults in TROUBLES.items()}
    with ExitStack() as stack:
        ports = {name: stack.enter_context(stand_in.running()) for name, stand_in in pacs.items()}
        with socket.create_server(("127.0.0.1", 0)) as free:
            ports["down"] = free.getsockname()[1]  # and nobody there
        pacs["down"] = StandInPacs()
        lab.rules(**{n: f"type: dimse, host: 127.0.0.1, ae_title: PACS, port: {port}" for n, port in ports.items()})
        studies = [f"2.25.47{number}" for number in range(STUDIES)]
        made = {}
        with lab.working():
            for study in studies:
                for item in lab.finish_job(study, list(ports), size_bytes=20_000):
                    made[item.sop_instance_uid] = item
            eventually(lambda: len(pacs["well"].kept) == 2 * STUDIES, "the one that is well has everything")
            stack.enter_context(pacs["down"].running(port=ports["down"]))
            for name in ("slow", "refusing", "aborting", "rejecting"):
                pacs[name].faults = Faults()
            eventually(
                lambda: all(len(first_arrivals(pacs[name].kept)) >= 2 * STUDIES for name in pacs), "recovery", 30
            )
            eventually(lambda: all(d.state in ("done", "replaced") for s in studies for d in lab.deliveries(s)), "done")

    for name, stand_in in pacs.items():
        arrived = first_arrivals(stand_in.kept)
        kinds = EXPECTED.get(name, ("seg", "sr"))
        wanted = [item.sop_instance_uid for item in made.values() if item.kind in kinds]
        assert sorted(arrived) == sorted(wanted), name
        for uid, item in arrived.items():
            assert dataset_of(item.file_bytes) == dataset_of(made[uid].data)
        for study in studies:  # the report after what it refers to
            order = [made[uid].kind for uid in arrived if made[uid].data and arrived[uid].study_instance_uid == study]
            assert order == list(kinds), (name, study)
        if name != "aborting":  # where no answer was lost nothing came twice
            assert len(stand_in.kept) == len(arrived), name

    waits = [
        (delivery.delivered_at - delivery.created_at).total_seconds()
        for study in studies
        for delivery in lab.deliveries(study)
        if delivery.destination == "well" and delivery.delivered_at and delivery.created_at
    ]
    assert len(waits) == 2 * STUDIES
    assert max(waits) < 5, "the one that is well waited for others"
