"""Each destination gets the objects of its own package, and only its own fall-backs are kept for it."""

from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
from deliveries_lab import Lab, encoded

import storage.deliveries
import storage.jobs
from dicom_node import analysis, jobs
from dicom_node.addressing import packages_for
from dicom_node.analysis import Answer
from dicom_node.encoding.package import Package
from dicom_node.encoding.results import EncodedObject
from dicom_node.encoding.sources import InvalidResult
from dicom_node.routing.configuration import load_configuration
from storage.records import Job

STUDY = "2.25.4711"


@pytest.fixture
def lab(fresh_database_url: str, tmp_path: Path) -> Iterator[Lab]:
    made = Lab(fresh_database_url, tmp_path)
    try:
        yield made
    finally:
        made.close()


def test_packages_of_a_rules_destinations() -> None:
    configuration = load_configuration(
        "destinations:\n"
        "  a: {type: folder, path: /a}\n"
        "  b: {type: folder, path: /b, objects: [sr_text], fall_backs: false}\n"
    )
    job = mock.Mock(spec=Job, pipeline="ct_lesion", send_to=("a", "b", "gone"), partial="")
    assert packages_for(configuration, job) == {
        "a": Package(),
        "b": Package(("sr_text",), fall_backs=False),
        "gone": Package(),
    }
    job.pipeline = "mre_qc"
    with_picture = Package(("seg", "pm", "sc", "sr"))
    assert packages_for(configuration, job) == {
        "a": with_picture,
        "b": Package(("sr_text",), fall_backs=False),
        "gone": with_picture,
    }
    job.partial = "2 of 4 slices"  # reports alone
    assert [package.kinds for package in packages_for(configuration, job).values()] == [("sr",), ("sr_text",), ("sr",)]


def test_two_destinations_with_different_reports_of_one_job(lab: Lab) -> None:
    """The PACS has an SR that refers to the SEG, dictation one that does not: same kinds, other UIDs."""
    lab.rules(pacs="type: folder, path: /a, objects: [seg, sr]", reader="type: folder, path: /b, objects: [sr]")
    with_seg, alone = Package(("seg", "sr")), Package(("sr",))
    seg, report, page = (encoded(kind, STUDY, 1) for kind in ("seg", "sr", "sc"))
    other, text = (encoded(kind, STUDY, 2) for kind in ("sr", "sr_text"))
    answer = Answer(
        "done",
        None,
        (seg, page, report, other, text),
        {"seconds": {}},
        {
            with_seg: frozenset(item.sop_instance_uid for item in (seg, report, page, text)),
            alone: frozenset(item.sop_instance_uid for item in (other, text)),
        },
    )
    lab.finish_job("2.25.1", [])  # the study's rows of a finished job, and then one of our own
    with lab.node.pool.connection() as connection:
        job = storage.jobs.request(connection, "2.25.1", "ct_lesion", "f2", "r", {}, ["pacs", "reader"], "gpu")
    assert job is not None
    with mock.patch.object(jobs, "_work", return_value=answer):
        jobs.run_job(lab.node, job.id)
    with lab.node.pool.connection() as connection:
        found = {
            name: {d.sop_instance_uid: d.state for d in storage.deliveries.of_job(connection, job.id, name)}
            for name in ("pacs", "reader")
        }
    assert found["pacs"] == {
        seg.sop_instance_uid: "waiting",
        page.sop_instance_uid: "spare",
        report.sop_instance_uid: "waiting",
        text.sop_instance_uid: "spare",
    }
    assert found["reader"] == {other.sop_instance_uid: "waiting", text.sop_instance_uid: "spare"}


def test_packages_are_merged_by_uid_in_the_order_in_which_they_are_sent() -> None:
    made: list[Package] = []

    def encode(package: Package) -> list[EncodedObject]:
        made.append(package)
        return [encoded(kind, STUDY, 1) for kind in package.kinds]

    packages = [Package(("sr",)), Package(("seg", "sr")), Package(("seg",))]
    objects, whose = analysis._encoded(packages, encode)
    assert [item.kind for item in objects] == ["seg", "sr"]
    assert made == packages
    assert {package: len(uids) for package, uids in whose.items()} == dict(zip(packages, (1, 2, 1), strict=True))


def test_one_uid_never_stands_for_two_contents() -> None:
    def encode(package: Package) -> list[EncodedObject]:
        return [encoded("sr", STUDY, 1, size_bytes=2 * len(package.kinds))]

    with pytest.raises(InvalidResult, match=r"sr 2\.25\.4711"):
        analysis._encoded([Package(("sr",)), Package(("seg", "sr"))], encode)
