"""Random patches of two-phase CT: where to cut, how to bend, and how to make HU look like another scanner's."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as nnf
from numpy.typing import NDArray
from torch import Tensor

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Augmentation:
    """Ranges of the random changes."""

    patch: tuple[int, int, int]
    spacing_mm: Triple
    motion_mm: float  # largest shift of the arterial phase against the portal-venous one
    zoom: float = 0.18
    rotate_degrees: float = 12.0
    flip: tuple[float, float, float] = (0.3, 0.3, 0.3)
    noise_hu: float = 12.0
    shift_hu: float = 10.0


def cut(
    rng: np.random.Generator,
    image: NDArray[np.int16],
    label: NDArray[np.uint8],
    centre: NDArray[np.floating],
    how: Augmentation,
) -> tuple[Tensor, Tensor]:
    """Cut a bent patch around `centre` (voxel indices): HU [2, *patch] and labels [*patch].

    One resampling does zoom, rotation, flips, and for the arterial channel the leftover misregistration.
    Outside the image the nearest voxel continues.
    """
    size = np.array(how.patch, float)
    zoom = np.exp(rng.uniform(-how.zoom, how.zoom) + rng.uniform(-how.zoom / 2, how.zoom / 2, 3))
    flips = np.where(rng.random(3) < np.array(how.flip), -1.0, 1.0)
    angle = np.deg2rad(rng.uniform(-how.rotate_degrees, how.rotate_degrees))
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]]) @ np.diag(flips / zoom)
    # Only the voxels that the patch can reach are handed to the resampling.
    reach = np.abs(turn) @ (size / 2) + 4
    low = np.maximum(0, np.floor(centre - reach)).astype(int)
    high = np.minimum(image.shape[1:], np.ceil(centre + reach) + 1).astype(int)
    high = np.maximum(high, low + 2)
    low = np.maximum(0, np.minimum(low, np.array(image.shape[1:]) - 2))
    part = torch.from_numpy(image[:, low[0] : high[0], low[1] : high[1], low[2] : high[2]].astype(np.float32))
    part_label = torch.from_numpy(label[low[0] : high[0], low[1] : high[1], low[2] : high[2]].astype(np.float32))
    lines = [torch.arange(n, dtype=torch.float32) - (n - 1) / 2 for n in how.patch]
    axes = torch.stack(torch.meshgrid(*lines, indexing="ij"), -1)
    where = axes @ torch.from_numpy(turn.T.astype(np.float32)) + torch.from_numpy((centre - low).astype(np.float32))
    extent = torch.tensor(part_label.shape, dtype=torch.float32)

    def sample(source: Tensor, at: Tensor, mode: str) -> Tensor:
        unit = (2 * at + 1) / extent - 1
        return nnf.grid_sample(
            source[None], unit.flip(-1)[None], mode=mode, padding_mode="border", align_corners=False
        )[0]

    motion = rng.uniform(-1, 1, 3) * how.motion_mm * rng.random() * np.array([1.0, 0.6, 0.6])
    offset = torch.from_numpy((motion / how.spacing_mm).astype(np.float32))
    bend = torch.from_numpy(rng.normal(0, 0.25 * how.motion_mm * rng.random(), (1, 3, 3, 4, 4)).astype(np.float32))
    bend = nnf.interpolate(bend, size=how.patch, mode="trilinear", align_corners=True)[0].movedim(0, -1)
    arterial = sample(part[:1], where + offset + bend / torch.tensor(how.spacing_mm), "bilinear")
    portal = sample(part[1:], where, "bilinear")
    labels = sample(part_label[None], where, "nearest")[0]
    return torch.cat([arterial, portal]), labels.round().long()


def restyle(rng: np.random.Generator, image: Tensor, how: Augmentation) -> Tensor:
    """Change gain, offset, sharpness and noise of HU [2, D, H, W], partly the same and partly apart per phase."""
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    common_shift = rng.uniform(-1, 1) * how.shift_hu
    common_gain = np.exp(rng.uniform(-0.12, 0.12))
    noise = how.noise_hu * rng.random() ** 2
    coarse = rng.random()
    out = []
    blurred = rng.random() < 0.3
    for phase in range(2):
        hu = image[phase]
        gain = common_gain * np.exp(rng.uniform(-0.06, 0.06))
        hu = 60 + (hu - 60) * gain + common_shift + rng.uniform(-0.5, 0.5) * how.shift_hu
        if blurred:
            weight = float(rng.uniform(0.2, 0.8))
            soft = _smooth(hu, through_plane=bool(rng.random() < 0.6))
            hu = hu + weight * (soft - hu)
        grain = torch.randn(hu.shape, generator=generator)
        if coarse < 0.5:
            grain = _smooth(grain, through_plane=coarse < 0.2) * 2.2
        out.append(hu + noise * grain)
    return torch.stack(out)


def _smooth(volume: Tensor, *, through_plane: bool) -> Tensor:
    kernel = (3, 3, 3) if through_plane else (1, 3, 3)
    padding = (1, 1, 1) if through_plane else (0, 1, 1)
    return nnf.avg_pool3d(volume[None, None], kernel, 1, padding, count_include_pad=False)[0, 0]
