"""Where the pixels of a slice's images lie, and one role's image on another role's pixels."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipelines.inputs import MrePlane

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]


def pixel_mm2(plane: MrePlane) -> float:
    """Area of a pixel."""
    return plane.pixel_spacing_mm[0] * plane.pixel_spacing_mm[1]


def onto(image: NDArray, source: MrePlane, target: MrePlane, *, order: int = 1) -> Array:
    """An image [row, column] of `source` on the pixels of `target` in the same plane; 0 beyond it.

    order: of the spline; 0 for what must not be mixed.
    """
    if source == target:
        return np.asarray(image, np.float32)
    rows, columns = _index_of(source, target)
    return np.asarray(
        ndimage.map_coordinates(np.asarray(image, np.float32), [rows, columns], order=order, mode="constant"),
        np.float32,
    )


def _index_of(source: MrePlane, target: MrePlane) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Fractional row and column in `source` of every pixel of `target`, each [row, column]."""
    shift = np.asarray(target.origin_mm) - np.asarray(source.origin_mm)
    row, column = np.indices(target.shape, dtype=np.float64)
    down = np.asarray(target.column_direction) * target.pixel_spacing_mm[0]
    across = np.asarray(target.row_direction) * target.pixel_spacing_mm[1]
    return tuple(  # type: ignore[return-value]
        (float(shift @ way) + row * float(down @ way) + column * float(across @ way)) / spacing
        for way, spacing in zip(
            (np.asarray(source.column_direction), np.asarray(source.row_direction)),
            source.pixel_spacing_mm,
            strict=True,
        )
    )


@dataclass(frozen=True)
class Place:
    """LPS coordinates of every pixel of a plane, each [row, column] mm: x to the patient's left, y to the back."""

    x_mm: Array
    y_mm: Array


def place_of(plane: MrePlane) -> Place:
    """Coordinates of a plane's pixels."""
    row, column = np.indices(plane.shape, dtype=np.float32)
    x, y = (
        plane.origin_mm[axis]
        + row * plane.column_direction[axis] * plane.pixel_spacing_mm[0]
        + column * plane.row_direction[axis] * plane.pixel_spacing_mm[1]
        for axis in (0, 1)
    )
    return Place(np.asarray(x, np.float32), np.asarray(y, np.float32))


def inside_mm(mask: Mask, spacing_mm: tuple[float, float]) -> Array:
    """Distance (mm) of every pixel of a mask to its edge; the border of the image is one, for nothing is seen there."""
    padded = ndimage.distance_transform_edt(np.pad(mask, 1), sampling=spacing_mm)
    return np.asarray(padded[1:-1, 1:-1], np.float32)
