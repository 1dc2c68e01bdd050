"""What the networks say of the slices of an elastography: probabilities, reasons, and maps of the liver."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipelines.inputs import MrePlane, MreSlice
from pipelines.mre_qc.channels import CENTRE_MM, CHANNELS, PITCH_MM, ROLES, SHAPE, Placed, describe
from pipelines.pipeline import Predictor

BUNDLE = "mre_qc"
MAPS = ("liver", "inner", "readable")
Vector = NDArray[np.float64]


@dataclass(frozen=True)
class SliceAnswer:
    """What the networks say of one slice."""

    diagnostic: float  # probability, calibrated
    reasons: Mapping[str, float]  # probability that it is the main reason, if the slice is not diagnostic; sum 1
    by_network: Mapping[str, float]  # probability of diagnostic by each network alone, not calibrated
    maps: NDArray[np.float32]  # [len(MAPS), *channels.SHAPE]: share of liver, > 8 mm inside its capsule, readable
    used: tuple[str, ...]  # roles that were looked at
    frame: "Frame"

    def on(self, plane: MrePlane) -> NDArray[np.float32]:
        """The maps on the pixels of an image of this slice [len(MAPS), row, column], 0 beyond the networks' grid."""
        return self.frame.onto(self.maps, plane)


@dataclass(frozen=True)
class Frame:
    """The networks' view of a slice: from its middle to the patient's left, and down, which is back if it is axial."""

    middle_mm: tuple[float, float, float]  # LPS
    left: tuple[float, float, float]  # unit vectors
    down: tuple[float, float, float]

    @classmethod
    def of(cls, plane: MrePlane) -> "Frame":
        """Of the middle of an image, along its own axes, turned as a radiologist expects them."""
        row, column = np.array(plane.row_direction), np.array(plane.column_direction)
        left, down = (row, column) if abs(row[0]) >= abs(column[0]) else (column, row)
        left = left * (-1 if left[0] < 0 else 1)
        down = down * (-1 if down[1] - down[2] < 0 else 1)
        rows, columns = plane.shape
        middle = np.array(plane.origin_mm) + 0.5 * (
            row * (columns - 1) * plane.pixel_spacing_mm[1] + column * (rows - 1) * plane.pixel_spacing_mm[0]
        )
        return cls(_triple(middle), _triple(left), _triple(down))

    def place(self, image: NDArray, plane: MrePlane, *, colour: bool = False) -> Placed:
        """An image turned into this frame, with the position of its first pixel and its spacing."""
        row, column = np.array(plane.row_direction), np.array(plane.column_direction)
        spacing = plane.pixel_spacing_mm
        axes = (0, 1) if colour else (image.ndim - 2, image.ndim - 1)
        corner = np.array(plane.origin_mm)
        rows, columns = plane.shape
        left, down = np.array(self.left), np.array(self.down)
        if abs(row @ left) < abs(column @ left):
            image, row, column = image.swapaxes(*axes), column, row
            spacing, rows, columns = (spacing[1], spacing[0]), columns, rows
        if row @ left < 0:
            image, corner = np.flip(image, axes[1]), corner + row * (columns - 1) * spacing[1]
        if column @ down < 0:
            image, corner = np.flip(image, axes[0]), corner + column * (rows - 1) * spacing[0]
        away = corner - np.array(self.middle_mm)
        return np.ascontiguousarray(image), (float(away @ down), float(away @ left)), spacing

    def onto(self, maps: NDArray[np.float32], plane: MrePlane) -> NDArray[np.float32]:
        """Maps [n, *channels.SHAPE] on an image's pixels [n, row, column], by linear interpolation."""
        row, column = np.array(plane.row_direction), np.array(plane.column_direction)
        down_index, across_index = np.indices(plane.shape, dtype=np.float64)
        away = np.array(plane.origin_mm) - np.array(self.middle_mm)
        at = []
        for axis, way in enumerate((np.array(self.down), np.array(self.left))):
            mm = (
                away @ way
                + across_index * plane.pixel_spacing_mm[1] * (row @ way)
                + down_index * plane.pixel_spacing_mm[0] * (column @ way)
            )
            at.append((mm - CENTRE_MM[axis]) / PITCH_MM + (SHAPE[axis] - 1) / 2)
        return np.stack([ndimage.map_coordinates(one, at, order=1, mode="constant") for one in maps]).astype(np.float32)


def _triple(vector: Vector) -> tuple[float, float, float]:
    return float(vector[0]), float(vector[1]), float(vector[2])


def slice_answers(
    slices: Sequence[MreSlice], bundles: Mapping[str, Predictor], *, hz: float | None = None, sequence: str = ""
) -> tuple[SliceAnswer, ...]:
    """Judge slices by whatever images each of them has.

    hz: that the sequence encodes, None when not stated; sequence: "GRE", "SE-EPI" or "" (MreInput.frequency_hz and
    .sequence). Raises ValueError for a slice without any image and for a bundle that measures other channels.
    """
    bundle = bundles[BUNDLE]
    if bundle.in_channels != CHANNELS:
        raise ValueError(f"bundle {BUNDLE}: was trained on other channels than this version measures")
    if not slices:
        return ()
    frames, images, used = [], [], []
    for one in slices:
        there = tuple(role for role in ROLES if getattr(one, role) is not None)
        if not there:
            raise ValueError(f"the slice at {one.position_mm:.1f} mm has no image")
        frame = Frame.of(one.planes[there[0]])
        images.append(
            {role: frame.place(getattr(one, role), one.planes[role], colour=role == "colour") for role in there}
        )
        frames.append(frame)
        used.append(there)
    with ThreadPoolExecutor(max_workers=2) as pool:  # filters and transforms let other threads run
        measured = list(pool.map(lambda here: describe(here, hz, sequence), images))
    said = bundle(np.stack(measured, axis=1))
    names = bundle.channels
    first, maps = names.index("diagnostic"), [names.index(name) for name in MAPS]
    reasons = [name for name in names[first + 1 :] if ":" not in name]
    single = {name.split(":")[0]: index for index, name in enumerate(names) if name.endswith(":diagnostic")}
    answers = []
    for number, (frame, there) in enumerate(zip(frames, used, strict=True)):
        here = said[:, number]
        answers.append(
            SliceAnswer(
                diagnostic=float(here[first, 0, 0]),
                reasons={name: float(here[names.index(name), 0, 0]) for name in reasons},
                by_network={kind: float(here[index, 0, 0]) for kind, index in single.items()},
                maps=here[maps],
                used=there,
                frame=frame,
            )
        )
    return tuple(answers)


def slice_probabilities(
    slices: Sequence[MreSlice], bundles: Mapping[str, Predictor], *, hz: float | None = None, sequence: str = ""
) -> list[tuple[float, dict[str, float]]]:
    """(probability that the slice is diagnostic, reason -> probability if it is not) of every slice.

    Arguments and errors as of slice_answers.
    """
    return [(one.diagnostic, dict(one.reasons)) for one in slice_answers(slices, bundles, hz=hz, sequence=sequence)]
