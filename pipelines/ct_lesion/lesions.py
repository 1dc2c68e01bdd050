"""Probability maps -> lesions, each with its voxels, score and class.

The maps lie on the grid of the ct_lesion bundle; the masks are wanted on the grid of the portal-venous images.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk  # noqa: N813 - its own documentation's name
from numpy.typing import NDArray
from scipy import ndimage

from pipelines.ct_lesion.grid import Grid, back_onto, bounds, cut, image_on, region_of
from pipelines.ct_lesion.localisation import largest_piece

CLASSES = ("HCC", "ICC", "MET", "FNH", "HEM", "CYST")
MALIGNANT = frozenset({"HCC", "ICC", "MET"})

#: A lesion needs a voxel at least this probable ...
SEED_PROBABILITY = 0.5
#: ... and reaches as far as this.
GROW_PROBABILITY = 0.3
#: Lesions scored lower are not reported. The shipped network is trained on patches full of lesions and so is too sure
#: of itself; chosen on phantoms of their own, apart from those that the model card reports.
MIN_SCORE = 0.9
#: Smallest lesion, about a sphere of 3.5 mm.
MIN_VOLUME_MM3 = 20.0
#: Lesions may reach this far out of the segmented liver.
LIVER_MARGIN_MM = 6.0
#: A lesion lies in the liver: so much of it within the liver of the coarse network ...
MIN_IN_LIVER = 0.4
#: ... and so much of the shell around it (mean probability) is liver. Kidney, stomach and gallbladder, which the
#: network may take for lesions where they touch the liver, fail in both.
MIN_SURROUNDED = 0.45
SHELL_MM = 4.5
#: Two touching lesions are told apart when the neck between them is this much thinner (radius) than either.
NECK_MM = 2.5
#: Voxels whose mean probability is the lesion's score.
SCORE_VOXELS = 8


@dataclass(frozen=True)
class Candidate:
    """One lesion on the bundle's grid."""

    label: int  # in LesionMap.labels
    score: float  # 0..1, mean probability of its most probable voxels
    peak: float  # 0..1, highest probability
    class_probabilities: dict[str, float]  # sums to 1

    @property
    def malignant_probability(self) -> float:
        """HCC, ICC or metastasis, 0..1."""
        return min(1.0, sum(self.class_probabilities[name] for name in CLASSES if name in MALIGNANT))


@dataclass(frozen=True)
class LesionMap:
    """What the network said, divided into lesions."""

    grid: Grid
    probability: NDArray[np.float32]  # [slice, row, column] of any lesion
    liver_probability: NDArray[np.float32]  # [slice, row, column] of liver or lesion
    labels: NDArray[np.int32]  # [slice, row, column], 0 = none
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True)
class SourceMasks:
    """Lesions and liver on the source grid, inside one index box of it."""

    box: tuple[slice, slice, slice]  # (slice, row, column) of the source volume
    lesions: tuple[NDArray[np.bool_], ...]  # in the order of LesionMap.candidates, each with at least one voxel
    liver: NDArray[np.bool_]


def find_lesions(
    probabilities: NDArray[np.float32],
    channels: Sequence[str],
    grid: Grid,
    within: NDArray[np.bool_] | None = None,
    coarse_liver: NDArray[np.bool_] | None = None,
    min_score: float = 0.0,
) -> LesionMap:
    """Divide the network's output into lesions.

    probabilities : float32 [channel, slice, row, column] on the grid, summing to 1 over the channels.
    channels : names, with "liver" and every name of CLASSES.
    within : bool [slice, row, column], where lesions and liver may be; None: everywhere.
    coarse_liver : bool [slice, row, column], the liver with its lesions as the other network sees it; None: not asked.
    min_score : lesions scored lower are left out.
    """
    per_class = [probabilities[channels.index(name)] for name in CLASSES]
    probability: NDArray[np.float32] = np.asarray(np.sum(per_class, axis=0, dtype=np.float32))
    if within is not None:
        probability = probability * within
    liver_probability = probability + probabilities[channels.index("liver")] * (1 if within is None else within)
    liver = largest_piece(liver_probability > 0.5)
    reach = (
        ndimage.distance_transform_edt(~liver, sampling=grid.spacing_mm) <= LIVER_MARGIN_MM if liver.any() else liver
    )
    labels = _divided(_grown(probability * reach), grid)
    parenchyma = probabilities[channels.index("liver")]
    labels, candidates = _judged(labels, probability, per_class, grid, parenchyma, coarse_liver, min_score)
    return LesionMap(grid, probability, liver_probability, labels, candidates)


def on_source(found: LesionMap, reference: sitk.Image) -> SourceMasks:
    """Masks on the grid of the source images, from interpolated probabilities, so that outlines are smooth.

    reference : the portal-venous image, for its geometry.
    Raises ValueError if the working grid does not meet the image.
    """
    box = region_of(reference, found.grid)
    if box is None:
        raise ValueError("the working grid does not meet the source images")
    part = cut(reference, box)
    liver = largest_piece(back_onto(part, found.grid, found.liver_probability) > 0.5)
    if not found.candidates:
        return SourceMasks(box, (), liver)
    probability = back_onto(part, found.grid, found.probability)
    nearest_labels = back_onto(part, found.grid, _spread(found.labels, found.grid), nearest=True)
    slices = ndimage.find_objects(nearest_labels, max_label=len(found.candidates))
    masks = []
    for candidate, where in zip(found.candidates, slices, strict=True):
        mask = np.zeros(probability.shape, dtype=bool)
        if where is not None:
            limit = _outline(candidate.peak)
            mask[where] = (nearest_labels[where] == candidate.label) & (probability[where] > limit)
        if not mask.any():
            mask[_nearest_voxel(found, candidate.label, part)] = True
        masks.append(mask)
    return SourceMasks(box, tuple(masks), liver)


