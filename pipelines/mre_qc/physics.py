"""Explicit measures of one slice: how strong wave and signal are against noise and error, and where they suffice.

The readable area follows the definition of a diagnostic slice: more than `capsule_mm` inside the liver's edge,
magnitude signal-to-noise above `least_snr`, the wave above `wave_over_error` times noise and phase error together, no
phase step between neighbouring samples that cannot be resolved, no vessel.
"""

from dataclasses import dataclass

import numpy as np
from scipy import fft, ndimage

from pipelines.inputs import MrePlane, MreSlice
from pipelines.mre_qc.artefacts import cut_share, ghosting, noise_of, sharpness_mm, wrap_density
from pipelines.mre_qc.channels import levelled, unwrapped
from pipelines.mre_qc.grids import Array, Mask, inside_mm, onto, pixel_mm2, place_of
from pipelines.mre_qc.harmonics import (
    Complex,
    Harmonics,
    body_from_phase,
    harmonics,
    local_rms,
    wave_numbers_squared,
    without_long_waves,
)
from pipelines.mre_qc.inversion import LONGEST_MM, invert
from pipelines.mre_qc.liver import body_of, liver_of
from pipelines.mre_qc.thresholds import Thresholds

#: SD over which wave and error are compared: a node of a standing wave is no loss.
NEIGHBOURHOOD_MM = 6.0
#: Samples that a scanner acquires are about this far apart, however fine its images are.
SAMPLE_MM = 4.2
#: A vessel differs from the liver around it by more than this part of its signal.
VESSEL_CONTRAST = 0.35
#: Signal-to-noise of a magnitude as it should be.
NOMINAL_SNR = 20.0


@dataclass(frozen=True)
class Measures:
    """Numbers of one slice for people, for the verdict and for the reasons; None where the images do not tell."""

    liver_mm2: float
    inner_mm2: float  # inside the capsule, within the image
    readable_mm2: float | None  # None without phase, wave or a map of confidence
    snr: float | None  # median over the inner area
    wave_rad: float | None  # amplitude exceeded in 30 % of the inner area
    wave_over_error: float | None  # median over the inner area
    body_wave_over_noise: float | None  # of the strongest waves of the body
    coherence: float | None  # share of the phase's variance at the driver's frequency, 0..1
    dark_share: float | None  # of the inner area: signal too low
    wrapped_share: float | None  # phase steps that cannot be resolved
    noisy_share: float | None  # wave below the noise
    wrong_share: float | None  # wave below error that is not noise
    wrap_density: float | None  # wrapped steps per cm2 of the body
    ghosting: float | None  # signal beside the body along one axis over that along the other
    sharpness_mm: float | None  # width of edges, SD
    kept_share: float | None  # of the inner area: confidence high enough
    wavelength_ratio: float | None  # found over expected, from the wave and the elastogram
    cut_share: float  # of the body's outline that lies on the image's border

    @property
    def readable_share(self) -> float | None:
        """Of the inner area."""
        if self.readable_mm2 is None:
            return None
        return self.readable_mm2 / self.inner_mm2 if self.inner_mm2 > 0 else 0.0


@dataclass(frozen=True)
class SlicePhysics:
    """Measures of one slice with the maps behind them, all [row, column] on `plane`."""

    plane: MrePlane
    liver: Mask
    inner: Mask
    vessel: Mask
    readable: Mask
    valid: Mask  # readable, and confidence high enough: where stiffness is measured
    stiffness_kpa: Array  # NaN where there is none
    source: str | None  # of the stiffness: "elastogram", "inversion"
    measures: Measures


