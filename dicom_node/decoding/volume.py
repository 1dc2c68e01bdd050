"""DICOM files of one stack -> a volume with geometry, and the way back from slice to Instance.

Classic single-frame images and enhanced multi-frame images with functional groups (PS3.3 C.7.6.16) are read alike:
both become a list of frames, each with its own position, orientation and rescale.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
from numpy.typing import NDArray

from dicom_node.decoding.frames import Frame, listed, read_frames
from dicom_node.decoding.pixels import check_pixel_description, instance_uid, read_dataset, stored_values
from dicom_node.errors import UnreadableSeries

#: HU of air, given to padding and to anything below it.
AIR_HU = -1024
#: Largest volume that is loaded: 2000 slices of 512 x 512, or 1 GiB as int16.
MAX_VOXELS = 2000 * 512 * 512
#: Two positions closer than this along the normal are the same slice.
SAME_POSITION_MM = 0.01
#: Allowed departure of one slice from the regular grid, as a fraction of the slice spacing.
POSITION_TOLERANCE = 0.2
#: Allowed sideways drift of the slices over the whole stack; more is gantry tilt.
MAX_DRIFT_MM = 1.0


@dataclass(frozen=True)
class LoadedStack:
    """One stack of images as a volume, with the source of every slice. All tuples run along the slice axis."""

    volume: hd.Volume  # [slice, row, column]; slice index rises along the normal (row x column direction)
    paths: tuple[Path, ...]
    sop_instance_uids: tuple[str, ...]
    frame_numbers: tuple[int, ...]  # 1-based frame in the Instance; 1 for single-frame images
    headers: tuple[pydicom.Dataset, ...]  # without pixel data; the same object for frames of one Instance


def load_ct_volume(paths: Sequence[Path], *, threads: int = 2) -> LoadedStack:
    """Load one CT stack in Hounsfield units.

    paths : files of one stack, in any order; classic or enhanced.
    Returns a LoadedStack whose volume is int16 where every rescale is whole-numbered, else float32; [slice, row,
    column] HU, affine to LPS mm. Padding and values under -1024 HU are -1024 HU.
    Raises UnreadableSeries, naming the Instance and the element, for damaged files, missing or doubled slices,
    differing matrices, gantry tilt, and images without a rescale to HU.
    Source: PS3.3 C.7.6.2 (image plane), C.8.2.1 (CT image: rescale), C.11.1 (Modality LUT).
    """
    return _load(paths, threads=threads, is_ct=True)


def load_mr_volume(paths: Sequence[Path], *, threads: int = 2) -> LoadedStack:
    """Load one MR stack; like `load_ct_volume`, but without HU: rescale is optional and nothing is clipped."""
    return _load(paths, threads=threads, is_ct=False)


def slice_positions(volume: hd.Volume) -> NDArray[np.float64]:
    """Centre of the first voxel of every slice: float64 [slice, 3], LPS mm."""
    indices = np.zeros((volume.spatial_shape[0], 3), dtype=np.int64)
    indices[:, 0] = np.arange(volume.spatial_shape[0])
    return np.asarray(volume.map_indices_to_reference(indices), dtype=np.float64)


def _load(paths: Sequence[Path], *, threads: int, is_ct: bool) -> LoadedStack:
    if not paths:
        raise UnreadableSeries("The stack has no images.")
    with ThreadPoolExecutor(max_workers=max(1, threads)) as pool:
        datasets = list(pool.map(read_dataset, paths))
        for dataset in datasets:
            check_pixel_description(dataset)
        frames = [
            frame
            for path, dataset in zip(paths, datasets, strict=True)
            for frame in read_frames(path, dataset, is_ct=is_ct)
        ]
        _check_one_grid(frames)
        frames, affine = _place(frames)
        array = _empty_volume(frames)

        def fill(index: int) -> None:
            array[index] = _values(frames[index], array.dtype, is_ct=is_ct)

        list(pool.map(fill, range(len(frames))))
    for dataset in datasets:
        del dataset.PixelData  # headers live on with the job; pixels are in the volume now
    volume = hd.Volume(array, affine, "PATIENT", frame_of_reference_uid=frames[0].dataset.get("FrameOfReferenceUID"))
    return LoadedStack(
        volume=volume,
        paths=tuple(frame.path for frame in frames),
        sop_instance_uids=tuple(instance_uid(frame.dataset) for frame in frames),
        frame_numbers=tuple(frame.index + 1 for frame in frames),
        headers=tuple(frame.dataset for frame in frames),
    )


def _check_one_grid(frames: Sequence[Frame]) -> None:
    """All frames must share matrix, spacing, orientation and Frame of Reference, and fit into memory."""
    first = frames[0]
    voxels = len(frames) * int(first.dataset.Rows) * int(first.dataset.Columns)
    if voxels > MAX_VOXELS:
        raise UnreadableSeries(
            f"Instance {instance_uid(first.dataset)}: {len(frames)} frames of Rows (0028,0010) {first.dataset.Rows} x "
            f"Columns (0028,0011) {first.dataset.Columns} are {voxels} voxels; {MAX_VOXELS} is the limit."
        )
    for frame in frames[1:]:
        uid, first_uid = instance_uid(frame.dataset), instance_uid(first.dataset)
        for keyword, tag in (("Rows", "0028,0010"), ("Columns", "0028,0011"), ("FrameOfReferenceUID", "0020,0052")):
            ours, theirs = frame.dataset.get(keyword), first.dataset.get(keyword)
            if ours != theirs:
                raise UnreadableSeries(
                    f"Instance {uid}: {keyword} ({tag}) is {ours}, but {theirs} in Instance {first_uid}; "
                    "the images are not one stack."
                )
        if not np.allclose(frame.spacing, first.spacing, rtol=1e-3):
            raise UnreadableSeries(
                f"Instance {uid}: Pixel Spacing (0028,0030) is {listed(frame.spacing)} mm, "
                f"but {listed(first.spacing)} mm in Instance {first_uid}."
            )
        if not (
            np.allclose(frame.row_direction, first.row_direction, atol=1e-3)
            and np.allclose(frame.column_direction, first.column_direction, atol=1e-3)
        ):
            raise UnreadableSeries(
                f"Instance {uid}: Image Orientation (Patient) (0020,0037) differs from Instance {first_uid}; "
                "the images are not one stack."
            )


def _place(frames: Sequence[Frame]) -> tuple[list[Frame], NDArray[np.float64]]:
    """Frames in slice order, and the affine from (slice, row, column) to LPS mm.

    The order depends on positions alone, so that the same images in any order give the same volume.
    """
    first = frames[0]
    normal = np.cross(first.row_direction, first.column_direction)
    ordered = sorted(
        frames, key=lambda frame: (float(frame.position @ normal), instance_uid(frame.dataset), frame.index)
    )
    along = np.asarray([frame.position @ normal for frame in ordered])
    if len(ordered) == 1:
        spacing = ordered[0].thickness or 1.0
    else:
        gaps = np.diff(along)
        _check_gaps(ordered, gaps)
        spacing = float(along[-1] - along[0]) / (len(ordered) - 1)
        _check_regular(ordered, along, spacing)
        _check_tilt(ordered, normal)
    affine = np.eye(4)
    affine[:3, 0] = normal * spacing
    affine[:3, 1] = first.column_direction * first.spacing[0]
    affine[:3, 2] = first.row_direction * first.spacing[1]
    affine[:3, 3] = ordered[0].position
    return ordered, affine


def _check_gaps(ordered: Sequence[Frame], gaps: NDArray[np.float64]) -> None:
    for index in np.flatnonzero(gaps < SAME_POSITION_MM).tolist():
        before, after = ordered[index], ordered[index + 1]
        raise UnreadableSeries(
            f"Instances {instance_uid(before.dataset)} and {instance_uid(after.dataset)}: "
            f"Image Position (Patient) (0020,0032) is {listed(after.position)} in both; one image per position is "
            "needed. Two acquisitions may be mixed, or an image was sent twice under two UIDs."
        )
    usual = float(np.median(gaps))
    for index in np.flatnonzero(gaps > (1 + 2 * POSITION_TOLERANCE) * usual).tolist():
        before, after = ordered[index], ordered[index + 1]
        raise UnreadableSeries(
            f"Image Position (Patient) (0020,0032): {gaps[index]:.2f} mm between Instances "
            f"{instance_uid(before.dataset)} (Instance Number {before.dataset.get('InstanceNumber')}) and "
            f"{instance_uid(after.dataset)} (Instance Number {after.dataset.get('InstanceNumber')}), "
            f"{usual:.2f} mm elsewhere; an image is probably missing. Send the Series again."
        )


def _check_regular(ordered: Sequence[Frame], along: NDArray[np.float64], spacing: float) -> None:
    off_grid = np.abs(along - (along[0] + spacing * np.arange(len(along))))
    worst = int(np.argmax(off_grid))
    if off_grid[worst] > POSITION_TOLERANCE * spacing:
        raise UnreadableSeries(
            f"Instance {instance_uid(ordered[worst].dataset)}: Image Position (Patient) (0020,0032) lies "
            f"{off_grid[worst]:.2f} mm off the regular grid of {spacing:.2f} mm; evenly spaced images are needed."
        )


def _check_tilt(ordered: Sequence[Frame], normal: NDArray[np.float64]) -> None:
    move = ordered[-1].position - ordered[0].position
    drift_mm = float(np.linalg.norm(move - (move @ normal) * normal))
    if drift_mm > MAX_DRIFT_MM:
        tilt = ordered[0].dataset.get("GantryDetectorTilt")
        raise UnreadableSeries(
            f"Instances {instance_uid(ordered[0].dataset)} to {instance_uid(ordered[-1].dataset)}: Image Position "
            f"(Patient) (0020,0032) drifts {drift_mm:.1f} mm sideways over the stack (Gantry/Detector Tilt (0018,1120) "
            f"{'not stated' if tilt is None else tilt}); images perpendicular to the table's movement are needed."
        )


def _empty_volume(frames: Sequence[Frame]) -> NDArray[Any]:
    """int16 where no frame's rescaled values can need a fraction or leave its range, else float32."""

    def is_whole(frame: Frame) -> bool:
        bits = int(frame.dataset.get("BitsStored", 16) or 16)
        largest = 2.0**bits * abs(frame.slope) + abs(frame.intercept)
        whole = frame.slope.is_integer() and frame.intercept.is_integer()
        return whole and (largest < 2**15 or (bits == 16 and frame.slope == 1))

    dtype = np.int16 if all(is_whole(frame) for frame in frames) else np.float32
    return np.empty((len(frames), int(frames[0].dataset.Rows), int(frames[0].dataset.Columns)), dtype=dtype)


