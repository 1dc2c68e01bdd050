"""Colours of a map's values."""

import math
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dicom_node.encoding.tables import unit_text
from pipelines.findings import Map

# From dark to bright, so that the order is seen in grey and by the colour-blind too; sRGB at even steps.
_STOPS = ((45, 20, 95), (35, 75, 180), (15, 150, 170), (90, 195, 90), (240, 215, 50), (255, 250, 200))
#: Percentiles of the values between which colours differ.
_PERCENTILES = (1.0, 99.0)


class Scale:
    """Which colour stands for which value."""

    def __init__(self, label: str, unit: str, low: float, high: float) -> None:
        self.label = label
        self.unit = unit  # as it is said: "kPa"
        self.low = low
        self.high = high

    @cached_property
    def table(self) -> NDArray[np.uint8]:
        """uint8 [256, 3], lowest value first."""
        places = np.linspace(0, len(_STOPS) - 1, 256)
        stops = np.asarray(_STOPS, dtype=float)
        columns = [np.interp(places, np.arange(len(_STOPS)), stops[:, channel]) for channel in range(3)]
        return np.stack(columns, axis=1).round().astype(np.uint8)

    def colours(self, values: NDArray[Any]) -> NDArray[np.uint8]:
        """uint8 [..., 3] of finite values; those outside have the colour of the end."""
        places = (np.asarray(values, dtype=np.float64) - self.low) * (255 / (self.high - self.low))
        return self.table[np.clip(places, 0, 255).round().astype(np.uint8)]

    @property
    def ticks(self) -> tuple[float, ...]:
        """Values to write beside the bar: its ends and round numbers between."""
        step = _round_step((self.high - self.low) / 4)
        first = math.ceil(self.low / step - 1e-9)
        return tuple(round(step * place, 10) for place in range(first, math.floor(self.high / step + 1e-9) + 1))


def scale_of(map_: Map) -> Scale:
    """Colours over the range in which readers see such a map; without one over its own usual values, between round
    numbers. The map must have a value.
    """
    if map_.shown_range is not None:
        return Scale(map_.label, unit_text(map_.unit), *map_.shown_range)
    some = map_.values.ravel()[:: 1 + map_.values.size // 1_000_000]  # of large maps a part tells enough
    valid = some[np.isfinite(some)]
    if not valid.size:
        valid = map_.values[np.isfinite(map_.values)]
    low, high = (float(value) for value in np.percentile(valid, _PERCENTILES))
    step = _round_step((high - low) / 4 if high > low else max(abs(low), 1.0) / 4)
    low, high = math.floor(low / step) * step, math.ceil(high / step) * step
    return Scale(map_.label, unit_text(map_.unit), low, high if high > low else low + step)


def _round_step(step: float) -> float:
    """1, 2 or 5 times a power of ten, at least `step`."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step * (1 - 1e-9))
