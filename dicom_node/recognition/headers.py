"""From a file to the header values that the node works with per Instance."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydicom.datadict import tag_for_keyword

from dicom_node.recognition.frames import frame_values, has_functional_groups
from dicom_node.recognition.json_header import is_kept, series_header
from dicom_node.recognition.parsing import NotDicom, UnreadableHeader, is_part10, parse_elements
from dicom_node.recognition.values import ElementValues, age_years, plain_text, valid_uid, whole
from storage.records import Instance

__all__ = [
    "FRAME_KEYS",
    "INSTANCE_KEYWORDS",
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
#: Keys beside the keywords, for multi-frame objects: one position per frame (LPS mm), and how many phases are named.
FRAME_KEYS: tuple[str, ...] = ("FramePositions", "FrameContrastPhases")

_UIDS = {"StudyInstanceUID": 0x0020000D, "SeriesInstanceUID": 0x0020000E, "SOPInstanceUID": 0x00080018}
_SOP_CLASS = 0x00080016
_MEDIA_STORAGE_DIRECTORY = "1.2.840.10008.1.3.10"


def _tag(keyword: str) -> int:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise KeyError(keyword)
    return tag


_LAST_TAG = _tag("PerformedProcedureStepDescription")  # the highest of the keywords; reading stops after it
_TAGS = [_tag(k) for k in INSTANCE_KEYWORDS] + [*_UIDS.values(), _SOP_CLASS]
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


def read_instance(path: Path) -> Instance:
    """Header values of one Instance; pixels and large elements are skipped.

    path : a DICOM file (PS3.10), or a bare Dataset.
    Returns an Instance with `path` and `sha256` empty, for the caller to set; `attributes` holds those of
    INSTANCE_KEYWORDS that were there and readable, as JSON values; for multi-frame objects also FRAME_KEYS.
    Raises UnreadableHeader naming the element if a UID that identifies the Instance is missing or invalid,
    and of its kinds NotDicom for files that never were an Instance.
    """
    path = Path(path)
    try:
        dataset = parse_elements(path, _LAST_TAG, _TAGS)
    except UnreadableHeader as error:
        if not is_part10(path):
            raise NotDicom(f"{path.name}: not a DICOM file") from error
        raise
    values = ElementValues(dataset)
    meta = getattr(dataset, "file_meta", None)
    if _meta_text(meta, "MediaStorageSOPClassUID") == _MEDIA_STORAGE_DIRECTORY:
        raise NotDicom(f"{path.name}: a DICOMDIR, not an Instance")
    uids: dict[str, str] = {}
    for keyword, tag in _UIDS.items():
        uid = values.text(tag)
        if uid is None or not valid_uid(uid):
            what = "is missing" if not uid else "is not a valid UID"
            if not is_part10(path) and keyword == "StudyInstanceUID":
                raise NotDicom(f"{path.name}: not a DICOM file")
            raise UnreadableHeader(f"{keyword} ({tag >> 16:04X},{tag & 0xFFFF:04X}) {what}")
        uids[keyword] = uid
    sop_class = values.text(_SOP_CLASS) or _meta_text(meta, "MediaStorageSOPClassUID")
    if sop_class is None or not valid_uid(sop_class):
        raise UnreadableHeader("SOPClassUID (0008,0016) is missing or is not a valid UID")

    attributes: dict[str, Any] = {}
    for keyword, (tag, read) in _READERS.items():
        value = read(values, tag)
        if value is None or (keyword in _LENGTHS and len(value) != _LENGTHS[keyword]):
            continue
        attributes[keyword] = value
    if has_functional_groups(sop_class) and "ImagePositionPatient" not in attributes:
        attributes |= frame_values(path)
    return Instance(
        sop_instance_uid=uids["SOPInstanceUID"],
        sop_class_uid=sop_class,
        series_instance_uid=uids["SeriesInstanceUID"],
        study_instance_uid=uids["StudyInstanceUID"],
        transfer_syntax_uid=_meta_text(meta, "TransferSyntaxUID") or "1.2.840.10008.1.2",
        path="",
        sha256="",
        size_bytes=path.stat().st_size,
        attributes=attributes,
    )


def _meta_text(meta: Any, keyword: str) -> str | None:
    try:
        value = meta.get(keyword) if meta is not None else None
    except Exception:  # noqa: BLE001 - a broken file meta element is as good as none
        return None
    return plain_text(str(value)) or None if value is not None else None
