"""HU of every tissue in the arterial and portal-venous phase of one simulated patient.

Means and SDs are the design values for 120 kVp, late arterial (35-40 s) and portal-venous phase (65-80 s):
liver 56 -> 68 -> 112, aorta 42 -> 300 -> 155, portal vein 40 -> 120 -> 170, spleen 50 -> 115 -> 122.
Timing and iodine dose vary per patient, so a case may show an early arterial or a weak portal-venous phase.
"""

from dataclasses import dataclass

import numpy as np

Hu = tuple[float, float]  # arterial, portal-venous


@dataclass(frozen=True)
class Contrast:
    """What the injection did in this patient."""

    arterial: float  # 1 = a good late arterial phase
    early: float  # 0 = late, 1 = early arterial: liver, veins and portal vein hardly enhanced
    portal: float  # 1 = a good portal-venous phase
    liver_native: float  # HU
    liver: Hu
    tissue: dict[str, Hu]


# name: native, arterial, portal-venous, SD between patients
_ORGANS: dict[str, tuple[float, float, float, float]] = {
    "spleen": (50, 115, 122, 12),
    "kidney": (35, 170, 190, 25),
    "kidney_core": (25, 70, 150, 25),
    "pancreas": (42, 105, 95, 12),
    "gallbladder": (10, 10, 10, 6),
    "stomach_wall": (40, 85, 85, 12),
    "stomach_fluid": (8, 8, 8, 8),
    "bowel": (35, 75, 80, 20),
    "muscle": (55, 62, 68, 6),
    "heart": (42, 220, 150, 30),
    "fluid": (8, 9, 10, 5),
    "cord": (35, 38, 40, 5),
}


def draw_contrast(rng: np.random.Generator, *, steatosis: bool, cirrhosis: bool) -> Contrast:
    """Draw one patient's enhancement."""
    arterial = float(np.clip(rng.normal(1.0, 0.16), 0.6, 1.4))
    early = float(rng.uniform(0.5, 1.0)) if rng.random() < 0.2 else float(rng.uniform(0, 0.4))
    portal = float(np.clip(rng.normal(1.0, 0.14), 0.6, 1.35))
    if rng.random() < 0.1:
        portal *= 0.7
    native = float(rng.uniform(0, 35)) if steatosis else float(rng.normal(50 if cirrhosis else 56, 6))
    # Cirrhotic livers take up less iodine in the portal-venous phase.
    uptake_arterial = float(np.clip(rng.normal(13, 6), 1, 30)) * (1 - 0.6 * early) * arterial
    uptake_portal = float(np.clip(rng.normal(50 if cirrhosis else 56, 9), 25, 85)) * portal
    liver = (native + uptake_arterial, native + uptake_portal)
    aorta = (
        float(np.clip(42 + rng.normal(258, 50) * arterial, 130, 480)),
        float(42 + rng.normal(113, 20) * portal),
    )
    vein = (
        float(40 + np.clip(rng.normal(80, 33), 0, 160) * (1 - 0.85 * early) * arterial),
        float(40 + rng.normal(130, 20) * portal),
    )
    tissue: dict[str, Hu] = {"aorta": aorta, "portal_vein": vein}
    tissue["vena_cava"] = (float(rng.uniform(45, 130)), float(40 + rng.normal(85, 20) * portal))
    # Hepatic veins are not yet opacified in the arterial phase: dark tubes that are no lesions.
    tissue["hepatic_vein"] = (float(rng.uniform(42, 58)), float(40 + rng.normal(115, 22) * portal))
    tissue["hepatic_artery"] = (aorta[0] * 0.8, aorta[1] * 0.9)
    for name, (base, ap, pvp, sd) in _ORGANS.items():
        shift, gain = rng.normal(0, sd * 0.5), rng.normal(1, 0.1)
        tissue[name] = (
            float(base + shift + (ap - base) * gain * arterial),
            float(base + shift + (pvp - base) * gain * portal),
        )
    for name, low, high in (("fat", -115, -85), ("bone", 150, 450), ("cortex", 400, 1100), ("lung", -900, -650)):
        value = float(rng.uniform(low, high))
        tissue[name] = (value, value)
    tissue["air"] = (-1000.0, -1000.0)
    return Contrast(arterial, early, portal, native, liver, tissue)
