"""Axial sections of a drawn patient: which share of every pixel is which tissue, on a grid that holds the body.

Axes are (slice, row, column) = (z, y, x) in mm as in models.phantoms.fields; the liver lies at x < 0, z = 0 is near its
middle. A section above the dome or below the tip has little liver or none: planning errors are drawn by the position.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.phantoms.fields import Array, Grid, Triple, capsule_mm, coverage, ellipsoid_mm, rotation, smooth_field
from models.phantoms.mre.tissue import (
    AIR,
    BLOOD,
    BONE,
    FAT,
    FLUID,
    GAS,
    HEART,
    KIDNEY,
    LESION,
    LIVER,
    LUNG,
    MUSCLE,
    SPLEEN,
    TISSUES,
    VISCERA,
    draw_liver,
)

PITCH_MM = 2.0
CAPSULE_MM = 8.0  # stiffness is read further inside than this
EDGE_MM = 2.6  # width of a tissue border
TALL_MM = 4000.0


@dataclass(frozen=True)
class Patient:
    """What is the same in all sections of one patient."""

    half_mm: tuple[float, float]  # body: half height (y), half width (x)
    fat_mm: float  # subcutaneous
    size: float  # scale of the organs
    stage: int  # of fibrosis, 0..4
    liver_kpa: float  # |G*| at 60 Hz
    liver_alpha: float
    spleen_kpa: float
    variation: float  # SD of ln |G*| inside the liver
    variation_mm: float  # its scale
    small: bool  # shrunken or resected liver
    shape_seed: int


@dataclass(frozen=True)
class Section:
    """One axial slice of a patient on a grid of PITCH_MM, row and column centres y_mm, x_mm."""

    z_mm: float
    y_mm: Array
    x_mm: Array
    shares: Array  # [tissue, row, column], sum 1
    liver: Array  # [row, column] share of liver, hepatic vessels and lesions included
    vessel: Array  # [row, column] share of hepatic vessels
    stiffness_ratio: Array  # [row, column] local |G*| of liver over the patient's
    texture: Array  # [row, column] relative signal of liver
    inner_mm2: float  # area more than CAPSULE_MM inside the capsule

    @property
    def body(self) -> NDArray[np.bool_]:
        return np.asarray(self.shares[AIR] < 0.5)


def draw_patient(rng: np.random.Generator) -> Patient:
    """A patient: build, stage, liver's shape. One in eight has a small liver."""
    stage, kpa, alpha = draw_liver(rng)
    build = float(np.clip(rng.normal(0, 1), -1.8, 2.6))
    half = (
        float(np.clip(rng.normal(112 + 14 * build, 7), 85, 165)),
        float(np.clip(rng.normal(168 + 15 * build, 9), 130, 228)),
    )
    return Patient(
        half_mm=half,
        fat_mm=float(np.clip(rng.normal(18 + 8 * build, 5), 5, 48)),
        size=float(np.clip(rng.normal(1 + 0.03 * build, 0.06), 0.84, 1.18)),
        stage=stage,
        liver_kpa=kpa,
        liver_alpha=alpha,
        spleen_kpa=float(np.clip(rng.normal(4.5 + 0.5 * stage, 0.9), 2.5, 10)),
        variation=float(rng.uniform(0.02, 0.08) + (rng.uniform(0, 0.08) if stage >= 3 else 0)),
        variation_mm=float(rng.uniform(22, 45)),
        small=bool(rng.random() < 0.13),
        shape_seed=int(rng.integers(2**31)),
    )  # fmt: skip


