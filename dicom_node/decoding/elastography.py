"""Files of MR elastography -> the typed input of the pipelines that read it.

The roles were bound by recognition; here every image finds its slice and phase offset again from its own header, and
stored values become radians, kPa and confidence (elastography_scales.py).
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray

from dicom_node.decoding.decoded import Decoded
from dicom_node.decoding.elastography_scales import (
    Measured,
    confidences,
    magnitudes,
    measured,
    phase_radians,
    stiffness_kpa,
)
from dicom_node.decoding.frames import Frame, listed, read_frames
from dicom_node.decoding.pixels import check_pixel_description, colour_values, instance_uid, read_dataset
from dicom_node.errors import UnreadableSeries
from dicom_node.recognition.elastography_images import LEAST_OFFSETS, offset_order, times_of
from dicom_node.recognition.elastography_pairs import SAME_SLICE_MM
from dicom_node.recognition.elastography_rules import label_of, sequence_of, vendor_of
from dicom_node.recognition.elastography_words import stated_frequencies_hz
from dicom_node.recognition.headers import read_instance
from dicom_node.recognition.parsing import UnreadableHeader
from pipelines.inputs import MRE_ARRAYS, MreInput, MrePlane, MreSlice

_WITH_OFFSETS = ("magnitude", "phase", "wave")
#: Largest exam that is loaded: 64 slices of 16 offsets of 512 x 512 in three roles.
MAX_PIXELS = 64 * 16 * 512 * 512 * 3
_SAME_DIRECTION = 1e-3


@dataclass(frozen=True)
class _File:
    """One Instance, read once whatever roles it plays."""

    path: Path
    dataset: pydicom.Dataset
    attributes: Mapping[str, Any]  # as recognition reads them


@dataclass(frozen=True)
class _Image:
    """One frame with its place."""

    frame: Frame
    times: Mapping[str, Any]
    place_mm: float


@dataclass(frozen=True)
class _Row:
    """The images of one slice in one role, by rising phase offset."""

    place_mm: float
    images: tuple[_Image, ...]


def mre_input(paths: Mapping[str, Sequence[Path]], *, threads: int = 2) -> Decoded:
    """Input of an elastography pipeline.

    paths : role (MRE_ARRAYS) -> files of one acquisition, in any order; any of the roles.
    Returns the MreInput, per role the header of each slice's first image (in the order of MreInput.of_role), and of
    multi-frame objects the frame of each. A slice that lacks phase offsets in a role has None there, and a note.
    Raises UnreadableSeries, naming the Instance and the element, for damaged files, images of different orientation
    or Frame of Reference, values on no known scale, and if no image at all can be used.
    """
    by_path = {path: None for every in paths.values() for path in every}
    if not by_path:
        raise UnreadableSeries("The elastography has no images.")
    with ThreadPoolExecutor(max_workers=max(1, threads)) as pool:
        files = dict(zip(by_path, pool.map(_read, by_path), strict=True))
        roles = {role: [files[path] for path in every] for role, every in paths.items() if every}
        for role, every in roles.items():
            for file in every:
                check_pixel_description(file.dataset, is_colour=role == "colour")
        notes: list[str] = []
        normal, rows = _rows(roles, notes)
        if not any(rows.values()):
            raise UnreadableSeries(f"The elastography cannot be used: {'; '.join(notes)}.")
        vendor = vendor_of(next(iter(files.values())).attributes)
        arrays = {role: _arrays(role, found, vendor, pool, notes) for role, found in rows.items() if found}
    for file in files.values():
        if "PixelData" in file.dataset:
            del file.dataset.PixelData  # headers live on with the job; pixels are in the arrays now
    rows = {role: found for role, found in rows.items() if found}
    value = _input(rows, arrays, normal, files.values(), notes)
    sources = {role: _headers(found) for role, found in rows.items()}
    shown = {id(header) for headers in sources.values() for header in headers}
    used = (image.frame.dataset for found in rows.values() for row in found for image in row.images)
    return Decoded(
        value,
        sources,
        {role: [row.images[0].frame.index + 1 for row in found] for role, found in rows.items() if _is_framed(found)},
        _pictures(arrays),
        tuple({id(header): header for header in used if id(header) not in shown}.values()),
    )


def _read(path: Path) -> _File:
    dataset = read_dataset(path)
    try:
        attributes = read_instance(path).attributes
    except UnreadableHeader as error:
        text = str(error).replace(path.name, "").lstrip(": ")
        raise UnreadableSeries(f"Instance {instance_uid(dataset)}: {text}") from error
    return _File(path, dataset, attributes)


# ------------------------------------------------------------------ slices and offsets


def _rows(roles: Mapping[str, Sequence[_File]], notes: list[str]) -> tuple[NDArray[np.float64], dict[str, list[_Row]]]:
    """The slices of each role with their images; all lie along one normal."""
    frames = {role: [pair for file in every for pair in _frames_of(file, role)] for role, every in roles.items()}
    every_frame = [frame for found in frames.values() for _, frame in found]
    if not every_frame:
        raise UnreadableSeries("The elastography has no frame of the roles that it was bound to.")
    _check_one_place(every_frame)
    first = every_frame[0]
    normal = np.cross(first.row_direction, first.column_direction)
    rows: dict[str, list[_Row]] = {}
    for role, found in frames.items():
        index_of = {
            id(frame): (None if "PerFrameFunctionalGroupsSequence" not in f.dataset else frame.index)
            for f, frame in found
        }
        images = [
            _Image(frame, times_of(f.attributes, index_of[id(frame)]), float(frame.position @ normal))
            for f, frame in found
        ]
        rows[role] = _whole(role, _ordered(images), notes)
    return normal, rows


def _frames_of(file: _File, role: str) -> list[tuple[_File, Frame]]:
    """Frames of one file that show `role`; all, where the file does not tell its frames apart."""
    frames = read_frames(file.path, file.dataset, is_ct=False)
    if len(frames) > 1:
        labels = [label_of(file.attributes, frame.index) for frame in frames]
        own = [f for f, label in zip(frames, labels, strict=True) if label is not None and label.component == role]
        frames = own or frames
    return [(file, frame) for frame in frames]


def _check_one_place(frames: Sequence[Frame]) -> None:
    first = frames[0]
    if sum(int(f.dataset.Rows) * int(f.dataset.Columns) for f in frames) > MAX_PIXELS:
        raise UnreadableSeries(
            f"Instance {instance_uid(first.dataset)}: {len(frames)} images of up to Rows (0028,0010) "
            f"{max(f.dataset.Rows for f in frames)} x Columns (0028,0011) {max(f.dataset.Columns for f in frames)} "
            f"are more than {MAX_PIXELS} pixels."
        )
    for frame in frames[1:]:
        uid, first_uid = instance_uid(frame.dataset), instance_uid(first.dataset)
        if not (
            np.allclose(frame.row_direction, first.row_direction, atol=_SAME_DIRECTION)
            and np.allclose(frame.column_direction, first.column_direction, atol=_SAME_DIRECTION)
        ):
            raise UnreadableSeries(
                f"Instance {uid}: Image Orientation (Patient) (0020,0037) is {listed(frame.row_direction)}\\"
                f"{listed(frame.column_direction)}, another one than in Instance {first_uid}; they are not of one "
                "acquisition."
            )
        ours, theirs = (f.dataset.get("FrameOfReferenceUID") for f in (frame, first))
        if ours and theirs and ours != theirs:
            raise UnreadableSeries(
                f"Instance {uid}: Frame of Reference UID (0020,0052) is {ours}, but {theirs} in Instance {first_uid}."
            )


def _ordered(images: Sequence[_Image]) -> list[_Row]:
    """Images by slice, those of a slice by phase offset. The order depends on headers alone, never on the files'."""
    slices: list[list[_Image]] = []
    for image in sorted(images, key=lambda i: (i.place_mm, instance_uid(i.frame.dataset), i.frame.index)):
        if slices and image.place_mm - slices[-1][0].place_mm < SAME_SLICE_MM:
            slices[-1].append(image)
        else:
            slices.append([image])
    orders, _ = offset_order([[image.times for image in one] for one in slices])
    return [
        _Row(one[0].place_mm, tuple(one[i] for i in order)) for one, order in zip(slices, orders, strict=True)
    ]  # fmt: skip


