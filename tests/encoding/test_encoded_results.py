"""Findings to DICOM and back through bytes, read as a stranger would."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from functools import cache, partial
from io import BytesIO
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
from encoded_studies import ball, ct_stack, lesion, liver_findings, provenance, through_bytes
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from programs import need
from pydicom import Dataset, dcmread
from pydicom.uid import UID

from dicom_node.encoding import results
from dicom_node.encoding.header import IDENTITY_KEYWORDS, identity_bytes, plain
from dicom_node.encoding.package import WITHOUT_FALL_BACKS
from dicom_node.encoding.provenance import Predecessor, is_ours
from dicom_node.encoding.results import EncodedObject
from dicom_node.encoding.sources import InvalidResult
from pipelines.findings import Finding, Findings, Measurement

# the other forms have tests of their own
encode_results = partial(results.encode_results, package=WITHOUT_FALL_BACKS)
encode_refusal = partial(results.encode_refusal, package=WITHOUT_FALL_BACKS)

SHAPE, SPACING = (12, 64, 64), (2.5, 0.8, 0.8)
VOXEL_MM3 = float(np.prod(SPACING))


def both_phases(**extra: object) -> dict[str, list[Dataset]]:
    return {role: [through_bytes(ds) for ds in ct_stack(role, **extra)] for role in ("arterial", "portal_venous")}


@cache
def answered() -> tuple[EncodedObject, ...]:
    """Results of the usual study, made once for the tests that only read them."""
    return encode_results(liver_findings(), both_phases(), provenance())


def read(objects: tuple[EncodedObject, ...], kind: str) -> Dataset:
    return dcmread(BytesIO(next(item.data for item in objects if item.kind == kind)))


def items(dataset: Dataset) -> Iterator[Dataset]:
    for item in dataset.get("ContentSequence", ()):
        yield item
        yield from items(item)


def name(item: Dataset) -> str:
    return str(item.ConceptNameCodeSequence[0].CodeValue) if "ConceptNameCodeSequence" in item else ""


def groups(report: Dataset) -> dict[str, list[Dataset]]:
    """Measurement groups by tracking identifier."""
    found: dict[str, list[Dataset]] = {}
    for group in (item for item in items(report) if name(item) == "125007"):
        label = next(item.TextValue for item in group.ContentSequence if name(item) == "112039")
        found.setdefault(label, []).append(group)
    return found


def numbers(parts: list[Dataset]) -> dict[str, tuple[float, str]]:
    return {
        item.ConceptNameCodeSequence[0].CodeMeaning: (
            float(item.MeasuredValueSequence[0].NumericValue),
            item.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue,
        )
        for part in parts
        for item in items(part)
        if item.get("ValueType") == "NUM"
    }


def texts(dataset: Dataset) -> str:
    return " ".join(item.TextValue for item in items(dataset) if name(item) == "121106")


def masks_in_space(seg: Dataset) -> dict[str, set[tuple[float, float, float]]]:
    """Voxel centres (LPS mm) of every Segment, from the positions in the SEG alone."""
    shared = seg.SharedFunctionalGroupsSequence[0]
    orientation = np.asarray(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float)
    rows_mm, columns_mm = (float(part) for part in shared.PixelMeasuresSequence[0].PixelSpacing)
    labels = {item.SegmentNumber: item.TrackingID for item in seg.SegmentSequence}
    found: dict[str, set[tuple[float, float, float]]] = {}
    planes = seg.pixel_array.reshape(-1, seg.Rows, seg.Columns)
    for plane, groups_ in zip(planes, seg.PerFrameFunctionalGroupsSequence, strict=True):
        origin = np.asarray(groups_.PlanePositionSequence[0].ImagePositionPatient, float)
        row, column = np.nonzero(plane)
        points = origin + np.outer(column, orientation[:3] * columns_mm) + np.outer(row, orientation[3:] * rows_mm)
        label = labels[groups_.SegmentIdentificationSequence[0].ReferencedSegmentNumber]
        found.setdefault(label, set()).update(map(tuple, points.round(2).tolist()))
    return found


def truth_in_space(mask: NDArray[np.bool_], sources: list[Dataset]) -> set[tuple[float, float, float]]:
    """The same from the source images and the mask."""
    found = set()
    for plane, source in zip(mask, sources, strict=True):
        orientation = np.asarray(source.ImageOrientationPatient, float)
        rows_mm, columns_mm = (float(part) for part in source.PixelSpacing)
        row, column = np.nonzero(plane)
        points = (
            np.asarray(source.ImagePositionPatient, float)
            + np.outer(column, orientation[:3] * columns_mm)
            + np.outer(row, orientation[3:] * rows_mm)
        )
        found.update(map(tuple, points.round(2).tolist()))
    return found


def test_a_study_with_lesions_comes_back_whole() -> None:
    sources, findings = both_phases(), liver_findings()
    objects = answered()
    assert [item.kind for item in objects] == ["seg", "sr"]
    seg, report = read(objects, "seg"), read(objects, "sr")

    assert report.SOPClassUID == "1.2.840.10008.5.1.4.1.1.88.34"
    assert report.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    assert report.ConceptNameCodeSequence[0].CodeValue == "126000"
    flags = report.CompletionFlag, report.VerificationFlag, report.PreliminaryFlag, report.ContentQualification
    assert flags == ("COMPLETE", "UNVERIFIED", "PRELIMINARY", "RESEARCH")
    evidence = {
        item.ReferencedSOPInstanceUID
        for study in report.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }
    assert evidence == {ds.SOPInstanceUID for stack in sources.values() for ds in stack} | {seg.SOPInstanceUID}

    found = groups(report)
    assert list(found) == ["Lesion 1", "Lesion 2", "Liver"]
    for finding, segment in zip(findings.findings, seg.SegmentSequence, strict=False):
        parts = found[finding.tracking_id]
        assert len(parts) == 2
        uids = {item.UID for part in parts for item in part.ContentSequence if name(item) == "112040"}
        assert uids == {segment.TrackingUID} == {provenance().tracking_uid(finding.tracking_id)}
        values = numbers(parts)
        voxels = int(seg.pixel_array[[groups_.SegmentIdentificationSequence[0].ReferencedSegmentNumber
                                      == segment.SegmentNumber
                                      for groups_ in seg.PerFrameFunctionalGroupsSequence]].sum())  # fmt: skip
        assert values["Volume"] == (pytest.approx(voxels * VOXEL_MM3, abs=0.5), "mm3")
        assert values["Long axis"] == (23.1, "mm")
        assert values["Probability of cancer"][1] == "%"
        referenced = [item.ReferencedSOPSequence[0] for part in parts for item in part.ContentSequence
                      if name(item) == "121191"]  # fmt: skip
        assert [(item.ReferencedSOPInstanceUID, item.ReferencedSegmentNumber) for item in referenced] == [
            (seg.SOPInstanceUID, segment.SegmentNumber)
        ]
    liver = float(np.count_nonzero(findings.regions[0].mask)) * VOXEL_MM3 / 1000
    assert numbers(found["Liver"])["Volume"] == (pytest.approx(liver, abs=0.06), "mL")
    assert "2 lesions: 1 malignant, 1 benign" in texts(report)
    assert "Research use" in texts(report)

    assert [item.SegmentLabel for item in seg.SegmentSequence] == [
        "Lesion 1 malignant 87 %",
        "Lesion 2 benign (3 % malignant)",
        "Liver without lesions",
    ]
    assert {item.SegmentAlgorithmType for item in seg.SegmentSequence} == {"AUTOMATIC"}
    assert len({tuple(item.RecommendedDisplayCIELabValue) for item in seg.SegmentSequence}) == 3
    assert seg.SegmentsOverlap == "NO"
    assert [item.SeriesInstanceUID for item in seg.ReferencedSeriesSequence] == ["2.25.1001.4"]
    space = masks_in_space(seg)
    for finding in findings.findings:
        assert space[finding.tracking_id] == truth_in_space(finding.mask, sources["portal_venous"])


def test_both_objects_say_who_made_them_and_that_it_is_research() -> None:
    for item in answered():
        dataset = dcmread(BytesIO(item.data))
        assert dataset.SeriesDescription == "RESEARCH AI CT liver lesions 0.1.0, trained on simulation"
        assert dataset.SeriesNumber >= 9000
        assert dataset.InstanceNumber == 1
        assert dataset.Manufacturer == "dicom-node"
        assert dataset.DeviceSerialNumber == "node-7"
        assert is_ours(dataset)
        acquisition, ours = dataset.ContributingEquipmentSequence
        assert acquisition.Manufacturer == "SynthScan"
        assert ours.Manufacturer == "dicom-node"
        assert dataset.file_meta.TransferSyntaxUID == item.transfer_syntax_uid == "1.2.840.10008.1.2.1"
        assert dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID == item.sop_instance_uid
        assert dataset.SeriesInstanceUID == item.series_instance_uid
        for element in dataset.iterall():
            if element.VR == "UI" and isinstance(element.value, str) and element.value:
                assert UID(element.value).is_valid, element
    assert len({item.series_instance_uid for item in answered()}) == 2


def test_two_builds_are_the_same_bytes() -> None:
    again = encode_results(liver_findings(), both_phases(), provenance())
    assert [item.data for item in again] == [item.data for item in answered()]


def test_another_process_makes_the_same_bytes(tmp_path: Path) -> None:
    """Random UIDs or the time of day would show here, and hash seeds too."""
    code = (
        "import sys, hashlib; sys.path[:0] = sys.argv[1:]\n"
        "from encoded_studies import *\n"
        "from dicom_node.encoding.package import WITHOUT_FALL_BACKS\n"
        "from dicom_node.encoding.results import encode_results\n"
        "sources = {'portal_venous': [through_bytes(ds) for ds in ct_stack()]}\n"
        "print([hashlib.sha256(o.data).hexdigest() for o in encode_results(liver_findings(), sources, provenance(),"
        "      package=WITHOUT_FALL_BACKS)])"
    )
    here = Path(__file__).parent
    environment = {**os.environ, "PYTHONHASHSEED": "7", "TZ": "Asia/Shanghai"}
    found = subprocess.run([sys.executable, "-c", code, str(here), str(here.parent.parent)],
                           capture_output=True, text=True, check=True, env=environment, cwd=tmp_path)  # fmt: skip
    sources = {"portal_venous": [through_bytes(ds) for ds in ct_stack()]}
    ours = [hashlib.sha256(item.data).hexdigest() for item in encode_results(liver_findings(), sources, provenance())]
    assert found.stdout.strip() == str(ours)


def test_a_new_version_has_new_uids_the_same_tracking_and_names_its_predecessor() -> None:
    sources, findings = both_phases(), liver_findings()
    first = read(answered(), "sr")
    old = Predecessor(first.StudyInstanceUID, first.SeriesInstanceUID, first.SOPInstanceUID, first.SOPClassUID)
    second = read(encode_results(findings, sources, provenance(version="0.2.0", predecessor=old)), "sr")
    assert second.SOPInstanceUID != first.SOPInstanceUID
    assert second.SeriesInstanceUID != first.SeriesInstanceUID
    named = second.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0]
    assert named.SeriesInstanceUID == first.SeriesInstanceUID
    assert named.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == first.SOPInstanceUID

    def tracked(report: Dataset) -> list[str]:
        return [item.UID for item in items(report) if name(item) == "112040"]

    assert tracked(first) == tracked(second)


@pytest.mark.parametrize("liver", [True, False])
def test_no_lesion_is_said_and_shown(liver: bool) -> None:
    objects = encode_results(liver_findings(lesions=0, liver=liver), both_phases(), provenance())
    assert [item.kind for item in objects] == (["seg", "sr"] if liver else ["sr"])
    report = read(objects, "sr")
    (group,) = groups(report)["Liver"]
    absent = [item.ConceptCodeSequence[0].CodeMeaning for item in group.ContentSequence if name(item) == "52988006"]
    assert absent == ["Absent"]
    assert "No lesion found" in texts(report)
    points = [item for item in items(group) if item.get("ValueType") == "SCOORD"]
    assert points
    assert {item.GraphicType for item in points} == {"POINT"}
    if liver:
        assert [item.SegmentLabel for item in read(objects, "seg").SegmentSequence] == ["Liver"]


def test_warnings_reach_the_reader() -> None:
    findings = liver_findings(warnings=("the arterial phase is early: aorta 310 HU, portal vein 95 HU, liver 61 HU",))
    assert "portal vein 95 HU" in texts(read(encode_results(findings, both_phases(), provenance()), "sr"))


def test_a_refused_study_says_why() -> None:
    reason = "no arterial phase: every series was acquired later than 60 s after the injection"
    (item,) = encode_refusal(reason, {"portal_venous": both_phases()["portal_venous"]}, provenance())
    report = dcmread(BytesIO(item.data))
    assert report.SeriesDescription.startswith("NOT ANALYSED by AI CT liver lesions: no arterial phase")
    assert len(report.SeriesDescription) <= 64
    assert reason in texts(report).replace("   ", " ")
    assert report.ConceptNameCodeSequence[0].CodeValue == "126000"
    assert any(item.get("ValueType") == "SCOORD" for item in items(report))
    done = read(answered(), "sr")
    assert report.SOPInstanceUID != done.SOPInstanceUID


def test_a_refused_study_needs_no_geometry() -> None:
    source = ct_stack(slices=1, ImagePositionPatient=None, ImageOrientationPatient=None, PixelSpacing=None,
                      FrameOfReferenceUID=None)[0]  # fmt: skip
    (item,) = encode_refusal("images without position", {"portal_venous": [source], "arterial": []}, provenance())
    assert item.kind == "sr"
    del source.Rows, source.Columns
    assert encode_refusal("no image at all", {"portal_venous": [source]}, provenance())
    with pytest.raises(InvalidResult, match="at least one"):
        encode_refusal("nothing", {"portal_venous": []}, provenance())


OBLIQUE = (0.984808, 0.173648, 0.0, -0.163176, 0.925417, 0.342020)


@given(
    orientation=st.sampled_from([(1, 0, 0, 0, 1, 0), (0, 1, 0, 0, 0, -1), (1, 0, 0, 0, 0, -1), OBLIQUE]),
    reverse=st.booleans(),
    spacing=st.tuples(st.floats(0.7, 5), st.floats(0.4, 2), st.floats(0.4, 2)),
    size=st.integers(9, 24),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=12, deadline=None)
def test_voxels_keep_their_place_in_the_patient(
    orientation: tuple[float, ...], reverse: bool, spacing: tuple[float, float, float], size: int, seed: int
) -> None:
    """Any orientation, slice order, matrix (also one that is no multiple of a byte) and shape of lesion."""
    spacing = (round(spacing[0], 3), round(spacing[1], 3), round(spacing[2], 3))
    rng = np.random.default_rng(seed)
    shape = (5, size, size)
    mask = rng.random(shape) < rng.choice([0.003, 0.1, 0.6])
    mask[tuple(rng.integers(0, shape))] = True
    stack = ct_stack(slices=5, size=size, spacing=spacing, orientation=orientation, reverse=reverse)
    sources = {"portal_venous": [through_bytes(ds) for ds in stack]}
    findings = Findings("portal_venous", (lesion("Lesion 1", mask, float(np.prod(spacing)), 60, "HCC"),))
    seg = read(encode_results(findings, sources, provenance()), "seg")
    assert masks_in_space(seg) == {"Lesion 1": truth_in_space(mask, stack)}


def test_one_voxel_and_fifty_findings() -> None:
    found = []
    for index in range(50):
        mask = np.zeros(SHAPE, dtype=bool)
        mask[index % 12, 5 + index, (7 * index) % 60] = True
        found.append(lesion(f"Lesion {index + 1}", mask, VOXEL_MM3, 2 * index, "MET"))
    objects = encode_results(Findings("portal_venous", tuple(found)), both_phases(), provenance())
    assert len(read(objects, "seg").SegmentSequence) == 50
    report = read(objects, "sr")
    assert len(groups(report)) == 51
    (region,) = [item for item in groups(report)["Lesion 7"][0].ContentSequence if item.ValueType == "SCOORD"]
    x, y = np.asarray(region.GraphicData).reshape(-1, 2).T
    assert (x.min(), x.max(), y.min(), y.max()) == (42.0, 43.0, 11.0, 12.0)


def test_findings_may_overlap() -> None:
    first, second = ball(SHAPE, (6, 30, 30), 5, SPACING), ball(SHAPE, (6, 33, 33), 5, SPACING)
    findings = Findings("portal_venous", (lesion("Lesion 1", first, VOXEL_MM3, 60, "HCC"),
                                          lesion("Lesion 2", second, VOXEL_MM3, 60, "HCC")))  # fmt: skip
    seg = read(encode_results(findings, both_phases(), provenance()), "seg")
    assert seg.SegmentsOverlap == "YES"


CHARACTER_SETS = [
    ("ISO_IR 192", "Müller^Zoë=王^小东"),
    ("ISO_IR 100", "Müller^Zoë"),
    ("GB18030", "Wang^XiaoDong=王^小东"),
    (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
    ("ISO_IR 13", "ﾔﾏﾀﾞ^ﾀﾛｳ"),
    (None, "Smith^John"),
]


@pytest.mark.parametrize(
    ("charset", "patient", "implicit"), [(*pair, index % 2 == 0) for index, pair in enumerate(CHARACTER_SETS)]
)
def test_identity_is_copied_byte_for_byte(charset: object, patient: str, implicit: bool) -> None:
    stack = ct_stack(SpecificCharacterSet=charset, PatientName=patient)
    sources = {"portal_venous": [through_bytes(ds, implicit=implicit) for ds in stack]}
    findings = liver_findings(lesions=1, warnings=("signal of the vein: 3 µV, 肝",))
    expected = identity_bytes(through_bytes(stack[0]))
    for item in encode_results(findings, sources, provenance()):
        dataset = dcmread(BytesIO(item.data))
        assert identity_bytes(dataset) == expected
        assert str(dataset.PatientName) == patient
        assert dataset.get("SpecificCharacterSet") == through_bytes(stack[0]).get("SpecificCharacterSet")
        list(dataset.iterall())  # every text can be decoded


def test_bytes_that_are_not_in_the_declared_character_set_survive() -> None:
    """GBK written under ISO_IR 192 or under nothing at all, as scanners do; a decoded copy would be ruined."""
    raw = "Wang^Xiao=王^东".encode("gb18030")
    for charset in ("ISO_IR 192", None):
        stack = ct_stack(SpecificCharacterSet=charset, PatientName="A" * len(raw))
        sources = []
        for dataset in stack:
            buffer = BytesIO()
            dataset.save_as(buffer, enforce_file_format=True)
            sources.append(dcmread(BytesIO(buffer.getvalue().replace(b"A" * len(raw), raw))))
        for item in encode_results(liver_findings(), {"portal_venous": sources}, provenance()):
            assert raw in item.data


def test_missing_type_2_elements_become_empty_and_odd_values_stay() -> None:
    missing = dict.fromkeys(("PatientID", "PatientBirthDate", "StudyID", "AccessionNumber", "ReferringPhysicianName"))
    stack = ct_stack(**missing, PatientSex="X", PatientAge="about 60")
    sources = {"portal_venous": [through_bytes(ds) for ds in stack]}
    for item in encode_results(liver_findings(), sources, provenance()):
        dataset = dcmread(BytesIO(item.data))
        assert dataset.PatientSex == "X"
        assert dataset.PatientAge == "about 60"
        for keyword in missing:
            assert keyword in dataset
            assert not dataset.get(keyword)


def test_sequences_of_the_study_are_copied_without_private_elements() -> None:
    stack = ct_stack()
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "CTABD", "99LOCAL", "CT Bauchraum, gefäßverstärkt"
    code.private_block(0x0011, "VENDOR", create=True).add_new(1, "LO", "secret")
    for dataset in stack:
        dataset.ProcedureCodeSequence = [code]
    assert "ProcedureCodeSequence" in IDENTITY_KEYWORDS
    sources = {"portal_venous": [through_bytes(ds) for ds in stack]}
    for item in encode_results(liver_findings(), sources, provenance()):
        (copied,) = dcmread(BytesIO(item.data)).ProcedureCodeSequence
        assert copied.CodeMeaning == code.CodeMeaning
        assert b"secret" not in item.data


def test_lossy_and_compressed_sources_are_only_referred_to() -> None:
    stack = ct_stack(LossyImageCompression="01", LossyImageCompressionRatio=8.5,
                     LossyImageCompressionMethod="ISO_15444_1")  # fmt: skip
    for dataset in stack:
        dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.91"
    seg = read(encode_results(liver_findings(), {"portal_venous": stack}, provenance()), "seg")
    assert seg.LossyImageCompression == "01"
    assert seg.LossyImageCompressionRatio == 8.5
    assert seg.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"


def enhanced(stack: list[Dataset], order: list[int]) -> Dataset:
    """One multi-frame Instance of the images of a stack, its frames in another order."""
    first = stack[0]
    dataset = Dataset()
    for element in first:
        if element.keyword not in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
            dataset.add(element)
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2.1"
    dataset.SOPInstanceUID = "2.25.1001.4.99"
    dataset.NumberOfFrames = len(stack)
    shared, orientation, measures = Dataset(), Dataset(), Dataset()
    orientation.ImageOrientationPatient = first.ImageOrientationPatient
    measures.PixelSpacing, measures.SliceThickness = first.PixelSpacing, first.SliceThickness
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [orientation], [measures]
    dataset.SharedFunctionalGroupsSequence = [shared]
    dataset.PerFrameFunctionalGroupsSequence = []
    for index in order:
        position, groups_ = Dataset(), Dataset()
        position.ImagePositionPatient = stack[index].ImagePositionPatient
        groups_.PlanePositionSequence = [position]
        dataset.PerFrameFunctionalGroupsSequence.append(groups_)
    dataset.file_meta = first.file_meta
    return dataset


@pytest.mark.parametrize("given_per_frame", [False, True])
def test_enhanced_source_is_referred_to_by_frame(given_per_frame: bool) -> None:
    stack = ct_stack()
    order = [int(index) for index in np.random.default_rng(3).permutation(12)]
    source = through_bytes(enhanced(stack, order))
    findings = liver_findings()
    sources = {"portal_venous": [source] * (12 if given_per_frame else 1)}
    objects = encode_results(findings, sources, provenance())
    seg, report = read(objects, "seg"), read(objects, "sr")
    assert masks_in_space(seg)["Lesion 1"] == truth_in_space(findings.findings[0].mask, stack)
    for groups_ in seg.PerFrameFunctionalGroupsSequence:
        frame = groups_.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber
        position = source.PerFrameFunctionalGroupsSequence[frame - 1].PlanePositionSequence[0].ImagePositionPatient
        assert position == groups_.PlanePositionSequence[0].ImagePositionPatient
    largest = int(np.argmax(findings.findings[0].mask.sum(axis=(1, 2))))
    (region,) = [item for item in groups(report)["Lesion 1"][0].ContentSequence if item.ValueType == "SCOORD"]
    assert region.ContentSequence[0].ReferencedSOPSequence[0].ReferencedFrameNumber == order.index(largest) + 1


def test_times_are_those_of_the_job_in_the_zone_of_the_study() -> None:
    created = datetime(2026, 1, 15, 22, 30, tzinfo=UTC)
    sources = {"portal_venous": ct_stack(TimezoneOffsetFromUTC="+0800")}
    report = read(encode_results(liver_findings(), sources, provenance(created_at=created)), "sr")
    assert (report.ContentDate, report.ContentTime, report.TimezoneOffsetFromUTC) == ("20260116", "063000", "+0800")
    elsewhere = created.astimezone(timezone(timedelta(hours=-5)))
    report = read(encode_results(liver_findings(), both_phases(), provenance(created_at=elsewhere)), "sr")
    assert (report.ContentDate, report.ContentTime) == ("20260115", "173000")


# ------------------------------------------------------------------ what is refused


def test_a_mask_of_another_grid_is_refused() -> None:
    with pytest.raises(InvalidResult, match=r"Lesion 1: the mask has \(12, 64, 64\)"):
        encode_results(liver_findings(), {"portal_venous": ct_stack(slices=11)}, provenance())


def test_a_missing_slice_is_refused() -> None:
    stack = ct_stack(slices=13)
    del stack[6]
    with pytest.raises(InvalidResult, match="missing"):
        encode_results(liver_findings(), {"portal_venous": stack}, provenance())


def test_images_out_of_order_are_refused() -> None:
    stack = ct_stack()
    stack[3], stack[8] = stack[8], stack[3]
    with pytest.raises(InvalidResult, match="out of order"):
        encode_results(liver_findings(), {"portal_venous": stack}, provenance())


def test_another_study_is_refused_and_named_by_uid_only() -> None:
    with pytest.raises(InvalidResult) as error:
        encode_results(liver_findings(), both_phases(StudyInstanceUID="2.25.5"), provenance())
    assert "2.25.5" in str(error.value)
    assert "Müller" not in str(error.value)
    assert "SYN-0001" not in str(error.value)


def test_a_volume_that_is_not_that_of_the_voxels_is_refused() -> None:
    findings = liver_findings()
    wrong = replace(findings.findings[0], measurements=(Measurement("volume", 5.0, "mm3"),))
    with pytest.raises(InvalidResult, match=r"Lesion 1: volume is 5\.0 mm3"):
        encode_results(replace(findings, findings=(wrong,)), both_phases(), provenance())
    with pytest.raises(InvalidResult, match="Liver: liver_volume"):
        encode_results(replace(findings, measurements=(Measurement("liver_volume", 2.0, "mL"),)), both_phases(),
                       provenance())  # fmt: skip


def test_a_number_that_is_none_is_refused() -> None:
    findings = liver_findings()
    wrong = replace(findings.findings[0], measurements=(Measurement("long_axis", float("nan"), "mm"),))
    with pytest.raises(InvalidResult, match="long_axis is nan"):
        encode_results(replace(findings, findings=(wrong,)), both_phases(), provenance())


def test_an_empty_finding_and_a_doubled_name_are_refused() -> None:
    empty = Finding("Lesion 9", "lesion", "liver", np.zeros(SHAPE, dtype=bool))
    with pytest.raises(InvalidResult, match="Lesion 9"):
        encode_results(Findings("portal_venous", (empty,)), both_phases(), provenance())
    one = liver_findings().findings[0]
    with pytest.raises(InvalidResult, match="share a name"):
        encode_results(Findings("portal_venous", (one, one)), both_phases(), provenance())


def test_plain_text_keeps_what_the_character_set_holds() -> None:
    assert plain("liver µ肝", ct_stack(slices=1)[0]) == "liver µ肝"
    latin = ct_stack(slices=1, SpecificCharacterSet="ISO_IR 100")[0]
    assert plain("Müller", latin) == "Müller"
    assert plain("a\\b 肝", latin) == "a/b ?"
    assert plain("5 mm³", ct_stack(slices=1, SpecificCharacterSet=None, PatientName="A")[0]) == "5 mm3"


# ------------------------------------------------------------------ strangers


@pytest.fixture(scope="module")
def study_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Source images of both phases with their results, as files."""
    folder = tmp_path_factory.mktemp("study")
    values = np.random.default_rng(1).normal(60, 12, SHAPE).astype(np.int16)
    sources = {role: ct_stack(role, values=values) for role in ("arterial", "portal_venous")}
    for role, stack in sources.items():
        for index, dataset in enumerate(stack):
            dataset.save_as(folder / f"{role}{index:03}.dcm", enforce_file_format=True)
    for item in encode_results(liver_findings(), sources, provenance()):
        (folder / f"result_{item.kind}.dcm").write_bytes(item.data)
    return folder