class _Painter:
    """Shares of tissue per voxel, painted shape by shape: a later shape replaces what lies under it."""

    def __init__(self, grid: Grid, rng: np.random.Generator, warp_mm: float) -> None:
        self.grid = grid
        self.shares = np.zeros((TISSUES, *grid.shape), np.float32)
        self.shares[AIR] = 1
        self.liver: Array = np.zeros(grid.shape, np.float32)
        self.vessel: Array = np.zeros(grid.shape, np.float32)
        z, y, x = grid.axes()
        scale = 60.0
        self.z = np.broadcast_to(z, grid.shape)
        self.y = np.asarray(y + warp_mm * smooth_field(rng, grid, scale), np.float32)
        self.x = np.asarray(x + warp_mm * smooth_field(rng, grid, scale), np.float32)
        self.reach = 3.5 * warp_mm + 2 * EDGE_MM

    def lay(self, window: tuple[slice, slice, slice], alpha: Array, tissue: int) -> None:
        part = self.shares[(slice(None), *window)]
        part *= 1 - alpha
        part[tissue] += alpha

    def ellipsoid(
        self, tissue: int, centre: Triple, radii: Triple, *, turn: Array | None = None, edge: float = EDGE_MM,
        off_liver: bool = False,
    ) -> None:  # fmt: skip
        reach = [max(radii) if turn is not None else r for r in radii]
        low = tuple(c - r - self.reach for c, r in zip(centre, reach, strict=True))
        high = tuple(c + r + self.reach for c, r in zip(centre, reach, strict=True))
        window = self.grid.window((low[0], low[1], low[2]), (high[0], high[1], high[2]))
        if window is None:
            return
        alpha = coverage(ellipsoid_mm(self.z[window], self.y[window], self.x[window], centre, radii, turn), edge)
        if off_liver:
            alpha = alpha * (1 - self.liver[window])
        self.lay(window, np.asarray(alpha, np.float32), tissue)

    def tube(
        self, tissue: int, start: Triple, end: Triple, radii: tuple[float, float], *, hepatic: bool = False
    ) -> None:
        margin = self.reach + max(radii)
        low = tuple(min(a, b) - margin for a, b in zip(start, end, strict=True))
        high = tuple(max(a, b) + margin for a, b in zip(start, end, strict=True))
        window = self.grid.window((low[0], low[1], low[2]), (high[0], high[1], high[2]))
        if window is None:
            return
        distance = capsule_mm(self.z[window], self.y[window], self.x[window], start, end, radii)
        alpha = coverage(distance, EDGE_MM) * min(1.0, (2 * max(radii) / EDGE_MM) ** 2)
        if hepatic:
            alpha = alpha * self.liver[window]
            self.vessel[window] = np.maximum(self.vessel[window], alpha)
        self.lay(window, np.asarray(alpha, np.float32), tissue)


def _near(rng: np.random.Generator, z: float, y: float, x: float, sd: float) -> Triple:
    return float(z + rng.normal(0, sd)), float(y + rng.normal(0, sd)), float(x + rng.normal(0, sd))


def _frame(p: _Painter, patient: Patient, rng: np.random.Generator) -> tuple[float, float]:
    """Skin, fat, abdominal wall, viscera, lungs, spine; returns the half axes (y, x) inside the wall."""
    half, s = patient.half_mm, patient.size
    p.ellipsoid(FAT, (0, 0, 0), (TALL_MM, *half))
    inner = half[0] - patient.fat_mm * 0.8, half[1] - patient.fat_mm
    p.ellipsoid(MUSCLE, (0, 3, 0), (TALL_MM, *inner))
    wall = float(rng.uniform(8, 15))
    cavity = inner[0] - wall, inner[1] - wall
    p.ellipsoid(VISCERA if rng.random() < 0.6 else FAT, (0, 0, 0), (TALL_MM, *cavity))
    for _ in range(int(rng.integers(2, 6))):  # lobules of fat between the bowel
        p.ellipsoid(
            FAT, (float(rng.uniform(-80, 60)), float(rng.uniform(-60, 40)), float(rng.uniform(-20, 110))),
            tuple(float(r) for r in rng.uniform(14, 38, 3)),  # type: ignore[arg-type]
        )  # fmt: skip
    for side in (-1, 1):
        top = _near(rng, 150 * s, 12 * s, side * 0.52 * cavity[1], 8)
        p.ellipsoid(LUNG, top, (float(rng.uniform(80, 110)) * s, cavity[0] * 0.88, cavity[1] * 0.46))
    p.ellipsoid(HEART, _near(rng, 122 * s, -30 * s, 28 * s, 8), (50 * s, 46 * s, 58 * s))
    spine = half[0] - float(rng.uniform(46, 58)) * s
    p.ellipsoid(BONE, (0, spine, 0), (TALL_MM, 18 * s, 22 * s))
    p.ellipsoid(FLUID, (0, spine + 24 * s, 0), (TALL_MM, 8 * s, 9 * s))
    for side in (-1, 1):
        p.ellipsoid(MUSCLE, (0, spine + 27 * s, side * 34 * s), (TALL_MM, 18 * s, 23 * s))
    return cavity


