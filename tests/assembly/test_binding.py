"""Which stack plays which role: choice among duplicates, overrides, what is left aside, fingerprints."""

from dataclasses import replace

from study_timeline import ROLES, arrived, ct_series

from dicom_node.assembly import Ready, Wait, bind_roles
from dicom_node.recognition.study import recognise
from dicom_node.routing.conditions import parse_condition
from storage.records import Instance, Series


def bound(images: list[Instance], overrides: dict | None = None) -> dict[str, str]:  # type: ignore[type-arg]
    binding = bind_roles(ROLES, recognise(images), overrides)
    return {role: stack.series_instance_uid for role, stack in binding.stacks.items()}


def pair(number: int, spacing_mm: float, count: int, **how: object) -> list[Instance]:
    return [
        *ct_series(f"1.2.{number}1", "ART", count, number=number * 10, spacing_mm=spacing_mm, **how),  # type: ignore[arg-type]
        *ct_series(f"1.2.{number}2", "PVP", count, number=number * 10 + 1, spacing_mm=spacing_mm, **how),  # type: ignore[arg-type]
    ]


def test_of_thick_and_thin_the_thinner_from_1_mm_up_is_taken_in_both_roles() -> None:
    images = [*pair(1, 5.0, 20), *pair(2, 1.25, 80), *pair(3, 0.5, 200)]
    assert bound(images) == {"arterial": "1.2.21", "portal_venous": "1.2.22"}
    reason = bind_roles(ROLES, recognise(images)).reasons["arterial"]
    assert "1.25 mm apart" in reason
    assert "it suits better than" in reason


def test_both_roles_get_the_same_spacing_where_they_can() -> None:
    arterial = [
        *ct_series("1.2.1", "ART", 20, number=1, spacing_mm=3.0),
        *ct_series("1.2.2", "ART", 30, number=2, spacing_mm=2.0),
    ]
    assert bound([*arterial, *ct_series("1.2.3", "PVP", 20, number=3, spacing_mm=3.0)])["arterial"] == "1.2.1"


def test_a_key_image_or_a_beginning_does_not_displace_a_whole_stack() -> None:
    images = [*pair(1, 5.0, 20), *ct_series("1.2.9", "ART", 4, number=9, spacing_mm=1.0)]
    assert bound(images)["arterial"] == "1.2.11"


def test_bone_kernel_mpr_scout_and_plain_are_left_aside_and_named() -> None:
    images = [
        *ct_series("1.2.1", "ART", 20, number=1),
        *ct_series("1.2.2", "PVP bone", 20, number=2, ConvolutionKernel="B70f"),
        *ct_series("1.2.3", "PVP cor", 20, number=3, ImageOrientationPatient=[1.0, 0, 0, 0, 0, -1.0]),
        *ct_series("1.2.4", "Topogram", 1, number=4, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]),
        *ct_series("1.2.5", "nativ", 20, number=5),
        *ct_series("1.2.6", "delayed 5 min", 20, number=6),
    ]
    binding = bind_roles(ROLES, recognise(images))
    assert set(binding.stacks) == {"arterial"}
    for told in ("'bone kernel' because", "'localizer' because", "'ct plain' because", "'ct delayed' because"):
        assert told in binding.missing


def test_an_override_replaces_recognition_and_keeps_bone_and_mpr_out() -> None:
    images = [
        *ct_series("1.2.1", "phase one", 20, number=1),
        *ct_series("1.2.2", "phase two", 20, number=2),
        *ct_series("1.2.3", "phase one", 60, number=0, ConvolutionKernel="BONE"),
    ]
    overrides = {
        "arterial": parse_condition({"attribute": "SeriesDescription", "equals": "phase one"}),
        "portal_venous": parse_condition({"attribute": "SeriesNumber", "equals": 2}),
    }
    assert bound(images, overrides) == {"arterial": "1.2.1", "portal_venous": "1.2.2"}
    assert bound(images) == {}


def test_what_an_override_claims_is_not_offered_to_another_role() -> None:
    images = pair(1, 2.5, 20)
    overrides = {"arterial": parse_condition({"attribute": "SeriesDescription", "equals": "PVP"})}
    binding = bind_roles(ROLES, recognise(images), overrides)
    assert {r: s.series_instance_uid for r, s in binding.stacks.items()} == {"arterial": "1.2.12"}
    assert "portal_venous: no stack recognised" in binding.missing


