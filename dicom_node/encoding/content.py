"""Content items of structured documents (PS3.3 C.17.3), named by keys of the table of concepts.

Written here rather than with highdicom's classes, which check each item as it is made and take over a second for a
report of fifty findings. highdicom, dciodvfy, DCMTK and PixelMed judge the result in the tests.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from io import BytesIO
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmwrite
from pydicom.dataelem import RawDataElement
from pydicom.sr.coding import Code
from pydicom.tag import BaseTag, Tag

from dicom_node.encoding.concepts import concept, unit
from dicom_node.encoding.decimals import decimal_string
from dicom_node.encoding.header import keep_raw

Relationship = Literal[
    "CONTAINS", "HAS CONCEPT MOD", "HAS OBS CONTEXT", "HAS ACQ CONTEXT", "INFERRED FROM", "SELECTED FROM"
]

_CONCEPT_NAME, _CONCEPT_CODE, _UNITS_CODE = Tag(0x0040A043), Tag(0x0040A168), Tag(0x004008EA)
_CONTENT = Tag(0x0040A730)


def container(
    name: str,
    items: Iterable[Dataset],
    *,
    template: str | None = None,
    relationship: Relationship | None = "CONTAINS",
    continuity: Literal["CONTINUOUS", "SEPARATE"] = "CONTINUOUS",
) -> Dataset:
    """A CONTAINER with its items.

    template : number of the DCMR template that it follows: "1410".
    relationship : None for the root of a document.
    """
    item = _item("CONTAINER", name, relationship)
    item.ContinuityOfContent = continuity
    if template is not None:
        used = Dataset()
        used.MappingResource, used.TemplateIdentifier = "DCMR", template
        item.ContentTemplateSequence = [used]
    item.ContentSequence = list(items)
    return item


def text(name: str, value: str, relationship: Relationship = "CONTAINS") -> Dataset:
    """A TEXT; the caller sees to it that the document's character set can hold it."""
    item = _item("TEXT", name, relationship)
    item.TextValue = value
    return item


def code(name: str, value: str, relationship: Relationship = "CONTAINS") -> Dataset:
    """A CODE; `value` is a key of the table too."""
    item = _item("CODE", name, relationship)
    _set_code(item, _CONCEPT_CODE, concept(value).code)
    return item


def uid_reference(name: str, value: str, relationship: Relationship = "CONTAINS") -> Dataset:
    """A UIDREF."""
    item = _item("UIDREF", name, relationship)
    item.UID = value
    return item


def number(
    name: str,
    value: float,
    ucum: str,
    relationship: Relationship = "CONTAINS",
    inferred_from: Sequence[Dataset] = (),
) -> Dataset:
    """A NUM with its UCUM unit."""
    item = _item("NUM", name, relationship)
    measured = Dataset()
    _set_code(measured, _UNITS_CODE, unit(ucum))
    measured.NumericValue = decimal_string(value)
    item.MeasuredValueSequence = [measured]
    if inferred_from:
        item.ContentSequence = list(inferred_from)
    return item


def graphic(
    name: str,
    kind: Literal["POINT", "POLYLINE"],
    points: NDArray[np.float64],
    image_item: Dataset,
    relationship: Relationship = "CONTAINS",
) -> Dataset:
    """A SCOORD.

    points : [point, (column, row)] in pixels; (0, 0) is the image's top left corner (PS3.3 C.18.6.1.2).
    image_item : the IMAGE that it is drawn on, with the relationship SELECTED FROM.
    """
    item = _item("SCOORD", name, relationship)
    item.GraphicType = kind
    item.GraphicData = [float(part) for part in points.ravel()]
    item.ContentSequence = [image_item]
    return item


def image(
    name: str | None,
    sop_class_uid: str,
    sop_instance_uid: str,
    relationship: Relationship = "CONTAINS",
    *,
    frames: Sequence[int] = (),
    segment: int | None = None,
    items: Sequence[Dataset] = (),
) -> Dataset:
    """An IMAGE.

    frames : 1-based; none for all of the image.
    segment : Segment Number if it is a Segmentation.
    """
    item = _reference("IMAGE", name, sop_class_uid, sop_instance_uid, relationship)
    referenced = item.ReferencedSOPSequence[0]
    if frames:
        referenced.ReferencedFrameNumber = list(frames) if len(frames) > 1 else frames[0]
    if segment is not None:
        referenced.ReferencedSegmentNumber = segment
    if items:
        item.ContentSequence = list(items)
    return item


def composite(
    name: str | None, sop_class_uid: str, sop_instance_uid: str, relationship: Relationship = "CONTAINS"
) -> Dataset:
    """A COMPOSITE: an object that is no image."""
    return _reference("COMPOSITE", name, sop_class_uid, sop_instance_uid, relationship)


def frozen(root: Dataset, header: Dataset) -> Dataset:
    """A document's root with its content as bytes, so that several documents can share it and write it once.

    header : its character set is that of the documents.
    """
    single = Dataset()
    if "SpecificCharacterSet" in header:
        single.SpecificCharacterSet = header.SpecificCharacterSet
    buffer = BytesIO()
    dcmwrite(buffer, single, implicit_vr=False, little_endian=True)
    before = len(buffer.getvalue())
    single[_CONTENT] = root[_CONTENT]
    keep_raw(single)
    buffer = BytesIO()
    dcmwrite(buffer, single, implicit_vr=False, little_endian=True)
    written = buffer.getvalue()[before + 12 :]  # behind tag, VR, two reserved bytes and length of the sequence
    shared = Dataset()
    shared.update({tag: element for tag, element in root.items() if tag != _CONTENT})
    shared[_CONTENT] = RawDataElement(_CONTENT, "SQ", len(written), written, 0, False, True)
    return shared


def _reference(
    value_type: str, name: str | None, sop_class_uid: str, sop_instance_uid: str, relationship: Relationship
) -> Dataset:
    item = _item(value_type, name, relationship)
    referenced = Dataset()
    referenced.ReferencedSOPClassUID, referenced.ReferencedSOPInstanceUID = sop_class_uid, sop_instance_uid
    item.ReferencedSOPSequence = [referenced]
    return item


def _item(value_type: str, name: str | None, relationship: Relationship | None) -> Dataset:
    item = Dataset()
    if relationship is not None:
        item.RelationshipType = relationship
    item.ValueType = value_type
    if name is not None:
        _set_code(item, _CONCEPT_NAME, concept(name).code)
    return item


def _set_code(item: Dataset, tag: BaseTag, value: Code) -> None:
    """Set a code sequence of one item, as the bytes of its value: few codes are written very often."""
    written = _code_bytes(value.value, value.scheme_designator, value.meaning)
    item[tag] = RawDataElement(tag, "SQ", len(written), written, 0, False, True)


@lru_cache(maxsize=1024)
def _code_bytes(value: str, scheme: str, meaning: str) -> bytes:
    """Value of a sequence with one Code Sequence Macro item (PS3.3 8.8), Explicit VR Little Endian."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    buffer = BytesIO()
    dcmwrite(buffer, item, implicit_vr=False, little_endian=True)
    inside = buffer.getvalue()
    return b"\xfe\xff\x00\xe0" + len(inside).to_bytes(4, "little") + inside