def examine(one: MreSlice, plane: MrePlane, hz: float, limits: Thresholds, liver: Mask | None = None) -> SlicePhysics:
    """Measure a slice on the pixels of `plane`, with whatever images it has.

    hz: frequency that the sequence encodes. liver: [row, column] on `plane`; None: it is looked for.
    """
    spacing = plane.pixel_spacing_mm
    magnitude = _on(one, "magnitude", plane)
    noise = noise_of(magnitude) if magnitude is not None else None
    phase = _phase_on(one, plane)
    kpa, confidence = (_maybe_on(one, role, plane) for role in ("elastogram", "confidence"))
    body = _body(magnitude, noise, phase, kpa, one, plane)
    place = place_of(plane)
    mean = None if magnitude is None else np.asarray(magnitude.mean(0), np.float32)
    if liver is None:
        liver = liver_of(mean, body, place, spacing)
    inner = liver & (inside_mm(liver, spacing) > limits.slice.capsule_mm)
    vessel = _vessels(mean, liver, spacing)
    wave = _wave(phase, one, body, plane)
    seen = _Seen(body, inner, spacing, mean, noise, phase, wave)
    quality = seen.quality(limits)
    ours = None if wave is None else invert(wave, body, hz, spacing)
    source = "elastogram" if kpa is not None else "inversion" if ours is not None else None
    stiffness = (
        kpa if kpa is not None else ours.stiffness_kpa if ours is not None else np.zeros(plane.shape, np.float32)
    )
    trust = confidence if confidence is not None else ours.confidence if ours is not None else None
    readable = _readable(inner, vessel, quality, trust, limits)
    valid = readable & (stiffness > 0) if source else np.zeros_like(readable)
    # Two inversions err in different places: stiffness is taken where both fit and agree.
    for one_fit in (trust, None if ours is None else ours.confidence):
        if one_fit is not None:
            valid = valid & (one_fit >= limits.slice.least_confidence)
    if kpa is not None and ours is not None:
        valid = valid & (_difference(kpa, ours.stiffness_kpa, valid, spacing) < limits.stiffness.largest_difference)
    measures = _measures(seen, quality, liver, readable, trust, limits, plane, _ratio(seen, stiffness, valid, hz))
    return SlicePhysics(
        plane, liver, inner, vessel, readable, valid,
        np.asarray(np.where(valid, stiffness, np.nan), np.float32), source, measures,
    )  # fmt: skip


# ------------------------------------------------------------------ what is there


def _on(one: MreSlice, role: str, plane: MrePlane) -> Array | None:
    images = getattr(one, role)
    if images is None:
        return None
    return np.stack([onto(image, one.planes[role], plane) for image in images])


def _maybe_on(one: MreSlice, role: str, plane: MrePlane) -> Array | None:
    image = getattr(one, role)
    return None if image is None else onto(np.nan_to_num(image), one.planes[role], plane)


def _phase_on(one: MreSlice, plane: MrePlane) -> Array | None:
    """Wrapped phase [offset, row, column] on the plane: its phasor is what may be interpolated."""
    if one.phase is None:
        return None
    source = one.planes["phase"]
    if source == plane:
        return one.phase
    parts = [[onto(part(image), source, plane) for image in one.phase] for part in (np.cos, np.sin)]
    return np.asarray(np.arctan2(np.stack(parts[1]), np.stack(parts[0])), np.float32)


def _body(
    magnitude: Array | None, noise: float | None, phase: Array | None, kpa: Array | None, one: MreSlice, plane: MrePlane
) -> Mask:
    if magnitude is not None:
        return body_of(np.asarray(magnitude.mean(0), np.float32), noise or 0.0)
    if phase is not None:
        return body_from_phase(phase)
    if kpa is not None:
        return np.asarray(ndimage.binary_fill_holes(kpa > 0), np.bool_)
    wave = _on(one, "wave", plane)
    if wave is not None:
        return np.asarray(ndimage.binary_fill_holes(np.abs(wave).max(0) > 1e-6), np.bool_)
    if one.colour is not None:
        return np.asarray(
            ndimage.binary_fill_holes(onto(one.colour.max(axis=2), one.planes["colour"], plane) > 8), np.bool_
        )
    return np.zeros(plane.shape, np.bool_)


def _wave(phase: Array | None, one: MreSlice, body: Mask, plane: MrePlane) -> Harmonics | None:
    if phase is not None:
        return harmonics(unwrapped(phase, body))
    wave = _on(one, "wave", plane)
    if wave is None or len(wave) < 3:
        return None
    return harmonics(wave)


def _vessels(mean: Array | None, liver: Mask, spacing: tuple[float, float]) -> Mask:
    """Pixels of the liver that are much brighter or darker than the liver around them."""
    if mean is None or not liver.any():
        return np.zeros_like(liver)
    around = _mean_around(mean, liver, 12.0, spacing)
    fine = ndimage.gaussian_filter(mean, [1.0 / mm for mm in spacing])
    return np.asarray(liver & (np.abs(fine / np.maximum(around, 1e-9) - 1) > VESSEL_CONTRAST), np.bool_)


