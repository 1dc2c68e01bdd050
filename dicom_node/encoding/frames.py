"""What every multi-frame object on the source's grid shares: references to the source, geometry, dimensions.

A SEG of a CT has hundreds of frames with six nested sequences each. Through pydicom's objects they take seconds to
build and write; what differs between frames is a few values, so the items are put together as bytes (PS3.5 7.5,
Explicit VR Little Endian) around parts that pydicom encoded once. Read back, they are ordinary sequences.
"""

import struct
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from pydicom import Dataset, config
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.tag import BaseTag

from dicom_node.encoding.decimals import LONGEST, decimal_string
from dicom_node.encoding.header import add_code
from dicom_node.encoding.provenance import Provenance
from dicom_node.encoding.sources import SourceSlice, SourceStack

_ITEM = b"\xfe\xff\x00\xe0"
_LONG_VRS = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"})


class Frame(NamedTuple):
    """One frame of an object of ours."""

    slice: int  # index of the source's slice
    indices: tuple[int, ...]  # Dimension Index Values without the last, which is the position
    segment_number: int | None = None


class Index(NamedTuple):
    """One dimension: the attribute that it counts, in the functional group where it is."""

    pointer: int
    group: int
    label: str


SEGMENT_INDEX = Index(0x0062000B, 0x0062000A, "Segment Number")  # in Segment Identification Sequence
POSITION_INDEX = Index(0x00200032, 0x00209113, "Image Position Patient")  # in Plane Position Sequence


def add_references(dataset: Dataset, stack: SourceStack) -> None:
    """Common Instance Reference module (PS3.3 C.12.2): the one Series that the frames lie on.

    Viewers find the images to draw on by it, and show nothing without it.
    """
    unique = {item.sop_instance_uid: item for item in stack.slices}
    series = Dataset()
    series[_tag("ReferencedInstanceSequence")] = _sequence_element(
        "ReferencedInstanceSequence", (_item(_reference(item)) for item in unique.values())
    )
    series.SeriesInstanceUID = stack.header.SeriesInstanceUID
    dataset.ReferencedSeriesSequence = [series]


def reference_item(source: SourceSlice, *, frames: bool = True) -> Dataset:
    """Image SOP Instance Reference macro (PS3.3 10.3), with the frame if there is one and `frames`."""
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = source.sop_class_uid, source.sop_instance_uid
    if frames and source.frame_number is not None:
        item.ReferencedFrameNumber = source.frame_number
    return item


def add_dimensions(dataset: Dataset, provenance: Provenance, role: str, indices: Sequence[Index]) -> None:
    """Multi-frame Dimension module (PS3.3 C.7.6.17); the position comes last.

    role : of the object; part of the Dimension Organization UID.
    """
    uid = provenance.uid(f"{role} dimensions")
    organization = Dataset()
    organization.DimensionOrganizationUID = uid
    dataset.DimensionOrganizationSequence = [organization]
    dataset.DimensionIndexSequence = []
    for pointer, group, label in indices:
        index = Dataset()
        index.DimensionOrganizationUID = uid
        index.DimensionIndexPointer = pointer
        index.FunctionalGroupPointer = group
        index.DimensionDescriptionLabel = label
        dataset.DimensionIndexSequence.append(index)


def add_lossy_flags(dataset: Dataset, source: Dataset) -> None:
    """What was derived from lossy images says so (PS3.3 C.7.6.1.1.5)."""
    dataset.LossyImageCompression = "01" if str(source.get("LossyImageCompression") or "") == "01" else "00"
    if dataset.LossyImageCompression == "01":
        for keyword in ("LossyImageCompressionRatio", "LossyImageCompressionMethod"):
            if source.get(keyword):
                setattr(dataset, keyword, source.get(keyword))


def shared_groups(stack: SourceStack) -> Dataset:
    """Pixel Measures and Plane Orientation (Patient) of the source (PS3.3 C.7.6.16.2.1 and .4)."""
    measures, orientation, groups = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing = stack.pixel_spacing
    measures.SpacingBetweenSlices = decimal_string(stack.slice_spacing_mm)
    measures.SliceThickness = stack.slice_thickness or measures.SpacingBetweenSlices
    orientation.ImageOrientationPatient = stack.orientation
    groups.PixelMeasuresSequence = [measures]
    groups.PlaneOrientationSequence = [orientation]
    return groups


