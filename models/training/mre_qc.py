"""Recipe of the bundle mre_qc: whether a slice of an elastography is diagnostic, why not, and where it can be read."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as nnf
from torch import Tensor

from models.mre_networks import MAPS, Ensemble
from models.phantoms.mre.readable import REASONS
from models.training.loop import Batch
from models.training.mre_slices import STEPS_PER_UNIT, Slices

CHANNELS_OF_ALL = ("liver", "inner", "readable", "diagnostic", *REASONS)
FIRST_SEED, FIRST_EXAM_SEED, FIRST_CALIBRATION_SEED = 500_000, 600_000, 700_000
BATCH = 24
PEAK_RATE = 3e-3
TASK = "Quality control of MR elastography of the liver, slice by slice"
DESCRIPTION = (
    "Probability that stiffness can be read in a slice, the reason if it cannot, and maps of liver, inner liver and "
    "readable liver; from any of magnitude, phase, wave images, elastogram, confidence map and colour picture."
)
# What a site may have, and how often training shows it; "*" is each role with probability 0.7.
SUBSETS: tuple[tuple[tuple[str, ...], float], ...] = (
    (("magnitude", "phase", "wave", "elastogram", "confidence", "colour"), 0.28),
    (("magnitude", "phase", "*"), 0.17),
    (("magnitude", "phase"), 0.20),
    (("magnitude",), 0.09),
    (("phase",), 0.09),
    (("colour",), 0.08),
    (("*",), 0.09),
)
SHIFT_PIXELS = 3
LOSS_SHARE, LOST_CHANNELS = 0.25, 0.1
BORDERLINE_WEIGHT = 0.4
FEWEST_TO_CALIBRATE = 30


def role_of(channels: Sequence[str], of_role: dict[str, tuple[str, ...]]) -> dict[str, list[int]]:
    """Role -> indices of its channels, the one that says it is there last."""
    return {role: [channels.index(name) for name in (*names, f"has_{role}")] for role, names in of_role.items()}


def keep_only(images: Tensor, roles: dict[str, list[int]], kept: Sequence[str]) -> Tensor:
    """The same channels [N, C, H, W] as if only the roles of `kept` had been sent."""
    out = images.clone()
    for role, indices in roles.items():
        if role not in kept:
            out[:, indices] = 0
    return out


def _drawn_roles(rng: np.random.Generator, roles: Sequence[str]) -> list[str]:
    subset = SUBSETS[int(rng.choice(len(SUBSETS), p=[often for _, often in SUBSETS]))][0]
    drawn = [role for role in roles if role in subset or ("*" in subset and rng.random() < 0.7)]
    return drawn or [str(rng.choice(list(roles)))]


def batches(
    data: Slices, channels: Sequence[str], roles: dict[str, list[int]], rng: np.random.Generator, size: int
) -> Iterator[Batch]:
    """Endless batches: channels of some roles, altered; label and weight for `loss`."""
    turned = [
        (channels.index(a), channels.index(b))
        for a, b in (("wave_real", "wave_imaginary"), ("image_real", "image_imaginary"))
    ]
    count, everything = len(data.diagnostic), torch.from_numpy(data.channels)
    while True:
        order = rng.permutation(count)
        for start in range(0, count - size + 1, size):
            rows = np.sort(order[start : start + size])
            yield altered(everything[torch.from_numpy(rows)], data, rows, roles, turned, rng)


def altered(
    measured: Tensor,
    data: Slices,
    rows: np.ndarray,
    roles: dict[str, list[int]],
    turned: Sequence[tuple[int, int]],
    rng: np.random.Generator,
) -> Batch:
    """One batch of the slices `rows`, whose channels [N, C, H, W] are measured as Slices.channels.

    Roles are left out; so is now and then a single channel, so that no verdict hangs on one of them. Waves are turned
    in phase (`turned`: pairs of real and imaginary channels) and slices shifted.
    """
    image = measured.float() / STEPS_PER_UNIT
    for number in range(len(rows)):
        kept = _drawn_roles(rng, list(roles))
        for role in set(roles) - set(kept):
            image[number, roles[role]] = 0
        if rng.random() < LOSS_SHARE:
            for role in kept:
                lost = [index for index in roles[role][:-1] if rng.random() < LOST_CHANNELS]
                image[number, lost] = 0
    for a, b in turned:
        turn = torch.from_numpy(rng.uniform(0, 2 * np.pi, (len(rows), 1, 1)).astype(np.float32))
        real, imaginary = image[:, a].clone(), image[:, b].clone()
        image[:, a] = torch.cos(turn) * real - torch.sin(turn) * imaginary
        image[:, b] = torch.sin(turn) * real + torch.cos(turn) * imaginary
    maps = torch.from_numpy(data.maps[rows]).float() / 255
    down, across = rng.integers(-SHIFT_PIXELS, SHIFT_PIXELS + 1, 2)
    image, maps = _shifted(image, int(down), int(across)), _shifted(maps, int(down), int(across))
    return image.contiguous(memory_format=torch.channels_last), *_truth(data, rows, maps)


def _shifted(images: Tensor, down: int, across: int) -> Tensor:
    """Rolled; what comes in at one border repeats the other's last line, which is background."""
    return torch.roll(images, (down, across), (2, 3))


