"""Where a finding lies, small enough to be kept with the job, so that another run's findings can be held against it.

A place is a box along the patient's axes, cut into cells, and which of them lie in the finding: 125 bytes however
fine the images are. Two runs may have read images on different grids; in the patient's coordinates they still meet.
"""

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dicom_node.encoding.sources import InvalidResult, SourceStack

#: Cells along each axis of the box.
CELLS = 10
#: A finding on one frame of a cine reaches so many frames to either side: another version may show its neighbour.
REACH_FRAMES = 1.0

_Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Place:
    """One finding's place.

    space : Frame of Reference UID, coordinates then are x, y, z in mm (LPS); or the SOP Instance UID of a picture
        without place in space, coordinates then are column and row in pixels and the frame number.
    """

    space: str
    low: _Triple  # lowest corner of the box
    cell: _Triple  # size of a cell
    cells: bytes  # CELLS x CELLS x CELLS bits along the three axes: whether the centre of the cell is in the finding

    @cached_property
    def inside(self) -> NDArray[np.bool_]:
        """The cells, [x, y, z]."""
        bits = np.unpackbits(np.frombuffer(self.cells, dtype=np.uint8), count=CELLS**3)
        return bits.reshape(CELLS, CELLS, CELLS).astype(bool)

    @cached_property
    def points(self) -> NDArray[np.float64]:
        """Centres of the cells that lie in the finding, [point, axis]."""
        return np.asarray(self.low) + (np.argwhere(self.inside) + 0.5) * np.asarray(self.cell)

    @property
    def size(self) -> float:
        """Volume, mm3 (or pixels x pixels x frames)."""
        return float(np.count_nonzero(self.inside)) * math.prod(self.cell)

    @property
    def centre(self) -> NDArray[np.float64]:
        """Centre of gravity."""
        return np.asarray(self.points.mean(axis=0))

    @property
    def extent(self) -> NDArray[np.float64]:
        """Edges of the box."""
        return np.asarray(self.cell) * CELLS

    def share_in(self, other: "Place") -> float:
        """Which part of this place lies in another one of the same space, 0 to 1."""
        cells = np.floor((self.points - np.asarray(other.low)) / np.asarray(other.cell)).astype(np.int64)
        within = ((cells >= 0) & (cells < CELLS)).all(axis=1)
        return float(np.count_nonzero(other.inside[tuple(cells[within].T)])) / len(self.points)

    def as_json(self) -> dict[str, Any]:
        """Plain JSON."""
        cells = base64.b64encode(self.cells).decode()
        return {"space": self.space, "low": list(self.low), "cell": list(self.cell), "cells": cells}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Place":
        """What `as_json` gave. Raises KeyError, ValueError, TypeError for anything else."""
        low, cell = (tuple(float(part) for part in values[key]) for key in ("low", "cell"))
        cells = base64.b64decode(values["cells"], validate=True)
        place = cls(str(values["space"]), (low[0], low[1], low[2]), (cell[0], cell[1], cell[2]), cells)
        if len(cells) != math.ceil(CELLS**3 / 8) or not place.inside.any() or min(cell) <= 0:
            raise ValueError("no place: its cells are none or of another number")
        return place


def place_of_mask(mask: NDArray[np.bool_], stack: SourceStack) -> Place:
    """Place of a mask [slice, row, column] on the grid of `stack`. Raises InvalidResult where it does not fit."""
    if mask.shape != stack.shape:
        raise InvalidResult(f"A mask has {mask.shape} slices, rows, columns; its source images have {stack.shape}.")
    slices = np.flatnonzero([plane.any() for plane in mask])
    if not len(slices):
        raise InvalidResult("A finding has no voxel.")
    origin, steps = _grid(stack)
    voxels = np.argwhere(mask[slices[0] : slices[-1] + 1] != 0)
    voxels[:, 0] += slices[0]
    centres = origin + voxels @ steps
    half = np.abs(steps).sum(axis=0) / 2
    to_index = np.linalg.inv(steps)

    def lookup(points: NDArray[np.float64]) -> NDArray[np.bool_]:
        indices = np.rint((points - origin) @ to_index).astype(np.int64)
        within = ((indices >= 0) & (indices < np.asarray(mask.shape))).all(axis=1)
        found = np.zeros(len(points), dtype=bool)
        found[within] = mask[tuple(indices[within].T)] != 0
        return found

    return _place(stack.frame_of_reference_uid, centres.min(axis=0) - half, centres.max(axis=0) + half, lookup)


