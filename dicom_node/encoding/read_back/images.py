"""The source images, as their headers have them: what a result may refer to, and where its frames may lie."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

#: An image, or a frame of one: SOP Instance UID and 1-based frame number; None for an image without frames.
Place = tuple[str, int | None]


@dataclass(frozen=True)
class Plane:
    """Where one image or frame lies."""

    position: NDArray[np.float64]  # centre of the first voxel, LPS mm
    orientation: NDArray[np.float64]  # direction cosines of a row, of a column
    spacing: NDArray[np.float64]  # between rows, between columns, mm
    frame_of_reference_uid: str


@dataclass(frozen=True)
class SourceImage:
    """One source Instance."""

    header: Dataset
    uid: str
    sop_class_uid: str
    series_uid: str
    rows: int
    columns: int
    frames: int | None  # None: one, or of a kind that has none
    counts_frames: bool  # whether it says how many frames it has, be it one

    def plane(self, frame_number: int | None) -> Plane | None:
        """Where it lies; None for one without a place in space."""
        header, measures = self.header, self.header
        position, orientation = header.get("ImagePositionPatient"), header.get("ImageOrientationPatient")
        groups = header.get("PerFrameFunctionalGroupsSequence")
        if groups and (frame_number is not None or self.frames is None):
            shared = (header.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]

            def macro(name: str) -> Dataset:
                return (groups[(frame_number or 1) - 1].get(name) or shared.get(name) or [Dataset()])[0]

            position = macro("PlanePositionSequence").get("ImagePositionPatient")
            orientation = macro("PlaneOrientationSequence").get("ImageOrientationPatient")
            measures = macro("PixelMeasuresSequence")
        spacing = measures.get("PixelSpacing")
        if not position or not orientation or not spacing:
            return None
        return Plane(_floats(position), _floats(orientation), _floats(spacing), _text(header, "FrameOfReferenceUID"))


@dataclass(frozen=True)
class InputImages:
    """All source images of a job."""

    by_uid: Mapping[str, SourceImage]
    first: Sequence[SourceImage]  # of every role
    _planes: dict[Place, Plane | None] = field(default_factory=dict)

    @classmethod
    def of(cls, sources: Mapping[str, Sequence[Dataset]]) -> "InputImages":
        """sources : role -> headers; an Instance may be given once per frame."""
        found: dict[str, SourceImage] = {}
        first = []
        seen: set[int] = set()
        for datasets in sources.values():
            for number, header in enumerate(datasets):
                if id(header) not in seen:
                    seen.add(id(header))
                    image = _image(header)
                    found.setdefault(image.uid, image)
                if number == 0:
                    first.append(found[_text(header, "SOPInstanceUID")])
        return cls(found, first)

    @cached_property
    def series(self) -> Mapping[str, Sequence[SourceImage]]:
        """Series Instance UID -> its images."""
        found: dict[str, list[SourceImage]] = {}
        for image in self.by_uid.values():
            found.setdefault(image.series_uid, []).append(image)
        return found

    @cached_property
    def uids(self) -> frozenset[str]:
        """Every UID by which a result may name them."""
        frames_of_reference = {_text(image.header, "FrameOfReferenceUID") for image in self.by_uid.values()}
        classes = {image.sop_class_uid for image in self.by_uid.values()}
        return frozenset(self.by_uid.keys() | self.series.keys() | frames_of_reference | classes)

    def known(self, place: Place) -> Place:
        """A place as `places` has it: whoever names frame 1 of an image with one frame means the image."""
        image = self.by_uid.get(place[0])
        return (place[0], None) if image is not None and image.frames is None and place[1] == 1 else place

    def plane(self, place: Place) -> Plane | None:
        """Where an image or frame lies; None for an unknown one, and for one without a place in space."""
        if place not in self._planes:
            image = self.by_uid.get(place[0])
            self._planes[place] = image.plane(place[1]) if image is not None else None
        return self._planes[place]

    def places(self, series_uid: str) -> list[Place]:
        """All images of a Series, or all of their frames."""
        return [
            (image.uid, number)
            for image in self.series.get(series_uid, ())
            for number in ([None] if image.frames is None else range(1, image.frames + 1))
        ]


def _image(header: Dataset) -> SourceImage:
    frames = int(header.get("NumberOfFrames") or 1)
    return SourceImage(
        header,
        _text(header, "SOPInstanceUID"),
        _text(header, "SOPClassUID"),
        _text(header, "SeriesInstanceUID"),
        int(header.get("Rows") or 0),
        int(header.get("Columns") or 0),
        frames if frames > 1 else None,
        "NumberOfFrames" in header,
    )


def _text(header: Dataset, keyword: str) -> str:
    return str(header.get(keyword) or "")


def _floats(values: Any) -> NDArray[np.float64]:
    return np.array([float(part) for part in values])
