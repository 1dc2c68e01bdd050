"""Recipe of the bundle ct_liver: where the liver is, on the whole field of view, from both phases unregistered."""

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as nnf
from torch import Tensor

from models.training.cases import LIVER_SPACING_MM, Sample
from models.training.loop import Batch, Normalise
from models.training.patches import Augmentation, cut, restyle

SPACING_MM = LIVER_SPACING_MM
CHANNELS = ("background", "liver")
PATCHES = ((40, 80, 88), (24, 80, 88), (32, 64, 72))
PEAK_RATE = 3e-3
FIRST_PATIENT = 0  # number of the first simulated patient that this recipe learns from
PREFIX = "liver_"  # of the arrays of a sample that this recipe uses
TASK = "Localisation of the liver on two-phase CT"
DESCRIPTION = (
    "Coarse mask of the liver with its lesions on the whole field of view, "
    "from the arterial and the portal-venous phase."
)


def augmentation(patch: tuple[int, int, int]) -> Augmentation:
    """The phases are not registered yet, and may have been taken in different breath-holds."""
    return Augmentation(
        patch, SPACING_MM, motion_mm=10.0, zoom=0.2, flip=(0.08, 0.08, 0.08), noise_hu=15.0, shift_hu=15.0
    )


def batches(samples: list[Sample], rng: np.random.Generator, size: int, normalise: Normalise) -> Iterator[Batch]:
    """Endless batches of large parts of the field of view."""
    while True:
        how = augmentation(PATCHES[int(rng.integers(len(PATCHES)))])
        images, labels = [], []
        for _ in range(size):
            sample = samples[int(rng.integers(len(samples)))]
            shape = np.array(sample["liver_label"].shape, float)
            centre = shape / 2 + rng.uniform(-1, 1, 3) * np.array([0.3, 0.12, 0.12]) * shape
            image, label = cut(rng, sample["liver_image"], sample["liver_label"], centre, how)  # type: ignore[arg-type]
            images.append(torch.as_tensor(normalise(restyle(rng, image, how))))
            labels.append(label)
        label_batch = torch.stack(labels)
        yield torch.stack(images), label_batch, torch.ones(label_batch.shape)


def loss(logits: Tensor, label: Tensor, weight: Tensor) -> Tensor:
    """Cross-entropy + Dice of the liver."""
    entropy = (nnf.cross_entropy(logits, label, reduction="none") * weight).sum() / weight.sum()
    probability = torch.softmax(logits, 1)[:, 1]
    liver = label == 1
    dice = (2 * (probability * liver).sum() + 100) / (probability.sum() + liver.sum() + 100)
    return entropy + (1 - dice)
