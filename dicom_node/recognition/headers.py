"""From a file to the header values that the node works with per Instance."""

import os
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydicom.datadict import tag_for_keyword

from dicom_node.recognition.elastography_rules import deserves_second_look
from dicom_node.recognition.frames import frame_values, has_functional_groups
from dicom_node.recognition.json_header import is_kept, series_header
from dicom_node.recognition.parsing import NotDicom, UnreadableHeader, is_part10, parse_elements
from dicom_node.recognition.private import PRIVATE_KEYS, PRIVATE_TAGS, later_private_values, private_values
from dicom_node.recognition.scanning import Beginning, scan
from dicom_node.recognition.values import (
    ElementValues,
    RawElement,
    age_years,
    plain_text,
    raw_elements,
    valid_uid,
    whole,
)
from storage.records import Instance

__all__ = [
    "FRAME_KEYS",
    "INSTANCE_KEYWORDS",
    "PRIVATE_KEYS",
    "NotDicom",
    "UnreadableHeader",
    "is_kept",
    "read_instance",
    "series_header",
    "valid_uid",
]

_TEXT = (
    "SpecificCharacterSet",
    "Modality",
    "Manufacturer",
    "ManufacturerModelName",
    "StudyDescription",
    "SeriesDescription",
    "ProtocolName",
    "RequestedProcedureDescription",
    "PerformedProcedureStepDescription",
    "ImageComments",
    "BodyPartExamined",
    "ScanOptions",
    "SequenceName",
    "ScanningSequence",
    "PulseSequenceName",
    "EchoPulseSequence",
    "ComplexImageComponent",
    "ContrastBolusAgent",
    "ContrastBolusAgentPhase",
    "ConvolutionKernel",
    "PhotometricInterpretation",
    "RescaleType",
    "PatientSex",
    "FrameOfReferenceUID",
    "ReconstructionMethod",
    "AcquisitionDate",
    "AcquisitionTime",
    "AcquisitionDateTime",
    "ContentDate",
    "ContentTime",
    "SeriesDate",
    "SeriesTime",
    "StudyDate",
    "StudyTime",
    "ContrastBolusStartTime",
)
_TEXT_LISTS = ("ImageType",)
_NUMBERS = (
    "SliceThickness",
    "SpacingBetweenSlices",
    "SliceLocation",
    "EchoTime",
    "RepetitionTime",
    "TriggerTime",
    "DiffusionBValue",
    "GantryDetectorTilt",
    "RescaleSlope",
    "RescaleIntercept",
    "ReconstructionDiameter",
    "KVP",
)
_NUMBER_LISTS = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
_INTEGERS = (
    "SeriesNumber",
    "InstanceNumber",
    "AcquisitionNumber",
    "TemporalPositionIdentifier",
    "NumberOfTemporalPositions",
    "ImagesInAcquisition",
    "NumberOfStudyRelatedInstances",
    "NumberOfSeriesRelatedInstances",
    "NumberOfFrames",
)
_SHORTS = ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "NumberOfSlices")

#: Keywords that `Instance.attributes` may hold. PatientAge is in years. Never a name or an ID of the patient.
INSTANCE_KEYWORDS: tuple[str, ...] = (
    *_TEXT,
    *_TEXT_LISTS,
    *_NUMBERS,
    *_NUMBER_LISTS,
    *_INTEGERS,
    *_SHORTS,
    "PatientAge",
)
#: Keys beside the keywords, for multi-frame objects: one position per frame (LPS mm), how many phases are named; of MR
#: per frame the Frame Type, Complex Image Component and place in time. PRIVATE_KEYS (private.py) come beside them.
FRAME_KEYS: tuple[str, ...] = (
    "FramePositions",
    "FrameContrastPhases",
    "FrameTypes",
    "FrameComponents",
    "FrameTimes",
)

_UIDS = {"StudyInstanceUID": 0x0020000D, "SeriesInstanceUID": 0x0020000E, "SOPInstanceUID": 0x00080018}
_SOP_CLASS = 0x00080016
_CHARACTER_SET = 0x00080005
_MEDIA_STORAGE_DIRECTORY = "1.2.840.10008.1.3.10"


def _tag(keyword: str) -> int:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise KeyError(keyword)
    return tag


_LAST_TAG = _tag("PerformedProcedureStepDescription")  # the highest of the keywords; reading stops after it
_TAGS = frozenset([_tag(k) for k in INSTANCE_KEYWORDS] + [*_UIDS.values(), _SOP_CLASS]) | PRIVATE_TAGS
_LENGTHS = {"ImagePositionPatient": 3, "ImageOrientationPatient": 6, "PixelSpacing": 2}

#: How a value is read, by keyword.
_READERS: Mapping[str, tuple[int, Callable[[ElementValues, int], Any]]] = {
    **{k: (_tag(k), ElementValues.text) for k in _TEXT},
    **{k: (_tag(k), ElementValues.texts) for k in _TEXT_LISTS},
    **{k: (_tag(k), ElementValues.number) for k in _NUMBERS},
    **{k: (_tag(k), ElementValues.numbers) for k in _NUMBER_LISTS},
    **{k: (_tag(k), lambda values, tag: whole(values.number(tag))) for k in (*_INTEGERS, *_SHORTS)},
    "PatientAge": (_tag("PatientAge"), lambda values, tag: age_years(values.text(tag) or "")),
}


