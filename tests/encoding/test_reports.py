"""Reports of every kind of answer, in every form: read back as strangers would, and by strangers."""

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from io import BytesIO
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
from encoded_studies import ct_stack, liver_findings, mr_stack, provenance, through_bytes, us_clip
from programs import need
from pydicom import Dataset, dcmread

from dicom_node.encoding.concepts import PRIVATE_SCHEME, PRIVATE_SCHEME_UID
from dicom_node.encoding.header import identity_bytes
from dicom_node.encoding.package import FALL_BACKS, KINDS, WITHOUT_FALL_BACKS, Package
from dicom_node.encoding.results import EncodedObject, encode_refusal, encode_results
from dicom_node.encoding.sources import InvalidResult
from pipelines.findings import Evaluation, Findings, ImageStatement, Map, Measurement, PlanarFinding

REPORTS = {
    "sr": "1.2.840.10008.5.1.4.1.1.88.34",
    "sr_comprehensive": "1.2.840.10008.5.1.4.1.1.88.33",
    "sr_enhanced": "1.2.840.10008.5.1.4.1.1.88.22",
}
FORMS = {**REPORTS, "sr_text": "1.2.840.10008.5.1.4.1.1.88.11"}
ALL_SR = Package(kinds=("seg", "kos", *FORMS), fall_backs=False)


SMALL = (6, 32, 32)  # slices, rows, columns where more would only take longer


def items(dataset: Dataset) -> Iterator[Dataset]:
    for item in dataset.get("ContentSequence", ()):
        yield item
        yield from items(item)


def name(item: Dataset) -> str:
    return str(item.ConceptNameCodeSequence[0].CodeMeaning) if "ConceptNameCodeSequence" in item else ""


def read(objects: tuple[EncodedObject, ...]) -> dict[str, Dataset]:
    return {item.kind: dcmread(BytesIO(item.data)) for item in objects}


def groups(report: Dataset) -> dict[str, list[Dataset]]:
    found: dict[str, list[Dataset]] = {}
    for group in (item for item in items(report) if name(item) == "Measurement Group"):
        label = next(item.TextValue for item in group.ContentSequence if name(item) == "Tracking Identifier")
        found.setdefault(label, []).append(group)
    return found


def numbers(group: Dataset) -> dict[str, str]:
    return {
        name(item): str(item.MeasuredValueSequence[0].NumericValue)
        + " "
        + item.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue
        for item in group.ContentSequence
        if item.ValueType == "NUM"
    }


def statements(group: Dataset) -> list[tuple[str, str]]:
    return [
        (name(item), item.ConceptCodeSequence[0].CodeMeaning) for item in group.ContentSequence
        if item.ValueType == "CODE" and name(item) not in ("Finding", "Finding Site", "Measurement Method")
    ]  # fmt: skip


def texts(dataset: Dataset) -> list[str]:
    return [
        item.TextValue for item in items(dataset) if item.ValueType == "TEXT" and item.RelationshipType == "CONTAINS"
    ]


def said(dataset: Dataset) -> str:
    """All texts, with lines that were broken put together again."""
    return " ".join(texts(dataset)).replace("   ", " ")


def graphics(item: Dataset) -> list[tuple[str, str, int | None]]:
    """(kind, Instance, frame) of every graphic below."""
    found = []
    for inner in items(item):
        if inner.ValueType == "SCOORD":
            source = inner.ContentSequence[0].ReferencedSOPSequence[0]
            found.append((inner.GraphicType, source.ReferencedSOPInstanceUID, source.get("ReferencedFrameNumber")))
    return found


def evidence(dataset: Dataset) -> set[str]:
    return {
        item.ReferencedSOPInstanceUID
        for study in dataset.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }


def both_phases(**extra: object) -> dict[str, list[Dataset]]:
    return {role: [through_bytes(ds) for ds in ct_stack(role, **extra)] for role in ("arterial", "portal_venous")}


# ------------------------------------------------------------------ answers of other pipelines


