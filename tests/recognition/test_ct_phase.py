"""The verdict on CT stacks: order of evidence, extras set aside, pixels as check and as help."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from dicom_node.recognition.ct_pixels import Enhancement, judge
from dicom_node.recognition.stacks import Stack
from dicom_node.recognition.study import OURS, Recognised, recognise
from storage.records import Instance

CT = "1.2.840.10008.5.1.4.1.1.2"


def series(uid: str, description: str = "", count: int = 12, sop_class: str = CT, **attributes: Any) -> list[Instance]:
    values: dict[str, Any] = {
        "Modality": "CT", "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"], "SeriesDescription": description,
        "SeriesNumber": int(uid.split(".")[-1]), "ImageOrientationPatient": [1.0, 0, 0, 0, 1.0, 0], "Rows": 512,
        "Columns": 512, "PixelSpacing": [0.8, 0.8], "AcquisitionDate": "20250101", "AcquisitionTime": "100000",
        "ContrastBolusAgent": "Iomeron",
    } | attributes  # fmt: skip
    return [
        Instance(
            f"{uid}.{n}", sop_class, uid, "1.2", "1.2.840.10008.1.2", "", "", 0,
            attributes=values | {"InstanceNumber": n, "ImagePositionPatient": [0.0, 0.0, 3.0 * n]},
        )
        for n in range(1, count + 1)
    ]  # fmt: skip


def kinds(recognised: Recognised) -> dict[str, str]:
    return {r.stack.series_instance_uid: r.kind for r in recognised.stacks}


def kind_and_reason(
    *images: list[Instance], pixels: Callable[[Stack], Enhancement | None] | None = None
) -> tuple[str, str]:
    found = recognise([i for part in images for i in part], pixels).stacks[0]
    return found.kind, found.reason


ARTERIAL, PORTAL, PLAIN = judge(320, 65, 10, 5), judge(150, 110, 10, 5), judge(42, 55, 10, 5)


def test_the_fixed_measurements_mean_what_their_names_say() -> None:
    assert [e.phase for e in (ARTERIAL, PORTAL, PLAIN)] == ["arterial", "portal_venous", "plain"]


# ---- order of evidence


@pytest.mark.parametrize(
    ("declared", "kind"),
    [
        ("ARTERIAL", "ct arterial"), ("LATE ARTERIAL", "ct arterial"), ("PORTAL_VENOUS", "ct portal_venous"),
        ("DELAYED", "ct delayed"), ("PRE_CONTRAST", "ct plain"), ("PRE-CONTRAST", "ct plain"),
    ],
)  # fmt: skip
def test_the_declared_phase_comes_first(declared: str, kind: str) -> None:
    found, reason = kind_and_reason(series("1.1", "Abdomen", ContrastBolusAgentPhase=declared))
    assert found == kind
    assert "Contrast/Bolus Agent Phase is" in reason


@pytest.mark.parametrize(("time", "kind"), [("100035", "arterial"), ("100112", "portal_venous"), ("100400", "delayed")])
def test_the_delay_after_the_bolus_tells_the_phase(time: str, kind: str) -> None:
    found, reason = kind_and_reason(series("1.1", "Abdomen", AcquisitionTime=time, ContrastBolusStartTime="100000"))
    assert found == f"ct {kind}"
    assert "after the start of the contrast bolus" in reason


@pytest.mark.parametrize("time", ["100000", "100003", "100050", "113000"])
def test_a_delay_between_the_phases_or_of_nothing_says_nothing(time: str) -> None:
    assert kind_and_reason(series("1.1", "Abdomen", AcquisitionTime=time, ContrastBolusStartTime="100000"))[0] == (
        "ct unknown phase"
    )


def test_a_bolus_over_midnight_is_counted_right() -> None:
    images = series(
        "1.1", "Liver", AcquisitionDate="20250102", AcquisitionTime="000015", ContrastBolusStartTime="235940"
    )
    assert kind_and_reason(images)[0] == "ct arterial"


def test_one_text_for_the_whole_exam_tells_no_phase_from_another() -> None:
    both = [series("1.1", "A", ProtocolName="Liver arterial"), series("1.2", "B", ProtocolName="Liver arterial")]
    assert set(kinds(recognise(both[0] + both[1])).values()) == {"ct unknown phase"}
    assert kind_and_reason(series("1.1", "A", ProtocolName="Liver arterial"))[0] == "ct arterial"


def test_ap_counts_beside_a_portal_series_and_not_alone() -> None:
    assert kind_and_reason(series("1.1", "AP"))[0] == "ct unknown phase"
    assert kind_and_reason(series("1.1", "AP"), series("1.2", "PVP"))[0] == "ct arterial"
    assert kinds(recognise(series("1.1", "AP") + series("1.2", "VP"))) == {
        "1.1": "ct arterial",
        "1.2": "ct portal_venous",
    }


def test_the_order_in_time_tells_what_names_do_not() -> None:
    first, second = (
        series("1.1", "Liver 1", AcquisitionTime="100000"),
        series("1.2", "Liver 2", AcquisitionTime="100035"),
    )
    assert kinds(recognise(first + second)) == {"1.1": "ct arterial", "1.2": "ct portal_venous"}
    named = series("1.3", "PVP", AcquisitionTime="100035")
    assert kind_and_reason(first, named)[0] == "ct arterial"
    late = series("1.2", "Liver 2", AcquisitionTime="100500")
    assert set(kinds(recognise(first + late)).values()) == {"ct unknown phase"}
    unenhanced = [
        series(u, "x", AcquisitionTime=t, ContrastBolusAgent="") for u, t in (("1.1", "100000"), ("1.2", "100035"))
    ]
    assert set(kinds(recognise(unenhanced[0] + unenhanced[1])).values()) == {"ct unknown phase"}


# ---- pixels


def test_pixels_that_agree_or_disagree_with_the_header_are_told_and_do_not_decide() -> None:
    assert "the pixels agree" in kind_and_reason(series("1.1", "ART"), pixels=lambda _: ARTERIAL)[1]
    kind, reason = kind_and_reason(series("1.1", "ART"), pixels=lambda _: PORTAL)
    assert kind == "ct arterial"
    assert "warning: the pixels look portal-venous" in reason


def test_pixels_decide_where_the_header_is_silent_or_contradicts_itself() -> None:
    assert kind_and_reason(series("1.1", "Liver"), pixels=lambda _: PORTAL)[0] == "ct portal_venous"
    contradiction = series("1.1", "PVP", ContrastBolusAgentPhase="ARTERIAL")
    assert kind_and_reason(contradiction)[0] == "ct arterial"
    kind, reason = kind_and_reason(contradiction, pixels=lambda _: PORTAL)
    assert kind == "ct portal_venous"
    assert "the pixels decide" in reason


def test_of_two_unnamed_stacks_the_brighter_liver_is_portal_venous() -> None:
    livers = {"1.1": 105.0, "1.2": 66.0}

    def pixels(stack: Stack) -> Enhancement:
        return replace(
            judge(None, livers[stack.series_instance_uid] - 20, 10, 5),
            organ_hu=livers[stack.series_instance_uid],
            phase=None,
        )

    recognised = recognise(series("1.1", "one") + series("1.2", "two"), pixels)
    assert kinds(recognised) == {"1.1": "ct portal_venous", "1.2": "ct arterial"}
    alike = {"1.1": 70.0, "1.2": 66.0}
    livers.update(alike)
    assert set(kinds(recognise(series("1.1", "one") + series("1.2", "two"), pixels)).values()) == {"ct unknown phase"}


def test_pixels_are_asked_only_where_they_can_matter() -> None:
    asked: list[str] = []

    def pixels(stack: Stack) -> None:
        asked.append(str(stack.attributes["SeriesDescription"]))

    recognise(
        series("1.1", "nativ") + series("1.2", "Delay") + series("1.3", "ART") + series("1.4", "Liver")
        + series("1.5", "Bone", ConvolutionKernel="B70f") + series("1.6", "Topogram", 1) + series("1.7", "PVP", 3),
        pixels,
    )  # fmt: skip
    assert asked == ["ART", "Liver"]


# ---- extras


@pytest.mark.parametrize(
    ("kind", "how"),
    [
        ("localizer", {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}),
        ("localizer", {"description": "Topogram AP"}),
        ("mpr", {"ImageOrientationPatient": [1.0, 0, 0, 0, 0, -1.0]}),
        ("mpr", {"ImageType": ["DERIVED", "SECONDARY", "MPR"]}),
        ("mpr", {"ImageType": ["DERIVED", "SECONDARY", "REFORMATTED"]}),
        ("bone kernel", {"ConvolutionKernel": "B70f", "description": "ART"}),
        ("bone kernel", {"description": "ART Bone"}),
        ("bolus tracking", {"description": "Monitoring"}),
        ("ct derived map", {"description": "VNC"}),
        ("ct without geometry", {"ImageOrientationPatient": None}),
        ("ct several phases", {"FrameContrastPhases": ["ARTERIAL", "PORTAL_VENOUS"]}),
        ("dose report", {"sop_class": "1.2.840.10008.5.1.4.1.1.88.67"}),
        ("structured report", {"sop_class": "1.2.840.10008.5.1.4.1.1.88.34"}),
        ("segmentation", {"sop_class": "1.2.840.10008.5.1.4.1.1.66.4"}),
        ("secondary capture", {"sop_class": "1.2.840.10008.5.1.4.1.1.7"}),
        ("structure set", {"sop_class": "1.2.840.10008.5.1.4.1.1.481.3"}),
        ("unknown", {"sop_class": "1.2.840.10008.5.1.4.1.1.481.2"}),
        ("pet", {"sop_class": "1.2.840.10008.5.1.4.1.1.128"}),
        ("mr", {"sop_class": "1.2.840.10008.5.1.4.1.1.4"}),
        ("ultrasound", {"sop_class": "1.2.840.10008.5.1.4.1.1.3.1"}),
        ("unknown", {"sop_class": "1.2.3.4"}),
    ],
)
def test_extras_are_set_aside_with_a_reason(kind: str, how: dict[str, Any]) -> None:
    found, reason = kind_and_reason(series("1.1", **how))
    assert found == kind
    assert reason


def test_our_own_results_are_known_as_such() -> None:
    recognised = recognise([replace(i, is_ours=True) for i in series("1.1", "ART")])
    assert kinds(recognised) == {"1.1": OURS}
    assert (recognised.images, recognised.series[0].kind) == (0, OURS)


def test_a_series_of_two_stacks_is_told_in_one_line() -> None:
    images = series("1.1", "Leber", ContrastBolusAgentPhase="ARTERIAL") + [
        replace(
            i,
            sop_instance_uid=f"{i.sop_instance_uid}.9",
            attributes={**i.attributes, "ContrastBolusAgentPhase": "PORTAL_VENOUS", "AcquisitionNumber": 2},
        )
        for i in series("1.1", "Leber")
    ]
    verdict = recognise(images).series[0]
    assert verdict.kind == "ct arterial + ct portal_venous"
    assert verdict.images == 24
    assert "2 stacks" in verdict.reason


def test_an_empty_study_and_headers_of_nothing_do_not_raise() -> None:
    assert recognise([]).stacks == ()
    bare = Instance("1.1.1", CT, "1.1", "1.2", "1.2", "", "", 0)
    assert kinds(recognise([bare])) == {"1.1": "ct without geometry"}
