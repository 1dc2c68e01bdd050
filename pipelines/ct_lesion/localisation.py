"""Where the liver is, from both phases on a coarse grid."""

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk  # noqa: N813 - its own documentation's name
from numpy.typing import NDArray
from scipy import ndimage

from pipelines.ct_lesion.grid import Grid, image_on, onto
from pipelines.pipeline import Predictor


@dataclass(frozen=True)
class Localised:
    """Both phases and the liver on the coarse grid of the ct_liver bundle."""

    grid: Grid
    arterial: NDArray[np.float32]  # [slice, row, column] HU, by the header's geometry alone
    portal_venous: NDArray[np.float32]  # [slice, row, column] HU
    liver: NDArray[np.bool_]  # [slice, row, column], one connected piece or empty

    @property
    def volume_ml(self) -> float:
        """Liver volume on the coarse grid."""
        return float(self.liver.sum()) * self.grid.voxel_mm3 / 1000.0


def coarse_phases(
    arterial: sitk.Image, portal_venous: sitk.Image, grid: Grid
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Both phases in HU on the coarse grid, float32 [slice, row, column]; -1024 HU where a phase does not reach."""
    return onto(arterial, grid), onto(portal_venous, grid)


def find_liver(
    arterial: NDArray[np.float32], portal_venous: NDArray[np.float32], grid: Grid, bundle: Predictor
) -> Localised:
    """Segment the liver: more likely liver than not, largest piece, holes filled.

    arterial, portal_venous : float32 [slice, row, column] HU on the grid.
    The liver is empty where the bundle finds none.
    """
    probabilities = bundle(np.stack([arterial, portal_venous]))
    liver = probabilities[bundle.channels.index("liver")] > 0.5
    return Localised(grid, arterial, portal_venous, largest_piece(liver))


def around_liver(localised: Localised, grid: Grid, margin_mm: float) -> NDArray[np.bool_]:
    """Voxels of another working grid within the margin of the coarse liver, bool [slice, row, column]."""
    liver = onto(image_on(localised.grid, localised.liver.astype(np.float32)), grid, outside=0.0) > 0.5
    if not liver.any():
        return liver
    near: NDArray[np.bool_] = ndimage.distance_transform_edt(~liver, sampling=grid.spacing_mm) <= margin_mm
    return near


def largest_piece(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest face-connected piece of a mask, holes filled; ties go to the lowest index."""
    labels, count = ndimage.label(mask)
    if count == 0:
        return mask
    sizes = np.bincount(labels.ravel())[1:]
    piece: NDArray[np.bool_] = ndimage.binary_fill_holes(labels == int(np.argmax(sizes)) + 1)
    return piece