_BY_TAG = {tag: (keyword, read) for keyword, (tag, read) in _READERS.items()}
_MOST_CACHED_BYTES = 256


@lru_cache(maxsize=4096)  # most values of a slice are those of the slice before
def _attribute(tag: int, element: RawElement, declared: RawElement | None) -> tuple[str, Any]:
    """Keyword and value (a list as a tuple); None for what is no attribute or cannot be read."""
    reader = _BY_TAG.get(tag)
    if reader is None:
        return "", None
    keyword, read = reader
    value = read(ElementValues({tag: element} if declared is None else {_CHARACTER_SET: declared, tag: element}), tag)
    if value is None or (keyword in _LENGTHS and len(value) != _LENGTHS[keyword]):
        return keyword, None
    return keyword, tuple(value) if isinstance(value, list) else value


def read_instance(path: Path, beginning: Beginning | None = None) -> Instance:
    """Header values of one Instance; pixels and large elements are skipped.

    path : a DICOM file (PS3.10), or a bare Dataset.
    beginning : what a caller has read of the file already; then the Dataset must also be whole.
    Returns an Instance with `path` and `sha256` empty, for the caller to set; `attributes` holds those of
    INSTANCE_KEYWORDS that were there and readable, as JSON values; for multi-frame objects also FRAME_KEYS, and of
    private elements PRIVATE_KEYS.
    Raises UnreadableHeader naming the element if a UID that identifies the Instance is missing or invalid, or if the
    Dataset is cut off, and of its kinds NotDicom for files that never were an Instance.
    """
    path = Path(path)
    elements = None if beginning is None else _scanned(path, beginning)
    if elements is not None and beginning is not None:
        return _instance(
            path, elements, beginning.sop_class_uid, beginning.transfer_syntax_uid, beginning.size_bytes, True
        )
    try:
        dataset = parse_elements(path, _LAST_TAG, _TAGS)
    except UnreadableHeader as error:
        if not is_part10(path):
            raise NotDicom(f"{path.name}: not a DICOM file") from error
        raise
    meta = getattr(dataset, "file_meta", None)
    return _instance(
        path,
        raw_elements(dataset),
        _meta_text(meta, "MediaStorageSOPClassUID") or "",
        _meta_text(meta, "TransferSyntaxUID") or "1.2.840.10008.1.2",
        path.stat().st_size,
        is_part10(path),
    )


def _scanned(path: Path, beginning: Beginning) -> Mapping[int, RawElement] | None:
    """The elements without pydicom; None where it must read them. Raises UnreadableHeader for what is cut off."""

    def read_at(offset: int, length: int) -> bytes:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            return os.pread(descriptor, length, offset)
        finally:
            os.close(descriptor)

    found = scan(beginning, _TAGS, _LAST_TAG, read_at)
    if found is None:
        return None
    if found.cut_off:
        raise UnreadableHeader(f"the Dataset is cut off: {found.cut_off}")
    return found.elements


def _instance(
    path: Path,
    elements: Mapping[int, RawElement],
    meta_sop_class_uid: str,
    transfer_syntax_uid: str,
    size_bytes: int,
    has_preamble: bool,
) -> Instance:
    values = ElementValues(elements)
    if meta_sop_class_uid == _MEDIA_STORAGE_DIRECTORY:
        raise NotDicom(f"{path.name}: a DICOMDIR, not an Instance")
    uids: dict[str, str] = {}
    for keyword, tag in _UIDS.items():
        uid = values.text(tag)
        if uid is None or not valid_uid(uid):
            what = "is missing" if not uid else "is not a valid UID"
            if not has_preamble and keyword == "StudyInstanceUID":
                raise NotDicom(f"{path.name}: not a DICOM file")
            raise UnreadableHeader(f"{keyword} ({tag >> 16:04X},{tag & 0xFFFF:04X}) {what}")
        uids[keyword] = uid
    sop_class = values.text(_SOP_CLASS) or meta_sop_class_uid
    if not valid_uid(sop_class):
        raise UnreadableHeader("SOPClassUID (0008,0016) is missing or is not a valid UID")

    declared = elements.get(_CHARACTER_SET)
    attributes: dict[str, Any] = {}
    for tag, element in elements.items():
        if tag >> 16 & 1:
            continue  # private, below
        keyword, value = (_attribute if len(element.value) <= _MOST_CACHED_BYTES else _attribute.__wrapped__)(
            tag, element, declared
        )
        if value is not None:
            attributes[keyword] = list(value) if type(value) is tuple else value
    if attributes.get("Modality") == "MR":
        attributes |= private_values(elements)
        if deserves_second_look(attributes):
            attributes |= later_private_values(path)
    if has_functional_groups(sop_class) and "ImagePositionPatient" not in attributes:
        attributes |= frame_values(path, sop_class)
    return Instance(
        sop_instance_uid=uids["SOPInstanceUID"],
        sop_class_uid=sop_class,
        series_instance_uid=uids["SeriesInstanceUID"],
        study_instance_uid=uids["StudyInstanceUID"],
        transfer_syntax_uid=transfer_syntax_uid,
        path="",
        sha256="",
        size_bytes=size_bytes,
        attributes=attributes,
    )


def _meta_text(meta: Any, keyword: str) -> str | None:
    try:
        value = meta.get(keyword) if meta is not None else None
    except Exception:  # noqa: BLE001 - a broken file meta element is as good as none
        return None
    return plain_text(str(value)) or None if value is not None else None
