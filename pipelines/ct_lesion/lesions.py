"""Probability maps -> lesions, each with its voxels, score and class.

The maps lie on the grid of the ct_lesion bundle; the masks are wanted on the grid of the portal-venous images.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk  # noqa: N813 - its own documentation's name
from numpy.typing import NDArray
from scipy import ndimage

from pipelines.ct_lesion.grid import Grid, back_onto, bounds, cut, region_of
from pipelines.ct_lesion.localisation import largest_piece
from pipelines.ct_lesion.review import Verdict

CLASSES = ("HCC", "ICC", "MET", "FNH", "HEM", "CYST")
MALIGNANT = frozenset({"HCC", "ICC", "MET"})

#: A candidate needs a voxel at least this probable and reaches as far as REACH of that; the next lower level is asked
#: only where the levels before found nothing.
LEVELS = (0.5, 0.3, 0.15, 0.07)
REACH = 0.6
#: Lesions scored lower are not reported; chosen on phantoms of their own, apart from those that the model card reports.
MIN_SCORE = 0.8
#: Smallest lesion, about a sphere of 3.5 mm.
MIN_VOLUME_MM3 = 20.0
#: Lesions may reach this far out of the segmented liver.
LIVER_MARGIN_MM = 6.0
#: A lesion lies in the liver: so much of it within the liver of the coarse network ...
MIN_IN_LIVER = 0.4
#: ... and so much of the shell around it (mean probability) is liver. Kidney, stomach and gallbladder, which the
#: network may take for lesions where they touch the liver, fail in both.
MIN_SURROUNDED = 0.3
SHELL_MM = 4.5
#: Two touching lesions are told apart when the neck between them is this much thinner (radius) than either.
NECK_MM = 2.5


@dataclass(frozen=True)
class Candidate:
    """One lesion on the bundle's grid."""

    label: int  # in LesionMap.labels
    score: float  # 0..1, probability that it is a lesion
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


@dataclass(frozen=True)
class Proposals:
    """Where lesions may be; most proposals are false, and a second network looks at each of them."""

    lesion: NDArray[np.float32]  # [slice, row, column] probability of any lesion
    liver: NDArray[np.float32]  # [slice, row, column] probability of liver or lesion
    labels: NDArray[np.int32]  # [slice, row, column], 0 = none


def proposals(
    probabilities: NDArray[np.float32],
    channels: Sequence[str],
    spacing_mm: tuple[float, float, float],
    within: NDArray[np.bool_] | None = None,
    coarse_liver: NDArray[np.bool_] | None = None,
) -> Proposals:
    """Divide the network's output into candidates.

    probabilities : float32 [channel, slice, row, column] at this spacing, summing to 1 over the channels.
    channels : names, with "liver" and every name of CLASSES.
    within : bool [slice, row, column], where lesions and liver may be; None: everywhere.
    coarse_liver : bool [slice, row, column], the liver with its lesions as the other network sees it; None: not asked.
    """
    lesion: NDArray[np.float32] = np.asarray(
        np.sum([probabilities[channels.index(name)] for name in CLASSES], axis=0, dtype=np.float32)
    )
    parenchyma = probabilities[channels.index("liver")]
    liver = lesion + parenchyma
    if within is not None:
        lesion, liver = lesion * within, liver * within
    organ = largest_piece(liver > 0.5)
    reach = organ
    if organ.any():
        reach = ndimage.distance_transform_edt(~organ, sampling=spacing_mm) <= LIVER_MARGIN_MM
    smallest = max(1, int(np.ceil(MIN_VOLUME_MM3 / np.prod(spacing_mm))))
    labels = _divided(_grown(np.where(reach, lesion, 0).astype(np.float32), smallest), spacing_mm)
    return Proposals(np.asarray(lesion), np.asarray(liver), _plausible(labels, spacing_mm, parenchyma, coarse_liver))


def find_lesions(
    proposed: Proposals, verdicts: Mapping[int, Verdict], grid: Grid, min_score: float = MIN_SCORE
) -> LesionMap:
    """Keep the candidates that are lesions.

    verdicts : by label; a candidate without one is dropped, as is one scored below min_score.
    grid : that of the proposals.
    """
    labels, candidates = _kept(proposed.labels, proposed.lesion, verdicts, min_score)
    return LesionMap(grid, proposed.lesion, proposed.liver, labels, candidates)


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