def test_one_stack_never_plays_two_roles_even_if_both_conditions_claim_it() -> None:
    images = pair(1, 2.5, 20)
    both = parse_condition({"attribute": "Modality", "equals": "CT"})
    assert len(set(bound(images, {"arterial": both, "portal_venous": both}).values())) == 2
    alone = bind_roles(ROLES, recognise(images[:20]), {"arterial": both, "portal_venous": both})
    assert alone.missing
    assert len(alone.stacks) == 1


def test_an_override_sees_the_series_header_where_it_is_given() -> None:
    images = pair(1, 2.5, 20)
    header = {"00190010": {"vr": "LO", "Value": ["SITE"]}, "00191001": {"vr": "LO", "Value": ["early"]}}
    series = [Series("1.2.12", "1.2", "CT", header, "", "")]
    overrides = {"arterial": parse_condition({"attribute": "(0019,xx01) SITE", "equals": "early"})}
    assert bind_roles(ROLES, recognise(images), overrides, series).stacks["arterial"].series_instance_uid == "1.2.12"
    assert (
        "arterial: no stack meets the rule's own condition" in bind_roles(ROLES, recognise(images), overrides).missing
    )


def test_two_phases_in_one_series_become_two_roles() -> None:
    phases = (("ARTERIAL", "101000"), ("PORTAL_VENOUS", "101035"))
    images = [
        replace(i, sop_instance_uid=f"{i.sop_instance_uid}.{n}")
        for n, (phase, time) in enumerate(phases, start=1)
        for i in ct_series(
            "1.2.1", "Leber", 20, AcquisitionNumber=n, AcquisitionTime=time, ContrastBolusAgentPhase=phase
        )
    ]
    numbered = [replace(i, attributes={**i.attributes, "InstanceNumber": n}) for n, i in enumerate(images, start=1)]
    binding = arrived(numbered).bind()
    assert {r: s.stack_id for r, s in binding.stacks.items()} == {"arterial": "1.2.1#1", "portal_venous": "1.2.1#2"}
    assert isinstance(arrived(numbered).verdict, Ready)
    assert isinstance(arrived(numbered[:25]).verdict, Wait)


def test_the_fingerprint_is_of_the_bound_images_and_their_bytes_alone() -> None:
    images = pair(1, 2.5, 20)
    first = bind_roles(ROLES, recognise(images)).fingerprint
    assert bind_roles(ROLES, recognise(images[::-1])).fingerprint == first
    scout = ct_series("1.2.7", "scout", 1, number=7, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    assert bind_roles(ROLES, recognise([*images, *scout])).fingerprint == first
    other_bytes = [replace(images[0], sha256="0" * 64), *images[1:]]
    assert bind_roles(ROLES, recognise(other_bytes)).fingerprint != first
    other = {"ART": "PVP", "PVP": "ART"}
    swapped = [
        replace(i, attributes={**i.attributes, "SeriesDescription": other[i.attributes["SeriesDescription"]]})
        for i in images
    ]
    assert bind_roles(ROLES, recognise(swapped)).fingerprint != first


def test_conflicting_and_own_objects_take_no_part() -> None:
    images = pair(1, 2.5, 20)
    conflict = replace(images[3], sha256="f" * 64, is_conflict=True)
    ours = [replace(i, is_ours=True) for i in ct_series("1.2.99", "ART", 20, number=900, spacing_mm=1.0)]
    assert bound([*images, conflict, *ours]) == {"arterial": "1.2.11", "portal_venous": "1.2.12"}
    assert (
        bind_roles(ROLES, recognise([*images, conflict])).fingerprint
        == bind_roles(ROLES, recognise(images)).fingerprint
    )


def test_inputs_run_along_the_normal() -> None:
    images = pair(1, 2.5, 5)
    inputs = bind_roles(ROLES, recognise(images[::-1])).inputs
    assert inputs["arterial"]["sop_instance_uids"] == [f"1.2.11.{n}" for n in range(1, 6)]
    assert inputs["arterial"]["series_instance_uid"] == "1.2.11"
    assert inputs["arterial"]["paths"][0] == "1.2.11.1.dcm"