def _mean_around(image: Array, mask: Mask, sigma_mm: float, spacing: tuple[float, float]) -> Array:
    """Mean of an image's pixels inside `mask` over a Gaussian neighbourhood."""
    sigma = [sigma_mm / mm for mm in spacing]
    total, share = (
        ndimage.gaussian_filter(np.asarray(part, np.float32), sigma, truncate=2.5)
        for part in (np.where(mask, image, 0), mask)
    )
    return np.asarray(total / np.maximum(share, 1e-3), np.float32)


# ------------------------------------------------------------------ what suffices


@dataclass(frozen=True)
class _Quality:
    """Per pixel: what makes it unreadable, in the order in which causes count."""

    snr: Array | None
    wave: Array | None  # local amplitude, rad
    noise: Array | None  # SD of the first harmonic, rad
    error: Array | None  # of the first harmonic beyond noise, rad
    wrapped: Mask
    dark: Mask
    noisy: Mask
    wrong: Mask


@dataclass(frozen=True)
class _Seen:
    """What one slice's images show."""

    body: Mask
    inner: Mask
    spacing: tuple[float, float]
    mean: Array | None
    magnitude_noise: float | None
    phase: Array | None
    wave: Harmonics | None

    def shear(self) -> Complex | None:
        """Wave in the unit of its images, long waves taken away."""
        if self.wave is None:
            return None
        return without_long_waves(self.wave.first, self.body, self.spacing, LONGEST_MM)

    def quality(self, limits: Thresholds) -> _Quality:
        nowhere = np.zeros_like(self.body)
        snr = None
        if self.mean is not None and self.magnitude_noise:
            snr = np.asarray(self.mean / self.magnitude_noise, np.float32)
        shear = self.shear()
        # A scanner's wave images are filtered: they hold no error that could be measured.
        if shear is None or self.wave is None or self.phase is None:
            dark = nowhere if snr is None else snr <= limits.slice.least_snr
            return _Quality(snr, None, None, None, nowhere, dark, nowhere, nowhere)
        wave = local_rms(shear, NEIGHBOURHOOD_MM, self.spacing)
        total = self._error(self.wave)
        offsets = len(self.phase)
        if snr is None:
            noise, error = total / np.float32(np.sqrt(2)), np.zeros_like(total)
            dark = 2 * np.sqrt(2 / offsets) / np.maximum(noise, 1e-6) <= limits.slice.least_snr
        else:
            noise = np.asarray(np.sqrt(2 / offsets) * 2 / np.maximum(snr, 0.5), np.float32)
            error = np.sqrt(np.maximum(total**2 - 2 * noise**2, 0))
            dark = snr <= limits.slice.least_snr
        wrapped = self._steps(self.phase) > limits.slice.wrap_rad
        factor = limits.slice.wave_over_error
        noisy = wave <= factor * noise
        wrong = ~noisy & (wave <= factor * np.hypot(noise, error))
        return _Quality(snr, wave, noise, error, wrapped, dark, noisy, wrong)

    def _error(self, wave: Harmonics) -> Array:
        """Local error of the first harmonic, rad: what falls on the other harmonics, the mean among them."""
        parts = (wave.residual, levelled(wave.still, self.body))
        rest, still = (local_rms(part, NEIGHBOURHOOD_MM, self.spacing) for part in parts)
        return np.asarray(np.sqrt((wave.degrees * rest**2 + still**2) / (wave.degrees + 1)), np.float32)

    def _steps(self, phase: Array) -> Array:
        """Largest phase step of one polarity between neighbouring samples, rad."""
        down, across = np.zeros_like(self.body, np.float32), np.zeros_like(self.body, np.float32)
        for axis, steps in ((0, down), (1, across)):
            wrapped = np.diff(phase, axis=axis + 1)
            wrapped -= np.float32(2 * np.pi) * np.rint(wrapped / np.float32(2 * np.pi))
            # Over the offsets a step goes as a cosine: its amplitude is sqrt 2 times its root mean square.
            size = np.sqrt(2 * (wrapped**2).mean(0)) / self.spacing[axis] * SAMPLE_MM / 2
            steps[tuple(slice(None, -1) if a == axis else slice(None) for a in (0, 1))] = size
        smooth = ndimage.uniform_filter(np.maximum(down, across), 3)
        return np.asarray(ndimage.maximum_filter(smooth, max(3, round(4 / min(self.spacing)))), np.float32)


def _readable(inner: Mask, vessel: Mask, quality: _Quality, trust: Array | None, limits: Thresholds) -> Mask:
    good = inner & ~vessel & ~(quality.dark | quality.wrapped | quality.noisy | quality.wrong)
    if quality.wave is None:  # then only the inversion's own confidence tells
        good = good & (trust >= limits.slice.least_confidence) if trust is not None else np.zeros_like(good)
    return np.asarray(good, np.bool_)


