"""A CT with known answers and a network that is always right about it.

Tissue is coded so that linear interpolation keeps the 50 % surface of every body where it was drawn: the probability
that the oracle gives is the share of the tissue in the voxel.
"""

from dataclasses import dataclass, field
from typing import Any

import highdicom as hd
import numpy as np
from numpy.typing import NDArray

from pipelines.inputs import CtLesionInput

CHANNELS = ("background", "liver", "HCC", "ICC", "MET", "FNH", "HEM", "CYST")
FAT, LIVER_AP, LIVER_PVP = -100.0, 68.0, 112.0
#: A lesion is this much brighter than the liver: HCC in the arterial, MET in the portal-venous phase.
STEP = 100.0


@dataclass(frozen=True)
class Sphere:
    centre_mm: tuple[float, float, float]
    radius_mm: float
    kind: str  # "HCC" or "MET"


@dataclass(frozen=True)
class OracleCase:
    """A liver at the origin with spheres in it."""

    lesions: tuple[Sphere, ...] = ()
    shape: tuple[int, int, int] = (64, 176, 176)
    spacing_mm: tuple[float, float, float] = (3.0, 1.4, 1.4)
    affine: NDArray[np.float64] | None = None
    liver_radii_mm: tuple[float, float, float] = (85.0, 62.0, 70.0)  # x, y, z
    liver_hu: tuple[float, float] = (LIVER_AP, LIVER_PVP)
    aorta_hu: tuple[float, float] = (300.0, 155.0)
    arterial_shift_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    noise_hu: float = 0.0
    descriptions: tuple[str, ...] = ("CT liver two phases",)
    age_years: float | None = 60.0
    extra: dict[str, float] = field(default_factory=dict)

    def grid_affine(self) -> NDArray[np.float64]:
        """(slice, row, column) -> LPS mm, centred on the origin, slices from feet to head unless given."""
        if self.affine is not None:
            return self.affine
        affine = np.zeros((4, 4))
        affine[2, 0], affine[1, 1], affine[0, 2] = self.spacing_mm
        affine[:3, 3] = -affine[:3, :3] @ ((np.asarray(self.shape) - 1) / 2)
        affine[3, 3] = 1
        return affine

    def volume(self, phase: int) -> hd.Volume:
        """0: arterial, 1: portal-venous."""
        affine = self.grid_affine()
        points = np.indices(self.shape).reshape(3, -1).T @ affine[:3, :3].T + affine[:3, 3]
        if phase == 0:
            points = points - np.asarray(self.arterial_shift_mm)
        soft = float(min(self.spacing_mm))
        values = np.full(len(points), FAT)
        body = np.linalg.norm(points[:, :2] / (115.0, 100.0), axis=1)
        values[body > 1] = -1000.0
        liver = np.linalg.norm(points / self.liver_radii_mm, axis=1)
        share = _share((liver - 1) * min(self.liver_radii_mm), soft)
        values = np.where(body > 1, values, values + share * (self.liver_hu[phase] - FAT))
        # portal vein: a bar inside the liver, bright in the portal-venous phase, a little in the arterial one
        vein = np.maximum(
            np.abs(points[:, 1] - 20) - 4, np.maximum(np.abs(points[:, 2] + 10) - 4, np.abs(points[:, 0]) - 30)
        )
        values += _share(vein, soft) * (self.extra.get("vein_ap", 12.0), self.extra.get("vein_pvp", 25.0))[phase]
        aorta = np.hypot(points[:, 0] - 20, points[:, 1] - 84) - 9
        values += _share(aorta, soft) * (self.aorta_hu[phase] - FAT)
        for lesion in self.lesions:
            distance = np.linalg.norm(points - lesion.centre_mm, axis=1) - lesion.radius_mm
            if (lesion.kind == "HCC") == (phase == 0):
                values += _share(distance, soft) * STEP
        if self.noise_hu:
            values += np.random.default_rng(phase).normal(0, self.noise_hu, values.shape)
        array = np.round(values).astype(np.int16).reshape(self.shape)
        return hd.Volume(array, affine, "PATIENT", frame_of_reference_uid="2.25.1")

    def study(self) -> CtLesionInput:
        return CtLesionInput(self.volume(0), self.volume(1), self.descriptions, self.age_years)