def elastography() -> tuple[Findings, dict[str, list[Dataset]]]:
    """As mre_qc answers: a statement per slice, numbers of the exam."""
    quality = ["diagnostic", "diagnostic", "non_diagnostic", "diagnostic"]
    images = tuple(
        ImageStatement(
            index,
            f"Slice {index + 1}",
            (Measurement("shear_stiffness", 3.0 + 0.2 * index, "kPa"), Measurement("readable_area", 1520.4, "mm2"))
            if value == "diagnostic" else (),
            (Evaluation("quality", value),)
            + (() if value == "diagnostic" else (Evaluation("quality_finding", "MOTION"),)),
        )
        for index, value in enumerate(quality)
    )  # fmt: skip
    findings = Findings(
        role="magnitude",
        findings=(),
        images=images,
        measurements=(Measurement("shear_stiffness", 3.234, "kPa"), Measurement("diagnostic_slices", 3, "{slices}")),
        evaluations=(Evaluation("study_quality", "diagnostic"), Evaluation("method", "mr_elastography")),
        headline="Diagnostic: shear stiffness 3.23 kPa at 60 Hz on 3 of 4 slices",
    )
    return findings, {"magnitude": [through_bytes(ds) for ds in mr_stack()]}


def ultrasound() -> tuple[Findings, dict[str, list[Dataset]]]:
    """As us_rf answers: a lesion on a frame of a clip, another on a single image, estimates of the exam."""
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    outline = np.column_stack([70 + 11.5 * np.cos(angle), 48 + 8.2 * np.sin(angle)])
    planar = tuple(
        PlanarFinding(f"Lesion {number}", "focal_abnormality", "liver", image, outline,
                      (Measurement("diameter", 14.26, "mm"), Measurement("certainty", 91, "%")),
                      (Evaluation("presence", "present"),))
        for number, image in ((1, 4), (2, 20))
    )  # fmt: skip
    findings = Findings(
        role="bmode",
        findings=(),
        planar=planar,
        measurements=(
            Measurement("ultrasound_attenuation", 0.713, "dB/(cm.MHz)"),
            Measurement("elasticity", 8.13, "kPa"),
            Measurement("cirrhosis_probability", 3.2, "%"),
        ),
        evaluations=(Evaluation("steatosis_grade", "S2"),),
        headline="Steatosis S2; 2 focal abnormalities",
    )
    return findings, {"bmode": [through_bytes(us_clip(20, 1)), through_bytes(us_clip(1, 2))]}


def fusion() -> tuple[Findings, dict[str, list[Dataset]]]:
    """As fibrosis_fusion answers: nothing on any image."""
    findings = Findings(
        role="mr",
        findings=(),
        measurements=(
            Measurement("significant_fibrosis_probability", 81.4, "%"),
            *(Measurement(f"F{stage}_probability", 20, "%") for stage in range(5)),
            Measurement("fib4", 1.456, "{score}"),
        ),
        evaluations=(Evaluation("fibrosis_stage", "F2"),),
        headline="Fibrosis F2 of F0 to F4; significant fibrosis 81 %",
        warnings=("no biochemistry",),
    )
    sources = {
        "mr": [through_bytes(ds) for ds in mr_stack()],
        "us": [through_bytes(us_clip(20, 1))],
        "ct": [through_bytes(ds) for ds in ct_stack()],
        "rf": [],
    }
    return findings, sources


ANSWERS = {
    "lesions": lambda: (liver_findings(), both_phases()),
    "no lesion": lambda: (liver_findings(lesions=0), both_phases()),
    "elastography": elastography,
    "ultrasound": ultrasound,
    "fusion": fusion,
}


@cache
def encoded(answer: str) -> tuple[EncodedObject, ...]:
    findings, sources = ANSWERS[answer]()
    return encode_results(findings, sources, provenance(), package=ALL_SR)


# ------------------------------------------------------------------ forms


@pytest.mark.parametrize("answer", ANSWERS)
def test_forms_say_the_same_in_objects_of_their_own(answer: str) -> None:
    objects = encoded(answer)
    assert [item.kind for item in objects] == [kind for kind in KINDS if kind in {item.kind for item in objects}]
    found = read(objects)
    assert {kind: str(found[kind].SOPClassUID) for kind in FORMS} == FORMS
    assert len({str(found[kind].SOPInstanceUID) for kind in FORMS}) == 4
    assert len({str(found[kind].SeriesInstanceUID) for kind in found}) == len(found)
    assert len({int(found[kind].SeriesNumber) for kind in found}) == len(found)
    trees = {kind: found[kind].get_item("ContentSequence").value for kind in REPORTS}
    assert len(set(trees.values())) == 1
    for dataset in found.values():
        assert dataset.SeriesDescription.startswith("RESEARCH ")
    for kind in FORMS:
        flags = found[kind].CompletionFlag, found[kind].VerificationFlag, found[kind].PreliminaryFlag
        assert flags == ("COMPLETE", "UNVERIFIED", "PRELIMINARY")
    findings, sources = ANSWERS[answer]()
    inputs = {str(ds.SOPInstanceUID) for stack in sources.values() for ds in stack}
    for kind in FORMS:
        assert evidence(found[kind]) == inputs | {
            str(found[one].SOPInstanceUID) for one in ("seg", "kos") if one in found
        }
    assert findings.headline in said(found["sr"])


