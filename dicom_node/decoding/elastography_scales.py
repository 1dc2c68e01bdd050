"""Stored values of MR elastography -> radians, kPa and confidence.

What an integer stands for differs between vendors, and elastograms rarely say it. The order of evidence: Real World
Value Mapping (PS3.3 C.7.6.16.2.11), Modality LUT with a Rescale Type (C.11.1), the vendor's habit, the values' range.
Where the range contradicts all of them the images are refused, since a factor of 1000 would look like an answer.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray

from dicom_node.decoding.frames import Frame
from dicom_node.decoding.pixels import instance_uid, stored_values
from dicom_node.errors import UnreadableSeries

Values = NDArray[np.float32]

_TO_KPA = {"kpa": 1.0, "pa": 1e-3, "n/m2": 1e-3}
_TO_RADIANS = {"rad": 1.0, "mrad": 1e-3, "deg": math.pi / 180}
_TO_FRACTION = {"1": 1.0, "{ratio}": 1.0, "%": 0.01, "[ppth]": 0.001}
#: A phase beyond this part over pi means that the scale is another one. Rounding and interpolation reach a little over.
_MOST_OF_PI = 1.02
#: The stiffest twentieth of an elastogram in kPa lies under the first, in Pa over the second.
_MOST_KPA, _LEAST_PA = 60.0, 200.0


@dataclass(frozen=True)
class Measured:
    """One image, rescaled as its header says."""

    values: Values  # [row, column]
    stored: NDArray[np.integer[Any]]  # [row, column] as they stand in the file
    unit: str  # UCUM or the header's word in lower case; empty where the header gives none
    is_rescaled: bool  # by Real World Value Mapping or by a Modality LUT that changes anything
    frame: Frame


def measured(frame: Frame) -> Measured:
    """Values of one frame by its Real World Value Mapping if there is one with a unit, else by its Modality LUT.

    Raises UnreadableSeries naming the Instance and the element.
    """
    stored = stored_values(frame.dataset, frame.index)
    mapping = _mapping(frame)
    if mapping is not None:
        slope, intercept, unit = mapping
        return Measured((stored * slope + intercept).astype(np.float32), stored, unit, True, frame)
    values = stored.astype(np.float32)
    is_rescaled = (frame.slope, frame.intercept) != (1.0, 0.0)
    if is_rescaled:
        values = values * np.float32(frame.slope) + np.float32(frame.intercept)
    kind = str(_macro(frame, "PixelValueTransformationSequence").get("RescaleType") or "").strip().lower()
    return Measured(
        values, stored, "" if kind in ("us", "unspecified", "normalized", "hu") else kind, is_rescaled, frame
    )


def _macro(frame: Frame, name: str) -> pydicom.Dataset:
    """A functional group of the frame; of single images the Dataset itself, which holds the same elements."""
    dataset = frame.dataset
    if "PerFrameFunctionalGroupsSequence" not in dataset:
        return dataset
    groups = [dataset.PerFrameFunctionalGroupsSequence[frame.index]]
    groups += list(dataset.get("SharedFunctionalGroupsSequence") or [])[:1]
    for group in groups:
        if group.get(name):
            return group[name][0]
    return pydicom.Dataset()


def _mapping(frame: Frame) -> tuple[float, float, str] | None:
    """Slope, intercept and unit of the first linear Real World Value Mapping with a unit."""
    dataset = frame.dataset
    places = [dataset]
    if "PerFrameFunctionalGroupsSequence" in dataset:
        places = [dataset.PerFrameFunctionalGroupsSequence[frame.index]]
        places += [*list(dataset.get("SharedFunctionalGroupsSequence") or [])[:1], dataset]
    for place in places:
        for item in place.get("RealWorldValueMappingSequence") or ():
            units = item.get("MeasurementUnitsCodeSequence")
            slope, intercept = item.get("RealWorldValueSlope"), item.get("RealWorldValueIntercept")
            if not units or slope is None or intercept is None:
                continue
            unit = str(units[0].get("CodeValue") or "").strip().lower()
            if unit and math.isfinite(float(slope)) and math.isfinite(float(intercept)) and float(slope) != 0:
                return float(slope), float(intercept), unit
    return None


# ------------------------------------------------------------------ elastogram


def stiffness_kpa(images: Sequence[Measured], vendor: str) -> tuple[list[Values], str]:
    """Shear stiffness of all slices in kPa, and on what the unit rests, in words.

    images : of one exam; they share a scale. Raises UnreadableSeries if neither header nor range tells Pa from kPa.
    """
    unit = _one_unit(images, _TO_KPA)
    if unit:
        return [_scaled(image, _TO_KPA[unit]) for image in images], (
            f"stiffness in {'kPa' if unit == 'kpa' else 'Pa'}, as the header says"
        )
    positive = np.concatenate([image.values[image.values > 0] for image in images])
    if not positive.size:
        return [image.values for image in images], "the elastogram is empty"
    high = float(np.percentile(positive, 95))
    if high >= _LEAST_PA:
        habit = f", as {vendor} writes it" if vendor in ("GE", "Siemens") else ""
        return [_scaled(image, 1e-3) for image in images], f"stiffness taken as Pa{habit}: values reach {high:.0f}"
    if high <= _MOST_KPA:
        return [image.values for image in images], f"stiffness taken as kPa: values reach {high:.1f}"
    raise UnreadableSeries(
        f"Instance {_uid(images[0])}: the elastogram's values reach {high:.0f} and neither Real World Value Mapping "
        "(0040,9096) nor Rescale Type (0028,1054) names a unit; Pa and kPa cannot be told apart."
    )


# ------------------------------------------------------------------ phase


def phase_radians(images: Sequence[Measured], vendor: str) -> tuple[list[Values], str]:
    """Phase of all images in radians, wrapped into [-pi, pi), and on what the scale rests, in words.

    images : of one exam; they share a scale. GE writes thousandths of a radian; Siemens and Philips spread one turn
    over 12 bit, as stored (0 to 4095, zero at 2048) or rescaled (-4096 to 4095, or thousandths of a radian).
    Raises UnreadableSeries if the values exceed one turn on every scale.
    """
    unit = _one_unit(images, _TO_RADIANS)
    most = max(float(np.abs(image.values).max()) for image in images)
    if unit and most * _TO_RADIANS[unit] <= math.pi * _MOST_OF_PI:
        return [_wrapped(image.values * _TO_RADIANS[unit]) for image in images], f"phase in {unit}, as the header says"
    first = images[0].frame.dataset
    bits = int(first.get("BitsStored", 16) or 16)
    is_unsigned = all(image.stored.min() >= 0 for image in images)
    if vendor == "GE" and min(float(image.values.min()) for image in images) >= 0:
        raise UnreadableSeries(
            f"Instance {_uid(images[0])}: Pixel Data (7FE0,0010) of the phase images is never negative, as phase of GE "
            "is; they may be magnitude, and images of the Series be missing. Send it again."
        )
    if is_unsigned and vendor != "GE" and (bits == 12 or not any(image.is_rescaled for image in images)):
        # one turn over all the values that can be stored, zero in the middle, whatever they are rescaled to
        reached = max(int(image.stored.max()) for image in images)
        turn = 2.0 ** (12 if reached <= 4095 else bits)
        return [_wrapped((image.stored / turn - 0.5) * 2 * math.pi) for image in images], (
            f"phase taken as one turn over {turn:.0f} stored values"
        )
    scales = [("radians", math.pi), ("thousandths of a radian", 1000 * math.pi), ("one turn over 8192", 4096.0)]
    if vendor == "GE":
        scales = scales[1:2]
    for name, half_turn in scales:
        if most <= half_turn * _MOST_OF_PI:
            return [_wrapped(image.values * (math.pi / half_turn)) for image in images], f"phase taken as {name}"
    raise UnreadableSeries(
        f"Instance {_uid(images[0])}: Pixel Data (7FE0,0010) reaches {most:g} after rescale, more than one turn of "
        "phase on every scale that is known; it may be magnitude."
    )


def _wrapped(phase: NDArray[Any]) -> Values:
    wrapped: Values = (np.mod(phase + math.pi, 2 * math.pi) - math.pi).astype(np.float32)
    return np.where(wrapped >= np.float32(math.pi), np.float32(-math.pi), wrapped)


# ------------------------------------------------------------------ the others


def magnitudes(images: Sequence[Measured]) -> tuple[list[Values], str]:
    """Magnitude in the scanner's units; what is a little negative by interpolation becomes 0.

    Raises UnreadableSeries if much is negative: then it is phase, as when half of a GE series is missing.
    """
    for image in images:
        if (image.values < 0).mean() > 0.01:
            raise UnreadableSeries(
                f"Instance {_uid(image)}: Pixel Data (7FE0,0010) of a magnitude image is negative in places, as phase "
                "is; images of the Series are probably missing. Send it again."
            )
    return [np.maximum(image.values, 0) for image in images], ""


def confidences(images: Sequence[Measured], vendor: str) -> tuple[list[Values], str]:
    """Confidence from 0 to 1, and on what the scale rests, in words.

    images : of one exam. Scales in use: 0 to 1, percent, 0 to 1000, 8 bit. Raises UnreadableSeries for others.
    """
    unit = _one_unit(images, _TO_FRACTION)
    most = max(float(image.values.max()) for image in images)
    if unit and most * _TO_FRACTION[unit] <= 1.001:
        factor, name = _TO_FRACTION[unit], f"in {unit}, as the header says"
    elif most <= 1.001:
        factor, name = 1.0, "taken as 0 to 1"
    elif images[0].frame.dataset.get("BitsStored") == 8 and 101 < most <= 255:
        factor, name = 1 / 255, "taken as 0 to 255"
    elif most <= 100.1 and vendor not in ("GE", "Siemens"):
        factor, name = 0.01, "taken as percent"
    elif most <= 1001:
        factor, name = 1e-3, "taken as 0 to 1000"
    else:
        raise UnreadableSeries(
            f"Instance {_uid(images[0])}: Pixel Data (7FE0,0010) of the confidence map reaches {most:g}; 1, 100 or "
            "1000 is the most that is known."
        )
    return [np.clip(_scaled(image, factor), 0, 1) for image in images], f"confidence {name}"


def _scaled(image: Measured, factor: float) -> Values:
    return image.values * np.float32(factor)


def _one_unit(images: Sequence[Measured], known: dict[str, float]) -> str:
    """The unit that all images state, if it is one of `known`; else empty."""
    units = {image.unit for image in images}
    return next(iter(units)) if len(units) == 1 and units <= set(known) else ""


def _uid(image: Measured) -> str:
    return instance_uid(image.frame.dataset)
