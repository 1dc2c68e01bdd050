"""The voxels of a SEG against the masks that the pipeline found, and the values of a map against those it reckoned."""

from collections.abc import Sequence

import numpy as np

from dicom_node.encoding.read_back.documents import ReadMap
from dicom_node.encoding.read_back.images import Place
from dicom_node.encoding.read_back.segmentation import ReadSegmentation
from dicom_node.encoding.segmentation import Segment
from dicom_node.encoding.sources import SourceStack
from pipelines.findings import Map


def check_masks(found: ReadSegmentation, segments: Sequence[Segment], stack: SourceStack) -> None:
    """Each Segment has the voxels of its mask, all of them and no other. Raises InvalidResult.

    segments : with masks [slice, row, column] on the grid of `stack`. In a label map a voxel of several masks belongs
        to one of them, so there only what it shows is compared.
    """
    by_uid = {segment.tracking_uid: segment for segment in segments}
    named = {item.text("TrackingUID"): number for number, item in found.segments.items()}
    if by_uid.keys() != named.keys():
        raise found.result.fault(f"has the Segments of {sorted(named)}; the findings are {sorted(by_uid)}.")
    index_of = _index_of(stack)
    masks = {named[uid]: segment.mask for uid, segment in by_uid.items()}
    for frame, place in enumerate(found.places):
        index = index_of.get(place)
        if index is None:
            raise found.result.fault(f"frame {frame + 1} lies on an image outside of the stack of the masks.")
        if found.numbers is None:
            labels = found.labels[frame]
            for number in (int(value) for value in np.unique(labels) if value):
                if (labels == number)[~masks[number][index]].any():
                    raise found.result.fault(f"frame {frame + 1} has voxels of Segment {number} outside of its mask.")
            if ((labels == 0) & np.any([mask[index] for mask in masks.values()], axis=0)).any():
                raise found.result.fault(f"frame {frame + 1} leaves out voxels of a mask.")
        elif not np.array_equal(
            found.packed[frame], np.packbits(masks[found.numbers[frame]][index].ravel(), bitorder="little")
        ):
            raise found.result.fault(f"frame {frame + 1} is not the mask of Segment {found.numbers[frame]}.")
    if found.numbers is not None:
        voxels = {named[uid]: segment.voxels for uid, segment in by_uid.items()}
        if wrong := sorted(number for number, count in voxels.items() if found.voxels.get(number) != count):
            raise found.result.fault(f"Segments {wrong} do not have all voxels of their masks.")


def check_values(found: ReadMap, maps: Sequence[Map], stack: SourceStack) -> None:
    """A Parametric Map has the values of one of the answer's maps, at their places. Raises InvalidResult."""
    index_of = _index_of(stack)
    order = [index_of[place] for place in found.places if place in index_of]
    for map_ in maps:
        wanted = map_.values[order]
        if wanted.shape != found.values.shape:
            continue
        nowhere = np.isnan(wanted)
        if np.array_equal(np.where(nowhere, np.float32(found.padding), wanted), found.values, equal_nan=True):
            return
    raise found.result.fault("its values are those of no map of the answer.")


def _index_of(stack: SourceStack) -> dict[Place, int]:
    """Where on the slice axis an image or frame is; the only frame of an image counts as the image."""
    found: dict[Place, int] = {}
    for index, item in enumerate(stack.slices):
        found[item.sop_instance_uid, item.frame_number] = index
        if item.frame_number == 1:
            found[item.sop_instance_uid, None] = index
    return found
