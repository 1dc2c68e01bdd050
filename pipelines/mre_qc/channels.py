"""One slice of an elastography as channels for the networks: what each image says, measured on a common grid.

What needs the images' own resolution (steps, wraps and noise of the phase, sharpness) is measured there and brought to
the grid after. A channel of an image that is not there is 0 everywhere; the last channels say what is there.
Magnitudes and waves count relative to the image, phase in rad, stiffness in kPa, so that vendors' scales do not matter.
"""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

Array = NDArray[np.float32]
# Image with rows and columns last (colour: before red, green, blue), its first pixel's centre, its spacing; mm, both
# (down, to the patient's left) and from the point in which all images of the slice are centred.
Placed = tuple[NDArray, tuple[float, float], tuple[float, float]]

SHAPE = (80, 96)
PITCH_MM = 4.0  # the shortest wave looked for, 18 mm, is 4 pixels long
CENTRE_MM = (0.0, -20.0)  # the grid reaches further to the patient's right, where the liver is
ROLES = ("magnitude", "phase", "wave", "elastogram", "confidence", "colour")
OF_ROLE = {
    "magnitude": ("brightness", "log_brightness", "log_unrest", "log_edges"),
    "phase": (
        "wave_real", "wave_imaginary", "log_wave", "log_residual", "second_harmonic", "log_rest", "coherence",
        "log_steps", "wraps", "fit", "log_stiffness", "mean_phase", "log_margin",
    ),
    "wave": ("image_real", "image_imaginary", "log_image"),
    "elastogram": ("log_kpa", "log_variation", "filled"),
    "confidence": ("confidence", "confident"),
    "colour": ("red", "green", "blue", "painted", "hatched"),
}  # fmt: skip
CHANNELS = (
    *(name for role in ROLES for name in OF_ROLE[role]),
    "seen", "hertz", "gre", "se_epi", *(f"has_{role}" for role in ROLES),
)  # fmt: skip
LOCAL_MM = 6.0  # SD over which wave and error are compared, as in the definition of a readable place
LONGEST_MM = 160.0  # longer waves are no shear waves
USUAL_HZ = 60.0
DENSITY_KG_M3 = 1000.0


def describe(images: Mapping[str, Placed], hz: float | None, sequence: str) -> Array:
    """Channels [len(CHANNELS), *SHAPE] of one slice.

    images: any of ROLES. magnitude [offset, row, column], phase likewise in rad (wrapped), wave likewise; elastogram
    [row, column] kPa; confidence 0..1; colour [row, column, 3] uint8. hz: that the sequence encodes, None: unknown.
    sequence: "GRE", "SE-EPI" or "". Raises ValueError when there is no image or one has no extent.
    """
    if not images:
        raise ValueError("a slice without any image cannot be judged")
    out = {name: np.zeros(SHAPE, np.float32) for name in CHANNELS}
    for role, placed in images.items():
        picture, first, spacing = placed
        rows, columns = picture.shape[:2] if role == "colour" else picture.shape[-2:]
        if min(picture.shape) < 1 or min(spacing) <= 0 or min(rows, columns) < 8:
            raise ValueError(f"{role}: no image of shape {picture.shape} with pixels of {spacing} mm")
        down, across = (_lines(axis, first[axis], spacing[axis], count) for axis, count in enumerate((rows, columns)))
        seen = down.sum(1)[:, None] * across.sum(1)[None, :]
        inside = seen > 0.5
        measured = _MEASURE[role](np.nan_to_num(picture.astype(np.float32)), spacing, hz or USUAL_HZ)
        stack = np.stack([measured[name] for name in OF_ROLE[role]])
        on_grid = down @ stack @ across.T / np.maximum(seen, 0.5)
        for name, values in zip(OF_ROLE[role], on_grid, strict=True):
            out[name] = np.where(inside, values, 0).astype(np.float32)
        out["seen"] = np.maximum(out["seen"], inside)
        out[f"has_{role}"][:] = 1
    out["hertz"][:] = ((hz or USUAL_HZ) - 60) / 20
    out["gre"][:] = sequence == "GRE"
    out["se_epi"][:] = sequence == "SE-EPI"
    return np.clip(np.stack([out[name] for name in CHANNELS]), -3.9, 3.9)


