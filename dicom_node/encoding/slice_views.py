"""The images of a short stack as small pictures, each with the map that belongs to it: for answers about images."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dicom_node.encoding.colours import Scale, scale_of
from dicom_node.encoding.segmentation import Segment
from dicom_node.encoding.sources import SourceImages
from dicom_node.encoding.views import View, bases_of, may_identify, view_of
from pipelines.findings import Findings

#: With more images than this the page shows a choice of them and a table.
MOST_SLICES = 12

_DIMMED = 0.35  # brightness of an image behind its map
_SIGNAL = 0.12  # of the brightest: less is air
_FILLED = 0.04  # of a row or column that must be more than air
_RIM = 0.02  # around the body, as a part of the image


class SliceViews(NamedTuple):
    """Pictures by statement: the image with its outlines, then the map if there is one."""

    pictures: tuple[tuple[View, ...], ...]
    names: tuple[str, ...]  # of what the pictures of each statement show
    scale: Scale | None  # of the map's colours
    may_identify: bool


def slice_views(
    findings: Findings, segments: Sequence[Segment], images: SourceImages, pixels: NDArray[Any] | None
) -> SliceViews | None:
    """Pictures of every image that something is stated of; None where that is not what the answer is about.

    segments, pixels : as `views.views_of` takes them.
    """
    statements = findings.images
    if findings.findings or findings.planar or not 0 < len(statements) <= MOST_SLICES:
        return None
    if pixels is None or not len(pixels) or not all(0 <= item.image < len(pixels) for item in statements):
        return None
    stated = {item.image for item in statements}
    if any(np.isfinite(one.values[index]).any() for one in findings.maps for index in {*range(len(pixels))} - stated):
        return None
    map_ = next((one for one in (*findings.shown, *findings.maps) if np.isfinite(one.values).any()), None)
    crop = _body(pixels)
    base = bases_of(images, pixels, [item.image for item in statements])
    scale = None if map_ is None else scale_of(map_)
    pictures = []
    for item in statements:
        found = [view_of(findings, segments, images, item.image, base[item.image], crop, None)]
        if map_ is not None and scale is not None:
            picture = _coloured(base[item.image], map_.values[item.image], scale)
            found.append(view_of(findings, segments, images, item.image, picture, crop, None))
        pictures.append(tuple(found))
    names = (findings.role.capitalize(), *((map_.label,) if map_ is not None else ()))
    return SliceViews(tuple(pictures), names, scale, may_identify(images, crop, pixels.shape[1:3]))


def _coloured(picture: NDArray[np.uint8], values: NDArray[np.float32], scale: Scale) -> NDArray[np.uint8]:
    """A map's own colours [row, column, 3]; where it has no value the image, dark."""
    coloured = (_DIMMED * picture).astype(np.uint8)
    valid = np.isfinite(values)
    coloured[valid] = scale.colours(values[valid])
    return coloured


def _body(pixels: NDArray[Any]) -> tuple[slice, slice]:
    """Rows and columns of the body on any of the images [image, row, column]; all where it does not stand out."""
    whole = slice(0, pixels.shape[1]), slice(0, pixels.shape[2])
    if pixels.ndim != 3:
        return whole
    finite = np.nan_to_num(pixels)
    bright = float(np.percentile(finite, 99))
    if bright <= 0 or finite.min() < 0:  # a phase or a wave image: noise all over
        return whole
    signal = (finite > _SIGNAL * bright).any(axis=0)
    sides = []
    for axis in (0, 1):
        filled = np.flatnonzero(signal.mean(axis=1 - axis) > _FILLED)
        length = signal.shape[axis]
        if filled.size < length // 4:
            return whole
        rim = round(_RIM * length)
        sides.append(slice(max(0, int(filled[0]) - rim), min(length, int(filled[-1]) + 1 + rim)))
    return sides[0], sides[1]
