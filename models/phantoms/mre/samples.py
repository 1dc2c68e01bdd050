"""Slices for training, without DICOM: several acquisitions of one solved wave, so that a slice costs little.

Distribution of `sample_slices`: about half diagnostic; nine in ten sections cross the liver, one in eight livers is
small; acquisitions by models.phantoms.mre.causes.OFTEN with severities around the border between usable and not, so
that 10 to 15 % are borderline.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from models.phantoms.fields import Array
from models.phantoms.mre import causes, colour
from models.phantoms.mre.anatomy import Patient, Section, draw_patient, sections
from models.phantoms.mre.field import Driver, WaveField, draw_driver, wave_field
from models.phantoms.mre.processing import Inversion, Maps, process
from models.phantoms.mre.protocol import Protocol, draw_protocol
from models.phantoms.mre.readable import SliceTruth, assess
from models.phantoms.mre.scan import Images, State, acquire, place

HARD_SHARE, HARD_STEPS = 0.3, 2
Complex64 = NDArray[np.complex64]


@dataclass(frozen=True)
class Sample:
    """One slice as a console gives it, and its truth. Arrays [row, column] float32 unless said."""

    magnitude: Array  # [offset, row, column], any scale
    phase: Array  # [offset, row, column] wrapped, rad
    harmonic: Complex64  # filtered first harmonic, rad; its real part is a wave image
    stiffness_kpa: Array
    confidence: Array  # 0..1
    colour: NDArray[np.uint8]  # [row, column, 3] elastogram, cross-hatched below confidence 0.95
    truth: SliceTruth
    protocol: Protocol
    state: State
    patient: Patient

    @property
    def pixel_mm(self) -> float:
        return self.protocol.pixel_mm


@dataclass(frozen=True)
class Acquired:
    """One simulated slice with everything that its writers need."""

    images: Images
    maps: Maps
    truth: SliceTruth


def draw_inversion(rng: np.random.Generator) -> Inversion:
    """A console's settings."""
    return Inversion(
        smooth_mm=((2.0, 3.0, 4.5), (2.5, 4.0), (2.0, 3.0))[int(rng.integers(3))],
        window_mm=float(rng.uniform(4.2, 6.2)),
        longest_mm=float(rng.uniform(130, 200)),
        form="speed" if rng.random() < 0.6 else "modulus",
    )


def scan_slice(section: Section, field: WaveField, protocol: Protocol, state: State, inversion: Inversion) -> Acquired:
    """Acquire, process and judge one slice."""
    scene = place(section, field, protocol, state)
    images = acquire(scene, state)
    truth = assess(scene, state, images)
    maps = process(images.noisy, images.noise, protocol.hz, protocol.pixel_mm, inversion)
    return Acquired(images, maps, truth)


def draw_position(rng: np.random.Generator) -> float:
    """Height of a section, mm above the middle of the liver: some at its ends, few beside it."""
    where = rng.random()
    if where < 0.76:
        return float(rng.uniform(-38, 38))
    return float(rng.choice([-1, 1]) * (rng.uniform(38, 88) if where < 0.96 else rng.uniform(88, 112)))


def draw_any_driver(rng: np.random.Generator, hz: float) -> Driver:
    """Mostly well placed; one in sixteen on the left or the back of the patient."""
    driver = draw_driver(rng, hz)
    if rng.random() < 0.06:
        driver = replace(driver, angle_rad=float(rng.uniform(-1.5, 0.6)), strength=float(rng.uniform(0.04, 0.5)))
    return driver


def _fault(
    section: Section, field: WaveField, state: State, protocol: Protocol, rng: np.random.Generator
) -> tuple[State, Protocol]:
    """Draw a fault; of one that comes by degrees, HARD_SHARE are led to where the slice begins to be lost."""
    cause, severity, seed = causes.draw_cause(rng), causes.severity_of(rng), int(rng.integers(2**31))
    hard = cause in causes.BY_DEGREES and rng.random() < HARD_SHARE

    def spoilt(degree: float) -> tuple[State, Protocol]:
        return causes.spoil(state, protocol, cause, degree, np.random.default_rng(seed))

    low, high = 0.0, 1.0
    for _ in range(HARD_STEPS if hard else 0):
        severity = (low + high) / 2
        worse, used = spoilt(severity)
        scene = place(section, field, used, worse)
        truth = assess(scene, worse, acquire(scene, worse), explain=False)
        if truth.borderline:
            break
        low, high = (severity, high) if truth.diagnostic else (low, severity)
        severity = (low + high) / 2
    return spoilt(severity)


def sample_slices(seed: int, n: int, *, size: int = 128, states: int = 4) -> Iterator[Sample]:
    """Simulate n slices of size x size pixels; the same arguments give the same slices.

    states: acquisitions per solved wave; each has its own vendor, protocol, fault, noise. Slices of one wave follow
    each other: shuffle over more than that.
    """
    made, group = 0, 0
    while made < n:
        rng = np.random.default_rng([seed, group, 0x3A])
        group += 1
        patient = draw_patient(rng)
        section = sections(patient, [draw_position(rng)])[0]
        first = draw_protocol(rng, matrix=size)
        field = wave_field(patient, section, draw_any_driver(rng, first.hz), int(rng.integers(2**31)))
        # One look at a section without liver is enough.
        for _ in range(min(states if section.inner_mm2 > 200 else 1, n - made)):
            protocol = replace(draw_protocol(rng, matrix=size), hz=first.hz)
            state = causes.good_state(rng, patient, protocol)
            state, protocol = _fault(section, field, state, protocol, rng)
            got = scan_slice(section, field, protocol, state, draw_inversion(rng))
            yield sample_of(got, protocol, state, patient)
            made += 1


def sample_of(got: Acquired, protocol: Protocol, state: State, patient: Patient) -> Sample:
    """An acquired slice with the pictures that a console makes of it."""
    maps, pitch = got.maps, max(4, protocol.matrix // 40)
    picture = colour.overlaid(colour.elastogram(maps.stiffness_kpa), maps.confidence, pitch=pitch)
    return Sample(
        np.abs(got.images.noisy), maps.phase, maps.harmonic, maps.stiffness_kpa, maps.confidence, picture, got.truth,
        protocol, state, patient,
    )  # fmt: skip