def onto_grid(image: NDArray, first: tuple[float, float], spacing: tuple[float, float]) -> Array:
    """[row, column] to SHAPE; 0 where the image does not reach."""
    down, across = (_lines(axis, first[axis], spacing[axis], image.shape[axis]) for axis in (0, 1))
    seen = down.sum(1)[:, None] * across.sum(1)[None, :]
    values = down @ image.astype(np.float32) @ across.T / np.maximum(seen, 0.5)
    return np.asarray(np.where(seen > 0.5, values, 0), np.float32)


def _lines(axis: int, first: float, pitch: float, count: int) -> Array:
    """Matrix [SHAPE[axis], count] of an average with triangular weights; rows sum to 1 well inside the image."""
    at = CENTRE_MM[axis] + (np.arange(SHAPE[axis]) - (SHAPE[axis] - 1) / 2) * PITCH_MM
    distance = np.abs(at[:, None] - (first + pitch * np.arange(count))[None, :])
    reach = max(PITCH_MM, pitch)
    weights = np.clip(1 - distance / reach, 0, None) * pitch / reach
    return np.asarray(weights, np.float32)


def _smooth(image: NDArray, mm: float, spacing: tuple[float, float]) -> Array:
    sigma = (0.0,) * (image.ndim - 2) + (mm / spacing[0], mm / spacing[1])
    return np.asarray(ndimage.gaussian_filter(image, sigma, truncate=2.5), np.float32)


def _rms(image: NDArray, mm: float, spacing: tuple[float, float]) -> Array:
    return np.sqrt(np.maximum(_smooth(np.abs(image).astype(np.float32) ** 2, mm, spacing), 0))


def _log(values: NDArray, least: float, middle: float = 0.0) -> Array:
    return np.asarray(np.log10(np.maximum(values, least)) - middle, np.float32)


def _magnitude(offsets: Array, spacing: tuple[float, float], _hz: float) -> dict[str, Array]:
    mean = offsets.mean(0)
    bright = mean[mean > 0.3 * np.percentile(mean, 98)]
    scale = float(np.median(bright)) if len(bright) else 1.0
    mean = mean / max(scale, 1e-12)
    unrest = offsets.std(0, ddof=1) / max(scale, 1e-12) if len(offsets) > 1 else np.zeros_like(mean)
    down, across = np.gradient(mean, *spacing)
    return {
        "brightness": np.minimum(mean, 4) - 1,
        "log_brightness": _log(mean, 10**-2.5, -1),
        "log_unrest": _log(_rms(unrest, LOCAL_MM, spacing), 1e-3, -1.5) if len(offsets) > 1 else unrest,
        "log_edges": _log(_rms(np.hypot(down, across), 4.0, spacing), 1e-4, -1.5),
    }


def _wrapped(steps: NDArray) -> NDArray:
    return steps - 2 * np.pi * np.rint(steps / (2 * np.pi))


def _squared_wave_numbers(shape: tuple[int, ...], spacing: tuple[float, float]) -> Array:
    ky, kx = (2 * np.pi * fft.fftfreq(n, mm) for n, mm in zip(shape, spacing, strict=True))
    return np.asarray(ky[:, None] ** 2 + kx[None, :] ** 2, np.float32)


def unwrapped(phase: Array, known: NDArray[np.bool_]) -> Array:
    """Phase [offset, row, column] whose steps inside `known` are followed; rad, congruent there with the input.

    Least squares of the wrapped steps, solved by cosine transform (Ghiglia & Romero, J. Opt. Soc. Am. A 11:107, 1994),
    then the nearest congruent phase. Offsets differ by no whole turns in the median.
    """
    dy = _wrapped(np.diff(phase, axis=1)) * (known[1:] & known[:-1])
    dx = _wrapped(np.diff(phase, axis=2)) * (known[:, 1:] & known[:, :-1])
    source = np.zeros_like(phase)
    source[:, :-1] += dy
    source[:, 1:] -= dy
    source[:, :, :-1] += dx
    source[:, :, 1:] -= dx
    cy, cx = (np.cos(np.pi * np.arange(n) / n) for n in phase.shape[1:])
    poisson = (2 * (cy[:, None] + cx[None, :] - 2)).astype(np.float32)
    poisson[0, 0] = 1
    spectrum = fft.dctn(source, axes=(1, 2)) / poisson
    spectrum[:, 0, 0] = 0
    smooth = fft.idctn(spectrum, axes=(1, 2))
    inside = known if known.any() else np.ones_like(known)
    offset = np.angle(np.exp(1j * (phase - smooth)[:, inside]).mean(1)).astype(np.float32)
    smooth += offset[:, None, None]
    whole = phase + 2 * np.pi * np.rint((smooth - phase) / (2 * np.pi))
    whole -= 2 * np.pi * np.rint(np.median(whole[:, inside], axis=1) / (2 * np.pi))[:, None, None]
    return np.asarray(whole, np.float32)


