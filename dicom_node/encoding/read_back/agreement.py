"""Whether report and segmentation tell the same story: what no validator looks at, and what catches a flipped mask."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from dicom_node.encoding.concepts import CUBIC_MILLIMETRES
from dicom_node.encoding.read_back import tree
from dicom_node.encoding.read_back.opened import Opened
from dicom_node.encoding.read_back.segmentation import ReadSegmentation
from dicom_node.encoding.read_back.tree import Group

#: Of another's objects, whose outlines may be drawn by other conventions than ours.
LOOSE_VOLUME, LOOSE_PIXELS = 0.05, 3
#: Of our own: volumes are the voxels', rounded; outlines run along the edges of voxels.
OWN_VOLUME, OWN_PIXELS = 0.01, 0


def check_agreement(
    report: Opened,
    groups: Sequence[Group],
    segmentations: Mapping[str, ReadSegmentation],
    *,
    volume_tolerance: float,
    pixel_tolerance: int,
) -> None:
    """Segments referred to are those of the finding, outlines lie in them, volumes are theirs. Raises InvalidResult.

    segmentations : SOP Instance UID -> SEG of the set.
    volume_tolerance : as a fraction. pixel_tolerance : how far a graphic may leave its Segment, pixels.
    """
    for group in groups:
        for uid, segment in group.segments:
            referred = segmentations.get(uid)
            if referred is None:
                raise report.fault(f"refers to Segment {segment} of {uid}, which is no SEG that leaves with it.")
            item = referred.segments.get(segment)
            if item is None:
                raise report.fault(f"refers to Segment {segment} of {uid}, which has {sorted(referred.segments)}.")
            if item.has("TrackingUID") and item.text("TrackingUID") != group.tracking_uid:
                raise report.fault(
                    f"the group of {group.tracking_uid} refers to Segment {segment}, which is that of "
                    f"{item.text('TrackingUID')}."
                )
        for found in segmentations.values():
            number = found.tracked.get(group.tracking_uid)
            if number is None:
                continue
            if found.segments[number].raw("TrackingID") != group.tracking_identifier:
                raise report.fault(f"{group.tracking_uid} has another Tracking Identifier in the report than in a SEG.")
            _check_graphics(report, group, found, number, pixel_tolerance)
            _check_volume(report, group, found, number, volume_tolerance)


def _check_graphics(report: Opened, group: Group, found: ReadSegmentation, number: int, tolerance: int) -> None:
    series = {place[0] for place in found.places}
    for graphic in group.graphics:
        if graphic.place is None or (graphic.place[0] not in series and not graphic.is_region):
            continue
        mask = found.mask(number, graphic.place)
        if mask is None or not _touches(graphic.outline, mask, tolerance):
            raise report.fault(
                f"the {graphic.kind} of {group.tracking_uid} on Instance {graphic.place[0]} leaves Segment {number}, "
                "which has the same Tracking UID."
            )


def _check_volume(report: Opened, group: Group, found: ReadSegmentation, number: int, tolerance: float) -> None:
    voxels_mm3 = found.voxels[number] * found.voxel_mm3
    for content in group.numbers:
        measured = content.item.first("MeasuredValueSequence")
        scale = CUBIC_MILLIMETRES.get(measured.code("MeasurementUnitsCodeSequence")[1])
        if content.name != tree.VOLUME or scale is None:
            continue
        value = float(measured.numbers("NumericValue")[0])
        decimals = 0 if value.is_integer() else len(measured.text("NumericValue").partition(".")[2])
        stated_mm3, last_digit = value * scale, scale * 10.0**-decimals
        if not abs(stated_mm3 - voxels_mm3) <= max(tolerance * voxels_mm3, 0.51 * last_digit):
            raise report.fault(
                f"the volume of {group.tracking_uid} is {stated_mm3:.1f} mm3; the {found.voxels[number]} voxels of its "
                f"Segment are {voxels_mm3:.1f} mm3."
            )


def _touches(points: NDArray[np.float64], mask: NDArray[np.bool_], tolerance: int) -> bool:
    """Whether every point touches a voxel of the mask, or one no more than `tolerance` pixels away."""
    reach = tolerance + 1
    near = np.pad(mask, reach)
    for _ in range(tolerance):
        grown = near.copy()
        for axis, shift in ((0, 1), (0, -1), (1, 1), (1, -1)):
            grown |= np.roll(near, shift, axis)
        near = grown
    columns, rows = points.T
    touches = np.zeros(len(points), dtype=bool)
    for shift_column in (-1e-3, 1e-3):  # a point on an edge touches the pixels on both sides
        for shift_row in (-1e-3, 1e-3):
            row = np.clip(np.floor(rows + shift_row).astype(int) + reach, 0, near.shape[0] - 1)
            column = np.clip(np.floor(columns + shift_column).astype(int) + reach, 0, near.shape[1] - 1)
            touches |= near[row, column]
    return bool(touches.all())
