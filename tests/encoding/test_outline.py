"""Outlines drawn on a mask stay on it and go around it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy import ndimage

from dicom_node.encoding.outline import MAX_POINTS, inner_point, largest_part, outline


def area(line: NDArray[np.float64]) -> float:
    """Signed area by the shoelace formula; positive for clockwise on the screen."""
    x, y = line[:-1].T
    following_x, following_y = line[1:].T
    return float(np.sum(x * following_y - following_x * y) / 2)


def on_mask(mask: NDArray[np.bool_], line: NDArray[np.float64]) -> bool:
    """Whether every point touches a pixel of the mask, pixels taken with their edges."""
    rows, columns = np.nonzero(mask)
    return all(np.any((columns <= x) & (x <= columns + 1) & (rows <= y) & (y <= rows + 1)) for x, y in line)


masks = arrays(np.bool_, st.tuples(st.integers(1, 14), st.integers(1, 14))).filter(lambda mask: bool(mask.any()))


@given(mask=masks)
@settings(max_examples=80, deadline=None)
def test_outline_is_closed_lies_on_the_mask_and_encloses_the_largest_part(mask: NDArray[np.bool_]) -> None:
    line = outline(mask)
    assert np.array_equal(line[0], line[-1])
    assert on_mask(mask, line)
    part = ndimage.binary_fill_holes(largest_part(mask), np.ones((3, 3)))  # a hole must not touch the outside
    # The midpoint polygon cuts an eighth of a pixel off every convex corner and adds one at every concave corner;
    # there are four more convex ones, so it misses half a pixel of the filled part, whatever its shape.
    assert area(line) == pytest.approx(part.sum() - 0.5)


def test_one_pixel_is_a_diamond_around_its_centre() -> None:
    mask = np.zeros((9, 7), dtype=bool)
    mask[4, 2] = True
    line = outline(mask)
    assert line.tolist() == [[2.5, 4.0], [3.0, 4.5], [2.5, 5.0], [2.0, 4.5], [2.5, 4.0]]
    assert inner_point(mask) == (2.5, 4.5)


def test_pixels_at_the_border_of_the_image_stay_inside_it() -> None:
    line = outline(np.ones((5, 8), dtype=bool))
    assert line.min() == 0
    assert line[:, 0].max() == 8
    assert line[:, 1].max() == 5


def test_parts_that_touch_at_a_corner_are_not_joined() -> None:
    mask = np.zeros((6, 6), dtype=bool)
    mask[1:3, 1:3] = mask[3, 3] = True
    line = outline(mask)
    assert line.max() <= 3


def test_many_points_become_few_and_stay_on_the_mask() -> None:
    angle = np.linspace(0, 2 * np.pi, 3000)
    reach = 150 + 15 * np.sin(24 * angle)
    rows, columns = np.mgrid[:400, :400] - 200
    mask = np.hypot(rows, columns) < np.interp(np.arctan2(rows, columns) % (2 * np.pi), angle, reach)
    line = outline(mask)
    assert 20 < len(line) <= MAX_POINTS
    assert on_mask(mask, line)
    assert area(line) == pytest.approx(float(mask.sum()), rel=0.03)


def test_an_empty_mask_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        outline(np.zeros((3, 3), dtype=bool))


@given(mask=masks)
@settings(max_examples=50, deadline=None)
def test_inner_point_is_the_centre_of_a_pixel_of_the_mask(mask: NDArray[np.bool_]) -> None:
    column, row = inner_point(mask)
    assert mask[int(row), int(column)]