def _grown(probability: NDArray[np.float32], smallest: int) -> NDArray[np.int32]:
    """Hysteresis, level by level: pieces that hold a voxel over the level and nothing found before.

    Pieces of less than `smallest` voxels are left out. A piece over the level whose surroundings run into something
    found before is taken as it is, unless it touches that.
    """
    grown = np.zeros(probability.shape, dtype=np.int32)
    for level in LEVELS:
        for reach in (REACH * level, level):
            pieces, count = ndimage.label(probability >= reach)
            keep = np.zeros(count + 1, dtype=bool)
            keep[pieces[probability >= level]] = True
            keep[pieces[grown > 0 if reach < level else ndimage.binary_dilation(grown > 0, np.ones((3, 3, 3)))]] = False
            keep &= np.bincount(pieces.ravel(), minlength=count + 1) >= smallest
            keep[0] = False
            names = np.where(keep, np.cumsum(keep) + int(grown.max()), 0).astype(np.int32)
            grown = np.where(keep[pieces], names[pieces], grown)
    return grown


def _divided(labels: NDArray[np.int32], spacing_mm: tuple[float, float, float]) -> NDArray[np.int32]:
    """Touching lesions told apart by a watershed on the depth inside; labels are renumbered from 1."""
    divided = np.zeros_like(labels)
    count = 0
    for label, where in enumerate(ndimage.find_objects(labels), start=1):
        if where is None:
            continue
        piece = np.pad(labels[where] == label, 1)
        depth = ndimage.distance_transform_edt(piece, sampling=spacing_mm).astype(np.float32)
        image = sitk.GetImageFromArray(-depth)
        parts = sitk.GetArrayFromImage(
            sitk.MorphologicalWatershed(image, level=NECK_MM, markWatershedLine=False, fullyConnected=True)
        )
        parts = np.where(piece, parts, 0)[1:-1, 1:-1, 1:-1]
        names = np.unique(parts[parts > 0])
        for name in names:
            count += 1
            divided[where][parts == name] = count
    return divided


def _plausible(
    labels: NDArray[np.int32],
    spacing_mm: tuple[float, float, float],
    parenchyma: NDArray[np.float32],
    coarse_liver: NDArray[np.bool_] | None,
) -> NDArray[np.int32]:
    """Without specks and without what lies beside the liver."""
    plausible = labels.copy()
    for label, where in enumerate(ndimage.find_objects(labels), start=1):
        if where is None:
            continue
        inside = labels[where] == label
        if inside.sum() * np.prod(spacing_mm) < MIN_VOLUME_MM3 or not _is_in_liver(
            labels, label, where, spacing_mm, parenchyma, coarse_liver
        ):
            plausible[where][inside] = 0
    return plausible


def _kept(
    labels: NDArray[np.int32],
    probability: NDArray[np.float32],
    verdicts: Mapping[int, Verdict],
    min_score: float,
) -> tuple[NDArray[np.int32], tuple[Candidate, ...]]:
    """Candidates judged to be lesions, renumbered from 1."""
    kept = np.zeros_like(labels)
    candidates: list[Candidate] = []
    for label, where in enumerate(ndimage.find_objects(labels), start=1):
        verdict = verdicts.get(label)
        if where is None or verdict is None or verdict.score < min_score:
            continue
        inside = labels[where] == label
        number = len(candidates) + 1
        kept[where][inside] = number
        peak = float(probability[where][inside].max())
        candidates.append(Candidate(number, verdict.score, peak, dict(verdict.class_probabilities)))
    return kept, tuple(candidates)


def _is_in_liver(
    labels: NDArray[np.int32],
    label: int,
    where: tuple[slice, slice, slice],
    spacing_mm: tuple[float, float, float],
    parenchyma: NDArray[np.float32],
    coarse_liver: NDArray[np.bool_] | None,
) -> bool:
    """Whether a piece lies in the liver by the coarse network, and amid liver by the fine one."""
    if coarse_liver is not None and coarse_liver[where][labels[where] == label].mean() < MIN_IN_LIVER:
        return False
    reach = [int(np.ceil(SHELL_MM / step)) for step in spacing_mm]
    wider = tuple(slice(max(0, w.start - r), w.stop + r) for w, r in zip(where, reach, strict=True))
    inside = labels[wider] == label
    shell = (ndimage.distance_transform_edt(~inside, sampling=spacing_mm) <= SHELL_MM) & ~inside
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
