"""Recipe of the bundle ct_lesion: liver and lesion classes on the liver's box, from both phases."""

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as nnf
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from models.phantoms.lesions import CLASSES
from models.training.cases import LESION_SPACING_MM, Sample
from models.training.loop import Batch, Normalise
from models.training.patches import Augmentation, cut, restyle

SPACING_MM = LESION_SPACING_MM
CHANNELS = ("background", "liver", *CLASSES)
# Patch sizes with the number of patches per batch, each batch about 200 000 voxels: many small ones show many lesions,
# few large ones show what the network meets in use.
PATCHES = (((16, 48, 48), 5), ((16, 64, 64), 3), ((24, 64, 64), 2), ((32, 80, 80), 1))
# Weight of a lesion's voxels by its size, so that five voxels of metastasis count beside a whole liver.
SMALL_MM, SMALL_WEIGHT = 25.0, 4.0
PEAK_RATE = 3e-3
# Share of patches around what an earlier state of the network took for a lesion (see `hard_points`).
HARD_SHARE = 0.4
FIRST_PATIENT = 0  # number of the first simulated patient that this recipe learns from
PREFIX = "lesion_"  # of the arrays of a sample that this recipe uses
TASK = "Segmentation and classification of focal liver lesions on two-phase CT"
DESCRIPTION = (
    "Liver, HCC, ICC, metastasis, FNH, haemangioma and cyst per voxel, "
    "from the registered arterial and the portal-venous phase on the liver's box."
)


def augmentation(patch: tuple[int, int, int]) -> Augmentation:
    """The arterial phase was registered beforehand: up to 4 mm are left over."""
    return Augmentation(patch, SPACING_MM, motion_mm=4.0)


def _centre(rng: np.random.Generator, sample: Sample) -> NDArray[np.floating]:
    points, sizes = sample["lesion_points"], sample["lesion_size_mm"].astype(float)
    shape = np.array(sample["lesion_label"].shape, float)
    hard = sample.get("lesion_hard")
    if hard is not None and len(hard) and rng.random() < HARD_SHARE:
        return hard[int(rng.integers(len(hard)))].astype(float) + rng.uniform(-1, 1, 3) * np.array([4, 12, 12])
    draw = rng.random()
    if len(points) and draw < 0.7:
        weight = sizes**-0.7
        point = points[int(rng.choice(len(points), p=weight / weight.sum()))].astype(float)
        # Off the middle, and in a large lesion somewhere within it: networks learn where patches put things.
        return point + rng.uniform(-1, 1, 3) * np.array([5, 18, 18])
    if draw < 0.95:
        # Any voxel of the liver, without listing them all.
        for _ in range(50):
            at = (rng.random(3) * shape).astype(int)
            if sample["lesion_label"][at[0], at[1], at[2]] > 0:
                return at.astype(float)
    return rng.random(3) * shape


def weight_of(label: Tensor) -> Tensor:
    """Voxel weights [D, H, W] from the labels of a patch: lesions more, small ones much more, background less."""
    # Lesions are looked for in the liver only: what lies far from it matters little.
    near = nnf.max_pool3d((label > 0).float()[None, None], (5, 9, 9), 1, (2, 4, 4))[0, 0]
    weight = 0.4 + 0.6 * near
    lesion = (label > 1).numpy()
    if lesion.any():
        parts, count = ndimage.label(lesion)
        volumes = np.bincount(parts.ravel(), minlength=count + 1) * float(np.prod(SPACING_MM))
        diameters = np.cbrt(6 * volumes / np.pi)
        gains = np.clip(SMALL_WEIGHT * SMALL_MM / np.maximum(diameters, 4), 2, 24)
        gains[0] = 0
        weight += torch.from_numpy(gains[parts].astype(np.float32))
    return weight


def batches(samples: list[Sample], rng: np.random.Generator, size: int, normalise: Normalise) -> Iterator[Batch]:
    """Endless batches; every batch has one patch size, drawn anew. size: 1 for the batches of PATCHES, 2 for twice."""
    while True:
        patch, count = PATCHES[int(rng.integers(len(PATCHES)))]
        how = augmentation(patch)
        images, labels, weights = [], [], []
        for _ in range(count * size):
            sample = samples[int(rng.integers(len(samples)))]
            image, label = cut(rng, sample["lesion_image"], sample["lesion_label"], _centre(rng, sample), how)  # type: ignore[arg-type]
            images.append(torch.as_tensor(normalise(restyle(rng, image, how))))
            labels.append(label)
            weights.append(weight_of(label))
        yield torch.stack(images), torch.stack(labels), torch.stack(weights)


def loss(logits: Tensor, label: Tensor, weight: Tensor) -> Tensor:
    """Weighted cross-entropy + Dice of 'any lesion' and of 'malignant lesion' over the batch.

    The cross-entropy is split: which tissue (background, liver, lesion), and which class within lesions. So a lesion
    of uncertain class is still a lesion.
    """
    log = nnf.log_softmax(logits, 1)
    grouped = torch.cat([log[:, :2], torch.logsumexp(log[:, 2:], 1, keepdim=True)], 1)
    where = nnf.nll_loss(grouped, label.clamp(max=2), reduction="none")
    total = (where * weight).sum() / weight.sum()
    lesion = label > 1
    if lesion.any():
        within = nnf.log_softmax(logits[:, 2:], 1)
        kind = nnf.nll_loss(within, (label - 2).clamp(min=0), reduction="none") * lesion
        # By the square root of the weight: large lesions show more of their pattern.
        share = weight.sqrt() * lesion
        total = total + 0.6 * (kind * share).sum() / share.sum()
    probability = grouped[:, 2].exp()
    overlap = (probability * lesion * weight).sum()
    dice = (2 * overlap + 200) / ((probability * weight).sum() + (lesion * weight).sum() + 200)
    return total + 0.5 * (1 - dice)


def hard_points(probabilities: NDArray[np.float32], sample: Sample, rng: np.random.Generator) -> NDArray[np.int16]:
    """Voxels [n, 3] of false lesions, where training should look again.

    probabilities : float32 [channel, slice, row, column], the network's answer to the sample's image.
    Up to six voxels per false piece, so that a kidney counts no more than a vessel. What lies more than 15 mm outside
    of the liver is left out: the pipeline does not look there.
    """
    from scipy import ndimage

    label = sample["lesion_label"].astype(np.int64)
    near = ndimage.distance_transform_edt(label == 0, sampling=SPACING_MM) < 15
    false = (probabilities[2:].sum(0) > 0.3) & (label < 2) & near
    parts, _ = ndimage.label(false)
    points = []
    for number, where in enumerate(ndimage.find_objects(parts), start=1):
        voxels = np.argwhere(parts[where] == number) + [part.start for part in where]
        if len(voxels) >= 6:
            points.append(voxels[rng.choice(len(voxels), 6, replace=False)])
    return np.concatenate(points).astype(np.int16) if points else np.zeros((0, 3), np.int16)