def test_highdicom_reads_both(study_folder: Path) -> None:
    seg = hd.seg.segread(study_folder / "result_seg.dcm")
    volume = seg.get_volume(combine_segments=False)
    assert volume.array.shape[-1] == 3
    report = hd.sr.srread(study_folder / "result_sr.dcm")
    assert len(report.content.get_planar_roi_measurement_groups()) == 2
    assert len(report.content.get_volumetric_roi_measurement_groups()) == 2


def test_dciodvfy_finds_no_error(study_folder: Path, tmp_path: Path) -> None:
    tool = need("dciodvfy")
    (refusal,) = encode_refusal("no arterial phase", {"portal_venous": ct_stack()}, provenance())
    (tmp_path / "refusal.dcm").write_bytes(refusal.data)
    for path in (study_folder / "result_sr.dcm", study_folder / "result_seg.dcm", tmp_path / "refusal.dcm"):
        output = subprocess.run([tool, "-new", str(path)], capture_output=True, text=True).stderr
        assert not [line for line in output.splitlines() if line.startswith("Error")], path.name


def test_dcmtk_reads_the_report(study_folder: Path) -> None:
    done = subprocess.run([need("dsrdump"), "-Ec", str(study_folder / "result_sr.dcm")], capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    assert b"Lesion 2" in done.stdout


def test_the_viewer_check_finds_no_fault(study_folder: Path) -> None:
    check = Path(__file__).parents[3] / "shared" / "viewer_check" / "check.py"
    if not check.exists():
        pytest.skip("no viewer check beside this checkout")
    need("dciodvfy")
    done = subprocess.run([sys.executable, str(check), str(study_folder), "--no-pixelmed"], capture_output=True,
                          text=True)  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "FAIL" not in done.stdout
    assert "warn" not in done.stdout.replace("warnings", "")
