"""Where stiffness can be read, and why not elsewhere: the truth of a slice, from the physics that made it.

A pixel more than 8 mm inside the capsule is readable when the magnitude's signal-to-noise is above 4, the wave is
above WAVE_OVER_ERROR times the noise and the phase error together, no phase step between neighbouring samples or pixels
passes WRAP_RAD, and no vessel lies there. A slice is diagnostic from 11 cm2 and 22 % of that inner area on,
non-diagnostic below 6 cm2 or 12 %, or when driver and sequence differ in frequency; between, it is borderline.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.phantoms.fields import Array
from models.phantoms.mre.anatomy import CAPSULE_MM
from models.phantoms.mre.processing import first_harmonic
from models.phantoms.mre.scan import Images, Scene, State, acquire

LEAST_SNR = 4.0
WAVE_OVER_ERROR = 5.0  # the Rose criterion; above it the inversion errs by less than 25 % in most places
WRAP_RAD = 0.9 * np.pi
DIAGNOSTIC_MM2, DIAGNOSTIC_SHARE = 1100.0, 0.22
REFUSED_MM2, REFUSED_SHARE = 600.0, 0.12
EXAM_SLICES, EXAM_MM2 = 2, 2800.0
NEIGHBOURHOOD_MM = 6.0  # SD over which wave and error are compared: a node of a standing wave is no loss
WRONG_RATIO = 0.01
NOMINAL_SNR = 20.0  # of the magnitude; a pixel that it would save is lost to noise, not to a weak wave
MISSED_MM2 = 200.0  # inner area of the whole section below which the slice misses the liver
VISIBLE_SHARE = 0.6  # of the section's inner area; less is a liver cut off
GOOD_WAVE_RAD = 1.2  # phase amplitude in most of the liver of a well driven exam
FOLD_SHARE = 0.15  # of the signal; more folded over it is an error of the field of view
SECOND_SHARE = 0.35

REASONS = (
    "NO_DRIVER_WAVES", "LOW_WAVE_AMPLITUDE", "LOW_SNR_IRON", "MOTION", "PHASE_WRAP", "BLUR", "INSUFFICIENT_ROI",
    "WRONG_FREQUENCY", "COVERAGE",
)  # fmt: skip


@dataclass(frozen=True)
class SliceTruth:
    """What can be read in one slice."""

    diagnostic: bool  # for a borderline slice the nearer side
    borderline: bool
    reasons: tuple[str, ...]  # empty when diagnostic; the cause that removed most first
    readable_mm2: float
    inner_mm2: float  # > 8 mm inside the capsule, within the image
    stiffness_kpa: float | None  # mean |G*| over the readable area at the driver's frequency
    readable: NDArray[np.bool_]  # [row, column] of the image
    liver: NDArray[np.bool_]


def judge(area_mm2: float, inner_mm2: float, *, wrong_frequency: bool = False) -> tuple[bool, bool]:
    """(diagnostic, borderline) of a slice by its readable and its inner area, mm2."""
    share = area_mm2 / inner_mm2 if inner_mm2 > 0 else 0.0
    if wrong_frequency or area_mm2 < REFUSED_MM2 or share < REFUSED_SHARE:
        return False, False
    if area_mm2 >= DIAGNOSTIC_MM2 and share >= DIAGNOSTIC_SHARE:
        return True, False
    middle_mm2, middle_share = (DIAGNOSTIC_MM2 + REFUSED_MM2) / 2, (DIAGNOSTIC_SHARE + REFUSED_SHARE) / 2
    return area_mm2 >= middle_mm2 and share >= middle_share, True


def _local(image: NDArray, sigma: float) -> Array:
    return np.sqrt(ndimage.gaussian_filter(np.abs(image).astype(np.float32) ** 2, sigma, truncate=2.5))


def _phase_step(motion: NDArray[Any], scene: Scene) -> Array:
    """Largest phase step over the offsets, rad [row, column], that must not pass pi for the phase to be known.

    Of one polarity between neighbouring acquired samples, or of the difference of both between neighbouring pixels.
    """
    protocol = scene.protocol
    sample = [protocol.fov_mm / protocol.samples, protocol.fov_mm / protocol.samples]
    sample[protocol.phase_axis] = protocol.fov_mm / protocol.lines
    down, across = np.abs(np.gradient(motion))  # per pixel
    widths = [max(0.5 * s / protocol.pixel_mm, 1.0) for s in sample]
    return np.asarray(np.maximum(down * widths[0], across * widths[1]), np.float32)


def _phase_error(images: Images, motion: NDArray[Any]) -> Array:
    """First harmonic of what the noise-free images' phase differs from the motion's, rad [row, column]."""
    offsets = len(images.clean)
    turns = np.exp(2j * np.pi * np.arange(offsets) / offsets)[:, None, None]
    ideal = np.exp(1j * (motion[None] * turns).real)
    return np.abs(first_harmonic(np.angle(images.clean * np.conj(ideal)).astype(np.float32)))


def assess(scene: Scene, state: State, images: Images, *, explain: bool = True) -> SliceTruth:
    """The truth of a slice from its scene, how it was acquired and its noise-free images.

    explain=False leaves the reasons out, which saves acquisitions that tell blur from motion.
    """
    protocol, pixel = scene.protocol, scene.protocol.pixel_mm
    liver = scene.crop(scene.liver) > 0.5
    # The border of the image is no capsule, but nothing is seen beyond it: distance counts from both.
    inner = ndimage.distance_transform_edt(np.pad(liver, 1))[1:-1, 1:-1] * pixel > CAPSULE_MM
    area_mm2 = pixel**2
    inner_mm2 = float(inner.sum()) * area_mm2
    wrong = abs(state.driver_hz / protocol.hz - 1) > WRONG_RATIO
    sigma = NEIGHBOURHOOD_MM / pixel
    shear, motion = (scene.crop(part) * np.float32(state.amplitude_rad) for part in (scene.shear, scene.motion))
    wave = _local(shear, sigma)
    snr = np.abs(images.clean).mean(0) / np.maximum(images.noise * scene.noise_shape, 1e-12)
    # SD of the first harmonic: sqrt(2 / N) of the phase difference's, which is 2 / SNR of the mean magnitude.
    per_snr = float(np.sqrt(2 / protocol.offsets) * 2)
    noise = per_snr / np.maximum(snr, 0.5)
    error = _local(_phase_error(images, motion), sigma)
    step = ndimage.maximum_filter(_phase_step(motion, scene), max(3, round(4 / pixel)))
    wrapped, dark = step > WRAP_RAD, snr <= LEAST_SNR
    weak = wave <= WAVE_OVER_ERROR * np.hypot(noise, error)
    readable = inner & ~(wrapped | dark | weak) & ~(scene.crop(scene.vessel) > 0.5)
    if wrong:
        readable[:] = False
    area = float(readable.sum()) * area_mm2
    diagnostic, borderline = judge(area, inner_mm2, wrong_frequency=wrong)
    kpa = float(scene.crop(scene.liver_kpa)[readable].mean()) if readable.any() else None
    if diagnostic or not explain:
        reasons: tuple[str, ...] = ()
    elif wrong:
        reasons = ("WRONG_FREQUENCY",)
    elif scene.inner_mm2 < MISSED_MM2 or inner_mm2 < VISIBLE_SHARE * scene.inner_mm2:
        reasons = ("COVERAGE",)
    elif inner_mm2 < DIAGNOSTIC_MM2 or area >= DIAGNOSTIC_SHARE * inner_mm2:
        reasons = ("INSUFFICIENT_ROI",)
    else:
        usual = np.asarray(
            per_snr / NOMINAL_SNR / np.clip(scene.crop(scene.shading) / scene.noise_shape, 0.3, 3), np.float32
        )
        reasons = _ranked(_votes(_Pixels(inner, wrapped, dark, weak, wave, noise, usual, error), scene, state))
    return SliceTruth(diagnostic, borderline, reasons, area, inner_mm2, kpa, readable, liver)


@dataclass(frozen=True)
class _Pixels:
    """What `assess` knows of every pixel; all [row, column]."""

    inner: NDArray[np.bool_]
    wrapped: NDArray[np.bool_]
    dark: NDArray[np.bool_]
    weak: NDArray[np.bool_]
    wave: Array  # local amplitude, rad
    noise: Array  # of the first harmonic, rad
    usual: Array  # the same with NOMINAL_SNR
    error: Array  # phase error, rad


def _votes(p: _Pixels, scene: Scene, state: State) -> dict[str, int]:
    """Pixels that each cause took from the inner area: what would have to be put right for them to be readable.

    Where even a well driven wave (GOOD_WAVE_RAD) would not reach, nothing counts but the want of any other cause.
    """
    votes = dict.fromkeys(REASONS, 0)
    votes["PHASE_WRAP"] += int((p.inner & p.wrapped).sum())
    above = p.wave / WAVE_OVER_ERROR
    left = p.inner & ~p.wrapped & ~p.dark & p.weak
    no_wave = left & (above <= p.usual)
    by_noise = left & ~no_wave & (above > np.hypot(p.usual, p.error))
    by_error = left & ~no_wave & ~by_noise
    votes["LOW_SNR_IRON"] += int((p.inner & ~p.wrapped & p.dark).sum() + by_noise.sum())
    stronger = max(1.0, GOOD_WAVE_RAD / max(float(np.percentile(p.wave[p.inner], 70)), 1e-6))
    weak_name = "NO_DRIVER_WAVES" if _silent(p, scene) else "LOW_WAVE_AMPLITUDE"
    votes[weak_name] += int((no_wave & (above * stronger > p.usual)).sum())
    folded = by_error & (np.abs(scene.folded()) > FOLD_SHARE * np.abs(scene.crop(scene.signal)))
    votes["COVERAGE"] += int(folded.sum())
    rest = by_error & ~folded
    if rest.sum() > 0.05 * p.inner.sum():
        for name, count in _share_error(rest, above, np.minimum(p.noise, p.usual), scene, state).items():
            votes[name] += count
    if not any(votes.values()):
        votes[weak_name] = 1
    return votes


def _silent(p: _Pixels, scene: Scene) -> bool:
    """Whether no wave rises above the usual noise anywhere in the body."""
    body = scene.crop(scene.signal) > 0.1 * scene.reference
    return not body.any() or float(np.percentile(p.wave[body], 97)) <= WAVE_OVER_ERROR * float(np.median(p.usual))


def _share_error(
    rest: NDArray[np.bool_], above: Array, noise: Array, scene: Scene, state: State
) -> dict[str, int]:  # fmt: skip
    """Whose the phase error is: acquire once more without blur, then without motion, and see what comes back.

    What stays unreadable at rest and sharp is lost to phase too steep for the acquired resolution.
    """
    motion = scene.crop(scene.motion) * np.float32(state.amplitude_rad)
    sigma = NEIGHBOURHOOD_MM / scene.protocol.pixel_mm
    left, shares = rest, {}
    sharp = replace(state, blur_mm=0.0)
    for name, better in (
        ("BLUR", sharp), ("MOTION", replace(sharp, motion_mm=0.0, motion_rad=0.0, jumps_mm=0.0)),
    ):  # fmt: skip
        error = _local(_phase_error(acquire(scene, better), motion), sigma)
        back = left & (above > np.hypot(noise, error))
        shares[name] = int(back.sum())
        left = left & ~back
    shares["PHASE_WRAP"] = int(left.sum())
    return shares


def _ranked(votes: dict[str, int]) -> tuple[str, ...]:
    """The cause that took most, then those that took SECOND_SHARE of all that is lost."""
    total = sum(votes.values())
    ranked = sorted(votes, key=lambda name: -votes[name])
    return tuple(
        name for i, name in enumerate(ranked) if votes[name] > 0 and (i == 0 or votes[name] >= SECOND_SHARE * total)
    )


def judge_exam(slices: Sequence[SliceTruth]) -> tuple[bool, bool]:
    """(diagnostic, borderline) of an exam: at least two diagnostic slices with together 28 cm2.

    Borderline: the verdict depends on how borderline slices are counted.
    """

    def verdict(chosen: list[SliceTruth]) -> bool:
        return len(chosen) >= EXAM_SLICES and sum(s.readable_mm2 for s in chosen) >= EXAM_MM2

    strict = verdict([s for s in slices if s.diagnostic and not s.borderline])
    lenient = verdict([s for s in slices if s.diagnostic or s.borderline])
    return verdict([s for s in slices if s.diagnostic]), strict != lenient
