"""Our own inversion of a wave: shear stiffness and confidence, for exams whose scanner sent no elastogram.

Local Helmholtz inversion G lap(u) = -rho w^2 u by least squares over a neighbourhood. The wave is divided into waves
that travel in different directions, so that crossing waves do not cancel in the fit, and smoothed at several scales.
Displacement and Laplacian pass the same Gaussian filters, which therefore do not bias their ratio (fits of a polynomial
do). Noise does: it lowers |G|, most where waves are long. What noise contributes is measured with the same filters on
the residual of the harmonics, and taken away.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from pipelines.mre_qc.grids import Array, Mask
from pipelines.mre_qc.harmonics import Complex, Harmonics, wave_numbers_squared

DENSITY_KG_M3 = 1000.0
SMOOTHING_MM = (2.0, 3.0, 4.5)  # SD of the Gaussian, one model each
SMOOTHING = 0.09  # of the wavelength: where the error by noise and that by blurring borders are about equal
WINDOW_MM = 5.0  # SD of the neighbourhood of the fit
LONGEST_MM = 150.0  # longer waves are compression or bulk motion
DIRECTIONS = 4
LARGEST_KPA = 25.0


@dataclass(frozen=True)
class Inverted:
    """Stiffness and how well a wave fits, each [row, column]."""

    stiffness_kpa: Array  # |G*|; 0 out of the body
    confidence: Array  # 0..1, on the scale of the consoles' maps: 0.95 stands for a squared correlation of 0.82


@lru_cache(maxsize=4)
def _directions(shape: tuple[int, int], spacing_mm: tuple[float, float]) -> tuple[Array, ...]:
    """Weights in the Fourier domain, [row, column] each, of waves that travel one way; together 1."""
    angle = np.arctan2(fft.fftfreq(shape[0], spacing_mm[0])[:, None], fft.fftfreq(shape[1], spacing_mm[1])[None, :])
    lobes = [
        np.maximum(np.cos(angle - 2 * np.pi * way / DIRECTIONS), 0).astype(np.float32) ** 2 for way in range(DIRECTIONS)
    ]
    total = np.sum(lobes, axis=0)
    return tuple(np.asarray(lobe / total, np.float32) for lobe in lobes)


def invert(waves: Harmonics, body: Mask, hz: float, spacing_mm: tuple[float, float]) -> Inverted:
    """Shear stiffness from the first harmonic of a wave in any unit.

    hz: at which the tissue moves. Source of the fit: Manduca et al., Med. Image Anal. 5:237 (2001).
    """
    k2 = wave_numbers_squared(body.shape, spacing_mm)
    low = np.float32((2 * np.pi / LONGEST_MM) ** 2)
    shear = k2**2 / (k2**2 + low**2)
    spectra = [fft.fft2(np.where(body, part, 0).astype(np.complex64)) * shear for part in (waves.first, waves.residual)]
    lobes = _directions((body.shape[0], body.shape[1]), spacing_mm)
    total, fits = np.zeros(body.shape, np.complex64), np.zeros(body.shape, np.float32)
    weights = np.full(body.shape, 1e-9, np.float32)
    for smooth_mm in SMOOTHING_MM:
        gauss = np.exp(np.float32(-0.5 * smooth_mm**2) * k2)
        modulus, fit = _model([spectrum * gauss for spectrum in spectra], k2, lobes, hz, spacing_mm)
        wavelength = np.sqrt(np.abs(modulus) / DENSITY_KG_M3) / hz * 1000 + 1e-3
        weight = (np.exp(-0.5 * (np.log(smooth_mm / (SMOOTHING * wavelength)) / 0.35) ** 2) + 1e-4) * fit**4
        total += weight * modulus
        fits += weight * fit
        weights += weight
    stiffness = np.clip(np.abs(total / weights) / 1000, 0, LARGEST_KPA) * body
    confidence = (1 - (1 - np.clip(fits / weights, 0, 1)) ** 1.75) * body
    return Inverted(np.asarray(stiffness, np.float32), np.asarray(confidence, np.float32))


def _model(
    spectra: list[NDArray], k2: Array, lobes: tuple[Array, ...], hz: float, spacing_mm: tuple[float, float]
) -> tuple[Complex, Array]:
    """Complex modulus (Pa) and squared correlation 0..1 from smoothed spectra of the wave and of its error."""
    sigma = [WINDOW_MM / mm for mm in spacing_mm]

    def around(image: NDArray) -> Array:
        return np.asarray(ndimage.gaussian_filter(np.asarray(image, np.float32), sigma, truncate=2.5), np.float32)

    uu, ll, real, imag = (np.zeros(k2.shape, np.float32) for _ in range(4))
    raw_uu, raw_ll = np.zeros(k2.shape, np.float32), np.zeros(k2.shape, np.float32)
    wave = fft.ifft2(spectra[0])
    size = np.abs(wave) ** 2
    # Every pixel weighs by its shape more than by its amplitude: strong waves at the wall do not speak for the liver.
    even = 1 / (size + 0.3 * ndimage.gaussian_filter(size, [6.0 / mm for mm in spacing_mm], truncate=2.5) + 1e-12)
    for lobe in lobes:
        u, laplacian = fft.ifft2(spectra[0] * lobe), fft.ifft2(spectra[0] * (-k2 * lobe))
        n, noise = fft.ifft2(spectra[1] * lobe), fft.ifft2(spectra[1] * (-k2 * lobe))
        here_uu, here_ll = np.abs(u) ** 2, np.abs(laplacian) ** 2
        cross, noise_cross = np.conj(laplacian) * u, (np.conj(noise) * n).real
        raw_uu += here_uu
        raw_ll += here_ll
        uu += here_uu - np.abs(n) ** 2
        ll += here_ll - np.abs(noise) ** 2
        real += cross.real - noise_cross
        imag += cross.imag
    raw_uu, raw_ll, uu, ll, real, imag = (around(part * even) for part in (raw_uu, raw_ll, uu, ll, real, imag))
    correlation = np.hypot(real, imag)
    fit = np.where(real < 0, correlation**2 / np.maximum(raw_uu * raw_ll, 1e-30), 0)
    # What is left where noise was more than the wave is not trusted: the raw sums bound the corrected ones.
    uu, ll = np.maximum(uu, 0.3 * raw_uu), np.maximum(ll, 0.1 * raw_ll)
    scale = np.float32(DENSITY_KG_M3 * (2 * np.pi * hz) ** 2 * 1e-6)  # the Laplacian is per mm2
    # Between the ratio of the fit, which noise that was not taken away lowers, and that of the norms.
    ratio = np.sqrt(correlation / np.maximum(ll, 1e-30) * np.sqrt(uu / np.maximum(ll, 1e-30)))
    modulus = -scale * (real + 1j * imag) / np.maximum(correlation, 1e-30) * ratio
    return np.asarray(modulus, np.complex64), np.asarray(np.clip(fit, 0, 1), np.float32)
