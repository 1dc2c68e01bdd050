"""The gate stops faults in maps, label maps, pages and key objects too."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest
from planted import content, damaged, every, name
from pydicom import Dataset
from studies.matrix import EVERYTHING, Case, Study

from dicom_node.encoding.package import Package
from dicom_node.encoding.read_back import read_back
from dicom_node.encoding.results import EncodedObject, encode_refusal
from dicom_node.encoding.segmentation import segments_of
from dicom_node.encoding.sources import InvalidResult, source_stack

STUDY = Study(Case(90, "mr", "mre", "utf8", "oblique", 2))


@cache
def good() -> tuple[EncodedObject, ...]:
    """Objects of every kind."""
    return STUDY.encoded(EVERYTHING)


def _mapping(ds: Dataset) -> Dataset:
    return next(every(ds, "RealWorldValueSlope"))


def _first_frame(ds: Dataset) -> Dataset:
    return ds.PerFrameFunctionalGroupsSequence[0]


def _observer(ds: Dataset) -> None:
    next(item for item in content(ds) if name(item) == "121005").ConceptCodeSequence[0].CodeValue = "121006"


def _pixels(ds: Dataset, keyword: str) -> None:
    setattr(ds, keyword, getattr(ds, keyword)[:-64])


FAULTS: dict[str, tuple[str, Callable[[Dataset], object], str]] = {
    "map without unit": ("pm", lambda ds: delattr(_mapping(ds), "MeasurementUnitsCodeSequence"), "MeasurementUnits"),
    "map in another unit": (
        "pm",
        lambda ds: setattr(_mapping(ds).MeasurementUnitsCodeSequence[0], "CodingSchemeDesignator", "DCM"),
        "unit of UCUM",
    ),
    "map without scale": ("pm", lambda ds: setattr(_mapping(ds), "RealWorldValueSlope", 0.0), "slope"),
    "map of nothing": ("pm", lambda ds: setattr(_mapping(ds), "QuantityDefinitionSequence", []), "what the values are"),
    "map without mapping": (
        "pm",
        lambda ds: delattr(next(every(ds, "RealWorldValueMappingSequence")), "RealWorldValueMappingSequence"),
        "RealWorldValueMappingSequence",
    ),
    "map between slices": (
        "pm",
        lambda ds: setattr(_first_frame(ds).PlanePositionSequence[0], "ImagePositionPatient", [0, 0, 0]),
        "frame 1 lies at",
    ),
    "map elsewhere": ("pm", lambda ds: setattr(ds, "FrameOfReferenceUID", "2.25.4"), "Frame of Reference UID"),
    "map cut off": ("pm", lambda ds: _pixels(ds, "FloatPixelData"), "FloatPixelData has"),
    "map infinite": (
        "pm",
        lambda ds: setattr(ds, "FloatPixelData", b"\0\0\x80\x7f" + ds.FloatPixelData[4:]),
        "infinite",
    ),
    "map without series": ("pm", lambda ds: delattr(ds, "ReferencedSeriesSequence"), "Referenced Series"),
    "map of a patient": ("pm", lambda ds: delattr(ds, "BurnedInAnnotation"), "BurnedInAnnotation"),
    "label of no segment": (
        "seg_labelmap",
        lambda ds: setattr(ds, "PixelData", b"\x09" + ds.PixelData[1:]),
        "Segment 9",
    ),
    "label map empty": ("seg_labelmap", lambda ds: setattr(ds, "PixelData", bytes(len(ds.PixelData))), "no voxel"),
    "label map of another": (
        "seg_labelmap",
        lambda ds: setattr(next(every(ds, "TrackingUID")), "TrackingUID", "2.25.8"),
        "has other Segments",
    ),
    "key objects of nothing": (
        "kos",
        lambda ds: setattr(ds, "ContentSequence", [item for item in ds.ContentSequence if item.ValueType != "IMAGE"]),
        "selects nothing",
    ),
    "key objects without title": (
        "kos",
        lambda ds: setattr(ds.ConceptNameCodeSequence[0], "CodeValue", "126000"),
        "CID 7010",
    ),
    "key objects of a person": ("kos", _observer, "typed as a device"),
    "key objects without evidence": (
        "kos",
        lambda ds: (
            ds.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence.pop()
        ),
        "not in the evidence",
    ),
    "page cut off": ("sc", lambda ds: _pixels(ds, "PixelData"), "Pixel Data .* has"),
    "page without colours": ("sc", lambda ds: setattr(ds, "SamplesPerPixel", 1), "samples per pixel"),
    "page as original": ("sc", lambda ds: setattr(ds, "ImageType", ["ORIGINAL", "PRIMARY"]), "DERIVED"),
    "page of another study": ("sc", lambda ds: setattr(ds, "StudyInstanceUID", "2.25.6"), "StudyInstanceUID differ"),
    "page of another issuer": ("sc", lambda ds: setattr(ds, "IssuerOfPatientID", "X"), "IssuerOfPatientID differ"),
    "page without origin": ("sc", lambda ds: delattr(ds, "ConversionType"), "ConversionType"),
    "document of another modality": ("pdf", lambda ds: setattr(ds, "Modality", "OT"), "'DOC'"),
    "document of another type": (
        "pdf",
        lambda ds: setattr(ds, "MIMETypeOfEncapsulatedDocument", "text/xml"),
        "application/pdf",
    ),
    "document cut off": (
        "pdf",
        lambda ds: [_pixels(ds, "EncapsulatedDocument"), ds.pop("EncapsulatedDocumentLength", None)],
        "no whole PDF",
    ),
    "document of wrong length": ("pdf", lambda ds: _pixels(ds, "EncapsulatedDocument"), "Length is"),
    "document of nobody": ("pdf", lambda ds: delattr(ds, "PatientName"), "PatientName"),
    "text with numbers": (
        "sr_text",
        lambda ds: setattr(next(item for item in content(ds) if item.ValueType == "TEXT"), "ValueType", "NUM"),
        "NUM|MeasuredValue",
    ),
    "text verified": ("sr_text", lambda ds: setattr(ds, "VerificationFlag", "VERIFIED"), "no person has verified"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_stopped(fault: str) -> None:
    kind, plant, message = FAULTS[fault]
    assert any(item.kind == kind for item in good())
    with pytest.raises(InvalidResult, match=message):
        read_back(damaged(good(), kind, plant), STUDY.sources)


def test_values_that_are_not_those_of_the_answer_are_stopped() -> None:
    """Consistent objects of another answer: only the builder's map tells."""
    stack = source_stack(STUDY.sources["images"])
    segments = segments_of(STUDY.findings, stack.shape, STUDY.provenance)
    (values,) = STUDY.findings.maps
    read_back(good(), STUDY.sources, segments, stack, [values])
    for other in (values.values + 0.5, values.values[::-1]):
        with pytest.raises(InvalidResult, match="its values are those of no map"):
            read_back(good(), STUDY.sources, segments, stack, [replace(values, values=other)])


def test_objects_leave_in_the_order_in_which_they_refer() -> None:
    read_back(good(), STUDY.sources)
    with pytest.raises(InvalidResult, match="would be sent after it"):
        read_back(good()[::-1], STUDY.sources)


def test_a_frame_for_every_slice_passes() -> None:
    package = Package(kinds=("seg", "seg_labelmap", "sr"), omit_empty_frames=False, fall_backs=False)
    objects = Study(Case(91, "ct_enhanced", "ct_lesion", "none", "sagittal", 1)).encoded(package)
    assert [item.kind for item in objects] == ["seg", "seg_labelmap", "sr"]


def test_refusals_of_every_kind_pass() -> None:
    objects = encode_refusal("no elastogram", STUDY.sources, STUDY.provenance, package=EVERYTHING)
    assert {item.kind for item in objects} == {"sc", "pdf", "sr", "sr_comprehensive", "sr_enhanced", "sr_text"}
