"""From a mask on one slice to the closed line around it, and to a point well inside it."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

#: More points than this draw no better and make the report long.
MAX_POINTS = 200

# Steps between pixel corners as (row, column), clockwise on the screen: right, down, left, up.
_STEPS = ((0, 1), (1, 0), (0, -1), (-1, 0))


def outline(mask: NDArray[np.bool_], max_points: int | None = MAX_POINTS) -> NDArray[np.float64]:
    """Closed line around the largest 4-connected part of a mask; holes are left out of account.

    mask : bool [row, column], at least one pixel.
    max_points : None for all corners of the line, as for drawing, where their number does not matter.
    Returns float64 [point, (column, row)] in pixels with the first point repeated at the end; (0, 0) is the top left
    corner of the image and a pixel's centre lies at (column + 0.5, row + 0.5) (PS3.3 C.18.6.1.2). Every point is the
    middle of an edge between a pixel of the mask and one outside, so it lies on the mask; a single pixel is a diamond.
    Raises ValueError for an empty mask.
    """
    if not mask.any():
        raise ValueError(f"outline of an empty mask {mask.shape}")
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, left = int(rows[0]), int(columns[0])
    part = np.pad(largest_part(mask[top : rows[-1] + 1, left : columns[-1] + 1]), 1)
    points = _edge_middles(part) + np.asarray([left - 1, top - 1])
    if max_points is None:
        steps = np.diff(points, axis=0, append=points[:1])
        corners = points[(steps != np.roll(steps, 1, axis=0)).any(axis=1)]
        return np.vstack([corners, corners[:1]])
    tolerance = 0.0
    simple = _simplified(points, tolerance)
    while len(simple) > max_points:
        tolerance = max(0.2, tolerance * 1.5)
        simple = _simplified(points, tolerance)
    return simple


def largest_part(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest 4-connected part of a mask [row, column]; of equals the first in reading order."""
    labels, count = ndimage.label(mask)
    if count <= 1:
        return mask
    sizes = np.bincount(labels.ravel())[1:]
    return np.asarray(labels == 1 + int(np.argmax(sizes)))


def inner_point(mask: NDArray[np.bool_]) -> tuple[float, float]:
    """(column, row) in pixels, as in `outline`, of the centre of the mask's pixel that lies deepest in it."""
    depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    row, column = np.unravel_index(int(np.argmax(depth)), depth.shape)
    return float(column) + 0.5, float(row) + 0.5


def _edge_middles(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Walk the outer pixel edges clockwise, the mask on the right hand; [point, (column, row)], not closed.

    mask : padded by one empty pixel, one 4-connected part.
    """
    row, column = (int(index[0]) for index in np.nonzero(mask))  # first pixel in reading order: its top edge is outer
    direction = 0
    start = (row, column, direction)
    middles = []
    while True:
        d_row, d_column = _STEPS[direction]
        middles.append((column + 0.5 * d_column, row + 0.5 * d_row))
        row, column = row + d_row, column + d_column
        # the two pixels ahead of this corner; pixel (r, c) covers corners (r, c) to (r + 1, c + 1)
        r_row, r_column = _STEPS[(direction + 1) % 4]
        right = mask[row + (d_row + r_row - 1) // 2, column + (d_column + r_column - 1) // 2]
        left = mask[row + (d_row - r_row - 1) // 2, column + (d_column - r_column - 1) // 2]
        if not right:
            direction = (direction + 1) % 4  # stay with the same pixel: parts that touch at a corner are not joined
        elif left:
            direction = (direction - 1) % 4
        if (row, column, direction) == start:
            return np.asarray(middles)


def _simplified(points: NDArray[np.float64], tolerance: float) -> NDArray[np.float64]:
    """Douglas-Peucker on a closed line: keep points so that none lies more than `tolerance` pixels off; closed."""
    if len(points) <= 4:
        return np.vstack([points, points[:1]])
    far = int(np.argmax(((points - points[0]) ** 2).sum(axis=1)))  # two fixed ends: the first point and the farthest
    closed = np.vstack([points, points[:1]])
    keep = np.zeros(len(closed), dtype=bool)
    keep[[0, far, -1]] = True
    stack = [(0, far), (far, len(closed) - 1)]
    while stack:
        first, last = stack.pop()
        if last - first < 2:
            continue
        chord = closed[last] - closed[first]
        offsets = closed[first + 1 : last] - closed[first]
        length = float(np.hypot(*chord))
        if length:
            distance = np.abs(offsets[:, 0] * chord[1] - offsets[:, 1] * chord[0]) / length
        else:
            distance = np.hypot(offsets[:, 0], offsets[:, 1])
        worst = int(np.argmax(distance))
        if distance[worst] > tolerance + 1e-9:
            middle = first + 1 + worst
            keep[middle] = True
            stack += [(first, middle), (middle, last)]
    return closed[keep]