def _values(frame: Frame, dtype: np.dtype[Any], *, is_ct: bool) -> NDArray[Any]:
    stored = stored_values(frame.dataset, frame.index)
    values: NDArray[Any]
    if dtype == np.int16:
        values = stored.astype(np.int32)
        if frame.slope != 1:
            values *= int(frame.slope)
        values += int(frame.intercept)
    else:
        values = stored.astype(np.float32)
        values *= np.float32(frame.slope)
        values += np.float32(frame.intercept)
    if is_ct:
        # scanners mark voxels outside the reconstruction circle by -2000 or the like, with or without saying so
        padding = _padding(frame.dataset, stored)
        if padding is not None:
            values[padding] = AIR_HU
        np.maximum(values, AIR_HU, out=values)
    if dtype == np.int16:
        np.clip(values, -(2**15), 2**15 - 1, out=values)
    return values.astype(dtype, copy=False)


def _padding(dataset: pydicom.Dataset, stored: NDArray[Any]) -> NDArray[np.bool_] | None:
    """Where Pixel Padding Value (0028,0120), or its range with (0028,0121), says that there is no image."""
    low = dataset.get("PixelPaddingValue")
    if not isinstance(low, int):
        return None
    high = dataset.get("PixelPaddingRangeLimit", low)
    if not isinstance(high, int):
        high = low
    if np.issubdtype(stored.dtype, np.signedinteger):
        # some writers give the value as unsigned 16 bit beside signed pixels
        low, high = (value - 2**16 if value >= 2**15 else value for value in (low, high))
    low, high = min(low, high), max(low, high)
    padding: NDArray[np.bool_] = stored == low if low == high else (stored >= low) & (stored <= high)
    return padding