def _whole(role: str, rows: Sequence[_Row], notes: list[str]) -> list[_Row]:
    """The slices that can be used in this role; what is left out is noted."""
    if role not in _WITH_OFFSETS:
        kept = [_Row(row.place_mm, row.images[:1]) for row in rows]
        if any(len(row.images) > 1 for row in rows):
            notes.append(f"{role}: several images per slice, the first of each is used")
        return kept
    offsets = max(len(row.images) for row in rows)
    if role == "phase" and offsets < LEAST_OFFSETS:
        notes.append(f"phase: {offsets} images per slice, {LEAST_OFFSETS} phase offsets are the least that can be used")
        return []
    for row in rows:
        if len(row.images) < offsets:
            notes.append(f"{role}: {len(row.images)} of {offsets} phase offsets at {row.place_mm:.1f} mm; left out")
    return [row for row in rows if len(row.images) == offsets]


# ------------------------------------------------------------------ values


def _arrays(
    role: str, rows: Sequence[_Row], vendor: str, pool: ThreadPoolExecutor, notes: list[str]
) -> list[NDArray[Any]]:
    """Per slice the role's array, on the axes that MreSlice gives it."""
    frames = [image.frame for row in rows for image in row.images]
    if role == "colour":
        return list(pool.map(lambda frame: colour_values(frame.dataset, frame.index), frames))
    images: list[Measured] = list(pool.map(measured, frames))
    if role == "elastogram":
        values, note = stiffness_kpa(images, vendor)
    elif role == "confidence":
        values, note = confidences(images, vendor)
    elif role == "phase":
        values, note = phase_radians(images, vendor)
    elif role == "magnitude":
        values, note = magnitudes(images)
    else:
        values, note = [image.values for image in images], ""
    if note:
        notes.append(note)
    if role not in _WITH_OFFSETS:
        return list(values)
    stacked, start = [], 0
    for row in rows:
        of_slice = values[start : start + len(row.images)]
        start += len(row.images)
        if len({one.shape for one in of_slice}) > 1:
            uid = instance_uid(row.images[0].frame.dataset)
            raise UnreadableSeries(
                f"Instance {uid}: Rows (0028,0010) x Columns (0028,0011) differ between phase offsets of the slice at "
                f"{row.place_mm:.1f} mm."
            )
        stacked.append(np.stack(of_slice))
    return stacked


