"""Nothing wrong passes the gate in front of the outbox, and everything right does."""

import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from encoded_studies import ct_stack, liver_findings, provenance, through_bytes
from planted import content, damaged, every, groups, name, rebuilt, without
from pydicom import Dataset, dcmread
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from dicom_node.encoding.package import WITHOUT_FALL_BACKS
from dicom_node.encoding.read_back import read_back, read_back_any
from dicom_node.encoding.read_back.elements import Item, read_elements
from dicom_node.encoding.read_back.required import CONTENT_ITEMS, ITEMS, needed_by, needs
from dicom_node.encoding.results import EncodedObject, encode_refusal, encode_results
from dicom_node.encoding.segmentation import segments_of
from dicom_node.encoding.sources import InvalidResult, source_stack

Objects = tuple[EncodedObject, ...]


@cache
def sources() -> dict[str, list[Dataset]]:
    """Two phases; only read here."""
    return {role: [through_bytes(item) for item in ct_stack(role)] for role in ("arterial", "portal_venous")}


@cache
def good() -> Objects:
    """The usual study's objects."""
    return encode_results(liver_findings(), sources(), provenance(), package=WITHOUT_FALL_BACKS)


def image(index: int = 6) -> str:
    """SOP Instance UID of one slice that the findings lie on."""
    return str(sources()["portal_venous"][index].SOPInstanceUID)


# ------------------------------------------------------------------ faults in a SEG


def _between_slices(ds: Dataset) -> None:
    for frame in ds.PerFrameFunctionalGroupsSequence:
        position = [float(part) for part in frame.PlanePositionSequence[0].ImagePositionPatient]
        frame.PlanePositionSequence[0].ImagePositionPatient = [*position[:2], position[2] + 1]


def _slices_reversed(ds: Dataset) -> None:
    """Masks that went through a format with another order of slices: everything consistent but in the wrong place."""
    places = [(f.PlanePositionSequence[0], f.DerivationImageSequence[0]) for f in ds.PerFrameFunctionalGroupsSequence]
    order = sorted({float(position.ImagePositionPatient[2]) for position, _ in places})
    stack = {float(item.ImagePositionPatient[2]): item for item in sources()["portal_venous"]}
    heights = sorted(stack)
    for position, derivation in places:
        turned = stack[heights[-1 - heights.index(float(position.ImagePositionPatient[2]))]]
        position.ImagePositionPatient = turned.ImagePositionPatient
        derivation.SourceImageSequence[0].ReferencedSOPInstanceUID = turned.SOPInstanceUID
    assert order != [heights[-1 - heights.index(height)] for height in order]


def _shared(ds: Dataset, macro: str) -> Dataset:
    return ds.SharedFunctionalGroupsSequence[0][macro][0]


def _mirrored(ds: Dataset) -> None:
    """Columns reversed in every frame, positions kept."""
    ds.PixelData = np.packbits(ds.pixel_array[:, :, ::-1], bitorder="little").tobytes()


