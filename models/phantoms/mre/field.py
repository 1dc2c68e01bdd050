"""The displacement of one section while the driver runs: shear wave, and the longitudinal background it rides on."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.phantoms.fields import Array, Grid, smooth_field
from models.phantoms.mre.anatomy import PITCH_MM, Patient, Section
from models.phantoms.mre.tissue import DENSITY_KG_M3, LESION, LIVER, MATERIALS, SPLEEN, modulus_pa
from models.phantoms.mre.wave import grow_outwards, solve_wave

Complex = NDArray[np.complex128]


@dataclass(frozen=True)
class Driver:
    """How the body is shaken: a drum on the skin of the right front, and the capsule that it shakes with it."""

    hz: float
    angle_rad: float  # where on the skin: 0 = the patient's left, -pi/2 = front, -pi = right
    width_mm: float  # SD of the drum's push along the skin
    capsule: float  # share of the waves that start at the liver's surface
    tilt_rad: float  # angle of the waves to the slice
    background: float  # longitudinal motion relative to the shear wave
    strength: float = 1.0  # what arrives of the usual motion: less from a misplaced driver


@dataclass(frozen=True)
class WaveField:
    """Complex displacement (e^{iwt}) on the section's grid; 1 = the 70th percentile of |shear| in this liver."""

    shear: Complex  # [row, column]
    background: Complex  # [row, column], long waves, to be removed by a high-pass filter
    liver_kpa: Array  # [row, column] |G*| at the driver's frequency, kPa; of liver tissue


def draw_driver(rng: np.random.Generator, hz: float) -> Driver:
    """A well placed driver: beside the sternum to the right mid-axillary line."""
    return Driver(
        hz=hz,
        angle_rad=float(np.clip(rng.normal(-2.35, 0.22), -2.9, -1.7)),
        width_mm=float(rng.uniform(28, 48)),
        capsule=float(rng.uniform(0.15, 0.65)),
        tilt_rad=float(np.deg2rad(abs(rng.normal(0, 4.5)))),
        background=float(rng.uniform(0.1, 0.8)),
    )


def _moduli(patient: Patient, section: Section, hz: float) -> tuple[Complex, Array]:
    """G* of every pixel (Pa), and |G*| of the liver (kPa)."""
    kpa = np.array([max(m.kpa, 0.5) for m in MATERIALS])
    alpha = np.array([m.alpha for m in MATERIALS])
    kpa[LIVER], alpha[LIVER], kpa[SPLEEN] = patient.liver_kpa, patient.liver_alpha, patient.spleen_kpa
    kpa[LESION] = patient.liver_kpa * 2.2
    each = modulus_pa(kpa, alpha, hz)
    shares = section.shares.astype(np.float64)
    shares[LIVER] *= section.stiffness_ratio
    total = np.tensordot(each, shares, axes=(0, 0))
    liver = np.abs(each[LIVER]) * section.stiffness_ratio / 1000
    return total, np.asarray(liver, np.float32)


def wave_field(patient: Patient, section: Section, driver: Driver, seed: int, *, spacing_mm: float = 3.0) -> WaveField:
    """Solve the wave of one section.

    spacing_mm: of the solver's grid, made finer where the liver's waves are short. seed draws what the driver does to
    the capsule and the background. A section without liver is scaled by the waves in the whole body.
    """
    rng = np.random.default_rng([seed, 0xF1])
    total, liver_kpa = _moduli(patient, section, driver.hz)
    speed = np.sqrt(1000 * patient.liver_kpa / DENSITY_KG_M3)
    step = min(spacing_mm, 1000 * speed / driver.hz / 5.2)
    y, x = section.y_mm.astype(np.float64), section.x_mm.astype(np.float64)
    rows = np.arange(y[0], y[-1] + 1e-6, step)
    columns = np.arange(x[0], x[-1] + 1e-6, step)
    where = np.meshgrid((rows - y[0]) / PITCH_MM, (columns - x[0]) / PITCH_MM, indexing="ij")

    def coarse(image: NDArray[np.floating]) -> NDArray[np.float64]:
        return np.asarray(ndimage.map_coordinates(image, where, order=1, mode="nearest"), np.float64)

    body = coarse(section.body.astype(np.float32)) > 0.5
    modulus = coarse(total.real) + 1j * coarse(total.imag)
    liver = coarse(section.liver)
    grid = Grid((1, len(rows), len(columns)), (10.0, step, step), (0.0, float(rows[0]), float(columns[0])))
    source = _source(driver, patient, body, liver, rows, columns, grid, rng)
    kz = 2 * np.pi * driver.hz / speed * np.sin(driver.tilt_rad)
    u = solve_wave(modulus, body, source, driver.hz, step, tilt_per_m=float(kz))
    u = grow_outwards(u, body, 3)
    inside = liver > 0.6 if (liver > 0.6).sum() > 60 else body
    u /= np.percentile(np.abs(u[inside]), 70)
    fine = [((a - b[0]) / step) for a, b in ((y, rows), (x, columns))]
    mesh = np.meshgrid(*fine, indexing="ij")
    parts = [ndimage.map_coordinates(part, mesh, order=3, mode="nearest") for part in (u.real, u.imag)]
    whole = Grid((1, len(y), len(x)), (10.0, PITCH_MM, PITCH_MM), (0.0, float(y[0]), float(x[0])))
    drum = driver_position(driver, patient)
    far = np.hypot(y[:, None] - drum[0], x[None, :] - drum[1])
    slow = smooth_field(rng, whole, 170)[0] + 1j * smooth_field(rng, whole, 170)[0]
    phase = np.exp(1j * rng.uniform(0, 2 * np.pi))
    background = driver.background * (phase + 0.4 * slow) * 1.6 * np.exp(-far / 170)
    return WaveField(driver.strength * (parts[0] + 1j * parts[1]), driver.strength * background, liver_kpa)


def driver_position(driver: Driver, patient: Patient) -> tuple[float, float]:
    """(y, x) of the drum's centre on the skin, mm."""
    return patient.half_mm[0] * float(np.sin(driver.angle_rad)), patient.half_mm[1] * float(np.cos(driver.angle_rad))


def _source(
    driver: Driver, patient: Patient, body: NDArray[np.bool_], liver: NDArray[np.float64],
    rows: NDArray[np.float64], columns: NDArray[np.float64], grid: Grid, rng: np.random.Generator,
) -> Complex:  # fmt: skip
    """Force of the drum on the skin and of the capsule that it shakes, each with unit total."""
    y0, x0 = driver_position(driver, patient)
    distance = np.hypot(rows[:, None] - y0, columns[None, :] - x0)
    depth = ndimage.distance_transform_edt(body, grid.spacing_mm[1])
    drum = np.exp(-0.5 * (distance / driver.width_mm) ** 2) * np.exp(-depth / 8.0) * body
    slope = np.hypot(*np.gradient(ndimage.gaussian_filter(liver, 1.0)))
    wobble = np.exp(1j * (rng.uniform(0, 6.3) + 0.9 * smooth_field(rng, grid, 90)[0]))
    capsule = slope * np.exp(-distance / 110) * (1 + 0.4 * smooth_field(rng, grid, 60)[0]) * wobble
    source = drum.astype(np.complex128) / max(float(drum.sum()), 1e-9)
    strength = float(np.abs(capsule).sum())
    if strength > 1e-6:
        source = source * (1 - driver.capsule) + 0.35 * driver.capsule * capsule / strength
    return np.asarray(source, np.complex128)