@pytest.mark.parametrize("answer", ANSWERS)
def test_whatever_is_tracked_has_a_graphic(answer: str) -> None:
    """Without one, a viewer shows nothing of the report; and it fails on items without a name."""
    report = read(encoded(answer))["sr"]
    for label, parts in groups(report).items():
        assert any(graphics(part) for part in parts), label
    for item in items(report):
        assert name(item), item
        if item.ValueType == "NUM" and "ContentSequence" in item:
            assert [inner.ValueType for inner in item.ContentSequence] == [
                "SCOORD"
            ] or item.RelationshipType != "CONTAINS"


def test_a_flat_text_begins_with_the_answer() -> None:
    report = read(encoded("lesions"))["sr_text"]
    assert {item.ValueType for item in items(report)} == {"CONTAINER", "CODE", "UIDREF", "TEXT"}
    lines = texts(report)
    assert lines[:2] == ["2 lesions: 1 malignant, 1 benign", "Research use, unverified; trained on simulated images"]
    assert lines[2].startswith("Lesion 1: Malignancy as assessed by the algorithm: Malignant; Differential")
    assert "Long axis 23.1 mm" in lines[2]
    assert lines[2].endswith("image 8")
    assert lines[4:] == ["Number of lesions 2", "Volume 10.3 mL", "Lesion: Present",
                        "AI CT liver lesions: ct_lesion 0.1.0, node node-7"]  # fmt: skip
    lines = texts(read(encoded("elastography"))["sr_text"])
    assert lines[0] == "Diagnostic: shear stiffness 3.23 kPa at 60 Hz on 3 of 4 slices"
    assert lines[4] == "Slice 3: Quality Assessment: Non-diagnostic quality; Quality Finding: Motion; image 3"
    assert (
        "Lesion 1: Focal abnormality: Present; Diameter 14.3 mm; Certainty of Finding 91 %; image 1 frame 5"
        in texts(read(encoded("ultrasound"))["sr_text"])
    )


def test_key_objects_are_the_images_that_show_something() -> None:
    selection = read(encoded("lesions"))["kos"]
    assert (selection.Modality, selection.ConceptNameCodeSequence[0].CodeValue) == ("KO", "113000")
    assert selection.ContentTemplateSequence[0].TemplateIdentifier == "2010"
    masks = [finding.mask for finding in liver_findings().findings]
    largest = {f"2.25.1001.4.{1 + int(np.argmax(mask.sum(axis=(1, 2))))}" for mask in masks}
    chosen = [item.ReferencedSOPSequence[0] for item in items(selection) if item.ValueType == "IMAGE"]
    assert {item.ReferencedSOPInstanceUID for item in chosen} == largest == evidence(selection)
    selection = read(encoded("ultrasound"))["kos"]
    chosen = [item.ReferencedSOPSequence[0] for item in items(selection) if item.ValueType == "IMAGE"]
    assert [item.get("ReferencedFrameNumber") for item in chosen] == [5, None]
    assert "kos" not in read(encoded("fusion"))
    assert len(evidence(read(encoded("elastography"))["kos"])) == 4


# ------------------------------------------------------------------ content


def test_statements_of_images_are_shown_on_their_images() -> None:
    report = read(encoded("elastography"))["sr"]
    found = groups(report)
    assert list(found) == ["Liver", "Slice 1", "Slice 2", "Slice 3", "Slice 4"]  # no finding: the exam is the answer
    for index in range(4):
        (group,) = found[f"Slice {index + 1}"]
        assert {(kind, uid) for kind, uid, _ in graphics(group)} == {("POINT", f"2.25.1001.5.{index + 1}")}
    assert numbers(found["Slice 2"][0]) == {
        "Shear stiffness": "3.2 kPa",
        "Area where stiffness can be read": "1520.4 mm2",
    }
    assert statements(found["Slice 3"][0]) == [
        ("Quality Assessment", "Non-diagnostic quality"),
        ("Quality Finding", "Motion"),
        ("Quality Finding", "Motion related artifact"),
    ]
    assert numbers(found["Slice 3"][0]) == {"Image number": "3 1"}  # a graphic needs a number, and there is no other
    assert "Slice 3: Non-diagnostic quality, Motion" in texts(found["Slice 3"][0])
    assert numbers(found["Liver"][0]) == {"Shear stiffness": "3.23 kPa", "Diagnostic slices": "3 {slices}"}
    assert statements(found["Liver"][0]) == [("Imaging Study Quality", "Diagnostic quality")]
    (method,) = [item for item in found["Liver"][0].ContentSequence if name(item) == "Measurement Method"]
    assert method.RelationshipType == "HAS CONCEPT MOD"


