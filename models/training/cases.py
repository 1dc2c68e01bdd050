"""Training samples: simulated patients or a site's own case folders, on the grids that the networks work on.

A sample file (npz) holds, int16 HU and uint8 labels, all [slice, row, column]:
`lesion_image` [2, ...] and `lesion_label` on the liver's box + margin at LESION_SPACING_MM (labels: 0 background,
1 liver, 2.. the lesion classes), `lesion_points` [n, 3] voxel indices of lesion centres with `lesion_size_mm` [n];
`liver_image` [2, ...] and `liver_label` on the whole field at LIVER_SPACING_MM.
"""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.phantoms.acquisition import Scan, add_noise, blur
from models.phantoms.ct import CtCase, simulate_ct_case
from models.phantoms.fields import Grid
from models.phantoms.lesions import CLASSES

LESION_SPACING_MM = (3.0, 1.5, 1.5)
LIVER_SPACING_MM = (6.0, 4.5, 4.5)
MARGIN_MM = 18.0
TRAINING_SEEDS = 1_000_000  # phantoms for training are made from seeds above this, all others from seeds below

Sample = dict[str, NDArray[np.generic]]


def _shrink(volume: NDArray[np.float32], factors: tuple[int, int, int]) -> NDArray[np.float32]:
    """Mean over blocks; what does not fill a block is cut off."""
    kept = [n - n % f for n, f in zip(volume.shape, factors, strict=True)]
    part = volume[: kept[0], : kept[1], : kept[2]]
    blocks = part.reshape(
        kept[0] // factors[0], factors[0], kept[1] // factors[1], factors[1], kept[2] // factors[2], factors[2]
    )
    return np.asarray(blocks.mean((1, 3, 5), dtype=np.float32))


def sample_of(case: CtCase) -> Sample:
    """Cut and shrink a simulated case, which must lie on LESION_SPACING_MM, into a sample."""
    factors = (2, 3, 3)
    indices = np.nonzero(case.liver)
    margin = [round(MARGIN_MM / s) for s in LESION_SPACING_MM]
    box = tuple(
        slice(max(0, int(i.min()) - m), min(n, int(i.max()) + m + 1))
        for i, m, n in zip(indices, margin, case.liver.shape, strict=True)
    )
    offset = np.array([b.start for b in box])
    phases = np.stack([case.arterial, case.portal_venous])
    points = np.array([case.grid.index_of(lesion.centre_mm) for lesion in case.lesions]).reshape(-1, 3) - offset
    return {
        "lesion_image": np.clip(phases[(slice(None), *box)], -1024, 3000).astype(np.int16),
        "lesion_label": case.class_labels[box],
        "lesion_points": np.rint(points).astype(np.int16),
        "lesion_size_mm": np.array([lesion.diameter_mm for lesion in case.lesions], np.float32),
        "liver_image": np.stack([_shrink(p, factors) for p in phases]).clip(-1024, 3000).astype(np.int16),
        "liver_label": (_shrink(case.liver.astype(np.float32), factors) >= 0.5).astype(np.uint8),
    }


def coarse_noise(scan: Scan, pixel_mm: float) -> float:
    """SD in HU after the mean of 2 x 2 pixels of a scan whose pixels are `pixel_mm` wide, as the pipeline takes it.

    Noise of correlation length k has the autocorrelation exp(-d^2 / 4 k^2) at distance d.
    """
    near = float(np.exp(-((pixel_mm / max(scan.kernel_mm, 1e-3)) ** 2) / 4))
    return scan.noise_hu * float(np.sqrt((1 + 2 * near + near**2) / 4))


def simulate_sample(seed: int) -> CtCase:
    """A case on LESION_SPACING_MM that was scanned with slices of 2.5, 3 or 5 mm, as the pipeline would resample it.

    Motion is added while training, differently each time: the phases match here. Half of the patients get five to
    nine lesions of any class, so that each simulated liver teaches more.
    """
    rng = np.random.default_rng([seed, 0x51])
    kinds = [str(k) for k in rng.choice(CLASSES, size=rng.integers(5, 10))] if rng.random() < 0.5 else None
    thickness = float(rng.choice([2.5, 3.0, 5.0], p=[0.35, 0.4, 0.25]))
    _, row, column = LESION_SPACING_MM
    count = round(240 / thickness)
    case = simulate_ct_case(
        seed,
        spacing_mm=(thickness, row, column),
        shape=(count, 240, 280),
        motion_mm=0.0,
        noise=False,
        kinds=kinds,
    )
    phases = []
    for volume, scan in zip((case.arterial, case.portal_venous), case.scans, strict=True):
        quiet = replace(scan, noise_hu=coarse_noise(scan, row / 2))
        phases.append(add_noise(blur(volume, scan, case.grid), rng, quiet, case.grid))
    grid = Grid.centred((80, 240, 280), LESION_SPACING_MM)
    at = (grid.axes()[0].ravel() - case.grid.origin_mm[0]) / thickness
    at = np.clip(at, 0, count - 1)
    lower = np.minimum(np.floor(at).astype(int), count - 2)
    share = (at - lower).astype(np.float32)[:, None, None]
    nearest = np.rint(at).astype(int)
    arterial, portal = (v[lower] + share * (v[lower + 1] - v[lower]) for v in phases)
    return replace(
        case,
        grid=grid,
        arterial=arterial,
        portal_venous=portal,
        liver=case.liver[nearest],
        lesion_labels=case.lesion_labels[nearest],
    )


def sample_path(folder: Path, number: int) -> Path:
    """Where the sample of a simulated patient lies."""
    return folder / f"phantom-{number:06d}.npz"


def write_phantoms(folder: Path, first: int, count: int) -> None:
    """Simulate `count` training samples into `folder`, leaving out those that are there."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        path = sample_path(folder, number)
        if path.exists():
            continue
        case = simulate_sample(TRAINING_SEEDS + number)
        if not case.liver.any():
            continue
        aside = path.with_suffix(".part.npz")
        np.savez(aside, **sample_of(case))  # type: ignore[arg-type]
        os.replace(aside, path)


def read_samples(folder: Path, numbers: range) -> list[Path]:
    """Sample files of these patients, as far as they are there."""
    return [path for number in numbers if (path := sample_path(folder, number)).is_file()]
