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
SAMPLED_SLICES = 5
#: Grid on which the picture is judged; fine enough for an aorta of 15 mm.
GRID_MM = 2.0
CENTRAL_MM = 45.0  # half width of the band around the spine in which the great vessels lie
VESSEL_AREA_MM2 = (130.0, 1300.0)  # 13 to 40 mm across
MIN_SPINE_AREA_MM2 = 300.0
MIN_ORGAN_AREA_MM2 = 2000.0
SOFT_TISSUE_HU = (-20.0, 190.0)

# Decision values (HU). Late arterial: aorta 200-400 over a liver of 55-85; portal-venous: aorta 120-190 over
# 80-130; unenhanced: blood 35-50, liver 45-65. Timing and dose vary, so that the difference decides first.
ARTERIAL_OVER_ORGAN = 85.0
PORTAL_OVER_ORGAN = 70.0
ENHANCED_VESSEL = 100.0
ARTERIAL_VESSEL = 220.0  # a strong portal-venous aorta reaches 210 over a fatty liver
PLAIN_VESSEL = 75.0
PLAIN_ORGAN = 72.0
PORTAL_ORGAN = 70.0
LEAST_LIVER = 25.0  # darker is fluid
PORTAL_ORGAN_ALONE = 95.0  # no liver is so bright before the portal vein brings contrast


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
    # The aorta crosses every slice of an abdomen with one brightness; a blob in one slice is something else.
    vessel_hu = float(np.median(vessels)) if len(vessels) >= max(1, (len(noises) + 1) // 2) else None
    if vessel_hu is not None and sum(abs(v - vessel_hu) < 30.0 for v in vessels) < (len(vessels) + 1) // 2:
        vessel_hu = None
    if vessel_hu is not None and vessel_hu < ENHANCED_VESSEL <= max(vessels):
        vessel_hu = None  # dark here and bright there: what is dark is no vessel
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
        if vessel_hu >= ARTERIAL_VESSEL and over >= ARTERIAL_OVER_ORGAN:
            phase = "arterial"
        elif vessel_hu >= ENHANCED_VESSEL and over <= PORTAL_OVER_ORGAN and organ_hu >= PORTAL_ORGAN:
            phase = "portal_venous"
        elif vessel_hu <= PLAIN_VESSEL and organ_hu <= PLAIN_ORGAN:
            phase = "plain"
    elif vessel_hu is not None and vessel_hu >= 220.0:
        phase = "arterial"
    elif organ_hu is not None and vessel_hu is None and organ_hu >= PORTAL_ORGAN_ALONE:
        phase = "portal_venous"
    return Enhancement(vessel_hu, organ_hu, noise_hu, slices, phase, text)


def earlier_of(a: Enhancement, b: Enhancement) -> int | None:
    """Of two enhanced stacks of one patient, which is the arterial one? 0 or 1; None where they are too alike.

    From arterial to portal-venous the liver rises and the aorta falls; the two together say it best, the liver alone
    still well, because it is compared with itself.
    """
    if a.organ_hu is None or b.organ_hu is None or min(a.organ_hu, b.organ_hu) < LEAST_LIVER:
        return None
    rise, least = b.organ_hu - a.organ_hu, 15.0
    if a.vessel_hu is not None and b.vessel_hu is not None:
        rise, least = rise + a.vessel_hu - b.vessel_hu, 40.0
    if abs(rise) < least:
        return None
    return 0 if rise > 0 else 1


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


@dataclass(frozen=True)
class _Blob:
    """One bright area in the band around the spine."""

    row_mm: float  # from the top (front) of the picture
    column_mm: float
    area_mm2: float
    hu: float
    is_round_and_even: bool  # like a vessel cut across


def _vessel(
    smooth: NDArray[np.float32], body: NDArray[np.bool_], centre: tuple[float, float], mm: float
) -> float | None:
    """HU of the brightest round, even blob in front of the spine.

    The rearmost bright blob is taken for the vertebral body; without one nothing is said, for then either of two
    blobs could be bone. Where nothing in front of it is enhanced, the largest round soft-tissue blob counts.
    """
    half = max(2, int(CENTRAL_MM / mm))
    low = max(0, int(centre[1]) - half)
    band = smooth[:, low : int(centre[1]) + half]
    inside = body[:, low : int(centre[1]) + half]
    bright = [blob for threshold in (110.0, 150.0, 200.0, 300.0) for blob in _blobs(band, inside, threshold, mm)]
    spines = [blob for blob in bright if blob.area_mm2 >= MIN_SPINE_AREA_MM2]
    if not spines:
        return None
    spine = max(spines, key=lambda blob: blob.row_mm)
    bright = [blob for blob in bright if blob.is_round_and_even]

    def in_front(blob: _Blob) -> bool:
        return 14.0 <= spine.row_mm - blob.row_mm <= 60.0 and abs(blob.column_mm - spine.column_mm) <= 32.0

    vessels = [blob for blob in bright if in_front(blob)]
    if vessels:
        return max(blob.hu for blob in vessels)
    row, column = round(spine.row_mm / mm), round(spine.column_mm / mm)
    reach = (slice(max(0, row - round(55 / mm)), max(0, row - round(22 / mm))), slice(max(0, column - 12), column + 12))
    if np.count_nonzero(inside[reach] & (band[reach] > 110.0)) * mm * mm > 60.0:
        return None  # something bright is there, but it is not a clean round vessel
    dark = _blobs(band, inside & (band < 110.0), 10.0, mm)
    dark = [blob for blob in dark if blob.is_round_and_even and in_front(blob)]
    return max(dark, key=lambda blob: blob.area_mm2).hu if dark else None


def _blobs(band: NDArray[np.float32], inside: NDArray[np.bool_], threshold: float, mm: float) -> list[_Blob]:
    from scipy import ndimage

    found: list[_Blob] = []
    mask = inside & (band > threshold)
    # The aorta may touch the vertebra: a neck of less than 1 cm goes with two erosions, which dilation then gives back.
    labels, _ = ndimage.label(ndimage.binary_erosion(mask, iterations=max(1, round(5.0 / mm))))
    for index in range(1, int(labels.max()) + 1):
        whole = ndimage.binary_dilation(labels == index, iterations=max(1, round(5.0 / mm)), mask=mask)
        where = ndimage.find_objects(whole.astype(np.int8))[0]
        height, width = (s.stop - s.start for s in where)
        blob = whole[where]
        pixels = int(blob.sum())
        area_mm2 = pixels * mm * mm
        if area_mm2 < VESSEL_AREA_MM2[0] or where[1].start == 0 or where[1].stop == band.shape[1]:
            continue  # too small, or cut by the edge of the band: part of an organ at the side
        core = ndimage.binary_erosion(blob)
        values = band[where][core if core.sum() >= 4 else blob]
        is_round = max(height, width) <= 1.8 * min(height, width) and pixels >= 0.6 * height * width
        middle = ndimage.center_of_mass(blob)
        found.append(
            _Blob(
                (where[0].start + float(middle[0])) * mm,
                (where[1].start + float(middle[1])) * mm,
                area_mm2,
                float(np.median(values)),
                is_round and area_mm2 <= VESSEL_AREA_MM2[1] and float(values.std()) <= 40.0,
            )
        )
    return found


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