def _outline(peak: float) -> float:
    """Probability at a lesion's edge: even odds, or less where the network is nowhere sure."""
    return min(0.5, 0.6 * peak)


def _grown(probability: NDArray[np.float32]) -> NDArray[np.int32]:
    """Hysteresis: pieces over the lower limit that hold a voxel over the upper one."""
    labels, count = ndimage.label(probability > GROW_PROBABILITY)
    if count == 0:
        return labels
    keep = np.zeros(count + 1, dtype=bool)
    keep[labels[probability >= SEED_PROBABILITY]] = True
    keep[0] = False
    grown: NDArray[np.int32] = np.where(keep[labels], labels, 0).astype(np.int32)
    return grown


def _divided(labels: NDArray[np.int32], grid: Grid) -> NDArray[np.int32]:
    """Touching lesions told apart by a watershed on the depth inside; labels are renumbered from 1."""
    divided = np.zeros_like(labels)
    count = 0
    for label, where in enumerate(ndimage.find_objects(labels), start=1):
        if where is None:
            continue
        piece = np.pad(labels[where] == label, 1)
        depth = ndimage.distance_transform_edt(piece, sampling=grid.spacing_mm).astype(np.float32)
        parts = sitk.GetArrayFromImage(
            sitk.MorphologicalWatershed(
                image_on(grid, -depth), level=NECK_MM, markWatershedLine=False, fullyConnected=True
            )
        )
        parts = np.where(piece, parts, 0)[1:-1, 1:-1, 1:-1]
        names = np.unique(parts[parts > 0])
        for name in names:
            count += 1
            divided[where][parts == name] = count
    return divided


def _judged(
    labels: NDArray[np.int32],
    probability: NDArray[np.float32],
    per_class: Sequence[NDArray[np.float32]],
    grid: Grid,
    parenchyma: NDArray[np.float32],
    coarse_liver: NDArray[np.bool_] | None,
    min_score: float,
) -> tuple[NDArray[np.int32], tuple[Candidate, ...]]:
    """Drop specks and what lies beside the liver; give the others score and class, renumbered from 1."""
    kept = np.zeros_like(labels)
    candidates: list[Candidate] = []
    for label, where in enumerate(ndimage.find_objects(labels), start=1):
        if where is None:
            continue
        inside = labels[where] == label
        values = probability[where][inside]
        # a part that the watershed cut off may hold no seed of its own
        if inside.sum() * grid.voxel_mm3 < MIN_VOLUME_MM3 or values.max() < SEED_PROBABILITY:
            continue
        if not _is_in_liver(labels, label, where, grid, parenchyma, coarse_liver):
            continue
        score = float(np.sort(values)[-SCORE_VOXELS:].mean(dtype=np.float64))
        if score < min_score:
            continue
        sums = np.asarray([channel[where][inside].sum(dtype=np.float64) for channel in per_class])
        shares = sums / sums.sum()
        number = len(candidates) + 1
        kept[where][inside] = number
        candidates.append(
            Candidate(
                label=number,
                score=score,
                peak=float(values.max()),
                class_probabilities={name: float(share) for name, share in zip(CLASSES, shares, strict=True)},
            )
        )
    return kept, tuple(candidates)


def _is_in_liver(
    labels: NDArray[np.int32],
    label: int,
    where: tuple[slice, slice, slice],
    grid: Grid,
    parenchyma: NDArray[np.float32],
    coarse_liver: NDArray[np.bool_] | None,
) -> bool:
    """Whether a piece lies in the liver by the coarse network, and amid liver by the fine one."""
    if coarse_liver is not None and coarse_liver[where][labels[where] == label].mean() < MIN_IN_LIVER:
        return False
    reach = [int(np.ceil(SHELL_MM / step)) for step in grid.spacing_mm]
    wider = tuple(slice(max(0, w.start - r), w.stop + r) for w, r in zip(where, reach, strict=True))
    inside = labels[wider] == label
    shell = (ndimage.distance_transform_edt(~inside, sampling=grid.spacing_mm) <= SHELL_MM) & ~inside
    shell &= labels[wider] == 0  # a neighbouring lesion says nothing either way
    return not shell.any() or float(parenchyma[wider][shell].mean()) >= MIN_SURROUNDED


def _spread(labels: NDArray[np.int32], grid: Grid) -> NDArray[np.int32]:
    """Labels spread two voxels outwards, so that the interpolated outline decides where each lesion ends."""
    distance, nearest = ndimage.distance_transform_edt(labels == 0, sampling=grid.spacing_mm, return_indices=True)
    spread: NDArray[np.int32] = np.where(distance <= 2 * max(grid.spacing_mm), labels[tuple(nearest)], 0)
    return spread.astype(np.int32)


def _nearest_voxel(found: LesionMap, label: int, part: sitk.Image) -> tuple[int, int, int]:
    """The source voxel nearest to the lesion's most probable voxel."""
    inside = found.labels == label
    low, high = bounds(inside)
    where = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    values = np.where(inside[where], found.probability[where], -1.0)
    peak = np.asarray(np.unravel_index(int(np.argmax(values)), values.shape)) + low
    point = found.grid.positions_mm(peak[np.newaxis].astype(np.float64))[0].tolist()
    index = np.asarray(part.TransformPhysicalPointToIndex(point))
    x, y, z = np.clip(index, 0, np.asarray(part.GetSize()) - 1).tolist()
    return z, y, x
