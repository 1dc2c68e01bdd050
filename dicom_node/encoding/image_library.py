"""Image Library of a report (PS3.16 TID 1600): the images that it points at, and how they lie."""

from collections.abc import Iterable
from typing import Any

from pydicom import Dataset

from dicom_node.encoding import content
from dicom_node.encoding.concepts import CONCEPTS
from dicom_node.encoding.sources import SourceImages, SourceSlice, SourceStack

_ACQUISITION: content.Relationship = "HAS ACQ CONTEXT"


def image_library(shown: Iterable[SourceSlice], images: SourceImages) -> Dataset | None:
    """The container for these images; None where we have no code for their modality, which each entry must state.

    What all of them share is stated once for the group, their positions image by image (TID 1602, 1604).
    """
    modality = f"modality_{images.header.get('Modality')}"
    if modality not in CONCEPTS:
        return None
    shared = [content.code("modality", modality, _ACQUISITION)]
    if isinstance(images, SourceStack):
        shared += _geometry(images)
    entries: dict[str, Dataset] = {}
    for source in shown:
        position = source.position if isinstance(images, SourceStack) and source.frame_number is None else ()
        entries.setdefault(
            source.sop_instance_uid,
            content.image(
                "source",
                source.sop_class_uid,
                source.sop_instance_uid,
                items=_numbers("position", position, "mm"),
            ),
        )
    group = content.container("image_library_group", [*shared, *entries.values()])
    return content.container("image_library", [group])


def _geometry(stack: SourceStack) -> list[Dataset]:
    values: list[tuple[str, Any, str]] = [
        ("pixel_rows", stack.rows, "{pixels}"),
        ("pixel_columns", stack.columns, "{pixels}"),
        ("horizontal_spacing", stack.pixel_spacing[1], "mm"),
        ("vertical_spacing", stack.pixel_spacing[0], "mm"),
        ("slice_spacing", stack.slice_spacing_mm, "mm"),
        ("slice_thickness", stack.slice_thickness or stack.slice_spacing_mm, "mm"),
    ]
    return [
        content.uid_reference("frame_of_reference", stack.frame_of_reference_uid, _ACQUISITION),
        *(content.number(name, value, ucum, _ACQUISITION) for name, value, ucum in values),
        *_numbers("row", stack.orientation[:3], "{-1:1}"),
        *_numbers("column", stack.orientation[3:], "{-1:1}"),
    ]


def _numbers(name: str, values: Iterable[Any], ucum: str) -> list[Dataset]:
    return [
        content.number(f"{name}_{axis}", value, ucum, _ACQUISITION) for axis, value in zip("XYZ", values, strict=False)
    ]
