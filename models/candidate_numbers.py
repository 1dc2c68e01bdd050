"""What a reader would note about a spot in the liver, as numbers: how bright, how large, how long, amid what."""

from collections.abc import Sequence

import torch
import torch.nn.functional as nnf
from torch import Tensor

#: How many numbers `candidate_numbers` gives.
NUMBERS = 53


def candidate_numbers(patch: Tensor, spacing_mm: Sequence[float]) -> Tensor:
    """Describe the candidate in the middle of a patch.

    patch : [N, 5, D, H, W] - arterial and portal-venous phase (normalised HU), probability of a lesion, of the liver
        with its lesions, and the candidate's share of every voxel.
    spacing_mm : voxel size (slice, row, column).
    Returns [N, NUMBERS]: the phases in the parenchyma, and in relation to it in the candidate, its core and two shells;
    unrest of both; the two probabilities; size and form of the candidate; size and form of what is brighter or darker
    than the parenchyma around the middle, where vessels are long and lesions are not; extremes of the neighbourhood.
    """
    phases, lesion, liver, mask = patch[:, :2], patch[:, 2:3], patch[:, 3:4], patch[:, 4:5]
    parenchyma = liver * (1 - lesion) * (1 - mask) + 1e-5
    background = _mean(phases, parenchyma)
    unrest = _spread(phases, parenchyma, background)
    relative = phases - background[:, :, None, None, None]
    inside = _mean(relative, mask)
    out = [background, unrest, inside, _spread(relative, mask, inside)]

    wider = _dilated(mask, spacing_mm)
    core = -_dilated(-mask, spacing_mm)
    has_core = (_sum(core) > 0).float()
    out += [has_core * _mean(relative, core) + (1 - has_core) * inside, has_core]
    for shell in (wider - mask, _dilated(wider, spacing_mm) - wider):
        out += [_mean(relative, shell), _mean(liver, shell), _mean(lesion, shell)]

    smooth = nnf.avg_pool3d(relative, (1, 3, 3), 1, (0, 1, 1))
    outside = 1e3 * (1 - mask)
    there = (_sum(mask) > 0).float()
    out += [
        there * (smooth - outside).amax((2, 3, 4)).clamp(min=-9),
        there * (smooth + outside).amin((2, 3, 4)).clamp(max=9),
        _mean(lesion, mask),
        (lesion * mask).amax((2, 3, 4)),
        _mean(liver, mask),
        torch.log(_sum(mask) + 1),
    ]

    places = _places_mm(patch, spacing_mm)
    out += _form(mask, places, spacing_mm)
    squared = (places**2).sum(0).reshape(1, 1, *patch.shape[2:])
    reach = 8 * max(spacing_mm) / 3
    window = torch.exp(-0.5 * squared / reach**2) * (squared < (2.6 * reach) ** 2) * liver
    for phase in range(2):
        for sign in (1, -1):
            distinct = (sign * smooth[:, phase] - unrest[:, phase, None, None, None]).clamp(0, 1)[:, None] * window
            lengths = _form(distinct, places, spacing_mm)
            out += [torch.log(_sum(distinct) + 1), lengths[1], lengths[2], lengths[0][:, 2:]]

    out += [_mean(liver, window / (liver + 1e-3)), liver.mean((2, 3, 4)), lesion.mean((2, 3, 4))]
    portal = nnf.avg_pool3d(phases[:, 1:], (1, 3, 3), 1, (0, 1, 1))
    far = 99 * (squared >= (2 * reach) ** 2)
    out += [(portal + far).amin((2, 3, 4)), (portal - far).amax((2, 3, 4))]
    return torch.cat(out, 1)


def _sum(values: Tensor) -> Tensor:
    return values.sum((2, 3, 4))


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    return _sum(values * weight) / (_sum(weight) + 1e-4)


def _spread(values: Tensor, weight: Tensor, mean: Tensor) -> Tensor:
    return (_mean(values**2, weight) - mean**2).clamp(min=1e-4).sqrt()


def _dilated(mask: Tensor, spacing_mm: Sequence[float]) -> Tensor:
    """By one voxel where voxels are large, else by two."""
    size = [3 if step > 2 else 5 for step in spacing_mm]
    return nnf.max_pool3d(mask, size, 1, [n // 2 for n in size])


def _places_mm(patch: Tensor, spacing_mm: Sequence[float]) -> Tensor:
    """[3, voxels] in mm from the middle."""
    lines = [
        (torch.arange(n, device=patch.device) - (n - 1) / 2) * step
        for n, step in zip(patch.shape[2:], spacing_mm, strict=True)
    ]
    return torch.stack(torch.meshgrid(*lines, indexing="ij")).reshape(3, -1)


def _form(weight: Tensor, places: Tensor, spacing_mm: Sequence[float]) -> tuple[Tensor, Tensor, Tensor]:
    """Logarithms of the three variances along the main axes, rising [N, 3]; how long [N, 1]; how flat [N, 1]."""
    flat = weight.reshape(len(weight), -1)
    total = flat.sum(-1, keepdim=True) + 1e-3
    middle = flat @ places.T / total
    second = torch.einsum("nk,ak,bk->nab", flat, places, places) / total[:, :, None]
    second = second - middle[:, :, None] * middle[:, None, :]
    voxel = spacing_mm[0] ** 2 / 12 * torch.eye(3, device=weight.device)
    variances = torch.log(torch.linalg.eigvalsh(second + voxel).clamp(min=0.05))
    return variances, variances[:, 2:] - variances[:, 1:2], variances[:, 1:2] - variances[:, :1]