def _liver(p: _Painter, patient: Patient, rng: np.random.Generator, cavity: tuple[float, float]) -> Triple:
    """Right and left lobe with the notch of the porta; returns the position of the porta hepatis."""
    s = patient.size * (float(rng.uniform(0.5, 0.78)) if patient.small else float(rng.uniform(0.92, 1.1)))
    wide = float(rng.uniform(58, 70)) * s
    x0 = -(cavity[1] - wide) + float(rng.uniform(2, 7))
    middle = _near(rng, 0, -4, x0, 4)
    deep = min(float(rng.uniform(72, 88)) * s, cavity[0] * 0.93)
    tall = float(rng.uniform(68, 88)) * s
    right = ellipsoid_mm(p.z, p.y, p.x, middle, (tall, deep, wide), rotation(rng, 7))
    left_scale = float(rng.uniform(0.55, 1.25))
    centre = middle[0] + 16 * s, -min(38 * s, cavity[0] * 0.4), middle[2] + 58 * s
    radii = 46 * s * left_scale, 36 * s, 66 * s * left_scale
    left = ellipsoid_mm(p.z, p.y, p.x, centre, radii, rotation(rng, 10))
    blend = np.clip(0.5 + (left - right) / 30, 0, 1)
    distance = np.asarray(right + blend * (left - right) + 12 * blend * (1 - blend), np.float32)
    porta = middle[0] - 14 * s, middle[1] + 10 * s, middle[2] + 44 * s
    notch = ellipsoid_mm(p.z, p.y, p.x, (porta[0] - 25 * s, porta[1] + 16 * s, porta[2] + 4), (46 * s, 30 * s, 18 * s))
    distance = np.minimum(distance, -notch)
    if patient.stage == 4:
        distance = distance + float(rng.uniform(0.5, 2.2)) * smooth_field(rng, p.grid, 10)
    keep = coverage(ellipsoid_mm(p.z, p.y, p.x, (0, 0, 0), (TALL_MM, cavity[0] - 1, cavity[1] - 1)), EDGE_MM)
    whole = (slice(None),) * 3
    if rng.random() < (0.25 if patient.stage == 4 else 0.03):  # ascites around it
        p.lay(whole, np.asarray(coverage(distance + float(rng.uniform(5, 16)), EDGE_MM) * keep, np.float32), FLUID)
    p.liver = np.asarray(coverage(np.asarray(distance, np.float32), EDGE_MM) * keep, np.float32)
    p.lay(whole, p.liver, LIVER)
    return porta


def _organs(
    p: _Painter, patient: Patient, rng: np.random.Generator, porta: Triple, cavity: tuple[float, float]
) -> None:
    s = patient.size
    big = float(rng.uniform(1.1, 1.5)) if patient.stage == 4 else float(rng.uniform(0.75, 1.1))
    at = _near(rng, 15 * s, 0.33 * cavity[0], cavity[1] - 30 * s * big, 5)
    p.ellipsoid(SPLEEN, at, (52 * s * big, 40 * s * big, 26 * s * big), turn=rotation(rng, 12), off_liver=True)
    stomach = _near(rng, 10 * s, -36 * s, 0.45 * cavity[1], 10)
    radii = tuple(float(r) * s for r in rng.uniform((28, 22, 26), (46, 38, 44)))
    p.ellipsoid(MUSCLE, stomach, (radii[0], radii[1], radii[2]), off_liver=True)
    p.ellipsoid(
        FLUID if rng.random() < 0.6 else VISCERA, stomach, (radii[0] - 5, radii[1] - 5, radii[2] - 5), off_liver=True
    )
    if rng.random() < 0.7:
        gas = float(rng.uniform(0.3, 0.75))
        p.ellipsoid(
            GAS, (stomach[0], stomach[1] - radii[1] * (0.9 - gas), stomach[2]),
            (radii[0] - 6, max(4.0, radii[1] * gas - 4), (radii[2] - 6) * 0.9), off_liver=True,
        )  # fmt: skip
    for side in (-1, 1):
        at = _near(rng, -62 * s, 0.42 * cavity[0], side * 0.44 * cavity[1], 6)
        turn = rotation(rng, 8)
        p.ellipsoid(KIDNEY, at, (54 * s, 26 * s, 27 * s), turn=turn, off_liver=True)
        p.ellipsoid(FAT, at, (28 * s, 9 * s, 10 * s), turn=turn, off_liver=True, edge=6)
    if rng.random() < 0.8:
        size = float(rng.uniform(0.6, 1.3)) * s
        at = _near(rng, porta[0] - 32 * s, porta[1] - 30 * s, porta[2] - 8, 7)
        p.ellipsoid(FLUID, at, (28 * size, 17 * size, 13 * size), turn=rotation(rng, 20))
    spine = patient.half_mm[0] - 52 * s
    p.tube(BLOOD, (-300, spine - 26 * s, 12 * s), (300, spine - 24 * s, 12 * s), (10 * s, 12 * s))
    p.tube(BLOOD, (-300, spine - 26 * s, -22 * s), (105 * s, spine - 34 * s, -26 * s), (11 * s, 12 * s))