def order_along_normal(stack: SourceStack) -> list[int]:
    """1-based place of each slice along the normal (row direction x column direction): the index of its position."""
    cosines = np.asarray([float(part) for part in stack.orientation])
    along = np.asarray([item.point for item in stack.slices]) @ np.cross(cosines[:3], cosines[3:])
    return [int(place) + 1 for place in np.argsort(np.argsort(along))]


def add_frames(dataset: Dataset, frames: Sequence[Frame], stack: SourceStack, derivation: str) -> None:
    """Number of Frames and Per-frame Functional Groups: each frame lies on its slice and names it as its source.

    derivation : key of the concept in Derivation Code Sequence.
    """
    purpose, derived = Dataset(), Dataset()
    add_code(purpose, "PurposeOfReferenceCodeSequence", "source_image")
    add_code(derived, "DerivationCodeSequence", derivation)
    purpose_bytes, derived_bytes = _encoded(purpose), _encoded(derived)
    preserved = _element("SpatialLocationsPreserved", "YES")
    places = order_along_normal(stack)
    on_slice = {}
    for index in {frame.slice for frame in frames}:
        source = stack.slices[index]
        image = _item(_reference(source) + _frame_number(source) + preserved + purpose_bytes)
        derivation_item = _item(_sequence("SourceImageSequence", image) + derived_bytes)
        position = _element("ImagePositionPatient", "\\".join(_decimal(part) for part in source.position))
        on_slice[index] = (
            _sequence("DerivationImageSequence", derivation_item),
            _sequence("PlanePositionSequence", _item(position)),
        )

    def groups(frame: Frame) -> bytes:
        derivation_group, position_group = on_slice[frame.slice]
        values = struct.pack(f"<{len(frame.indices) + 1}L", *frame.indices, places[frame.slice])
        content = _sequence("FrameContentSequence", _item(_element("DimensionIndexValues", values)))
        identification = b""
        if frame.segment_number is not None:
            number = _element("ReferencedSegmentNumber", struct.pack("<H", frame.segment_number))
            identification = _sequence("SegmentIdentificationSequence", _item(number))
        return _item(derivation_group + content + position_group + identification)

    dataset.NumberOfFrames = len(frames)
    dataset[_tag("PerFrameFunctionalGroupsSequence")] = _sequence_element(
        "PerFrameFunctionalGroupsSequence", (groups(frame) for frame in frames)
    )


# ------------------------------------------------------------------ bytes; elements rise by tag within an item


def _reference(source: SourceSlice) -> bytes:
    return _element("ReferencedSOPClassUID", source.sop_class_uid) + _element(
        "ReferencedSOPInstanceUID", source.sop_instance_uid
    )


def _frame_number(source: SourceSlice) -> bytes:
    return b"" if source.frame_number is None else _element("ReferencedFrameNumber", str(source.frame_number))


def _decimal(value: Any) -> str:
    """A DS as the source wrote it; at most 16 characters."""
    text = str(getattr(value, "original_string", None) or value).strip()
    return text if len(text) <= LONGEST else decimal_string(float(value))


def _tag(keyword: str) -> BaseTag:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise KeyError(keyword)
    return BaseTag(tag)


def _element(keyword: str, value: str | bytes) -> bytes:
    """One element with Explicit VR Little Endian (PS3.5 7.1.2), even length."""
    tag = _tag(keyword)
    vr = dictionary_VR(tag)
    data = value.encode("ascii") if isinstance(value, str) else value
    if len(data) % 2:
        data += b"\0" if vr == "UI" else b" "
    head = struct.pack("<HH2s", tag.group, tag.element, vr.encode())
    return head + (struct.pack("<HL", 0, len(data)) if vr in _LONG_VRS else struct.pack("<H", len(data))) + data


def _item(content: bytes) -> bytes:
    return _ITEM + struct.pack("<L", len(content)) + content


def _sequence(keyword: str, *items: bytes) -> bytes:
    return _element(keyword, b"".join(items))


def _sequence_element(keyword: str, items: Iterable[bytes]) -> RawDataElement:
    data = b"".join(items)
    return RawDataElement(_tag(keyword), "SQ", len(data), data, 0, False, True)


def _encoded(dataset: Dataset) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    with config.disable_value_validation():
        write_dataset(buffer, dataset)
    return buffer.getvalue()
