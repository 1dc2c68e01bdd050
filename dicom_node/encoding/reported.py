"""What all documents of one answer are about, and which of its images are worth a look."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from pydicom import Dataset

from dicom_node.encoding import content
from dicom_node.encoding.header import plain
from dicom_node.encoding.outline import inner_point
from dicom_node.encoding.provenance import Provenance
from dicom_node.encoding.segmentation import Segment
from dicom_node.encoding.sources import InvalidResult, SourceImages, SourceSlice
from pipelines.findings import Findings


@dataclass(frozen=True)
class Mark:
    """A point on an image: where a viewer shows numbers that belong to no outline."""

    source: SourceSlice
    point: tuple[float, float]  # (column, row), pixels; (0, 0) is the top left corner of the image

    def item(self) -> Dataset:
        """The point as what a number is inferred from (PS3.16 TID 300)."""
        return content.graphic(
            "source", "POINT", np.asarray([self.point]), image_of(self.source), relationship="INFERRED FROM"
        )


@dataclass(frozen=True)
class Reported:
    """One answer with the images behind it."""

    findings: Findings
    segments: Sequence[Segment]  # of `findings`, as `segments_of` makes them
    images: SourceImages  # of findings.role; a SourceStack if anything was segmented
    sources: Mapping[str, Sequence[Dataset]]  # every input image of every role
    provenance: Provenance

    def __post_init__(self) -> None:
        single = [(item.tracking_id, item.image) for item in self.findings.planar]
        single += [(item.label, item.image) for item in self.findings.images]
        count = len(self.images.slices)
        for name, index in single:
            if not 0 <= index < count:
                raise InvalidResult(
                    f"{name}: role {self.findings.role!r} has {count} images; there is no index {index}."
                )
        names = [segment.tracking_id for segment in self.segments] + [name for name, _ in single]
        if len(set(names)) < len(names):  # those of one name would become one thing
            raise InvalidResult(f"Two findings or statements share a name: {', '.join(names)}.")

    @property
    def header(self) -> Dataset:
        """The image whose patient and study the documents carry."""
        return self.images.header

    @cached_property
    def by_name(self) -> Mapping[str, Segment]:
        """Segments by tracking identifier."""
        return {segment.tracking_id: segment for segment in self.segments}

    @cached_property
    def key_images(self) -> list[int]:
        """Indices of images worth a look: the largest slice of each finding, then those that a statement is about."""
        largest = [self.by_name[finding.tracking_id].largest_slice for finding in self.findings.findings]
        single = [item.image for item in self.findings.planar] + [item.image for item in self.findings.images]
        return list(dict.fromkeys([*largest, *single]))

    @cached_property
    def exam_mark(self) -> Mark:
        """Where numbers of the whole exam are shown: deep inside the liver, outside of its lesions.

        On the largest slice that shows nothing else, for texts on one image cover each other. Without a liver in the
        first finding, without that on the middle image.
        """
        taken = set(self.key_images)
        segment = next((item for item in self.segments if item.site is None), next(iter(self.segments), None))
        if segment is not None:
            free = [index for index in segment.slices if index not in taken] or segment.slices
            index = max(free, key=lambda item: (int(segment.slice_voxels[item]), -item))
            return Mark(self.images.slices[index], inner_point(segment.mask[index]))
        count = len(self.images.slices)
        index = min(range(count), key=lambda item: (item in taken, abs(item - count // 2)))
        source = self.images.slices[index]
        return Mark(source, _middle(source, apart=index in taken))

    def image_mark(self, index: int) -> Mark:
        """Where numbers of one image are shown: deep inside the liver if it was segmented there, else in the middle."""
        source = self.images.slices[index]
        liver = next(
            (item.mask[index] for item in self.segments if item.site is None and item.slice_voxels[index]), None
        )
        return Mark(source, _middle(source) if liver is None else inner_point(liver))

    def words(self, text: str) -> str:
        """A text such that the source's character set can hold it."""
        return plain(text, self.header)


def image_of(source: SourceSlice) -> Dataset:
    """The IMAGE that a graphic is drawn on (PS3.16 TID 1410, TID 320)."""
    frames = () if source.frame_number is None else (source.frame_number,)
    return content.image("source", source.sop_class_uid, source.sop_instance_uid, "SELECTED FROM", frames=frames)


def _middle(source: SourceSlice, apart: bool = False) -> tuple[float, float]:
    """Middle of an image; `apart`: above it, where something else is shown in the middle."""
    return source.columns / 2, source.rows / (4 if apart else 2)
