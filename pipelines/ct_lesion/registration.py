"""Arterial -> portal-venous: the liver breathes between the phases, by 0 to 10 mm, mostly towards head or feet.

Mutual information of the two phases in a band around the liver on a 4 mm grid is raised in three steps: the best of a
few head-feet shifts and a translation, then an affine map, then a smooth bend from low-frequency cosines. Its gradient
is exact, so each step takes a few dozen evaluations, one thread, no random samples: the same images give the same
transform. ITK's own optimisers need ten times the time for the same answer, and differ in the last digits between runs.

Sources: mutual information with its gradient, Mattes et al., IEEE Trans. Med. Imaging 22:120 (2003); cosine basis,
Ashburner & Friston, Hum. Brain Mapp. 7:254 (1999).
"""

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk  # noqa: N813 - its own documentation's name
from numpy.typing import NDArray
from scipy import ndimage, optimize

from pipelines.ct_lesion.grid import Grid, crop_around, onto, refined
from pipelines.ct_lesion.localisation import Localised, around_liver

#: Grid of the registration; finer costs time and gains little.
SPACING_MM = 4.0
#: Largest displacement that is believed.
MAX_SHIFT_MM = 30.0
#: How far around the liver its movement is judged.
BAND_MM = 8.0
#: Points of the band that are looked at.
MAX_POINTS = 15_000
_HU_WINDOW = (-100.0, 300.0)
_BINS = 32
_START_SHIFTS_MM = tuple(range(-24, 25, 4))
#: A step must raise the mutual information by this to be kept.
_MIN_GAIN = 1e-3
#: Highest cosine order per axis, and the price of bending: of a mode of 1 mm per squared order.
_COSINE_ORDER = 3
_BENDING_PRICE = 2e-4
#: Lattice on which the found displacement is handed to SimpleITK; it bends over 60 mm and more.
_FIELD_SPACING_MM = 12.0
_FIELD_MARGIN_MM = 48.0

Points = NDArray[np.float64]  # [n, 3] LPS mm


@dataclass(frozen=True)
class Registered:
    """How points of the portal-venous phase map to the arterial phase."""

    transform: sitk.Transform  # portal-venous LPS mm -> arterial LPS mm
    shift_mm: tuple[float, float, float]  # mean displacement in the liver (x, y, z)
    gain: float  # mutual information (nats) after less before; 0: identity kept
    steps: tuple[str, ...]  # which steps were kept


def register(arterial: sitk.Image, portal_venous: sitk.Image, localised: Localised) -> Registered:
    """Register the arterial onto the portal-venous phase around the liver.

    arterial, portal_venous : images in HU with LPS geometry.
    localised : liver on its coarse grid, not empty.
    Identity is returned where no step raises the mutual information, or where the answer is not believable.
    """
    box = crop_around(localised.grid, localised.liver, 20.0)
    fixed_grid = refined(box, (SPACING_MM,) * 3, box)
    moving_grid = _widened(fixed_grid, MAX_SHIFT_MM)
    points, fixed = _band_points(localised, fixed_grid, onto(portal_venous, fixed_grid))
    similarity = _Similarity(points, fixed, moving_grid, onto(arterial, moving_grid))

    start = similarity.value(np.zeros_like(points))
    basis = _Basis(fixed_grid)
    best = np.zeros((0, 3))
    value, steps = start, []
    for name, columns in (("translation", 1), ("affine", 4), ("bend", basis.size)):
        first = np.zeros((columns, 3))
        first[: len(best)] = best
        if name == "translation":
            first[0, 2] = max(_START_SHIFTS_MM, key=lambda z: similarity.value(np.full_like(points, (0.0, 0.0, z))))
        found, reached = _ascend(similarity, basis, first)
        if reached > value + _MIN_GAIN:
            best, value = found, reached
            steps.append(name)
        elif name == "translation":
            best = np.zeros((1, 3))
    if not steps or np.abs(basis.at(points, len(best)) @ best).max() > MAX_SHIFT_MM:
        return Registered(sitk.Transform(3, sitk.sitkIdentity), (0.0, 0.0, 0.0), 0.0, ())
    x, y, z = (basis.at(points, len(best)) @ best).mean(axis=0).tolist()
    return Registered(_as_transform(basis, best, fixed_grid), (x, y, z), value - start, tuple(steps))