SEG_FAULTS: dict[str, tuple[Callable[[Dataset], object], str]] = {
    "no referenced series": (lambda ds: delattr(ds, "ReferencedSeriesSequence"), "no Referenced Series"),
    "series of another": (
        lambda ds: setattr(ds.ReferencedSeriesSequence[0], "SeriesInstanceUID", "2.25.77"),
        "none of the source images",
    ),
    "other frame of reference": (lambda ds: setattr(ds, "FrameOfReferenceUID", "2.25.5"), "Frame of Reference UID"),
    "between slices": (_between_slices, r"frame 1 lies at"),
    "other study": (lambda ds: setattr(ds, "StudyInstanceUID", "2.25.5"), "StudyInstanceUID differ"),
    "empty": (lambda ds: setattr(ds, "PixelData", bytes(len(ds.PixelData))), r"Segments \[1, 2, 3\] have no voxel"),
    "slices reversed": (_slices_reversed, "leaves Segment 1"),
    "mirrored": (_mirrored, "leaves Segment 1"),
    "bad segment number": (lambda ds: setattr(ds.SegmentSequence[1], "SegmentNumber", 7), "without a gap"),
    "segments swapped": (
        lambda ds: [
            setattr(item, "SegmentNumber", number) for item, number in zip(ds.SegmentSequence, (2, 1, 3), strict=True)
        ],
        "leaves Segment 2",
    ),
    "frame of no segment": (
        lambda ds: setattr(
            ds.PerFrameFunctionalGroupsSequence[0].SegmentIdentificationSequence[0], "ReferencedSegmentNumber", 9
        ),
        "frame 1 is of Segment 9",
    ),
    "one frame twice": (
        lambda ds: ds.PerFrameFunctionalGroupsSequence.__setitem__(1, ds.PerFrameFunctionalGroupsSequence[0]),
        "two frames show the same",
    ),
    "too few frames": (lambda ds: setattr(ds, "NumberOfFrames", 5), "Number of Frames"),
    "pixels cut off": (lambda ds: setattr(ds, "PixelData", ds.PixelData[:-512]), "Pixel Data .* has"),
    "turned": (
        lambda ds: setattr(_shared(ds, "PlaneOrientationSequence"), "ImageOrientationPatient", [0, 1, 0, 1, 0, 0]),
        "orientation",
    ),
    "spacing": (lambda ds: setattr(_shared(ds, "PixelMeasuresSequence"), "PixelSpacing", [1, 1]), "Pixel Spacing"),
    "slice spacing": (
        lambda ds: setattr(_shared(ds, "PixelMeasuresSequence"), "SpacingBetweenSlices", 5),
        "Spacing Between Slices",
    ),
    "matrix": (lambda ds: [setattr(ds, "Rows", 32), setattr(ds, "Columns", 128)], "rows and columns"),
    "frame on another phase": (
        lambda ds: setattr(
            ds.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0].SourceImageSequence[0],
            "ReferencedSOPInstanceUID",
            sources()["arterial"][3].SOPInstanceUID,
        ),
        "0 images or frames of its Referenced Series",
    ),
    "frame numbers of single images": (
        lambda ds: [setattr(item, "ReferencedFrameNumber", 1) for item in every(ds, "SpatialLocationsPreserved")],
        "which has none",
    ),
    "drawn by hand": (lambda ds: setattr(ds.SegmentSequence[0], "SegmentAlgorithmType", "MANUAL"), "no person drew it"),
    "no colour": (lambda ds: delattr(ds.SegmentSequence[0], "RecommendedDisplayCIELabValue"), "no colour"),
    "no tracking": (
        lambda ds: [delattr(ds.SegmentSequence[0], key) for key in ("TrackingID", "TrackingUID")],
        "no TrackingUID",
    ),
    "one tracking uid": (
        lambda ds: setattr(ds.SegmentSequence[1], "TrackingUID", ds.SegmentSequence[0].TrackingUID),
        "share a Tracking UID",
    ),
    "tracking id of another": (lambda ds: setattr(ds.SegmentSequence[0], "TrackingID", "Lesion 9"), "another Tracking"),
    "no property": (
        lambda ds: delattr(ds.SegmentSequence[0], "SegmentedPropertyTypeCodeSequence"),
        "SegmentedPropertyTypeCodeSequence .* Type 1",
    ),
    "fractional": (lambda ds: setattr(ds, "SegmentationType", "FRACTIONAL"), "FRACTIONAL"),
    "overwrites an image": (
        lambda ds: [
            setattr(ds, "SOPInstanceUID", image()),
            setattr(ds.file_meta, "MediaStorageSOPInstanceUID", image()),
        ],
        "that of another object",
    ),
    "in the series of the images": (
        lambda ds: setattr(ds, "SeriesInstanceUID", sources()["portal_venous"][0].SeriesInstanceUID),
        "that of source images",
    ),
    "no dimension index": (lambda ds: delattr(ds, "DimensionIndexSequence"), "Dimension Index|index values"),
    "not ours": (lambda ds: setattr(ds, "ManufacturerModelName", "Scanner"), "does not name this node"),
    "number of a scanner's series": (lambda ds: setattr(ds, "SeriesNumber", 4), "ours begin at"),
    "wrong vr": (lambda ds: ds.add_new(0x00200013, "LO", "1"), "has the VR LO"),
    "empty type 1": (lambda ds: setattr(ds, "ContentLabel", ""), "ContentLabel .* Type 1"),
    "missing type 2": (lambda ds: delattr(ds, "ContentDescription"), "ContentDescription .* Type 2"),
    "too long": (lambda ds: ds.add_new(0x0008103E, "LO", "x" * 65), "longer than the 64"),
    "no valid uid": (lambda ds: ds.add_new(0x00200052, "UI", "2.25.007"), "no valid UID"),
}


