"""Grids in patient millimetres, smooth random fields on them, and soft-edged shapes.

Axes are [slice, row, column] = (z, y, x); z grows towards the head, y towards the back, x to the patient's left (LPS).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Triple = tuple[float, float, float]
Window = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Grid:
    """A regular axial grid; `origin_mm` is the centre of voxel (0, 0, 0) as (z, y, x)."""

    shape: tuple[int, int, int]
    spacing_mm: Triple
    origin_mm: Triple

    @classmethod
    def centred(cls, shape: tuple[int, int, int], spacing_mm: Triple) -> "Grid":
        """Grid whose middle is the patient's origin."""
        z, y, x = (-(n - 1) * s / 2 for n, s in zip(shape, spacing_mm, strict=True))
        return cls(shape, spacing_mm, (z, y, x))

    @property
    def voxel_mm3(self) -> float:
        return float(np.prod(self.spacing_mm))

    def axes(self) -> tuple[Array, Array, Array]:
        """Voxel centres along z, y, x in mm, shaped for broadcasting."""
        lines = [
            (o + s * np.arange(n)).astype(np.float32)
            for o, s, n in zip(self.origin_mm, self.spacing_mm, self.shape, strict=True)
        ]
        return lines[0][:, None, None], lines[1][None, :, None], lines[2][None, None, :]

    def window(self, low: Triple, high: Triple) -> Window | None:
        """Index ranges of the voxels with low <= position <= high (mm); None when there are none."""
        ranges = []
        for o, s, n, a, b in zip(self.origin_mm, self.spacing_mm, self.shape, low, high, strict=True):
            first = max(0, int(np.floor((a - o) / s)))
            last = min(n, int(np.ceil((b - o) / s)) + 1)
            if last <= first:
                return None
            ranges.append(slice(first, last))
        return ranges[0], ranges[1], ranges[2]

    def index_of(self, position_mm: Triple) -> Triple:
        """Continuous voxel index of a position (z, y, x) in mm."""
        z, y, x = ((p - o) / s for p, o, s in zip(position_mm, self.origin_mm, self.spacing_mm, strict=True))
        return z, y, x


def _weights(count: int, coarse: int) -> Array:
    position = np.linspace(0, coarse - 1, count)
    lower = np.clip(np.floor(position).astype(int), 0, max(coarse - 2, 0))
    fraction = position - lower
    fraction = fraction * fraction * (3 - 2 * fraction)  # smoothstep: no creases at the knots
    matrix = np.zeros((count, coarse), np.float32)
    matrix[np.arange(count), lower] = 1 - fraction
    matrix[np.arange(count), np.minimum(lower + 1, coarse - 1)] += fraction
    return matrix


def smooth_field(rng: np.random.Generator, grid: Grid, scale_mm: float) -> Array:
    """Random field of unit SD over the grid whose knots lie `scale_mm` apart."""
    coarse = [max(2, int(np.ceil(n * s / scale_mm)) + 1) for n, s in zip(grid.shape, grid.spacing_mm, strict=True)]
    knots = rng.standard_normal(coarse).astype(np.float32) * 1.4  # interpolation loses about 0.7 of the SD
    wz, wy, wx = (_weights(n, c) for n, c in zip(grid.shape, coarse, strict=True))
    field = np.tensordot(wz, knots, axes=(1, 0))
    field = np.matmul(wy, field)
    return np.asarray(np.matmul(field, wx.T), np.float32)


def rotation(rng: np.random.Generator, degrees: float) -> Array:
    """Rotation matrix about a random axis by a normal angle of SD `degrees`."""
    axis = rng.standard_normal(3)
    axis /= np.linalg.norm(axis)
    angle = np.deg2rad(degrees) * rng.standard_normal()
    k = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    return np.asarray(np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * (k @ k), np.float32)


def ellipsoid_mm(z: Array, y: Array, x: Array, centre: Triple, radii: Triple, turn: Array | None = None) -> Array:
    """First-order signed distance (mm, positive inside) to an ellipsoid, at positions z, y, x."""
    pz, py, px = z - centre[0], y - centre[1], x - centre[2]
    if turn is not None:
        pz, py, px = (turn[i, 0] * pz + turn[i, 1] * py + turn[i, 2] * px for i in range(3))
    az, ay, ax = ((p / r) ** 2 for p, r in zip((pz, py, px), radii, strict=True))
    rho2 = az + ay + ax
    slope2 = az / radii[0] ** 2 + ay / radii[1] ** 2 + ax / radii[2] ** 2
    rho = np.sqrt(rho2)
    return np.asarray((1 - rho) * rho / np.sqrt(slope2 + 1e-9) + (rho < 0.05) * min(radii), np.float32)


def capsule_mm(z: Array, y: Array, x: Array, start: Triple, end: Triple, radii: tuple[float, float]) -> Array:
    """Signed distance (mm, positive inside) to a straight tube whose radius runs from radii[0] to radii[1]."""
    a, d = np.asarray(start, np.float32), np.asarray(end, np.float32) - np.asarray(start, np.float32)
    length2 = float(d @ d) + 1e-6
    along = np.clip(((z - a[0]) * d[0] + (y - a[1]) * d[1] + (x - a[2]) * d[2]) / length2, 0, 1)
    distance2 = (z - a[0] - along * d[0]) ** 2 + (y - a[1] - along * d[1]) ** 2 + (x - a[2] - along * d[2]) ** 2
    return np.asarray(radii[0] + (radii[1] - radii[0]) * along - np.sqrt(distance2), np.float32)


def coverage(distance_mm: Array, width_mm: float) -> Array:
    """Fraction of a voxel that lies inside, from a signed distance; the edge is `width_mm` wide."""
    return np.clip(0.5 + distance_mm / width_mm, 0, 1)
