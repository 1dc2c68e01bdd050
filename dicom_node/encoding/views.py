"""The key images of an answer as small pictures: window, crop, outlines, colours of a map."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from scipy import ndimage

from dicom_node.encoding.colours import Scale, scale_of
from dicom_node.encoding.outline import outline
from dicom_node.encoding.segmentation import Segment, finding_colour
from dicom_node.encoding.sources import SourceImages, SourceStack
from dicom_node.encoding.window import to_grey, window_of
from dicom_node.encoding.wording import place_in_words
from pipelines.findings import Findings, Map

#: Most pictures on one page.
MAX_VIEWS = 6

_SHARE = 0.25  # a finding is shown by a slice that holds this part of the voxels of its largest one
_MARGIN = 0.12  # around what was found, as a part of its extent
_SMALLEST_CROP = 0.45  # of the image; less would not be recognised
_MAX_PARTS = 8  # of one segment on one slice that get an outline
_BLEND = 0.8  # weight of a map's colour over the image; less, and it is no longer that of the colour bar

Colour = tuple[int, int, int]


class Drawn(NamedTuple):
    """One closed line on a picture."""

    points: NDArray[np.float64]  # [point, (column, row)] pixels of the picture
    colour: Colour
    label: str  # "" for a region, which is drawn thin


@dataclass(frozen=True)
class View:
    """One picture."""

    index: int  # of the image among those of Findings.role
    caption: str
    pixels: NDArray[np.uint8]  # [row, column, 3]
    lines: tuple[Drawn, ...]
    row_height: float  # of a pixel, in pixel widths
    pixel_mm: float | None  # width of a pixel
    letters: tuple[str, str, str, str] | None  # patient directions of the left, right, top and bottom edge


@dataclass(frozen=True)
class Views:
    """The pictures, and what their colours mean."""

    views: tuple[View, ...] = ()
    scales: tuple[Scale, ...] = ()
    missing: int = 0  # findings that no picture shows
    may_identify: bool = False  # whether a picture may carry names that the source's device wrote into it


def views_of(
    findings: Findings, segments: Sequence[Segment], images: SourceImages, pixels: NDArray[Any] | None
) -> Views:
    """Up to MAX_VIEWS pictures: those that show most findings; for maps where they have most values.

    segments : of `findings`, as `segments_of` makes them.
    pixels : values after rescale [image, row, column], or RGB uint8 [image, row, column, 3]; None: no pictures.
    """
    if pixels is None or not len(pixels):
        return Views()
    maps = [map_ for map_ in findings.maps if np.isfinite(map_.values).any()][:MAX_VIEWS]
    chosen = _chosen(findings, segments, maps, len(pixels), MAX_VIEWS // max(1, len(maps)))
    if isinstance(images, SourceStack):
        crop = _crop(findings, segments, chosen, pixels.shape[1:3])
    else:
        crop = _device_region(images.header, pixels.shape[1:3])
    base = bases_of(images, pixels, chosen)
    scales = tuple(scale_of(map_) for map_ in maps)
    views = []
    for index in () if maps else chosen:
        views.append(view_of(findings, segments, images, index, base[index], crop, None))
    for map_, scale in zip(maps, scales, strict=True):
        for index in chosen:
            picture = _coloured(base[index], map_.values[index], scale)
            views.append(view_of(findings, segments, images, index, picture, crop, map_))
    missing = sum(not any(_touches(item, index) for index in chosen) for item in segments if item.site is not None)
    missing += sum(item.image not in chosen for item in findings.planar)
    return Views(tuple(views), scales, missing, bool(views) and may_identify(images, crop, pixels.shape[1:3]))


def _touches(segment: Segment, index: int) -> bool:
    return bool(segment.slice_voxels[index])


def _images_with_findings(findings: Findings, segments: Sequence[Segment]) -> dict[int, set[str]]:
    """Index of an image -> names of the findings that it shows well."""
    marked: dict[int, set[str]] = {}
    for segment in segments:
        if segment.site is not None:
            enough = max(1.0, _SHARE * float(segment.slice_voxels.max()))
            for index in np.flatnonzero(segment.slice_voxels >= enough).tolist():
                marked.setdefault(index, set()).add(segment.tracking_id)
    for finding in findings.planar:
        marked.setdefault(finding.image, set()).add(finding.tracking_id)
    return marked


def _chosen(findings: Findings, segments: Sequence[Segment], maps: Sequence[Map], count: int, limit: int) -> list[int]:
    """Indices of images to show, rising. The first finding's largest slice, then those with most that is not shown."""
    marked = _images_with_findings(findings, segments)
    first = [segment.largest_slice for segment in segments if segment.site is not None]
    first += [finding.image for finding in findings.planar]
    chosen: list[int] = []
    left = set().union(*marked.values()) if marked else set()
    while left and len(chosen) < limit:
        # of equals a finding's largest slice, in the order of the findings, then the lower index
        best = max(marked, key=lambda index: (len(marked[index] & left), index in first, -index))
        best = best if chosen else first[0]
        chosen.append(best)
        left -= marked[best]
    if not chosen and maps:
        chosen = _best_of_map(maps[0], limit)
    if not chosen and findings.images:
        chosen = list(dict.fromkeys(item.image for item in findings.images))[:limit]
    if not chosen:
        regions = [segment for segment in segments if segment.site is None]
        chosen = [regions[0].largest_slice if regions else count // 2]
    return sorted(chosen)


def _best_of_map(map_: Map, limit: int) -> list[int]:
    """Images spread over those where the map has at least half as many values as on its best one."""
    values = np.asarray([int(np.count_nonzero(np.isfinite(plane))) for plane in map_.values])
    good = np.flatnonzero(values >= 0.5 * values.max())
    places = np.linspace(0, len(good) - 1, min(limit, len(good))).round().astype(int)
    return [int(index) for index in good[places]]


def _crop(
    findings: Findings,
    segments: Sequence[Segment],
    chosen: Sequence[int],
    shape: tuple[int, ...],
) -> tuple[slice, slice]:
    """Rows and columns around all that was segmented or mapped on the pictures."""
    masks = [segment.mask[index] for segment in segments for index in chosen if segment.slice_voxels[index]]
    masks += [np.isfinite(map_.values[index]) for map_ in findings.maps for index in chosen]
    sides = []
    for axis, length in enumerate(shape):
        lines = [mask.any(axis=1 - axis) for mask in masks]
        touched = np.flatnonzero(np.logical_or.reduce(lines)) if lines else np.empty(0)
        if not touched.size:
            sides.append(slice(0, length))
            continue
        low, high = int(touched[0]), int(touched[-1]) + 1
        extent = max(round((high - low) * (1 + 2 * _MARGIN)), round(_SMALLEST_CROP * length))
        start = min(max(0, (low + high - extent) // 2), max(0, length - extent))
        sides.append(slice(start, min(length, start + extent)))
    return sides[0], sides[1]


def _device_region(header: Dataset, shape: tuple[int, ...]) -> tuple[slice, slice]:
    """Rows and columns of the two-dimensional ultrasound regions (PS3.3 C.8.5.5.1.1); the whole image without them."""
    keywords = ("RegionLocationMinY0", "RegionLocationMaxY1", "RegionLocationMinX0", "RegionLocationMaxX1")
    corners = [
        tuple(int(item.get(keyword)) for keyword in keywords)
        for item in header.get("SequenceOfUltrasoundRegions") or ()
        if item.get("RegionSpatialFormat", 1) == 1 and all(item.get(keyword) is not None for keyword in keywords)
    ]
    if not corners:
        return slice(0, shape[0]), slice(0, shape[1])
    top, bottom = max(0, min(part[0] for part in corners)), min(shape[0], max(part[1] for part in corners) + 1)
    left, right = max(0, min(part[2] for part in corners)), min(shape[1], max(part[3] for part in corners) + 1)
    if bottom - top < 2 or right - left < 2:
        return slice(0, shape[0]), slice(0, shape[1])
    return slice(top, bottom), slice(left, right)


def may_identify(images: SourceImages, crop: tuple[slice, slice], shape: tuple[int, ...]) -> bool:
    """Whether to declare the pictures as possibly carrying a name: what the source says of itself, else by its kind."""
    stated = images.header.get("BurnedInAnnotation")
    if stated in ("YES", "NO"):
        return bool(stated == "YES")
    whole = (crop[0].stop - crop[0].start, crop[1].stop - crop[1].start) == tuple(shape)
    return not isinstance(images, SourceStack) and whole


def bases_of(images: SourceImages, pixels: NDArray[Any], chosen: Sequence[int]) -> dict[int, NDArray[np.uint8]]:
    """Index of an image -> the image as [row, column, 3]; one window for all, so that they can be compared."""
    if pixels.ndim == 4:
        return {index: np.asarray(pixels[index], dtype=np.uint8) for index in chosen}
    shown = pixels[list(chosen)]
    grey = to_grey(shown, window_of(images.header, shown))
    return {index: np.repeat(plane[:, :, None], 3, axis=2) for index, plane in zip(chosen, grey, strict=True)}


def _coloured(picture: NDArray[np.uint8], values: NDArray[np.float32], scale: Scale) -> NDArray[np.uint8]:
    """The image with the map's colours where it has values [row, column]."""
    valid = np.isfinite(values)
    colours = scale.colours(values[valid])
    blended = picture.copy()
    blended[valid] = (_BLEND * colours + (1 - _BLEND) * picture[valid]).round().astype(np.uint8)
    return blended


def view_of(
    findings: Findings,
    segments: Sequence[Segment],
    images: SourceImages,
    index: int,
    picture: NDArray[np.uint8],
    crop: tuple[slice, slice],
    map_: Map | None,
) -> View:
    corner = np.asarray([crop[1].start, crop[0].start])
    lines = []
    for segment in sorted(segments, key=lambda item: item.site is not None):  # findings over regions
        if segment.slice_voxels[index]:
            label = segment.tracking_id if segment.site is not None else ""
            for part, points in enumerate(_outlines(segment.mask[index])):
                lines.append(Drawn(points - corner, segment.colour, label if part == 0 else ""))
    for finding in findings.planar:
        if finding.image == index:
            lines.append(Drawn(finding.outline - corner, finding_colour(finding), finding.tracking_id))
    row_height, pixel_mm, letters = 1.0, None, None
    if isinstance(images, SourceStack):
        row_mm, pixel_mm = (float(part) for part in images.pixel_spacing)
        row_height = row_mm / pixel_mm
        letters = patient_directions([float(part) for part in images.orientation])
    caption = _caption(images, index)
    return View(
        index=index,
        caption=caption if map_ is None else f"{map_.label}, {caption}",
        pixels=np.ascontiguousarray(picture[crop]),
        lines=tuple(lines),
        row_height=row_height,
        pixel_mm=pixel_mm,
        letters=letters,
    )


def _outlines(mask: NDArray[np.bool_]) -> list[NDArray[np.float64]]:
    """Closed lines around the parts of a mask, the largest first."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, left = int(rows[0]), int(columns[0])
    labels, count = ndimage.label(mask[top : rows[-1] + 1, left : columns[-1] + 1])
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    largest = np.argsort(-sizes, kind="stable")[:_MAX_PARTS]
    corner = np.asarray([left, top])
    return [outline(labels == 1 + int(part), None) + corner for part in largest]


def _caption(images: SourceImages, index: int) -> str:
    """Where a reader finds the image: its number, and its height along the axis nearest to the normal."""
    source = images.slices[index]
    words = place_in_words(source) or f"{index + 1} of {len(images.slices)}"
    if isinstance(images, SourceStack) and source.position is not None:
        cosines = np.asarray([float(part) for part in images.orientation])
        axis = int(np.argmax(np.abs(np.cross(cosines[:3], cosines[3:]))))
        words += f", {'xyz'[axis]} {source.point[axis]:.1f} mm"
    return words


def patient_directions(orientation: Sequence[float]) -> tuple[str, str, str, str]:
    """Letters of the left, right, top and bottom edge of an image (PS3.3 C.7.6.1.1.1), the main direction first.

    orientation : Image Orientation (Patient): cosines of the row, then of the column direction.
    """

    def letters(direction: NDArray[np.float64]) -> str:
        order = np.argsort(-np.abs(direction), kind="stable")
        return "".join(
            "RAF"[axis] if direction[axis] < 0 else "LPH"[axis] for axis in order[:2] if abs(direction[axis]) > 0.35
        )

    row, column = np.asarray(orientation[:3]), np.asarray(orientation[3:])
    return letters(-row), letters(row), letters(-column), letters(column)