def _branch(
    p: _Painter, rng: np.random.Generator, start: Triple, way: Array, radius: float, length: float, depth: int
) -> None:
    stop = np.asarray(start, np.float32) + way * length
    end = float(stop[0]), float(stop[1]), float(stop[2])
    p.tube(BLOOD, start, end, (radius, radius * 0.8), hepatic=True)
    if depth == 0:
        return
    for _ in range(2):
        turned = way + 0.6 * rng.standard_normal(3).astype(np.float32)
        turned /= np.linalg.norm(turned)
        _branch(p, rng, end, turned, radius * 0.7, length * float(rng.uniform(0.65, 0.95)), depth - 1)


def _vessels(p: _Painter, patient: Patient, rng: np.random.Generator, porta: Triple) -> None:
    s = patient.size
    for directions, root, radius, length in (
        (((0.15, 0.1, -1.0), (0.35, -0.5, 0.8), (0.7, -0.1, -0.6)), porta, 5.0 * s, 30 * s),
        (
            ((-0.6, -0.3, -1.0), (-0.7, -0.9, -0.3), (-0.5, -0.8, 0.6)),
            (porta[0] + 62 * s, porta[1] + 18 * s, porta[2] + 2), 5.0 * s, 40 * s,
        ),
    ):  # fmt: skip
        for direction in directions:
            way = np.asarray(direction, np.float32)
            _branch(p, rng, root, np.asarray(way / np.linalg.norm(way), np.float32), radius, length, 2)


def sections(patient: Patient, z_mm: list[float]) -> list[Section]:
    """Cut the patient at positions z_mm (ascending, evenly spaced, or one); same patient and z, same sections."""
    rng = np.random.default_rng([patient.shape_seed, 0xA7])
    margin = 14.0
    rows, columns = (int(np.ceil((h + margin) / PITCH_MM)) * 2 for h in patient.half_mm)
    spacing = z_mm[1] - z_mm[0] if len(z_mm) > 1 else 10.0
    grid = Grid(
        (len(z_mm), rows, columns), (spacing, PITCH_MM, PITCH_MM),
        (z_mm[0], -(rows - 1) * PITCH_MM / 2, -(columns - 1) * PITCH_MM / 2),
    )  # fmt: skip
    p = _Painter(grid, rng, float(rng.uniform(1, 4.5)))
    cavity = _frame(p, patient, rng)
    porta = _liver(p, patient, rng, cavity)
    _organs(p, patient, rng, porta, cavity)
    _vessels(p, patient, rng, porta)
    if rng.random() < 0.12:  # a focal lesion
        at = (
            porta[0] + float(rng.uniform(-30, 40)),
            porta[1] + float(rng.uniform(-50, 30)),
            porta[2] - float(rng.uniform(10, 70)),
        )
        p.ellipsoid(LESION, at, (r := float(rng.uniform(6, 18)), r * float(rng.uniform(0.8, 1.2)), r))
    ratio = np.exp(patient.variation * smooth_field(rng, grid, patient.variation_mm))
    texture = 1 + float(rng.uniform(0.01, 0.06)) * smooth_field(rng, grid, float(rng.uniform(8, 25)))
    _, y, x = grid.axes()
    return [
        Section(
            z, y.ravel(), x.ravel(), np.ascontiguousarray(p.shares[:, i]), p.liver[i], p.vessel[i],
            np.asarray(ratio[i], np.float32), np.asarray(texture[i], np.float32),
            float((ndimage.distance_transform_edt(p.liver[i] > 0.5) * PITCH_MM > CAPSULE_MM).sum()) * PITCH_MM**2,
        )
        for i, z in enumerate(z_mm)
    ]  # fmt: skip
