"""What the pipelines take: arrays with geometry, frozen, units and axes in the field's comment."""

from dataclasses import dataclass

import highdicom as hd


@dataclass(frozen=True)
class CtLesionInput:
    """Two enhanced CT phases of one liver, each on the grid on which it was acquired."""

    arterial: hd.Volume  # [slice, row, column] HU, int16 or float32; affine to LPS mm
    portal_venous: hd.Volume  # [slice, row, column] HU, int16 or float32; affine to LPS mm
    descriptions: tuple[str, ...] = ()  # Study, Series and Protocol texts, for what they say of earlier treatment
    patient_age_years: float | None = None  # None: not stated
