"""Recipe of the bundle ct_review: whether a candidate of ct_lesion is a lesion, and of which class."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as nnf
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from models.networks import ReviewNet
from models.phantoms.lesions import CLASSES
from models.training import ct_lesion
from models.training.cases import LESION_SPACING_MM, Sample
from models.training.loop import Batch, Normalise

SPACING_MM = LESION_SPACING_MM
PATCH = (32, 64, 64)
IN_CHANNELS = ("arterial", "portal_venous", "lesion", "liver", "candidate")
CHANNELS = ("none", *CLASSES)
PEAK_RATE = 2e-3
# Patients whom ct_lesion has not learned from: on its own it is too good.
FIRST_PATIENT = 2200
PREFIX = "lesion_"
TASK = "Judgement of lesion candidates on two-phase liver CT"
DESCRIPTION = (
    "No lesion, HCC, ICC, metastasis, FNH, haemangioma or cyst for a candidate in the middle of a patch, from both "
    "phases, the probabilities of ct_lesion and the candidate's voxels."
)
BATCH = 128
STEPS = 300
VIEWS = 2
# SD of what registration leaves over.
MOTION_MM = 1.0
FALSE_WEIGHT = 0.45
# Candidates are looked for this far around the liver, as in the pipeline, and in a liver this much too large, as
# a coarse network may see it.
REGION_MM = 10.0
COARSE_MM = 6.0
# A candidate counts as the lesion when the centres are this near, or within the lesion's radius if that is more.
REACH_MM = 5.0
# One that holds so much lesion without being centred on it is neither: training leaves it out.
UNCLEAR_SHARE = 0.25
# Probabilities are kept as whole thousandths beside the HU.
PER_MILLE = 1000.0


class Proposed(Protocol):
    """Where lesions may be, all [slice, row, column]."""

    @property
    def lesion(self) -> NDArray[np.float32]:
        """Probability of any lesion."""
        ...

    @property
    def liver(self) -> NDArray[np.float32]:
        """Probability of liver or lesion."""
        ...

    @property
    def labels(self) -> NDArray[np.int32]:
        """The candidates, 0 = none."""
        ...


# Probabilities of ct_lesion, their channels, spacing in mm, where lesions may be, the liver -> candidates.
Propose = Callable[
    [NDArray[np.float32], Sequence[str], tuple[float, float, float], NDArray[np.bool_], NDArray[np.bool_]], Proposed
]


@dataclass(frozen=True)
class Candidate:
    """One candidate of a case."""

    label: int  # in Case.labels
    centre: NDArray[np.floating]  # voxel index
    score: float  # mean probability of its most probable voxels
    kind: int  # index into CHANNELS; 0 = no lesion
    size_mm: float  # of the lesion that it is, else of itself


@dataclass(frozen=True)
class Case:
    """A sample with what ct_lesion says about it."""

    image: NDArray[np.int16]  # [4, slice, row, column]: HU of both phases, lesion and liver in thousandths
    labels: NDArray[np.uint8]
    candidates: tuple[Candidate, ...]


def case_of(sample: Sample, probabilities: NDArray[np.float32], propose: Propose) -> Case:
    """Turn a sample and the answer of ct_lesion (float32 [channel, slice, row, column]) into candidates with truth."""
    truth = sample["lesion_label"].astype(np.int64)
    away = ndimage.distance_transform_edt(truth == 0, sampling=SPACING_MM)
    proposed = propose(probabilities, ct_lesion.CHANNELS, SPACING_MM, away <= REGION_MM, away <= COARSE_MM)
    labels = np.where(proposed.labels <= 255, proposed.labels, 0).astype(np.uint8)
    shares = np.rint(PER_MILLE * np.stack([proposed.lesion, proposed.liver]))
    image = np.concatenate([sample["lesion_image"].astype(np.int16), shares.astype(np.int16)])
    return Case(image, labels, _candidates(labels, proposed.lesion, truth, sample))


def _candidates(
    labels: NDArray[np.uint8], lesion: NDArray[np.float32], truth: NDArray[np.int64], sample: Sample
) -> tuple[Candidate, ...]:
    points = sample["lesion_points"].astype(float)
    radii = sample["lesion_size_mm"].astype(float) / 2
    found: list[tuple[int, NDArray[np.floating], float, float, float]] = []
    pairs = []
    for label, where in enumerate(ndimage.find_objects(labels), start=1):
        if where is None:
            continue
        inside = labels[where] == label
        voxels = np.argwhere(inside) + [part.start for part in where]
        centre = voxels.mean(0)
        score = float(np.sort(lesion[where][inside])[-8:].mean())
        share = float((truth[where][inside] > 1).mean())
        size = float(np.cbrt(6 * len(voxels) * np.prod(SPACING_MM) / np.pi))
        for number, (point, radius) in enumerate(zip(points, radii, strict=True)):
            distance = float(np.linalg.norm((centre - point) * SPACING_MM))
            if distance <= max(radius, REACH_MM) and share > 0:
                # Of several pieces of one lesion the one of its size counts.
                pairs.append((distance / max(radius, REACH_MM) + abs(np.log(size / (2 * radius))), len(found), number))
        found.append((label, centre, score, share, size))
    lesion_of: dict[int, int] = {}
    for _, index, number in sorted(pairs):
        if index not in lesion_of and number not in lesion_of.values():
            lesion_of[index] = number
    out = []
    for index, (label, centre, score, share, size) in enumerate(found):
        if index in lesion_of:
            point = points[lesion_of[index]].astype(int)
            z, y, x = np.clip(point, 0, np.array(truth.shape) - 1)
            kind = int(truth[z, y, x]) - 1
            if kind < 1:  # a lesion whose middle is not its own, as where two meet: ask its voxels
                own = truth[labels == label]
                kind = int(np.bincount(own[own > 1]).argmax()) - 1
            out.append(Candidate(label, centre, score, kind, 2 * float(radii[lesion_of[index]])))
        elif share < UNCLEAR_SHARE:
            out.append(Candidate(label, centre, score, 0, size))
    return tuple(out)


@dataclass(frozen=True)
class Table:
    """Numbers of candidates, ready to learn from; [n, ...]."""

    numbers: Tensor
    kind: Tensor  # int64 index into CHANNELS
    weight: Tensor  # how often a candidate is drawn


def table_of(
    cases: Iterable[Case], network: ReviewNet, normalise: Normalise, rng: np.random.Generator, views: int
) -> Table:
    """Look at every candidate `views` times, each time a little beside its middle, the arterial phase displaced."""
    rows, kinds, weights = [], [], []
    device = next(network.parameters()).device
    for case in cases:
        for candidate in case.candidates:
            patches = [torch.as_tensor(normalise(torch.from_numpy(_patch(case, candidate, rng)))) for _ in range(views)]
            with torch.no_grad():
                rows.append(network.numbers(torch.stack(patches).to(device)).cpu())
            kinds += [candidate.kind] * views
            # Small lesions more often; all false ones together half as often as their number says.
            weights += [max(candidate.size_mm, 4.0) ** -0.3 if candidate.kind else FALSE_WEIGHT] * views
    if not rows:
        raise ValueError("no candidate to learn from: ct_lesion found nothing in any case")
    return Table(torch.cat(rows), torch.tensor(kinds), torch.tensor(weights))


def _patch(case: Case, candidate: Candidate, rng: np.random.Generator) -> NDArray[np.float32]:
    """[5, *PATCH] as the pipeline cuts it: HU, probabilities, the candidate's voxels."""
    centre = np.rint(candidate.centre + rng.uniform(-0.5, 0.5, 3)).astype(int)
    motion = np.rint(rng.normal(0, MOTION_MM, 3) / SPACING_MM).astype(int)
    arterial, portal, lesion, liver = case.image
    return np.stack(
        [
            around(arterial, centre + motion),
            around(portal, centre),
            around(lesion, centre) / PER_MILLE,
            around(liver, centre) / PER_MILLE,
            around(case.labels, centre) == candidate.label,
        ]
    ).astype(np.float32)