@pytest.mark.parametrize("fault", SEG_FAULTS)
def test_a_fault_planted_in_a_seg_is_stopped(fault: str) -> None:
    plant, message = SEG_FAULTS[fault]
    with pytest.raises(InvalidResult, match=message):
        read_back(damaged(good(), "seg", plant), sources())


# ------------------------------------------------------------------ faults in an SR


def _first(ds: Dataset, value_type: str) -> Dataset:
    return next(item for item in content(ds) if item.ValueType == value_type)


def _no_graphic(ds: Dataset) -> None:
    """What is valid and useless: a finding that only refers to its Segment."""
    parent = next(item for item in content(ds) if name(item) == "126010")
    planar = next(item for item in groups(ds) if any(part.ValueType == "SCOORD" for part in item.ContentSequence))
    parent.ContentSequence = [item for item in parent.ContentSequence if item is not planar]


def _moved(ds: Dataset) -> None:
    region = _first(ds, "SCOORD")
    region.GraphicData = [float(part) + 12 for part in region.GraphicData]


def _on_the_next_slice(ds: Dataset) -> None:
    region = next(item for item in content(ds) if item.get("GraphicType") == "POLYLINE")
    reference = region.ContentSequence[0].ReferencedSOPSequence[0]
    known = [str(item.SOPInstanceUID) for item in sources()["portal_venous"]]
    reference.ReferencedSOPInstanceUID = known[known.index(str(reference.ReferencedSOPInstanceUID)) - 5]


def _volume(ds: Dataset, factor: float) -> None:
    number = next(item for item in content(ds) if name(item) == "118565006")
    measured = number.MeasuredValueSequence[0]
    measured.NumericValue = round(float(measured.NumericValue) * factor)
    if "FloatingPointValue" in measured:
        del measured.FloatingPointValue


def _number(ds: Dataset, keyword: str, value: object) -> None:
    setattr(_first(ds, "NUM").MeasuredValueSequence[0], keyword, value)


def _unit(ds: Dataset, scheme: str, value: str) -> None:
    unit = _first(groups(ds)[0], "NUM").MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0]
    unit.CodingSchemeDesignator, unit.CodeValue = scheme, value


def _predecessor(ds: Dataset) -> None:
    ds.PredecessorDocumentsSequence = [ds.CurrentRequestedProcedureEvidenceSequence[0]]


def _evidence(ds: Dataset) -> Dataset:
    return ds.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]


