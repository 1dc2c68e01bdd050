"""The frames of a DICOM image: where each lies and how its stored values become measured ones.

Classic single-frame images and enhanced multi-frame images with functional groups (PS3.3 C.7.6.16) are read alike.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray

from dicom_node.decoding.pixels import instance_uid
from dicom_node.errors import UnreadableSeries


@dataclass(frozen=True)
class Frame:
    """One slice before it is placed."""

    path: Path
    dataset: pydicom.Dataset
    index: int  # 0-based frame in the Instance
    position: NDArray[np.float64]  # of the first voxel's centre, LPS mm
    row_direction: NDArray[np.float64]  # direction in which the column index rises
    column_direction: NDArray[np.float64]  # direction in which the row index rises
    spacing: tuple[float, float]  # between rows, between columns, mm
    slope: float
    intercept: float
    thickness: float | None  # mm


def read_frames(path: Path, dataset: pydicom.Dataset, *, is_ct: bool) -> list[Frame]:
    """Geometry and rescale of every frame of one Instance."""
    uid = instance_uid(dataset)
    if "PerFrameFunctionalGroupsSequence" not in dataset:
        if int(dataset.get("NumberOfFrames", 1) or 1) != 1:
            raise UnreadableSeries(
                f"Instance {uid}: Number of Frames (0028,0008) is {dataset.NumberOfFrames} without "
                "Per-frame Functional Groups (5200,9230); the frames have no position."
            )
        slope, intercept = _rescale(dataset, uid, is_ct=is_ct)
        return [_frame(path, dataset, 0, dataset, dataset, dataset, slope, intercept)]
    per_frame = dataset.PerFrameFunctionalGroupsSequence
    if len(per_frame) != int(dataset.get("NumberOfFrames", 0) or 0):
        raise UnreadableSeries(
            f"Instance {uid}: Per-frame Functional Groups (5200,9230) has {len(per_frame)} items, "
            f"Number of Frames (0028,0008) is {dataset.get('NumberOfFrames')}."
        )
    shared = dataset.get("SharedFunctionalGroupsSequence") or [pydicom.Dataset()]
    frames = []
    for index, groups in enumerate(per_frame):

        def macro(name: str, groups: pydicom.Dataset = groups) -> pydicom.Dataset:
            found = groups.get(name) or shared[0].get(name) or [pydicom.Dataset()]
            return found[0]

        slope, intercept = _rescale(macro("PixelValueTransformationSequence"), uid, is_ct=is_ct)
        frames.append(
            _frame(
                path,
                dataset,
                index,
                macro("PlanePositionSequence"),
                macro("PlaneOrientationSequence"),
                macro("PixelMeasuresSequence"),
                slope,
                intercept,
            )
        )
    return frames


def _frame(
    path: Path,
    dataset: pydicom.Dataset,
    index: int,
    position: pydicom.Dataset,
    orientation: pydicom.Dataset,
    measures: pydicom.Dataset,
    slope: float,
    intercept: float,
) -> Frame:
    uid = instance_uid(dataset)
    cosines = _numbers(orientation, "ImageOrientationPatient", "0020,0037", 6, uid)
    row_direction, column_direction = cosines[:3], cosines[3:]
    lengths = float(np.linalg.norm(row_direction)), float(np.linalg.norm(column_direction))
    if max(abs(lengths[0] - 1), abs(lengths[1] - 1), abs(float(row_direction @ column_direction))) > 1e-2:
        raise UnreadableSeries(
            f"Instance {uid}: Image Orientation (Patient) (0020,0037) is {listed(cosines)}; "
            "two perpendicular unit vectors are needed."
        )
    row_direction = row_direction / lengths[0]
    column_direction = column_direction - (column_direction @ row_direction) * row_direction
    column_direction /= np.linalg.norm(column_direction)
    spacing = _numbers(measures, "PixelSpacing", "0028,0030", 2, uid)
    if not np.all((spacing > 0.01) & (spacing < 50)):
        raise UnreadableSeries(f"Instance {uid}: Pixel Spacing (0028,0030) is {listed(spacing)} mm.")
    thickness = measures.get("SpacingBetweenSlices") or measures.get("SliceThickness")
    return Frame(
        path=path,
        dataset=dataset,
        index=index,
        position=_numbers(position, "ImagePositionPatient", "0020,0032", 3, uid),
        row_direction=row_direction,
        column_direction=column_direction,
        spacing=(float(spacing[0]), float(spacing[1])),
        slope=slope,
        intercept=intercept,
        thickness=abs(float(thickness)) if thickness else None,
    )


def _rescale(source: pydicom.Dataset, uid: str, *, is_ct: bool) -> tuple[float, float]:
    """Rescale slope and intercept; for CT both must be there, and lead to HU (PS3.3 C.8.2.1.1)."""
    slope, intercept = source.get("RescaleSlope"), source.get("RescaleIntercept")
    if slope is None or intercept is None:
        if is_ct:
            raise UnreadableSeries(
                f"Instance {uid}: Rescale Slope (0028,1053) or Rescale Intercept (0028,1052) is missing; "
                "without them stored values are not Hounsfield units."
            )
        return 1.0, 0.0
    rescale_type = source.get("RescaleType") or "HU"
    if is_ct and rescale_type not in ("HU", "HU_MOD"):
        raise UnreadableSeries(f"Instance {uid}: Rescale Type (0028,1054) is {rescale_type}; HU is needed.")
    values = float(slope), float(intercept)
    if not all(math.isfinite(value) for value in values) or values[0] == 0:
        raise UnreadableSeries(f"Instance {uid}: Rescale Slope (0028,1053) {slope}, Intercept (0028,1052) {intercept}.")
    return values


def _numbers(source: pydicom.Dataset, keyword: str, tag: str, count: int, uid: str) -> NDArray[np.float64]:
    value: Any = source.get(keyword)
    try:
        numbers = np.asarray([float(part) for part in value], dtype=np.float64)
    except (TypeError, ValueError):
        numbers = np.empty(0)
    if numbers.shape != (count,) or not np.all(np.isfinite(numbers)):
        found = "missing" if value is None else f"{value}"
        raise UnreadableSeries(f"Instance {uid}: {keyword} ({tag}) is {found}; {count} numbers are needed.")
    return numbers


def listed(numbers: Sequence[float] | NDArray[np.float64]) -> str:
    return "\\".join(f"{number:g}" for number in numbers)
