"""Phase of several offsets -> wave: unwrapping, the harmonic of the driver, and what the other harmonics say of errors.

With N offsets evenly over one period of vibration the motion fills one temporal frequency. What the others hold is
noise, motion of the patient and phase that could not be unwrapped: an estimate of the error, made where it acts.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from pipelines.mre_qc.grids import Array, Mask

Complex = NDArray[np.complex64]


@dataclass(frozen=True)
class Harmonics:
    """What the offsets hold, each [row, column] rad."""

    first: Complex  # phase[k] = Re(first * e^{2 pi i k / N}) + the rest
    residual: Complex  # what is left, scaled to the error of `first`: the same variance where errors are random
    still: Array  # mean over the offsets, scaled likewise; the body's motion leaves it, and eddy currents a plane
    degrees: int  # of freedom per pixel in `residual`


def body_from_phase(phase: Array) -> Mask:
    """Where neighbouring pixels agree in phase: the body, where no magnitude is there. phase [offset, row, column]."""
    signal = np.exp(1j * phase).astype(np.complex64)
    near = [np.abs(_smooth_complex(one, 1.5)) for one in signal]
    return largest_part(np.mean(near, axis=0) > 0.55)


def largest_part(mask: Mask) -> Mask:
    """The largest connected part of a mask, its holes filled."""
    labels, count = ndimage.label(ndimage.binary_opening(mask, iterations=2))
    if not count:
        return np.zeros_like(mask)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return np.asarray(ndimage.binary_fill_holes(labels == sizes.argmax()), np.bool_)


def _smooth_complex(image: Complex, sigma: float) -> Complex:
    real, imag = (ndimage.gaussian_filter(part, sigma, truncate=2.5) for part in (image.real, image.imag))
    return np.asarray(real + 1j * imag, np.complex64)


def harmonics(phase: Array) -> Harmonics:
    """First harmonic of [offset, row, column], and the rest.

    Independent errors of SD s per offset give `first` a variance of 4 s^2 / N. The rest has N - 3 degrees of freedom;
    with N = 3 there is none and it is taken from the finest detail of the first harmonic in space.
    """
    offsets = len(phase)
    turns = np.exp(-2j * np.pi * np.arange(offsets) / offsets).astype(np.complex64)
    first = np.asarray(np.tensordot(turns * np.float32(2 / offsets), phase, axes=(0, 0)), np.complex64)
    still = np.asarray(2 * phase.mean(0), np.float32)
    if offsets < 4:
        # A mask of alternating signs takes any wave away that spans more than a few pixels, and a white error keeps
        # its variance.
        detail = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32) / 6
        real, imag = (ndimage.convolve(part, detail) for part in (first.real, first.imag))
        return Harmonics(first, np.asarray(real + 1j * imag, np.complex64), still, 1)
    back = np.conj(turns)[:, None, None]
    rest = phase - phase.mean(0) - (first * back).real
    # Several bins: one that stands for all, with their sign kept so that filters in space act on it as on the wave.
    signs = np.where(np.arange(offsets) % 2, -1.0, 1.0).astype(np.float32)
    one = np.tensordot(signs, rest, axes=(0, 0)) / offsets
    power = (rest**2).sum(0) / (offsets - 3)
    scale = np.sqrt(4 * power.mean() / offsets / max(float((one**2).mean()), 1e-20))
    return Harmonics(first, np.asarray(one * np.float32(scale), np.complex64), still, offsets - 3)


def without_long_waves(wave: Complex, body: Mask, spacing_mm: tuple[float, float], longest_mm: float) -> Complex:
    """A wave inside `body` without what is longer than `longest_mm`: compression, bulk motion."""
    k2 = wave_numbers_squared(wave.shape, spacing_mm)
    low = np.float32((2 * np.pi / longest_mm) ** 2)
    spectrum = fft.fft2(np.where(body, wave, 0).astype(np.complex64)) * (k2**2 / (k2**2 + low**2))
    return np.asarray(fft.ifft2(spectrum) * body, np.complex64)


def wave_numbers_squared(shape: tuple[int, ...], spacing_mm: tuple[float, float]) -> Array:
    """Squared spatial frequency (rad/mm)^2 [row, column] in the order of the FFT."""
    return _wave_numbers_squared(int(shape[0]), int(shape[1]), *spacing_mm)


@lru_cache(maxsize=8)
def _wave_numbers_squared(rows: int, columns: int, row_mm: float, column_mm: float) -> Array:
    down, across = 2 * np.pi * fft.fftfreq(rows, row_mm), 2 * np.pi * fft.fftfreq(columns, column_mm)
    return np.asarray(down[:, None] ** 2 + across[None, :] ** 2, np.float32)


def local_rms(image: NDArray, sigma_mm: float, spacing_mm: tuple[float, float]) -> Array:
    """Root mean square of an image's size over a Gaussian neighbourhood."""
    power = np.asarray(np.abs(image) ** 2, np.float32)
    sigma = [sigma_mm / mm for mm in spacing_mm]
    return np.asarray(np.sqrt(np.maximum(ndimage.gaussian_filter(power, sigma, truncate=2.5), 0)), np.float32)