def place_of_outline(outline: NDArray[np.float64], sop_instance_uid: str, frame_number: int) -> Place:
    """Place of a closed line [point, (column, row)], pixels, on one frame (1-based) of a picture."""
    low = np.asarray([*outline.min(axis=0), frame_number - 0.5 - REACH_FRAMES])
    high = np.asarray([*outline.max(axis=0), frame_number + 0.5 + REACH_FRAMES])
    high[:2] = np.maximum(high[:2], low[:2] + 1.0)  # a line without area is a pixel wide
    return _place(sop_instance_uid, low, high, lambda points: _within(points[:, :2], outline))


def _within(points: NDArray[np.float64], outline: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether points [point, (x, y)] lie within a closed line, by the even-odd rule."""
    (x, y), begin, end = points.T[:, :, None], outline, np.roll(outline, -1, axis=0)
    crosses = (begin[:, 1] > y) != (end[:, 1] > y)
    rise = np.where(end[:, 1] == begin[:, 1], 1.0, end[:, 1] - begin[:, 1])  # level edges cross nothing
    at = begin[:, 0] + (y - begin[:, 1]) * (end[:, 0] - begin[:, 0]) / rise
    return np.asarray(np.count_nonzero(crosses & (x < at), axis=1) % 2 == 1)


def _place(space: str, low: NDArray[np.float64], high: NDArray[np.float64], lookup: Any) -> Place:
    """Rounded first, so that a place that was written and read is the same."""
    corner = np.round(low, 2)
    cell = np.maximum(np.round((high - corner) / CELLS, 4), 1e-4)
    indices = np.indices((CELLS,) * 3).reshape(3, -1).T
    inside = lookup(corner + (indices + 0.5) * cell)
    if not inside.any():  # thinner than its cells
        inside = np.ones(len(indices), dtype=bool)
    return Place(space, _triple(corner), _triple(cell), np.packbits(inside).tobytes())


def _triple(values: NDArray[np.float64]) -> _Triple:
    return float(values[0]), float(values[1]), float(values[2])


def _grid(stack: SourceStack) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centre of the first voxel, and the steps per slice, row and column as rows of a matrix; mm, LPS."""
    cosines = np.asarray([float(part) for part in stack.orientation])
    between_rows, between_columns = (float(part) for part in stack.pixel_spacing)
    first, last = stack.slices[0].point, stack.slices[-1].point
    step = np.cross(cosines[:3], cosines[3:]) * stack.slice_spacing_mm
    if len(stack.slices) > 1:
        step = (last - first) / (len(stack.slices) - 1)
    return first, np.stack([step, cosines[3:] * between_rows, cosines[:3] * between_columns])


def overlap(a: Place, b: Place) -> float:
    """Dice coefficient of two places, 0 to 1; 0 in different spaces. The same both ways round."""
    if a.space != b.space:
        return 0.0
    common = (a.share_in(b) * a.size + b.share_in(a) * b.size) / 2
    return min(1.0, 2 * common / (a.size + b.size))


def apartness(a: Place, b: Place) -> float:
    """Distance of the centres, along the axis where it is largest, in edges of the smaller box; infinite if not alike.

    Alike : in the same space, and along no axis more than twice as long as the other.
    """
    if a.space != b.space or max(np.max(a.extent / b.extent), np.max(b.extent / a.extent)) > 2.0:
        return math.inf
    return float(np.max(np.abs(a.centre - b.centre) / np.minimum(a.extent, b.extent)))


def frames(images: Sequence[Any], frame_numbers: Sequence[int] | None) -> list[tuple[str, int]]:
    """(SOP Instance UID, frame number) of each image of a role: one per image, and one per frame of a cine.

    images : Datasets in order; a multi-frame Instance once, or once per frame. frame_numbers : where stated, the
        1-based frame behind each.
    """
    uids = [str(image.SOPInstanceUID) for image in images]
    counts = [int(image.get("NumberOfFrames") or 1) for image in images]
    if len(set(uids)) == len(uids):
        listed = [(uid, number) for uid, count in zip(uids, counts, strict=True) for number in range(1, count + 1)]
    else:
        listed = [(uid, 1 + uids[:index].count(uid)) for index, uid in enumerate(uids)]
    if frame_numbers is None:
        return listed
    if len(frame_numbers) == len(uids):
        return list(zip(uids, frame_numbers, strict=True))
    return [(uids[0], number) for number in frame_numbers]
