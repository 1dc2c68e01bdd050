"""Is this study one that ct_lesion can read? Refusals in words for the radiologist, and warnings.

HU values of the tissues: liver about 55 unenhanced, 70 late arterial, 110 portal-venous (65 unenhanced and 90 in a
fatty or cirrhotic liver still show the rise); vessels inside the liver 170 portal-venous; aorta 300 late arterial, 155
portal-venous. Design values, see the model card.
"""

from dataclasses import dataclass

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipelines.ct_lesion.grid import AIR_HU
from pipelines.ct_lesion.history import earlier_treatment
from pipelines.ct_lesion.localisation import Localised
from pipelines.findings import UnsuitableInput
from pipelines.inputs import CtLesionInput

MIN_AGE_YEARS = 18.0
MIN_SLICES = 12
MIN_EXTENT_MM = 90.0
MAX_SLICE_SPACING_MM = 7.0
THICK_SLICE_MM = 5.5
MAX_PIXEL_SPACING_MM = 2.5
MIN_LIVER_ML = 200.0
SMALL_LIVER_ML = 500.0
#: Share of the liver's largest cross-section that lies on the first or last image of a cut-off liver.
MAX_CUT_SHARE = 0.75
WARN_CUT_SHARE = 0.10
#: Share of the liver that the arterial phase must cover.
MIN_COVERED = 0.80
WARN_COVERED = 0.97
#: The liver brightens by this between unenhanced or arterial and portal-venous images.
MIN_LIVER_RISE_HU = 8.0
#: The aorta is this much brighter arterially than portal-venously.
MIN_AORTA_FALL_HU = 60.0
MIN_ENHANCED_VESSEL_HU = 95.0
#: An arterial phase whose liver vessels are not this much brighter than the liver is early.
MIN_ARTERIAL_VESSEL_CONTRAST_HU = 8.0
VESSEL_OVER_LIVER_HU = 20.0
MIN_VESSELS_MM3 = 2000.0
LARGE_SHIFT_MM = 15.0

_ROLE_WORDS = {"arterial": "arterial phase", "portal_venous": "portal-venous phase"}


@dataclass(frozen=True)
class Enhancement:
    """What the pixels say of the contrast medium, HU."""

    liver_arterial: float  # median in the liver
    liver_portal_venous: float
    vessels_portal_venous: float  # 99th percentile in the liver: portal and hepatic veins
    aorta_fall: float  # arterial less portal-venous where that is highest: aorta, renal cortex


def check_input(study: CtLesionInput) -> None:
    """Refuse by header and by plain pixel statistics, before any network runs.

    Raises UnsuitableInput with a text for the radiologist.
    """
    if study.patient_age_years is not None and study.patient_age_years < MIN_AGE_YEARS:
        raise UnsuitableInput(
            f"The patient is {study.patient_age_years:.0f} years old; this analysis is for adults from 18 years."
        )
    treatment = earlier_treatment(study.descriptions)
    if treatment is not None:
        raise UnsuitableInput(
            f'The study description tells of earlier liver treatment ("{treatment}"); this analysis is not valid after '
            "resection, transplantation, ablation or embolisation of the liver."
        )
    for role, volume in (("arterial", study.arterial), ("portal_venous", study.portal_venous)):
        _check_geometry(_ROLE_WORDS[role], volume)
        _check_hounsfield(_ROLE_WORDS[role], volume)


def check_liver(localised: Localised) -> list[str]:
    """Is there a whole liver in both phases? Returns warnings.

    Raises UnsuitableInput if no liver is found, it is too small, cut off, or not covered by the arterial phase.
    """
    if not localised.liver.any():
        raise UnsuitableInput("No liver was found in the portal-venous phase.")
    if localised.volume_ml < MIN_LIVER_ML:
        raise UnsuitableInput(
            f"Only {localised.volume_ml:.0f} ml of liver were found, {MIN_LIVER_ML:.0f} ml are needed; the liver may "
            "be outside the images, cut off, or altered too much."
        )
    warnings = []
    if localised.volume_ml < SMALL_LIVER_ML:
        warnings.append(f"Only {localised.volume_ml:.0f} ml of liver were found; lesions outside of it are not seen.")
    areas = localised.liver.sum(axis=(1, 2))
    for name, index in (("lowest", 0), ("highest", -1)):
        share = float(areas[index]) / float(areas.max())
        if share > MAX_CUT_SHARE:
            raise UnsuitableInput(
                f"The liver is cut off at the {name} image of the portal-venous phase; the whole liver is needed."
            )
        if share > WARN_CUT_SHARE:
            warnings.append(f"The liver may be cut off at the {name} image of the portal-venous phase.")
    covered = float((localised.arterial[localised.liver] > AIR_HU / 2).mean())
    if covered < MIN_COVERED:
        raise UnsuitableInput(
            f"The arterial phase covers {100 * covered:.0f} % of the liver seen in the portal-venous phase; "
            f"{100 * MIN_COVERED:.0f} % are needed."
        )
    if covered < WARN_COVERED:
        warnings.append(f"The arterial phase covers {100 * covered:.0f} % of the liver; classes beyond are uncertain.")
    return warnings


