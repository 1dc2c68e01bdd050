"""Focal liver lesions: which, where, and what they look like in the two phases.

A pattern is a function of the normalised radius `rho` (0 centre, 1 edge) and of random textures; each value is drawn
with a wide spread, because the network will be judged on lesions made by others.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from models.phantoms.enhancement import Contrast
from models.phantoms.fields import Array, Grid, Triple, rotation, smooth_field

CLASSES = ("HCC", "ICC", "MET", "FNH", "HEM", "CYST")
MALIGNANT = frozenset({"HCC", "ICC", "MET"})


@dataclass(frozen=True)
class Plan:
    """A lesion to be painted."""

    kind: str  # one of CLASSES
    centre_mm: Triple  # z, y, x
    radii_mm: Triple
    turn: Array  # 3 x 3
    lobulation: float  # share of the radius by which the outline is modulated


Look = tuple[Array, Array]  # HU arterial, HU portal-venous, over the lesion's window
Pattern = Callable[[np.random.Generator, Contrast, Array, Array, float, bool], Look]


def draw_kinds(rng: np.random.Generator, *, cirrhosis: bool) -> list[str]:
    """Classes of the lesions of one patient; 12 % have none."""
    if rng.random() < 0.12:
        return []
    if rng.random() < 0.4:  # no story, any mixture: other simulators may draw lesions independently
        return [str(k) for k in rng.choice(CLASSES, size=rng.integers(1, 6))]
    weights = np.array([6, 1, 1, 0.5, 1, 1] if cirrhosis else [2, 2, 3, 2.5, 2.5, 1.5])
    main = str(rng.choice(CLASSES, p=weights / weights.sum()))
    most = {"HCC": 4, "ICC": 2, "MET": 8, "FNH": 2, "HEM": 4, "CYST": 6}[main]
    kinds = [main] * int(rng.integers(1, most + 1))
    if rng.random() < 0.35:
        kinds += [str(rng.choice(["CYST", "HEM"]))] * int(rng.integers(1, 3))
    return kinds[:8]


def draw_diameter_mm(rng: np.random.Generator) -> float:
    """30 % up to 10 mm, 30 % 10-20, 25 % 20-50, 15 % above 50."""
    low, high = [(5, 10), (10, 20), (20, 50), (50, 100)][int(rng.choice(4, p=[0.3, 0.3, 0.25, 0.15]))]
    return float(rng.uniform(low, high)) if high <= 20 else float(np.exp(rng.uniform(np.log(low), np.log(high))))


def plan_lesions(
    rng: np.random.Generator, kinds: list[str], positions_mm: Array, depth_mm: Array, *, round_only: bool
) -> list[Plan]:
    """Place lesions without overlap.

    positions_mm [n, 3] are points of the liver as (z, y, x), depth_mm [n] their distance to its surface. A lesion that
    finds no room is made smaller, down to 4.6 mm, and after 60 tries left out.
    """
    plans: list[Plan] = []
    if len(positions_mm) == 0:
        return plans
    sizes = sorted((draw_diameter_mm(rng) for _ in kinds), reverse=True)
    for kind, drawn in zip(kinds, sizes, strict=True):
        radius = drawn / 2
        subcapsular = rng.random() < 0.2
        for _ in range(60):
            pick = int(rng.integers(len(positions_mm)))
            room = depth_mm[pick] / (0.5 if subcapsular else 0.9)
            if room < radius:
                radius = max(radius * 0.96, 2.3)
                continue
            centre = positions_mm[pick]
            if any(
                np.linalg.norm(centre - np.array(p.centre_mm)) < radius * 1.15 + max(p.radii_mm) * 1.1 + 3
                for p in plans
            ):
                continue
            stretch = np.ones(3) if round_only else np.exp(rng.normal(0, 0.11, 3))
            stretch /= np.prod(stretch) ** (1 / 3)
            rz, ry, rx = (float(radius * s) for s in stretch)
            plans.append(
                Plan(
                    kind=kind,
                    centre_mm=(float(centre[0]), float(centre[1]), float(centre[2])),
                    radii_mm=(rz, ry, rx),
                    turn=rotation(rng, 60),
                    lobulation=0.0 if round_only else float(rng.uniform(0.0, 0.28 if kind == "ICC" else 0.16)),
                )
            )
            break
    return plans


def _flat(rho: Array, arterial: float, portal: float) -> Look:
    return np.full_like(rho, arterial), np.full_like(rho, portal)


def _shell(rho: Array, radius_mm: float, thickness_mm: float, softness: float = 0.06) -> Array:
    """1 in the outermost `thickness_mm`, 0 towards the centre."""
    inner = 1 - thickness_mm / radius_mm
    return np.asarray(1 / (1 + np.exp(-(rho - inner) / softness)), np.float32)


def _hcc(
    rng: np.random.Generator, contrast: Contrast, rho: Array, texture: Array, radius_mm: float, plain: bool
) -> Look:
    liver_ap, liver_pvp = contrast.liver
    hyper = rng.random() > 0.13
    if hyper:
        arterial = max(48 + rng.normal(50, 18) * contrast.arterial, liver_ap + rng.uniform(12, 40))
        portal = min(rng.normal(95, 15) * contrast.portal, liver_pvp - rng.uniform(2, 25))
        if rng.random() < 0.12:  # no washout
            portal = liver_pvp + rng.uniform(-4, 8)
    else:
        arterial = liver_ap - rng.uniform(0, 20)
        portal = liver_pvp - rng.uniform(14, 40)
    ap, pvp = _flat(rho, arterial, portal)
    if not plain and radius_mm > 8:
        mosaic = float(rng.uniform(0, 14))
        ap += mosaic * texture
        pvp += 0.6 * mosaic * texture
        if radius_mm > 15 and rng.random() < 0.3:  # necrosis
            core = 1 / (1 + np.exp((rho - rng.uniform(0.25, 0.55)) / 0.08))
            ap += core * (rng.uniform(25, 45) - ap)
            pvp += core * (rng.uniform(28, 50) - pvp)
    if radius_mm > 5 and rng.random() < 0.6:
        capsule = _shell(rho, radius_mm, rng.uniform(1, 2.5), 0.04)
        pvp += capsule * rng.uniform(8, 28)
        ap -= capsule * rng.uniform(0, 15)
    return ap, pvp


def _targetoid(
    rng: np.random.Generator,
    rho: Array,
    texture: Array,
    radius_mm: float,
    rim: tuple[float, float],
    centre: tuple[float, float],
    thickness_mm: float,
) -> Look:
    ring = _shell(rho, radius_mm, min(thickness_mm, 0.6 * radius_mm), float(rng.uniform(0.04, 0.12)))
    speckle = float(rng.uniform(0, 7))
    ap = centre[0] + ring * (rim[0] - centre[0]) + speckle * texture
    pvp = centre[1] + ring * (rim[1] - centre[1]) + speckle * texture
    return ap, pvp


def _icc(
    rng: np.random.Generator, contrast: Contrast, rho: Array, texture: Array, radius_mm: float, plain: bool
) -> Look:
    k = contrast.arterial
    return _targetoid(
        rng,
        rho,
        texture * (not plain),
        radius_mm,
        (40 + rng.normal(50, 14) * k, min(40 + rng.normal(45, 11) * contrast.portal, contrast.liver[1] + 5)),
        (40 + rng.normal(15, 8) * k, 40 + rng.normal(32, 10) * contrast.portal),
        radius_mm * rng.uniform(0.15, 0.4),
    )


def _met(
    rng: np.random.Generator, contrast: Contrast, rho: Array, texture: Array, radius_mm: float, plain: bool
) -> Look:
    liver_ap, liver_pvp = contrast.liver
    if rng.random() < 0.15:  # hypervascular primary
        arterial = max(40 + rng.normal(75, 16) * contrast.arterial, liver_ap + 12)
        ap, pvp = _flat(rho, arterial, min(rng.normal(90, 14), liver_pvp - rng.uniform(2, 25)))
        if rng.random() < 0.4:
            ap, pvp = _targetoid(rng, rho, texture, radius_mm, (arterial, liver_pvp - 5), (60, 65), rng.uniform(2, 6))
        return ap, pvp
    rim_ap = 40 + rng.normal(40, 14) * contrast.arterial
    if rng.random() < 0.2:
        rim_ap = liver_ap + rng.uniform(-8, 4)  # no rim to be seen
    centre_pvp = min(40 + rng.normal(25, 11) * contrast.portal, liver_pvp - 12)
    return _targetoid(
        rng,
        rho,
        texture * (not plain),
        radius_mm,
        (rim_ap, centre_pvp + rng.uniform(0, 22)),
        (min(40 + rng.normal(15, 9), rim_ap + 2), centre_pvp),
        float(rng.uniform(1.5, 6)),
    )


def _fnh(
    rng: np.random.Generator, contrast: Contrast, rho: Array, texture: Array, radius_mm: float, plain: bool
) -> Look:
    liver_ap, liver_pvp = contrast.liver
    arterial = max(52 + rng.normal(88, 24) * contrast.arterial, liver_ap + rng.uniform(25, 50))
    portal = liver_pvp + rng.uniform(-4, 16) if rng.random() < 0.7 else 52 + rng.normal(66, 11) * contrast.portal
    ap, pvp = _flat(rho, arterial, max(portal, liver_pvp - 6))
    if not plain:
        ap += rng.uniform(0, 5) * texture
    if radius_mm > 9 and rng.random() < 0.7:
        scar = 1 / (1 + np.exp((rho + (0 if plain else 0.12) * texture - rng.uniform(0.14, 0.28)) / 0.05))
        ap += scar * (rng.normal(60, 8) - ap)
        pvp += scar * (rng.normal(68, 10) - pvp)
    return ap, pvp


def _hem(
    rng: np.random.Generator, contrast: Contrast, rho: Array, texture: Array, radius_mm: float, plain: bool
) -> Look:
    aorta_ap, aorta_pvp = contrast.tissue["aorta"]
    if radius_mm < 10 and rng.random() < 0.4:  # flash filling: follows the aorta
        return _flat(rho, max(aorta_ap * rng.uniform(0.6, 1.0), 130), aorta_pvp * rng.uniform(0.85, 1.0))
    nodule_ap = float(np.clip(aorta_ap * rng.uniform(0.5, 0.8), 130, 280))
    nodule_pvp = float(aorta_pvp * rng.uniform(0.85, 1.05))
    rind = _shell(rho, radius_mm, float(np.clip(radius_mm * rng.uniform(0.2, 0.5), 1.5, 12)), 0.07)
    patchy = plain and rng.random() < 0.6
    spots = np.ones_like(rho) if patchy else 1 / (1 + np.exp(-(texture - rng.uniform(-0.8, 0.5)) * 5))
    centre = float(rng.normal(45, 7)), float(rng.normal(48, 8))
    ap = centre[0] + rind * spots * (nodule_ap - centre[0])
    reach = float(rng.uniform(0.15, 0.75))  # how far the pool has filled in by the portal-venous phase
    fill = 1 / (1 + np.exp(-(rho - (1 - reach)) / 0.1))
    pvp = centre[1] + fill * (rng.uniform(90, 130) * contrast.portal - centre[1])
    pvp += rind * spots * np.maximum(nodule_pvp - pvp, 0)
    return np.asarray(ap, np.float32), np.asarray(pvp, np.float32)


def _cyst(rng: np.random.Generator, _contrast: Contrast, rho: Array, *_: object) -> Look:
    value = float(np.clip(rng.normal(5, 6), -5, 18))
    return _flat(rho, value, value + rng.normal(1, 1.5))


PATTERNS: dict[str, Pattern] = {"HCC": _hcc, "ICC": _icc, "MET": _met, "FNH": _fnh, "HEM": _hem, "CYST": _cyst}


def look_of(plan: Plan, rng: np.random.Generator, contrast: Contrast, rho: Array, grid: Grid, *, plain: bool) -> Look:
    """HU of a lesion in both phases over its window.

    Draws again, up to six times, while the lesion cannot be told from the liver in either phase: a lesion that
    nobody can see teaches nothing. Cystic and haemorrhagic variants are not modelled.
    """
    radius = float(np.prod(plan.radii_mm) ** (1 / 3))
    texture = smooth_field(rng, grid, max(3.0, radius * float(rng.uniform(0.35, 0.7))))
    inside = rho < 1
    for _ in range(6):
        ap, pvp = PATTERNS[plan.kind](rng, contrast, rho, texture, radius, plain)
        if not inside.any():
            break
        contrast_hu = max(
            float(np.abs(ap[inside] - contrast.liver[0]).mean()), float(np.abs(pvp[inside] - contrast.liver[1]).mean())
        )
        if contrast_hu > 14:
            break
    return ap, pvp
