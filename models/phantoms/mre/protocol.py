"""Protocols of four makers as they are used for the liver, and where a slice lies in the field of view."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

VENDORS = ("GE", "Siemens", "Philips", "Canon")
VENDOR_OFTEN = (0.42, 0.28, 0.20, 0.10)


@dataclass(frozen=True)
class Protocol:
    """One MRE sequence. Lines: phase-encoding steps; all lengths mm, times ms."""

    vendor: str
    sequence: str  # "gre" or "se_epi"
    tesla: float
    hz: float  # that the sequence encodes and the console's inversion assumes
    offsets: int
    te_ms: float
    tr_ms: float
    flip_deg: float
    fov_mm: float  # square after reconstruction
    samples: int  # acquired along the readout
    lines: int  # acquired along the phase encoding
    matrix: int  # of the reconstructed, square image
    phase_axis: int  # 0: phase encoding along the rows' normal (AP), 1: RL
    acceleration: int
    thickness_mm: float
    gap_mm: float
    slices: int

    @property
    def pixel_mm(self) -> float:
        return self.fov_mm / self.matrix

    def line_seconds(self, offset: int, polarity: int) -> NDArray[np.float64]:
        """When each line of one image was acquired, s after the slice began; a single-shot image has one moment."""
        tr = self.tr_ms / 1000
        if self.sequence == "se_epi":
            return np.full(self.lines, (2 * offset + polarity) * tr)
        line = np.arange(self.lines) // self.acceleration
        per_offset = -(-self.lines // self.acceleration)
        return np.asarray(((offset * per_offset + line) * 2 + polarity) * tr, np.float64)


def draw_protocol(rng: np.random.Generator, vendor: str | None = None, matrix: int | None = None) -> Protocol:
    """A maker's protocol. matrix: of the reconstruction instead of the drawn one."""
    maker = vendor if vendor is not None else str(rng.choice(VENDORS, p=VENDOR_OFTEN))
    sequence = "gre" if rng.random() < {"GE": 0.6, "Siemens": 0.5, "Philips": 0.6, "Canon": 0.3}[maker] else "se_epi"
    tesla = float(rng.choice([1.5, 3.0]))
    hz = float(rng.choice([60, 60, 60, 60, 60, 60, 60, 60, 50, 40, 70, 80]))
    if sequence == "gre":
        te, periods = 1000 / hz + float(rng.uniform(2.0, 5.0)), int(rng.choice([2, 3, 3]))
        tr, flip = 1000 * periods / hz, float(rng.choice([20, 25, 30]))
        lines, samples, acceleration = int(rng.choice([64, 64, 72, 80, 96])), 256, int(rng.choice([1, 2, 2]))
    else:
        te = float(rng.uniform(44, 62))
        tr, flip = 1000 * round(rng.uniform(0.9, 1.3) * hz) / hz, 90.0
        lines = samples = int(rng.choice([64, 80, 96, 100, 128]))
        acceleration = 2
    reconstructed = {
        "GE": [256],
        "Siemens": [128, 256] if sequence == "gre" else [100, 128],
        "Philips": [224, 256, 288],
        "Canon": [256],
    }[maker]
    return Protocol(
        vendor=maker, sequence=sequence, tesla=tesla, hz=hz,
        offsets=8 if rng.random() < 0.1 else 4,
        te_ms=round(te, 1), tr_ms=round(tr, 3), flip_deg=flip,
        fov_mm=float(rng.choice([360, 380, 400, 420, 440])),
        samples=samples, lines=lines,
        matrix=matrix if matrix is not None else max(int(rng.choice(reconstructed)), samples if samples <= 128 else 0),
        phase_axis=int(rng.random() < 0.12),
        acceleration=acceleration,
        thickness_mm=float(rng.choice([10, 10, 10, 8, 7, 6, 5])), gap_mm=float(rng.choice([0, 0, 1, 2, 5])),
        slices=int(rng.choice([4, 4, 4, 4, 4, 5, 6, 8])),
    )  # fmt: skip