def check_enhancement(found: Enhancement) -> list[str]:
    """Are these an arterial and a portal-venous phase? Returns warnings.

    Raises UnsuitableInput for unenhanced images, swapped phases and the same phase twice.
    """
    rise = found.liver_portal_venous - found.liver_arterial
    seen = f"liver {found.liver_arterial:.0f} HU and {found.liver_portal_venous:.0f} HU"
    if rise < -MIN_LIVER_RISE_HU:
        raise UnsuitableInput(
            f"The liver is brighter in the arterial than in the portal-venous phase ({seen}); "
            "the two phases may have been exchanged."
        )
    if found.aorta_fall < MIN_AORTA_FALL_HU and rise < MIN_LIVER_RISE_HU:
        if found.vessels_portal_venous < MIN_ENHANCED_VESSEL_HU:
            raise UnsuitableInput(
                f"No contrast enhancement is seen ({seen}); an arterial and a portal-venous phase are needed."
            )
        raise UnsuitableInput(
            f"Both phases look alike ({seen}, no bright aorta in the first); an arterial and a portal-venous phase "
            "are needed."
        )
    warnings = []
    if rise < MIN_LIVER_RISE_HU:
        warnings.append("The liver brightens little between the phases; the arterial phase may be late.")
    return warnings


def enhancement(localised: Localised) -> Enhancement:
    """Measure the contrast medium in the liver and around it, on the coarse grid by header geometry."""
    arterial, portal_venous, liver = localised.arterial, localised.portal_venous, localised.liver
    inside = ndimage.binary_erosion(liver) if liver.sum() > 1000 else liver
    inside = inside if inside.any() else liver
    liver_values = portal_venous[inside]
    around = _body_around(localised)
    fall = (arterial - portal_venous)[around]
    return Enhancement(
        liver_arterial=float(np.median(arterial[inside])),
        liver_portal_venous=float(np.median(liver_values)),
        vessels_portal_venous=float(np.percentile(liver_values, 99)),
        aorta_fall=float(np.percentile(fall, 99.7)) if fall.size else 0.0,
    )


def timing_warnings(localised: Localised, arterial: NDArray[np.float32]) -> list[str]:
    """Warn of an early arterial phase: the portal vein, bright in the portal-venous phase, is not yet enhanced.

    arterial : float32 [slice, row, column] HU on the coarse grid, registered onto the portal-venous phase.
    Where no vessels are seen in the liver nothing is said.
    """
    inside = ndimage.binary_erosion(localised.liver)
    if not inside.any():
        return []
    vessels = inside & (localised.portal_venous > np.median(localised.portal_venous[inside]) + VESSEL_OVER_LIVER_HU)
    if vessels.sum() * localised.grid.voxel_mm3 < MIN_VESSELS_MM3:
        return []
    # hepatic veins are dark in any arterial phase: the brighter part of the vessels decides
    contrast = float(np.percentile(arterial[vessels], 80) - np.median(arterial[inside]))
    if contrast < MIN_ARTERIAL_VESSEL_CONTRAST_HU:
        return ["The arterial phase is early: the portal vein is not yet enhanced; HCC may be missed."]
    return []


def movement_warnings(shift_mm: tuple[float, float, float]) -> list[str]:
    """Warn where the liver moved far between the phases."""
    distance = float(np.linalg.norm(shift_mm))
    if distance > LARGE_SHIFT_MM:
        return [f"The liver moved {distance:.0f} mm between the phases; small lesions may be judged wrongly."]
    return []


def thickness_warnings(study: CtLesionInput) -> list[str]:
    """Warn of thick slices."""
    thickest = max(float(study.arterial.spacing[0]), float(study.portal_venous.spacing[0]))
    if thickest > THICK_SLICE_MM:
        return [f"Slices are {thickest:.1f} mm apart; lesions under 10 mm may be missed."]
    return []


def _check_geometry(phase: str, volume: hd.Volume) -> None:
    slices, extent = volume.spatial_shape[0], volume.spatial_shape[0] * float(volume.spacing[0])
    if slices < MIN_SLICES or extent < MIN_EXTENT_MM:
        raise UnsuitableInput(
            f"The {phase} has {slices} images over {extent:.0f} mm; the whole liver is needed, at least {MIN_SLICES} "
            f"images over {MIN_EXTENT_MM:.0f} mm."
        )
    if volume.spacing[0] > MAX_SLICE_SPACING_MM or max(volume.spacing[1:]) > MAX_PIXEL_SPACING_MM:
        raise UnsuitableInput(
            f"The {phase} has voxels of {' x '.join(f'{size:.2f}' for size in volume.spacing)} mm; "
            f"at most {MAX_SLICE_SPACING_MM:.0f} mm between slices and {MAX_PIXEL_SPACING_MM} mm in-plane are needed."
        )
    normal = np.abs(np.asarray(volume.direction)[:, 0])
    if normal[2] < 0.9:
        raise UnsuitableInput(f"The {phase} is not made of axial images; axial images are needed.")


def _check_hounsfield(phase: str, volume: hd.Volume) -> None:
    """Soft tissue, fat or air, and little denser than bone: else the numbers are no Hounsfield units."""
    sample = volume.array[:: max(1, volume.spatial_shape[0] // 16), ::8, ::8]
    soft = float(((sample > -200) & (sample < 300)).mean())
    light = float((sample < -50).mean())
    dense = float((sample > 900).mean())
    if not np.isfinite(sample).all() or soft < 0.05 or light < 0.02 or dense > 0.10:
        raise UnsuitableInput(
            f"The {phase} is not in Hounsfield units (values {float(sample.min()):.0f} to {float(sample.max()):.0f}, "
            f"{100 * soft:.0f} % like soft tissue); original CT images are needed, no derived ones."
        )


def _body_around(localised: Localised) -> NDArray[np.bool_]:
    """Voxels of both phases within the liver's slices that are body, averaged against noise by the coarse grid."""
    slices = np.flatnonzero(localised.liver.any(axis=(1, 2)))
    both = (localised.arterial > -50) & (localised.portal_venous > -50)
    around = np.zeros_like(both)
    around[slices] = both[slices]
    return around