def test_findings_on_frames_of_ultrasound() -> None:
    objects = read(encoded("ultrasound"))
    assert "seg" not in objects
    found = groups(objects["sr"])
    assert list(found) == ["Lesion 1", "Lesion 2", "Liver"]
    (first,), (second,), (exam,) = found.values()
    assert first.ContentTemplateSequence[0].TemplateIdentifier == "1410"
    assert graphics(first) == [("POLYLINE", "2.25.1001.6.1", 5)]
    assert graphics(second) == [("POLYLINE", "2.25.1001.6.2", None)]
    (region,) = [item for item in first.ContentSequence if item.ValueType == "SCOORD"]
    assert region.GraphicData[:2] == region.GraphicData[-2:]
    assert len(region.GraphicData) == 2 * 25
    assert numbers(first) == {"Diameter": "14.3 mm", "Certainty of Finding": "91 %"}
    assert statements(first) == [("Focal abnormality", "Present")]
    shown = {(uid, frame) for _, uid, frame in graphics(exam)}
    assert len(shown) == 1
    assert not shown & {("2.25.1001.6.1", 5), ("2.25.1001.6.2", None)}
    assert numbers(exam)["Ultrasound Attenuation"] == "0.71 dB/(cm.MHz)"
    library = next(item for item in items(objects["sr"]) if name(item) == "Image Library")
    assert {name(item) for item in items(library)} == {"Image Library Group", "Modality", "Source"}


def test_an_answer_from_several_modalities() -> None:
    report = read(encoded("fusion"))["sr"]
    procedures = [
        item.ConceptCodeSequence[0].CodeMeaning for item in items(report) if name(item) == "Procedure reported"
    ]
    assert procedures == ["Imaging procedure"]
    (exam,) = groups(report)["Liver"]
    assert statements(exam) == [("Fibrosis stage, METAVIR-like", "F2: significant fibrosis"),
                                ("Fibrosis stage, METAVIR-like", "Fibrosis")]  # fmt: skip
    assert numbers(exam)["Probability of significant fibrosis (F2 or more)"] == "81.4 %"
    assert "Note: no biochemistry" in texts(exam)
    assert {uid.rsplit(".", 1)[0] for _, uid, _ in graphics(exam)} == {"2.25.1001.5"}


def test_a_role_without_images_will_do_if_nothing_lies_on_it() -> None:
    findings, sources = fusion()
    (report,) = encode_results(replace(findings, role="rf"), sources, provenance(), package=WITHOUT_FALL_BACKS)
    assert graphics(dcmread(BytesIO(report.data)))[0][0] == "POINT"
    findings, sources = ultrasound()
    with pytest.raises(InvalidResult, match="No images of the role 'rf'"):
        encode_results(replace(findings, role="rf"), sources, provenance())


def test_an_exam_without_any_number_is_shown() -> None:
    findings = Findings("portal_venous", (), headline="Nothing to measure")
    report = read(encode_results(findings, both_phases(), provenance(), package=WITHOUT_FALL_BACKS))["sr"]
    (exam,) = groups(report)["Liver"]
    assert numbers(exam) == {"Images analysed": "12 {images}"}
    assert statements(exam) == []
    assert "Nothing to measure" in texts(exam)


# ------------------------------------------------------------------ references between objects


