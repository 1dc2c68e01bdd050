"""What the pixels of a CT stack say about its contrast phase: the brightest round vessel at the spine, and the liver.

A check on the headers and a help where they are silent; no diagnosis. A few slices are enough, and nothing is
assumed that a phantom may lack: without a vessel or a liver the verdict is None and the reason says so.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Slices that are looked at, spread over the stack; each costs one decode (1 to 50 ms) and about 15 ms.
SAMPLED_SLICES = 7
#: Grid on which the picture is judged; fine enough for an aorta of 15 mm.
GRID_MM = 2.0
CENTRAL_MM = 45.0  # half width of the band around the spine in which the great vessels lie
VESSEL_AREA_MM2 = (130.0, 1300.0)  # 13 to 40 mm across
MIN_ORGAN_AREA_MM2 = 2000.0
SOFT_TISSUE_HU = (-20.0, 190.0)

# Decision values (HU). Late arterial: aorta 200-400 over a liver of 55-85; portal-venous: aorta 120-190 over
# 80-130; unenhanced: blood 35-50, liver 45-65. Timing and dose vary, so that the difference decides first.
ARTERIAL_OVER_ORGAN = 85.0
PORTAL_OVER_ORGAN = 70.0
ENHANCED_VESSEL = 100.0
PLAIN_VESSEL = 75.0
PLAIN_ORGAN = 72.0
PORTAL_ORGAN = 70.0


@dataclass(frozen=True)
class Enhancement:
    """What was measured on a few slices of one CT stack."""

    vessel_hu: float | None  # brightest homogeneous round structure near the spine (aorta); None: none found
    organ_hu: float | None  # median of the largest homogeneous soft-tissue area at the patient's right (liver)
    noise_hu: float
    slices: int
    phase: str | None  # "arterial" | "portal_venous" | "plain"; None where the pixels do not tell
    reason: str


def measure_enhancement(paths: Sequence[Path]) -> Enhancement | None:
    """Measure a CT stack.

    paths : its files in the order of Stack.instances, classic or enhanced.
    Returns None if no slice could be read as HU. Never raises for damaged or odd images.
    """
    vessels: list[float] = []
    organs: list[tuple[float, float]] = []  # area mm2, HU
    noises: list[float] = []
    for image in _sampled_slices(paths):
        measured = _measure_slice(image)
        if measured is None:
            continue
        vessel, organ, noise = measured
        noises.append(noise)
        if vessel is not None:
            vessels.append(vessel)
        if organ is not None:
            organs.append(organ)
    if not noises:
        return None
    # The aorta crosses every slice of an abdomen; one bright blob in one slice is something else.
    vessel_hu = float(np.median(vessels)) if len(vessels) >= max(1, len(noises) // 3) else None
    organ_hu = None
    if organs:
        largest = sorted(organs, reverse=True)[: max(1, (len(organs) + 1) // 2)]
        organ_hu = float(np.median([hu for _, hu in largest]))
    return judge(vessel_hu, organ_hu, float(np.median(noises)), len(noises))


def judge(vessel_hu: float | None, organ_hu: float | None, noise_hu: float, slices: int) -> Enhancement:
    """Phase from the two numbers, with the reason in words."""
    seen = []
    if vessel_hu is not None:
        seen.append(f"the brightest vessel at the spine has {vessel_hu:.0f} HU")
    if organ_hu is not None:
        seen.append(f"the largest organ at the right has {organ_hu:.0f} HU")
    text = " and ".join(seen) or "neither a vessel nor an organ was found"
    phase: str | None = None
    if vessel_hu is not None and organ_hu is not None:
        over = vessel_hu - organ_hu
        if vessel_hu >= ENHANCED_VESSEL and over >= ARTERIAL_OVER_ORGAN:
            phase = "arterial"
        elif vessel_hu >= ENHANCED_VESSEL and over <= PORTAL_OVER_ORGAN and organ_hu >= PORTAL_ORGAN:
            phase = "portal_venous"
        elif vessel_hu <= PLAIN_VESSEL and organ_hu <= PLAIN_ORGAN:
            phase = "plain"
    elif vessel_hu is not None and vessel_hu >= 220.0:
        phase = "arterial"
    return Enhancement(vessel_hu, organ_hu, noise_hu, slices, phase, text)


def earlier_of(a: Enhancement, b: Enhancement) -> int | None:
    """Of two enhanced stacks of one patient, which is the arterial one? 0 or 1; None where they are too alike.

    From arterial to portal-venous the liver rises and the aorta falls; either alone may be weak, so the sum counts.
    """
    if a.vessel_hu is None or b.vessel_hu is None or a.organ_hu is None or b.organ_hu is None:
        return None
    difference = (a.vessel_hu - a.organ_hu) - (b.vessel_hu - b.organ_hu)
    if abs(difference) < 40.0:
        return None
    return 0 if difference > 0 else 1


# ------------------------------------------------------------------ reading


@dataclass(frozen=True)
class _Slice:
    hu: NDArray[np.float32]  # [row, column] on a grid of about GRID_MM, HU, block means
    noise_hu: float
    spacing_mm: float
    right_is_left: bool  # the patient's right (-x) is at low column indices


def _sampled_slices(paths: Sequence[Path]) -> list[_Slice]:
    """The middle 70 % of the stack holds the abdomen; its ends are lung or pelvis."""
    import pydicom

    slices: list[_Slice] = []
    if not paths:
        return slices
    if len(paths) == 1:
        frames = [(paths[0], f) for f in (0.25, 0.4, 0.5, 0.6, 0.75)]
    else:
        count = min(SAMPLED_SLICES, len(paths))
        places = np.linspace(0.15, 0.85, count) * (len(paths) - 1)
        frames = [(paths[round(p)], 0.0) for p in places]
    for path, where in frames:
        try:
            found = _read(pydicom.dcmread(path), where)
        except Exception:  # noqa: BLE001, S112 - decoders raise many kinds; this is only a check on the headers
            continue
        if found is not None:
            slices.append(found)
    return slices


def _read(dataset: Any, where: float) -> _Slice | None:
    from pydicom.pixels.utils import pixel_array

    number_of_frames = int(dataset.get("NumberOfFrames") or 1)
    index = min(number_of_frames - 1, int(where * number_of_frames))
    stored = pixel_array(dataset, index=index if number_of_frames > 1 else None)
    groups = [dataset]
    for keyword, at in (("PerFrameFunctionalGroupsSequence", index), ("SharedFunctionalGroupsSequence", 0)):
        if keyword in dataset:
            item = dataset[keyword].value[at]
            groups += [s.value[0] for s in item if s.VR == "SQ" and s.value]
    slope, intercept = _first(groups, "RescaleSlope"), _first(groups, "RescaleIntercept")
    spacing, cosines = _first(groups, "PixelSpacing"), _first(groups, "ImageOrientationPatient")
    if stored.ndim != 2 or spacing is None or intercept is None:
        return None
    hu = stored.astype(np.float32) * float(slope if slope is not None else 1) + float(intercept)
    np.clip(hu, -1024, 1500, out=hu)
    spacing_mm = float(spacing[0])
    if not 0.05 <= spacing_mm <= 20:
        return None
    block = max(1, round(GRID_MM / spacing_mm))
    rows, columns = (hu.shape[0] // block) * block, (hu.shape[1] // block) * block
    if min(rows, columns) < 8 * block:
        return None
    inside = hu[:rows, :columns]
    # Difference of neighbours: noise without anatomy. Robust, since edges are few.
    difference = np.diff(inside, axis=1)
    soft = np.abs(inside[:, 1:] - 60) < 100
    noise = float(np.median(np.abs(difference[soft])) / 0.6745 / 1.414) if soft.sum() > 100 else 0.0
    means = inside.reshape(rows // block, block, columns // block, block).mean(axis=(1, 3))
    return _Slice(means, noise, spacing_mm * block, cosines is None or float(cosines[0]) >= 0)


def _first(groups: Sequence[Any], keyword: str) -> Any:
    for group in groups:
        value = group.get(keyword)
        if value is not None and value != "":
            return value
    return None


# ------------------------------------------------------------------ measuring


def _measure_slice(image: _Slice) -> tuple[float | None, tuple[float, float] | None, float] | None:
    """(vessel HU, (organ area mm2, organ HU), noise HU) of one slice; None if there is no body in it."""
    from scipy import ndimage

    hu = image.hu if image.right_is_left else image.hu[:, ::-1]
    pixel_mm2 = image.spacing_mm**2
    body = ndimage.binary_opening(hu > -250, iterations=1)
    labels, count = ndimage.label(body)
    if count == 0:
        return None
    sizes = np.bincount(labels.ravel())[1:]
    if sizes.max() * pixel_mm2 < 8000:  # smaller than a child's abdomen
        return None
    body = ndimage.binary_fill_holes(labels == int(np.argmax(sizes)) + 1)
    rows, columns = np.nonzero(body)
    centre = (float(rows.mean()), float(columns.mean()))
    smooth = ndimage.median_filter(hu, size=3)
    return (
        _vessel(smooth, body, centre, image.spacing_mm),
        _organ(smooth, body, centre, image.spacing_mm),
        image.noise_hu,
    )


def _vessel(
    smooth: NDArray[np.float32], body: NDArray[np.bool_], centre: tuple[float, float], mm: float
) -> float | None:
    """HU of the brightest round, even blob near the middle; bone is neither round nor even."""
    from scipy import ndimage

    half = max(2, int(CENTRAL_MM / mm))
    low = max(0, int(centre[1]) - half)
    band = smooth[:, low : int(centre[1]) + half]
    inside = body[:, low : int(centre[1]) + half]
    best: float | None = None
    for threshold in (110.0, 140.0, 180.0, 230.0, 300.0):
        labels, _ = ndimage.label(inside & (band > threshold))
        for index, where in enumerate(ndimage.find_objects(labels), start=1):
            height, width = (s.stop - s.start for s in where)
            blob = labels[where] == index
            pixels = int(blob.sum())
            if not VESSEL_AREA_MM2[0] <= pixels * mm * mm <= VESSEL_AREA_MM2[1]:
                continue
            if max(height, width) > 1.7 * min(height, width) or pixels < 0.62 * height * width:
                continue
            if (low > 0 and where[1].start == 0) or where[1].stop == band.shape[1]:
                continue  # cut by the edge of the band: part of an organ at the side
            core = ndimage.binary_erosion(blob)
            values = band[where][core if core.sum() >= 4 else blob]
            if float(values.std()) > 30.0 or float(values.max()) > 900.0:
                continue
            value = float(np.median(values))
            best = value if best is None else max(best, value)
    if best is not None:
        return best
    # No bright blob: blood without contrast is as dark as muscle. What lies before the spine stands for it.
    rows = np.nonzero(inside.any(axis=1))[0]
    if rows.size < 10:
        return None
    region = inside & (band > SOFT_TISSUE_HU[0]) & (band < 110.0)
    middle = region[rows[0] + rows.size // 3 : rows[0] + 2 * rows.size // 3]
    values = band[rows[0] + rows.size // 3 : rows[0] + 2 * rows.size // 3][middle]
    return float(np.percentile(values, 75)) if values.size * mm * mm > 600 else None


def _organ(
    smooth: NDArray[np.float32], body: NDArray[np.bool_], centre: tuple[float, float], mm: float
) -> tuple[float, float] | None:
    """(area mm2, median HU) of the largest even soft-tissue area in the patient's right half."""
    from scipy import ndimage

    mean = ndimage.uniform_filter(smooth, 5)
    spread = np.sqrt(np.maximum(ndimage.uniform_filter(smooth * smooth, 5) - mean * mean, 0))
    even = body & (spread < 28) & (mean > SOFT_TISSUE_HU[0]) & (mean < SOFT_TISSUE_HU[1])
    even = ndimage.binary_erosion(even, iterations=max(1, round(6.0 / mm)))
    even[:, int(centre[1]) :] = False
    labels, count = ndimage.label(even)
    if count == 0:
        return None
    sizes = np.bincount(labels.ravel())[1:]
    largest = int(np.argmax(sizes)) + 1
    area = float(sizes[largest - 1]) * mm * mm
    if area < MIN_ORGAN_AREA_MM2:
        return None
    return area, float(np.median(smooth[labels == largest]))
