"""Sizes and places of masks, on the grid of the source images and in patient coordinates."""

from contextlib import suppress

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull, QhullError
from scipy.spatial.distance import pdist

from pipelines.ct_lesion.grid import bounds

Offset = tuple[int, int, int]


def volume_mm3(mask: NDArray[np.bool_], volume: hd.Volume) -> float:
    """Voxels of the mask times the volume of one voxel of the grid."""
    return float(mask.sum()) * float(np.prod(volume.spacing))


def long_axis_mm(mask: NDArray[np.bool_], volume: hd.Volume) -> float:
    """Longest in-plane diameter over all slices, mm.

    mask : [slice, row, column], not empty; any part of the volume's grid.
    The diameter of a slice is the largest distance between two points of its outline; the outline runs through the
    middles of the voxels' outer sides, so that a disc of radius r measures 2 r.
    """
    row_mm, column_mm = volume.spacing[1], volume.spacing[2]
    longest = 0.0
    for plane in mask:
        if plane.any():
            longest = max(longest, _diameter(plane, row_mm, column_mm))
    return longest


def centre_mm(mask: NDArray[np.bool_], volume: hd.Volume, offset: Offset = (0, 0, 0)) -> tuple[float, float, float]:
    """Centroid of the mask, LPS mm.

    offset : index in the volume of the mask's voxel [0, 0, 0].
    """
    x, y, z = _to_lps(np.argwhere(mask).mean(axis=0)[np.newaxis] + offset, volume)[0].tolist()
    return x, y, z


def box_mm(
    mask: NDArray[np.bool_], volume: hd.Volume, offset: Offset = (0, 0, 0)
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Smallest box along the patient axes that holds the mask's voxels whole: (lowest, highest) LPS mm."""
    low, high = bounds(mask)
    if _is_along_axes(volume):
        indices = np.asarray([low - 0.5, high - 0.5])
    else:
        inside = np.argwhere(mask)
        indices = np.concatenate([inside + step for step in _HALF_STEPS])
    points = _to_lps(indices + np.asarray(offset), volume)
    (x0, y0, z0), (x1, y1, z1) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    return (x0, y0, z0), (x1, y1, z1)


_HALF_STEPS = np.asarray([[i, j, k] for i in (-0.5, 0.5) for j in (-0.5, 0.5) for k in (-0.5, 0.5)])


def _diameter(plane: NDArray[np.bool_], row_mm: float, column_mm: float) -> float:
    inside = np.argwhere(plane)
    sides = np.concatenate([inside + step for step in ((0.5, 0), (-0.5, 0), (0, 0.5), (0, -0.5))])
    points = sides * (row_mm, column_mm)
    with suppress(QhullError):  # points in one line have no hull
        points = points[ConvexHull(points).vertices]
    return float(pdist(points).max())


def _to_lps(indices: NDArray[np.float64], volume: hd.Volume) -> NDArray[np.float64]:
    affine = volume.affine
    out: NDArray[np.float64] = indices @ affine[:3, :3].T + affine[:3, 3]
    return out


def _is_along_axes(volume: hd.Volume) -> bool:
    direction = np.abs(np.asarray(volume.direction))
    return bool(np.all((direction < 1e-6) | (direction > 1 - 1e-6)))
