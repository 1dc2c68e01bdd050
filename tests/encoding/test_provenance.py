"""Derived UIDs and the loop guard."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from encoded_studies import ct_stack, provenance
from pydicom.uid import UID

from dicom_node.encoding.provenance import BundleUsed, Provenance, derive_uid, is_ours
from pipelines.catalogue import PIPELINES

ROLE = "sr instance"


def test_uids_are_valid_and_the_same_again() -> None:
    uid = provenance().uid(ROLE)
    assert UID(uid).is_valid
    assert uid.startswith("2.25.")
    assert len(uid) <= 44
    assert uid == provenance().uid(ROLE)


@pytest.mark.parametrize(
    "change",
    [
        {"node_id": "other"},
        {"study_instance_uid": "2.25.7"},
        {"pipeline": "other"},
        {"version": "0.2.0"},
        {"fingerprint": "0" * 64},
        {"bundles": (BundleUsed("ct_liver", "0.1.0", "ef" * 32),)},
        {"configuration": (("threshold", "0.4"),)},
    ],
)
def test_whatever_changes_the_answer_changes_the_uid(change: dict[str, object]) -> None:
    assert provenance(**change).uid(ROLE) != provenance().uid(ROLE)


def test_parts_cannot_run_into_each_other() -> None:
    assert derive_uid("a", "b", "c", "d", "e", "f", "g") != derive_uid("ab", "", "c", "d", "e", "f", "g")


def test_the_order_of_bundles_and_the_time_do_not_count() -> None:
    ours = provenance()
    assert replace(ours, bundles=ours.bundles[::-1]).uid(ROLE) == ours.uid(ROLE)
    assert replace(ours, created_at=datetime(2027, 1, 1, tzinfo=UTC)).uid(ROLE) == ours.uid(ROLE)


def test_tracking_uid_outlives_versions_and_inputs() -> None:
    ours = provenance()
    later = replace(ours, version="9.9.9", fingerprint="0" * 64, bundles=())
    assert later.tracking_uid("Lesion 1") == ours.tracking_uid("Lesion 1")
    assert ours.tracking_uid("Lesion 2") != ours.tracking_uid("Lesion 1")


def test_provenance_of_a_run_takes_what_the_bundles_say() -> None:
    class Opened:
        name, version, sha256, trained_on = "ct_liver", "0.3.0", "ab" * 32, "simulated CT"

    pipeline = PIPELINES["ct_lesion"]
    made = Provenance.of(
        node_id="node-7",
        study_instance_uid="2.25.1",
        pipeline=pipeline,
        bundles={"ct_liver": Opened()},
        fingerprint="f",
        created_at=datetime(2026, 1, 15, tzinfo=UTC),
    )
    assert made.bundles == (("ct_liver", "0.3.0", "ab" * 32),)
    assert made.title == pipeline.title
    assert made.is_trained_on_simulation
    assert made.report_series_number >= 9000
    assert made.segmentation_series_number == made.report_series_number + 1


def test_is_ours_in_every_form_of_a_header() -> None:
    from dicom_node.encoding.header import new_object

    source = ct_stack(slices=1)[0]
    made = new_object("1.2.840.10008.5.1.4.1.1.88.34", "SR", source, provenance(), role="sr", series_number=9000,
                      series_description="x")  # fmt: skip
    assert is_ours(made)
    assert is_ours({"Manufacturer": "dicom-node", "ManufacturerModelName": made.ManufacturerModelName})
    assert is_ours(made.to_json_dict())
    made.Manufacturer, made.ManufacturerModelName = "Other", "Router"  # another system passed it on as its own
    assert is_ours(made)
    assert is_ours(made.to_json_dict())
    assert not is_ours(source)
    assert not is_ours(source.to_json_dict())
    assert not is_ours({"Manufacturer": "dicom-node", "ManufacturerModelName": "phantom CT"})
    assert not is_ours({})
