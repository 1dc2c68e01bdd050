"""Training samples from a site's own case folders (contract: dicom/, truth.json, optionally a liver mask)."""

import json
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import SimpleITK as sitk  # noqa: N813 - the name all of its users know
from numpy.typing import NDArray

from models.phantoms.lesions import CLASSES
from models.training.cases import LESION_SPACING_MM, LIVER_SPACING_MM, MARGIN_MM, Sample


class VolumeLike(Protocol):
    """What is needed of a highdicom.Volume: [slice, row, column] HU and its affine (index -> LPS mm)."""

    @property
    def array(self) -> NDArray[Any]: ...
    @property
    def affine(self) -> NDArray[np.floating]: ...


class PhasesLike(Protocol):
    """What is needed of the input of ct_lesion."""

    @property
    def arterial(self) -> VolumeLike: ...
    @property
    def portal_venous(self) -> VolumeLike: ...


def image_of(volume: VolumeLike) -> sitk.Image:
    """The volume as a SimpleITK image in LPS millimetres."""
    image = sitk.GetImageFromArray(np.asarray(volume.array, np.float32))
    columns = np.asarray(volume.affine)[:3, :3][:, ::-1]  # SimpleITK counts column, row, slice
    spacing = np.linalg.norm(columns, axis=0)
    image.SetSpacing([float(s) for s in spacing])
    image.SetDirection([float(d) for d in (columns / spacing).ravel()])
    image.SetOrigin([float(o) for o in np.asarray(volume.affine)[:3, 3]])
    return image


def _axial_grid(
    low: NDArray[np.floating], high: NDArray[np.floating], spacing: tuple[float, float, float]
) -> sitk.Image:
    """An empty axis-aligned grid from low to high, (x, y, z) mm; spacing is (slice, row, column)."""
    step = np.array(spacing[::-1])
    size = np.maximum(2, np.ceil((high - low) / step).astype(int) + 1)
    grid = sitk.Image([int(n) for n in size], sitk.sitkUInt8)
    grid.SetSpacing([float(s) for s in step])
    grid.SetOrigin([float(v) for v in low])
    return grid


def _on(image: sitk.Image, grid: sitk.Image, *, outside: float, nearest: bool = False) -> NDArray[np.float32]:
    method = sitk.sitkNearestNeighbor if nearest else sitk.sitkLinear
    moved = sitk.Resample(image, grid, sitk.Transform(), method, outside, sitk.sitkFloat32)
    return np.asarray(sitk.GetArrayFromImage(moved), np.float32)


def _corners(image: sitk.Image) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    size = image.GetSize()
    ends = [[0, n - 1] for n in size]
    points = np.array(
        [image.TransformIndexToPhysicalPoint((i, j, k)) for i in ends[0] for j in ends[1] for k in ends[2]]
    )
    return points.min(0), points.max(0)


def sample_of_site_case(folder: Path, phases: PhasesLike) -> Sample:
    """Turn a case folder and its two phases into a training sample.

    Needs the liver mask named by truth.json. A lesion of truth.json is drawn as the sphere of its diameter, because
    the contract carries no lesion masks. The arterial phase is taken by geometry; it is not registered.
    Raises ValueError when the mask is missing or empty, or a class is unknown.
    """
    truth = json.loads((folder / "truth.json").read_text(encoding="utf-8"))
    mask_name = truth.get("liver_mask")
    if not mask_name or not (folder / mask_name).is_file():
        raise ValueError(f"{folder.name}: truth.json must name a liver_mask that is there, got {mask_name!r}")
    liver = sitk.ReadImage(str(folder / mask_name), sitk.sitkUInt8)
    arterial, portal = image_of(phases.arterial), image_of(phases.portal_venous)
    indices = np.nonzero(sitk.GetArrayFromImage(liver))
    if indices[0].size == 0:
        raise ValueError(f"{folder.name}: the liver mask {mask_name} is empty")
    ends = np.array(
        [
            liver.TransformContinuousIndexToPhysicalPoint([float(p) for p in point])
            for point in ([i.min() for i in indices[::-1]], [i.max() for i in indices[::-1]])
        ]
    )
    fine = _axial_grid(ends.min(0) - MARGIN_MM, ends.max(0) + MARGIN_MM, LESION_SPACING_MM)
    coarse = _axial_grid(*_corners(portal), LIVER_SPACING_MM)
    label = (_on(liver, fine, outside=0, nearest=True) > 0).astype(np.uint8)
    origin = np.array(fine.GetOrigin())[::-1]
    z, y, x = np.ogrid[tuple(slice(0, n) for n in label.shape)]
    points, sizes = [], []
    for lesion in truth.get("lesions", []):
        if lesion["class"] not in CLASSES:
            raise ValueError(
                f"{folder.name}: lesion class must be one of {', '.join(CLASSES)}, got {lesion['class']!r}"
            )
        at = (np.array(lesion["centre_mm"])[::-1] - origin) / LESION_SPACING_MM
        distance = np.sqrt(sum(((g - c) * s) ** 2 for g, c, s in zip((z, y, x), at, LESION_SPACING_MM, strict=True)))
        label[distance <= max(lesion["diameter_mm"] / 2, 1.6)] = 2 + CLASSES.index(lesion["class"])
        points.append(at)
        sizes.append(lesion["diameter_mm"])
    images = {
        key: np.stack([_on(image, grid, outside=-1000) for image in (arterial, portal)]).clip(-1024, 3000)
        for key, grid in (("lesion_image", fine), ("liver_image", coarse))
    }
    return {
        "lesion_image": images["lesion_image"].astype(np.int16),
        "lesion_label": label,
        "lesion_points": np.rint(np.array(points).reshape(-1, 3)).astype(np.int16),
        "lesion_size_mm": np.array(sizes, np.float32),
        "liver_image": images["liver_image"].astype(np.int16),
        "liver_label": (_on(liver, coarse, outside=0, nearest=True) > 0).astype(np.uint8),
    }
