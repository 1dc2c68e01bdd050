"""What a scanner's console makes of the images: unwrapped phase, wave, elastogram, confidence, colour pictures.

The console knows nothing of the truth: it assumes the sequence's frequency, unwraps what it is given and inverts it, so
its maps err as real ones do.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from models.phantoms.fields import Array
from models.phantoms.mre.tissue import DENSITY_KG_M3

Complex64 = NDArray[np.complex64]
LARGEST_KPA = 25.0
SMOOTHING = 0.09


@dataclass(frozen=True)
class Inversion:
    """One maker's settings of the local Helmholtz inversion; lengths mm."""

    smooth_mm: tuple[float, ...] = (2.0, 3.0, 4.5)  # SDs of the Gaussian before the second derivative, one model each
    window_mm: float = 5.0  # SD of the neighbourhood of the least-squares fit
    longest_mm: float = 150.0  # waves longer than this are the longitudinal background
    form: str = "speed"  # "speed": rho c^2; "modulus": |G*|


@dataclass(frozen=True)
class Maps:
    """Console output of one slice, each [row, column] or [offset, row, column]."""

    magnitude: Array  # [row, column], mean of the offsets
    phase: Array  # [offset, row, column] wrapped, rad
    unwrapped: Array  # [offset, row, column] rad
    harmonic: Complex64  # [row, column] first temporal harmonic, rad, long waves removed
    stiffness_kpa: Array
    confidence: Array  # 0..1


@lru_cache(maxsize=8)
def _wave_numbers(rows: int, columns: int, pixel_mm: float) -> tuple[Array, Array]:
    """Squared spatial frequency (rad/mm)^2 [row, column], and the denominator of the discrete Poisson problem."""
    ky, kx = 2 * np.pi * fft.fftfreq(rows, pixel_mm), 2 * np.pi * fft.fftfreq(columns, pixel_mm)
    cy, cx = np.cos(np.pi * np.arange(rows) / rows), np.cos(np.pi * np.arange(columns) / columns)
    poisson = 2 * (cy[:, None] + cx[None, :] - 2)
    poisson[0, 0] = 1.0
    return (ky[:, None] ** 2 + kx[None, :] ** 2).astype(np.float32), poisson.astype(np.float32)


def unwrap(phase: Array, body: NDArray[np.bool_]) -> Array:
    """Unwrap [offset, row, column] inside `body`: least squares of the wrapped steps, then the nearest congruent phase.

    Source: Ghiglia & Romero, J. Opt. Soc. Am. A 11:107 (1994), unweighted with steps outside the body set to zero.
    Offsets are brought to a common multiple of 2 pi by the median over the body.
    """
    rows, columns = phase.shape[1:]
    _, poisson = _wave_numbers(rows, columns, 1.0)
    both_y, both_x = body[1:] & body[:-1], body[:, 1:] & body[:, :-1]
    dy, dx = np.diff(phase, axis=1) * both_y, np.diff(phase, axis=2) * both_x
    if max(float(np.abs(dy).max(initial=0)), float(np.abs(dx).max(initial=0))) < np.pi:
        return phase
    dy -= 2 * np.pi * np.rint(dy / (2 * np.pi))
    dx -= 2 * np.pi * np.rint(dx / (2 * np.pi))
    divergence = np.zeros_like(phase)
    divergence[:, :-1] += dy
    divergence[:, 1:] -= dy
    divergence[:, :, :-1] += dx
    divergence[:, :, 1:] -= dx
    spectrum = fft.dctn(divergence, axes=(1, 2)) / poisson
    spectrum[:, 0, 0] = 0
    smooth = fft.idctn(spectrum, axes=(1, 2))
    inside = body if body.any() else np.ones_like(body)
    for offset in range(len(phase)):
        difference = phase[offset] - smooth[offset]
        smooth[offset] += np.angle(np.exp(1j * difference[inside]).mean())
    turns = np.rint((smooth - phase) / (2 * np.pi)) * body
    whole = phase + 2 * np.pi * turns
    whole -= 2 * np.pi * np.rint(np.median(whole[:, inside], axis=1) / (2 * np.pi))[:, None, None]
    return np.asarray(whole, np.float32)


def first_harmonic(phase: Array) -> Complex64:
    """Amplitude of cos at the sequence's frequency: phase[k] = Re(U e^{2 pi i k / N}) gives U."""
    turn = np.exp(-2j * np.pi * np.arange(len(phase)) / len(phase)) * 2 / len(phase)
    return np.asarray(np.tensordot(turn.astype(np.complex64), phase, axes=(0, 0)), np.complex64)


