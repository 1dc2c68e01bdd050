"""What the scanner and the patient's breath do to the ideal HU volumes."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from models.phantoms.fields import Array, Grid, smooth_field


@dataclass(frozen=True)
class Scan:
    """Image quality of one phase."""

    noise_hu: float  # SD in the soft tissue
    kernel_mm: float  # in-plane correlation of the noise: 0.4 sharp, 1.2 soft
    slice_blur_mm: float  # SD of the slice profile
    plane_blur_mm: float  # SD of the in-plane point spread


def draw_scan(rng: np.random.Generator, spacing_z_mm: float, *, simple: bool) -> Scan:
    """Draw noise and sharpness; thin slices are noisier."""
    noise = float(np.exp(rng.uniform(np.log(5), np.log(22))))
    if simple and rng.random() < 0.5:
        noise = float(rng.uniform(0.5, 6))
    return Scan(
        noise_hu=noise,
        kernel_mm=float(rng.uniform(0.3, 1.1)),
        slice_blur_mm=float(spacing_z_mm * rng.uniform(0.0, 0.5)),
        plane_blur_mm=float(rng.uniform(0.1, 0.7)),
    )


def blur(volume: Array, scan: Scan, grid: Grid) -> Array:
    """Slice profile and in-plane point spread, as a separable Gaussian."""
    sigma = [
        s / d
        for s, d in zip((scan.slice_blur_mm, scan.plane_blur_mm, scan.plane_blur_mm), grid.spacing_mm, strict=True)
    ]
    for axis, s in enumerate(sigma):
        if s > 0.2:
            volume = ndimage.gaussian_filter1d(volume, s, axis=axis, truncate=3.0)
    return np.asarray(volume, np.float32)


def add_noise(volume: Array, rng: np.random.Generator, scan: Scan, grid: Grid) -> Array:
    """Add correlated noise whose SD in soft tissue is about `scan.noise_hu`, less at the rim and in air."""
    if scan.noise_hu <= 0:
        return volume
    noise = rng.standard_normal(volume.shape, dtype=np.float32)
    for axis in (1, 2):
        s = scan.kernel_mm / grid.spacing_mm[axis]
        if s > 0.2:
            noise = ndimage.gaussian_filter1d(noise, s, axis=axis, truncate=3.0)
    step = max(1, noise.size // 200_000)
    noise *= scan.noise_hu / float(noise.ravel()[::step].std())
    noise *= np.clip(1 + 0.12 * smooth_field(rng, grid, 90), 0.6, 1.4)
    return np.asarray(volume + noise * np.clip((volume + 1100) / 900, 0.15, 1), np.float32)


def breathe(volume: Array, rng: np.random.Generator, grid: Grid, largest_mm: float) -> Array:
    """Move the anatomy as another breath-hold would: mostly head to feet, with a mild deformation."""
    if largest_mm <= 0:
        return volume
    amount = float(rng.uniform(0, largest_mm)) * float(rng.choice([-1, 1]))
    shift = (amount, float(rng.normal(0, 0.18 * abs(amount))), float(rng.normal(0, 0.12 * abs(amount))))
    coordinates = []
    for axis, line in enumerate(np.indices(grid.shape, dtype=np.float32, sparse=True)):
        bend = 0.12 * abs(amount) * smooth_field(rng, grid, 70)
        coordinates.append(line + (shift[axis] + bend) / grid.spacing_mm[axis])
    moved = ndimage.map_coordinates(volume, np.stack(coordinates), order=1, mode="nearest")
    return np.asarray(moved, np.float32)