class _Similarity:
    """Mutual information (nats) of fixed values at points and moving values at displaced points."""

    def __init__(self, points: Points, fixed: NDArray[np.float32], grid: Grid, moving: NDArray[np.float32]) -> None:
        moving = np.clip(moving, *_HU_WINDOW)
        # one array for the values and their gradient per mm along x, y, z, so that all are interpolated alike
        slopes = np.gradient(moving, *grid.spacing_mm)
        self._fields = [moving, slopes[2], slopes[1], slopes[0]]
        self._points, self._grid = points, grid
        self._fixed_bins = np.round(_to_bins(np.clip(fixed, *_HU_WINDOW))).astype(np.int64)

    def value(self, displacement_mm: Points) -> float:
        """Mutual information where every point is displaced."""
        return self._evaluate(displacement_mm)[0]

    def value_and_slope(self, displacement_mm: Points) -> tuple[float, Points]:
        """Mutual information, and its derivative by every point's displacement, [n, 3] per mm."""
        value, by_intensity, indices = self._evaluate(displacement_mm)
        slopes = [ndimage.map_coordinates(field, indices, order=1, mode="nearest") for field in self._fields[1:]]
        return value, np.stack(slopes, axis=1) * by_intensity[:, np.newaxis]

    def _evaluate(self, displacement_mm: Points) -> tuple[float, NDArray[np.float64], Points]:
        offset = self._points + displacement_mm - self._grid.origin_mm
        indices = (offset[:, ::-1] / self._grid.spacing_mm).T
        moving = _to_bins(ndimage.map_coordinates(self._fields[0], indices, order=1, mode="nearest"))
        lower = np.minimum(moving.astype(np.int64), _BINS - 2)
        part = moving - lower  # each value counts for its two neighbouring bins
        cell = self._fixed_bins * _BINS + lower
        counts = np.bincount(cell, 1 - part, _BINS**2) + np.bincount(cell + 1, part, _BINS**2)
        joint = counts.reshape(_BINS, _BINS) / len(moving)
        marginal = joint.sum(axis=0)
        tiny = 1e-7
        ratio = np.log((joint + tiny) / (marginal + _BINS * tiny))
        of_fixed = joint.sum(axis=1)
        value = float((joint * (ratio - np.log(of_fixed + tiny)[:, np.newaxis])).sum())
        flat = ratio.ravel()
        by_bin = (flat[cell + 1] - flat[cell]) / len(moving)
        return value, by_bin * (_BINS - 1) / (_HU_WINDOW[1] - _HU_WINDOW[0]), indices


class _Basis:
    """Displacements as sums of smooth functions over a box: 1, x, y, z, then cosines of rising order."""

    def __init__(self, grid: Grid) -> None:
        extent = (np.asarray(grid.shape[::-1]) - 1) * np.asarray(grid.spacing_mm[::-1])
        self._low, self._extent = np.asarray(grid.origin_mm), extent
        orders = np.indices((_COSINE_ORDER + 1,) * 3).reshape(3, -1).T
        total = orders.sum(axis=1)
        self._orders: NDArray[np.int64] = orders[(total >= 2) & (total <= _COSINE_ORDER)]
        price = np.asarray((self._orders**2).sum(axis=1), dtype=np.float64)
        self.prices = np.concatenate([np.zeros(4), _BENDING_PRICE * price])
        self.size = len(self.prices)

    def at(self, points: Points, columns: int) -> NDArray[np.float64]:
        """[n, columns] values of the first functions at the points; all are about 1 in size."""
        place = (points - self._low) / self._extent
        parts = [np.ones((len(points), 1)), 2 * place - 1]
        if columns > 4:
            waves = np.cos(np.pi * place[:, np.newaxis, :] * self._orders[np.newaxis])
            parts.append(waves.prod(axis=2))
        return np.concatenate(parts, axis=1)[:, :columns]


def _ascend(similarity: _Similarity, basis: _Basis, first: Points) -> tuple[Points, float]:
    """Raise the similarity less the price of bending, from the first coefficients [function, 3] in mm."""
    functions = basis.at(similarity._points, len(first))
    prices = basis.prices[: len(first), np.newaxis]

    def cost(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        coefficients = flat.reshape(-1, 3)
        value, slope = similarity.value_and_slope(functions @ coefficients)
        penalty = float((prices * coefficients**2).sum())
        return penalty - value, (2 * prices * coefficients - functions.T @ slope).ravel()

    found = optimize.minimize(
        cost, first.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 25, "maxfun": 35, "ftol": 1e-6}
    )
    coefficients: Points = found.x.reshape(-1, 3)
    return coefficients, -float(found.fun)


def _band_points(
    localised: Localised, grid: Grid, portal_venous: NDArray[np.float32]
) -> tuple[Points, NDArray[np.float32]]:
    """Points in and around the liver with their portal-venous values, thinned evenly."""
    indices = np.argwhere(around_liver(localised, grid, BAND_MM))
    indices = indices[:: -(-len(indices) // MAX_POINTS)]
    return grid.positions_mm(indices), portal_venous[tuple(indices.T)]


def _as_transform(basis: _Basis, coefficients: Points, grid: Grid) -> sitk.Transform:
    """The displacement on a lattice around the grid, held constant outside of the box on which it was found."""
    box = _widened(grid, _FIELD_MARGIN_MM)
    lattice = refined(box, (_FIELD_SPACING_MM,) * 3, box)
    points = lattice.positions_mm(np.indices(lattice.shape).reshape(3, -1).T)
    high = grid.positions_mm(np.asarray([grid.shape]) - 1)[0]
    displacement = basis.at(np.clip(points, grid.origin_mm, high), len(coefficients)) @ coefficients
    field = sitk.GetImageFromArray(displacement.reshape(*lattice.shape, 3), isVector=True)
    field.SetSpacing(lattice.spacing_mm[::-1])
    field.SetOrigin(lattice.origin_mm)
    return sitk.DisplacementFieldTransform(field)


def _widened(grid: Grid, margin_mm: float) -> Grid:
    steps = np.ceil(margin_mm / np.asarray(grid.spacing_mm)).astype(int)
    return grid.sub((-steps).tolist(), (np.asarray(grid.shape) + steps).tolist())


def _to_bins(values: NDArray[np.float32]) -> NDArray[np.float64]:
    low, high = _HU_WINDOW
    return (np.asarray(values, dtype=np.float64) - low) * ((_BINS - 1) / (high - low))
