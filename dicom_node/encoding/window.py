"""Which range of values a picture shows from black to white."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

#: Percentiles of the values on the pictures that are black and white where the source states no useful window.
PERCENTILES = (0.5, 99.5)
#: The source's window is used if at least this part of the values differs in it from black and white.
USEFUL_PART = 0.05


class Window(NamedTuple):
    """Values up to `low` are black and from `high` on white, or the other way round."""

    low: float
    high: float
    inverted: bool = False


def window_of(header: Dataset, values: NDArray[Any]) -> Window:
    """The source's own window if it shows something of these values, else their percentiles.

    header : of the source; classic or enhanced (VOI LUT module or Frame VOI LUT macro, PS3.3 C.11.2, C.7.6.16.2.10).
    values : of the images to show, after rescale; uint8 without a window is taken for a picture as it is, 0 to 255.
    MR scanners state a window per image, so that of the first need not suit all; then the percentiles are taken.
    """
    inverted = header.get("PhotometricInterpretation") == "MONOCHROME1"
    finite = values if values.dtype.kind in "iu" else values[np.isfinite(values)]
    some = finite.ravel()[:: 1 + finite.size // 200_000]
    for item in _stated(header):
        centre, width = _first(item.get("WindowCenter")), _first(item.get("WindowWidth"))
        if centre is None or width is None or width <= 0:
            continue
        low, high = centre - width / 2, centre + width / 2
        if item.get("VOILUTFunction") not in ("LINEAR_EXACT", "SIGMOID"):  # LINEAR: half a value lower, one narrower
            low, high = low, max(high - 1, low + 1)
        if some.size and np.mean((some > low) & (some < high)) >= USEFUL_PART:
            return Window(low, high, inverted)
        break
    if values.dtype == np.uint8:
        return Window(0, 255, inverted)
    if not some.size:
        return Window(0, 1, inverted)
    low, high = (float(value) for value in np.percentile(some, PERCENTILES))
    return Window(low, high if high > low else low + 1, inverted)


def to_grey(values: NDArray[Any], window: Window) -> NDArray[np.uint8]:
    """Brightness 0 to 255 of each value; what is no number is black."""
    scaled = np.nan_to_num((values.astype(np.float32) - window.low) * (255 / (window.high - window.low)))
    grey = np.clip(scaled, 0, 255).round().astype(np.uint8)
    return 255 - grey if window.inverted else grey


def _stated(header: Dataset) -> Iterable[Dataset]:
    """Where a window may stand."""
    yield header
    for groups in (header.get("SharedFunctionalGroupsSequence"), header.get("PerFrameFunctionalGroupsSequence")):
        for item in (groups or [])[:1]:
            yield from item.get("FrameVOILUTSequence") or []


def _first(value: Any) -> float | None:
    """The first of several alternatives; None where it is no number."""
    if value is None or value == "":
        return None
    try:
        number = float(value if isinstance(value, str | int | float) else value[0])
    except (TypeError, ValueError, IndexError):
        return None
    return number if np.isfinite(number) else None