def around(volume: NDArray[Any], centre: NDArray[np.integer]) -> NDArray[Any]:
    """The patch around a voxel; outside of the volume its border is repeated."""
    lines = [
        np.clip(np.arange(c - size // 2, c - size // 2 + size), 0, n - 1)
        for c, size, n in zip(centre.tolist(), PATCH, volume.shape, strict=True)
    ]
    patch: NDArray[Any] = volume[np.ix_(*lines)]
    return patch


def batches(table: Table, rng: np.random.Generator, size: int) -> Iterator[Batch]:
    """Endless batches of BATCH * size rows of numbers with their kinds."""
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    while True:
        drawn = torch.multinomial(table.weight, BATCH * size, replacement=True, generator=generator)
        yield table.numbers[drawn], table.kind[drawn], torch.ones(len(drawn))


def loss(logits: Tensor, label: Tensor, weight: Tensor) -> Tensor:
    """Cross-entropy of lesion or not + of the class among lesions + of malignant or benign among lesions.

    logits [N, len(CHANNELS), heads], label and weight [N]; the mean over the heads.
    """
    log = nnf.log_softmax(logits, 1)
    any_lesion = torch.logsumexp(log[:, 1:], 1)
    lesion = label > 0
    detected = torch.where(lesion[:, None], any_lesion, log[:, 0])
    total = -(detected * weight[:, None]).sum() / (weight.sum() * logits.shape[2])
    if lesion.any():
        within = log[lesion, 1:] - any_lesion[lesion, None]
        kind = label[lesion] - 1
        malignant = torch.stack([torch.logsumexp(within[:, 3:], 1), torch.logsumexp(within[:, :3], 1)], 1)
        heads = kind[:, None].expand(-1, logits.shape[2])
        total = total + 0.4 * nnf.nll_loss(within, heads) + 0.4 * nnf.nll_loss(malignant, (heads < 3).long())
    return total
