"""Simulated two-phase liver CT: arterial and portal-venous HU volumes with the truth about every lesion."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.phantoms.acquisition import Scan, add_noise, blur, breathe, draw_scan
from models.phantoms.anatomy import (
    Canvas,
    draw_style,
    paint_body,
    paint_liver,
    paint_organs,
    paint_pitfalls,
    paint_vessels,
)
from models.phantoms.enhancement import Contrast, draw_contrast
from models.phantoms.fields import Array, Grid, Triple, coverage, ellipsoid_mm, smooth_field
from models.phantoms.lesions import CLASSES, MALIGNANT, Plan, draw_kinds, look_of, plan_lesions


@dataclass(frozen=True)
class Lesion:
    """One lesion as it lies in the portal-venous volume."""

    label: int  # its value in CtCase.lesion_labels
    kind: str  # HCC, ICC, MET, FNH, HEM or CYST
    centre_mm: Triple  # z, y, x in the patient's LPS axes
    diameter_mm: float  # of the sphere of equal volume

    @property
    def malignant(self) -> bool:
        return self.kind in MALIGNANT


@dataclass(frozen=True)
class CtCase:
    """Two phases on one grid; without noise when it was simulated with noise=False."""

    seed: int
    grid: Grid
    arterial: Array  # [slice, row, column] HU
    portal_venous: Array  # [slice, row, column] HU
    liver: NDArray[np.bool_]  # the liver with its lesions, on the portal-venous phase
    lesion_labels: NDArray[np.uint8]  # 0 or Lesion.label
    lesions: tuple[Lesion, ...]
    contrast: Contrast
    scans: tuple[Scan, Scan]  # arterial, portal-venous
    richness: float

    @property
    def class_labels(self) -> NDArray[np.uint8]:
        """0 background, 1 liver, 2.. the class of the lesion in the order of CLASSES."""
        table = np.zeros(256, np.uint8)
        for lesion in self.lesions:
            table[lesion.label] = 2 + CLASSES.index(lesion.kind)
        return np.where(self.lesion_labels > 0, table[self.lesion_labels], self.liver.astype(np.uint8))


def _paint_lesion(
    canvas: Canvas, rng: np.random.Generator, plan: Plan, contrast: Contrast, edge_mm: float, *, plain: bool
) -> tuple[tuple[slice, slice, slice], Array] | None:
    reach = max(plan.radii_mm) * 1.35 + canvas.reach_mm + 2
    low, high = ([c + sign * reach for c in plan.centre_mm] for sign in (-1, 1))
    window = canvas.grid.window((low[0], low[1], low[2]), (high[0], high[1], high[2]))
    if window is None:
        return None
    # The lesion is placed in bent space as well, so that it stays where the bent liver has room.
    z, y, x = canvas.z[window], canvas.y[window], canvas.x[window]
    distance = ellipsoid_mm(z, y, x, plan.centre_mm, plan.radii_mm, plan.turn)
    radius = float(np.prod(plan.radii_mm) ** (1 / 3))
    part = Grid(distance.shape, canvas.grid.spacing_mm, (0.0, 0.0, 0.0))
    if plan.lobulation:
        distance = distance + plan.lobulation * radius * smooth_field(rng, part, max(4.0, radius * 0.8))
    rho = np.clip(1 - distance / radius, 0, 4).astype(np.float32)
    ap, pvp = look_of(plan, rng, contrast, rho, part, plain=plain)
    alpha = np.asarray(coverage(distance, edge_mm) * canvas.liver[window], np.float32)
    for volume, hu in ((canvas.arterial, ap), (canvas.portal, pvp)):
        inside = volume[window]
        inside += alpha * (hu - inside)
    return window, alpha


def simulate_ct_case(
    seed: int,
    *,
    spacing_mm: Triple = (3.0, 1.5, 1.5),
    shape: tuple[int, int, int] = (80, 240, 280),
    motion_mm: float = 10.0,
    noise: bool = True,
    kinds: Sequence[str] | None = None,
) -> CtCase:
    """Simulate one patient.

    spacing_mm and shape are [slice, row, column]; the grid is centred on the patient. motion_mm is the largest shift
    between the breath-holds of the two phases (0: the phases match). The same arguments give the same arrays.
    kinds: classes of the lesions instead of drawn ones; one that finds no room in the liver is left out.
    With noise=False the volumes are the ideal HU without noise and blur, which are left to the caller.
    """
    rng = np.random.default_rng([seed, 0xC7])
    grid = Grid.centred(shape, spacing_mm)
    style = draw_style(rng, spacing_mm)
    contrast = draw_contrast(rng, steatosis=style.steatosis, cirrhosis=style.cirrhosis)
    simple = style.richness < 0.1
    canvas = Canvas(grid, -1000.0)
    canvas.warp(rng, style.warp_mm)
    paint_body(canvas, rng, style, contrast)
    porta = paint_liver(canvas, rng, style, contrast)
    paint_organs(canvas, rng, style, contrast, porta)
    step = tuple(max(1, round(5 / s)) for s in spacing_mm)
    coarse = canvas.liver[:: step[0], :: step[1], :: step[2]] > 0.9
    depth = ndimage.distance_transform_edt(coarse, [s * d for s, d in zip(spacing_mm, step, strict=True)])
    chosen = np.nonzero(coarse)
    # Positions in bent space, where lesions and pitfalls are drawn.
    positions = np.stack(
        [np.asarray(a[:: step[0], :: step[1], :: step[2]])[chosen] for a in (canvas.z, canvas.y, canvas.x)], axis=1
    ).astype(np.float32)
    if not simple or rng.random() < 0.3:
        paint_vessels(canvas, rng, style, contrast, porta)
    paint_pitfalls(canvas, rng, style, positions)

    drawn = draw_kinds(rng, cirrhosis=style.cirrhosis)
    plans = plan_lesions(
        rng, list(kinds) if kinds is not None else drawn, positions, depth[chosen].astype(np.float32), round_only=simple
    )
    labels = np.zeros(shape, np.uint8)
    lesions: list[Lesion] = []
    z, y, x = grid.axes()
    for plan in plans:
        painted = _paint_lesion(
            canvas, rng, plan, contrast, style.edge_mm * (1 if simple else float(rng.uniform(0.8, 1.6))),
            plain=simple or rng.random() < 0.15,
        )  # fmt: skip
        if painted is None:
            continue
        window, alpha = painted
        volume = float(alpha.sum()) * grid.voxel_mm3
        inside = alpha >= 0.5
        if volume < 35 or not inside.any():  # nothing of it lies in the liver
            continue
        label = len(lesions) + 1
        labels[window][inside] = label
        centre = tuple(
            float((alpha * axis).sum() / alpha.sum()) for axis in (z[window[0]], y[:, window[1]], x[:, :, window[2]])
        )
        diameter = float(np.cbrt(6 * volume / np.pi))
        lesions.append(Lesion(label, plan.kind, (centre[0], centre[1], centre[2]), diameter))

    arterial, portal = breathe(canvas.arterial, rng, grid, motion_mm), canvas.portal
    scan = draw_scan(rng, spacing_mm[0], simple=simple)
    scans = (
        scan,
        Scan(scan.noise_hu * float(rng.uniform(0.85, 1.2)), scan.kernel_mm, scan.slice_blur_mm, scan.plane_blur_mm),
    )
    if noise:
        arterial = add_noise(blur(arterial, scans[0], grid), rng, scans[0], grid)
        portal = add_noise(blur(portal, scans[1], grid), rng, scans[1], grid)
    return CtCase(
        seed, grid, arterial, portal, canvas.liver >= 0.5, labels, tuple(lesions), contrast, scans, style.richness
    )