def _share(distance_mm: NDArray[np.float64], soft_mm: float) -> NDArray[np.float64]:
    """Share of a body in voxels at this signed distance from its surface."""
    return np.clip(0.5 - distance_mm / soft_mm, 0, 1)


@dataclass(frozen=True)
class Oracle:
    """Reads the tissue code; keeps what it was shown."""

    name: str = "oracle"
    version: str = "1"
    sha256: str = "0" * 64
    trained_on: str = "nothing"
    spacing_mm: tuple[float, float, float] = (3.0, 1.5, 1.5)
    channels: tuple[str, ...] = CHANNELS
    seen: list[NDArray[np.float32]] = field(default_factory=list)

    def __call__(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        self.seen.append(image)
        arterial, portal_venous = image
        inside = np.clip((portal_venous - FAT) / (LIVER_PVP - FAT), 0, 1)
        lesions = {
            "HCC": np.clip((arterial - LIVER_AP) / STEP, 0, 1) * (inside > 0.9),
            "MET": np.clip((portal_venous - LIVER_PVP) / STEP, 0, 1),
        }
        any_lesion = np.clip(sum(lesions.values()), 1e-6, 1)
        total = {name: value * any_lesion / np.maximum(sum(lesions.values()), 1e-6) for name, value in lesions.items()}
        out = np.zeros((len(self.channels), *image.shape[1:]), dtype=np.float32)
        for channel, name in enumerate(self.channels):
            if name == "liver":
                out[channel] = np.clip(inside - any_lesion, 0, 1) if "HCC" in self.channels else inside
            elif name == "background":
                out[channel] = 1 - inside
            elif name in total:
                out[channel] = np.clip(total[name], 0, 1)
        return out


@dataclass(frozen=True)
class Reviewer:
    """Believes what ct_lesion's probabilities in the patch say: brightness of the candidate gives its class."""

    name: str = "ct_review"
    version: str = "1"
    sha256: str = "0" * 64
    trained_on: str = "nothing"
    spacing_mm: tuple[float, float, float] = (3.0, 1.5, 1.5)
    in_channels: tuple[str, ...] = ("arterial", "portal_venous", "lesion", "liver", "candidate")
    channels: tuple[str, ...] = ("none", "HCC", "ICC", "MET", "FNH", "HEM", "CYST")
    seen: list[NDArray[np.float32]] = field(default_factory=list)

    def __call__(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        self.seen.append(image)
        arterial, portal_venous, lesion, _, candidate = image
        inside = candidate > 0
        score = float(np.clip(lesion[inside].max(), 0, 1))
        hcc = (arterial[inside].mean() - LIVER_AP) > (portal_venous[inside].mean() - LIVER_PVP)
        answer = np.full((len(self.channels), 1, 1, 1), 0.0, np.float32)
        answer[0] = 1 - score
        answer[self.channels.index("HCC" if hcc else "MET")] = score
        return answer


def oracle_bundles(
    liver_spacing_mm: tuple[float, float, float] = (6.0, 3.0, 3.0),
    lesion_spacing_mm: tuple[float, float, float] = (3.0, 1.5, 1.5),
) -> dict[str, Any]:
    return {
        "ct_liver": Oracle(name="ct_liver", spacing_mm=liver_spacing_mm, channels=("background", "liver")),
        "ct_lesion": Oracle(name="ct_lesion", spacing_mm=lesion_spacing_mm),
        "ct_review": Reviewer(spacing_mm=lesion_spacing_mm),
    }