SR_FAULTS: dict[str, tuple[Callable[[Dataset], object], str]] = {
    "findings without graphic": (_no_graphic, "no graphic"),
    "no tracking uid": (lambda ds: without(groups(ds)[0], lambda item: name(item) == "112040"), "no Tracking UID"),
    "wrong title": (lambda ds: setattr(ds.ConceptNameCodeSequence[0], "CodeValue", "111036"), "its title is"),
    "dangling reference": (
        lambda ds: [
            setattr(item, "ReferencedSOPInstanceUID", "2.25.404")
            for item in every(ds, "ReferencedSOPInstanceUID")
            if item.ReferencedSOPInstanceUID == image()
        ],
        "neither a source image nor",
    ),
    "units of a descriptor not ucum": (
        lambda ds: setattr(
            _first(ds, "NUM").MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0], "CodingSchemeDesignator", "DCM"
        ),
        "unit of UCUM",
    ),
    "units not ucum": (lambda ds: _unit(ds, "DCM", "mm"), "unit of UCUM"),
    "private units": (lambda ds: _unit(ds, "99LOCAL", "mm"), "99LOCAL"),
    "other patient": (lambda ds: setattr(ds, "PatientID", "SYN-0002"), "PatientID differ"),
    "other issuer": (lambda ds: setattr(ds, "IssuerOfPatientID", "HOSP_B"), "IssuerOfPatientID differ"),
    "name corrected": (lambda ds: setattr(ds, "PatientName", "MUELLER^ZOE"), "PatientName differ"),
    "other character set": (lambda ds: ds.add_new(0x00080005, "CS", "ISO_IR 100"), "SpecificCharacterSet"),
    "other accession": (lambda ds: setattr(ds, "AccessionNumber", "ACC2"), "AccessionNumber differ"),
    "age lost": (lambda ds: delattr(ds, "PatientAge"), "PatientAge differ"),
    "claims verified": (lambda ds: setattr(ds, "VerificationFlag", "VERIFIED"), "no person has verified"),
    "no image library": (lambda ds: without(ds, lambda item: name(item) == "111028"), "Image Library"),
    "other template": (lambda ds: setattr(ds.ContentTemplateSequence[0], "TemplateIdentifier", "4000"), "template"),
    "a person's report": (
        lambda ds: [
            setattr(item.ConceptCodeSequence[0], "CodeValue", "121006")
            for item in content(ds)
            if name(item) == "121005"
        ],
        "typed as a device",
    ),
    "no algorithm": (lambda ds: without(ds, lambda item: name(item) == "111003"), "which algorithm"),
    "one group without algorithm": (
        lambda ds: without(groups(ds)[-1], lambda item: name(item) == "111001"),
        "which algorithm",
    ),
    "a viewer's own identifier": (
        lambda ds: [
            setattr(item, "TextValue", f"Cornerstone3DTools@^0.1.0:Freehand {item.TextValue}")
            for item in content(ds)
            if name(item) == "112039"
        ],
        "pretends to be a viewer",
    ),
    "no number": (lambda ds: _first(ds, "NUM").MeasuredValueSequence[0].add_new(0x0040A30A, "DS", "nan"), "finite"),
    "unit not in the table": (lambda ds: _unit(ds, "UCUM", "[in_i]"), r"\[in_i\]"),
    "outside of the image": (
        lambda ds: setattr(_first(ds, "SCOORD"), "GraphicData", [1, 1, 70, 1, 70, 9, 1, 1]),
        "leaves its image",
    ),
    "outline moved": (_moved, "leaves Segment 1"),
    "outline on another slice": (_on_the_next_slice, "leaves Segment 1|Image Library"),
    "outline open": (
        lambda ds: setattr(_first(ds, "SCOORD"), "GraphicData", list(_first(ds, "SCOORD").GraphicData[:-2])),
        "not closed",
    ),
    "a point for a region": (lambda ds: setattr(_first(ds, "SCOORD"), "GraphicType", "POINT"), "points"),
    "volume 5 % off": (lambda ds: _volume(ds, 1.05), "the volume of"),
    "segment of another finding": (
        lambda ds: [setattr(item, "ReferencedSegmentNumber", 2) for item in every(ds, "ReferencedSegmentNumber")],
        "which is that of",
    ),
    "segment that is none": (
        lambda ds: [setattr(item, "ReferencedSegmentNumber", 8) for item in every(ds, "ReferencedSegmentNumber")],
        "refers to Segment 8",
    ),
    "sop class of another": (
        lambda ds: setattr(next(every(_first(ds, "IMAGE"), "ReferencedSOPClassUID")), "ReferencedSOPClassUID", "1.2.3"),
        "as SOP Class",
    ),
    "evidence incomplete": (lambda ds: _evidence(ds).ReferencedSOPSequence.pop(), "not in the evidence"),
    "evidence under another series": (
        lambda ds: setattr(_evidence(ds), "SeriesInstanceUID", sources()["portal_venous"][0].SeriesInstanceUID),
        "under Series",
    ),
    "evidence of another study": (
        lambda ds: setattr(ds.CurrentRequestedProcedureEvidenceSequence[0], "StudyInstanceUID", "2.25.5"),
        "evidence is of Study",
    ),
    "its own predecessor": (_predecessor, "as its predecessor"),
    "no private scheme": (lambda ds: delattr(ds, "CodingSchemeIdentificationSequence"), "is not identified"),
    "code without meaning": (
        lambda ds: setattr(_first(ds, "CODE").ConceptCodeSequence[0], "CodeMeaning", ""),
        "no whole code",
    ),
    "final": (lambda ds: setattr(ds, "PreliminaryFlag", "FINAL"), "PRELIMINARY"),
    "product": (lambda ds: setattr(ds, "ContentQualification", "PRODUCT"), "RESEARCH"),
    "another modality": (lambda ds: setattr(ds, "Modality", "OT"), "Modality"),
    "no relationship": (lambda ds: delattr(_first(ds, "TEXT"), "RelationshipType"), "Relationship Type"),
    "same series as the seg": (
        lambda ds: setattr(ds, "SeriesInstanceUID", good()[0].series_instance_uid),
        "shares its Series",
    ),
    "3D in a 2D report": (
        lambda ds: [setattr(_first(ds, "SCOORD"), "ValueType", "TCOORD3D")],
        "Value Type 'TCOORD3D'",
    ),
    "letters beyond the character set": (
        lambda ds: groups(ds)[0].ContentSequence[0]._dict.update(_raw_text(b"L\xe4sion")),
        "character set",
    ),
}


