"""Working grids: axis-aligned in LPS, so that a network always sees the same side up, and the ways to and from them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import highdicom as hd
import numpy as np
import SimpleITK as sitk  # noqa: N813 - its own documentation's name
from numpy.typing import NDArray

#: HU outside of the images.
AIR_HU = -1024.0


@dataclass(frozen=True)
class Grid:
    """A regular grid along the patient axes: slice index rises to the head, row to the back, column to the left."""

    origin_mm: tuple[float, float, float]  # LPS (x, y, z) of the centre of voxel [0, 0, 0]
    spacing_mm: tuple[float, float, float]  # (slice, row, column)
    shape: tuple[int, int, int]  # (slice, row, column)

    @property
    def voxel_mm3(self) -> float:
        """Volume of one voxel."""
        return float(np.prod(self.spacing_mm))

    def positions_mm(self, indices: NDArray[np.floating] | NDArray[np.integer]) -> NDArray[np.float64]:
        """[n, 3] indices (slice, row, column) -> [n, 3] LPS mm (x, y, z)."""
        steps = np.asarray(indices, dtype=np.float64) * self.spacing_mm
        return np.asarray(self.origin_mm) + steps[:, ::-1]

    def sub(self, low: Sequence[int], high: Sequence[int]) -> "Grid":
        """The part from index `low` to before `high`, both (slice, row, column)."""
        origin = self.positions_mm(np.asarray([low], dtype=np.float64))[0]
        shape = tuple(int(b) - int(a) for a, b in zip(low, high, strict=True))
        return Grid((origin[0], origin[1], origin[2]), self.spacing_mm, (shape[0], shape[1], shape[2]))


def image_of(volume: hd.Volume) -> sitk.Image:
    """The volume as a SimpleITK image with the same geometry; x runs along the columns. Copies the voxels."""
    image = sitk.GetImageFromArray(volume.array)
    affine = volume.affine
    axes = affine[:3, [2, 1, 0]]
    spacing = np.linalg.norm(axes, axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((axes / spacing).ravel().tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    return image


def image_on(grid: Grid, array: NDArray[Any]) -> sitk.Image:
    """An array [slice, row, column] on a working grid as a SimpleITK image."""
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(grid.spacing_mm[::-1])
    image.SetOrigin(grid.origin_mm)
    return image


def grid_over(volume: hd.Volume, spacing_mm: tuple[float, float, float]) -> Grid:
    """The working grid of this spacing that covers the volume.

    It starts on the voxel of the volume that lies farthest to the right, front and feet, so that a grid of the
    volume's own spacing meets its voxels and nothing is blurred without need.
    """
    positions = volume.map_indices_to_reference(_corners(volume.spatial_shape))
    low, high = positions.min(axis=0), positions.max(axis=0)
    steps = np.floor((high - low) / np.asarray(spacing_mm[::-1]) + 1e-3).astype(int) + 1
    return Grid((low[0], low[1], low[2]), spacing_mm, (int(steps[2]), int(steps[1]), int(steps[0])))


def crop_around(grid: Grid, mask: NDArray[np.bool_], margin_mm: float) -> Grid:
    """The part of the grid that holds a non-empty mask [slice, row, column] with a margin."""
    margin = np.ceil(margin_mm / np.asarray(grid.spacing_mm)).astype(int)
    low, high = bounds(mask)
    return grid.sub(np.maximum(low - margin, 0).tolist(), np.minimum(high + margin, grid.shape).tolist())


def bounds(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Index box of a non-empty mask: lowest index, and one past the highest, each (slice, row, column)."""
    low, high = [], []
    for axis in range(3):
        hit = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        low.append(hit[0])
        high.append(hit[-1] + 1)
    return np.asarray(low, dtype=np.int64), np.asarray(high, dtype=np.int64)


def refined(grid: Grid, spacing_mm: tuple[float, float, float], anchor: Grid) -> Grid:
    """The grid of another spacing over the same box, on the lattice that starts at the anchor's origin."""
    step = np.asarray(spacing_mm[::-1])
    low = np.asarray(grid.origin_mm)
    high = low + (np.asarray(grid.shape[::-1]) - 1) * np.asarray(grid.spacing_mm[::-1])
    start = np.floor((low - anchor.origin_mm) / step + 1e-3)
    origin = np.asarray(anchor.origin_mm) + start * step
    steps = np.ceil((high - origin) / step - 1e-3).astype(int) + 1
    return Grid((origin[0], origin[1], origin[2]), spacing_mm, (int(steps[2]), int(steps[1]), int(steps[0])))