def _phase(phase: Array, spacing: tuple[float, float], hz: float) -> dict[str, Array]:
    offsets = len(phase)
    phasor = np.exp(1j * phase)
    coherence = np.hypot(_smooth(phasor.real, 2.5, spacing), _smooth(phasor.imag, 2.5, spacing)).mean(0)
    known = ndimage.binary_opening(coherence > 0.55, iterations=2)
    whole = np.where(known, unwrapped(phase, known), phase)
    parts = (np.fft.fft(whole, axis=0) / offsets).astype(np.complex64)
    harmonic = 2 * parts[1] if offsets >= 3 else (parts[0] + 0 * parts[0])
    others = parts[2 : offsets - 1]
    residual = np.sqrt((np.abs(others) ** 2).mean(0)) if len(others) else np.zeros_like(coherence)
    k2 = _squared_wave_numbers(phase.shape[1:], spacing)
    spectrum = fft.fft2(np.where(known, harmonic, 0)) * (k2**2 / (k2**2 + (2 * np.pi / LONGEST_MM) ** 4))
    wave = fft.ifft2(spectrum)
    fit, kpa = _inversion(spectrum, k2, spacing, hz)
    size = float(np.percentile(np.abs(wave[known]), 80)) if known.any() else 1.0
    size = max(size, 0.01)
    rest = levelled(parts[0].real, known)
    # Whatever is no wave falls on all harmonics alike; the mean over the offsets is one of them.
    errors = np.stack([np.abs(rest), *np.abs(others)]) ** 2
    margin = _rms(wave, LOCAL_MM, spacing) / np.maximum(2 * np.sqrt(_smooth(errors.mean(0), LOCAL_MM, spacing)), 1e-3)
    down, across = _wrapped(np.diff(phase, axis=1)), _wrapped(np.diff(phase, axis=2))
    residues = np.abs(np.rint((down[:, :, :-1] + across[:, 1:] - down[:, :, 1:] - across[:, :-1]) / (2 * np.pi)))
    steps = np.zeros_like(phase)
    steps[:, 1:] = np.abs(down) / spacing[0]
    steps[:, :, 1:] = np.maximum(steps[:, :, 1:], np.abs(across) / spacing[1])
    wraps = np.zeros_like(coherence)
    wraps[1:, 1:] = residues.mean(0) * 100 / (spacing[0] * spacing[1])  # per cm2
    return {
        "wave_real": (wave.real / size).clip(-3, 3),
        "wave_imaginary": (wave.imag / size).clip(-3, 3),
        "log_wave": _log(_rms(wave, LOCAL_MM, spacing), 10**-2.5),
        "log_residual": _log(_rms(np.where(known, residual, 1), LOCAL_MM, spacing), 10**-2.5, -1),
        "second_harmonic": (parts[2].real / size).clip(-3, 3) if len(others) else np.zeros_like(coherence),
        "log_rest": _log(_rms(rest - _smooth(rest, 10.0, spacing), LOCAL_MM, spacing), 10**-2.5, -1),
        "coherence": 2 * coherence - 1,
        "log_steps": _log(_smooth(steps.max(0), 2.0, spacing), 1e-3, -1),
        "wraps": np.sqrt(_smooth(wraps, 4.0, spacing)),
        "fit": 2 * fit - 1,
        "log_stiffness": _log(kpa, 0.1, 0.4),
        "mean_phase": rest.clip(-3, 3),
        "log_margin": _log(margin, 0.05, 0.7) * known,
    }


