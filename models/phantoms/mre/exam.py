"""A whole MRE exam: one patient, one protocol, four to eight slices, the faults that befall them, and the truth.

Of exams drawn by `simulate_exam` about half are diagnostic. A quarter have no fault; the others have one of the causes
in `causes.OFTEN`, with a severity around the border between usable and not, in all slices or in some. One exam in six
is planned too high or too low, one in eight livers is small.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from models.phantoms.mre import causes
from models.phantoms.mre.anatomy import Patient, Section, draw_patient, sections
from models.phantoms.mre.field import Driver, wave_field
from models.phantoms.mre.processing import Inversion
from models.phantoms.mre.protocol import Protocol, draw_protocol
from models.phantoms.mre.readable import judge_exam
from models.phantoms.mre.samples import Acquired, Sample, draw_any_driver, draw_inversion, sample_of, scan_slice
from models.phantoms.mre.scan import State


@dataclass(frozen=True)
class ExamSlice:
    """One slice of an exam."""

    z_mm: float  # in the patient's coordinates, to the head
    section: Section
    state: State
    acquired: Acquired


@dataclass(frozen=True)
class Exam:
    """An exam before it is written as DICOM; slices from feet to head."""

    seed: int
    patient: Patient
    protocol: Protocol
    driver: Driver
    inversion: Inversion
    fault: str  # key of causes.OFTEN that was drawn; the truth's reasons are judged, not drawn
    slices: tuple[ExamSlice, ...]

    @property
    def verdict(self) -> tuple[bool, bool]:
        """(diagnostic, borderline)."""
        return judge_exam([s.acquired.truth for s in self.slices])

    @property
    def stiffness_kpa(self) -> float | None:
        """Area-weighted mean |G*| over the readable area of the diagnostic slices; None without one."""
        truths = [s.acquired.truth for s in self.slices if s.acquired.truth.diagnostic]
        areas = [t.readable_mm2 for t in truths]
        if not sum(areas):
            return None
        return float(np.average([t.stiffness_kpa or 0.0 for t in truths], weights=areas))

    @property
    def reasons(self) -> tuple[str, ...]:
        """Main reasons of the non-diagnostic slices, the most frequent first; empty for a diagnostic exam.

        COVERAGE stands for an exam whose diagnostic slices are good but too few or too small.
        """
        if self.verdict[0]:
            return ()
        first = [s.acquired.truth.reasons[0] for s in self.slices if s.acquired.truth.reasons]
        return tuple(sorted(set(first), key=lambda name: (-first.count(name), name))) or ("COVERAGE",)


def _positions(rng: np.random.Generator, protocol: Protocol) -> list[float]:
    middle = float(rng.normal(2, 10))
    if rng.random() < 0.17:
        middle += float(rng.choice([-1, 1]) * rng.uniform(30, 95))
    step = protocol.thickness_mm + protocol.gap_mm
    return [middle + (i - (protocol.slices - 1) / 2) * step for i in range(protocol.slices)]


def simulate_exam(
    seed: int,
    *,
    vendor: str | None = None,
    matrix: int | None = None,
    fault: str | None = None,
    slices: int | None = None,
) -> Exam:
    """Simulate one exam; the same arguments give the same exam.

    vendor: of protocol.VENDORS; matrix: reconstructed pixels per side; fault: key of causes.OFTEN; slices: how many.
    None draws them.
    """
    rng = np.random.default_rng([seed, 0xE8])
    patient = draw_patient(rng)
    protocol = draw_protocol(rng, vendor, matrix)
    if slices is not None:
        protocol = replace(protocol, slices=slices)
    drawn = causes.draw_cause(rng)
    cause = drawn if fault is None else fault
    good = causes.good_state(rng, patient, protocol)
    severity = causes.severity_of(rng, 0.55)
    state, protocol = causes.spoil(good, protocol, cause, severity, rng)
    driver = draw_any_driver(rng, state.driver_hz)
    inversion = draw_inversion(rng)
    z_mm = _positions(rng, protocol)
    cuts = sections(patient, z_mm)
    level = float(rng.normal(-5, 20))  # of the drum
    spared = float(rng.choice([0.0, 0.0, 0.25, 0.5])) if cause in ("MOTION", "BLUR", "LOW_WAVE_AMPLITUDE") else 0.0
    pieces = []
    for z, section in zip(z_mm, cuts, strict=True):
        field_seed, scan_seed = int(rng.integers(2**31)), int(rng.integers(2**31))
        here = good if rng.random() < spared else state
        reach = float(np.exp(-0.5 * ((z - level) / 75) ** 2 + rng.normal(0, 0.12)))
        varied = float(np.exp(rng.normal(0, 0.15)))
        here = replace(
            here, amplitude_rad=here.amplitude_rad * reach, motion_mm=here.motion_mm * varied,
            motion_rad=here.motion_rad * varied, snr=here.snr * float(np.exp(rng.normal(0, 0.06))), seed=scan_seed,
        )  # fmt: skip
        field = wave_field(patient, section, driver, field_seed)
        pieces.append(ExamSlice(z, section, here, scan_slice(section, field, protocol, here, inversion)))
    return Exam(seed, patient, protocol, driver, inversion, cause, tuple(pieces))


def exam_slices(seed: int, n: int, *, size: int | None = None) -> Iterator[Sample]:
    """n slices of whole exams, one exam after the other, as `samples.sample_slices` gives single ones.

    size: pixels per side, None: what makers send. The exams are those of seeds from 1000 * seed on.
    """
    made = 0
    for number in range(n):
        exam = simulate_exam(1000 * seed + number, matrix=size)
        for one in exam.slices[: n - made]:
            yield sample_of(one.acquired, exam.protocol, one.state, exam.patient)
            made += 1
        if made >= n:
            return