def _difference(a: Array, b: Array, valid: Mask, spacing: tuple[float, float]) -> Array:
    """Relative difference of two maps over a neighbourhood of valid pixels; their noise is no difference."""
    ratio = np.zeros(a.shape, np.float32)
    ratio[valid] = np.log(a[valid] / np.maximum(b[valid], 1e-3))
    return np.abs(_mean_around(ratio, valid, NEIGHBOURHOOD_MM, spacing))


# ------------------------------------------------------------------ numbers


def _measures(
    seen: _Seen,
    quality: _Quality,
    liver: Mask,
    readable: Mask,
    trust: Array | None,
    limits: Thresholds,
    plane: MrePlane,
    wavelength_ratio: float | None,
) -> Measures:
    area, inner = pixel_mm2(plane), seen.inner
    region = inner if inner.any() else seen.body

    def median(image: Array | None, percentile: float = 50) -> float | None:
        return None if image is None or not region.any() else float(np.percentile(image[region], percentile))

    def share(mask: Mask, known: object) -> float | None:
        return None if known is None or not region.any() else float(mask[region].mean())

    over = None
    if quality.wave is not None and quality.noise is not None and quality.error is not None:
        over = np.asarray(quality.wave / np.maximum(np.hypot(quality.noise, quality.error), 1e-6), np.float32)
    can_read = quality.wave is not None or trust is not None
    left = ~(quality.dark | quality.wrapped)
    return Measures(
        liver_mm2=float(liver.sum()) * area,
        inner_mm2=float(inner.sum()) * area,
        readable_mm2=float(readable.sum()) * area if can_read else None,
        snr=median(quality.snr),
        wave_rad=median(quality.wave, 70),
        wave_over_error=median(over),
        body_wave_over_noise=_body_wave(seen, quality),
        coherence=_coherence(seen, region),
        dark_share=share(quality.dark, quality.snr),
        wrapped_share=share(quality.wrapped & ~quality.dark, seen.phase),
        noisy_share=share(quality.noisy & left, quality.wave),
        wrong_share=share(quality.wrong & left, quality.wave),
        wrap_density=None if seen.phase is None else wrap_density(seen.phase, seen.body, area),
        ghosting=None if seen.mean is None else ghosting(seen.mean, seen.body, seen.magnitude_noise or 0.0),
        sharpness_mm=None if seen.mean is None else sharpness_mm(seen.mean, seen.body, seen.spacing),
        kept_share=None if trust is None else share(trust >= limits.slice.least_confidence, trust),
        wavelength_ratio=wavelength_ratio,
        cut_share=cut_share(seen.body),
    )


def _body_wave(seen: _Seen, quality: _Quality) -> float | None:
    if quality.wave is None or quality.noise is None or not seen.body.any():
        return None
    usual = np.median(quality.noise[seen.body])
    return float(np.percentile(quality.wave[seen.body], 97) / max(float(usual), 1e-6))


def _coherence(seen: _Seen, region: Mask) -> float | None:
    """Variance at the driver's frequency over that and the rest: harmonic content, 1 for a clean wave."""
    if seen.wave is None or seen.phase is None or not region.any():
        return None
    wave, rest = (float((np.abs(part[region]) ** 2).mean()) for part in (seen.wave.first, seen.wave.residual))
    return wave / max(wave + rest, 1e-20)


def _ratio(seen: _Seen, stiffness: Array, valid: Mask, hz: float) -> float | None:
    """Wavelength found in the wave over the one that the map of stiffness expects at `hz`.

    A map that was made for another frequency than the tissue moves at states a stiffness that its own waves gainsay
    only where it was made by another inversion; together with the frequencies in the header it is a hint, no proof.
    """
    shear = seen.shear()
    if shear is None or valid.sum() < 50:
        return None
    k2 = wave_numbers_squared(shear.shape, seen.spacing)
    spectrum = np.abs(fft.fft2(np.where(valid, shear, 0))) ** 2 * np.exp(-k2 * 9)
    mean_k = float(np.sqrt((spectrum * k2).sum() / max(float(spectrum.sum()), 1e-20)))
    expected = float(np.sqrt(np.median(stiffness[valid]))) / hz * 1000  # mm: c = sqrt(G / rho)
    return 2 * np.pi / max(mean_k, 1e-6) / max(expected, 1e-6)
