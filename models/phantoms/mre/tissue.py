"""What each tissue of the abdomen is to a shear wave and to a magnet: moduli, densities, relaxation.

Values are design values in the range of the literature, drawn around, never quoted: the liver's stiffness by stage of
fibrosis overlaps between stages as it does in patients.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DENSITY_KG_M3 = 1000.0
REFERENCE_HZ = 60.0

AIR, FAT, MUSCLE, VISCERA, LIVER, SPLEEN, FLUID, GAS, BONE, BLOOD, KIDNEY, LUNG, HEART, LESION = range(14)
TISSUES = 14


@dataclass(frozen=True)
class Material:
    """One tissue. Relaxation as (1.5 T, 3 T); R2* and R2 without iron."""

    kpa: float  # |G*| at 60 Hz
    alpha: float  # exponent of G* = kpa (i f / 60 Hz)^alpha: loss tangent tan(pi alpha / 2)
    density: float  # of visible protons, water = 1
    t1_ms: tuple[float, float]
    t2_ms: tuple[float, float]
    r2_star: tuple[float, float]  # 1/s


MATERIALS: tuple[Material, ...] = (
    Material(0.0, 0.0, 0.0, (1000, 1000), (50, 50), (0, 0)),  # air
    Material(1.6, 0.28, 0.85, (300, 370), (58, 68), (30, 40)),  # fat
    Material(4.5, 0.20, 0.80, (1000, 1400), (40, 32), (28, 35)),  # muscle
    Material(2.0, 0.35, 0.60, (700, 900), (60, 55), (45, 65)),  # bowel and mesentery
    Material(2.2, 0.17, 0.80, (600, 800), (46, 34), (28, 40)),  # liver: modulus drawn per patient
    Material(5.0, 0.20, 0.85, (1050, 1330), (79, 61), (16, 22)),  # spleen
    Material(0.6, 0.70, 1.00, (2500, 3500), (700, 600), (3, 4)),  # fluid: no elastic shear, so soft and lossy
    Material(0.6, 0.70, 0.02, (1000, 1000), (20, 20), (300, 500)),  # gas
    Material(30.0, 0.10, 0.45, (550, 580), (50, 45), (80, 120)),  # vertebra
    Material(0.8, 0.60, 0.95, (1400, 1900), (180, 120), (8, 14)),  # blood
    Material(5.0, 0.22, 0.85, (1100, 1400), (75, 60), (18, 25)),  # kidney
    Material(0.8, 0.50, 0.15, (1100, 1300), (40, 35), (250, 450)),  # lung
    Material(4.0, 0.30, 0.75, (1000, 1400), (45, 40), (35, 50)),  # heart
    Material(6.0, 0.20, 0.90, (1000, 1300), (70, 60), (20, 28)),  # focal lesion of the liver
)

# |G*| at 60 Hz, kPa: mean and SD of stages F0..F4, and how often each is drawn.
STAGE_KPA = ((2.1, 0.3), (2.5, 0.4), (3.0, 0.6), (3.9, 0.8), (5.8, 1.5))
STAGE_OFTEN = (0.30, 0.18, 0.19, 0.15, 0.18)


def draw_liver(rng: np.random.Generator) -> tuple[int, float, float]:
    """A stage of fibrosis with its |G*| at 60 Hz (kPa) and its exponent alpha."""
    stage = int(rng.choice(5, p=STAGE_OFTEN))
    mean, sd = STAGE_KPA[stage]
    inflammation = float(rng.uniform(0.2, 0.6)) if rng.random() < 0.2 else 0.0
    kpa = float(np.clip(rng.normal(mean, sd) + inflammation, 1.4, 11.0))
    alpha = float(np.clip(rng.normal(0.16 + 0.006 * stage, 0.03), 0.08, 0.28))
    return stage, kpa, alpha


def modulus_pa(kpa: NDArray[np.floating], alpha: NDArray[np.floating], hz: float) -> NDArray[np.complex128]:
    """Complex shear modulus G* (Pa) of a springpot: |G*| rises with frequency as (f / 60 Hz)^alpha."""
    ratio = hz / REFERENCE_HZ
    size = 1000.0 * np.asarray(kpa, np.float64) * ratio ** np.asarray(alpha, np.float64)
    return size * np.exp(0.5j * np.pi * np.asarray(alpha, np.float64))


def signals(
    sequence: str, tesla: float, te_ms: float, tr_ms: float, flip_deg: float, liver_r2_star: float
) -> NDArray[np.float64]:
    """Transverse magnetisation of each tissue at the echo, water at rest = 1; index: the tissue's number.

    sequence: "gre" (spoiled gradient echo) or "se_epi" (spin echo, fat suppressed). liver_r2_star: 1/s, iron included;
    the liver's spin-echo R2 rises by 0.13 of what iron adds to R2*, the spleen's R2* by half of it.
    """
    high = int(tesla > 2)
    out = np.zeros(TISSUES)
    iron = max(0.0, liver_r2_star - MATERIALS[LIVER].r2_star[high])
    for number, tissue in enumerate(MATERIALS):
        extra = {LIVER: iron, LESION: 0.3 * iron, SPLEEN: 0.5 * iron}.get(number, 0.0)
        e1 = np.exp(-tr_ms / tissue.t1_ms[high])
        if sequence == "gre":
            angle = np.deg2rad(flip_deg)
            recovered = np.sin(angle) * (1 - e1) / (1 - np.cos(angle) * e1)
            decay = np.exp(-te_ms * 1e-3 * (tissue.r2_star[high] + extra))
        else:
            recovered = 1 - e1
            decay = np.exp(-te_ms * 1e-3 * (1e3 / tissue.t2_ms[high] + 0.13 * extra))
            if number == FAT:
                recovered *= 0.15
        out[number] = tissue.density * recovered * decay
    return out