def invert(
    harmonic: Complex64, body: NDArray[np.bool_], hz: float, pixel_mm: float, settings: Inversion
) -> tuple[Array, Array, Complex64]:
    """Stiffness (kPa), confidence (0..1) and the filtered wave from the first harmonic [row, column].

    Algebraic inversion of G lap(u) = -rho w^2 u, fitted by least squares over a neighbourhood in which every pixel
    weighs by its shape, not its amplitude, so that the strong waves at the body wall do not speak for the liver beside
    them. Displacement and Laplacian pass the same filters, so these do not bias it. |G| is between the fit's ratio,
    which noise lowers, and the ratio of the norms, which it lowers half as much. Models that differ in their smoothing
    are averaged: those near SMOOTHING of their own wavelength that fit well weigh most. Confidence grows with the
    squared correlation r^2 of displacement and Laplacian: 1 - (1 - r^2)^1.75, so that 0.95 stands for r^2 = 0.82.
    """
    k2, _ = _wave_numbers(*harmonic.shape, pixel_mm)
    low = (2 * np.pi / settings.longest_mm) ** 2
    spectrum = fft.fft2(np.where(body, harmonic, 0).astype(np.complex64)) * (k2**2 / (k2**2 + low**2))
    # rho w^2 in kg/(m^3 s^2); the Laplacian is per mm^2, so the ratio is in 1e-6 m^2; G in Pa.
    scale = np.float32(DENSITY_KG_M3 * (2 * np.pi * hz) ** 2 * 1e-6)
    total = np.zeros(harmonic.shape, np.complex64)
    weights, fits = np.full(harmonic.shape, 1e-9, np.float32), np.zeros(harmonic.shape, np.float32)
    waves = []
    for smooth in settings.smooth_mm:
        filtered = spectrum * np.exp(-0.5 * k2 * smooth**2)
        wave, laplacian = fft.ifft2(filtered), fft.ifft2(-k2 * filtered)
        waves.append(wave)
        size = np.abs(wave) ** 2
        even = 1 / (size + 0.3 * _around(size, 6.0 / pixel_mm) + 1e-9)
        cross = np.conj(laplacian) * wave * even
        uu, ll, real, imag = (
            _around(part, settings.window_mm / pixel_mm)
            for part in (size * even, np.abs(laplacian) ** 2 * even, cross.real, cross.imag)
        )
        correlation = np.hypot(real, imag) + 1e-20
        ll = np.maximum(ll, 1e-12)
        modulus = -scale * (real + 1j * imag) / correlation * np.sqrt(correlation / ll * np.sqrt(uu / ll))
        fit = np.clip(np.where(real < 0, correlation**2 / np.maximum(uu * ll, 1e-20), 0), 0, 1)
        wavelength = np.sqrt(np.abs(modulus) / DENSITY_KG_M3) / hz * 1000 + 1e-3
        weight = (np.exp(-0.5 * (np.log(smooth / (SMOOTHING * wavelength)) / 0.35) ** 2) + 1e-4) * fit**4
        total += weight * modulus
        fits += weight * fit
        weights += weight
    modulus = total / weights
    stiffness = np.abs(modulus)
    if settings.form == "speed":
        stiffness = 2 * stiffness**2 / np.maximum(modulus.real + stiffness, 1e-3 * stiffness + 1e-9)
    confidence = 1 - (1 - np.clip(fits / weights, 0, 1)) ** 1.75
    clipped = np.clip(stiffness / 1000, 0, LARGEST_KPA) * body
    return np.asarray(clipped, np.float32), np.asarray(confidence * body, np.float32), waves[0].astype(np.complex64)


def _around(image: NDArray, sigma: float) -> Array:
    return np.asarray(ndimage.gaussian_filter(image.astype(np.float32), sigma, truncate=2.5, mode="constant"))


def process(images: Complex64, noise: float, hz: float, pixel_mm: float, settings: Inversion) -> Maps:
    """All maps of one slice from its phase-difference images [offset, row, column]."""
    magnitude = np.abs(images).mean(0)
    body = ndimage.binary_fill_holes(
        ndimage.gaussian_filter(magnitude, 4 / pixel_mm) > max(3 * noise, 0.04 * float(np.percentile(magnitude, 98)))
    )
    phase = np.angle(images).astype(np.float32)
    unwrapped = unwrap(phase, body)
    stiffness, confidence, wave = invert(first_harmonic(unwrapped), body, hz, pixel_mm, settings)
    return Maps(np.asarray(magnitude, np.float32), phase, unwrapped, wave, stiffness, confidence)