def onto(
    image: sitk.Image,
    grid: Grid,
    transform: sitk.Transform | None = None,
    *,
    outside: float = AIR_HU,
    reach_mm: float = 0.0,
) -> NDArray[np.float32]:
    """Resample an image onto a working grid, averaging where the grid is coarser than the image.

    transform : maps points of the grid to points of the image; None: the same patient coordinates.
    outside : value where the image does not reach.
    reach_mm : how far the transform may move a point; the image is cropped that much wider.
    Returns float32 [slice, row, column].

    Averaging is over one target voxel: whole blocks first, then a Gaussian of the remaining variance
    (t^2 - s^2)/12 for a target spacing t and image spacing s. Point samples would carry the noise of single voxels.
    """
    part = _cropped(image, grid, reach_mm)
    if part is None:
        return np.full(grid.shape, outside, dtype=np.float32)
    image = part
    target = _along_axes(image, grid.spacing_mm)
    factors = [max(1, int(t / s + 1e-3)) for t, s in zip(target, image.GetSpacing(), strict=True)]
    factors = [min(f, n) for f, n in zip(factors, image.GetSize(), strict=True)]
    if any(factor > 1 for factor in factors):
        image = sitk.BinShrink(image, factors)
    variances = [max(0.0, t * t - s * s) / 12 for t, s in zip(target, image.GetSpacing(), strict=True)]
    if any(v > (0.2 * s) ** 2 for v, s in zip(variances, image.GetSpacing(), strict=True)):
        image = sitk.DiscreteGaussian(sitk.Cast(image, sitk.sitkFloat32), variances, 32, 0.02, True)
    resample = sitk.ResampleImageFilter()
    resample.SetSize(grid.shape[::-1])
    resample.SetOutputSpacing(grid.spacing_mm[::-1])
    resample.SetOutputOrigin(grid.origin_mm)
    resample.SetInterpolator(sitk.sitkLinear)
    resample.SetDefaultPixelValue(outside)
    resample.SetOutputPixelType(sitk.sitkFloat32)
    if transform is not None:
        resample.SetTransform(transform)
    return np.asarray(sitk.GetArrayFromImage(resample.Execute(image)), dtype=np.float32)


def back_onto(reference: sitk.Image, grid: Grid, array: NDArray[Any], *, nearest: bool = False) -> NDArray[Any]:
    """An array on a working grid -> the grid of `reference`, linear or nearest; 0 where the working grid ends."""
    image = image_on(grid, array)
    interpolator = sitk.sitkNearestNeighbor if nearest else sitk.sitkLinear
    out: NDArray[Any] = sitk.GetArrayFromImage(
        sitk.Resample(image, reference, sitk.Transform(), interpolator, 0.0, image.GetPixelID())
    )
    return out


def region_of(image: sitk.Image, grid: Grid, margin: int = 1) -> tuple[slice, slice, slice] | None:
    """Index box (slice, row, column) of the image that covers the grid, or None where they do not meet."""
    ends = np.asarray(grid.shape) - 1
    corners = np.asarray(
        [[i, j, k] for i in (0, ends[0]) for j in (0, ends[1]) for k in (0, ends[2])], dtype=np.float64
    )
    points = [image.TransformPhysicalPointToContinuousIndex(tuple(p)) for p in grid.positions_mm(corners).tolist()]
    size = np.asarray(image.GetSize())
    low = np.maximum(np.floor(np.min(points, axis=0) + 1e-6).astype(int) - margin, 0)
    high = np.minimum(np.ceil(np.max(points, axis=0) - 1e-6).astype(int) + 1 + margin, size)
    if np.any(high <= low):
        return None
    x, y, z = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    return z, y, x


def cut(image: sitk.Image, box: tuple[slice, slice, slice]) -> sitk.Image:
    """The part of an image in an index box (slice, row, column); the image itself where that is all of it."""
    size, start = [part.stop - part.start for part in box[::-1]], [part.start for part in box[::-1]]
    return image if tuple(size) == image.GetSize() else sitk.RegionOfInterest(image, size, start)


def _corners(shape: Sequence[int]) -> NDArray[np.int64]:
    ends = [(0, size - 1) for size in shape]
    return np.asarray(np.meshgrid(*ends, indexing="ij"), dtype=np.int64).reshape(3, 8).T


def _cropped(image: sitk.Image, grid: Grid, reach_mm: float) -> sitk.Image | None:
    reach = reach_mm + max(grid.spacing_mm)
    wider = np.ceil(reach / np.asarray(grid.spacing_mm)).astype(int)
    box = region_of(image, grid.sub((-wider).tolist(), (np.asarray(grid.shape) + wider).tolist()))
    return None if box is None else cut(image, box)


def _along_axes(image: sitk.Image, spacing_mm: tuple[float, float, float]) -> list[float]:
    """The grid's spacing (slice, row, column) seen along the image's axes (x, y, z)."""
    direction = np.abs(np.asarray(image.GetDirection()).reshape(3, 3))
    return [float(spacing_mm[::-1][int(np.argmax(direction[:, axis]))]) for axis in range(3)]
