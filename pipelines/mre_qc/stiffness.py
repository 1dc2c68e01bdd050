"""Stiffness that may be trusted: area-weighted, from diagnostic slices, inside the valid area; refused when too small.

Shear stiffness |G*| at the frequency of the exam. It is never turned into Young's modulus, nor binned by its limits.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.mre_qc.grids import pixel_mm2
from pipelines.mre_qc.physics import SlicePhysics
from pipelines.mre_qc.thresholds import Thresholds


@dataclass(frozen=True)
class SliceStiffness:
    """Mean over the valid area of one slice."""

    mean_kpa: float
    sd_kpa: float
    valid_mm2: float


@dataclass(frozen=True)
class ExamStiffness:
    """Area-weighted mean over the slices: sum(mean x area) / sum(area)."""

    mean_kpa: float
    sd_kpa: float  # between slices, weighted by area
    valid_mm2: float
    source: str  # "elastogram", "inversion"
    slices: int


def slice_stiffness(one: SlicePhysics, limits: Thresholds) -> SliceStiffness | None:
    """Stiffness of one slice; None where the valid area is too small to mean anything."""
    values = one.stiffness_kpa[one.valid]
    area = float(one.valid.sum()) * pixel_mm2(one.plane)
    readable = float(one.readable.sum()) * pixel_mm2(one.plane)
    least = max(limits.stiffness.least_slice_mm2, limits.stiffness.least_slice_share * readable)
    if area < least or not values.size:
        return None
    return SliceStiffness(float(values.mean()), float(values.std()), area)


def exam_stiffness(
    slices: Sequence[tuple[SlicePhysics, SliceStiffness | None, bool]], is_diagnostic: bool, limits: Thresholds
) -> tuple[ExamStiffness | None, str]:
    """Stiffness of the exam and "", or None and why it is refused.

    slices: physics, stiffness and whether the slice is diagnostic; only diagnostic ones count.
    """
    if not any(physics.source for physics, _, _ in slices):
        return None, "no elastogram, phase or wave images to take it from"
    if not is_diagnostic:
        return None, "the exam is not diagnostic"
    found = [(physics, one) for physics, one, good in slices if good and one is not None]
    area = sum(one.valid_mm2 for _, one in found)
    if area < limits.stiffness.least_mm2:
        least = limits.stiffness.least_mm2 / 100
        return None, f"slices with enough valid area have {area / 100:.1f} cm2 of it, less than {least:.1f} cm2"
    means, areas = np.array([one.mean_kpa for _, one in found]), np.array([one.valid_mm2 for _, one in found])
    mean = float(np.average(means, weights=areas))
    spread = float(np.sqrt(np.average((means - mean) ** 2, weights=areas)))
    own = any(physics.source == "inversion" for physics, _ in found)
    return ExamStiffness(mean, spread, area, "inversion" if own else "elastogram", len(found)), ""