def _raw_text(value: bytes) -> dict:
    """Text Value as bytes, as `to_bytes` leaves what it did not decode."""
    tag = Tag(0x0040A160)
    return {
        tag: RawDataElement(tag, "UT", len(value) + len(value) % 2, value + b" " * (len(value) % 2), 0, False, True)
    }


@pytest.mark.parametrize("fault", SR_FAULTS)
def test_a_fault_planted_in_an_sr_is_stopped(fault: str) -> None:
    plant, message = SR_FAULTS[fault]
    with pytest.raises(InvalidResult, match=message):
        read_back(damaged(good(), "sr", plant), sources())


def test_two_reports_in_one_series_are_stopped() -> None:
    def second(ds: Dataset) -> None:
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = "2.25.31"

    twice = (*good(), rebuilt(good()[1], second))
    with pytest.raises(InvalidResult, match="shares its Series"):
        read_back(twice, sources())


def test_a_report_without_its_segmentation_is_stopped() -> None:
    with pytest.raises(InvalidResult, match="neither a source image nor leaves with it"):
        read_back([item for item in good() if item.kind == "sr"], sources())


def test_a_record_that_is_not_that_of_the_bytes_is_stopped() -> None:
    seg, sr = good()
    for change in ({"sop_instance_uid": "2.25.1"}, {"sop_class_uid": "1.2"}, {"series_instance_uid": "2.25.1"},
                   {"transfer_syntax_uid": "1.2.840.10008.1.2"}):  # fmt: skip
        with pytest.raises(InvalidResult, match="would be kept and sent as"):
            read_back((replace(seg, **change), sr), sources())


