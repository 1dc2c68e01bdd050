"""Single numbers for artefacts that the images show: wraps, ghosts, soft edges, a body that is cut off."""

import numpy as np
from scipy import ndimage

from pipelines.mre_qc.grids import Array, Mask

#: Usual signal of the background over the noise's SD: the geometric mean of two polarities' Rayleigh noise.
BACKGROUND = 1.643
LEAST_BACKGROUND = 1e-4  # of what is bright; with less the background was set to zero


def wrap_density(phase: Array, body: Mask, pixel_mm2: float) -> float | None:
    """Wrapped steps between rows, per image and cm2 of the body. phase [offset, row, column] rad."""
    if not body.any():
        return None
    steps = np.asarray(np.abs(np.diff(phase, axis=1)) > np.pi, np.bool_)
    return float((steps & body[1:]).sum()) / len(phase) / (float(body.sum()) * pixel_mm2 / 100)


def ghosting(mean: Array, body: Mask, noise: float) -> float | None:
    """Signal beside the body along one image axis over that along the other, or over noise: about 1 without ghosts.

    noise: SD of the mean magnitude.
    """
    if not body.any():
        return None
    rows, columns = (np.asarray(np.any(body, axis=axis), np.bool_) for axis in (1, 0))
    beside = np.logical_not(ndimage.binary_dilation(body, iterations=4))
    along = (np.broadcast_to(rows[:, None], body.shape), np.broadcast_to(columns[None, :], body.shape))
    levels = [float(mean[mask & beside].mean()) for mask in along if (mask & beside).sum() > 200]
    floor = [level for level in (*levels, BACKGROUND * noise) if level > 0]
    return max(levels) / min(floor) if levels and max(levels) > 0 else None


def sharpness_mm(mean: Array, body: Mask, spacing_mm: tuple[float, float]) -> float | None:
    """Width (SD, mm) of the sharpest edges along the softer axis: step of signal over its steepest slope."""
    if not body.any():
        return None
    widths = []
    for axis in (0, 1):
        slope = np.abs(np.gradient(mean, spacing_mm[axis], axis=axis))
        reach = max(3, round(16 / spacing_mm[axis]))
        size = tuple(reach if a == axis else 1 for a in (0, 1))
        step = ndimage.maximum_filter(mean, size) - ndimage.minimum_filter(mean, size)
        strong = step > 0.5 * np.percentile(step, 99)
        if strong.any():
            peak = ndimage.maximum_filter(slope, size)
            widths.append(float(np.percentile((step / np.maximum(peak, 1e-9))[strong], 20)) / np.sqrt(2 * np.pi))
    return max(widths) if widths else None


def cut_share(body: Mask) -> float:
    """Of the image's border: what shows body."""
    border = np.concatenate([body[0], body[-1], body[:, 0], body[:, -1]])
    return float(border.mean()) if border.size else 0.0


def noise_of(magnitude: Array) -> float:
    """SD of the noise of the mean magnitude, from the offsets' images [offset, row, column] in its unit.

    The corners of the background tell: ghosts lie beside the body along one axis and leave them free. Where a scanner
    sets them to zero, what changes from offset to offset inside the body is taken instead; motion raises that.
    """
    mean = magnitude.mean(0)
    bright = float(np.percentile(mean, 98))
    rows, columns = (max(2, size // 12) for size in mean.shape)
    corners = sorted(
        float(mean[down, across].mean())
        for down in (slice(rows), slice(-rows, None))
        for across in (slice(columns), slice(-columns, None))
    )
    noise = corners[1] / BACKGROUND  # up to two may show the body, where the field of view cuts it off
    if noise < LEAST_BACKGROUND * bright and len(magnitude) > 1:
        inside = mean > 0.3 * bright
        changes = np.abs(np.diff(magnitude, axis=0)[:, inside]) if inside.any() else np.zeros(1)
        noise = float(np.median(changes)) / 0.6745 / np.sqrt(2)
    return max(noise, 1e-6 * bright, 1e-12)
