"""The console's colour pictures: elastogram 0-8 kPa, cross-hatched where confidence is low, and the wave."""

import numpy as np
from numpy.typing import NDArray

Rgb = NDArray[np.uint8]  # [row, column, 3]

FULL_SCALE_KPA = 8.0
VALID_CONFIDENCE = 0.95
_RAINBOW = (
    (0.00, 40, 0, 60), (0.08, 110, 0, 150), (0.20, 40, 30, 220), (0.35, 0, 160, 230), (0.48, 0, 200, 90),
    (0.62, 220, 230, 0), (0.78, 255, 130, 0), (0.92, 235, 10, 10), (1.00, 150, 0, 0),
)  # fmt: skip
_WAVE = ((0.0, 0, 255, 255), (0.25, 0, 0, 255), (0.5, 0, 0, 0), (0.75, 255, 0, 0), (1.0, 255, 255, 0))


def _paint(share: NDArray[np.floating], stops: tuple[tuple[float, int, int, int], ...]) -> Rgb:
    at = [stop[0] for stop in stops]
    table = np.stack([np.interp(np.linspace(0, 1, 256), at, [s[c] for s in stops]) for c in (1, 2, 3)], axis=1)
    return table.astype(np.uint8)[np.clip(share * 255, 0, 255).astype(np.uint8)]


def elastogram(stiffness_kpa: NDArray[np.floating], full_scale_kpa: float = FULL_SCALE_KPA) -> Rgb:
    """Stiffness [row, column] kPa in the colours of an elastogram; black where it is 0."""
    picture = _paint(stiffness_kpa / full_scale_kpa, _RAINBOW)
    picture[stiffness_kpa <= 0] = 0
    return picture


def overlaid(picture: Rgb, confidence: NDArray[np.floating], *, pitch: int = 6) -> Rgb:
    """Cross-hatch over the pixels whose confidence is below VALID_CONFIDENCE. pitch: of the lines, pixels."""
    rows, columns = np.indices(confidence.shape, dtype=np.int32)
    lines = ((rows + columns) % pitch == 0) | ((rows - columns) % pitch == 0)
    out = picture.copy()
    out[lines & (confidence < VALID_CONFIDENCE) & picture.any(axis=2)] = 0
    return out


def wave(displacement: NDArray[np.floating], largest: float) -> Rgb:
    """Displacement [row, column] from -largest (blue) to +largest (red)."""
    return _paint(0.5 + 0.5 * np.clip(displacement / max(largest, 1e-9), -1, 1), _WAVE)