def test_file_meta_information_of_another_object_is_stopped() -> None:
    seg, sr = good()
    uid = seg.sop_instance_uid.encode()
    start = seg.data.index(uid)  # in File Meta Information, before the one of the Dataset
    other = seg.data[:start] + uid[::-1].replace(b".52.2", b"52.2.") + seg.data[start + len(uid) :]
    with pytest.raises(InvalidResult, match="MediaStorageSOPInstanceUID is not the SOPInstanceUID"):
        read_back((replace(seg, data=other), sr), sources())


def test_an_outline_on_a_cine_without_its_frame_is_stopped() -> None:
    """Such as the one that a viewer draws on frame 1."""
    from test_encoded_results import enhanced

    source = through_bytes(enhanced(ct_stack(), list(range(12))))
    objects = encode_results(liver_findings(), {"portal_venous": [source]}, provenance(), package=WITHOUT_FALL_BACKS)

    def no_frame(ds: Dataset) -> None:
        for item in content(ds):
            if item.ValueType == "SCOORD":
                del item.ContentSequence[0].ReferencedSOPSequence[0].ReferencedFrameNumber

    with pytest.raises(InvalidResult, match="12 frames, without saying on which"):
        read_back(damaged(objects, "sr", no_frame), {"portal_venous": [source]})

    def beyond(ds: Dataset) -> None:
        for item in every(ds, "ReferencedFrameNumber"):
            item.ReferencedFrameNumber = 13

    with pytest.raises(InvalidResult, match="which has 12"):
        read_back(damaged(objects, "seg", beyond), {"portal_venous": [source]})


def test_masks_that_are_not_those_of_the_findings_are_stopped() -> None:
    """Consistent objects of another answer: only the builder's masks tell."""
    stack = source_stack(sources()["portal_venous"])
    mine = segments_of(liver_findings(), stack.shape, provenance())
    read_back(good(), sources(), mine, stack)
    for segment in mine:
        segment.mask[...] = np.roll(segment.mask, 1, axis=2)
    with pytest.raises(InvalidResult, match="is not the mask of Segment 1"):
        read_back(good(), sources(), mine, stack)
    fewer = segments_of(liver_findings(lesions=1), stack.shape, provenance())
    with pytest.raises(InvalidResult, match="the findings are"):
        read_back(good(), sources(), fewer, stack)


def test_images_of_two_patients_give_no_answer() -> None:
    mixed = {**sources(), "arterial": [through_bytes(item) for item in ct_stack("arterial", PatientID="SYN-0009")]}
    with pytest.raises(InvalidResult, match="2 patients") as error:
        read_back(good(), mixed)
    assert "SYN" not in str(error.value)


def test_no_message_names_the_patient() -> None:
    for name_, (plant, _) in {**SEG_FAULTS, **SR_FAULTS}.items():
        kind = "seg" if name_ in SEG_FAULTS else "sr"
        if name_ in ("other patient", "name corrected", "other character set", "other accession", "age lost"):
            with pytest.raises(InvalidResult) as error:
                read_back(damaged(good(), kind, plant), sources())
            assert not {"SYN-0001", "SYN-0002", "MUELLER", "Müller", "ACC"} & set(str(error.value).split())


# ------------------------------------------------------------------ what is right passes


def test_our_own_answers_pass() -> None:
    read_back(good(), sources())
    read_back_any(good(), sources())
    refused = encode_refusal("no arterial phase", sources(), provenance())
    read_back(refused, sources())


def _renamed(stack: list[Dataset], old: str, new: str) -> list[Dataset]:
    """The same images under other UIDs."""
    for image in stack:
        for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
            setattr(image, keyword, str(image.get(keyword)).replace(old, new))
        image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    return stack


