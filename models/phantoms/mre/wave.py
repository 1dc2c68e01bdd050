"""The time-harmonic shear wave in a slice: div(G* grad u) + (rho w^2 - G* kz^2) u = -f on a masked grid.

Scalar displacement through the slice. Discretised on nine points with the coefficients of Jo, Shin & Suh (Geophysics
61:529, 1996), whose phase velocity errs by less than 1 % down to four points per wavelength; solved directly.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import splu

from models.phantoms.mre.tissue import DENSITY_KG_M3

AXIS_SHARE = 0.5461  # of the stiffness term on the axes; the rest on the diagonals
MASS_CENTRE = 0.6248  # of the inertia at the point itself; the rest on the four neighbours

Complex = NDArray[np.complex128]


def solve_wave(
    modulus_pa: Complex,
    inside: NDArray[np.bool_],
    source: Complex,
    hz: float,
    spacing_mm: float,
    *,
    tilt_per_m: float = 0.0,
) -> Complex:
    """Steady displacement u (complex amplitude, scale of `source`) of a slice.

    modulus_pa: G* [row, column], Pa. inside: where there is tissue; its border is free of stress, so waves reflect.
    source: body force per volume [row, column] (N/m3). hz: driver frequency. spacing_mm: of the square grid.
    tilt_per_m: wave number kz across the slice (0: the wave runs in the plane); |u| outside is 0.
    Raises ValueError when a wavelength of the softest elastic tissue is below 3.5 points.
    """
    h, omega = spacing_mm * 1e-3, 2 * np.pi * hz
    speed = np.sqrt(np.abs(modulus_pa[inside]) / DENSITY_KG_M3)
    points = float(np.percentile(speed, 20)) / hz / h
    if points < 3.5:
        raise ValueError(f"{points:.1f} grid points per wavelength at {spacing_mm} mm, 3.5 needed")
    # Assembled cell by cell, so that half and quarter cells at a free border come out right by themselves.
    corners = tuple((slice(y, y - 1 or None), slice(x, x - 1 or None)) for y in (0, 1) for x in (0, 1))
    cells = np.logical_and.reduce([inside[c] for c in corners])
    used = np.zeros(inside.shape, bool)
    for corner in corners:
        used[corner] |= cells
    count = int(used.sum())
    number = np.full(inside.shape, -1, np.int64)
    number[used] = np.arange(count)
    node = [number[c][cells] for c in corners]
    stiffness = sum(modulus_pa[c][cells] for c in corners) / 4
    mass = DENSITY_KG_M3 * omega**2 - stiffness * tilt_per_m**2
    rows, columns, values = [], [], []
    centre = np.zeros(count, np.complex128)
    share = np.zeros(count)
    for numbers in node:
        np.add.at(centre, numbers, MASS_CENTRE / 4 * mass)
        np.add.at(share, numbers, 0.25)
    for first, second, axial in ((0, 1, True), (2, 3, True), (0, 2, True), (1, 3, True), (0, 3, False), (1, 2, False)):
        # A link along an axis is shared by two cells, a diagonal belongs to one.
        face = (AXIS_SHARE if axial else 1 - AXIS_SHARE) / 2 / h**2 * stiffness
        link = face + (1 - MASS_CENTRE) / 8 * mass if axial else face
        for here, there in ((node[first], node[second]), (node[second], node[first])):
            np.subtract.at(centre, here, face)
            rows.append(here)
            columns.append(there)
            values.append(link)
    rows.append(np.arange(count))
    columns.append(np.arange(count))
    values.append(centre)
    matrix = sparse.coo_matrix(
        (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=(count, count)
    ).tocsc()
    # The matrix is symmetric; ordering on A + A' with little pivoting halves the fill.
    factors = splu(matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.01, options={"SymmetricMode": True})
    u = np.zeros(inside.shape, np.complex128)
    u[used] = factors.solve(-np.asarray(source, np.complex128)[used] * share)
    return u


def grow_outwards(u: Complex, inside: NDArray[np.bool_], steps: int) -> Complex:
    """Carry u a few points beyond its domain, so that interpolation near the skin does not see the zero outside."""
    u, known = u.copy(), inside.copy()
    padded_shape = (u.shape[0] + 2, u.shape[1] + 2)
    for _ in range(steps):
        total, weight = np.zeros(padded_shape, np.complex128), np.zeros(padded_shape)
        for dy in (0, 1, 2):
            for dx in (0, 1, 2):
                total[dy : dy + u.shape[0], dx : dx + u.shape[1]] += u * known
                weight[dy : dy + u.shape[0], dx : dx + u.shape[1]] += known
        total, weight = total[1:-1, 1:-1], weight[1:-1, 1:-1]
        new = ~known & (weight > 0)
        u[new] = total[new] / weight[new]
        known |= new
    return u
