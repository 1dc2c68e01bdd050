"""Pictures of what the node answered: slices of both phases with the lesions' outlines, as PNG."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pydicom
from numpy.typing import NDArray

matplotlib.use("Agg")
from matplotlib import pyplot

WINDOW_HU = (-60, 220)
MAX_ROWS = 2
APART_SLICES = 6
OUTLINES = ("#ffb000", "#ff5c5c", "#5cc8ff", "#7dff7a", "#ff7af2", "#f4ff5c")


def draw_ct_lesions(
    phases: Mapping[str, Sequence[pydicom.Dataset]], segmentation: pydicom.Dataset | None, title: str, target: Path
) -> None:
    """Draw the slices with the largest lesions, one column per phase; without a lesion, the middle slice.

    phases : phase name -> datasets with pixels; the last one is the phase that the segmentation refers to.
    segmentation : a binary DICOM SEG whose lesion segments are labelled "Lesion …".
    """
    names = list(phases)
    reference = sorted(phases[names[-1]], key=_height)
    outlines = _lesion_outlines(segmentation) if segmentation is not None else {}
    areas = {uid: sum(int(mask.sum()) for _, mask in masks) for uid, masks in outlines.items()}
    chosen = _spread(areas, reference)
    size = (5 * len(names), 5 * len(chosen) + 0.4)
    figure, axes = pyplot.subplots(len(chosen), len(names), squeeze=False, figsize=size)
    for row, slice_ in enumerate(chosen):
        for column, name in enumerate(names):
            dataset = min(phases[name], key=lambda other: abs(_height(other) - _height(slice_)))
            axis = axes[row][column]
            axis.imshow(_hounsfield(dataset), cmap="gray", vmin=WINDOW_HU[0], vmax=WINDOW_HU[1])
            for segment, (label, mask) in enumerate(outlines.get(slice_.SOPInstanceUID, [])):
                colour = OUTLINES[segment % len(OUTLINES)]
                axis.contour(mask, levels=[0.5], colors=[colour], linewidths=1.2)
                top, left = np.argwhere(mask).min(axis=0)
                axis.text(left, top - 6, label, color=colour, fontsize=7)
            axis.set_title(f"{name}, z {_height(dataset):.0f} mm", fontsize=9)
            axis.set_axis_off()
    figure.suptitle(title, fontsize=10)
    figure.tight_layout(rect=(0, 0, 1, 0.96))
    figure.savefig(target, dpi=90)
    pyplot.close(figure)


def _spread(areas: Mapping[str, int], reference: Sequence[pydicom.Dataset]) -> list[pydicom.Dataset]:
    """Slices to show: the one with most lesion first, then others that are not its neighbours."""
    index = {dataset.SOPInstanceUID: position for position, dataset in enumerate(reference)}
    chosen: list[int] = []
    for uid in sorted(areas, key=lambda uid: -areas[uid]):
        if len(chosen) < MAX_ROWS and all(abs(index[uid] - other) >= APART_SLICES for other in chosen):
            chosen.append(index[uid])
    return [reference[position] for position in (sorted(chosen) or [len(reference) // 2])]


def _lesion_outlines(segmentation: pydicom.Dataset) -> dict[str, list[tuple[str, NDArray[np.bool_]]]]:
    """Source SOP Instance UID -> [(segment label, mask)] for the lesion segments."""
    labels = {int(item.SegmentNumber): str(item.SegmentLabel) for item in segmentation.SegmentSequence}
    frames = np.atleast_3d(segmentation.pixel_array)
    if frames.ndim == 3 and segmentation.NumberOfFrames == 1:
        frames = segmentation.pixel_array[None]
    found: dict[str, list[tuple[str, NDArray[np.bool_]]]] = {}
    shared = segmentation.SharedFunctionalGroupsSequence[0]
    for frame, groups in zip(frames, segmentation.PerFrameFunctionalGroupsSequence, strict=True):
        identification = groups.get("SegmentIdentificationSequence") or shared.SegmentIdentificationSequence
        label = labels[int(identification[0].ReferencedSegmentNumber)]
        if not label.startswith("Lesion"):
            continue
        source = groups.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        found.setdefault(str(source), []).append((label, frame > 0))
    return found


def _hounsfield(dataset: pydicom.Dataset) -> NDArray[np.float64]:
    return dataset.pixel_array * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)


def _height(dataset: pydicom.Dataset) -> float:
    return float(dataset.ImagePositionPatient[2])