def test_a_report_leads_to_what_is_wanted_and_is_another_one_where_that_differs() -> None:
    def report(*kinds: str, fall_backs: bool = True) -> tuple[EncodedObject, ...]:
        package = Package(kinds=kinds, fall_backs=fall_backs)
        sources = {"portal_venous": ct_stack(slices=SMALL[0], size=SMALL[1])}
        return encode_results(liver_findings(SMALL, lesions=1), sources, provenance(), package=package)

    usual = {item.kind: item for item in report("seg", "sr")}
    assert set(usual) >= {"seg", "sr", *FALL_BACKS["sr"]}
    fewer = {item.kind: item for item in report("seg", "sr", fall_backs=False)}
    assert all(usual[kind].data == item.data for kind, item in fewer.items())

    with_key = {item.kind: item for item in report("seg", "kos", "sr")}
    assert with_key["seg"].data == usual["seg"].data
    assert with_key["sr"].sop_instance_uid != usual["sr"].sop_instance_uid
    referenced = {
        reference.ReferencedSOPInstanceUID
        for item in items(dcmread(BytesIO(with_key["sr"].data)))
        for reference in item.get("ReferencedSOPSequence", ())
    }
    assert {with_key["seg"].sop_instance_uid, with_key["kos"].sop_instance_uid} <= referenced

    alone = {item.kind: item for item in report("sr")}
    assert "seg" not in alone
    assert alone["sr"].sop_instance_uid not in {usual["sr"].sop_instance_uid, with_key["sr"].sop_instance_uid}
    found = groups(dcmread(BytesIO(alone["sr"].data)))
    assert [group.ContentTemplateSequence[0].TemplateIdentifier for group in found["Lesion 1"]] == ["1410"]
    assert "Volume" in numbers(found["Lesion 1"][0])

    none = read(report("seg", "sr_text", fall_backs=False))
    assert set(none) == {"seg", "sr_text"}


def test_the_root_leads_to_every_kind_of_object() -> None:
    values = np.where(liver_findings().regions[0].mask, np.float32(2.5), np.float32(np.nan))
    findings = liver_findings(maps=(Map("Shear stiffness", "shear_stiffness", "kPa", values),))
    everything = Package(kinds=tuple(KINDS))
    pixels = np.zeros((12, 64, 64), np.int16)
    objects = encode_results(findings, both_phases(), provenance(), package=everything, pixels=pixels)
    assert [item.kind for item in objects] == list(KINDS)
    found = read(objects)
    others = {kind: str(dataset.SOPInstanceUID) for kind, dataset in found.items() if kind not in FORMS}
    for kind in REPORTS:
        referenced = {
            str(reference.ReferencedSOPInstanceUID)
            for item in items(found[kind])
            for reference in item.get("ReferencedSOPSequence", ())
        }
        assert set(others.values()) <= referenced
        assert set(others.values()) <= evidence(found[kind])
    supporting = next(item for item in found["sr"].ContentSequence if name(item) == "Supporting Information")
    assert [(item.ValueType, name(item)) for item in supporting.ContentSequence] == [
        ("IMAGE", "Source of Measurement"),
        ("IMAGE", "Source of Measurement"),
        ("IMAGE", "Summary"),
        ("COMPOSITE", "Summary"),
        ("COMPOSITE", "Key Images"),
    ]
    usual = {item.kind: item for item in encode_results(findings, both_phases(), provenance(), pixels=pixels)}
    assert set(usual) == {"seg", "pm", "sc", *FORMS}
    assert usual["sc"].sop_instance_uid not in evidence(dcmread(BytesIO(usual["sr"].data)))
    assert usual["sc"].data == next(item.data for item in objects if item.kind == "sc")
    refused = encode_refusal("no wave image", both_phases(), provenance(), package=everything)
    assert {item.kind for item in refused} == {"sc", "pdf", *FORMS}
    assert not {item.sop_instance_uid for item in refused} & {item.sop_instance_uid for item in objects}


def test_a_segmentation_that_no_finding_leads_to_is_referred_to_all_the_same() -> None:
    objects = read(encoded("no lesion"))
    supporting = next(item for item in objects["sr"].ContentSequence if name(item) == "Supporting Information")
    (item,) = supporting.ContentSequence
    assert item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == objects["seg"].SOPInstanceUID


# ------------------------------------------------------------------ refusals, character sets, what is refused


def test_a_refusal_comes_in_every_form() -> None:
    reason = "no wave image: 4 slices have magnitude only"
    for sources in (elastography()[1], {"bmode": [us_clip(20)]}):
        found = read(encode_refusal(reason, sources, provenance(), package=ALL_SR))
        assert {kind: str(dataset.SOPClassUID) for kind, dataset in found.items()} == FORMS
        assert len({str(dataset.SeriesInstanceUID) for dataset in found.values()}) == 4
        for dataset in found.values():
            assert dataset.SeriesDescription.startswith("NOT ANALYSED by AI CT liver lesions: no wave image")
            assert reason in said(dataset)
        assert graphics(found["sr"])
    assert graphics(found["sr"]) == [("POINT", "2.25.1001.6.1", 10)]


