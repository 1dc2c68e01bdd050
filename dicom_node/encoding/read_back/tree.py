"""The content tree of an SR document (PS3.3 C.17.3), as far as the checks need it."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from dicom_node.encoding.concepts import PRIVATE_SCHEME
from dicom_node.encoding.read_back.elements import Item
from dicom_node.encoding.read_back.images import Place

# Concepts of PS3.16, as (scheme, value).
REPORT_TITLE = ("DCM", "126000")
IMAGING_MEASUREMENTS = ("DCM", "126010")
MEASUREMENT_GROUP = ("DCM", "125007")
TRACKING_IDENTIFIER, TRACKING_UID = ("DCM", "112039"), ("DCM", "112040")
IMAGE_LIBRARY = ("DCM", "111028")
OBSERVER_TYPE, DEVICE = ("DCM", "121005"), ("DCM", "121007")
DEVICE_UID = ("DCM", "121012")
ALGORITHM_NAME, ALGORITHM_VERSION = ("DCM", "111001"), ("DCM", "111003")
VOLUME = ("SCT", "118565006")
NOT_ANALYSED = (PRIVATE_SCHEME, "NOT_ANALYSED")
SOURCE_SERIES = ("DCM", "121232")  # Source series for segmentation


@dataclass(frozen=True)
class Content:
    """One content item with those below it."""

    item: Item
    name: tuple[str, str]  # of its concept, (scheme, value)
    kind: str  # Value Type
    children: list["Content"]

    @cached_property
    def below(self) -> list["Content"]:
        """Every content item below, in order."""
        found = []
        for child in self.children:
            found.append(child)
            found += child.below
        return found


def content_of(item: Item) -> Content:
    """The content tree of a document or item."""
    return Content(
        item,
        item.code("ConceptNameCodeSequence"),
        item.text("ValueType"),
        [content_of(inner) for inner in item.sequence("ContentSequence")],
    )


def place_of(item: Item) -> Place | None:
    """The image or frame of a content item of type IMAGE."""
    reference = item.first("ReferencedSOPSequence")
    if not reference:
        return None
    frames = reference.numbers("ReferencedFrameNumber")
    return reference.text("ReferencedSOPInstanceUID"), int(frames[0]) if len(frames) else None


@dataclass(frozen=True)
class Graphic:
    """A SCOORD: points on one image or frame."""

    kind: str  # Graphic Type
    points: NDArray[np.float64]  # [point, (column, row)]
    place: Place | None
    is_region: bool  # stands in the group itself, not below a number

    @property
    def outline(self) -> NDArray[np.float64]:
        """Points on what is drawn: a circle is given by its centre and a point on it (PS3.3 C.18.6.1.2)."""
        if self.kind != "CIRCLE" or len(self.points) != 2:
            return self.points
        angles = np.linspace(0, 2 * np.pi, 32, endpoint=False)
        radius = float(np.linalg.norm(self.points[1] - self.points[0]))
        return np.asarray(self.points[0] + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1))


@dataclass(frozen=True)
class Group:
    """A Measurement Group (PS3.16 TID 1410, 1411, 1501)."""

    content: Content

    @cached_property
    def tracking_uid(self) -> str:
        """Tracking Unique Identifier; empty where there is none."""
        return next((part.item.text("UID") for part in self.content.children if part.name == TRACKING_UID), "")

    @cached_property
    def tracking_identifier(self) -> bytes:
        """Tracking Identifier as it is written."""
        named = (part.item.raw("TextValue") for part in self.content.children if part.name == TRACKING_IDENTIFIER)
        return next(named, b"")

    @cached_property
    def graphics(self) -> list[Graphic]:
        """2D graphics."""
        own = {id(part) for part in self.content.children}
        return [_graphic(part, id(part) in own) for part in self.content.below if part.kind == "SCOORD"]

    @property
    def has_3d(self) -> bool:
        """Whether it has a SCOORD3D."""
        return any(part.kind == "SCOORD3D" for part in self.content.below)

    @cached_property
    def is_refusal(self) -> bool:
        """Whether it says that a study was not analysed; its images may be such that nothing can be drawn on them."""
        return any(part.item.code("ConceptCodeSequence") == NOT_ANALYSED for part in self.content.children)

    @cached_property
    def numbers(self) -> list[Content]:
        """Its NUM items."""
        return [part for part in self.content.below if part.kind == "NUM"]

    @cached_property
    def segments(self) -> list[tuple[str, int]]:
        """(SOP Instance UID of a SEG, Segment Number) that it refers to."""
        found = []
        for part in self.content.below:
            reference = part.item.first("ReferencedSOPSequence")
            for number in reference.numbers("ReferencedSegmentNumber"):
                found.append((reference.text("ReferencedSOPInstanceUID"), int(number)))
        return found


def _graphic(content: Content, is_region: bool) -> Graphic:
    """The graphic of a SCOORD item and the image that it was selected from."""
    image = next((part for part in content.children if part.kind == "IMAGE"), None)
    data = content.item.numbers("GraphicData")
    points = data[: len(data) // 2 * 2].reshape(-1, 2)
    kind = content.item.text("GraphicType")
    return Graphic(kind, points, place_of(image.item) if image is not None else None, is_region)


def groups_of(document: Content) -> list[Group]:
    """Measurement groups of a report, in order."""
    return [Group(content) for content in document.below if content.name == MEASUREMENT_GROUP]