def _input(
    rows: Mapping[str, Sequence[_Row]],
    arrays: Mapping[str, Sequence[NDArray[Any]]],
    normal: NDArray[np.float64],
    files: Any,
    notes: Sequence[str],
) -> MreInput:
    places: list[float] = []
    for mm in sorted(row.place_mm for found in rows.values() for row in found):
        if not places or mm - places[-1] >= SAME_SLICE_MM:
            places.append(mm)
    slices = []
    for mm in places:
        of_slice: dict[str, Any] = {}
        planes: dict[str, MrePlane] = {}
        for role, found in rows.items():
            for row, array in zip(found, arrays[role], strict=True):
                if abs(row.place_mm - mm) < SAME_SLICE_MM:
                    of_slice[role], planes[role] = array, _plane(row.images[0].frame)
        slices.append(MreSlice(position_mm=mm, planes=planes, **of_slice))
    attributes = [file.attributes for file in files]
    raw = next(rows[role] for role in MRE_ARRAYS if role in rows)
    header, thickness = raw[0].images[0].frame.dataset, raw[0].images[0].frame.dataset.get("SliceThickness")
    offsets = [len(rows[role][0].images) for role in ("phase", "magnitude", "wave") if role in rows]
    frequency, driver = _frequencies(attributes)
    return MreInput(
        slices=tuple(slices),
        normal=(float(normal[0]), float(normal[1]), float(normal[2])),
        slice_spacing_mm=float(np.median(np.diff(places))) if len(places) > 1 else None,
        slice_thickness_mm=float(thickness) if thickness else raw[0].images[0].frame.thickness,
        vendor=vendor_of(attributes[0]),
        sequence=next((s for a in attributes if (s := sequence_of(a))), ""),
        frequency_hz=frequency,
        driver_frequency_hz=driver,
        phase_offsets=max(offsets, default=None),
        motion_direction="slice" if {"phase", "wave"} & set(rows) else None,
        echo_time_ms=_number(header, "EchoTime"),
        repetition_time_ms=_number(header, "RepetitionTime"),
        field_strength_t=_number(header, "MagneticFieldStrength"),
        notes=tuple(notes),
    )


def _frequencies(attributes: Sequence[Mapping[str, Any]]) -> tuple[float | None, float | None]:
    stated = [stated_frequencies_hz(a) for a in attributes]
    return next((s for s, _ in stated if s), None), next((d for _, d in stated if d), None)


def _plane(frame: Frame) -> MrePlane:
    def vector(values: NDArray[np.float64]) -> tuple[float, float, float]:
        return float(values[0]), float(values[1]), float(values[2])

    return MrePlane(
        origin_mm=vector(frame.position),
        row_direction=vector(frame.row_direction),
        column_direction=vector(frame.column_direction),
        pixel_spacing_mm=frame.spacing,
        shape=(int(frame.dataset.Rows), int(frame.dataset.Columns)),
    )


def _number(dataset: pydicom.Dataset, keyword: str) -> float | None:
    value = dataset.get(keyword)
    try:
        return float(value) if value not in (None, "") else None
    except (TypeError, ValueError):
        return None


def _is_framed(rows: Sequence[_Row]) -> bool:
    return "PerFrameFunctionalGroupsSequence" in rows[0].images[0].frame.dataset


def _pictures(arrays: Mapping[str, Sequence[NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """One picture per slice and role, where all slices have the same matrix; of several offsets the first."""
    first = {role: [a[0] if role in _WITH_OFFSETS else a for a in every] for role, every in arrays.items()}
    return {role: np.stack(every) for role, every in first.items() if len({a.shape for a in every}) == 1}


def _headers(rows: Sequence[_Row]) -> tuple[pydicom.Dataset, ...]:
    """One per slice; a multi-frame object once."""
    headers = {id(row.images[0].frame.dataset): row.images[0].frame.dataset for row in rows}
    return tuple(headers.values()) if _is_framed(rows) else tuple(row.images[0].frame.dataset for row in rows)