CHARACTER_SETS = [
    ("ISO_IR 192", "Müller^Zoë=王^小东", "Leber µ 肝"),
    ("ISO_IR 100", "Müller^Zoë", "Leber u ?"),
    ("GB18030", "Wang^XiaoDong=王^小东", "Leber µ 肝"),
    (["ISO 2022 IR 13", "ISO 2022 IR 87"], "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう", "Leber u ?"),
    (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう", "Leber u ?"),
    (None, "Smith^John", "Leber u ?"),
]


@pytest.mark.parametrize(("charset", "patient", "words"), CHARACTER_SETS)
def test_identity_is_copied_and_our_words_can_be_read(charset: object, patient: str, words: str) -> None:
    small = ct_stack(slices=SMALL[0], size=SMALL[1], SpecificCharacterSet=charset, PatientName=patient)
    stack = [through_bytes(ds) for ds in small]
    findings = liver_findings(SMALL, lesions=1, headline="Leber µ 肝")
    objects = encode_results(findings, {"portal_venous": stack}, provenance(), package=ALL_SR)
    assert {item.kind for item in objects} == {"seg", "kos", *FORMS}
    for kind, dataset in read(objects).items():
        assert identity_bytes(dataset) == identity_bytes(stack[0])
        assert str(dataset.PatientName) == patient
        list(dataset.iterall())
        if kind in FORMS:
            assert words in texts(dataset)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": 21}, "Lesion 1: role 'bmode' has 21 images"),
        ({"tracking_id": "Lesion 2"}, "share a name"),
        ({"outline": np.asarray([[1.0, 1], [129, 1], [5, 5]])}, "leaves its image of 128 columns and 96 rows"),
        ({"outline": np.asarray([[1.0, 1], [5, 5]])}, "at least three points"),
        ({"measurements": (Measurement("diameter", float("inf"), "mm"),)}, "diameter is inf"),
    ],
)
def test_what_cannot_lie_there_is_refused(change: dict[str, object], message: str) -> None:
    findings, sources = ultrasound()
    wrong = replace(findings.planar[0], **change)
    with pytest.raises(InvalidResult, match=message):
        encode_results(replace(findings, planar=(wrong, findings.planar[1])), sources, provenance())


# ------------------------------------------------------------------ strangers


@pytest.mark.parametrize("answer", ANSWERS)
def test_dciodvfy_and_dcmtk_find_no_fault(answer: str, tmp_path: Path) -> None:
    """0 errors, 0 warnings, but for the validator's not knowing our scheme of codes."""
    dciodvfy, dsrdump = need("dciodvfy"), need("dsrdump")
    _, sources = ANSWERS[answer]()
    refused = encode_refusal("no image", sources, provenance(), package=ALL_SR) if answer == "ultrasound" else ()
    for index, item in enumerate([*encoded(answer), *refused]):
        path = tmp_path / f"{index}.dcm"
        path.write_bytes(item.data)
        output = subprocess.run([dciodvfy, "-new", str(path)], capture_output=True, text=True).stderr
        lines = [line for line in output.splitlines() if line.startswith(("Error", "Warning"))]
        faults = [line for line in lines if not line.endswith((f"= <{PRIVATE_SCHEME}>", f"= <{PRIVATE_SCHEME_UID}>"))]
        assert not faults, (item.kind, faults)
        if item.kind in FORMS:
            done = subprocess.run([dsrdump, "-Ec", str(path)], capture_output=True)
            assert done.returncode == 0, done.stderr.decode()


@pytest.mark.parametrize("answer", ANSWERS)
def test_highdicom_reads_the_reports(answer: str) -> None:
    for item in encoded(answer):
        if item.kind not in REPORTS:
            continue
        report = hd.sr.srread(BytesIO(item.data))
        findings, _ = ANSWERS[answer]()
        planar = report.content.get_planar_roi_measurement_groups()
        assert len(planar) == len(findings.findings) + len(findings.planar)
        assert len(report.content.get_volumetric_roi_measurement_groups()) == len(findings.findings)
        whole = report.content.get_image_measurement_groups()
        assert len(whole) == len(findings.images) + 1
        assert [one.value for one in whole[-1].get_measurements()] or not findings.measurements