def test_odd_images_do_not_stop_a_right_answer() -> None:
    """What scanners really send: invalid UIDs, high Series Numbers, images that say that they have one frame, several
    stacks in one Series, an identity that is not what PS3.5 wants."""
    findings = liver_findings()
    odd = {
        "leading zeros": _renamed(ct_stack(), "2.25.1001.4", "1.2.840.01.4"),
        "high number": ct_stack(SeriesNumber=9000),
        "one frame": ct_stack(NumberOfFrames=1),
        "identity": ct_stack(PatientName="A" * 80, PatientAge="about 60", StudyID="S" * 20, AccessionNumber=""),
        "no name": ct_stack(PatientName=None, PatientBirthDate=None, PatientSex=None),
    }
    for images in odd.values():
        images = [through_bytes(image) for image in images]
        encode_results(findings, {"portal_venous": images}, provenance(), package=WITHOUT_FALL_BACKS)
    later = _renamed(ct_stack(), "2.25.1001.4.", "2.25.1001.4.7")
    for image in later:
        image.ImagePositionPatient = [*image.ImagePositionPatient[:2], float(image.ImagePositionPatient[2]) + 1.1]
    both = {
        "portal_venous": [through_bytes(image) for image in ct_stack()],
        "arterial": [through_bytes(image) for image in later],
    }
    assert both["arterial"][0].SeriesInstanceUID == both["portal_venous"][0].SeriesInstanceUID
    encode_results(findings, both, provenance(), package=WITHOUT_FALL_BACKS)


def test_damaged_bytes_are_stopped_and_never_break_the_gate() -> None:
    """Cut off, or with single bytes changed: either still right or refused, never another exception."""
    chance = random.Random(7)
    seg, sr = good()
    stopped = 0
    for _ in range(120):
        victim = chance.choice((seg, sr))
        data = bytearray(victim.data)
        header = len(data) if victim is sr else data.index(b"\xe0\x7f\x10\x00")
        if chance.random() < 0.3:
            del data[chance.randrange(128, len(data)) :]
        else:
            for _ in range(chance.randrange(1, 4)):
                data[chance.randrange(128, header)] = chance.randrange(256)
        objects = tuple(replace(victim, data=bytes(data)) if item is victim else item for item in good())
        try:
            read_back(objects, sources())
        except InvalidResult:
            stopped += 1
    assert stopped > 90


def test_no_dicom_at_all_is_stopped() -> None:
    for data in (b"", b"\0" * 132, b"\0" * 128 + b"DICM", b"\0" * 128 + b"DICM" + b"\xff" * 64):
        with pytest.raises(InvalidResult):
            read_back([replace(good()[0], data=data)], sources())


# ------------------------------------------------------------------ the reader and its tables


def _pairs(ours: Item, theirs: Dataset) -> Iterator[tuple[int, bytes, bytes]]:
    assert list(ours) == [int(tag) for tag in theirs.keys()]  # noqa: SIM118 - iterating would decode
    for tag, (vr, value) in ours.items():
        if isinstance(value, list):
            items = theirs[tag].value
            assert len(items) == len(value)
            for mine, other in zip(value, items, strict=True):
                yield from _pairs(mine, other)
        else:
            raw = theirs.get_item(tag)
            assert raw is not None
            assert vr.decode() == raw.VR
            if isinstance(raw, RawDataElement):  # not read ahead for pydicom's own use
                yield tag, value, raw.value or b""


@pytest.mark.parametrize("kind", ["seg", "sr"])
def test_the_reader_reads_what_pydicom_reads(kind: str) -> None:
    data = next(item.data for item in good() if item.kind == kind)
    _, start = read_elements(data, 132, last_group=2)
    dataset, end = read_elements(data, start)
    assert end == len(data)
    pairs = list(_pairs(dataset, dcmread(BytesIO(data))))
    assert len(pairs) > 300
    assert [tag for tag, mine, theirs in pairs if mine != theirs] == []


