"""What the pipelines take: arrays with geometry, frozen, units and axes in the field's comment."""

from collections.abc import Mapping
from dataclasses import dataclass

import highdicom as hd
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class CtLesionInput:
    """Two enhanced CT phases of one liver, each on the grid on which it was acquired."""

    arterial: hd.Volume  # [slice, row, column] HU, int16 or float32; affine to LPS mm
    portal_venous: hd.Volume  # [slice, row, column] HU, int16 or float32; affine to LPS mm
    descriptions: tuple[str, ...] = ()  # Study, Series and Protocol texts, for what they say of earlier treatment
    patient_age_years: float | None = None  # None: not stated


@dataclass(frozen=True)
class MrePlane:
    """Where the pixels of one slice's image lie, LPS mm."""

    origin_mm: tuple[float, float, float]  # centre of the first pixel
    row_direction: tuple[float, float, float]  # unit vector in which the column index rises
    column_direction: tuple[float, float, float]  # unit vector in which the row index rises
    pixel_spacing_mm: tuple[float, float]  # between rows, between columns
    shape: tuple[int, int]  # rows, columns


@dataclass(frozen=True)
class MreSlice:
    """One slice of an elastography; what the scanner did not send, or not whole, is None.

    Images of different roles may have different matrices: a map is often interpolated. `planes` says where each lies.
    """

    position_mm: float  # along MreInput.normal
    planes: Mapping[str, MrePlane]  # role -> geometry, for the roles that are there
    magnitude: NDArray[np.float32] | None = None  # [offset, row, column], the scanner's own units, not negative
    phase: NDArray[np.float32] | None = None  # [offset, row, column] rad, wrapped into [-pi, pi)
    wave: NDArray[np.float32] | None = None  # [offset, row, column], the scanner's own units
    elastogram: NDArray[np.float32] | None = None  # [row, column] kPa, |G*|-type shear stiffness
    confidence: NDArray[np.float32] | None = None  # [row, column] 0 to 1
    colour: NDArray[np.uint8] | None = None  # [row, column, (red, green, blue)]


@dataclass(frozen=True)
class MreInput:
    """One acquisition of MR elastography of a liver, with the scanner's own maps where it made them."""

    slices: tuple[MreSlice, ...]  # rising along the normal, at least one
    normal: tuple[float, float, float]  # unit vector, row direction x column direction, LPS
    slice_spacing_mm: float | None  # between neighbouring slices; None for a single slice
    slice_thickness_mm: float | None
    vendor: str  # "GE", "Siemens", "Philips", "Canon"; empty for others
    sequence: str  # "GRE" or "SE-EPI"; empty where the header does not say it
    frequency_hz: float | None  # that the sequence encodes; None: not stated (60 is usual)
    driver_frequency_hz: float | None  # that the driver is said to vibrate at; None: not stated
    phase_offsets: int | None  # images per vibration period; None without magnitude, phase and wave
    motion_direction: str | None  # "slice": through the plane, as all 2-D elastography encodes it; None: unknown
    echo_time_ms: float | None = None
    repetition_time_ms: float | None = None
    field_strength_t: float | None = None
    more_to_come: bool = False  # other slices of the exam are still on their way
    notes: tuple[str, ...] = ()  # what was assumed or left out while reading, for the reader

    @property
    def roles(self) -> tuple[str, ...]:
        """What is there of at least one slice."""
        return tuple(role for role in MRE_ARRAYS if any(getattr(one, role) is not None for one in self.slices))

    def of_role(self, role: str) -> tuple[MreSlice, ...]:
        """The slices that have an image of this role, rising: the slice axis of every mask on the role's grid."""
        return tuple(one for one in self.slices if getattr(one, role) is not None)


#: Roles of MreSlice's arrays.
MRE_ARRAYS = ("magnitude", "phase", "wave", "elastogram", "confidence", "colour")