def levelled(image: NDArray, known: NDArray[np.bool_]) -> Array:
    """An image inside `known` without its plane: eddy currents of the encoding gradients leave one. 0 elsewhere."""
    y, x = np.nonzero(known)
    if len(y) < 50:
        return np.zeros(image.shape, np.float32)
    step = max(1, len(y) // 2000)
    shape = np.asarray(image.shape, np.float64)
    basis = np.stack([np.ones(len(y[::step])), y[::step] / shape[0] - 0.5, x[::step] / shape[1] - 0.5], 1)
    plane, *_ = np.linalg.lstsq(basis, image[y[::step], x[::step]], rcond=None)
    down, across = (np.arange(n) / n - 0.5 for n in image.shape)
    level = image - (plane[0] + plane[1] * down[:, None] + plane[2] * across[None, :])
    return np.asarray(np.where(known, level, 0), np.float32)


def _inversion(spectrum: NDArray, k2: Array, spacing: tuple[float, float], hz: float) -> tuple[Array, Array]:
    """How well a wave (its spectrum) obeys the Helmholtz equation locally, 0..1, and |G| in kPa by least squares."""
    filtered = spectrum * np.exp(-0.5 * k2 * 3.0**2)
    wave, laplacian = fft.ifft2(filtered), fft.ifft2(-k2 * filtered)
    even = 1 / (np.abs(wave) ** 2 + 0.3 * _rms(wave, LOCAL_MM, spacing) ** 2 + 1e-9)
    cross = np.conj(laplacian) * wave * even
    uu = _smooth(np.abs(wave) ** 2 * even, 5.0, spacing)
    ll = np.maximum(_smooth(np.abs(laplacian) ** 2 * even, 5.0, spacing), 1e-12)
    real, imaginary = _smooth(cross.real, 5.0, spacing), _smooth(cross.imag, 5.0, spacing)
    fit = np.where(real < 0, (real**2 + imaginary**2) / np.maximum(uu * ll, 1e-20), 0).clip(0, 1)
    kpa = (
        DENSITY_KG_M3 * (2 * np.pi * hz) ** 2 * 1e-9 * np.sqrt(uu / ll)
    )  # Laplacian per mm2, so m2 / 1e6, and Pa / 1e3
    return np.asarray(fit, np.float32), np.asarray(kpa, np.float32)


def _wave(images: Array, spacing: tuple[float, float], _hz: float) -> dict[str, Array]:
    images = images - np.median(images)
    n = len(images)
    harmonic = (np.fft.fft(images, axis=0)[1] * 2 / n) if n >= 3 else images[0].astype(np.complex64)
    size = max(float(np.percentile(np.abs(harmonic), 90)), 1e-9)
    return {
        "image_real": (harmonic.real / size).clip(-3, 3),
        "image_imaginary": (harmonic.imag / size).clip(-3, 3),
        "log_image": _log(_rms(harmonic, LOCAL_MM, spacing) / size, 10**-2.5),
    }


def _elastogram(kpa: Array, spacing: tuple[float, float], _hz: float) -> dict[str, Array]:
    filled = (kpa > 0).astype(np.float32)
    share = np.maximum(_smooth(filled, LOCAL_MM, spacing), 0.05)
    mean = _smooth(kpa, LOCAL_MM, spacing) / share
    spread = np.sqrt(np.maximum(_smooth(kpa**2, LOCAL_MM, spacing) / share - mean**2, 0))
    return {
        "log_kpa": _log(kpa, 0.1, 0.4) * filled,
        "log_variation": _log(spread / np.maximum(mean, 0.1), 1e-2, -1) * filled,
        "filled": 2 * filled - 1,
    }


def _confidence(confidence: Array, _spacing: tuple[float, float], _hz: float) -> dict[str, Array]:
    return {"confidence": 2 * confidence - 1, "confident": 2 * (confidence >= 0.95).astype(np.float32) - 1}


def _colour(picture: Array, spacing: tuple[float, float], _hz: float) -> dict[str, Array]:
    painted = picture.max(2) > 24
    share = np.maximum(_smooth(painted.astype(np.float32), 3.0, spacing), 0.05)
    colours = _smooth(np.moveaxis(picture * painted[..., None], 2, 0), 3.0, spacing) / share / 127.5 - 1
    # Lines of a hatching are thin: what closing fills is hatched.
    closed = ndimage.binary_closing(np.pad(painted, 4), iterations=3)[4:-4, 4:-4]
    surface = closed.astype(np.float32)
    red, green, blue = colours * surface
    return {
        "red": red, "green": green, "blue": blue,
        "painted": 2 * surface - 1,
        "hatched": np.asarray(closed & ~painted, np.float32) * 3,
    }  # fmt: skip


_MEASURE: Mapping[str, Callable[[Array, tuple[float, float], float], dict[str, Array]]] = {
    "magnitude": _magnitude,
    "phase": _phase,
    "wave": _wave,
    "elastogram": _elastogram,
    "confidence": _confidence,
    "colour": _colour,
}
