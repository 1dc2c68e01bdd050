"""Philips: magnitude and phase of all dynamics in one series, told apart by Image Type; maps with real-world values.

Phase 0..4095 for -pi..pi, as Rescale in milliradian and as Real World Value Mapping in rad; the elastogram's Rescale
is the scale of display, only its Real World Value Mapping is kPa.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import MRImageStorage, SecondaryCaptureImageStorage

from models.phantoms.mre import colour
from models.phantoms.mre.study import (
    Picture,
    Series,
    Study,
    magnitude_stored,
    per_offset,
    per_slice,
    wave_offsets,
    write_series,
)

MAKERS = (
    ("Philips Medical Systems", "Ingenia Elition X", "5.7.1\\5.7.1.2"),
    ("Philips", "Ingenia", "5.6.1\\5.6.1.1"),
    ("Philips Healthcare", "MR 7700", "11.1.0\\11.1.0.4"),
)
_UNITS = {"rad": ("rad", "radian"), "kPa": ("kPa", "kilopascal"), "1": ("1", "no units")}


def code(value: str, scheme: str, meaning: str) -> Dataset:
    """A coded entry."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def real_world(label: str, unit: str, slope: float, intercept: float, last: int) -> Dataset:
    """One item of the Real World Value Mapping Sequence (PS3.3 C.7.6.16.2.11)."""
    item = Dataset()
    item.LUTExplanation = item.LUTLabel = label
    item.MeasurementUnitsCodeSequence = Sequence([code(_UNITS[unit][0], "UCUM", _UNITS[unit][1])])
    item.RealWorldValueFirstValueMapped, item.RealWorldValueLastValueMapped = 0, last
    item.RealWorldValueSlope, item.RealWorldValueIntercept = slope, intercept
    return item


@dataclass(frozen=True)
class _Scale:
    """Adds Image Type, Rescale, the private scale slope, the dynamic and the real-world mapping to an image."""

    slope: float
    intercept: float
    mapping: Dataset | None = None
    offset: int | None = None
    kind: tuple[str, str, str] | None = None

    def __call__(self, ds: Dataset) -> None:
        if self.kind is not None:
            ds.ImageType = ["ORIGINAL", "PRIMARY", *self.kind]
        ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = (
            f"{self.slope:.9g}",
            f"{self.intercept:.9g}",
            "normalized",
        )
        ds.private_block(0x2005, "Philips MR Imaging DD 001", create=True).add_new(0x0E, "FL", 0.01 / self.slope)
        if self.offset is not None:
            ds.TemporalPositionIdentifier = self.offset + 1
        if self.mapping is not None:
            ds.RealWorldValueMappingSequence = Sequence([self.mapping])


def write(study: Study) -> None:
    """Write the acquisition and the maps."""
    exam, rng = study.exam, study.rng
    protocol = exam.protocol
    shifted = bool(rng.random() < 0.3)
    number = int(rng.integers(3, 12)) * 100 + 1
    hz = "" if protocol.hz == 60 and rng.random() < 0.5 else f"_{protocol.hz:g}Hz"
    text = str(rng.choice(["MRE_liver", "WIP MRE", "Elasto_2D", "sMRE_BH"])) + hz

    def private(ds: Dataset) -> None:
        if shifted:
            ds.private_block(0x2001, "Philips Other 01", create=True).add_new(0x01, "LO", "")
        block = ds.private_block(0x2001, "Philips Imaging DD 001", create=True)
        block.add_new(0x18, "SL", protocol.slices)
        block.add_new(0x81, "IS", protocol.offsets)
        ds.NumberOfTemporalPositions = 1

    sizes = magnitude_stored(exam, 3200)
    kind = ("M_SE", "M", "SE") if protocol.sequence == "se_epi" else ("M_FFE", "M", "FFE")
    factor = float(rng.uniform(0.8, 4.0))
    milli = 1000 * np.pi / 2048
    turn = real_world("phase", "rad", float(np.pi / 2048), float(-np.pi), 4095)

    def magnitude(p: Picture) -> Picture:
        return Picture(p.index, p.offset, p.stored, _Scale(factor, 0.0, None, p.offset, kind))

    def phase(p: Picture) -> Picture:
        scale = _Scale(milli, -1000 * np.pi, turn, p.offset, ("PHASE MAP", "P", "MRE"))
        return Picture(p.index, p.offset, p.stored, scale)

    magnitudes = [magnitude(p) for p in per_offset(study, lambda i: sizes[i])]
    phases = [phase(p) for p in per_offset(study, lambda i: _turns(exam.slices[i].acquired.maps.phase))]
    parts = {"magnitude": magnitudes, "phase": phases}
    roles = [role for role in parts if role in study.wanted]
    together = rng.random() < 0.6
    for step, names in enumerate([roles] if together else [[r] for r in roles]):
        if not names:
            continue
        style = Series(
            "raw" if together else names[0], number + step, text, ("ORIGINAL", "PRIMARY", *kind), 300 + step,
            bits=12, extra=private,
        )  # fmt: skip
        write_series(study, style, [p for role in names for p in parts[role]], names)

    maps = [s.acquired.maps for s in exam.slices]

    def derived(key: str, step: int, words: str, kind: str) -> Series:
        return Series(
            key, number + step, f"{text} {words}", ("DERIVED", "PRIMARY", kind, kind, "MRE"), 400 + step,
            bits=12, extra=private, sop_class=SecondaryCaptureImageStorage if key == "overlay" else MRImageStorage,
        )  # fmt: skip

    def mapped(pictures: list[Picture], scale: _Scale) -> list[Picture]:
        return [Picture(p.index, p.offset, p.stored, scale) for p in pictures]

    if "stiffness" in study.wanted:
        top = max(8.0, float(max(m.stiffness_kpa.max() for m in maps)))
        slope = top / 4095
        scale = _Scale(float(rng.uniform(0.5, 2.5)), 0.0, real_world("stiffness", "kPa", slope, 0.0, 4095))
        pictures = per_slice(study, lambda i: maps[i].stiffness_kpa / slope)
        write_series(study, derived("stiffness", 10, "Stiffness", "STIFFNESS"), mapped(pictures, scale), ["stiffness"])
    if "confidence" in study.wanted:
        scale = _Scale(0.001, 0.0, real_world("confidence", "1", 0.001, 0.0, 1000))
        pictures = per_slice(study, lambda i: maps[i].confidence * 1000)
        write_series(
            study, derived("confidence", 20, "Confidence", "CONFIDENCE"), mapped(pictures, scale), ["confidence"]
        )
    if "wave" in study.wanted:
        scale = _Scale(milli, -1000 * np.pi, turn)
        pictures = per_offset(study, lambda i: _turns(wave_offsets(exam, i)))
        write_series(study, derived("wave", 30, "Wave", "WAVE"), mapped(pictures, scale), ["wave"])
    if "overlay" in study.wanted and rng.random() < 0.5:
        pictures = per_slice(
            study, lambda i: colour.overlaid(colour.elastogram(maps[i].stiffness_kpa), maps[i].confidence)
        )
        write_series(study, derived("overlay", 40, "Stiffness colour", "STIFFNESS"), pictures, ["overlay"])


def _turns(radians: NDArray[np.floating]) -> NDArray[np.float64]:
    """rad to 0..4095, 2048 = 0."""
    return 2048 + np.asarray(radians, np.float64) * 2048 / np.pi
