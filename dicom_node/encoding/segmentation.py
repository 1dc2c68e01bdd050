"""Masks -> a BINARY Segmentation on the grid of the source images (PS3.3 A.51, C.8.20).

The liver's Segment leaves out its lesions and says so: the cornerstone adapters recover no voxel of overlapping
Segments. Findings keep all of their voxels, so that each Segment gives the very volume that the SR states.

Frames exist only where a Segment has voxels. They are written here rather than by highdicom.seg.Segmentation, which
needs one label map (no overlap) or one array per Segment (a gigabyte for fifty findings), and stamps random UIDs and
the time of day.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import SegmentationStorage

from dicom_node.encoding.concepts import concept, is_own
from dicom_node.encoding.frames import (
    POSITION_INDEX,
    SEGMENT_INDEX,
    Frame,
    add_dimensions,
    add_frames,
    add_lossy_flags,
    add_references,
    shared_groups,
)
from dicom_node.encoding.header import add_frame_of_reference, new_object, plain, series_description, shortened
from dicom_node.encoding.provenance import Provenance
from dicom_node.encoding.sources import InvalidResult, SourceStack
from pipelines.findings import Finding, Findings, PlanarFinding, Region

# sRGB, 0-255. Red for what must not be missed; the liver pale, so that lesions stand out on it.
_COLOURS = {
    "malignant": (230, 40, 40),
    "benign": (60, 200, 90),
    "finding": (250, 150, 30),
    "region": (120, 150, 200),
}
#: Regions that are no organ but a part of one that a measurement was made on -> the organ.
_AREAS_OF = {"measured_area": "liver"}


@dataclass(frozen=True)
class Segment:
    """One Segment with the slices that it touches."""

    number: int
    label: str  # what the viewer lists: "Lesion 1 malignant 87 %"
    tracking_id: str
    tracking_uid: str
    concept: str
    site: str | None  # None for a region, which is its own site
    colour: tuple[int, int, int]
    mask: NDArray[np.bool_]  # [slice, row, column]
    slice_voxels: NDArray[np.int64]  # [slice]

    @property
    def voxels(self) -> int:
        """Number of voxels."""
        return int(self.slice_voxels.sum())

    @property
    def slices(self) -> list[int]:
        """Indices of the slices with voxels, rising."""
        return [int(index) for index in np.flatnonzero(self.slice_voxels)]

    @property
    def largest_slice(self) -> int:
        """Index of the slice with most voxels; of equals the first."""
        return int(np.argmax(self.slice_voxels))


def segments_of(findings: Findings, shape: tuple[int, int, int], provenance: Provenance) -> list[Segment]:
    """Segments of all findings, in their order, then of all regions that are not empty.

    Findings come first, so that Segment 1 is Lesion 1. Raises InvalidResult for a mask of another shape than the
    source's (slice, row, column), an empty finding, or a name used twice.
    """
    segments = [
        _segment(
            number,
            _label(finding),
            finding.tracking_id,
            finding.concept,
            finding.site,
            finding_colour(finding),
            finding.mask,
            shape,
            provenance,
        )
        for number, finding in enumerate(findings.findings, start=1)
    ]
    empty = [segment.tracking_id for segment in segments if segment.voxels == 0]
    if empty:
        raise InvalidResult(f"Findings without a voxel: {', '.join(empty)}.")
    found = tuple(segments)
    for region in findings.regions:
        name, mask = _without_findings(region, found, shape)
        segment = _segment(
            len(segments) + 1, name, name, region.concept, None, _COLOURS["region"], mask, shape, provenance
        )
        if segment.voxels:
            segments.append(segment)
    names = [segment.tracking_id for segment in segments]
    if len(set(names)) < len(names):
        raise InvalidResult(f"Two findings or regions share a name: {', '.join(names)}.")
    return segments


def segmentation(
    segments: Sequence[Segment], stack: SourceStack, provenance: Provenance, *, omit_empty_frames: bool = True
) -> Dataset:
    """The SEG of these Segments, ready to be written.

    segments : at least one, each with voxels; masks [slice, row, column] on the grid of `stack`.
    omit_empty_frames : frames only where a Segment has voxels; False: every Segment has a frame on every slice, which
        some viewers need. The two are different objects with different UIDs.
    """
    role = "seg" if omit_empty_frames else "seg all frames"
    dataset = new_object(
        str(SegmentationStorage),
        "SEG",
        stack.header,
        provenance,
        role=role,
        series_number=provenance.segmentation_series_number,
        series_description=series_description(provenance),
        own_codes=any(is_own(key) for segment in segments for key in (segment.concept, segment.site)),
    )
    add_segmentation_image(dataset, segments, stack, provenance)
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 1, 1, 0
    dataset.SegmentationType = "BINARY"
    dataset.SegmentsOverlap = "YES" if overlap(segments, stack.shape) else "NO"
    add_dimensions(dataset, provenance, role, (SEGMENT_INDEX, POSITION_INDEX))
    everywhere = range(len(stack.slices))
    frames = [
        (segment, index) for segment in segments for index in (segment.slices if omit_empty_frames else everywhere)
    ]
    add_frames(
        dataset,
        [Frame(index, (segment.number,), segment.number) for segment, index in frames],
        stack,
        "segmentation",
    )
    dataset.PixelData = _packed([segment.mask[index] for segment, index in frames])
    dataset["PixelData"].VR = "OB"
    return dataset


def add_segmentation_image(
    dataset: Dataset, segments: Sequence[Segment], stack: SourceStack, provenance: Provenance
) -> None:
    """What BINARY and LABELMAP have in common (PS3.3 C.8.20.2)."""
    add_frame_of_reference(dataset, stack)
    dataset.ImageType = ["DERIVED", "PRIMARY"]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns, dataset.PixelRepresentation = stack.rows, stack.columns, 0
    add_lossy_flags(dataset, stack.header)
    dataset.ContentLabel = "AI_SEGMENTATION"
    dataset.ContentDescription = content_description(provenance)
    dataset.ContentCreatorName = "AI^dicom-node"
    dataset.SegmentSequence = [_segment_item(segment, stack, provenance) for segment in segments]
    add_references(dataset, stack)
    dataset.SharedFunctionalGroupsSequence = [shared_groups(stack)]


def content_description(provenance: Provenance) -> str:
    """Content Description (0070,0081), a line in lists of presentation states and segmentations."""
    return (
        "Research use; trained on simulated data" if provenance.is_trained_on_simulation else "Research use; unverified"
    )


def _segment(
    number: int,
    label: str,
    tracking_id: str,
    concept_key: str,
    site: str | None,
    colour: tuple[int, int, int],
    mask: NDArray[np.bool_],
    shape: tuple[int, int, int],
    provenance: Provenance,
) -> Segment:
    if mask.shape != shape:
        raise InvalidResult(
            f"{tracking_id}: the mask has {mask.shape} slices, rows, columns; its source images have {shape}."
        )
    mask = mask if mask.dtype == np.bool_ else mask != 0
    return Segment(
        number=number,
        label=label,
        tracking_id=tracking_id,
        tracking_uid=provenance.tracking_uid(tracking_id),
        concept=concept_key,
        site=site,
        colour=colour,
        mask=mask,
        slice_voxels=np.asarray([int(np.count_nonzero(plane)) for plane in mask], dtype=np.int64),
    )


def _without_findings(
    region: Region, found: Sequence[Segment], shape: tuple[int, int, int]
) -> tuple[str, NDArray[np.bool_]]:
    """Name and mask of a region less the voxels of the findings."""
    if region.mask.shape != shape:
        return region.label, region.mask  # refused with its name by the caller
    mask, name = region.mask != 0, region.label
    for segment in found:
        for index in segment.slices:
            common = mask[index] & segment.mask[index]
            if common.any():
                mask[index] ^= common
                name = f"{region.label} without lesions"
    return name, mask


def _label(finding: Finding) -> str:
    """Name of a finding in a list of Segments, where no number is shown beside it."""
    statement = _malignancy(finding)
    percent = next((item.value for item in finding.measurements if item.concept == "malignant_probability"), None)
    label = finding.tracking_id
    if statement:
        label += f" {concept(statement).meaning.lower()}"
    if percent is not None:
        label += f" ({_percent(percent)} malignant)" if statement != "malignant" else f" {_percent(percent)}"
    return label


def _percent(value: float) -> str:
    if value > 99:
        return ">99 %"
    return "<1 %" if value < 1 else f"{value:.0f} %"


def _malignancy(finding: Finding | PlanarFinding) -> str | None:
    return next((item.value for item in finding.evaluations if item.concept == "malignancy"), None)


def finding_colour(finding: Finding | PlanarFinding) -> tuple[int, int, int]:
    """Colour of a finding in every picture, sRGB 0 to 255."""
    return _COLOURS.get(_malignancy(finding) or "", _COLOURS["finding"])


def overlap(segments: Sequence[Segment], shape: tuple[int, int, int]) -> bool:
    """Whether any voxel belongs to two Segments."""
    for index in range(shape[0]):
        planes = [segment.mask[index] for segment in segments if segment.slice_voxels[index]]
        if len(planes) > 1:
            union = np.logical_or.reduce(planes)
            if np.count_nonzero(union) < sum(int(segment.slice_voxels[index]) for segment in segments):
                return True
    return False


def _segment_item(segment: Segment, stack: SourceStack, provenance: Provenance) -> Dataset:
    category = "anatomical_structure" if segment.site is None else "abnormal_structure"
    site = segment.site
    if segment.concept in _AREAS_OF:
        category, site = "spatial_concept", _AREAS_OF[segment.concept]
    return hd.seg.SegmentDescription(
        segment_number=segment.number,
        segment_label=shortened(plain(segment.label, stack.header), 64),
        segmented_property_category=concept(category).code,
        segmented_property_type=concept(segment.concept).code,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=provenance.pipeline,
            family=concept("artificial_intelligence").code,
            version=provenance.version,
            source="dicom-node",
            parameters={
                f"bundle {bundle.name}": f"{bundle.version} sha256:{bundle.sha256}" for bundle in provenance.bundles
            }
            or None,
        ),
        tracking_uid=segment.tracking_uid,
        tracking_id=shortened(plain(segment.tracking_id, stack.header), 64),
        anatomic_regions=[concept(site).code] if site else None,
        display_color=hd.color.CIELabColor.from_rgb(*segment.colour),
    )


def _packed(planes: Sequence[NDArray[np.bool_]]) -> bytes:
    """Bits of all frames without a gap between them, lowest bit first (PS3.5 8.1.1), even length."""
    if planes[0].size % 8 == 0:
        data = b"".join(np.packbits(plane, bitorder="little").tobytes() for plane in planes)
    else:
        data = np.packbits(np.stack(planes), bitorder="little").tobytes()
    return data if len(data) % 2 == 0 else data + b"\0"