def _truth(data: Slices, rows: np.ndarray, maps: Tensor) -> tuple[Tensor, Tensor]:
    """Label [N, MAPS + 1 + reasons, H, W] and weight [N, 2]: of the verdict and of the reasons."""
    diagnostic = torch.from_numpy(data.diagnostic[rows])
    reasons = torch.from_numpy(data.reasons[rows])
    numbers = torch.cat([diagnostic[:, None], reasons], 1)[:, :, None, None].expand(-1, -1, *maps.shape[2:])
    border = torch.from_numpy(data.borderline[rows])
    weight = torch.stack([torch.where(border, BORDERLINE_WEIGHT, 1.0), reasons.sum(1)], 1)
    return torch.cat([maps, numbers], 1), weight


def loss(logits: Tensor, label: Tensor, weight: Tensor) -> Tensor:
    """Cross-entropy of the maps, of the verdict and of the reasons, and how far the readable area is off."""
    maps, truth = logits[:, :MAPS], label[:, :MAPS]
    per_map = nnf.binary_cross_entropy_with_logits(maps, truth, reduction="none").mean((0, 2, 3))
    area = (torch.sigmoid(maps).sum((2, 3)) + 1).sqrt() - (truth.sum((2, 3)) + 1).sqrt()
    said, true = logits[:, MAPS:, 0, 0], label[:, MAPS:, 0, 0]
    verdict = nnf.binary_cross_entropy_with_logits(said[:, 0], true[:, 0], reduction="none")
    reasons = -(true[:, 1:] * nnf.log_softmax(said[:, 1:], 1)).sum(1)
    return (
        2 * per_map.sum()
        + 0.03 * nnf.smooth_l1_loss(area, torch.zeros_like(area))
        + (verdict * weight[:, 0]).mean()
        + 0.5 * (reasons * (weight[:, 1] > 0)).sum() / (weight[:, 1] > 0).sum().clamp(min=1)
    )


def calibrate(ensemble: Ensemble, log_odds: Tensor, kind: Tensor, diagnostic: Tensor) -> None:
    """Set scale and shift so that probabilities are frequencies on slices that no network has learned from.

    log_odds: the networks' mean [n]; kind: of input [n], see Ensemble.inputs_of; diagnostic: 0..1 [n].
    """
    for number in range(len(ensemble.scale)):
        mine = kind == number
        if int(mine.sum()) >= FEWEST_TO_CALIBRATE:
            scale, shift = _fitted(log_odds[mine], diagnostic[mine])
            ensemble.scale[number], ensemble.shift[number] = scale, shift


def _fitted(log_odds: Tensor, truth: Tensor) -> tuple[float, float]:
    """Scale and shift of least cross-entropy; a prior for leaving the odds as they are keeps few slices quiet."""
    line = torch.tensor([1.0, 0.0], requires_grad=True)
    optimiser = torch.optim.LBFGS([line], max_iter=60)

    def closure() -> Tensor:
        optimiser.zero_grad()
        away = line - torch.tensor([1.0, 0.0])
        value = nnf.binary_cross_entropy_with_logits(log_odds * line[0] + line[1], truth) + 1e-3 * away.square().sum()
        torch.autograd.backward(value)
        return value

    optimiser.step(closure)
    scale, shift = line.detach().tolist()
    return min(max(scale, 0.2), 3.0), shift