def test_undefined_lengths_are_read_alike() -> None:
    """Another writer may end sequences and items with delimiters."""
    dataset = dcmread(BytesIO(good()[1].data))
    for parent in every(dataset, "SpecificCharacterSet"):
        for element in parent:
            if element.VR == "SQ":
                element.is_undefined_length = True
                for item in element.value:
                    item.is_undefined_length_sequence_item = True
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    assert buffer.getvalue().count(b"\xfe\xff\xdd\xe0") > 3
    read_back_any((good()[0], replace(good()[1], data=buffer.getvalue())), sources())


def test_the_table_of_required_attributes_is_that_of_the_standard() -> None:
    """Held against highdicom's copy of PS3.3: Types 1 and 2 of mandatory modules, and of the items that we check."""
    from highdicom import _standard_utils as standard

    iods, modules = standard.get_iod_module_map(), standard.get_module_attribute_map()
    checked = 0
    for uid, iod in standard.get_sop_class_iod_map().items():
        try:
            ones, twos = needed_by(uid)
        except KeyError:
            continue
        checked += 1
        for module in (item["key"] for item in iods[iod] if item["usage"] == "M"):
            for attribute in modules[module]:
                keyword, kind = attribute["keyword"], attribute["type"]
                if kind not in ("1", "2") or module == "sr-document-content":  # a choice of macros, by Value Type
                    continue
                if not attribute["path"]:
                    assert keyword in ones if kind == "1" else keyword in (*ones, *twos), (uid, module, keyword)
                elif (sequence := attribute["path"][-1]) in ITEMS and keyword not in _BY_PLACE:
                    item_ones, item_twos = needs(ITEMS[sequence])
                    assert keyword in item_ones or (kind == "2" and keyword in item_twos), (uid, sequence, keyword)
    assert checked >= 10
    known = {"TEXT", "NUM", "CODE", "UIDREF", "PNAME", "DATE", "TIME", "DATETIME", "IMAGE", "COMPOSITE", "CONTAINER"}
    assert known < CONTENT_ITEMS.keys()


#: Needed in some places where the sequence stands and not in others; the code of the place checks them.
_BY_PLACE = {"PurposeOfReferenceCodeSequence", "ReferencedInstanceSequence", "ReferencedSOPSequence"}


# ------------------------------------------------------------------ other makers' objects


@dataclass(frozen=True)
class _Foreign:
    kind: str
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    series_instance_uid: str
    data: bytes


def _foreign(path: Path) -> _Foreign:
    header = dcmread(path, stop_before_pixels=True)
    return _Foreign(
        path.stem,
        str(header.SOPInstanceUID),
        str(header.SOPClassUID),
        str(header.file_meta.TransferSyntaxUID),
        str(header.SeriesInstanceUID),
        path.read_bytes(),
    )


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Studies with good and broken results, by the maker of samples beside this project."""
    maker = Path(__file__).parents[3] / "shared" / "viewer_check" / "make_samples.py"
    if not maker.exists():
        pytest.skip("no viewer check beside this checkout")
    folder = tmp_path_factory.mktemp("samples")
    subprocess.run([sys.executable, str(maker), str(folder), "--broken"], check=True, capture_output=True)
    return folder


def test_seventeen_known_faults_are_stopped_and_good_samples_pass(samples: Path) -> None:
    def let_through(results: list[Path], images: list[Path]) -> bool:
        headers = [dcmread(path, stop_before_pixels=True) for path in images]
        try:
            read_back_any([_foreign(path) for path in results], {"source": headers})
        except InvalidResult:
            return False
        return True

    passed = {
        folder.name
        for folder in (samples / "broken").iterdir()
        if let_through(sorted(folder.glob("result*")), sorted(folder.glob("src*")))
    }
    assert len(list((samples / "broken").iterdir())) == 18
    assert passed == {"good"}
    for modality in ("ct", "mr", "us"):
        results, images = (sorted((samples / modality / part).iterdir()) for part in ("res", "src"))
        assert let_through(results, images), modality
